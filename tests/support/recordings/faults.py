"""Recordings of the small built-in world with one fault each, for the tests of `spslam check`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import yaml

from spslam.camera import Camera
from spslam.datasets.base import BaseSequence
from spslam.datasets.world.world import open_world
from spslam.errors import FrameError
from spslam.frame import Frame, Sensor
from spslam.geometry import inverse, so3_exp
from spslam.trajectory import Trajectory

Image = np.ndarray
# Frames of a recording: two clips. The camera model needs more, and so do things that are fixed.
FRAMES, LENS_FRAMES, FIXED_FRAMES = 24, 36, 48
# Distortion of a common wide lens.
DISTORTION = (-0.28, 0.07, 0.0, 0.0)


@cache
def _worlds(sensor: Sensor) -> BaseSequence:
    return open_world("demo-small", sensor)  # type: ignore[return-value]


@cache
def clean_frame(sensor: Sensor, index: int) -> Frame:
    """A frame of demo-small, rendered once."""
    return _worlds(sensor)[index]


class Recording(BaseSequence):
    """Frames of demo-small, changed on reading.

    Attributes:
        change: returns frame `index` of the recording.
        stamps: times of the frames, seconds.
    """

    def __init__(
        self,
        sensor: Sensor,
        change: Callable[[int], Frame] | None = None,
        *,
        camera: Callable[[Camera], Camera] = lambda camera: camera,
        stamps: Callable[[np.ndarray], np.ndarray] = lambda stamps: stamps,
        truth: Callable[[Trajectory], Trajectory | None] = lambda truth: truth,
        frames: int = FRAMES,
    ) -> None:
        world = _worlds(sensor)
        assert world.ground_truth is not None
        super().__init__(
            "demo-small with a fault",
            sensor,
            camera(world.camera),
            "demo-small",
            truth(world.ground_truth),
            dataset="demo",
        )
        self._frames = frames
        self._change = change or (lambda index: clean_frame(sensor, index))
        self.timestamps = stamps(np.arange(frames) / world.camera.fps)

    def __len__(self) -> int:
        return self._frames

    def write(self, folder: Path) -> None:
        """Write images, depth and calibration; frames that cannot be decoded become cut files."""
        sides = {"stereo": ("left", "right"), "rgbd": ("left", "depth"), "mono": ("",)}[self.sensor]
        for side in sides:
            (folder / side).mkdir(parents=True, exist_ok=True)
        for index, stamp in enumerate(self.timestamps):
            # Names are times in nanoseconds.
            name = f"{1_700_000_000_000_000_000 + round(1e9 * stamp)}"
            try:
                frame = self._change(index)
            except FrameError:
                (folder / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
                continue
            assert cv2.imwrite(str(folder / sides[0] / f"{name}.png"), frame.image)
            if frame.image_right is not None:
                assert cv2.imwrite(str(folder / "right" / f"{name}.png"), frame.image_right)
            if frame.depth is not None:
                np.save(folder / "depth" / f"{name}.npy", frame.depth)
        (folder / "calibration.yaml").write_text(
            yaml.safe_dump(_calibration(self.camera, self.sensor == "stereo"))
        )

    def _read(self, index: int) -> Frame:
        frame = self._change(index)
        return replace(
            frame, index=index, camera=self.camera, timestamp=float(self.timestamps[index])
        )


def _calibration(camera: Camera, stereo: bool) -> dict[str, object]:
    """The content of a calibration file."""
    one: dict[str, object] = {
        key: getattr(camera, key) for key in ("width", "height", "fx", "fy", "cx", "cy")
    }
    if camera.distortion_model != "none":
        model, values = camera.distortion_model, [float(value) for value in camera.distortion]
        one["distortion"] = {"model": model, "coefficients": values}
    whole = {**one, "fps": camera.fps}
    if stereo and camera.baseline_m is not None:
        pose = np.eye(4)
        pose[0, 3] = camera.baseline_m
        whole |= {"right": one, "T_left_right": pose.tolist()}
    return whole


@dataclass(frozen=True)
class Fault:
    """A fault, and what a check must say.

    Attributes:
        make: makes the recording.
        topic: topic of the finding.
        level: its level at least.
    """

    make: Callable[[], Recording]
    topic: str
    level: str = "warning"


def _image(change: Callable[[Image, int], Image], frames: int = FRAMES) -> Recording:
    """A recording whose images are changed; `change` takes an image and its index."""

    def frame(index: int) -> Frame:
        clean = clean_frame("mono", index)
        return replace(clean, image=np.ascontiguousarray(change(clean.image, index), np.uint8))

    return Recording("mono", frame, frames=frames)


def _lens(change: Callable[[Camera], Camera]) -> Recording:
    """A recording whose calibration is changed."""
    return Recording("mono", camera=change, frames=FIXED_FRAMES)


def _right(change: Callable[[int], Image]) -> Recording:
    """A stereo recording whose right image of a frame is `change(index)`."""
    return Recording(
        "stereo",
        lambda index: replace(
            clean_frame("stereo", index), image_right=np.ascontiguousarray(change(index))
        ),
    )


def _right_image(index: int) -> Image:
    image = clean_frame("stereo", index).image_right
    assert image is not None
    return image


def _depth(change: Callable[[int], Image], frames: int = FRAMES) -> Recording:
    return Recording(
        "rgbd",
        lambda index: replace(clean_frame("rgbd", index), depth=change(index).astype(np.float32)),
        frames=frames,
    )


def _depth_image(index: int) -> Image:
    depth = clean_frame("rgbd", index).depth
    assert depth is not None
    return depth


def _moved(image: Image, right: float, down: float) -> Image:
    matrix = np.array([[1.0, 0.0, right], [0.0, 1.0, down]])
    flags = cv2.INTER_LINEAR if image.dtype == np.uint8 else cv2.INTER_NEAREST
    return cv2.warpAffine(image, matrix, image.shape[::-1], flags=flags, borderMode=1)


def _swapped() -> Recording:
    return Recording(
        "stereo",
        lambda index: replace(
            clean_frame("stereo", index),
            image=_right_image(index),
            image_right=clean_frame("stereo", index).image,
        ),
    )


def _focal(factor: float) -> Recording:
    return _lens(lambda camera: replace(camera, fx=camera.fx * factor, fy=camera.fy * factor))


@cache
def _distortion_maps(camera: Camera) -> tuple[Image, Image]:
    """Where each pixel of a distorted image comes from in the ideal one."""
    lens = replace(camera, distortion_model="radtan", distortion=DISTORTION)
    grid = np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), axis=-1)
    straight = lens.undistort(grid.reshape(-1, 2).astype(np.float64)).reshape(
        camera.height, camera.width, 2
    )
    return straight[..., 0].astype(np.float32), straight[..., 1].astype(np.float32)


def _distorted(image: Image, index: int) -> Image:
    maps = _distortion_maps(clean_frame("mono", 0).camera)
    return cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _turned_only(index: int) -> Frame:
    """A view of one frame through a camera that only turns."""
    clean = clean_frame("mono", 20)
    camera = clean.camera
    R = so3_exp(np.array([0.006 * index, 0.1 * np.sin(index / 6.0), 0.0]))
    H = camera.K @ R @ np.linalg.inv(camera.K)
    turned = cv2.warpPerspective(
        clean.image, H, (camera.width, camera.height), borderMode=cv2.BORDER_REFLECT
    )
    return replace(clean, image=np.asarray(turned, np.uint8))


def _still(index: int) -> Frame:
    clean = clean_frame("mono", 20)
    noise = np.random.default_rng(index).normal(0.0, 1.5, clean.image.shape)
    return replace(clean, image=np.clip(clean.image + noise, 0, 255).astype(np.uint8))


def _interlaced(image: Image, index: int) -> Image:
    """Odd rows show the moment of the next frame but two."""
    woven = image.copy()
    woven[1::2] = clean_frame("mono", index + 3).image[1::2]
    return woven


def _rolling(image: Image, index: int) -> Image:
    """Rows are read during a whole frame step: a mixture of this frame and the one after."""
    following = clean_frame("mono", index + 1).image
    flow = cv2.calcOpticalFlowFarneback(
        image, following, np.zeros((*image.shape, 2), np.float32), 0.5, 4, 21, 5, 7, 1.5, 0
    )
    flow = cv2.GaussianBlur(flow, (0, 0), 9.0)
    y, x = np.indices(image.shape).astype(np.float32)
    part = (y / image.shape[0] - 0.5)[..., None].astype(np.float32)
    source = np.stack([x, y], axis=-1) - part * flow
    return cv2.remap(image, source[..., 0], source[..., 1], cv2.INTER_LINEAR, borderMode=1)


def _bonnet(image: Image, index: int) -> Image:
    """A textured bonnet covers the lowest fifth."""
    noise = np.random.default_rng(3).uniform(0, 255, (60, 80)).astype(np.float32)
    texture = cv2.resize(noise, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
    covered = image.copy()
    covered[-48:] = np.clip(texture, 0, 255).astype(np.uint8)[-48:]
    return covered


def _bordered(image: Image, index: int) -> Image:
    bordered = np.zeros_like(image)
    bordered[60:-60] = image[60:-60]
    return bordered


def _unreadable(index: int) -> Frame:
    if index % 5 == 2:
        raise FrameError(f"frame {index} cannot be decoded")
    return clean_frame("mono", index)


def _jittered(stamps: Image) -> Image:
    step = stamps[1] - stamps[0]
    return stamps + np.random.default_rng(1).uniform(-0.45, 0.45, len(stamps)) * step


def _gappy(stamps: Image) -> Image:
    """Ten frames in the middle were dropped."""
    step = stamps[1] - stamps[0]
    return stamps + np.where(np.arange(len(stamps)) >= 12, 10 * step, 0.0)


def _axes_turned(truth: Trajectory) -> Trajectory:
    """The poses of a body with x ahead and z up."""
    T_cam_body = np.eye(4)
    T_cam_body[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    return replace(truth, T_world_cam=truth.T_world_cam @ T_cam_body)


def _clock_off(truth: Trajectory) -> Trajectory:
    return replace(truth, timestamps=truth.timestamps + 0.4)


FAULTS: dict[str, Fault] = {
    "focal length 30 % too long": Fault(lambda: _focal(1.3), "focal_length"),
    "focal length 23 % too short": Fault(lambda: _focal(1 / 1.3), "focal_length"),
    "distortion that the calibration lacks": Fault(
        lambda: _image(_distorted, LENS_FRAMES), "distortion"
    ),
    "distortion of images that have none": Fault(
        lambda: _lens(
            lambda camera: replace(camera, distortion_model="radtan", distortion=DISTORTION)
        ),
        "distortion",
    ),
    "cx and cy exchanged": Fault(
        lambda: _lens(lambda camera: replace(camera, cx=camera.cy, cy=camera.cx)),
        "principal_point",
    ),
    "rolling shutter": Fault(lambda: _image(_rolling, LENS_FRAMES), "rolling_shutter", "note"),
    "left and right exchanged": Fault(_swapped, "swapped", "error"),
    "left images twice": Fault(
        lambda: _right(lambda index: clean_frame("stereo", index).image), "same_images", "error"
    ),
    "right images upside down": Fault(
        lambda: _right(lambda index: _right_image(index)[::-1]), "unlike_images", "error"
    ),
    "right images 2 frames late": Fault(
        lambda: _right(lambda index: _right_image(index + 2)), "late_right"
    ),
    "right images 2 rows lower": Fault(
        lambda: _right(lambda index: _moved(_right_image(index), 0, 2)), "misaligned_rows"
    ),
    "right images 9 rows lower": Fault(
        lambda: _right(lambda index: _moved(_right_image(index), 0, 9)),
        "misaligned_rows",
        "error",
    ),
    "baseline 5 times too long": Fault(
        lambda: Recording(
            "stereo",
            camera=lambda camera: replace(camera, baseline_m=5 * (camera.baseline_m or 0.0)),
            frames=LENS_FRAMES,
        ),
        "truth_scale",
    ),
    "depth 1000 times too large": Fault(
        lambda: _depth(lambda index: 1000 * _depth_image(index)), "depth_range", "error"
    ),
    "depth 5 times too large": Fault(
        lambda: _depth(lambda index: 5 * _depth_image(index)), "depth_range"
    ),
    "depth 5 times too small": Fault(
        lambda: _depth(lambda index: _depth_image(index) / 5, LENS_FRAMES), "truth_scale"
    ),
    "no depth": Fault(lambda: _depth(lambda index: 0 * _depth_image(index)), "depth_missing"),
    "depth 12 px to the right": Fault(
        lambda: _depth(lambda index: _moved(_depth_image(index), 12, 0)), "not_registered"
    ),
    "depth 3 frames late": Fault(
        lambda: _depth(lambda index: _depth_image(index + 3)), "depth_delay"
    ),
    "dark images": Fault(lambda: _image(lambda image, _: image * 0.16), "dark"),
    "over-exposed images": Fault(
        lambda: _image(lambda image, _: np.clip(image.astype(float) * 2.6, 0, 255)),
        "over_exposed",
    ),
    "lens cap": Fault(lambda: _image(lambda image, _: 16 + image * 0.02), "flat", "error"),
    "out of focus": Fault(
        lambda: _image(lambda image, _: cv2.GaussianBlur(image, (0, 0), 3.0)), "blur"
    ),
    "every third image blurred by motion": Fault(
        lambda: _image(lambda image, index: cv2.blur(image, (17, 1)) if index % 3 == 0 else image),
        "blurred_frames",
    ),
    "lamps that flicker": Fault(
        lambda: _image(lambda image, index: image * (1.0 if index % 2 else 0.7)), "flicker"
    ),
    "automatic exposure that jumps": Fault(
        lambda: _image(lambda image, index: image * (1.0 if index % 16 < 8 else 0.6)),
        "exposure_jumps",
    ),
    "frozen frames": Fault(
        lambda: Recording("mono", lambda index: clean_frame("mono", index - index % 2)), "frozen"
    ),
    "interlaced video": Fault(lambda: _image(_interlaced), "interlaced"),
    "too few frames a second": Fault(
        lambda: Recording("mono", lambda index: clean_frame("mono", (index * 23) % 72)),
        "overlap",
    ),
    "pure rotation": Fault(lambda: Recording("mono", _turned_only), "pure_rotation", "error"),
    "standstill": Fault(lambda: Recording("mono", _still), "stands_still", "error"),
    "bonnet": Fault(lambda: _image(_bonnet, FIXED_FRAMES), "body_fixed"),
    "black border": Fault(lambda: _image(_bordered, FIXED_FRAMES), "black_border"),
    "unreadable images": Fault(lambda: Recording("mono", _unreadable), "unreadable"),
    "dropped frames": Fault(lambda: Recording("mono", stamps=_gappy), "gaps"),
    "jitter": Fault(lambda: Recording("mono", stamps=_jittered), "jitter"),
    "wrong frame rate": Fault(
        lambda: Recording("mono", camera=lambda camera: replace(camera, fps=60.0)), "rate"
    ),
    "wrong time unit": Fault(
        lambda: Recording("mono", stamps=lambda stamps: 1000 * stamps, truth=lambda _: None),
        "time_unit",
    ),
    "mirrored images": Fault(lambda: _image(lambda image, _: image[:, ::-1]), "truth_axes"),
    "ground truth of a body": Fault(lambda: Recording("mono", truth=_axes_turned), "truth_axes"),
    "ground truth inverted": Fault(
        lambda: Recording(
            "mono", truth=lambda truth: replace(truth, T_world_cam=inverse(truth.T_world_cam))
        ),
        "truth_axes",
    ),
    "ground truth 0.4 s late": Fault(
        lambda: Recording("mono", truth=_clock_off, frames=FIXED_FRAMES), "truth_axes"
    ),
    "ground truth of another day": Fault(
        lambda: Recording(
            "mono", truth=lambda truth: replace(truth, timestamps=truth.timestamps + 86400)
        ),
        "truth_time",
    ),
}
