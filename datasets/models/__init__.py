"""Read reconstructions as recordings: images with intrinsics and poses."""
