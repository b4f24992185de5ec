import csv
import errno
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from trajectory_pairs import number

import spslam.factory
from spslam.camera import Camera
from spslam.cli.console import print_result
from spslam.config import Config, FeatureConfig
from spslam.errors import DatasetError, FrameError, OutputError, RunStoppedError, ScaleError
from spslam.frame import Frame, FrameAssociations, Observations, Sensor
from spslam.interfaces import EQUAL_STAMP, LeftOut, WideStage
from spslam.map.io import load_map, save_map
from spslam.map.map import ARBITRARY, Map, Origin
from spslam.map.submaps import rescale_submap
from spslam.pipeline import RunResult, Status, run, track_all
from spslam.reports.writers import OUTPUTS
from spslam.run.metric_scale import CameraHeight, KnownDistance, ScaleRequest
from spslam.run.metrics import peak_memory_mb
from spslam.run.output import OUTPUT_NAMES, OutputFolder, RunLog, default_output, with_old_names
from spslam.slam.loss_diagnosis import Loss
from spslam.slam.recorder import FramePoses, Statistics
from spslam.slam.system import Slam
from spslam.slam.track_results import TrackResult, TrackState
from spslam.trajectory import FileOrigin, Trajectory, read_kitti, read_tum
from spslam.typing import FloatArray

CAMERA = Camera(64, 48, 50.0, 50.0, 32.0, 24.0)
# Made by Open3D, which may be missing.
OPTIONAL = {"map.png"}
REQUIRED_METRICS = {
    "frames", "tracked", "tracking_rate", "keyframes", "points", "loops", "relocalisations",
    "ate_rmse_m", "rpe_trans_m", "rpe_rot_deg", "alignment", "scale", "path_length_m",
    "ground_truth_frame", "frame_median_ms", "frame_p95_ms", "stage_read_median_ms",
    "stage_features_median_ms", "stage_features_p95_ms", "stage_loop_closing_p95_ms", "fps",
    "peak_rss_mb", "version_spslam", "version_torch", "version_g2opy", "sensor", "dataset",
    "extractor", "config", "skipped_frames", "lost_frames", "first_tracked_frame", "ended",
    "losses", "losses_count", "inliers_median", "inliers_p5", "inlier_coverage_median",
    "inlier_coverage_p5", "reprojection_error_median_px", "position_sigma_median_m",
    "initialisation_delay_s", "start_to_first_pose_s", "t_rel_percent", "r_rel_deg_per_100m",
    "recall_0.1m", "recall_1m", "tracking_begun_s", "tracking_s",
}  # fmt: skip


def pose(index: int) -> FloatArray:
    T = np.eye(4)
    T[:3, 3] = [np.sin(0.3 * index), 0.1 * index, np.cos(0.2 * index)]
    return T


def poses(indices: range) -> Trajectory:
    stamps = np.array([0.1 * i for i in indices])
    return Trajectory(stamps, np.array([pose(i) for i in indices]).reshape(-1, 4, 4), "left camera")


class FakeSequence:
    """Ten grey frames; those in `broken` cannot be decoded, and reading fails at `fails_at`."""

    def __init__(self, count: int = 10, sensor: Sensor = "stereo", truth: bool = True) -> None:
        self.count = count
        self.name, self.dataset, self.source = "fake 00", "fake", "nowhere"
        self.sensor, self.camera = sensor, CAMERA
        self.ground_truth = poses(range(count)) if truth else None
        self.skipped: list[tuple[int, str]] = []
        self.time_unit, self.left_out = "s", list[LeftOut]()
        self.broken: set[int] = set()
        self.fails_at: int | None = None
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Frame:
        return Frame(index, 0.1 * index, CAMERA, np.full((48, 64), index, dtype=np.uint8))

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            self.read.append(index)
            if index == self.fails_at:
                raise FrameError("the disk is gone")
            if index in self.broken:
                self.skipped.append((index, "truncated"))
                continue
            yield self[index]


class BlockedSequence(FakeSequence):
    """Frames of which one is held back until `go_on` is set."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.after = after

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            if index == self.after:
                self.go_on.wait(60)
            yield self[index]


class FakePreprocessor:
    engine = "none"
    max_concurrency = 2

    def observe(self, frame: Frame) -> None:
        return None


class FakeSlam:
    """Return the true pose of every frame from `first` on."""

    def __init__(self, first: int = 0, bug_at: int | None = None) -> None:
        self.config, self.statistics, self.first, self.bug_at = (
            Config(),
            Statistics(),
            first,
            bug_at,
        )
        self.associations = FrameAssociations(
            np.array([[10.0, 20.0], [30.0, 40.0]]), np.array([3, -1])
        )
        self.tracked: list[int] = []
        self.finished = False
        self.size = 1.0
        self.localization_only, self.main_submap = False, 0
        self.preprocessor = FakePreprocessor()
        self.map = Map(4)
        count = 5
        observations = Observations(
            index=0,
            timestamp=0.0,
            pixels=np.zeros((count, 2)),
            descriptors=np.full((count, 4), 0.5, dtype=np.float32),
            scores=np.ones(count, dtype=np.float32),
            relative_sigma=np.ones(count, dtype=np.float32),
            u_right=np.full(count, np.nan),
            depth=np.ones(count),
            delays=np.zeros(count),
        )
        keyframe = self.map.add_keyframe(observations, np.eye(4), np.full(count, -1))
        self.map.add_points(keyframe, np.arange(15.0).reshape(count, 3), np.arange(count))

    def track(self, frame: Frame, observations: None) -> TrackResult:
        if frame.index == self.bug_at:
            raise ZeroDivisionError("a bug")
        for name in ("frame", "loop closing"):
            with self.statistics.stage(name):
                pass
        if frame.index < self.first:
            return TrackResult(
                frame.index, frame.timestamp, TrackState.INITIALIZING, reason="too little parallax"
            )
        self.tracked.append(frame.index)
        return TrackResult(
            frame.index, frame.timestamp, TrackState.TRACKING, pose(frame.index), 7, 9
        )

    def finish(self) -> None:
        self.finished = True

    def trajectory(self, keyframes_only: bool = False) -> Trajectory:
        if keyframes_only:
            return Trajectory(np.zeros(1), self.map.T_world_keyframe.copy())
        found = np.array([pose(i) for i in self.tracked]).reshape(-1, 4, 4)
        found[:, :3, 3] *= self.size
        return Trajectory(np.array([0.1 * i for i in self.tracked]), found)

    def frame_poses(self) -> FramePoses:
        path = self.trajectory()
        count = len(path)
        return FramePoses(
            path.timestamps, np.zeros(count, np.int64), path.T_world_cam, np.ones(count)
        )

    def rescale(self, factor: float, source: str) -> None:
        self.size *= factor
        rescale_submap(self.map, 0, factor)
        self.map.origin = Origin("mono", CAMERA, "none", source)

    def save_map(self, path: Path) -> None:
        save_map(path, self.map)


def as_slam(slam: FakeSlam) -> Slam:
    """`Slam` is a class, not a protocol: the fake has what a run uses."""
    return cast(Slam, slam)


class FakeViewer:
    def __init__(self) -> None:
        self.seen: list[int] = []
        self.closed = 0

    def update(self, slam: object, frame: Frame, result: TrackResult) -> None:
        self.seen.append(frame.index)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def real_pictures() -> None:
    """Requested by tests that need the true pictures, which take seconds."""


@pytest.fixture(autouse=True)
def _quick_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real_pictures" not in request.fixturenames:
        monkeypatch.setattr(
            "spslam.reports.writers.plot_trajectory",
            lambda path, *args, **kwargs: path.write_bytes(b"\x89PNG"),
        )
        monkeypatch.setattr("spslam.reports.writers.render_scene", lambda *args, **kwargs: False)


def run_fake(
    out: Path,
    slam: FakeSlam | None = None,
    sequence: FakeSequence | None = None,
    stop: Callable[[], bool] = lambda: False,
    numbered: bool = False,
    scale: ScaleRequest | None = None,
    realtime: bool = False,
    outputs: tuple[str, ...] = OUTPUTS,
) -> RunResult:
    labels = {"dataset": "fake", "extractor": "none", "config": "default"}
    with RunLog() as log:
        return run(
            as_slam(FakeSlam() if slam is None else slam),
            FakeSequence() if sequence is None else sequence,
            OutputFolder(out, numbered=numbered),
            FakeViewer(),
            labels,
            log,
            stop=stop,
            scale=scale,
            realtime=realtime,
            outputs=outputs,
        )


def test_track_all_shows_every_frame_to_viewer_and_progress() -> None:
    viewer, statuses = FakeViewer(), list[Status]()
    sequence = FakeSequence()
    sequence.broken = {3}
    record = track_all(as_slam(FakeSlam()), sequence, viewer, statuses.append)
    assert viewer.seen == [0, 1, 2, *range(4, 10)]
    assert viewer.closed == 1
    assert (statuses[-1].done, statuses[-1].total, statuses[-1].result.index) == (10, 10, 9)
    assert all(status.fps > 0 for status in statuses)
    assert (
        len(record.results)
        == len(record.frame_ms)
        == len(record.read_ms)
        == len(record.done_s)
        == 9
    )
    assert record.done_s == sorted(record.done_s)


def test_frames_dropped_in_real_time_count_as_frames_without_a_pose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = FakeSlam.track

    def slow(slam: FakeSlam, frame: Frame, observations: None) -> TrackResult:
        time.sleep(0.25)
        return track(slam, frame, observations)

    monkeypatch.setattr(FakeSlam, "track", slow)
    slam = FakeSlam()
    metrics = run_fake(tmp_path / "out", slam, realtime=True).metrics
    tracked = len(slam.tracked)
    assert 0 < tracked < 10, "frames come every 0.1 s"
    assert (metrics["frames"], metrics["tracked"], metrics["dropped_frames"]) == (
        10,
        tracked,
        10 - tracked,
    )
    assert metrics["tracking_rate"] == tracked / 10
    # From the moment at which a frame is due; tracking alone takes 250 ms.
    assert metrics["latency_from"] == "stamp"
    assert isinstance(metrics["latency_median_ms"], float)
    assert metrics["latency_median_ms"] > 250


@pytest.mark.slow
def test_run_writes_every_file(tmp_path: Path, real_pictures: None) -> None:
    slam = FakeSlam()
    slam.map.origin = Origin("mono", CAMERA, "none", ARBITRARY)
    outcome = run_fake(tmp_path / "out", slam)
    folder = tmp_path / "out"
    assert outcome.folder == folder
    assert (outcome.failure, outcome.stopped, slam.finished) == (None, False, True)
    names = {path.name for path in folder.iterdir()}
    assert names | OPTIONAL == OUTPUT_NAMES
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing else is left behind"
    truth = poses(range(10))
    np.testing.assert_allclose(
        read_tum(folder / "trajectory.tum").positions, truth.positions, atol=1e-8
    )
    np.testing.assert_allclose(
        read_kitti(folder / "trajectory.kitti").positions, truth.positions, atol=1e-8
    )
    assert len(read_tum(folder / "keyframes.tum")) == 1
    assert len(load_map(folder / "map.npz").map.positions) == 5
    ran = Config(features=FeatureConfig(max_concurrency=2))
    assert (folder / "config.yaml").read_text(encoding="utf-8") == ran.to_yaml()
    assert (folder / "trajectory.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "map.ply").read_bytes()[:3] == b"ply"


@pytest.mark.parametrize(
    ("outputs", "files"),
    [
        (("trajectory",), {"trajectory.kitti", "keyframes.tum", "poses.csv"}),
        (("plots", "map"), {"trajectory.png", "map.npz"}),
        (("ground-truth", "frames", "points"), {"ground_truth.tum", "frames.csv", "map.ply"}),
        (("report",), {"report.html"}),
        ((), set()),
    ],
)
def test_a_run_writes_the_outputs_that_were_chosen(
    outputs: tuple[str, ...], files: set[str], tmp_path: Path
) -> None:
    outcome = run_fake(tmp_path / "out", outputs=outputs)
    always = {"trajectory.tum", "config.yaml", "metrics.json", "log.txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == always | files
    # The picture of the map is missing without Open3D.
    assert outcome.metrics["results_not_written"] == ("plots" in outputs)


def test_trajectory_and_metrics_are_written_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[set[str]] = []
    save = FakeSlam.trajectory

    def watched(self: FakeSlam, keyframes_only: bool = False) -> Trajectory:
        if keyframes_only:
            there.append(names_in(tmp_path))
        return save(self, keyframes_only)

    monkeypatch.setattr(FakeSlam, "trajectory", watched)
    run_fake(tmp_path / "out", outputs=("trajectory",))
    assert {"trajectory.tum", "config.yaml", "metrics.json"} <= there[0]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_a_failing_report_costs_no_other_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("a bug in the page")

    monkeypatch.setattr("spslam.reports.writers.write_report", broken)
    outcome = run_fake(tmp_path / "out")
    assert outcome.failure is None
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names | OPTIONAL == OUTPUT_NAMES - {"report.html"}
    assert "a bug in the page" in caplog.text
    assert "ZeroDivisionError: a bug in the page" in (tmp_path / "out" / "log.txt").read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("writer", "name"),
    [
        ("write_frames", "frames.csv"),
        ("write_ply", "map.ply"),
        ("plot_trajectory", "trajectory.png"),
        ("render_scene", "map.png"),
        ("write_report", "report.html"),
    ],
)
def test_a_failing_optional_output_does_not_end_a_run(
    writer: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("latex was not found\nin /usr/bin\n" + 80 * "and so on ")

    monkeypatch.setattr("spslam.reports.writers.render_scene", lambda *args: True)
    monkeypatch.setattr(f"spslam.reports.writers.{writer}", broken)
    outcome = run_fake(tmp_path / "out")
    assert outcome.failure is None
    assert {path.name for path in (tmp_path / "out").iterdir()} | OPTIONAL == OUTPUT_NAMES - {
        name
    } | OPTIONAL
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == with_old_names(outcome.metrics)
    assert metrics["results_not_written"] == 1
    expected = {
        "topic": "output_failed",
        "count": 1,
        "text": f"{name} was not written: latex was not found",
    }
    assert metrics["notices"] == [expected]


def fill_disk_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every later write of a file with this name fail."""
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)


@pytest.mark.parametrize("name", ["trajectory.kitti", "keyframes.tum", "map.npz"])
def test_a_full_disk_for_the_map_costs_no_trajectory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spslam.reports.writers.render_scene", lambda *args: True)
    fill_disk_for(name, monkeypatch)
    outcome = run_fake(tmp_path / "out")
    assert isinstance(outcome.failure, OutputError)
    assert str(outcome.failure) == f"{name} could not be written, the other results are there"
    assert {path.name for path in (tmp_path / "out").iterdir()} | OPTIONAL == OUTPUT_NAMES - {
        name
    } | OPTIONAL
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["results_not_written"] == 1
    reason = f"{name} was not written: cannot write {name}: No space left on device"
    assert metrics["notices"] == [{"topic": "output_failed", "count": 1, "text": reason}]


@pytest.mark.parametrize("name", ["trajectory.tum", "metrics.json"])
def test_a_required_output_that_cannot_be_written_is_an_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk_for(name, monkeypatch)
    with pytest.raises(OutputError, match=rf"cannot write .*{name}: No space left on device"):
        run_fake(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_for_the_log_is_reported_once_and_costs_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with RunLog() as log:
        log.open(Path("/dev/full"))
        for _ in range(3):
            logging.getLogger("spslam").warning("a line")
    assert [found.topic for found in log.notices] == ["output_failed"]
    assert "full is not complete" in log.notices[0].text
    assert capfd.readouterr().err == ""


def test_undecodable_bytes_of_a_path_are_escaped(tmp_path: Path, real_pictures: None) -> None:
    folder = tmp_path / os.fsdecode(b"\xffout")
    sequence = FakeSequence()
    sequence.name = f"odd {os.fsdecode(bytes([0xFF]))} $x_ name"
    sequence.source = str(folder)
    outcome = run_fake(folder, sequence=sequence)
    assert outcome.metrics["notices"] == []
    assert {path.name for path in folder.iterdir()} | OPTIONAL == OUTPUT_NAMES
    for name in ("metrics.json", "log.txt", "report.html", "config.yaml"):
        (folder / name).read_bytes().decode("utf-8")
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["source"] == str(
        folder
    )


def test_a_truth_of_positions_only_gives_the_absolute_error(
    tmp_path: Path, real_pictures: None
) -> None:
    sequence = FakeSequence()
    assert sequence.ground_truth is not None
    whole = sequence.ground_truth
    origin = FileOrigin(Path("truth.txt"), 12, {"with nan, inf or too few numbers": 2}, None, False)
    sequence.ground_truth = Trajectory(whole.timestamps, whole.T_world_cam, "body", False, origin)
    metrics = run_fake(tmp_path / "out", sequence=sequence).metrics
    assert metrics["ate_rmse_m"] == pytest.approx(0, abs=1e-9)
    assert (metrics["rpe_trans_m"], metrics["rpe_rot_deg"], metrics["compared"]) == (
        None,
        None,
        "positions",
    )
    assert (metrics["ground_truth_rows"], metrics["ground_truth_rows_left_out"]) == (12, 2)
    assert metrics["ground_truth_rows_left_out_because"] == "2 with nan, inf or too few numbers"
    written = read_tum(tmp_path / "out" / "ground_truth.tum")
    assert not written.has_rotations
    np.testing.assert_allclose(written.positions, whole.positions, atol=1e-8)
    assert "positions only" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_saved_truth_covers_the_time_of_the_run(tmp_path: Path) -> None:
    sequence = FakeSequence()
    # Forty times as long, and shifted by half a step.
    sequence.ground_truth = Trajectory(
        np.array([0.1 * i + 0.05 for i in range(-200, 200)]),
        np.array([pose(i) for i in range(-200, 200)]),
        "left camera",
    )
    run_fake(tmp_path / "out", sequence=sequence)
    stamps = read_tum(tmp_path / "out" / "ground_truth.tum").timestamps
    # The run lasts from 0 to 0.9 s; one more pose on each side allows interpolation at its ends.
    np.testing.assert_allclose(stamps, 0.1 * np.arange(11) - 0.05, atol=1e-9)


def test_a_failing_comparison_costs_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr("spslam.run.results.evaluate", broken)
    metrics = run_fake(tmp_path / "out").metrics
    assert metrics["not_compared"] == "SVD did not converge"
    notices = metrics["notices"]
    assert isinstance(notices, list)
    assert [found["topic"] for found in notices] == ["ground_truth_not_compared"]


def test_every_frame_that_was_read_has_a_row(tmp_path: Path) -> None:
    sequence = FakeSequence()
    sequence.broken = {4}
    run_fake(tmp_path / "out", FakeSlam(first=3), sequence)
    with (tmp_path / "out" / "frames.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert [row["state"] for row in rows[2:4]] == ["initializing", "tracking"]
    assert rows[0]["reason"] == "too little parallax"
    assert (rows[3]["inliers"], rows[3]["matches"], rows[3]["reprojection_error_px"]) == (
        "7",
        "9",
        "",
    )
    assert all(float(row["frame_ms"]) >= float(row["stage_features_ms"]) >= 0 for row in rows)


def test_metrics_are_flat_and_complete(tmp_path: Path) -> None:
    outcome = run_fake(tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == with_old_names(outcome.metrics)
    assert metrics.keys() >= REQUIRED_METRICS
    assert metrics.pop("losses") == []
    assert metrics.pop("notices") == []
    assert all(value is None or isinstance(value, int | float | str) for value in metrics.values())
    assert (metrics["frames"], metrics["tracked"], metrics["tracking_rate"]) == (10, 10, 1.0)
    assert metrics["ate_rmse_m"] == pytest.approx(0, abs=1e-9)
    assert metrics["alignment"] == "se3"
    assert metrics["path_length_m"] == pytest.approx(poses(range(10)).path_length_m)
    assert metrics["ground_truth_frame"] == "left camera"
    assert metrics["ended"] == "complete"
    assert "stage_frame_median_ms" not in metrics


def test_metrics_summarize_inliers_accuracy_and_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frame i has 10·i inliers on i/10 of the image; 0 and 5 are lost, 1 has unknown accuracy."""

    def track(slam: FakeSlam, frame: Frame, observations: None) -> TrackResult:
        i = frame.index
        if i in (0, 5):
            return TrackResult(i, frame.timestamp, TrackState.LOST, reason="dark: brightness 0")
        slam.tracked.append(i)
        covariance = (
            np.diag([0.02, 0.02, 0.05, 9.0, 9.0, 9.0]) ** 2 if i > 1 else np.full((6, 6), np.nan)
        )
        error = 0.5 if i > 1 else float("nan")
        return TrackResult(
            i, frame.timestamp, TrackState.TRACKING, pose(i), inliers=10 * i,
            inlier_coverage=0.1 * i, covariance=covariance, median_error_px=error,
        )  # fmt: skip

    monkeypatch.setattr(FakeSlam, "track", track)
    slam = FakeSlam()
    slam.statistics.losses.append(Loss(5, 0.5, "dark", "dark: brightness 0", 1))
    metrics = run_fake(tmp_path / "out", slam).metrics
    assert metrics["inliers_median"] == 50.0
    assert metrics["inliers_p5"] == pytest.approx(13.5)
    assert metrics["inlier_coverage_median"] == pytest.approx(0.5)
    assert metrics["inlier_coverage_p5"] == pytest.approx(0.135)
    assert metrics["reprojection_error_median_px"] == 0.5
    assert metrics["position_sigma_median_m"] == pytest.approx(np.sqrt(0.0033))
    loss = {
        "frame": 5,
        "timestamp": 0.5,
        "cause": "dark",
        "reason": "dark: brightness 0",
        "frames": 1,
    }
    assert (metrics["losses"], metrics["losses_count"]) == ([loss], 1)
    assert json.loads(
        (tmp_path / "out" / "metrics.json").read_text(encoding="utf-8")
    ) == with_old_names(metrics)


def test_a_single_camera_has_no_metric_accuracy(tmp_path: Path) -> None:
    metrics = run_fake(tmp_path / "out", sequence=FakeSequence(sensor="mono")).metrics
    assert "position_sigma_median_m" not in metrics
    assert metrics["position_sigma_median_map_units"] is None, "the fake has no covariance"


def test_frames_without_a_pose_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = FakeSequence()
    sequence.broken = {4, 5}
    monkeypatch.setattr("spslam.pipeline.process_age_s", lambda: 100.0)
    metrics = run_fake(tmp_path / "out", FakeSlam(first=3), sequence).metrics
    assert (metrics["frames"], metrics["tracked"], metrics["skipped_frames"]) == (10, 5, 2)
    assert metrics["tracking_rate"] == 0.5
    assert metrics["first_tracked_frame"] == 3
    assert isinstance(metrics["start_to_first_pose_s"], float)
    assert metrics["start_to_first_pose_s"] > 100
    assert metrics["initialisation_delay_s"] == pytest.approx(0.3)
    assert metrics["recall_1m"] == pytest.approx(0.5), "all frames with a pose are near the truth"


def test_mono_is_aligned_by_sim3(tmp_path: Path) -> None:
    assert (
        run_fake(tmp_path / "out", sequence=FakeSequence(sensor="mono")).metrics["alignment"]
        == "sim3"
    )


def small(size: float = 0.25) -> FakeSlam:
    """A single camera's system that estimates everything too small."""
    slam = FakeSlam()
    slam.size = size
    slam.map.origin = Origin("mono", CAMERA, "none", ARBITRARY)
    return slam


def test_mono_with_a_known_scale_is_metric_in_every_file(tmp_path: Path) -> None:
    metres = float(np.linalg.norm(poses(range(10)).positions[8] - poses(range(10)).positions[1]))
    # One percent too long, which the alignment must not remove.
    scale = KnownDistance(1, 8, 1.01 * metres)
    outcome = run_fake(tmp_path / "out", small(), FakeSequence(sensor="mono"), scale=scale)
    metrics = outcome.metrics
    assert outcome.failure is None
    assert metrics["scale_applied"] == pytest.approx(1.01 / 0.25)
    assert metrics["scale_source"] == f"{1.01 * metres:g} m from frame 1 to 8"
    assert metrics["scale_refused"] is None
    assert (metrics["alignment"], metrics["scale"]) == ("se3", 1.0)
    assert metrics["scale_error_percent"] == pytest.approx(100 * (1 / 1.01 - 1))
    assert 1e-4 < number(metrics["ate_rmse_m"]) < 0.02
    written = read_tum(tmp_path / "out" / "trajectory.tum").positions
    np.testing.assert_allclose(written, 1.01 * poses(range(10)).positions, atol=1e-8)
    for name in ("trajectory.tum", "keyframes.tum"):
        header = (tmp_path / "out" / name).read_text(encoding="utf-8").splitlines()[0]
        assert header.endswith(f"scale: {metrics['scale_source']})")
    saved = load_map(tmp_path / "out" / "map.npz").map
    assert saved.origin is not None and saved.origin.scale == metrics["scale_source"]
    assert saved.positions[1] == pytest.approx(np.array([3.0, 4.0, 5.0]) * 1.01 / 0.25)


def test_mono_with_a_known_scale_has_a_length_without_ground_truth(tmp_path: Path) -> None:
    sequence = FakeSequence(sensor="mono", truth=False)
    metrics = run_fake(tmp_path / "out", small(), sequence, scale=KnownDistance(1, 8, 3.0)).metrics
    assert number(metrics["path_length_m"]) > 0
    assert metrics["scale_error_percent"] is None


def test_a_scale_that_cannot_be_estimated_costs_no_result(tmp_path: Path) -> None:
    outcome = run_fake(
        tmp_path / "out", small(), FakeSequence(sensor="mono"), scale=CameraHeight(1.65)
    )
    assert isinstance(outcome.failure, ScaleError)
    assert "not to scale: 0 of 1 keyframe show the ground" in str(outcome.failure)
    metrics = outcome.metrics
    assert metrics["scale_refused"] == str(outcome.failure)
    assert (metrics["scale_source"], metrics["scale_applied"]) == (ARBITRARY, None)
    assert (metrics["ended"], metrics["tracked"], metrics["alignment"]) == ("complete", 10, "sim3")
    written = read_tum(tmp_path / "out" / "trajectory.tum").positions
    np.testing.assert_allclose(written, 0.25 * poses(range(10)).positions, atol=1e-8)


def test_the_failure_of_a_run_is_reported_before_that_of_its_scale(tmp_path: Path) -> None:
    sequence = FakeSequence(sensor="mono")
    sequence.fails_at = 6
    outcome = run_fake(tmp_path / "out", small(), sequence, scale=KnownDistance(1, 8, 3.0))
    assert isinstance(outcome.failure, FrameError)
    assert "frame 8 was not read" in str(outcome.metrics["scale_refused"])


@pytest.mark.slow
@pytest.mark.parametrize(("sensor", "has_length"), [("stereo", True), ("mono", False)])
def test_without_ground_truth_errors_are_null(
    tmp_path: Path, sensor: Sensor, has_length: bool, real_pictures: None
) -> None:
    metrics = run_fake(tmp_path / "out", sequence=FakeSequence(sensor=sensor, truth=False)).metrics
    assert {
        metrics[key] for key in ("ate_rmse_m", "rpe_trans_m", "rpe_rot_deg", "scale", "alignment")
    } == {None}
    assert metrics["not_compared"] is None, "no ground truth is no fault"
    assert (metrics["path_length_m"] is not None) == has_length
    assert (tmp_path / "out" / "trajectory.png").is_file()


def test_too_few_poses_to_compare_are_reported_and_not_fatal(tmp_path: Path) -> None:
    metrics = run_fake(tmp_path / "out", FakeSlam(first=9)).metrics
    assert metrics["ate_rmse_m"] is None
    assert "3" in str(metrics["not_compared"])


def test_stop_ends_after_the_current_frame_and_writes(tmp_path: Path) -> None:
    sequence = FakeSequence()
    # Read ahead of the stop, so it does not count in the run.
    sequence.broken = {4}
    slam = FakeSlam()
    outcome = run_fake(tmp_path / "out", slam, sequence, stop=lambda: len(slam.tracked) >= 4)
    assert outcome.stopped
    assert (outcome.metrics["frames"], outcome.metrics["tracked"], outcome.metrics["ended"]) == (
        4,
        4,
        "stopped",
    )
    assert len(read_tum(tmp_path / "out" / "trajectory.tum")) == 4


def test_a_run_that_is_stopped_before_its_first_frame_writes_nothing(tmp_path: Path) -> None:
    sequence = BlockedSequence(after=0)
    with pytest.raises(RunStoppedError, match="before a frame was done; nothing is written"):
        run_fake(tmp_path / "out", sequence=sequence, stop=lambda: True)
    sequence.go_on.set()
    assert list(tmp_path.iterdir()) == []


def test_a_stop_does_not_wait_for_a_blocked_read(tmp_path: Path) -> None:
    slam, sequence = FakeSlam(), BlockedSequence(after=3)
    # With two at a time the third frame would wait for the fourth.
    slam.preprocessor.max_concurrency = 1
    begin = time.monotonic()
    outcome = run_fake(tmp_path / "out", slam, sequence, stop=lambda: len(slam.tracked) >= 3)
    assert time.monotonic() - begin < 10
    sequence.go_on.set()
    assert (outcome.metrics["frames"], outcome.metrics["ended"], outcome.failure) == (
        3,
        "stopped",
        None,
    )
    assert len(read_tum(tmp_path / "out" / "trajectory.tum")) == 3


def test_a_stopped_run_starts_no_picture_after_the_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spslam.reports.writers.PICTURES_AFTER_STOP_S", 0.0)
    slam = FakeSlam()
    metrics = run_fake(tmp_path / "out", slam, stop=lambda: len(slam.tracked) >= 4).metrics
    assert metrics["results_not_written"] == 3
    assert "trajectory.png, map.png, report.html not written: the run was stopped" in str(
        metrics["notices"]
    )
    assert (tmp_path / "out" / "map.ply").is_file()


def test_another_interrupt_while_pictures_are_drawn_keeps_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, slam = tmp_path / "out", FakeSlam()
    there: list[list[str]] = []

    def picture(path: Path, *args: object, **kwargs: object) -> None:
        there.append(sorted(path.name for path in out.iterdir()))
        path.write_bytes(b"half of one")
        raise KeyboardInterrupt

    monkeypatch.setattr("spslam.reports.writers.plot_trajectory", picture)
    outcome = run_fake(out, slam, stop=lambda: len(slam.tracked) >= 4)
    # Results are published before drawing, so a kill while drawing keeps them.
    assert {"trajectory.tum", "metrics.json", "map.npz"} <= set(there[0])
    assert not (out / "trajectory.png").exists()
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["frames"], metrics["results_not_written"], outcome.stopped) == (4, 3, True)


def test_a_failure_in_the_middle_keeps_the_computed_results(tmp_path: Path) -> None:
    sequence, slam = FakeSequence(), FakeSlam()
    sequence.fails_at = 6
    outcome = run_fake(tmp_path / "out", slam, sequence)
    assert isinstance(outcome.failure, FrameError)
    assert (outcome.metrics["tracked"], outcome.metrics["ended"], slam.finished) == (
        6,
        "failed",
        True,
    )
    assert "the disk is gone" in (tmp_path / "out" / "log.txt").read_text(encoding="utf-8")


def test_a_bug_in_the_middle_keeps_results_and_traceback(tmp_path: Path) -> None:
    outcome = run_fake(tmp_path / "out", FakeSlam(bug_at=6))
    assert isinstance(outcome.failure, ZeroDivisionError)
    assert outcome.failure.__traceback__ is not None
    assert outcome.metrics["tracked"] == 6


def test_the_failure_of_a_run_is_reported_before_that_of_writing_a_broken_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSlam, "trajectory", lambda self: 1 / 0)
    sequence = FakeSequence()
    sequence.fails_at = 6
    with pytest.raises(FrameError, match="disk"):
        run_fake(tmp_path / "out", sequence=sequence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [0, 3])
def test_a_failure_before_the_first_frame_leaves_no_files(tmp_path: Path, count: int) -> None:
    sequence = FakeSequence(count=count)
    sequence.fails_at = 0
    with pytest.raises(DatasetError):
        run_fake(tmp_path / "out", sequence=sequence)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_tracks_nothing_gives_the_reason(tmp_path: Path) -> None:
    outcome = run_fake(tmp_path / "out", FakeSlam(first=99))
    assert isinstance(outcome.failure, DatasetError)
    assert "none of 10 frames" in str(outcome.failure)
    assert "10 times: too little parallax" in str(outcome.failure)
    assert outcome.metrics["tracked"] == 0
    assert (tmp_path / "out" / "metrics.json").is_file()


@pytest.mark.parametrize(
    ("pairs", "there", "named"), [(None, True, True), ({}, True, False), (None, False, False)]
)
def test_a_localization_that_finds_nothing_names_the_learned_matcher(
    pairs: dict[WideStage, int] | None,
    there: bool,
    named: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spslam.factory, "has_matcher", lambda features: there)
    slam = FakeSlam(first=99)
    slam.localization_only = True
    slam.statistics.learned_pairs = pairs
    outcome = run_fake(tmp_path / "out", slam)
    assert ("--set matching.learned=on" in str(outcome.failure)) is named


def test_a_run_that_tracks_nothing_names_a_known_cause(tmp_path: Path) -> None:
    slam = FakeSlam(first=99)
    slam.statistics.no_pose = "images are nearly flat: grey levels 0 to 3 of 255"
    outcome = run_fake(tmp_path / "out", slam)
    assert "none of 10 frames could be tracked; images are nearly flat" in str(outcome.failure)
    assert "too little parallax" not in str(outcome.failure)


def test_reasons_that_differ_only_in_numbers_are_counted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def track(slam: FakeSlam, frame: Frame, observations: None) -> TrackResult:
        reason = f"the camera moved {0.1 * frame.index:.1f} px" if frame.index % 3 else "first view"
        return TrackResult(frame.index, frame.timestamp, TrackState.INITIALIZING, reason=reason)

    monkeypatch.setattr(FakeSlam, "track", track)
    outcome = run_fake(tmp_path / "out", FakeSlam(first=99))
    assert "6 times: the camera moved 0.8 px" in str(outcome.failure)


def test_the_log_holds_early_records_and_every_frame(tmp_path: Path) -> None:
    with RunLog() as log:
        logging.getLogger("spslam.datasets.kitti").warning("before the folder was known")
        labels = {"dataset": "fake", "extractor": "none", "config": "default"}
        output = OutputFolder(tmp_path / "out")
        run(as_slam(FakeSlam()), FakeSequence(), output, FakeViewer(), labels, log)
    text = (tmp_path / "out" / "log.txt").read_text(encoding="utf-8")
    assert "before the folder was known" in text
    assert text.count("spslam.pipeline: frame ") == 10
    assert logging.getLogger("spslam").handlers == []


def test_an_earlier_run_is_replaced_completely(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_fake(out)
    (out / "map.png").write_bytes(b"from the run before")
    (out / "trajectory.tum").write_text("old")
    run_fake(out, sequence=FakeSequence(count=5))
    assert len(read_tum(out / "trajectory.tum")) == 5
    assert (
        not (out / "map.png").is_file() or (out / "map.png").read_bytes() != b"from the run before"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run_fake(tmp_path / "out").folder == tmp_path / "out"


@pytest.mark.parametrize(
    "names", [["notes.md"], ["metrics.json", "config.yaml", "thesis.pdf"], ["metrics.json"]]
)
def test_a_foreign_folder_is_refused_before_the_run(tmp_path: Path, names: list[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in names:
        (out / name).write_text("mine")
    with pytest.raises(OutputError, match="left alone"):
        OutputFolder(out)
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_and_links_as_output_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    for name in ("file", "link"):
        with pytest.raises(OutputError, match="--out"):
            OutputFolder(tmp_path / name)
    with pytest.raises(OutputError, match="cannot write"):
        OutputFolder(tmp_path / "file" / "below")


def test_a_folder_that_becomes_foreign_during_the_run_is_left_alone(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path / "out")
    (output.partial / "metrics.json").write_text("{}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(OutputError, match="results are in"):
        output.publish()
    assert (tmp_path / "out" / "mine").read_text() == "mine"


def test_a_failed_run_does_not_change_the_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_fake(out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    sequence = FakeSequence()
    sequence.fails_at = 0
    with pytest.raises(FrameError):
        run_fake(out, sequence=sequence)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_default_folder_names_are_numbered(tmp_path: Path) -> None:
    folders = [run_fake(tmp_path / "runs" / "a", numbered=True).folder.name for _ in range(3)]
    assert folders == ["a", "a-2", "a-3"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kitti 00", "kitti-00-mono-orb"),
        ("video a/b: c?", "video-a-b-c-mono-orb"),
        ("images ../x", "images-..-x-mono-orb"),
    ],
)
def test_the_default_folder_is_a_plain_name(name: str, expected: str) -> None:
    assert default_output(name, "mono", "orb") == Path("runs") / expected


def test_peak_memory_is_measured_for_this_process() -> None:
    peak = peak_memory_mb()
    assert peak is None or 20 < peak < 100_000


def test_totals_include_frames_that_were_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = FakeSequence()
    sequence.left_out = [LeftOut(0.1 * i, EQUAL_STAMP) for i in range(10)]
    sequence.left_out += [LeftOut(math.nan, "stray name"), LeftOut(0.55, "no right image")]
    outcome = run_fake(tmp_path / "out", sequence=sequence)
    metrics = outcome.metrics
    assert (metrics["frames"], metrics["tracked"], metrics["left_out_frames"]) == (22, 10, 12)
    assert metrics["tracking_rate"] == pytest.approx(10 / 22)
    assert metrics["left_out_why"] == "10 equal time stamp, 1 stray name, 1 no right image"
    assert (metrics["time_unit"], metrics["time_duplicates"], metrics["time_left_out"]) == (
        "s",
        10,
        12,
    )
    assert metrics["time_rate_hz"] == pytest.approx(10.0) and metrics["time_gaps"] == 0
    print_result(outcome)
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "10 of 22 tracked (45.5 %), 12 left out (10 equal "
        "time stamp, 1 stray name, 1 no right image)" in printed
    )
    assert "time stamps seconds, 0.000000 to 0.900000 s, 10 a second, no gaps" in printed
