"""Read folders and lists of images: decoding, file names, time stamps."""
