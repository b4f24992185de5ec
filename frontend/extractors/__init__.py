"""The feature extractors (SuperPoint, OpenCV, plug-ins) and the feature cache."""
