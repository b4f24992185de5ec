"""The timed stages do their work: a matcher that finds nothing would be fast, too."""

from __future__ import annotations

from typing import Any

import numpy as np

from spslam.backend.pose import PnPSolver
from spslam.benchmark.speed_stages import time_tracking_stages
from spslam.frontend.matching.matching import DescriptorMatcher


def test_the_timed_stages_find_matches_and_poses() -> None:
    found: dict[str, Any] = {}

    class Matcher(DescriptorMatcher):
        def match_near(self, *args: Any, **options: Any) -> Any:
            found["matches0"] = super().match_near(*args, **options)
            return found["matches0"]

    class Solver(PnPSolver):
        def refine(self, *args: Any, **options: Any) -> Any:
            found["pose"] = super().refine(*args, **options)
            return found["pose"]

    timings = time_tracking_stages(Matcher(), Solver(pixel_sigma=0.7), rounds=2, descriptor_dim=64)
    assert [timing.count for timing in timings.values()] == [2, 2]
    assert np.mean(found["matches0"][:1000] == np.arange(1000)) > 0.99
    assert np.count_nonzero(found["matches0"][1000:] >= 0) == 0
    np.testing.assert_allclose(found["pose"].T_cam_world, np.eye(4), atol=0.02)
    assert 360 < np.count_nonzero(found["pose"].inliers) <= 400
