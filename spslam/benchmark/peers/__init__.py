"""Runs of other SLAM systems beside ours, in turns."""
