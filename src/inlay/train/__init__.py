"""The training loop and its parts: averaging of weights, learning-rate schedules, checkpoints."""
