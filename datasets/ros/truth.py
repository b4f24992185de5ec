"""Ground truth of a bag: the poses of one topic, carried to the camera by /tf_static."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError
from spslam.notices import counted, notice, plural
from spslam.trajectory import Trajectory, carried_truth

from .bag import Bag
from .messages import COVARIANT_POSE, ODOMETRY, POSE, TRANSFORM
from .transforms import Transforms, frame_name, transform

_LOG = logging.getLogger(__name__)
TRUTH_KINDS = (POSE, ODOMETRY, TRANSFORM, COVARIANT_POSE)
# Words in the names of topics whose poses are measured from outside.
_TRUTH_WORDS = (
    *("ground_truth", "groundtruth", "gt_pose", "/gt"),
    *("vicon", "mocap", "vrpn", "optitrack", "leica"),
)
# Largest coordinate, metres; larger ones are no positions.
_FARTHEST_M = 1e7


def find_truth(bag: Bag, wanted: str | None) -> str | None:
    """Find the topic with the ground truth.

    Args:
        bag: the bag.
        wanted: the topic that the user gave; None: the only one with a name like `ground_truth`.

    Raises:
        DatasetError: there is no such topic, or it has no poses.
    """
    there = [name for name, topic in bag.topics.items() if topic.kind in TRUTH_KINDS and len(topic)]
    if wanted is not None:
        found = [name for name in there if name.strip("/") == wanted.strip("/")]
        if found:
            return found[0]
        kinds = ", ".join(kind.split("/")[-1] for kind in TRUTH_KINDS)
        raise DatasetError(
            f"{bag.name}: --truth-topic {wanted} is no topic of poses ({kinds}); "
            f"there is {', '.join(there) or 'none'}"
        )
    named = [name for name in there if any(word in name.lower() for word in _TRUTH_WORDS)]
    if len(named) == 1:
        return named[0]
    if there:
        text = "%s: no ground truth is used; --truth-topic chooses one of %s"
        notice(_LOG, "truth_topic", text, bag.name, ", ".join(there))
    return None


def read_truth(
    bag: Bag,
    name: str,
    camera_frame: str,
    transforms: Transforms,
    T_camera_rectified: NDArray[np.float64],
) -> Trajectory | None:
    """Read the poses of a topic as the poses of the camera of the images.

    Args:
        bag: the bag.
        name: of the topic.
        camera_frame: frame of the images.
        transforms: of /tf_static.
        T_camera_rectified: (4, 4), maps rectified to camera coordinates.

    Returns:
        The poses; None, with a notice, if the topic has none.
    """
    topic = bag.topics[name]
    stamps, recorded, poses, body = [], [], [], ""
    wrong, recording = 0, topic.recorded_ns
    for row in range(len(topic)):
        try:
            message = bag.message(name, row)
        except DatasetError:
            wrong += 1
            continue
        T, stamp = _pose(message, topic.kind), message.header.stamp
        if T is None or np.abs(T[:3, 3]).max() > _FARTHEST_M:
            wrong += 1
            continue
        stamps.append(int(stamp.sec) * 10**9 + int(stamp.nanosec))
        recorded.append(int(recording[row]))
        poses.append(T)
        body = body or frame_name(str(getattr(message, "child_frame_id", "")))
    if stamps and not any(stamps):
        text = "%s: the stamps in the headers of %s are all 0: the times of recording are used"
        notice(_LOG, "no_header_stamps", text, bag.name, name)
        stamps = recorded
    times, first = np.unique(np.array(stamps, dtype=np.int64), return_index=True)
    _report_left_out(bag, name, wrong, len(stamps) - len(times))
    if len(times) == 0:
        notice(_LOG, "ground_truth_unreadable", "%s: %s has no poses", bag.name, name)
        return None
    seconds = np.array([stamp / 10**9 for stamp in times.tolist()])
    found = Trajectory(seconds, np.stack(poses)[first], body or "body")
    T_body_camera = transforms.between(body, camera_frame)
    if T_body_camera is None:
        _report_uncarried(bag, name, topic.kind, body, camera_frame)
        return found
    origin = f"{camera_frame} (carried from {body} by /tf_static)"
    return carried_truth(found, T_body_camera @ T_camera_rectified, origin)


def _pose(message: Any, kind: str) -> NDArray[np.float64] | None:
    if kind == TRANSFORM:
        return transform(message.transform.translation, message.transform.rotation)
    pose = message.pose if kind == POSE else message.pose.pose
    return transform(pose.position, pose.orientation)


def _report_left_out(bag: Bag, name: str, wrong: int, repeated: int) -> None:
    for count, why in ((wrong, "without a pose"), (repeated, "with the stamp of another one")):
        if count:
            text = "%s: %s of %s %s %s left out"
            what, are = counted(count, "message"), plural(count, "is", "are")
            topic = "ground_truth_rows"
            notice(_LOG, topic, text, bag.name, what, name, why, are, count=count)


def _report_uncarried(bag: Bag, name: str, kind: str, body: str, camera_frame: str) -> None:
    why = (
        f"/tf_static does not connect {body} and {camera_frame or 'the camera'}"
        if body
        else f"{kind.split('/')[-1]} does not name the frame whose poses it holds"
    )
    text = "%s: the poses of %s are compared as those of the camera: %s"
    notice(_LOG, "truth_not_carried", text, bag.name, name, why)
