"""Solvers: pose, bundle adjustment, pose graph, two-view geometry and place recognition."""
