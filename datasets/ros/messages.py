"""Parse the messages of standard types.

The definitions are those of `rosbags`, not those in the bag: `rosbags` generates Python code from
definitions, and a bag may come from anybody. The standard types are the same in all versions of
ROS 2, so that bags without definitions are read, too.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from spslam.errors import DatasetError, MissingDependencyError

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TRANSFORMS = "tf2_msgs/msg/TFMessage"
# ROS 1 has this type in two packages.
OLD_TRANSFORMS = "tf/msg/tfMessage"
POSE, ODOMETRY = "geometry_msgs/msg/PoseStamped", "nav_msgs/msg/Odometry"
TRANSFORM = "geometry_msgs/msg/TransformStamped"
COVARIANT_POSE = "geometry_msgs/msg/PoseWithCovarianceStamped"


def check_rosbags() -> None:
    """Check that the package `rosbags` is installed.

    Raises:
        MissingDependencyError: it is not.
    """
    try:
        import rosbags.typesys  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "bags need the package rosbags: pip install 'spslam[ros]'"
        ) from None


def has_header(kind: str, encoding: str) -> bool:
    """Return whether messages of a standard type begin with a header, which has the stamp."""
    fields = _store(encoding).fielddefs.get(kind) if encoding in ("ros1", "cdr") else None
    if fields is None or not fields[1]:
        return False
    return bool(fields[1][0][1][1] == "std_msgs/msg/Header")


def parse(data: bytes, kind: str, encoding: str, what: str) -> Any:
    """Parse a message.

    Args:
        data: its bytes.
        kind: a standard type.
        encoding: `ros1` or `cdr`.
        what: the message, for errors.

    Raises:
        DatasetError: it is damaged, or of an unknown encoding.
    """
    if encoding not in ("ros1", "cdr"):
        raise DatasetError(f"{what} is written as {encoding[:40]}, expected CDR or ROS 1")
    store = _store(encoding)
    try:
        if encoding == "ros1":
            return store.deserialize_ros1(data, _ALIASES.get(kind, kind))
        return store.deserialize_cdr(data, kind)
    except Exception as error:  # rosbags also raises AssertionError, IndexError, KeyError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{what} is damaged: {reason}") from None


_TRANSFORMS_DEFINITION = "geometry_msgs/TransformStamped[] transforms"
_ALIASES = {OLD_TRANSFORMS: TRANSFORMS}


@cache
def _store(encoding: str) -> Any:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC if encoding == "ros1" else Stores.LATEST)
    if TRANSFORMS not in store.fielddefs:
        # rosbags' types of ROS 1 have no package tf2_msgs.
        store.register(get_types_from_msg(_TRANSFORMS_DEFINITION, TRANSFORMS))
    return store
