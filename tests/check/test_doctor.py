"""`spslam check` on clean recordings, on real ones, and what it prints."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from command_line import call, refused
from matroska import write_matroska
from recordings.faults import FAULTS, FRAMES, LENS_FRAMES, Recording, clean_frame

from spslam.check import sampling
from spslam.check.doctor import examine
from spslam.check.findings import LEVELS, Finding, Report
from spslam.check.lens_fit import LensFit, PairMatches
from spslam.check.sampling import CLIP_FRAMES, CLIPS, Sample, read_clips
from spslam.cli.cameras.check import command_line
from spslam.config import Config
from spslam.datasets import open_sequence
from spslam.errors import FrameError
from spslam.frame import Frame
from spslam.interfaces import Sequence
from spslam.notices import Notice


def checked(sequence: Sequence, *notices: Notice) -> Report:
    """The report."""
    return examine(sequence, Config(), notices)


def found(report: Report, topic: str, level: str) -> list[Finding]:
    """The findings of a topic with at least a level."""
    return [
        finding
        for finding in report.findings
        if finding.topic == topic and LEVELS.index(finding.level) >= LEVELS.index(level)  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("sensor", ["mono", "stereo", "rgbd"])
def test_nothing_is_wrong_with_a_clean_recording(sensor: str) -> None:
    frames = LENS_FRAMES if sensor == "mono" else FRAMES
    report = checked(Recording(sensor, frames=frames))  # type: ignore[arg-type]
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
    labels |= {"input_mask": "auto", "input_topic": "/camera/it's"}
    line = command_line(labels, "mono", 0, 20, 1)
    assert line == (
        "spslam check '/data/a b' --sensor mono --time-unit ms --mask auto "
        """--topic '/camera/it'"'"'s' --max-frames 20"""
    )


def test_topics_of_other_recordings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check", "demo-small", "--topic", "/front/image_raw") == 2
    line = capsys.readouterr().err
    assert "--topic is for bags" in line and "'/front/image_raw'" in line


def test_a_run_that_fails_prints_the_command_that_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "it's a walk"
    FAULTS["left and right exchanged"].make().write(folder)
    calibration = tmp_path / "my camera.yaml"
    (folder / "calibration.yaml").rename(calibration)
    given = ["--calibration", str(calibration), "--start", "2", "--max-frames", "12"]
    run = ["run", str(folder), *given, "--out", str(tmp_path / "out")]
    assert call(*run) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    command = line.split("; ")[-1].removesuffix(" says what is wrong")
    words = shlex.split(command)
    assert words[:3] == ["spslam", "check", str(folder)]
    assert call(*words[1:]) == 1
    printed = capsys.readouterr().out
    assert "12 of 12 frames examined" in printed
    assert "left and right images are swapped" in printed
    # The command reads the recording without the disturbances of a run.
    assert call(*run, "--disturb", "dark:at=9,frames=2") == 2
    assert "spslam check" not in capsys.readouterr().err


def test_masked_pixels_are_not_judged(tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    FAULTS["bonnet"].make().write(folder)
    used = np.full((240, 320), 255, np.uint8)
    used[-48:] = 0
    assert cv2.imwrite(str(tmp_path / "mask.png"), used)
    report = checked(open_sequence(folder, mask=tmp_path / "mask.png"))
    assert report.topics("warning", "error") == []


class _Unread(Recording):
    """Frames of which only the numbers matter."""

    def _read(self, index: int) -> Frame:
        raise FrameError(f"frame {index}")


def test_large_images_are_read_in_fewer_clips() -> None:
    def tried(width: int) -> int:
        sample = Sample()
        large = _Unread(
            "mono",
            frames=500,
            camera=lambda camera: replace(camera, width=width, height=width * 3 // 4),
        )
        large.dataset = "images"
        assert list(read_clips(large, sample)) == []
        return sample.tried

    assert tried(640) == CLIPS * CLIP_FRAMES
    assert tried(4000) == 4 * CLIP_FRAMES


def test_of_a_long_video_the_start_is_examined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [np.asarray(clean_frame("mono", index).image) for index in range(30)]
    write_matroska(tmp_path / "walk.mkv", images, [index / 20 for index in range(30)])
    (tmp_path / "calibration.yaml").write_text(
        yaml.safe_dump({"width": 320, "height": 240, "fx": 300, "fy": 300, "cx": 159, "cy": 119})
    )
    monkeypatch.setattr(sampling, "_MOST_DECODED", 18 * 320 * 240)
    for start, examined in ((0, 18), (10, 18), (20, 10)):
        report = checked(open_sequence(tmp_path / "walk.mkv", start=start))
        assert ("start_only" in report.topics("note")) == (examined == 18)
        assert report.frames <= examined


def test_the_focal_length_of_a_lens_model_is_that_of_its_centre() -> None:
    """Double sphere with ξ = -0.1 magnifies the centre by 1.11 of its fx."""
    views = {}
    for model, scale in (("none", 1.0), ("double_sphere", 0.9)):
        camera = replace(
            clean_frame("mono", 0).camera,
            fx=300.0 * scale,
            fy=300.0 * scale,
            distortion_model=model,  # type: ignore[arg-type]
            distortion=(-0.1, 0.0) if model != "none" else (),
        )
        centre = np.array([[camera.cx + 3.0, camera.cy]])
        fit = LensFit([PairMatches(centre, centre, centre * 0, centre * 0)], camera)
        views[model] = fit._points[0][0]
    assert views["double_sphere"] == pytest.approx(views["none"], abs=1e-4)
