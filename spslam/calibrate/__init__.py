"""Calibrate cameras from a recording itself or from pictures of a board."""
