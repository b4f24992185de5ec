"""Accuracy of trajectories: ATE, RPE and KITTI drift."""
