"""Images to features to matches."""
