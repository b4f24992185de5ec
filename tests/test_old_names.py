"""Names of older releases are accepted for one release, each with a line that gives the new name.

The tests of configuration keys are in `test_config.py`, those of extractors in `test_registry.py`.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import call

from spslam.datasets.world.disturbances import Mover, parse_disturbance
from spslam.map.archive import read_archive, write_archive
from spslam.map.io import load_map, save_map
from spslam.map.map import Origin
from spslam.map.submaps import append_map
from spslam.run.output import RENAMED_METRICS, read_metrics, with_old_names

LABELS = {"sequence": "demo", "sensor": "mono", "extractor": "orb"}


def test_metrics_are_written_under_both_names() -> None:
    metrics = {new: i for i, new in enumerate(RENAMED_METRICS.values())}
    written = with_old_names(metrics)
    assert {old: written[old] for old in RENAMED_METRICS} == {
        old: metrics[new] for old, new in RENAMED_METRICS.items()
    }
    assert with_old_names({"frames": 3}) == {"frames": 3}


def test_metrics_with_old_names_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = LABELS | {old: i for i, old in enumerate(RENAMED_METRICS)}
    (tmp_path / "metrics.json").write_text(json.dumps(before), encoding="utf-8")
    metrics = read_metrics(tmp_path)
    assert metrics == LABELS | {new: i for i, new in enumerate(RENAMED_METRICS.values())}
    assert len(caplog.messages) == 1 and "share_tracked is called tracking_rate" in caplog.text


def test_metrics_with_both_names_are_read_without_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    today = LABELS | {"tracking_rate": 0.5, "submaps": 2}
    (tmp_path / "metrics.json").write_text(json.dumps(with_old_names(today)), encoding="utf-8")
    assert read_metrics(tmp_path) == today
    assert not caplog.messages


@pytest.fixture
def map_file(landmarks, tmp_path: Path) -> Path:
    """A stereo map of two submaps, of three keyframes and of two."""
    scene = landmarks.box()
    slam_map = scene.map_of([scene.pose(0.1 * i) for i in range(3)])
    slam_map.origin = Origin("stereo", scene.camera, "superpoint 0123456789ab", "baseline")
    append_map(slam_map, scene.map_of([scene.pose(0.1 * i) for i in range(2)]))
    save_map(tmp_path / "map.npz", slam_map)
    return tmp_path / "map.npz"


def test_a_map_with_the_old_name_of_submaps_is_read(map_file: Path) -> None:
    arrays = dict(read_archive(map_file).arrays)
    arrays["keyframes.part"] = arrays.pop("keyframes.submap")
    with map_file.open("w+b") as file:
        write_archive(file, arrays)
    found = load_map(map_file).map
    np.testing.assert_array_equal(found.keyframes["submap"], [0, 0, 0, 1, 1])


def test_the_old_option_of_a_submap_is_read_with_a_message(
    map_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ply = str(tmp_path / "a.ply")
    assert call("map", "export", str(map_file), "--part", "1", "--ply", ply) == 0
    printed = capsys.readouterr()
    assert "of submap 1" in printed.out and "--part is called --submap now" in printed.err


def test_the_old_name_of_the_size_of_a_mover_is_read_with_a_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert parse_disturbance("mover:share=0.4,seed=3") == Mover(fraction=0.4, seed=3)
    assert "mover:share is called mover:fraction now" in caplog.text
