"""A learned matcher: an attention network that matches the keypoints of two images."""
