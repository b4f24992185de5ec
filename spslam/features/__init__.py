"""Features and matches of many images as files of other programs: HDF5 and COLMAP databases."""
