"""Masks: which pixels of the images are used."""
