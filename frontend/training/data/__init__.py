"""Data of the training."""
