"""What is fixed to the camera is found; what is far away, or a camera that stands still, is not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from spslam.camera import Camera
from spslam.datasets.masks.fixed_parts import FixedParts, find_fixed_parts
from spslam.errors import Refusal
from spslam.geometry import so3_exp

CAMERA = Camera(320, 240, 240.0, 240.0, 159.5, 119.5)
PAIRS = 12


def texture(seed: int, shape: tuple[int, int]) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.clip(128 + (smooth - 128) * 5, 0, 255)


def view(walls: list[np.ndarray], yaw: float, x: float, z: float) -> np.ndarray:
    """The image of a camera in front of a wall at 9 m, half of it behind a wall at 4 m."""
    R = so3_exp(np.array([0.3 * yaw, yaw, 0.0]))
    image = np.zeros((240, 320), np.float32)
    near = np.ones((600, 800), np.float32)
    near[:, 400:] = 0
    for wall, depth, part in zip(walls, (9.0, 4.0), (np.ones_like(near), near), strict=True):
        scale = depth / 240.0
        P = np.array([[scale, 0, -400 * scale], [0, scale, -300 * scale], [0, 0, depth]])
        shift = np.outer([x, 0.0, z], [0.0, 0.0, 1.0])
        H = CAMERA.K @ R @ (P - shift)
        drawn, shown = (cv2.warpPerspective(each, H, (320, 240)) for each in (wall, part))
        image = np.where(shown > 0.5, drawn, image)
    noise = np.random.default_rng(int(1e6 * abs(yaw + x + z))).normal(0, 2, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def recording(*, turns: bool = True, moves: bool = True) -> list[tuple[np.ndarray, np.ndarray]]:
    walls = [texture(seed, (600, 800)) for seed in (1, 2)]
    rng = np.random.default_rng(5)
    pairs = []
    for number in range(PAIRS):
        yaw, x, z = (0.25 * rng.uniform(-1, 1), rng.uniform(-1, 1), 0.1 * number)
        if not moves:
            yaw, x, z = 0.0, 0.0, 0.0
        # Turns with and against the translation: no depth makes up for both.
        step = 0.03 * (-1) ** number if turns and moves else 0.0
        first = view(walls, yaw * turns, x, z)
        second = view(walls, yaw * turns + step, x + 0.15 * moves, z + 0.05 * moves)
        pairs.append((first, second))
    return pairs


def with_part(pairs: list, where: tuple[slice, slice]) -> list[tuple[np.ndarray, np.ndarray]]:
    part = texture(9, (240, 320)).astype(np.uint8)
    for image in (image for pair in pairs for image in pair):
        image[where] = part[where]
    return pairs


def test_a_strip_at_the_bottom_is_found() -> None:
    found = find_fixed_parts(with_part(recording(), np.s_[170:, :]), CAMERA)
    assert isinstance(found, FixedParts), found
    assert not found.mask[172:].any()
    assert found.mask[:162].all()
    assert found.where.startswith("bottom strip, rows 16")


def test_text_in_the_image_is_found() -> None:
    pairs = recording()
    for image in (image for pair in pairs for image in pair):
        cv2.putText(image, "CAM 1", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 3)
    found = find_fixed_parts(pairs, CAMERA)
    assert isinstance(found, FixedParts), found
    masked = ~found.mask
    letters = np.zeros((240, 320), np.uint8)
    cv2.putText(letters, "CAM 1", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 3)
    assert np.mean(masked[letters > 0]) > 0.9
    assert masked.sum() < 3 * 100 * 35


def test_a_ring_around_the_view_masks_the_corners() -> None:
    pairs = recording()
    y, x = np.indices((240, 320))
    outside = np.hypot(x - 160, y - 120) > 150
    for image in (image for pair in pairs for image in pair):
        image[outside] = 0
    found = find_fixed_parts(pairs, CAMERA)
    assert isinstance(found, FixedParts), found
    assert np.mean(~found.mask[outside]) > 0.95
    assert np.mean(~found.mask[~outside]) < 0.12


@pytest.mark.parametrize(
    ("turns", "moves", "fixed", "reason"),
    [
        (True, True, False, "nothing stays in place"),
        (False, True, True, "the camera hardly turns"),
        (True, False, False, "the camera hardly moves"),
    ],
)
def test_nothing_is_masked_without_proof(
    turns: bool, moves: bool, fixed: bool, reason: str
) -> None:
    """A part that stays in place while the camera does not turn may be far away."""
    pairs = recording(turns=turns, moves=moves)
    if fixed:
        pairs = with_part(pairs, np.s_[:60, 100:200])
    found = find_fixed_parts(pairs, CAMERA)
    assert isinstance(found, Refusal), found.where
    assert reason in found.reason
