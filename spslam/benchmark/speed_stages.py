"""Time the steps of tracking alone, on random input of fixed size."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from spslam import geometry
from spslam.backend_interfaces import PoseSolver
from spslam.camera import Camera
from spslam.interfaces import Matcher
from spslam.process.timing import Timing

# Keypoints of the image and map points to match; matches for the pose.
_KEYPOINTS, _POINTS, _MATCHES = 1000, 2000, 500
# Search radius, pixels, and largest distance of matching descriptors.
_GATE_PX, _MAX_DESCRIPTOR_DISTANCE = 24.0, 0.75
# Fraction of wrong matches for the pose.
_OUTLIERS = 0.2
_CAMERA = Camera(640, 480, 500.0, 500.0, 319.5, 239.5, baseline_m=0.1)


def time_tracking_stages(
    matcher: Matcher, pose_solver: PoseSolver, rounds: int, descriptor_dim: int
) -> dict[str, Timing]:
    """Time matching by radius search, and the refinement of a stereo pose.

    Matching: 2,000 projected points, half of them true, with 1,000 keypoints within 24 px. Pose:
    500 matches, a fifth of them wrong; the initial pose is off by 2° and 5 cm.

    Args:
        matcher: matcher to time.
        pose_solver: pose solver to time.
        rounds: measurements of each.
        descriptor_dim: numbers in a descriptor.
    """
    rng = np.random.default_rng(0)
    size = [_CAMERA.width, _CAMERA.height]
    pixels1 = rng.uniform(0, size, (_KEYPOINTS, 2))
    pixels0 = np.concatenate(
        [pixels1 + rng.normal(0, 3, pixels1.shape), rng.uniform(0, size, pixels1.shape)]
    )
    descriptors = rng.normal(size=(_POINTS, descriptor_dim)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)

    points = np.column_stack(
        [rng.uniform([-3, -2], [3, 2], (_MATCHES, 2)), rng.uniform(4, 20, _MATCHES)]
    )
    points[:, :2] *= points[:, 2:] / 6
    observed = _CAMERA.project(points) + rng.normal(0, 0.7, (_MATCHES, 2))
    observed[: int(_OUTLIERS * _MATCHES)] += rng.uniform(5, 20, (int(_OUTLIERS * _MATCHES), 2))
    u_right = (
        _CAMERA.project(points)[:, 0] - _CAMERA.bf / points[:, 2] + rng.normal(0, 0.7, _MATCHES)
    )
    start = geometry.se3_exp(np.array([0.03, 0.03, 0.03, 0.02, 0.02, 0.02]))

    def match() -> object:
        return matcher.match_near(
            pixels0,
            descriptors,
            pixels1,
            descriptors[:_KEYPOINTS],
            _GATE_PX,
            _MAX_DESCRIPTOR_DISTANCE,
        )

    def refine() -> object:
        return pose_solver.refine(start, points, observed, u_right, _CAMERA)

    parts = {"matching 1,000 × 2,000 in a gate": match, "pose from 500 matches": refine}
    milliseconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            begin = perf_counter()
            part()
            milliseconds[name].append((perf_counter() - begin) * 1e3)
    return {name: Timing.of(times) for name, times in milliseconds.items()}
