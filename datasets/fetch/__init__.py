"""Download of public sequences."""
