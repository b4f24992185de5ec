"""Feature extractors: SuperPoint, those of OpenCV, plug-ins; their cache."""
