"""Scenes, viewers and videos."""
