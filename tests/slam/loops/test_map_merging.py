"""Two maps of the same world, from two walks, are merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from point_room import LONG, PointRoom, components_of, corridor, drive

from spslam import geometry
from spslam.config import Config
from spslam.errors import MapError
from spslam.evaluation.ate import Alignment, evaluate
from spslam.map.io import SavedMap, load_map
from spslam.map.submaps import submap_numbers
from spslam.slam.loops.map_merging import merge_maps
from spslam.slam.system import Slam
from spslam.trajectory import Trajectory


def walk(room, start: float, count: int, sensor: str, path: Path, step: float = 0.04) -> SavedMap:
    slam, _ = drive(room, corridor(start, count, step), sensor)
    slam.save_map(path)
    return load_map(path)


@dataclass(frozen=True)
class TwoWalks:
    """A room and the saved maps of two walks that overlap."""

    room: PointRoom
    first: Path
    second: Path


@pytest.fixture(scope="module")
def two_walks(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TwoWalks]:
    """Return the two walks of a sensor; each sensor walks once."""

    @cache
    def of(sensor: str) -> TwoWalks:
        room, folder = PointRoom(4000, size=LONG), tmp_path_factory.mktemp(sensor)
        walk(room, -9.0, 60, sensor, folder / "a.npz")
        walk(room, -7.8, 90, sensor, folder / "b.npz")
        return TwoWalks(room, folder / "a.npz", folder / "b.npz")

    return of


@pytest.mark.slow
@pytest.mark.parametrize("sensor", ["stereo", "mono"])
def test_a_common_stretch_joins_two_maps(sensor: str, two_walks: Callable[[str], TwoWalks]) -> None:
    walks = two_walks(sensor)
    room, first, second = walks.room, load_map(walks.first), load_map(walks.second)
    keyframes = len(first.map.keyframes) + len(second.map.keyframes)
    components = components_of(room)
    assert merge_maps(Config(), components, first, second) >= 1
    merged = first.map
    assert submap_numbers(merged).tolist() == [0]
    assert len(merged.keyframes) == keyframes
    assert merged.keyframes["session"].max() == 1
    truth = np.array([room.poses[frame] for frame in merged.keyframes["frame"]])
    order = np.arange(keyframes, dtype=np.float64)
    estimate = Trajectory(order, merged.T_world_keyframe)
    align: Alignment = "se3" if sensor == "stereo" else "sim3"
    found = evaluate(estimate, Trajectory(order, truth), align)
    assert found.absolute.statistics.rmse < 0.02
    assert len(components.place_recognition.arrays()["ids"]) == keyframes


@pytest.mark.slow
def test_the_merged_map_can_be_tracked_against(two_walks: Callable[[str], TwoWalks]) -> None:
    walks = two_walks("stereo")
    room, first, second = walks.room, load_map(walks.first), load_map(walks.second)
    components = components_of(room)
    merge_maps(Config(), components, first, second)
    slam = Slam(
        Config(),
        components_of(room),
        SavedMap(first.map, components.place_recognition.arrays()),
        localization_only=True,
    )
    poses = corridor(-9.0, 40, 0.1)
    results = [slam.track(room.frame(pose, 0.1 * i, "mono")) for i, pose in enumerate(poses)]
    assert all(r.T_world_cam is not None for r in results)
    expected = geometry.inverse(corridor(-9.0, 1)[0]) @ np.array(poses)
    found = np.array([r.T_world_cam for r in results])
    assert np.linalg.norm(found[:, :3, 3] - expected[:, :3, 3], axis=1).max() < 0.03


def test_maps_without_a_common_place_are_refused(tmp_path: Path) -> None:
    room = PointRoom(4000, size=LONG)
    first = walk(room, -9.0, 20, "stereo", tmp_path / "a.npz")
    second = walk(room, 3.0, 20, "stereo", tmp_path / "b.npz")
    with pytest.raises(MapError, match="no place was found in both"):
        merge_maps(Config(), components_of(room), first, second)


def test_maps_of_other_cameras_or_extractors_are_refused(tmp_path: Path) -> None:
    room = PointRoom()
    stereo = walk(room, -1.0, 20, "stereo", tmp_path / "a.npz")
    mono = walk(room, -1.0, 40, "mono", tmp_path / "b.npz")
    with pytest.raises(MapError, match="one camera"):
        merge_maps(Config(), components_of(room), stereo, mono)
    room.identity = "something else"
    with pytest.raises(MapError, match="something else"):
        merge_maps(Config(), components_of(room), stereo, load_map(tmp_path / "a.npz"))
    narrow = load_map(tmp_path / "a.npz")
    narrow.map.descriptor_size = 32
    with pytest.raises(MapError, match="64 and 32 numbers"):
        merge_maps(Config(), components_of(room), load_map(tmp_path / "a.npz"), narrow)
    stereo.map.origin = None
    with pytest.raises(MapError, match="with keyframes"):
        merge_maps(Config(), components_of(room), stereo, mono)
