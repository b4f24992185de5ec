"""The values of a configuration reach their components."""

from __future__ import annotations

from pathlib import Path

import pytest

from spslam.backend.bundle import SchurBundleAdjuster
from spslam.backend.pose import PnPSolver
from spslam.backend.two_view import EpipolarSolver
from spslam.config import load_config
from spslam.factory import build_components
from spslam.frontend.engines.engine import usable_cores


def test_values_reach_their_components() -> None:
    values = {
        "features.extractor": "orb",
        "features.pixel_sigma": 1.7,
        "initialization.min_parallax_deg": 2.5,
        "initialization.min_points": 33,
        "mapping.min_parallax_deg": 0.7,
        "tracking.min_inliers": 17,
        "tracking.huber": False,
        "bundle.iterations": 3,
        "global_bundle.iterations": 7,
        "seed": 5,
    }
    components = build_components(
        load_config("default", [f"{key}={value}" for key, value in values.items()])
    )
    assert isinstance(components.two_view, EpipolarSolver)
    assert isinstance(components.pose_solver, PnPSolver)
    assert isinstance(components.bundle, SchurBundleAdjuster)
    assert components.extractor.name == "orb"
    assert (components.two_view.min_parallax_deg, components.two_view.min_point_parallax_deg) == (
        2.5,
        0.7,
    )
    assert components.two_view.min_points == 33
    assert (components.pose_solver.min_inliers, components.pose_solver.huber) == (17, False)
    assert (components.two_view.seed, components.pose_solver.seed) == (5, 5)
    assert isinstance(components.global_bundle, SchurBundleAdjuster)
    assert (components.bundle.iterations, components.global_bundle.iterations) == (3, 7)
    for part in (
        components.two_view,
        components.pose_solver,
        components.bundle,
        components.global_bundle,
    ):
        assert part.pixel_sigma == pytest.approx(1.7)


@pytest.mark.parametrize(
    ("offline", "overrides", "expected"),
    [
        (False, ["features.threads=4"], 1),
        (True, ["features.threads=4"], 2),
        (True, ["features.threads=1"], 1),
        (True, [], min(2, usable_cores())),
        (True, ["features.threads=4", "features.max_concurrency=1"], 1),
        (False, ["features.threads=4", "features.max_concurrency=3"], 3),
        (True, ["features.threads=4", "features.engine=torch"], 1),
        (True, ["features.extractor=orb"], 1),
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_number_of_concurrently_processed_images(
    offline: bool, overrides: list[str], expected: int, cached: bool, tmp_path: Path
) -> None:
    """Several in offline runs, at most one per thread, and only if the front end supports it."""
    components = build_components(
        load_config("default", overrides), tmp_path if cached else None, offline
    )
    assert components.extractor.max_concurrency == expected
