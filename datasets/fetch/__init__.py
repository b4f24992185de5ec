"""Download and unpack public sequences."""
