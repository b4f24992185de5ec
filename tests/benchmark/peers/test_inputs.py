"""Folders for peers: what is written is what our readers give."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spslam.benchmark.peers.inputs import export, layout_for, write_calibration
from spslam.benchmark.peers.suite import Layout
from spslam.datasets import open_sequence
from spslam.datasets.base import SlicedSequence
from spslam.datasets.world.world import RenderedWorld, world_spec
from spslam.errors import BenchmarkError
from spslam.frame import Sensor


def world(sensor: Sensor, frames: int = 3) -> RenderedWorld:
    return RenderedWorld(replace(world_spec("demo-small"), frames=frames), sensor)


@pytest.mark.parametrize(
    ("sensor", "layout"), [("stereo", "kitti"), ("mono", "kitti"), ("mono", "tum"), ("rgbd", "tum")]
)
def test_a_world_as_a_folder(tmp_path: Path, sensor: Sensor, layout: Layout) -> None:
    source = world(sensor)
    place = export(source, tmp_path / "in", layout, {"seed": 1})
    read = open_sequence(place, sensor=sensor)
    assert (read.dataset, read.sensor, len(read)) == (layout, sensor, 3)
    for name in ("fx", "fy", "cx", "cy"):
        assert getattr(read.camera, name) == pytest.approx(getattr(source.camera, name))
    if sensor == "stereo":
        assert read.camera.baseline_m == pytest.approx(source.camera.baseline_m)
    assert read.camera.fps == pytest.approx(source.camera.fps, rel=1e-3)
    for before, after in zip(source, read, strict=True):
        assert np.array_equal(before.image, after.image)
        assert after.timestamp == pytest.approx(before.timestamp, abs=1e-6)
        if before.image_right is not None and after.image_right is not None:
            assert np.array_equal(before.image_right, after.image_right)
        if before.depth is not None and after.depth is not None:
            assert np.allclose(before.depth, after.depth, atol=1.1e-4)
    assert read.ground_truth is not None
    assert source.ground_truth is not None
    assert np.allclose(
        read.ground_truth.positions, source.ground_truth.positions[: len(read)], atol=1e-6
    )


def test_an_equal_folder_is_kept_and_another_replaced(tmp_path: Path) -> None:
    place = export(world("mono"), tmp_path / "in", "tum", {"seed": 1})
    (place / "mark").touch()
    export(world("mono"), tmp_path / "in", "tum", {"seed": 1})
    assert (place / "mark").exists()
    export(world("mono"), tmp_path / "in", "tum", {"seed": 2})
    assert not (place / "mark").exists()


def test_whole_recordings_are_read_where_they_are(tmp_path: Path) -> None:
    place = export(world("rgbd"), tmp_path / "in", "tum", {})
    whole = open_sequence(place)
    assert layout_for(whole, None, {"tum"}) == "tum"
    assert layout_for(SlicedSequence(whole, 1, None, 1), None, {"tum"}) == "tum"
    assert layout_for(world("mono"), None, {"kitti", "tum"}) == "tum"
    assert layout_for(world("mono"), "kitti", {"kitti"}) == "kitti"
    with pytest.raises(BenchmarkError, match="the layout kitti cannot hold it"):
        layout_for(world("rgbd"), "kitti", {"kitti"})


def test_the_camera_for_peers(tmp_path: Path) -> None:
    camera = world("stereo").camera
    write_calibration(tmp_path / "camera.json", camera)
    values = json.loads((tmp_path / "camera.json").read_text())
    assert (values["fx"], values["baseline_m"], values["width"]) == (camera.fx, 0.11, 320)
