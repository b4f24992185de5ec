"""Images: lists, names, decoding."""
