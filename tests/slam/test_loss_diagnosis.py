"""Why tracking is lost: rendered frames are degraded in various ways (parallax: test_system.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import process_time

import cv2
import numpy as np
import pytest

from spslam.camera import Camera
from spslam.config import Config, load_config
from spslam.datasets.world.world import RenderedWorld, WorldSpec, world_spec
from spslam.frame import Frame
from spslam.frontend.matching.matching import DescriptorMatcher
from spslam.slam.loss_diagnosis import LossMonitor, image_statistics, reduce_image
from spslam.slam.recorder import Statistics
from spslam.slam.system import Slam
from spslam.slam.track_results import TrackResult, TrackState, hull_fraction

Image = np.ndarray
NOISE = np.random.default_rng(0).integers(20, 235, (240, 320)).astype(np.uint8)
BOARD = cv2.resize(NOISE[::3, ::3], (320, 240), interpolation=cv2.INTER_NEAREST)


def dark(image: Image) -> Image:
    return np.zeros_like(image)


def defocus(image: Image) -> Image:
    return cv2.GaussianBlur(image, (0, 0), 6)


def shake(image: Image) -> Image:
    """Motion blur along x only."""
    return cv2.blur(image, (31, 1))


def covered_by_texture(image: Image) -> Image:
    return np.hstack([BOARD[:, :272], image[:, 272:]])


def covered_by_a_wall(image: Image) -> Image:
    return np.vstack([image[:30], 128 + NOISE[30:] // 80])


def fog(image: Image) -> Image:
    return np.rint(128 + 0.03 * (image.astype(float) - 128)).astype(np.uint8) + NOISE // 80


SPOILT: dict[Callable[[Image], Image] | None, str] = {
    dark: "dark",
    defocus: "blur",
    shake: "blur",
    covered_by_texture: "occlusion",
    covered_by_a_wall: "occlusion",
    fog: "too few features",
    None: "jump",
}
START, BAD, GOOD = 10, 2, 3


@dataclass
class Spoilt:
    """A run that is lost and recovers once per entry of `SPOILT`."""

    camera: Camera
    results: list[TrackResult]
    statistics: Statistics


@pytest.fixture(scope="module")
def run() -> Spoilt:
    """Two frames in a row are degraded in each way; the frames in between are unchanged."""
    world = RenderedWorld(world_spec("demo-small"), "stereo")
    elsewhere = RenderedWorld(
        WorldSpec("hall", "hall", "tour", 320, 240, 4, texels_per_m=128.0), "stereo"
    )
    slam = Slam.from_config(load_config("demo_stereo", ["features.extractor=orb"]))
    results = []
    for index in range(START + len(SPOILT) * (BAD + GOOD)):
        frame = world[index]
        case, step = divmod(index - START, BAD + GOOD)
        if case >= 0 and step < BAD:
            frame = spoil(frame, list(SPOILT)[case], elsewhere[step])
        results.append(slam.track(frame))
    return Spoilt(world.camera, results, slam.statistics)


def spoil(frame: Frame, how: Callable[[Image], Image] | None, other: Frame) -> Frame:
    assert frame.image_right is not None
    if how is None:
        return replace(frame, image=other.image, image_right=other.image_right)
    return replace(frame, image=how(frame.image), image_right=how(frame.image_right))


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", range(len(SPOILT)), ids=[getattr(how, "__name__", "cut") for how in SPOILT]
)
def test_each_cause_is_reported(run: Spoilt, case: int) -> None:
    first = START + case * (BAD + GOOD)
    loss = run.statistics.losses[case]
    assert (loss.frame, loss.frames) == (first, BAD)
    assert loss.timestamp == run.results[first].timestamp
    assert loss.cause == list(SPOILT.values())[case], loss.reason
    assert loss.reason.startswith(f"{loss.cause}: ")
    assert any(character.isdigit() for character in loss.reason)
    assert "\n" not in loss.reason
    assert run.results[first].reason == loss.reason
    assert run.results[first + 1].reason != loss.reason, "only the first lost frame names the cause"


@pytest.mark.slow
def test_only_degraded_frames_are_lost(run: Spoilt) -> None:
    lost = [result.index for result in run.results if result.state is TrackState.LOST]
    assert lost == [
        START + case * (BAD + GOOD) + step for case in range(len(SPOILT)) for step in range(BAD)
    ]
    assert len(run.statistics.losses) == run.statistics.relocalisations == len(SPOILT)


@pytest.mark.slow
def test_tracked_frames_have_an_inlier_coverage(run: Spoilt) -> None:
    for result in run.results:
        assert (
            (0.2 < result.inlier_coverage <= 1.0)
            if result.T_world_cam is not None
            else (result.inlier_coverage == 0.0)
        )


def test_hull_fraction() -> None:
    camera = Camera(100, 50, 80.0, 80.0, 49.5, 24.5)
    rectangle = np.array([[10.0, 10.0], [60.0, 10.0], [60.0, 35.0], [10.0, 35.0], [30.0, 20.0]])
    assert hull_fraction(rectangle, camera) == pytest.approx(0.25)
    assert hull_fraction(rectangle[:3], camera) == pytest.approx(0.125)
    assert hull_fraction(rectangle[:2], camera) == 0.0
    assert hull_fraction(rectangle[:0], camera) == 0.0
    assert hull_fraction(np.array([[0.0, 0.0], [10.0, 10.0], [20.0, 20.0]]), camera) == 0.0


def test_statistics_of_an_image() -> None:
    noise = np.kron(NOISE, np.ones((2, 2), np.uint8))
    image = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), np.uint8)
    sharp = image_statistics(reduce_image(image))
    assert sharp.brightness == pytest.approx(image.mean(), rel=0.01)
    half = image_statistics(reduce_image(image // 2))
    assert half.brightness == pytest.approx(sharp.brightness / 2, rel=0.02)
    assert half.contrast == pytest.approx(sharp.contrast / 2, rel=0.05)
    assert half.sharpness == pytest.approx(sharp.sharpness, rel=0.05), (
        "darkening does not change the sharpness"
    )
    moved = image_statistics(reduce_image(shake(image)))
    assert moved.sharpness[0] < 0.6 * sharp.sharpness[0]
    assert moved.sharpness[1] > 0.8 * sharp.sharpness[1]
    flat = image_statistics(reduce_image(np.full((480, 640), 77, np.uint8)))
    assert (flat.brightness, flat.contrast, *flat.sharpness) == (77.0, 0.0, 0.0, 0.0)
    assert np.isfinite(image_statistics(reduce_image(np.zeros((16, 16), np.uint8))).sharpness).all()


def test_statistics_take_less_than_two_milliseconds() -> None:
    image = np.kron(NOISE, np.ones((2, 2), np.uint8))
    times = []
    for _ in range(20):
        start = process_time()
        image_statistics(reduce_image(image))
        times.append(process_time() - start)
    assert min(times) < 2e-3


@pytest.mark.parametrize(
    ("image", "levels"),
    [
        (np.zeros((120, 160), np.uint8), "0 to 0"),
        (np.full((120, 160), 255, np.uint8), "255 to 255"),
        (np.random.default_rng(0).integers(0, 4, (120, 160)).astype(np.uint8), "0 to 3"),
        (np.random.default_rng(0).integers(100, 110, (120, 160)).astype(np.uint8), "100 to 109"),
    ],
)
def test_flat_images_are_reported_with_their_grey_levels(image: Image, levels: str) -> None:
    monitor = LossMonitor(Config(), DescriptorMatcher(), 0.7)
    for _ in range(5):
        monitor.wait(image)
    assert (
        f"images are nearly flat: grey levels {levels} of 255 in 5 of them"
        in monitor.why_no_pose([], [])
    )


def test_images_without_motion_are_reported_with_the_fraction_of_still_points() -> None:
    monitor = LossMonitor(Config(), DescriptorMatcher(), 0.7)
    textured = np.random.default_rng(0).integers(0, 255, (120, 160)).astype(np.uint8)
    for _ in range(60):
        monitor.wait(textured)
    expected = (
        "97 % of the matched points did not move in 60 frames: "
        "a single camera needs to move sideways to start"
    )
    assert monitor.why_no_pose([0.97] * 59, []) == expected
    assert monitor.why_no_pose([0.3] * 59, []) == "", (
        "it moved, but too little: each frame has its own reason"
    )
    assert monitor.why_no_pose([0.97] * 10, []) == "", "most frames did not even match"
    assert LossMonitor(Config(), DescriptorMatcher(), 0.7).why_no_pose([], []) == ""
