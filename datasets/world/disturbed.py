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

from collections.abc import Sequence as Listed
from dataclasses import replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.clocks import nearest
from spslam.errors import DatasetError
from spslam.frame import Frame
from spslam.interfaces import Sequence
from spslam.notices import counted, plural
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray

from ..base import BaseSequence, SlicedSequence
from ..masks.mask_images import RawView
from .disturbances import (
    Blur,
    Body,
    Dark,
    Disturbance,
    Jump,
    Mover,
    Still,
    first_frame,
    parse_disturbance,
)
from .drawn_bodies import Box, Strip, wins

# Largest time between a frame and the ground truth pose that counts as its own, seconds.
_TRUTH_WITHIN_S = 0.02


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
            Box(mover, whole.camera, self._poses() if mover.world else None) for mover in movers
        ]
        self._strips = [
            Strip(body, whole.camera) for body in disturbances if isinstance(body, Body)
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
            (first_frame(d) for d in self.disturbances if not isinstance(d, Still)),
            default=len(self),
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
                covered |= wins(found, depth) & (found.opacity > 0.5)
        return covered

    def _read(self, index: int) -> Frame:
        frame = self._source(int(self._rows[index]))
        if self._reordered:
            frame = replace(frame, index=index, timestamp=float(self._stamps[index]))
        images: list[NDArray[np.uint8] | None] = [frame.image, frame.image_right]
        depth = frame.depth
        if any(dark.holds(index) for dark in self._dark):
            blind = [None if image is None else np.zeros_like(image) for image in images]
            return _in_grey(frame, blind, None if depth is None else np.zeros_like(depth))
        for side, image in enumerate(images):
            if image is not None:
                images[side] = self._blurred(self._photo(image, frame, index, side), index)
        if depth is not None:
            for box in self._boxes:
                found = box.seen(index, right=False)
                if found is not None:
                    depth = np.where(wins(found, depth) & (found.opacity > 0.5), found.depth, depth)
        for strip in self._strips:
            images = [
                None if image is None else strip.on(image, index, side)
                for side, image in enumerate(images)
            ]
            depth = None if depth is None else strip.on_depth(depth)
        return _in_grey(frame, images, depth)

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
            opacity = found.opacity * wins(found, depth)
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


def _in_grey(
    frame: Frame, images: Listed[NDArray[np.uint8] | None], depth: NDArray[np.float32] | None
) -> Frame:
    """Return a frame with other images, left and right: disturbances are drawn in grey only."""
    left, right = images
    assert left is not None
    return replace(frame, image=left, image_right=right, depth=depth, color=None, color_right=None)


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
