"""Runs side by side: what they made, what it cost, and what of it may be compared."""
