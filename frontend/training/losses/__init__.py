"""Losses for training."""
