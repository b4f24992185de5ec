"""Tables of peers: ratios within rounds, keyframes, failures."""

from __future__ import annotations

from pathlib import Path

import pytest
from recordings.peer_runs import peer_row

from spslam.benchmark.peers.tables import (
    RATIOS,
    peer_markdown,
    peer_page,
    ratios,
    settings_ratio,
)
from spslam.benchmark.results import Group, Results, Row

ATE = next(ratio for ratio in RATIOS if ratio.title == "ATE")
LOOP = next(ratio for ratio in RATIOS if ratio.title == "loop")
HEAD = {"suite": "peers", "title": "Peers", "metrics": ["ate_rmse_m"], "published": []}


def results(*rows: Row) -> Results:
    return Results(Path("nowhere"), HEAD, rows)


def group(found: Results, system: str) -> Group:
    return next(one for one in found.groups() if one.case.extractor == system)


def test_ratios_are_taken_within_a_round() -> None:
    """The second round is three times as slow for both: the ratio stays."""
    found = results(
        peer_row("spslam", 0, loop_ms=10.0),
        peer_row("X", 0, loop_ms=20.0),
        peer_row("spslam", 1, loop_ms=30.0),
        peer_row("X", 1, loop_ms=60.0),
    )
    spread = ratios(found, group(found, "X"), LOOP)
    assert spread is not None
    assert (spread.min, spread.max, spread.runs) == (0.5, 0.5, 2)
    assert "**0.500 (0.500–0.500)**" in peer_markdown(found)


def test_times_of_different_calls_are_not_compared() -> None:
    found = results(
        peer_row("spslam", loop_ms=10.0, session="a"),
        peer_row("X", loop_ms=20.0, session="b", ate_rmse_m=0.1),
    )
    assert ratios(found, group(found, "X"), LOOP) is None
    spread = ratios(found, group(found, "X"), ATE)
    assert spread is not None
    assert spread.median == pytest.approx(2.0)


def test_errors_of_different_frames_are_not_compared() -> None:
    found = results(
        peer_row("spslam", loop_ms=10.0),
        peer_row("X", loop_ms=20.0, tracked=4),
        peer_row("spslam", config="points ×1"),
    )
    assert ratios(found, group(found, "X"), ATE) is None
    assert settings_ratio(found, group(found, "X")) is None
    assert ratios(found, group(found, "X"), LOOP) is not None


def test_a_round_without_ours_has_no_ratio() -> None:
    found = results(peer_row("spslam", reason="it broke"), peer_row("X"))
    assert ratios(found, group(found, "X"), ATE) is None
    text = peer_markdown(found)
    assert "| walk | stereo | spslam | failed |" in text
    assert "it broke" in text


def test_keyframes_are_compared_with_keyframes() -> None:
    found = results(
        peer_row("spslam", keyframes_ate_rmse_m=0.3),
        peer_row("X", scored="keyframes", ate_rmse_m=None, keyframes_ate_rmse_m=0.6),
        peer_row("spslam", config="points ×1", ate_rmse_m=9.0, keyframes_ate_rmse_m=0.3),
    )
    assert ratios(found, group(found, "X"), ATE) is None
    ratio = settings_ratio(found, group(found, "X"))
    assert ratio is not None
    assert ratio == pytest.approx((0.5, 1))
    assert "Keyframes only: X (stereo)" in peer_markdown(found)


def test_the_median_of_settings_counts() -> None:
    points = [
        peer_row("spslam", config=f"points ×{factor}", ate_rmse_m=ate)
        for factor, ate in ((0.85, 0.1), (1, 0.2), (1.2, 9.0))
    ]
    found = results(peer_row("spslam"), peer_row("X", ate_rmse_m=0.4), *points)
    ratio = settings_ratio(found, group(found, "X"))
    assert ratio is not None
    assert ratio == pytest.approx((0.5, 3))
    text = peer_markdown(found)
    assert "0.500 (3 settings)" in text
    assert "points ×0.85" in text


def test_latency_and_drops_of_real_time_runs() -> None:
    found = results(
        peer_row(
            "spslam", config="realtime", image_to_pose_median_ms=12.0, image_to_pose_p95_ms=30.0,
            dropped=2,
        )
    )  # fmt: skip
    assert "| walk | stereo | spslam | 100 % | 2.00 | 12.0 / 30.0 |" in peer_markdown(found)


def test_the_page_has_licences_commands_and_what_is_left_out() -> None:
    page = peer_page(results(peer_row("spslam"), peer_row("X")), ["kitti-00 is not there"])
    assert "Licences. X: GPL-3.0" in page
    assert "- walk stereo X: `run`" in page
    assert "- kitti-00 is not there" in page
