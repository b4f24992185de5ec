"""Rigid transforms between frames, from /tf_static."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError
from spslam.geometry import inverse, make_transform, quaternion_to_rotation
from spslam.notices import notice

from .bag import Bag
from .messages import OLD_TRANSFORMS, TRANSFORMS

_LOG = logging.getLogger(__name__)
STATIC_TOPIC = "/tf_static"
# Largest number of messages that are read: each publisher sends its transforms once.
_MOST_MESSAGES = 10_000
# Smallest length of a quaternion.
_SHORTEST = 1e-3


class Transforms:
    """A tree of frames.

    Args:
        parents: for each frame its parent and `T_parent_frame` (4, 4), metres.
    """

    def __init__(self, parents: dict[str, tuple[str, NDArray[np.float64]]]) -> None:
        self._parents = parents

    def between(self, target: str, source: str) -> NDArray[np.float64] | None:
        """Return `T_target_source` (4, 4), metres; None if the frames are not connected.

        A frame without a name is connected to nothing.
        """
        if not target or not source:
            return None
        target_chain, source_chain = self._to_root(target), self._to_root(source)
        common = next((frame for frame in source_chain if frame in target_chain), None)
        if common is None:
            return None
        return inverse(target_chain[common]) @ source_chain[common]

    def _to_root(self, frame: str) -> dict[str, NDArray[np.float64]]:
        """Return `T_ancestor_frame` for a frame and its ancestors, nearest first."""
        frame = frame_name(frame)
        chain = {frame: np.eye(4)}
        while frame in self._parents:
            parent, T_parent_frame = self._parents[frame]
            if parent in chain:  # frames in a circle
                break
            chain[parent] = T_parent_frame @ chain[frame]
            frame = parent
        return chain


def read_transforms(bag: Bag) -> Transforms:
    """Read /tf_static of a bag; empty without it."""
    parents: dict[str, tuple[str, NDArray[np.float64]]] = {}
    topic = bag.topics.get(STATIC_TOPIC)
    if topic is None or topic.kind not in (TRANSFORMS, OLD_TRANSFORMS):
        return Transforms(parents)
    try:
        for row in range(min(len(topic), _MOST_MESSAGES)):
            for stamped in bag.message(STATIC_TOPIC, row).transforms:
                T = transform(stamped.transform.translation, stamped.transform.rotation)
                if T is not None:
                    parent, child = stamped.header.frame_id, stamped.child_frame_id
                    parents[frame_name(child)] = frame_name(parent), T
    except DatasetError as error:
        notice(_LOG, "tf_static_unreadable", "%s: /tf_static is not used: %s", bag.name, error)
    return Transforms(parents)


def transform(position: Any, rotation: Any) -> NDArray[np.float64] | None:
    """Return the transform (4, 4) of a position, metres, and a quaternion; None if one is wrong."""
    t = np.array([position.x, position.y, position.z], dtype=np.float64)
    q = np.array([rotation.x, rotation.y, rotation.z, rotation.w], dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.linalg.norm(q))
    if not (np.isfinite(t).all() and np.isfinite(length) and length > _SHORTEST):
        return None
    return make_transform(quaternion_to_rotation(q / length), t)


def frame_name(name: str) -> str:
    """Return the name of a frame without the slash that early versions of ROS wrote before it."""
    return name.lstrip("/")
