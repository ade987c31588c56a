"""Assemble the parts: run files, plans and runs."""
