"""Matching of descriptors, stereo pairs, tracks of points."""
