"""The choice of frames, and recordings that are read without a calibration."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from spslam.calibrate.frames import Examined, choose, examine, open_uncalibrated


def examined(motion: np.ndarray, turn: np.ndarray | None = None) -> Examined:
    count = len(motion)
    return Examined(
        np.arange(count) * 3,
        np.ones(count),
        motion,
        np.full(count, 0.001),
        motion if turn is None else turn,
    )


def test_frames_are_spread_over_the_motion() -> None:
    # Stands still for 100 frames, then moves evenly.
    motion = np.concatenate([np.zeros(100), np.full(100, 0.01)])
    chosen = choose(examined(motion), most=20)
    assert len(chosen) == 20
    # One of the still frames, and then every fifth.
    assert (chosen[1:] >= 3 * 100).all()
    assert np.abs(np.diff(chosen[1:]) - 15).max() <= 9


def test_the_sharpest_frame_near_a_place_is_chosen() -> None:
    found = examined(np.full(100, 0.01))
    found.sharpness[10::5] = 9.0
    chosen = choose(found, most=20)
    assert np.mean(chosen % 15 == 0) > 0.9


def test_the_part_with_turns_is_taken() -> None:
    motion = np.full(400, 0.05)
    turn = np.full(400, 0.002)
    turn[250:300] = 0.05
    chosen = choose(examined(motion, turn), most=50)
    assert chosen.min() > 200 * 3 and chosen.max() < 350 * 3
    assert np.isin(3 * np.arange(255, 295), chosen).mean() > 0.8


def shifted_pictures(folder: Path, step_px: int, count: int = 6) -> None:
    texture = np.random.default_rng(1).integers(0, 255, (60, 200), dtype=np.uint8)
    wide = cv2.resize(texture, (800, 240), interpolation=cv2.INTER_CUBIC)
    for index in range(count):
        left = index * step_px
        cv2.imwrite(str(folder / f"{index:06d}.png"), wide[:, left : left + 320])


def test_images_without_a_calibration_are_read_and_measured(tmp_path: Path) -> None:
    shifted_pictures(tmp_path, 8)
    frames = open_uncalibrated(tmp_path)
    assert (len(frames), frames.camera.width, frames.camera.height) == (6, 320, 240)
    found = examine(frames)
    # 8 px of a diagonal of 400 px; a shifted picture is no parallax.
    assert found.motion[1:] == pytest.approx(0.02, abs=0.001)
    assert found.turn[1:] == pytest.approx(0.02, abs=0.001)
    assert found.parallax.max() < 0.001
