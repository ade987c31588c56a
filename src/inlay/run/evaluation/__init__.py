"""Measuring what a model draws: during training, and on what is there already."""
