"""Pairs of views that no matcher is trained with: photographs, scenes and rendered worlds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from spslam.interfaces import Extractor
from spslam.typing import FloatArray, UInt8Array

from ...photos import evenly_spread
from ...training.data.homography_sets import scene_pairs
from ..data.view_config import ViewConfig
from ..data.view_store import View
from ..data.views import PosedImage, photo_views, posed_views
from .metrics import MatchPair, Pose

# Seed of the warps of held-out photographs. It differs from that of training, so that a photograph
# in both folders has other views.
_WARP_SEED = 20_001
# Range of the angle between the optical axes of a pair of views of a world, degrees.
WIDE_DEG = (30.0, 60.0)
# The same for frames of recordings: with larger angles most pairs show different places.
FRAMES_DEG = (15.0, 45.0)
# Shortest distance between two frames, metres: a standing camera has no direction of motion.
_LEAST_MOTION_M = 0.2


def photo_match_pairs(
    photos: Sequence[Path], limit: int, extractor: Extractor, config: ViewConfig
) -> Iterator[MatchPair]:
    """Yield photographs with one warped view each.

    Args:
        photos: photographs; at most `limit` are used, evenly spread.
        limit: most pairs.
        extractor: extracts the features.
        config: warps and photometric changes.
    """
    two = config.model_copy(update={"per_group": 2})
    for path in evenly_spread(list(photos), limit, 0):
        view0, view1 = photo_views(path, extractor, two, _WARP_SEED)
        yield MatchPair(path.name, "photos", view0, view1, config.size)


def scene_match_pairs(
    folder: Path, extractor: Extractor, size: tuple[int, int]
) -> Iterator[MatchPair]:
    """Yield image 1 with each other image of scenes in the Oxford or HPatches layout."""
    for pair in scene_pairs(folder, size):
        identity = np.eye(3)
        views = [
            _plane_view(extractor, image, homography)
            for image, homography in ((pair.image0, identity), (pair.image1, pair.homography))
        ]
        yield MatchPair(pair.name, pair.group, views[0], views[1], size)


def world_match_pairs(
    spots: Iterable[Sequence[PosedImage]],
    extractor: Extractor,
    config: ViewConfig,
    angles_deg: tuple[float, float] = WIDE_DEG,
    group: str = "worlds",
) -> Iterator[MatchPair]:
    """Yield for each spot the first pair of views whose axes form an angle in a range.

    Args:
        spots: images of each spot.
        extractor: extracts the features.
        config: photometric changes.
        angles_deg: range of the angle, degrees.
        group: name of the group.
    """
    for number, images in enumerate(spots):
        chosen = _apart(images, angles_deg)
        if chosen is None:
            continue
        pair = [images[i] for i in chosen]
        view0, view1 = posed_views(pair, extractor, config, _WARP_SEED + number)
        T_10 = np.linalg.inv(pair[1].T_world_cam) @ pair[0].T_world_cam
        shape = (pair[0].image.shape[0], pair[0].image.shape[1])
        pose = Pose(T_10, pair[0].camera_matrix)
        yield MatchPair(f"{group} {number}", group, view0, view1, shape, pose)


def frame_match_pairs(
    frames: Iterable[tuple[UInt8Array, FloatArray, FloatArray]],
    extractor: Extractor,
    limit: int,
    angles_deg: tuple[float, float] = FRAMES_DEG,
    group: str = "frames",
) -> Iterator[MatchPair]:
    """Yield pairs of frames of a recording whose axes form an angle in a range.

    What the keypoints show is unknown: these pairs judge poses, not matches. Pairs may show
    different places, the same ones for every matcher.

    Args:
        frames: undistorted image (H, W), `T_world_cam` (4, 4) and camera matrix (3, 3), all of one
            size and camera.
        extractor: extracts the features.
        limit: most pairs, evenly spread over all such pairs.
        angles_deg: range of the angle, degrees.
        group: name of the group.
    """
    shown = list(frames)
    poses = np.array([pose for _, pose, _ in shown]).reshape(-1, 4, 4)
    axes, positions = poses[:, :3, 2], poses[:, :3, 3]
    first, second = np.triu_indices(len(shown), 1)
    cosine = np.einsum("ij,ij->i", axes[first], axes[second]).clip(-1, 1)
    angle = np.degrees(np.arccos(cosine))
    moved = np.linalg.norm(positions[first] - positions[second], axis=1) >= _LEAST_MOTION_M
    wide = np.flatnonzero(moved & (angle >= angles_deg[0]) & (angle <= angles_deg[1]))
    if len(wide) > limit:
        wide = wide[np.linspace(0, len(wide) - 1, limit).round().astype(np.int64)]
    views: dict[int, View] = {}
    for i, j in zip(first[wide].tolist(), second[wide].tolist(), strict=True):
        for number in {i, j} - views.keys():
            views[number] = _unknown_view(extractor, shown[number][0])
        T_10 = np.linalg.inv(poses[j]) @ poses[i]
        shape = (shown[i][0].shape[0], shown[i][0].shape[1])
        yield MatchPair(
            f"{group} {i} {j}", group, views[i], views[j], shape, Pose(T_10, shown[i][2])
        )


def _unknown_view(extractor: Extractor, image: UInt8Array) -> View:
    """Return the features of an image whose keypoints show unknown places."""
    features = extractor.extract(image)
    return View(features, np.full((len(features), 3), np.nan), np.eye(3, 4))


def _apart(images: Sequence[PosedImage], angles_deg: tuple[float, float]) -> tuple[int, int] | None:
    for i in range(len(images)):
        for j in range(i + 1, len(images)):
            cosine = images[i].T_world_cam[:3, 2] @ images[j].T_world_cam[:3, 2]
            angle = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
            if angles_deg[0] <= angle <= angles_deg[1]:
                return i, j
    return None


def _plane_view(extractor: Extractor, image: np.ndarray, homography: FloatArray) -> View:
    features = extractor.extract(image)
    keypoints = features.keypoints.astype(np.float64)
    lifted = np.c_[keypoints, np.ones(len(keypoints))] @ np.linalg.inv(homography).T
    places = np.c_[lifted[:, :2] / lifted[:, 2:], np.ones(len(keypoints))]
    return View(features, places, np.c_[homography, np.zeros(3)])
