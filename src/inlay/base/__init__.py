"""Frozen pretrained models: where they come from, what they are made of, how they encode, predict and decode."""
