"""The steps of a run around SLAM: prefetching, input checks, metric scale, output, metrics."""
