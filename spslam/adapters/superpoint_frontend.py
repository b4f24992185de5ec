"""The two classes of the module `demo_superpoint` that many programs import.

pySLAM, RTAB-Map's script and small odometry repositories import `SuperPointFrontend` and
`PointTracker` from a module of that name. These are independent implementations of the same
interface. `spslam plugin write demo_superpoint DIR` writes a module that such a program finds.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.adapters.front_end import MOST_KEYPOINTS, feature_config

_LOG = logging.getLogger(__name__)

# Weights where the host gives none: hosts often assume descriptors of 256 numbers.
DEFAULT_WEIGHTS = "superpoint"
# Largest deviation of a float image from [0, 1] that counts as an overshoot of interpolation.
_OVERSHOOT = 0.1
# Columns of a track before its points: number, mean distance of its matches.
_COLUMNS = 2
# Mean distance of a track without a match.
_NO_MATCH = 9999.0


class SuperPointFrontend:
    """Runs SuperPoint on one image at a time.

    Args:
        weights_path: a file, or a built-in name; None: `DEFAULT_WEIGHTS`.
        nms_dist: half the side of the square that a point keeps free of others, pixels.
        conf_thresh: minimum detector probability of a point.
        nn_thresh: maximum L2 distance of a match; only kept for the host.
        cuda: run on the first CUDA device.
        **settings: settings by their names in `features.*`, which override the arguments. Without
            `max_keypoints` all points are returned.

    Attributes:
        name: `SuperPoint`.
        cuda, nms_dist, conf_thresh, nn_thresh: the arguments. `run` reads `nms_dist`,
            `conf_thresh` and `border_remove` at each call.
        cell: side of a cell of the network's output, pixels.
        border_remove: margin without points, pixels.
        descriptor_dim: length D of a descriptor.
        max_descriptor_distance: maximum L2 distance of a match that fits the weights.

    Raises:
        WeightsError: the weights cannot be used.
        ConfigError: a setting is impossible, or there is no CUDA device.
    """

    name = "SuperPoint"

    def __init__(
        self,
        weights_path: str | Path | None,
        nms_dist: int,
        conf_thresh: float,
        nn_thresh: float,
        cuda: bool = False,
        **settings: Any,
    ) -> None:
        from spslam.frontend.extractors.superpoint_extractor import SuperPointExtractor
        from spslam.frontend.superpoint.checkpoints import read_checkpoint

        weights = DEFAULT_WEIGHTS if weights_path is None else str(weights_path)
        defaults = feature_config(
            {
                "nms_radius": nms_dist,
                "threshold": conf_thresh,
                # The interface has no limit of the number of points.
                "max_keypoints": MOST_KEYPOINTS,
            }
        )
        fixed = {
            "extractor": "superpoint",
            "weights": weights,
            "device": "cuda" if cuda else "cpu",
        }
        config = feature_config(settings, defaults, fixed)
        self._extractor = SuperPointExtractor(config)
        self.cuda = bool(cuda)
        self.nms_dist: int = config.nms_radius
        self.conf_thresh: float = config.threshold
        self.border_remove: int = config.border
        self.nn_thresh = nn_thresh
        self.cell = 8
        self.descriptor_dim = read_checkpoint(weights).descriptor_dim
        self.max_descriptor_distance = self._extractor.max_descriptor_distance

    def run(
        self, img: NDArray[np.floating] | NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
        """Find and describe the points of an image.

        Args:
            img: grey (H, W), floating point in [0, 1] or uint8.

        Returns:
            Points (3, N): x, y in pixels with (0, 0) at the centre of the first pixel, and the
            probability, best first; unit descriptors (D, N); probability of a point (H, W) at each
            pixel before suppression. Without a point N is 0.

        Raises:
            ValueError: the image has another shape, type or range.
        """
        features, heat = self._extractor.extract_with_heat(
            as_grey_bytes(img),
            nms_radius=self.nms_dist,
            threshold=self.conf_thresh,
            border=self.border_remove,
        )
        points = np.concatenate([features.keypoints.T, features.scores[None]]).astype(np.float64)
        descriptors = np.ascontiguousarray(features.descriptors.T, dtype=np.float32)
        return points, descriptors, heat


def as_grey_bytes(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert a grey image (H, W), floats in [0, 1] or uint8, to uint8 in memory of its own.

    Raises:
        ValueError: the image has another shape, type or range, or holds NaN.
    """
    image = np.asarray(image)
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"expected a grey (H, W) image, found shape {image.shape}")
    if image.dtype == np.uint8:
        return np.array(image, np.uint8, order="C")
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"expected an image of floats in [0, 1] or uint8, found {image.dtype}")
    low, high = float(image.min()), float(image.max())
    # `not …`: refuses NaN, too.
    if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
        raise ValueError(
            f"expected floats in [0, 1], found {low:g} to {high:g}: divide by 255, or give uint8"
        )
    scaled = np.rint(np.clip(image, 0, 1) * np.float32(255))
    return np.ascontiguousarray(scaled, dtype=np.uint8)


class PointTracker:
    """Tracks points over the last images by matching the descriptors of consecutive images.

    Point numbers count the points of all images in memory, the oldest first (see `get_offsets`).

    Args:
        max_length: number L of images in memory, at least 2.
        nn_thresh: maximum L2 distance of a match, not negative.

    Attributes:
        maxl: L.
        nn_thresh: the argument.
        all_pts: L arrays (2, N) with the points of each image, the oldest first.
        last_desc: descriptors (D, N) of the latest image; None before the first.
        tracks: (T, 2 + L), see `get_tracks`, but with all tracks.
        track_count: number of tracks begun until now.
        max_score: mean distance of a track without a match.

    Raises:
        ValueError: an argument is impossible.
    """

    max_score = _NO_MATCH

    def __init__(self, max_length: int, nn_thresh: float) -> None:
        if max_length < 2:
            raise ValueError(f"max_length must be at least 2, found {max_length}")
        _check_threshold(nn_thresh)
        self.maxl = max_length
        self.nn_thresh = nn_thresh
        self.all_pts: list[NDArray[np.float64]] = [np.zeros((2, 0)) for _ in range(max_length)]
        self.last_desc: NDArray[np.float32] | None = None
        self.tracks = np.zeros((0, _COLUMNS + max_length))
        self.track_count = 0

    def nn_match_two_way(
        self, desc1: NDArray[np.float32], desc2: NDArray[np.float32], nn_thresh: float
    ) -> NDArray[np.float64]:
        """Find the mutual nearest neighbours of unit descriptors.

        Args:
            desc1: (D, N1).
            desc2: (D, N2).
            nn_thresh: matches have a smaller L2 distance.

        Returns:
            Matches (3, M): index in `desc1`, index in `desc2`, L2 distance.

        Raises:
            ValueError: the descriptors differ in length, or the threshold is negative.
        """
        if desc1.shape[0] != desc2.shape[0]:
            raise ValueError(
                f"descriptors must have one length, found {desc1.shape[0]} and {desc2.shape[0]}"
            )
        _check_threshold(nn_thresh)
        if desc1.shape[1] == 0 or desc2.shape[1] == 0:
            return np.zeros((3, 0))
        similarity = desc1.T @ desc2
        nearest, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
        rows = np.arange(desc1.shape[1])
        # |a - b|² = 2 - 2 a·b for unit vectors; rounding may pass 1.
        cosine = np.clip(similarity[rows, nearest], -1, 1).astype(np.float64)
        distance = np.sqrt(2 - 2 * cosine)
        kept = (back[nearest] == rows) & (distance < nn_thresh)
        return np.stack([rows[kept], nearest[kept], distance[kept]]).astype(np.float64)

    def get_offsets(self) -> NDArray[np.int64]:
        """Return the number (L,) of the first point of each image in memory."""
        counts = [points.shape[1] for points in self.all_pts]
        return np.cumsum([0, *counts[:-1]]).astype(np.int64)

    def update(self, pts: NDArray[np.floating] | None, desc: NDArray[np.float32] | None) -> None:
        """Add the points of the next image.

        Args:
            pts: (3, N) or (2, N), x y [score].
            desc: (D, N) unit descriptors. With None, as some detectors return without a point, the
                image is left out, and a warning says so.

        Raises:
            ValueError: points and descriptors differ in number.
        """
        if pts is None or desc is None:
            _LOG.warning("PointTracker: no points were given; the image is left out")
            return
        if pts.shape[1] != desc.shape[1]:
            raise ValueError(f"found {pts.shape[1]} points and {desc.shape[1]} descriptors")
        matches = np.zeros((3, 0))
        if self.last_desc is not None:
            matches = self.nn_match_two_way(self.last_desc, desc, self.nn_thresh)
        # Numbers of the latest image's points, before the oldest image is dropped.
        last_offset = int(self.get_offsets()[-1])
        dropped = self.all_pts[0].shape[1]
        self.all_pts = [*self.all_pts[1:], np.array(pts[:2], np.float64)]
        self.last_desc = np.array(desc, np.float32)
        numbers = self._without_oldest(dropped)
        first = int(self.get_offsets()[-1])
        matched = self._extend(numbers, matches, last_offset - dropped, first)
        self._begin(np.setdiff1d(np.arange(pts.shape[1]), matched), first)

    def get_tracks(self, min_length: int) -> NDArray[np.float64]:
        """Return the tracks (M, 2 + L) that reach the latest image.

        A row has the track's number, the mean L2 distance of its matches, and its point in each
        image in memory, -1 for none.

        Args:
            min_length: minimum number of points of a track, at least 1.

        Raises:
            ValueError: `min_length` is less than 1.
        """
        if min_length < 1:
            raise ValueError(f"min_length must be at least 1, found {min_length}")
        points = self.tracks[:, _COLUMNS:] != -1
        kept = (points.sum(axis=1) >= min_length) & points[:, -1]
        chosen: NDArray[np.float64] = self.tracks[kept]
        return chosen

    def draw_tracks(self, out: NDArray[np.uint8], tracks: NDArray[np.floating]) -> None:
        """Draw tracks into an image.

        Args:
            out: BGR image (H, W, 3); it is changed.
            tracks: rows of `get_tracks`, with mean distances in [0, 1]: divide them by
                `nn_thresh`. Small distances are blue, large ones red.
        """
        # OpenCV's colour map returns None for an empty array.
        if len(tracks) == 0:
            return
        positions = np.concatenate(self.all_pts, axis=1).T
        levels = np.clip(np.rint(255 * tracks[:, 1]), 0, 255).astype(np.uint8)
        colours = cv2.applyColorMap(levels.reshape(-1, 1), cv2.COLORMAP_JET).reshape(-1, 3)
        for row, colour in zip(
            tracks[:, _COLUMNS:].astype(np.int64), colours.tolist(), strict=True
        ):
            path = np.rint(positions[row[row != -1]]).astype(np.int32)
            cv2.polylines(out, [path.reshape(-1, 1, 2)], False, colour, 1, cv2.LINE_AA)
            if row[-1] != -1:
                cv2.circle(out, path[-1].tolist(), 1, (0, 0, 255), -1, cv2.LINE_AA)

    def _without_oldest(self, dropped: int) -> NDArray[np.float64]:
        """Point numbers (T, L) after the oldest image left; tracks without a point are removed."""
        numbers = self.tracks[:, _COLUMNS:]
        numbers = np.where(numbers >= 0, np.maximum(numbers - dropped, -1), -1)
        # The first column holds the dropped image's points, which are all -1 now.
        numbers = np.concatenate([numbers[:, 1:], np.full((len(numbers), 1), -1.0)], axis=1)
        alive = (numbers != -1).any(axis=1)
        self.tracks = self.tracks[alive]
        left: NDArray[np.float64] = numbers[alive]
        return left

    def _extend(
        self,
        numbers: NDArray[np.float64],
        matches: NDArray[np.float64],
        last_offset: int,
        first: int,
    ) -> NDArray[np.int64]:
        """Add matched points to their tracks; returns their indices in the latest image.

        Args:
            numbers: point numbers (T, L) with an empty last column.
            matches: (3, M), see `nn_match_two_way`.
            last_offset: number of the first point of the image before.
            first: number of the first point of the latest image.
        """
        track_of = {
            number: row for row, number in enumerate(numbers[:, -2].tolist()) if number >= 0
        }
        found = [track_of.get(index + last_offset, -1) for index in matches[0].tolist()]
        rows = np.array(found, np.int64)
        known = rows >= 0
        rows = rows[known]
        points: NDArray[np.int64] = matches[1, known].astype(np.int64)
        numbers[rows, -1] = points + first
        lengths = self._matches_of(numbers[rows])
        before = np.where(lengths > 1, self.tracks[rows, 1], 0.0)
        self.tracks[:, _COLUMNS:] = numbers
        self.tracks[rows, 1] = before + (matches[2, known] - before) / lengths
        return points

    @staticmethod
    def _matches_of(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
        """Number (T,) of matches in memory of tracks with point numbers (T, L)."""
        counts: NDArray[np.int64] = np.maximum((numbers != -1).sum(axis=1) - 1, 1)
        return counts

    def _begin(self, points: NDArray[np.int64], first: int) -> None:
        """Begin a track at each of these points (N,) of the latest image."""
        begun = np.full((len(points), self.tracks.shape[1]), -1.0)
        begun[:, 0] = self.track_count + np.arange(len(points))
        begun[:, 1] = self.max_score
        begun[:, -1] = points + first
        self.tracks = np.concatenate([self.tracks, begun])
        self.track_count += len(points)


def _check_threshold(nn_thresh: float) -> None:
    if not nn_thresh >= 0:
        raise ValueError(f"nn_thresh must not be negative, found {nn_thresh}")
