"""Evaluation of detectors and descriptors."""
