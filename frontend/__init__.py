"""The front end: from images to features, and from features to matches."""
