"""What a run does beside SLAM: prefetching, output, metrics."""
