"""inlay trains, tunes and compares diffusion models efficiently."""

__version__ = "0.1.0"
