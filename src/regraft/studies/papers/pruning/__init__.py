"""Thesis 5: ways to find a sparse network before, during and after training, and what they find."""
