"""What trained models are measured by: features, distances, alignment, fidelity."""
