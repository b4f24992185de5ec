"""`spslam check` on recordings with one fault each, on clean ones, and on real sequences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command_line import call, refused
from recordings.faults import FAULTS, Recording

from spslam.check.doctor import examine
from spslam.check.findings import LEVELS, Finding, Report
from spslam.cli.cameras.check import command_line
from spslam.config import Config
from spslam.datasets import open_sequence
from spslam.interfaces import Sequence
from spslam.notices import Notice

# Faults of the camera model, for which the fit of `lens_fit` is needed: they decide most.
QUICK = (
    "focal length 30 % too long",
    "distortion that the calibration lacks",
    "cx and cy exchanged",
    "left and right exchanged",
    "right images 2 frames late",
    "right images 2 rows lower",
    "depth 5 times too large",
    "depth 12 px to the right",
    "lens cap",
    "out of focus",
    "frozen frames",
    "pure rotation",
    "bonnet",
    "dropped frames",
    "ground truth of a body",
)


def checked(sequence: Sequence, *notices: Notice) -> Report:
    """The report, whatever the load of the machine."""
    return examine(sequence, Config(), notices, limit_s=600.0)


def found(report: Report, topic: str, level: str) -> list[Finding]:
    """The findings of a topic with at least a level."""
    return [
        finding
        for finding in report.findings
        if finding.topic == topic and LEVELS.index(finding.level) >= LEVELS.index(level)  # type: ignore[arg-type]
    ]


def expect_fault(name: str) -> None:
    fault = FAULTS[name]
    report = checked(fault.make())
    assert found(report, fault.topic, fault.level), "\n".join(report.lines())
    assert report.failed == (report.count("error") > 0)
    if fault.level == "error":
        assert report.verdict.startswith("a run would fail")


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_is_found(name: str) -> None:
    expect_fault(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FAULTS) - set(QUICK)))
def test_every_fault_is_found(name: str) -> None:
    expect_fault(name)


def test_there_are_more_than_twenty_faults() -> None:
    assert len(FAULTS) >= 20
    assert set(QUICK) <= set(FAULTS)


@pytest.mark.parametrize("sensor", ["mono", "stereo", "rgbd"])
def test_nothing_is_wrong_with_a_clean_recording(sensor: str) -> None:
    report = checked(Recording(sensor))  # type: ignore[arg-type]
    assert report.topics("warning", "error") == []
    assert report.verdict.startswith("nothing is wrong")


def test_the_focal_length_that_fits_is_named() -> None:
    report = checked(FAULTS["focal length 30 % too long"].make())
    (finding,) = found(report, "focal_length", "warning")
    assert finding.value == pytest.approx(1 / 1.3, rel=0.02)
    assert "30 % too long" in finding.text


def test_the_frames_by_which_right_images_are_late_are_named() -> None:
    report = checked(FAULTS["right images 2 frames late"].make())
    (finding,) = found(report, "late_right", "warning")
    assert finding.value == -2


def test_a_doubt_of_the_reader_is_a_warning() -> None:
    report = checked(
        Recording("mono", frames=4),
        Notice("calibration_doubt", 1, "cx is 0"),
        Notice("time_unit", 1, "stamps are read as milliseconds"),
    )
    assert report.topics("warning") == ["calibration_doubt"]
    assert "time_unit" in report.topics("note")


def test_a_single_frame_is_an_error_for_mono() -> None:
    assert checked(Recording("mono", frames=1)).topics("error") == ["one_frame"]


REAL = {
    "kitti stereo": ("kitti", {"sequence": "00", "sensor": "stereo"}),
    "kitti mono": ("kitti", {"sequence": "00", "sensor": "mono"}),
    "tum rgbd": ("tum/rgbd_dataset_freiburg1_rpy", {"sensor": "rgbd"}),
    "tum mono": ("tum/rgbd_dataset_freiburg1_rpy", {"sensor": "mono"}),
    "euroc still": ("euroc/V1_01_easy_still", {}),
    "euroc keyframes": ("euroc/V1_01_easy_keyframes", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_sequences_are_passed(test_data: Path, name: str) -> None:
    folder, options = REAL[name]
    report = checked(open_sequence(test_data / folder, **options))  # type: ignore[arg-type]
    assert report.topics("warning", "error") == [], "\n".join(report.lines())


@pytest.mark.slow
def test_malaga_is_passed(test_data: Path, tmp_path: Path) -> None:
    calibration = tmp_path / "malaga.yaml"
    values = {"width": 400, "height": 300, "fx": 310.59214, "fy": 310.59214}
    values |= {"cx": 201.7538, "cy": 154.279945, "fps": 10}
    calibration.write_text(yaml.safe_dump(values))
    report = checked(open_sequence(test_data / "malaga_07", calibration=calibration))
    assert report.topics("warning", "error") == [], "\n".join(report.lines())


def test_the_command_prints_a_verdict_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "check.json"
    options = ["--sensor", "mono", "--max-frames", "14", "--json", str(file)]
    assert call("check", "demo-small", *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("verdict: nothing is wrong")
    report = json.loads(file.read_text())
    assert report["failed"] is False
    assert {finding["level"] for finding in report["findings"]} <= {"ok", "note"}


def test_the_command_ends_with_1_where_a_run_would_fail(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("check", "demo-small", "--sensor", "mono", "--max-frames", "1") == 1
    assert "verdict: a run would fail" in capsys.readouterr().out


def test_the_command_ends_with_2_without_a_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "found nothing" in refused(capsys, "check", str(tmp_path / "none"))


def test_the_command_line_repeats_how_a_run_opened_its_recording() -> None:
    labels = {"input_path": "/data/a b", "input_dataset": "auto", "input_time_unit": "ms"}
    line = command_line(labels, "mono", 0, 20, 1)
    assert line == "spslam check '/data/a b' --sensor mono --time-unit ms --max-frames 20"
    labels |= {"input_topic": "/front/image_raw", "input_truth_topic": "/vicon/pose"}
    line = command_line(labels, "auto", 0, None, 1)
    assert line.endswith("--topic /front/image_raw --truth-topic /vicon/pose")


def test_topics_of_other_recordings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "check", "demo-small", "--topic", "/front/image_raw")
    assert "--topic is for bags" in line and "'/front/image_raw'" in line
