"""The comparison of a run with the ground truth of its sequence."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from spslam.errors import Refusal
from spslam.evaluation.ate import Evaluation
from spslam.run.results import compare
from spslam.trajectory import Trajectory


def path(count: int) -> Trajectory:
    """Poses of a camera on a circle, ten a second."""
    T_world_cam = np.tile(np.eye(4), (count, 1, 1))
    angles = 0.2 * np.arange(count)
    T_world_cam[:, 0, 3], T_world_cam[:, 2, 3] = np.cos(angles), np.sin(angles)
    return Trajectory(0.1 * np.arange(count, dtype=np.float64), T_world_cam, "left camera")


def test_a_run_is_compared_with_its_ground_truth() -> None:
    found = compare(path(10), SimpleNamespace(ground_truth=path(10)), "se3")
    assert isinstance(found, Evaluation)
    assert found.absolute.statistics.rmse == pytest.approx(0.0, abs=1e-9)


def test_no_ground_truth_is_refused_without_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = compare(path(10), SimpleNamespace(ground_truth=None), "se3")
    assert found == Refusal("the sequence has no ground truth")
    assert str(found) == "the sequence has no ground truth"
    assert caplog.text == ""


def test_a_failed_comparison_is_refused_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = compare(path(2), SimpleNamespace(ground_truth=path(10)), "se3")
    assert isinstance(found, Refusal)
    assert f"no comparison with the ground truth: {found}" in caplog.text


def test_an_error_without_text_is_named_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("spslam.run.results.evaluate", broken)
    found = compare(path(10), SimpleNamespace(ground_truth=path(10)), "se3")
    assert found == Refusal("ZeroDivisionError")
