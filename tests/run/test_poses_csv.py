"""poses.csv: poses and covariances as they are, empty fields where there are none."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spslam import geometry
from spslam.run.metrics import RunRecord
from spslam.run.poses_csv import COLUMNS, COVARIANCE_COLUMNS, write_poses
from spslam.slam.recorder import FramePoses
from spslam.slam.track_results import TrackResult, TrackState

XI = np.array([[0.1, -2.0, 3.0, 0.2, 0.1, -0.4], [1.0, 0.0, -1.0, 3.0, 0.0, 0.3]])
FACTOR = np.random.default_rng(0).normal(size=(6, 6))
COVARIANCE = FACTOR @ FACTOR.T * 1e-6


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, str]]:
    """Frame 5: a pose without covariance; 6: none; 7: a pose in submap 2, rescaled by 10."""
    record = RunRecord(
        results=[
            TrackResult(5, 0.25, TrackState.INITIALIZING),
            TrackResult(6, 0.3, TrackState.LOST),
            TrackResult(7, 1700000000.123456789, TrackState.TRACKING, covariance=COVARIANCE),
        ]
    )
    poses = FramePoses(
        np.array([0.25, 1700000000.123456789]),
        np.array([0, 2]),
        geometry.se3_exp(XI),
        np.array([1.0, 10.0]),
    )
    write_poses(tmp_path / "poses.csv", record, poses)
    with (tmp_path / "poses.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert tuple(found[0]) == COLUMNS
    return found


def numbers(row: dict[str, str], names: Any) -> np.ndarray:
    return np.array([float(row[name]) for name in names])


def test_what_is_unknown_is_empty(rows: list[dict[str, str]]) -> None:
    assert [row["frame"] for row in rows] == ["5", "6", "7"]
    assert [row["state"] for row in rows] == ["initializing", "lost", "tracking"]
    assert [row["submap"] for row in rows] == ["0", "", "2"]
    assert {rows[0][name] for name in COVARIANCE_COLUMNS} == {""}
    assert {rows[1][name] for name in COLUMNS[3:]} == {""}
    assert rows[0]["timestamp"] == "0.250000000"


def test_poses_and_covariances_are_read_back(rows: list[dict[str, str]]) -> None:
    for row, T in zip((rows[0], rows[2]), geometry.se3_exp(XI), strict=True):
        found = numbers(row, COLUMNS[4:11])
        rotation = geometry.quaternion_to_rotation(found[None, 3:])[0]
        np.testing.assert_allclose(found[:3], T[:3, 3], rtol=1e-9)
        np.testing.assert_allclose(rotation, T[:3, :3], atol=1e-9)
    covariance = np.zeros((6, 6))
    covariance[np.triu_indices(6)] = numbers(rows[2], COVARIANCE_COLUMNS)
    units = np.array([10.0, 10.0, 10.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(covariance, np.triu(COVARIANCE * np.outer(units, units)), rtol=1e-9)


def test_the_covariance_is_that_of_errors_in_the_axes_of_the_camera() -> None:
    """exp(ξ) T_cam_world, which the solver perturbs, is the inverse of T_world_cam exp(-ξ)."""
    T, xi = geometry.se3_exp(XI[0]), 1e-3 * XI[1]
    left = geometry.se3_exp(xi) @ geometry.inverse(T)
    np.testing.assert_allclose(geometry.inverse(left), T @ geometry.se3_exp(-xi), atol=1e-12)
