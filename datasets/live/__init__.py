"""Cameras that are read while they see: V4L2 and other system cameras, RealSense, OAK."""
