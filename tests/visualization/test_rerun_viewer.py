"""Rerun recordings, read back by Rerun itself."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from room_scene import WatchedSlam, room_scene

from spslam.errors import MissingDependencyError, OutputError
from spslam.slam.track_results import TrackResult, TrackState
from spslam.visualization.rerun_viewer import RerunViewer, record_map_view

rerun = pytest.importorskip("rerun")


class Recorded:
    """The contents of a file: chunks by entity."""

    def __init__(self, path: Path) -> None:
        from rerun.chunk import RrdReader

        self.chunks: dict[str, list[Any]] = {}
        for chunk in RrdReader(path).stream().to_chunks():
            self.chunks.setdefault(str(chunk.entity_path).lstrip("/"), []).append(chunk)

    def column(self, entity: str, name: str) -> list[Any]:
        """All rows of a component or of a timeline."""
        found = []
        for chunk in self.chunks[entity]:
            batch = chunk.to_record_batch()
            for column in batch.schema.names:
                if column == name or column.endswith(f":{name}"):
                    found += batch.column(column).to_pylist()
        return found


def record_run(path: Path, landmarks: Any, frames: int = 6) -> WatchedSlam:
    slam = WatchedSlam(landmarks, 1)
    viewer = RerunViewer(path, title="test")
    for poses in range(1, frames + 1):
        slam = WatchedSlam(landmarks, poses)
        pose = slam.trajectory().T_world_cam[-1] if poses != 3 else None
        state = TrackState.LOST if pose is None else TrackState.TRACKING
        result = TrackResult(poses, 0.1 * poses, state, pose, inliers=12, matches=15, reason="dark")
        viewer.update(slam, slam.frame, result)  # type: ignore[arg-type]
    viewer.close()
    return slam


def test_a_run_is_read_back(tmp_path: Path, landmarks: Any) -> None:
    slam = record_run(tmp_path / "run.rrd", landmarks)
    recorded = Recorded(tmp_path / "run.rrd")
    wanted = {
        "world", "world/camera", "world/camera/image", "world/camera/image/keypoints", "world/map",
        "world/map/seen",
        "world/trajectory", "world/keyframes", "tracking/inliers", "tracking/matches", "log",
    }  # fmt: skip
    assert wanted <= recorded.chunks.keys()
    assert sorted(recorded.column("tracking/inliers", "frame")) == [1, 2, 3, 4, 5, 6]
    assert recorded.column("tracking/inliers", "scalars") == [[12.0]] * 6
    seconds = [stamp.total_seconds() for stamp in recorded.column("tracking/inliers", "stamp")]
    np.testing.assert_allclose(sorted(seconds), 0.1 * np.arange(1, 7), atol=1e-6)
    keypoints = recorded.column("world/camera/image/keypoints", "positions")
    assert [len(points) for points in keypoints] == [20] * 6
    classes = recorded.column("world/camera/image/keypoints", "class_ids")
    assert [sum(each) for each in classes] == [12] * 6
    # Rerun counts pixels from the corner of the first pixel.
    np.testing.assert_allclose(keypoints[-1][0], slam.associations.pixels[0] + 0.5, atol=1e-3)
    images = recorded.column("world/camera/image", "blob")
    assert len([image for image in images if image]) == 6
    assert bytes(images[-1][0])[:2] == b"\xff\xd8"
    points = recorded.column("world/map", "positions")
    assert len(points[-1]) == pytest.approx(len(slam.map.points), rel=0.1)
    assert any("lost: dark" in str(text) for text in recorded.column("log", "text"))


def test_a_file_does_not_grow_with_every_frame_by_the_whole_map(
    tmp_path: Path, landmarks: Any
) -> None:
    slam = WatchedSlam(landmarks, 6)
    viewer = RerunViewer(tmp_path / "run.rrd")
    for index in range(40):
        if index == 30:
            slam.statistics.loops += 1
        frame = replace(slam.frame, index=index, timestamp=0.1 * index)
        viewer.update(slam, frame, TrackResult(index, 0.1 * index, TrackState.TRACKING, inliers=1))  # type: ignore[arg-type]
    viewer.close()
    recorded = Recorded(tmp_path / "run.rrd")
    assert len(recorded.column("world/map/seen", "positions")) == 40
    # The map is logged each time the frame count grows by 10 %, after loops and at the end.
    times = recorded.column("world/map", "frame")
    assert 30 in times
    assert len(times) < 25


def test_a_saved_run_is_read_back(tmp_path: Path) -> None:
    record_map_view(tmp_path / "room.rrd", room_scene())
    recorded = Recorded(tmp_path / "room.rrd")
    assert {
        "world/map",
        "world/trajectory",
        "world/ground_truth",
        "world/loops",
        "world/keyframes",
    } <= recorded.chunks.keys()
    assert sorted(recorded.column("world/camera", "pose")) == list(range(100))
    counts = [len(points) for points in recorded.column("world/map", "positions")]
    assert counts == sorted(counts) and counts[-1] == 3000 and 5 < len(counts) < 50
    assert len(recorded.column("world/ground_truth", "strips")[-1]) == 99


def test_unix_time_stamps_are_shown_as_dates(tmp_path: Path) -> None:
    scene = room_scene()
    record_map_view(
        tmp_path / "room.rrd",
        room_scene(times=scene.times + 1.305e9, truth_times=scene.times + 1.305e9),
    )
    stamp = Recorded(tmp_path / "room.rrd").column("world/camera", "stamp")[0]
    assert stamp.year == 2011


def test_an_error_names_the_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*gone.run\.rrd"):
        RerunViewer(tmp_path / "gone" / "run.rrd")
    with pytest.raises(OutputError, match="cannot write"):
        record_map_view(tmp_path, room_scene())
    os.mkfifo(tmp_path / "pipe.rrd")
    with pytest.raises(
        OutputError, match=r"pipe\.rrd: expected a file or a new name, found a pipe"
    ):
        record_map_view(tmp_path / "pipe.rrd", room_scene())


def test_without_a_display_the_viewer_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MissingDependencyError, match=r"--rerun FILE\.rrd"):
        RerunViewer(None)


def test_the_viewer_next_to_python_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str | None] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(
        rerun.RecordingStream, "spawn", lambda self, **_: found.append(shutil.which("rerun"))
    )
    RerunViewer(None).close()
    assert found[0] is not None
    assert os.environ["PATH"] == "/nowhere"


def test_a_viewer_that_does_not_start_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: Any, **_: Any) -> None:
        raise RuntimeError("Failed to find Rerun Viewer executable in PATH.\n\nYou can")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(rerun.RecordingStream, "spawn", fail)
    with pytest.raises(
        MissingDependencyError, match=r"did not start \(Failed to find .*--rerun FILE\.rrd"
    ) as caught:
        RerunViewer(None)
    assert "\n" not in str(caught.value)


def test_a_viewer_that_was_closed_does_not_hold_up_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, landmarks: Any
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    with socket.socket() as unheard:
        # The port is bound, but nobody listens.
        unheard.bind(("127.0.0.1", 0))
        url = f"rerun+http://127.0.0.1:{unheard.getsockname()[1]}/proxy"
        monkeypatch.setattr(
            rerun.RecordingStream, "spawn", lambda self, **_: self.connect_grpc(url)
        )
        viewer = RerunViewer(None, flush_s=0.5)
        slam = WatchedSlam(landmarks, 3)
        viewer.update(slam, slam.frame, TrackResult(3, 0.3, TrackState.TRACKING, inliers=1))  # type: ignore[arg-type]
        viewer.close()
    assert "did not receive all of the recording" in caplog.text


def test_a_missing_extra_is_reported_with_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'spslam\[rerun\]'"):
        RerunViewer(tmp_path / "run.rrd")
    assert list(tmp_path.iterdir()) == []
