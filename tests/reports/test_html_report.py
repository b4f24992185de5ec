"""The HTML page of a run: complete, escaped and correct."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from spslam.camera import Camera
from spslam.config import Config
from spslam.errors import FrameError, Refusal
from spslam.evaluation.ate import Alignment, Evaluation, evaluate
from spslam.frame import Frame, Observations, Sensor
from spslam.geometry import make_transform
from spslam.interfaces import LeftOut
from spslam.map.map import ARBITRARY, Map, Origin
from spslam.reports.chart_data import chart_data, loop_rows
from spslam.reports.html_report import write_report
from spslam.run.metric_scale import Scaling
from spslam.run.metrics import RunRecord, compute_metrics
from spslam.run.sample_frames import Sample
from spslam.slam.loss_diagnosis import Loss
from spslam.slam.recorder import Statistics
from spslam.slam.system import Slam
from spslam.slam.track_results import TrackResult, TrackState
from spslam.trajectory import Trajectory

NOTHING = Observations(
    0,
    0.0,
    np.zeros((0, 2)),
    np.zeros((0, 8), np.float32),
    np.zeros(0, np.float32),
    np.ones(0, np.float32),
    *np.zeros((3, 0)),
)
CAMERA = Camera(64, 48, 50.0, 50.0, 32.0, 24.0)
LOST = range(20, 25)
EVIL = '</script><script>alert("1")</script> & <b>'


def circle(indices: list[int]) -> Trajectory:
    angle = 0.05 * np.array(indices)
    positions = np.stack([3 * np.cos(angle), 0.1 * angle, 2 * np.sin(angle)], axis=1)
    return Trajectory(
        5 + 0.1 * np.array(indices),
        make_transform(np.tile(np.eye(3), (len(indices), 1, 1)), positions),
    )


@dataclass
class FakeSlam:
    """A circle with five missing frames and a loop from the last keyframe to the first."""

    count: int = 60
    step: int = 2
    config: Config = field(default_factory=Config)
    main_submap: int = 0

    def __post_init__(self) -> None:
        self.tracked = [index for index in range(self.count) if index not in LOST]
        self.statistics = Statistics(
            keyframes=2, points=5, loops=1, stage_ms={"features": [12.0] * self.count}
        )
        self.statistics.losses = [Loss(self.step * 20, 7.0, "dark", f"dark: {EVIL}", len(LOST))]
        self.map = Map(8)
        for row in (0, self.count - 1):
            self.map.add_keyframe(NOTHING, circle([row]).T_world_cam[0], np.zeros(0, np.int64))
        self.map.keyframes["frame"][:] = [0, self.step * (self.count - 1)]
        self.map.keyframes["timestamp"][:] = circle([0, self.count - 1]).timestamps
        self.map.loops.append(1, i=0, j=1, S_i_j=np.eye(4), information=np.eye(7), inliers=77)

    def trajectory(self, keyframes_only: bool = False) -> Trajectory:
        if keyframes_only:
            return Trajectory(
                self.map.keyframes["timestamp"].copy(), self.map.T_world_keyframe.copy()
            )
        return circle(self.tracked)

    def record(self) -> RunRecord:
        record = RunRecord()
        for index in range(self.count):
            state = TrackState.LOST if index in LOST else TrackState.TRACKING
            pose = None if index in LOST else circle([index]).T_world_cam[0]
            stamp = float(circle([index]).timestamps[0])
            record.results.append(
                TrackResult(self.step * index, stamp, state, pose, 100 + index, 300)
            )
            record.read_ms.append(1.0)
            record.frame_ms.append(20.0)
            record.stage_ms.append({"frame": 20.0, "features": 12.0, "tracking": 3.0})
            record.done_s.append(0.02 * index + 0.02)
        return record


@dataclass
class FakeSequence:
    name: str = f"fake {EVIL}"
    dataset: str = "fake"
    source: str = "nowhere"
    sensor: Sensor = "stereo"
    camera: Camera = CAMERA
    ground_truth: Trajectory | None = field(default_factory=lambda: circle(list(range(60))))
    skipped: list[tuple[int, str]] = field(default_factory=list)
    time_unit: str = "s"
    left_out: list[LeftOut] = field(default_factory=list)

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> Frame:
        raise FrameError("a report reads no frame")

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))


def as_slam(slam: FakeSlam) -> Slam:
    """`Slam` is a class, not a protocol: the fake has what a report reads."""
    return cast(Slam, slam)


class Page(HTMLParser):
    """Elements, text and chart values of a page; fails where elements are not closed."""

    VOID = ("meta", "link", "input", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.scripts = 0
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []
        self.data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])  # type: ignore[index]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(" ".join(data.split()))


def page(
    path: Path,
    slam: FakeSlam | None = None,
    sequence: FakeSequence | None = None,
    record: RunRecord | None = None,
    align: Alignment = "se3",
    samples: list[Sample] | None = None,
) -> Page:
    slam, sequence = slam or FakeSlam(), sequence or FakeSequence()
    record = record or slam.record()
    trajectory, truth = slam.trajectory(), sequence.ground_truth
    evaluation = Refusal("no ground truth") if truth is None else evaluate(trajectory, truth, align)
    labels = {"dataset": "fake", "extractor": "orb", "config": "default"}
    metrics = compute_metrics(
        sequence, record, trajectory, evaluation, slam.statistics, labels, Scaling("baseline")
    )
    file = path / "report.html"
    write_report(file, as_slam(slam), record, trajectory, evaluation, metrics, samples or [])
    return Page(file.read_text(encoding="utf-8"))


def test_everything_inserted_is_escaped_and_nothing_is_loaded(tmp_path: Path) -> None:
    made = page(tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert made.scripts == 2
    assert EVIL not in html
    assert f"fake {EVIL} · stereo · orb" in made.text
    assert any(EVIL in text for text in made.text)
    assert made.data["losses"][0]["reason"] == EVIL
    assert all(link.startswith("data:") for link in made.links)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|\{\{", html)


def test_the_page_shows_metrics_losses_loops_stages_and_configuration(tmp_path: Path) -> None:
    made = page(tmp_path)
    text = made.text
    assert {"55 of 60", "ATE", "40–48", "2.00–2.40", "dark", "77", "features", "12 ms"} <= set(text)
    assert any("91.7 % of the frames, 5 lost" in submap for submap in text)
    assert any("extractor: superpoint" in submap for submap in text)
    assert "Configuration" in text


def test_charts_hold_every_frame_and_the_gaps_of_the_path(tmp_path: Path) -> None:
    data = page(tmp_path).data
    assert data["frames"]["index"] == list(range(0, 120, 2))
    assert data["frames"]["t"] == pytest.approx(0.1 * np.arange(60))
    assert [data["states"][row] for row in data["frames"]["state"]][19:21] == ["tracking", "lost"]
    assert data["frames"]["reprojection"] == [None] * 60
    assert data["frames"]["ms"].keys() == {"features", "tracking", "other"}
    assert data["frames"]["ms"]["other"] == [5.0] * 60
    path = data["path"]
    assert path["breaks"] == [19]
    assert path["index"][18:22] == [36, 38, 50, 52]
    np.testing.assert_allclose(
        np.transpose(path["xyz"]), FakeSlam().trajectory().positions, atol=1e-4
    )
    np.testing.assert_allclose(path["error"], 0, atol=1e-6)
    assert len(data["truth"]["t"]) == 60
    assert data["losses"][0] | {"reason": ""} == {
        "frame": 40, "last": 48, "from": 2.0, "to": 2.4, "frames": 5, "cause": "dark", "reason": "",
    }  # fmt: skip
    assert data["loops"][0]["frames"] == [0, 118]


def test_long_runs_are_thinned_out_with_a_remark(tmp_path: Path) -> None:
    made = page(
        tmp_path, FakeSlam(count=9000), FakeSequence(ground_truth=circle(list(range(9000))))
    )
    data = made.data
    assert any("one frame in 3" in text for text in made.text)
    assert data["frames"]["index"] == list(range(0, 18000, 6))
    assert (
        len(data["path"]["t"]) == len(data["path"]["error"]) == len(data["path"]["xyz"][0]) == 2999
    )
    # The five missing frames still interrupt the path, whichever rows are kept.
    assert len(data["path"]["breaks"]) == 1
    assert (tmp_path / "report.html").stat().st_size < 1_500_000


def test_the_page_mentions_a_missing_ground_truth(tmp_path: Path) -> None:
    made = page(tmp_path, sequence=FakeSequence(ground_truth=None))
    assert any("no ground truth" in text for text in made.text)
    assert "ATE" not in made.text
    assert (made.data["compared"], made.data["truth"]) == (False, None)
    assert set(made.data["path"]["error"]) == {None}


def test_a_single_camera_is_named_with_its_alignment(tmp_path: Path) -> None:
    slam = FakeSlam()
    slam.map.origin = Origin("mono", CAMERA, "none", ARBITRARY)
    aligned = page(tmp_path, slam, FakeSequence(sensor="mono"), align="sim3")
    assert any("by Sim(3), which multiplied its lengths by 1." in text for text in aligned.text)
    assert aligned.data["unit"] == "m"
    alone = page(tmp_path, slam, FakeSequence(sensor="mono", ground_truth=None))
    assert alone.data["unit"] == "map units"


def test_the_page_shows_why_a_run_ended_early(tmp_path: Path) -> None:
    record = FakeSlam().record()
    record.stopped = True
    assert any("stopped after frame 118" in text for text in page(tmp_path, record=record).text)
    record.failure = OSError("the disk is gone")
    assert any(
        "failed after frame 118; what was computed until then is shown: the disk is gone" in text
        for text in page(tmp_path, record=record).text
    )


def test_a_run_without_a_pose_has_a_page(tmp_path: Path) -> None:
    slam = FakeSlam()
    slam.tracked = []
    slam.map = Map(8)
    data = page(tmp_path, slam, FakeSequence(ground_truth=None)).data
    assert data["path"]["t"] == data["path"]["breaks"] == data["loops"] == []


def test_samples_are_pictures_with_dots(tmp_path: Path) -> None:
    before = np.array([[5.0, 6.0], [np.nan, np.nan]])
    seen = np.array([[7.2, 8.0], [50.0, 40.0]])
    sample = Sample(
        3,
        5.3,
        TrackState.LOST,
        EVIL,
        b"\xff\xd8jpeg",
        (64, 48),
        np.array([[1.0, 2.0]]),
        seen,
        before,
    )
    made = page(tmp_path, samples=[sample])
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'class="seen" d="M7 8h0M50 40h0"' in html
    assert 'class="loose" d="M1 2h0"' in html
    assert 'class="motion" d="M5 6L7 8"' in html
    assert f"frame 3, 0.30 s, lost: 3 keypoints, 2 in the map ({EVIL})" in made.text


def test_positions_are_those_of_the_aligned_path() -> None:
    slam, truth = FakeSlam(), circle(list(range(60)))
    moved = Trajectory(
        truth.timestamps, make_transform(np.eye(3), np.array([5.0, 0, 0])) @ truth.T_world_cam
    )
    evaluation = evaluate(slam.trajectory(), moved, "se3")
    assert isinstance(evaluation, Evaluation)
    data = chart_data(as_slam(slam), slam.record(), slam.trajectory(), evaluation)
    first = np.array([column[0] for column in data["path"]["xyz"]])
    np.testing.assert_allclose(first, moved.positions[0], atol=1e-3)
    np.testing.assert_allclose([column[0] for column in data["keyframes"]["xyz"]], first, atol=1e-3)
    (loop,) = loop_rows(as_slam(slam), 5.0, evaluation)
    np.testing.assert_allclose(loop["ends"][0], first, atol=1e-3)
