"""Reports of studies, from records alone: tables, pictures, and what they support in plain words. Needs no torch."""
