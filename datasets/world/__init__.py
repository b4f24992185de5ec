"""Render the built-in worlds, and disturb recordings."""
