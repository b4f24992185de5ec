"""Rendered worlds, and disturbances of recordings."""
