"""Disturb recordings: boxes, still cameras, dark or blurred frames, jumps, parts of the vehicle.

The ground truth stays exact. Several disturbances can be combined:

    from spslam.datasets.world.disturbed import disturb
    world = open_world("demo", "rgbd")
    still = disturb(open_world("demo-small"), ["still:frames=70", "mover:fraction=0.25,speed=3.3"])
    moving = disturb(world, ["mover:fraction=0.4,speed=4,path=pass,start=60,seed=3"])
    dark = disturb(world, ["dark:at=100,frames=8"])
    blurred = disturb(world, ["blur:at=0,frames=1,every=3"])
    bonnet = disturb(world, ["body:fraction=0.2"])
    jump = disturb(world, ["jump:at=150,to=20,frames=60"])

On the command line:

    spslam run demo-small --disturb still:frames=70 --disturb mover:fraction=0.25
"""

from __future__ import annotations

import logging
from collections.abc import Sequence as Listed
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.clocks import nearest
from spslam.errors import DatasetError
from spslam.frame import Frame
from spslam.geometry import inverse, make_transform
from spslam.interfaces import Sequence
from spslam.notices import counted, notice_renamed, plural
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray

from ..base import BaseSequence, SlicedSequence
from ..masks.mask_images import RawView
from .scene import Face
from .texture import face_texture

# Texels of a box per pixel of the image at its depth: sub-pixel motion looks smooth.
_TEXELS_PER_PIXEL = 2.0
# Standard deviation of the blur of a box's texture, texels: about the area of a sensor's pixel.
_TEXTURE_BLUR = 0.9
# Density of a body's texture, relative to a wall of the built-in worlds at the same depth.
_BODY_DETAIL = 2.5
# Speeds of a mover that the seed chooses from, pixels per frame: slow enough for points on the box
# to pass the gates of tracking for a while.
_SPEEDS = (2.7, 3.3, 4.0)
# Largest time between a frame and the ground truth pose that counts as its own, seconds.
_TRUTH_WITHIN_S = 0.02


@dataclass(frozen=True)
class Still:
    """A camera that stands still: one frame is repeated, each time with new noise.

    Attributes:
        frame: index of the repeated frame.
        frames: how often the frame is shown.
        lead: number of frames before it that are shown first, so that mono can build a map.
        noise: standard deviation of the noise, grey levels.
        seed: seed of the noise.
    """

    frame: int = 0
    frames: int = 70
    lead: int = 0
    noise: float = 1.5
    seed: int = 0


@dataclass(frozen=True)
class Mover:
    """A flat textured box that moves by itself and hides what is behind it.

    Attributes:
        fraction: fraction of the image, 0 to 1, that it covers when it is completely in view.
        speed: speed, pixels per frame; in the world this adds to the motion of the camera. -1: the
            seed chooses 2.7, 3.3 or 4.
        depth: depth of the box, metres; in the world its depth when it crosses the view.
        start: the first frame that may show the box; it then comes in from outside.
        path: `stay`: it comes in and goes back and forth in view. `pass`: it crosses the view.
            `appear`: it appears in the middle and then goes back and forth.
        heading: direction in the image, degrees: 0 is right, 90 is down. -1: the seed chooses
            right, left or one of four slanting directions.
        world: whether it moves in the world instead of with the camera. This needs a ground truth,
            and the box then passes.
        detail: density of its texture, relative to a wall of the built-in worlds at the same depth.
        noise: standard deviation of the noise on it, grey levels.
        seed: seed of texture, heading and noise.
    """

    fraction: float = 0.25
    speed: float = 3.3
    depth: float = 1.2
    start: int = 12
    path: str = "stay"
    heading: float = -1.0
    world: bool = False
    detail: float = 2.5
    noise: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        possible = 0 < self.fraction < 1 and self.depth > 0 and self.detail > 0
        if not possible or (self.speed < 0 and self.speed != -1):
            raise DatasetError(
                "a mover has a fraction between 0 and 1, a depth and detail above 0 and a speed of "
                f"at least 0 or -1, found fraction={self.fraction} depth={self.depth} "
                f"detail={self.detail} speed={self.speed}"
            )
        if self.path not in ("stay", "pass", "appear"):
            raise DatasetError(f"a mover's path is stay, pass or appear, found {self.path!r}")


@dataclass(frozen=True)
class Dark:
    """Black frames, while the camera moves on.

    Attributes:
        at: the first black frame.
        frames: number of black frames.
        within: largest delay of `at`, frames; the seed chooses the delay.
        seed: seed of the delay.
        every: number of frames after which it is dark again; 0: only once.
    """

    at: int = 100
    frames: int = 8
    within: int = 0
    seed: int = 0
    every: int = 0

    @property
    def first(self) -> int:
        """The first dark frame."""
        return self.at + _put_off(self.within, self.seed)

    def holds(self, index: int) -> bool:
        """Whether the frame at `index` is dark."""
        return _recurs(index - self.first, self.frames, self.every)


@dataclass(frozen=True)
class Blur:
    """Frames blurred by a shake of the camera, sideways in the image.

    Attributes:
        at: the first blurred frame.
        frames: number of blurred frames.
        every: number of frames after which they are blurred again; 0: only once.
        length: length of the blur, pixels.
        within: largest delay of `at`, frames; the seed chooses the delay.
        seed: seed of the delay.
    """

    at: int = 100
    frames: int = 1
    every: int = 0
    length: int = 31
    within: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.length < 1:
            raise DatasetError(
                f"blur: its length is at least one pixel, found length={self.length}"
            )

    @property
    def first(self) -> int:
        """The first blurred frame."""
        return self.at + _put_off(self.within, self.seed)

    def holds(self, index: int) -> bool:
        """Whether the frame at `index` is blurred."""
        return _recurs(index - self.first, self.frames, self.every)


@dataclass(frozen=True)
class Jump:
    """A kidnapped camera: the frames of another place follow without a transition.

    Attributes:
        at: the first frame that shows the other place.
        to: index in the recording of the frame shown then; its successors follow.
        frames: number of frames from the other place; 0: all.
        back: whether the recording then continues at `at`.
        within: largest delay of `at`, frames; the seed chooses the delay.
        seed: seed of the delay.
    """

    at: int = 150
    to: int = 20
    frames: int = 60
    back: bool = False
    within: int = 0
    seed: int = 0

    @property
    def first(self) -> int:
        """The first frame that shows the other place."""
        return self.at + _put_off(self.within, self.seed)


@dataclass(frozen=True)
class Body:
    """A part of the vehicle, such as a bonnet: a textured strip that keeps its place in the image.

    Attributes:
        fraction: fraction of the image, 0 to 1, that the strip at the bottom covers.
        depth: depth of the strip, metres; at once its disparity in pairs.
        black: whether the strip is black instead, as in an image that is cut by hand.
        noise: standard deviation of the noise on it, grey levels.
        seed: seed of texture and noise.
    """

    fraction: float = 0.2
    depth: float = 1.2
    black: bool = False
    noise: float = 1.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.fraction < 1 and self.depth > 0):
            raise DatasetError(
                "a body has a fraction between 0 and 1 and a depth above 0, "
                f"found fraction={self.fraction} depth={self.depth}"
            )

    def rows(self, height: int) -> int:
        """Return the number of rows of an image of `height` rows that the strip covers."""
        return max(1, round(self.fraction * height))


def _recurs(index: int, frames: int, every: int) -> bool:
    """Whether a frame is one of the first `frames`, or of each `every` frames if that is not 0."""
    return index >= 0 and (index % every if every else index) < frames


def _put_off(within: int, seed: int) -> int:
    return int(np.random.default_rng([seed, 17]).integers(0, within + 1))


Disturbance = Still | Mover | Dark | Blur | Jump | Body
logger = logging.getLogger(__name__)

_KINDS: dict[str, type[Disturbance]] = {"still": Still, "mover": Mover, "dark": Dark, "jump": Jump}
_KINDS |= {"body": Body, "blur": Blur}


def parse_disturbance(text: str) -> Disturbance:
    """Parse a disturbance such as `mover:fraction=0.25,speed=4`; missing keys have their defaults.

    Raises:
        DatasetError: the text names no disturbance, or one of its values is wrong.
    """
    name, _, rest = text.strip().partition(":")
    kind = _KINDS.get(name)
    if kind is None:
        raise DatasetError(f"a disturbance is one of {', '.join(_KINDS)}, found {name!r}")
    defaults = {field.name: field.default for field in fields(kind)}
    values: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if (kind, key) == (Mover, "share"):
            notice_renamed(logger, f"disturbance {text!r}", "mover:share", "mover:fraction")
            key = "fraction"
        if not equals or key not in defaults:
            raise DatasetError(
                f"{name} takes {', '.join(f'{key}=…' for key in defaults)}, found {pair!r}"
            )
        values[key] = _value(name, key, value, defaults[key])
    return kind(**values)


def _value(name: str, key: str, value: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        number = type(default)(value)
    except (KeyError, ValueError):
        raise DatasetError(f"{name}: {key} must be like {default}, found {value!r}") from None
    if isinstance(number, int | float) and not (
        np.isfinite(number) and (number >= 0 or key in ("heading", "speed"))
    ):
        raise DatasetError(f"{name}: {key} must be finite and not negative, found {value}")
    return number


def disturb(sequence: Sequence, disturbances: Listed[Disturbance | str]) -> DisturbedSequence:
    """Return the recording with disturbances, each a `Disturbance` or its text.

    Raises:
        DatasetError: a text names no disturbance, or a disturbance does not fit the recording.
    """
    return DisturbedSequence(
        sequence, [parse_disturbance(d) if isinstance(d, str) else d for d in disturbances]
    )


class DisturbedSequence(BaseSequence):
    """A disturbed sequence: stills and jumps choose the frames, then boxes and black are drawn."""

    def __init__(self, whole: Sequence, disturbances: Listed[Disturbance]) -> None:
        super().__init__(
            whole.name,
            whole.sensor,
            whole.camera,
            whole.source,
            whole.ground_truth,
            dataset=whole.dataset,
        )
        self.time_unit, self.left_out = whole.time_unit, whole.left_out
        self.disturbances = tuple(disturbances)
        self._whole = whole
        # The whole recording of a slice gives exact depth, and stamps without reading frames.
        self._origin, self._origin_rows = (
            whole.part if isinstance(whole, SlicedSequence) else (whole, range(len(whole)))
        )
        self._latest: tuple[int, Frame] | None = None
        self._noise: list[Still] = [d for d in disturbances if isinstance(d, Still)]
        self._dark = [d for d in disturbances if isinstance(d, Dark)]
        self._blurs = [d for d in disturbances if isinstance(d, Blur)]
        rows = np.arange(len(whole))
        for disturbance in disturbances:
            rows = _chosen(rows, disturbance)
        self._rows = rows
        self._reordered = not np.array_equal(rows, np.arange(len(whole)))
        if self._reordered:
            self.ground_truth = self._truth()
        for kind, bad in (("dark", self._dark), ("blurred", self._blurs)):
            for disturbance in bad:
                if not disturbance.first < len(rows):
                    raise DatasetError(
                        f"{whole.name} has {counted(len(rows), 'frame')}, "
                        f"it cannot be {kind} from frame {disturbance.first}"
                    )
        movers = [d for d in disturbances if isinstance(d, Mover)]
        self._boxes = [
            _Box(mover, whole.camera, self._poses() if mover.world else None) for mover in movers
        ]
        self._strips = [
            _Strip(body, whole.camera) for body in disturbances if isinstance(body, Body)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def raw_views(self) -> tuple[RawView, RawView]:
        """Return how the left and right images of frames are made from raw images."""
        whole = self._whole
        return whole.raw_views() if isinstance(whole, BaseSequence) else super().raw_views()

    def mask_metrics(self) -> dict[str, Any]:
        """Return the source of the masks and the masked fraction, for `metrics.json`."""
        if self.masks is None and isinstance(self._whole, BaseSequence):
            return self._whole.mask_metrics()
        return super().mask_metrics()

    @property
    def disturbed_from(self) -> int:
        """The first frame that a disturbance may show in; the map until then is undisturbed.

        Stills do not count.
        """
        return min(
            (_first(d) for d in self.disturbances if not isinstance(d, Still)), default=len(self)
        )

    @property
    def seen_again_from(self) -> int | None:
        """The first frame that can be relocalized after darkness or a jump; None without these."""
        ends = [
            d.first + (d.frames if isinstance(d, Dark) else 0)
            for d in self.disturbances
            if isinstance(d, Dark | Jump)
        ]
        return max(ends, default=None)

    def box_fraction(self, index: int) -> float:
        """Return the fraction of the image at `index` that the boxes cover."""
        camera = self.camera
        covered = np.zeros((camera.height, camera.width), dtype=bool)
        for box in self._boxes:
            found = box.seen(index, right=False)
            if found is not None:
                covered |= found.opacity > 0.5
        return float(covered.mean())

    def box_mask(self, index: int) -> NDArray[np.bool_]:
        """Return (H, W) bool: the pixels of the left image at `index` that show a box."""
        frame = self._source(int(self._rows[index]))
        covered = np.zeros(frame.image.shape, dtype=bool)
        depth = self._depth(frame, index, right=False)
        for box in self._boxes:
            found = box.seen(index, right=False)
            if found is not None:
                covered |= _wins(found, depth) & (found.opacity > 0.5)
        return covered

    def _read(self, index: int) -> Frame:
        frame = self._source(int(self._rows[index]))
        if self._reordered:
            frame = replace(frame, index=index, timestamp=float(self._stamps[index]))
        images: list[NDArray[np.uint8] | None] = [frame.image, frame.image_right]
        depth = frame.depth
        if any(dark.holds(index) for dark in self._dark):
            blind = [None if image is None else np.zeros_like(image) for image in images]
            left = blind[0]
            assert left is not None
            return replace(
                frame,
                image=left,
                image_right=blind[1],
                depth=None if depth is None else np.zeros_like(depth),
                color=None,
                color_right=None,
            )
        for side, image in enumerate(images):
            if image is not None:
                images[side] = self._blurred(self._photo(image, frame, index, side), index)
        if depth is not None:
            for box in self._boxes:
                found = box.seen(index, right=False)
                if found is not None:
                    depth = np.where(
                        _wins(found, depth) & (found.opacity > 0.5), found.depth, depth
                    )
        for strip in self._strips:
            images = [
                None if image is None else strip.on(image, index, side)
                for side, image in enumerate(images)
            ]
            depth = None if depth is None else strip.on_depth(depth)
        left = images[0]
        assert left is not None
        # Disturbances are drawn in grey only.
        return replace(
            frame,
            image=left,
            image_right=images[1],
            depth=depth,
            color=None,
            color_right=None,
        )

    def _blurred(self, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        for blur in self._blurs:
            if blur.holds(index):
                image = np.asarray(cv2.blur(image, (blur.length, 1)), dtype=np.uint8)
        return image

    def _source(self, row: int) -> Frame:
        # Keep the latest frame: a still camera repeats one frame.
        latest = self._latest
        if latest is None or latest[0] != row:
            latest = self._latest = row, self._whole[row]
        return latest[1]

    def _photo(
        self, image: NDArray[np.uint8], frame: Frame, index: int, side: int
    ) -> NDArray[np.uint8]:
        """Draw boxes on the left (side 0) or right image, and noise if the camera stands still."""
        mixed = image.astype(np.float32)
        for still in self._noise:
            rng = np.random.default_rng([still.seed, index, side, 11])
            mixed += np.float32(still.noise) * rng.standard_normal(mixed.shape, dtype=np.float32)
        depth: NDArray[np.float32] | None = None
        for box in self._boxes:
            found = box.seen(index, right=side == 1)
            if found is None:
                continue
            if depth is None:
                depth = self._depth(frame, index, right=side == 1)
            opacity = found.opacity * _wins(found, depth)
            mixed += opacity * (found.grey + box.noise(index, side, mixed.shape) - mixed)
            depth = np.where(opacity > 0.5, found.depth, depth).astype(np.float32)
        return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)

    def _depth(self, frame: Frame, index: int, right: bool) -> NDArray[np.float32]:
        """Return the depth (H, W) of the recording, float32, metres; 0 where it is unknown."""
        source = self._origin_rows[int(self._rows[index])]
        exact = getattr(self._origin, "depth", None)
        if exact is not None:
            known: NDArray[np.float32] = exact(source, right=right)
            return known
        if frame.depth is not None and not right:
            return frame.depth
        return np.zeros(frame.image.shape, dtype=np.float32)

    @cached_property
    def _stamps(self) -> FloatArray:
        """Stamps (N,), float64, seconds: the recording's first stamp, then nominal steps."""
        stamps: FloatArray = self._source_stamps[0] + np.arange(len(self._rows)) / self.camera.fps
        return stamps

    def _truth(self) -> Trajectory | None:
        """Return the ground truth in the order of the shown frames; None if a frame has no pose."""
        poses = self._source_poses()
        if poses is None or self._whole.ground_truth is None:
            return None
        return Trajectory(self._stamps, poses[self._rows], self._whole.ground_truth.frame)

    def _poses(self) -> FloatArray:
        poses = self._source_poses()
        if poses is None:
            raise DatasetError(
                f"{self.name}: a box that moves in the world needs a true pose of every frame"
            )
        return poses[self._rows]

    @cached_property
    def _source_stamps(self) -> FloatArray:
        """Stamps (M,) of the frames of the recording, float64, seconds."""
        known = getattr(self._origin, "timestamps", None)
        if known is None:
            return np.array([frame.timestamp for frame in self._whole])
        stamps: FloatArray = np.asarray(known)[list(self._origin_rows)]
        return stamps

    def _source_poses(self) -> FloatArray | None:
        """Return the true poses (M, 4, 4) of the recording; None if a frame has no pose."""
        truth = self._whole.ground_truth
        if truth is None or not truth.has_rotations:
            return None
        stamps = self._source_stamps
        rows = nearest(stamps, truth.timestamps)
        if np.abs(truth.timestamps[rows] - stamps).max() > _TRUTH_WITHIN_S:
            return None
        return truth.T_world_cam[rows]


def _chosen(rows: NDArray[np.int64], disturbance: Disturbance) -> NDArray[np.int64]:
    """Return the rows of the recording that are shown after a still or a jump."""
    match disturbance:
        case Still(frame=frame, frames=count, lead=lead):
            if not lead <= frame < len(rows) or count < 1:
                raise DatasetError(
                    f"still: of {counted(len(rows), 'frame')} one after frame {lead} is shown "
                    f"at least once, found frame={frame} frames={count} lead={lead}"
                )
            return np.concatenate([rows[frame - lead : frame], np.full(count, rows[frame])])
        case Jump(to=to, frames=count, back=back):
            at = disturbance.first
            if not (0 < at < len(rows) and to < len(rows)):
                raise DatasetError(
                    f"jump: there {plural(len(rows), 'is', 'are')} {counted(len(rows), 'frame')}, "
                    f"found at={at} to={to}"
                )
            other = rows[to : to + count] if count else rows[to:]
            return np.concatenate([rows[:at], other, rows[at:] if back else rows[:0]])
        case _:
            return rows


def _first(disturbance: Mover | Dark | Blur | Jump | Body) -> int:
    if isinstance(disturbance, Body):
        return 0
    return disturbance.start if isinstance(disturbance, Mover) else disturbance.first


class _Strip:
    """The strip of a `Body`, as both cameras see it."""

    def __init__(self, body: Body, camera: Camera) -> None:
        self._body = body
        self._rows = body.rows(camera.height)
        disparity = round(camera.bf / body.depth) if camera.has_depth else 0
        self._shifts = (0, disparity)
        density = camera.fx / body.depth / _BODY_DETAIL
        columns = camera.width + disparity
        right, down, back = np.eye(3)[0], np.eye(3)[1], -np.eye(3)[2]
        size = (columns / density, self._rows / density)
        rng = np.random.default_rng([body.seed, 29])
        self._grey = face_texture(
            Face(np.zeros(3), right, down, size, back, "box"), (self._rows, columns), density, rng
        ).astype(np.float32)

    def on(self, image: NDArray[np.uint8], index: int, side: int) -> NDArray[np.uint8]:
        """Return an image (H, W) with the strip, as the left (side 0) or right camera sees it."""
        drawn = image.copy()
        width, shift = image.shape[1], self._shifts[side]
        if self._body.black:
            drawn[-self._rows :] = 0
            return drawn
        rng = np.random.default_rng([self._body.seed, index, side, 31])
        noise = rng.standard_normal((self._rows, width), dtype=np.float32)
        grey = self._grey[:, shift : shift + width] + np.float32(self._body.noise) * noise
        drawn[-self._rows :] = np.clip(np.rint(grey), 0, 255)
        return drawn

    def on_depth(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a depth image (H, W) with the strip; a black strip has no depth."""
        drawn = depth.copy()
        drawn[-self._rows :] = 0.0 if self._body.black else self._body.depth
        return drawn


@dataclass(frozen=True, eq=False)
class _Seen:
    """A box as one camera sees it, each (H, W) float32.

    Attributes:
        grey: its grey levels.
        opacity: fraction of a pixel that it covers, 0 to 1.
        depth: depth of its plane, metres.
    """

    grey: NDArray[np.float32]
    opacity: NDArray[np.float32]
    depth: NDArray[np.float32]


def _wins(box: _Seen, depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return (H, W) bool: where the box is nearer than the known `depth`, or that is unknown."""
    return (depth <= 0) | (box.depth < depth)


class _Box:
    """One mover before one camera.

    Args:
        mover: the parameters of the box.
        camera: the left camera.
        T_world_cam: (N, 4, 4), true poses of all frames if it moves in the world, else None.
    """

    def __init__(self, mover: Mover, camera: Any, T_world_cam: FloatArray | None) -> None:
        if camera.distortion_model != "none":
            raise DatasetError(
                "a mover needs images without lens distortion, such as rectified ones"
            )
        self.mover, self._camera = mover, camera
        self._size_px = np.sqrt(mover.fraction) * np.array([camera.width, camera.height])
        rng = np.random.default_rng([mover.seed, 7])
        degrees = (
            rng.choice([0, 180, 0, 180, 25, -25, 155, 205])
            if mover.heading == -1
            else mover.heading
        )
        angle = np.radians(float(degrees))
        self._speed = float(rng.choice(_SPEEDS)) if mover.speed < 0 else mover.speed
        self._direction = np.array([np.cos(angle), np.sin(angle)])
        self._offset = rng.uniform(-0.5, 0.5, 2)
        self._T_world_box: tuple[FloatArray, FloatArray] | None = None
        if T_world_cam is not None:
            self._T_world_cam_inverse = inverse(T_world_cam)
            middle = min(
                mover.start + int(np.ceil(self._until_centre() / max(self._speed, 1e-6))),
                len(T_world_cam) - 1,
            )
            self._middle, at_middle = middle, T_world_cam[middle]
            step = (
                self._speed
                * mover.depth
                / camera.fx
                * at_middle[:3, :3]
                @ np.append(self._direction, 0.0)
            )
            self._T_world_box = (
                at_middle @ make_transform(np.eye(3), self._place(self._centre_of_view())),
                step,
            )

    def noise(self, index: int, side: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the sensor's noise on the box, float32, grey levels."""
        rng = np.random.default_rng([self.mover.seed, index, side, 13])
        return np.float32(self.mover.noise) * rng.standard_normal(shape, dtype=np.float32)

    def seen(self, index: int, right: bool) -> _Seen | None:
        """Return the box in the left or right image at `index`; None if it is not in view."""
        if index < self.mover.start:
            return None
        T_cam_box = self._pose(index)
        if right:
            T_cam_box = (
                make_transform(np.eye(3), np.array([-self._camera.baseline_m, 0.0, 0.0]))
                @ T_cam_box
            )
        return self._look(T_cam_box)

    def _pose(self, index: int) -> FloatArray:
        """Return the pose (4, 4) of the box in the left camera.

        The origin is the middle of the box, the z axis its normal.
        """
        if self._T_world_box is not None:
            pose, step = self._T_world_box[0].copy(), self._T_world_box[1]
            pose[:3, 3] += (index - self._middle) * step
            moved: FloatArray = self._T_world_cam_inverse[index] @ pose
            return moved
        return make_transform(np.eye(3), self._place(self._centre(index - self.mover.start)))

    def _place(self, pixel: FloatArray) -> FloatArray:
        """Return the point (3,), metres, at `pixel` in the left image and the mover's depth."""
        camera, depth = self._camera, self.mover.depth
        return np.array(
            [
                (pixel[0] - camera.cx) * depth / camera.fx,
                (pixel[1] - camera.cy) * depth / camera.fy,
                depth,
            ]
        )

    def _centre_of_view(self) -> FloatArray:
        """Return the pixel (2,) that the box passes through: off centre across its direction."""
        room = np.array([self._camera.width, self._camera.height]) - self._size_px
        across = np.array([-self._direction[1], self._direction[0]])
        middle = np.array([self._camera.width, self._camera.height]) / 2 - 0.5
        centre: FloatArray = middle + np.abs(across) * self._offset * room
        return centre

    def _until_centre(self) -> float:
        """Return the distance, pixels, from where the box begins to come in to the centre."""
        half = (np.array([self._camera.width, self._camera.height]) + self._size_px) / 2
        ways = half[np.abs(self._direction) > 1e-9] / np.abs(
            self._direction[np.abs(self._direction) > 1e-9]
        )
        return float(ways.min())

    def _centre(self, step: int) -> FloatArray:
        """Return the middle (2,) of the box, pixels, `step` frames after it began to come in."""
        gone = step * self._speed
        if self.mover.path != "appear":
            gone -= self._until_centre()
        if self.mover.path == "pass" or gone < 0:
            centre: FloatArray = self._centre_of_view() + gone * self._direction
            return centre
        low = self._size_px / 2 - 0.5
        room = np.maximum(np.array([self._camera.width, self._camera.height]) - self._size_px, 1e-9)
        # A triangle wave in x and y moves the box back and forth between the edges.
        place = self._centre_of_view() + gone * self._direction - low
        reflected: FloatArray = low + room - np.abs(np.mod(place, 2 * room) - room)
        return reflected

    @cached_property
    def _texture(self) -> NDArray[np.float32]:
        """Texture of the box, (h, w) float32, grey levels."""
        camera, mover = self._camera, self.mover
        rng = np.random.default_rng([mover.seed, 9])
        columns, rows = (int(np.ceil(_TEXELS_PER_PIXEL * size)) for size in self._size_px)
        texels_per_m = _TEXELS_PER_PIXEL * camera.fx / mover.depth / mover.detail
        size = (columns / texels_per_m, rows / texels_per_m)
        right, down, back = np.eye(3)[0], np.eye(3)[1], -np.eye(3)[2]
        drawn = face_texture(
            Face(np.zeros(3), right, down, size, back, "box"), (rows, columns), texels_per_m, rng
        )
        blurred = cv2.GaussianBlur(drawn.astype(np.float32), (0, 0), _TEXTURE_BLUR)
        return np.asarray(blurred, dtype=np.float32)

    def _look(self, T_cam_box: FloatArray) -> _Seen | None:
        camera = self._camera
        half = self._size_px * self.mover.depth / np.array([camera.fx, camera.fy]) / 2
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        placed = corners @ T_cam_box[:3, :2].T + T_cam_box[:3, 3]
        if placed[:, 2].min() < 0.05:
            return None
        pixels = camera.project(placed)
        if (pixels.max(axis=0) < -0.5).any() or (
            pixels.min(axis=0) > (camera.width - 0.5, camera.height - 0.5)
        ).any():
            return None
        rows, columns = self._texture.shape
        K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
        plane = K @ np.column_stack([T_cam_box[:3, 0], T_cam_box[:3, 1], T_cam_box[:3, 3]])
        # (0, 0) is the middle of the first texel: the outline lies at -0.5 and columns - 0.5.
        to_metres = np.array(
            [
                [2 * half[0] / columns, 0, (0.5 / columns - 0.5) * 2 * half[0]],
                [0, 2 * half[1] / rows, (0.5 / rows - 0.5) * 2 * half[1]],
                [0, 0, 1],
            ]
        )
        H, size = plane @ to_metres, (camera.width, camera.height)
        flags: dict[str, Any] = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_CONSTANT}
        grey = cv2.warpPerspective(
            self._texture, H, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        opacity = cv2.warpPerspective(np.ones_like(self._texture), H, size, **flags)
        x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
        normal = T_cam_box[:3, 2]
        slope = (
            normal[0] * (x - camera.cx) / camera.fx + normal[1] * (y - camera.cy) / camera.fy
        ) + normal[2]
        slope = np.where(np.abs(slope) < 1e-9, 1e-9, slope)
        depth = (normal @ T_cam_box[:3, 3] / slope).astype(np.float32)
        return _Seen(
            np.asarray(grey, dtype=np.float32), np.asarray(opacity, dtype=np.float32), depth
        )
