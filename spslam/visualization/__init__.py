"""Scenes, viewers, pictures and videos."""
