"""Accuracy of trajectories: ATE, RPE, KITTI's drift."""
