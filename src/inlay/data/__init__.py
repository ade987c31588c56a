"""Pictures and captions: where they come from, how they become tensors, in which order, and what is kept of them."""
