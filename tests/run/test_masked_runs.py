"""Runs with masks: what they write, and how a finished run's recording is opened again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import call, refused

from spslam.datasets import open_sequence
from spslam.datasets.masks.mask_images import read_mask
from spslam.run.output import read_metrics, recording_of

BODY = ("--disturb", "body:fraction=0.3")


def mask_file(path: Path, rows: int = 72) -> Path:
    mask = np.full((240, 320), 255, np.uint8)
    mask[240 - rows :] = 0
    assert cv2.imwrite(str(path), mask)
    return path


def run(out: Path, *options: str) -> dict[str, Any]:
    outputs = ("--outputs", "trajectory", "--extractor", "orb")
    assert call("run", "demo-small", "--out", str(out), *outputs, *options) == 0
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def test_a_run_with_a_mask_opens_its_recording_again_with_it(tmp_path: Path) -> None:
    mask = mask_file(tmp_path / "bonnet.png")
    metrics = run(tmp_path / "run", "--sensor", "rgbd", "--max-frames", "3", "--mask", str(mask))
    assert metrics["input_mask"] == str(mask)
    assert (metrics["mask_source"], metrics["masked_fraction"]) == ("file", pytest.approx(0.3))
    assert not (tmp_path / "run" / "mask.png").exists()
    recording = recording_of(read_metrics(tmp_path / "run"), tmp_path / "run")
    frame = open_sequence(**recording, sensor="rgbd")[0]
    assert frame.mask is not None and np.mean(~frame.mask) == pytest.approx(0.3)
    # The recording can also be read once the mask is gone.
    mask.unlink()
    assert recording_of(read_metrics(tmp_path / "run"))["mask"] is None


def test_a_mask_of_another_size_ends_the_run_before_it_begins(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "m.png"), np.full((100, 100), 255, np.uint8))
    line = refused(
        capsys, "run", "demo-small", "--mask", str(tmp_path / "m.png"), "--out", str(tmp_path / "o")
    )
    assert "m.png is 100x100, but the images are 320x240" in line
    assert not (tmp_path / "o").exists()


def test_masked_features_from_a_cache_give_the_same_bytes(tmp_path: Path) -> None:
    options = ("--sensor", "stereo", "--max-frames", "6", *BODY)
    mask = ("--mask", str(mask_file(tmp_path / "m.png")))
    cache = ("--cache", str(tmp_path / "cache"))
    names = {
        "without": mask,
        "written": (*mask, *cache),
        "read": (*mask, *cache),
        "unmasked": cache,
    }
    for name, more in names.items():
        run(tmp_path / name, *options, *more)
    first, written, read, unmasked = (
        (tmp_path / name / "trajectory.tum").read_bytes() for name in names
    )
    assert first == written == read != unmasked


@pytest.mark.slow
def test_what_is_fixed_to_the_camera_is_masked(tmp_path: Path) -> None:
    """A strip over 30 % of the image harms hardly more than the strip in black."""
    choice = ("--sensor", "mono")
    black = run(tmp_path / "black", *choice, "--disturb", "body:fraction=0.3,black=true")
    found = run(tmp_path / "auto", *choice, *BODY, "--mask", "auto")
    assert found["ate_rmse_m"] < 1.5 * black["ate_rmse_m"]
    assert found["tracking_rate"] >= black["tracking_rate"]
    assert (found["mask_source"], found["body_fixed_frames"]) == ("auto", 0)
    assert found["masked_fraction"] == pytest.approx(0.3, abs=0.04)
    assert any("bottom strip, rows 1" in entry["text"] for entry in found["notices"])
    # The written mask gives the same run.
    written = tmp_path / "auto" / "mask.png"
    assert not read_mask(written)[170:].any()
    again = run(tmp_path / "again", *choice, *BODY, "--mask", str(written))
    trajectories = [(tmp_path / name / "trajectory.tum").read_bytes() for name in ("auto", "again")]
    assert trajectories[0] == trajectories[1]
    assert again["ate_rmse_m"] == found["ate_rmse_m"]


@pytest.mark.slow
def test_nothing_is_masked_in_a_world_without_fixed_parts(tmp_path: Path) -> None:
    metrics = run(tmp_path / "run", "--sensor", "mono", "--max-frames", "30", "--mask", "auto")
    assert metrics["mask_source"] is None and metrics["masked_fraction"] == 0
    assert not (tmp_path / "run" / "mask.png").exists()
    assert any("masks nothing in the images" in entry["text"] for entry in metrics["notices"])
    assert recording_of(metrics, tmp_path / "run")["mask"] is None
