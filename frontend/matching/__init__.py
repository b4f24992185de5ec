"""Descriptor matching, stereo matching and point tracks."""
