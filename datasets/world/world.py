"""Built-in worlds: sequences with exact depth and ground truth, rendered from a few numbers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import DatasetError
from spslam.frame import Frame, Sensor
from spslam.geometry import make_transform
from spslam.interfaces import LeftOut
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray

from .cache import cached_atlas
from .path import PATHS, PathName, another_walk
from .render import LEVELS, Renderer
from .rolling import RollingShutter
from .scene import LAYOUTS, Face, LayoutName
from .street.drive import drive_duration
from .street.layout import StreetLayout

Lens = tuple[float, float, float, float]
# Focal lengths and principal point of a camera, each relative to the image's size: fx, fy and cx
# to its width, cy to its height. No round numbers, so that a swapped axis shows in tests.
_ROOM_LENS: Lens = (0.7208, 0.7184, 0.5039, 0.4935)
# KITTI's rectified cameras 0 and 1 of sequence 00: f 718.856, cx 607.193, cy 185.216 px.
_KITTI_LENS: Lens = (718.856 / 1241, 718.856 / 1241, 607.693 / 1241, 185.716 / 376)

# Images that are averaged over the exposure time to blur motion.
_BLUR_STEPS = 8


@dataclass(frozen=True)
class WorldSpec:
    """The parameters of a rendered sequence.

    Attributes:
        name: short name for reports.
        layout: name of the scene, see `scene.LAYOUTS`.
        path: name of the camera path, see `path.PATHS`.
        width, height: image size, pixels.
        frames: number of frames.
        fps: frames per second, 1/s. The path is a function of time: fewer frames see less of it.
        seed: seed of the textures and of the noise.
        walk: seed of the deviation from the path, see `another_walk`; 0: the path itself.
        texels_per_m: density of the textures, 1/m.
        baseline_m: distance between the two cameras, metres.
        noise_sigma: standard deviation of the sensor's noise, grey levels.
        shutter_s: exposure time, seconds, which causes motion blur; 0: sharp images.
        exposure_change: relative amplitude of a slow change of brightness; 0: constant brightness.
        crowd: whether boxes walk through the world, see `crowd.CrowdWorld`.
        readout_s: time from the read-out of the first row to that of the last, seconds; 0: a global
            shutter.
        lens: focal lengths and principal point relative to the image's size.
        levels: number of mip levels of the textures.
        background: grey level without a surface, that of the sky.
    """

    name: str
    layout: LayoutName
    path: PathName
    width: int
    height: int
    frames: int
    fps: float = 20.0
    seed: int = 1
    walk: int = 0
    texels_per_m: float = 400.0
    baseline_m: float = 0.11
    noise_sigma: float = 1.5
    shutter_s: float = 0.0
    exposure_change: float = 0.0
    crowd: bool = False
    readout_s: float = 0.0
    lens: Lens = _ROOM_LENS
    levels: int = LEVELS
    background: int = 0

    def __post_init__(self) -> None:
        if self.frames < 1 or self.width < 16 or self.height < 16:
            raise DatasetError(
                f"world {self.name}: needs at least one frame of 16x16 pixels, "
                f"found {self.frames} of {self.width}x{self.height}"
            )
        for field in ("fps", "texels_per_m", "baseline_m"):
            if not getattr(self, field) > 0:
                raise DatasetError(
                    f"world {self.name}: {field} must be positive, found {getattr(self, field)}"
                )
        for field in ("noise_sigma", "shutter_s", "exposure_change", "readout_s"):
            if not getattr(self, field) >= 0:
                raise DatasetError(
                    f"world {self.name}: {field} must not be negative, found {getattr(self, field)}"
                )
        if self.readout_s > 0 and self.shutter_s == 0:
            raise DatasetError(f"world {self.name}: a rolling shutter needs an exposure time")


_SPECS = {
    "demo": WorldSpec("demo", "hall", "tour", 640, 480, 300),
    "demo-small": WorldSpec("demo-small", "room", "sway", 320, 240, 72, texels_per_m=256.0),
    "demo-loop": WorldSpec("demo-loop", "ring", "laps", 640, 480, 1120, texels_per_m=300.0),
    "demo-twins": WorldSpec("demo-twins", "twins", "stroll", 640, 480, 580, texels_per_m=300.0),
    # `demo` is the same world without the crowd.
    "demo-crowd": WorldSpec("demo-crowd", "hall", "tour", 640, 480, 300, crowd=True),
    "demo-turn": WorldSpec(
        "demo-turn", "hall", "turn", 640, 480, 330, fps=30.0, shutter_s=0.006, readout_s=0.018
    ),
    "demo-street": WorldSpec(
        "demo-street",
        "street",
        "drive",
        1241,
        376,
        int(10 * drive_duration()),
        fps=10.0,
        texels_per_m=42.0,
        baseline_m=0.54,
        noise_sigma=2.0,
        exposure_change=0.15,
        lens=_KITTI_LENS,
        levels=7,
        background=222,
    ),
}
WORLD_PRESETS = tuple(_SPECS)


def world_spec(preset: str) -> WorldSpec:
    """Return the parameters of a preset; vary them with `dataclasses.replace`.

    `demo@3` is `demo` with the seed 3: other textures and noise.

    Raises:
        DatasetError: there is no such world.
    """
    name, at, seed = preset.partition("@")
    if not is_world(preset):
        raise DatasetError(
            f"no built-in world is called {preset!r}; there are {', '.join(WORLD_PRESETS)}, "
            f"and with other textures {WORLD_PRESETS[0]}@2 and so on"
        )
    spec = _SPECS[name]
    return replace(spec, name=preset, seed=int(seed)) if at and int(seed) != spec.seed else spec


def world_faces(spec: WorldSpec) -> list[Face]:
    """Return the faces of a world at time 0; those of the street depend on the seed."""
    if spec.layout == "street":
        return StreetLayout(spec.seed).faces()
    return LAYOUTS[spec.layout]().faces()


def is_world(name: str) -> bool:
    """Return whether `name` is the name of a built-in world, alone or with `@` and a seed."""
    preset, at, seed = name.partition("@")
    return preset in _SPECS and (not at or (seed.isascii() and seed.isdigit()))


def open_world(preset: str, sensor: str = "auto") -> RenderedWorld:
    """Open a built-in world as a sequence.

    Args:
        preset: one of `WORLD_PRESETS`, alone or with `@` and a seed.
        sensor: `mono`, `stereo` or `rgbd`; `auto` is stereo.

    Raises:
        DatasetError: there is no such world or sensor.
    """
    spec, kind = world_spec(preset), RenderedWorld
    if spec.crowd:
        from .crowd import CrowdWorld

        kind = CrowdWorld
    match sensor:
        case "auto" | "stereo":
            return kind(spec, "stereo")
        case "mono":
            return kind(spec, "mono")
        case "rgbd":
            return kind(spec, "rgbd")
        case _:
            raise DatasetError(f"sensor must be auto, mono, stereo or rgbd, found {sensor!r}")


class RenderedWorld:
    """A rendered sequence (see `spslam.interfaces.Sequence` for its attributes).

    Textures are drawn at the first frame, and each frame is rendered on request. Equal specs give
    equal bytes, in any order of access.
    """

    name: str
    dataset: str
    sensor: Sensor
    camera: Camera
    source: str
    ground_truth: Trajectory | None
    skipped: list[tuple[int, str]]
    time_unit: str
    left_out: list[LeftOut]

    def __init__(self, spec: WorldSpec, sensor: Sensor = "stereo") -> None:
        self.spec = spec
        self.name = spec.name
        # The configuration of the street is that of KITTI, see `config.loading.config_for`.
        self.dataset = "demo-street" if spec.layout == "street" else "demo"
        self.sensor = sensor
        self.source = f"built-in world {spec.name}"
        self.skipped = []
        self.time_unit = "s"
        self.left_out = []
        fx, fy, cx, cy = spec.lens
        self.camera = Camera(
            width=spec.width,
            height=spec.height,
            fx=fx * spec.width,
            fy=fy * spec.width,
            cx=cx * spec.width - 0.5,
            cy=cy * spec.height - 0.5,
            baseline_m=None if sensor == "mono" else spec.baseline_m,
            fps=spec.fps,
            readout_s=spec.readout_s,
        )
        self._timestamps = np.arange(spec.frames) / spec.fps
        self._path = another_walk(PATHS[spec.path], spec.walk)
        self._T_world_cam = self._path(self._timestamps)
        self.ground_truth = Trajectory(self._timestamps, self._T_world_cam, "left camera")
        self._renderer: Renderer | None = None
        self._rolling: RollingShutter | None = None

    def __len__(self) -> int:
        return self.spec.frames

    def __iter__(self) -> Iterator[Frame]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Frame:
        index = self._checked(index)
        image, image_right = (
            self._pair(index)
            if self.sensor == "stereo"
            else (self._photo(index, right=False), None)
        )
        return Frame(
            index=index,
            timestamp=float(self._timestamps[index]),
            camera=self.camera,
            image=image,
            image_right=image_right,
            depth=self.depth(index) if self.sensor == "rgbd" else None,
        )

    def _pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Render the left and the right image in two threads."""
        self._get_renderer()
        with ThreadPoolExecutor(1) as other:
            right = other.submit(self._photo, index, right=True)
            return self._photo(index, right=False), right.result()

    @property
    def timestamps(self) -> FloatArray:
        """Time stamps of the frames, (N,) float64, seconds."""
        return self._timestamps

    def depth(self, index: int, right: bool = False) -> NDArray[np.float32]:
        """Render the exact depth of the left or `right` image, for every sensor.

        Returns:
            (H, W) float32, metres along z; 0 without a surface.
        """
        index, T_cam_eye = self._checked(index), self._T_left_right if right else np.eye(4)
        renderer, time_s = self._get_renderer(), float(self._timestamps[index])
        if self._rolling is not None:
            return self._rolling.depth(self._path, self._timestamps[index], T_cam_eye)
        pose = self._T_world_cam[index]
        return renderer.depth(pose @ T_cam_eye if right else pose, time_s)

    @property
    def _T_left_right(self) -> FloatArray:
        return make_transform(np.eye(3), np.array([self.spec.baseline_m, 0.0, 0.0]))

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return index % len(self)

    def _get_renderer(self) -> Renderer:
        if self._renderer is None:
            spec, faces = self.spec, world_faces(self.spec)
            atlas = cached_atlas(spec.layout, faces, spec.texels_per_m, spec.seed, spec.levels)
            self._renderer = Renderer(faces, atlas, self.camera, background=spec.background)
            if spec.readout_s > 0:
                self._rolling = RollingShutter(faces, atlas, self.camera, spec.shutter_s)
        return self._renderer

    def _exposed(self, index: int, right: bool) -> NDArray[np.float32]:
        """Render the left or right image of frame `index`, blurred by its motion."""
        renderer, spec = self._get_renderer(), self.spec
        if self._rolling is not None:
            T_cam_eye = self._T_left_right if right else np.eye(4)
            return self._rolling.image(self._path, self._timestamps[index], T_cam_eye)
        times = self._timestamps[index : index + 1]
        if spec.shutter_s > 0:
            times = times + spec.shutter_s * ((np.arange(_BLUR_STEPS) + 0.5) / _BLUR_STEPS - 0.5)
        poses = self._path(times)
        if right:
            poses = poses @ self._T_left_right
        image: NDArray[np.float32] = np.mean(
            [renderer.image(*seen) for seen in zip(poses, times, strict=True)],
            axis=0,
            dtype=np.float32,
        )
        return image

    def _photo(self, index: int, right: bool) -> NDArray[np.uint8]:
        """Render the left or right image of frame `index` with blur, exposure and noise, 8 bits."""
        spec = self.spec
        image = self._exposed(index, right)
        if spec.exposure_change > 0:
            # One period of the brightness is about four seconds.
            image *= np.float32(1.0 + spec.exposure_change * np.sin(1.6 * self._timestamps[index]))
        if spec.noise_sigma > 0:
            rng = np.random.default_rng(
                [spec.seed, index, int(right), *([spec.walk] if spec.walk else [])]
            )
            image += np.float32(spec.noise_sigma) * rng.standard_normal(
                image.shape, dtype=np.float32
            )
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)
