"""Write a trajectory and the points of a map as a bag of ROS 1 or 2."""

from __future__ import annotations

import csv
import io
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np

from spslam.errors import MissingDependencyError, OutputError
from spslam.geometry import rotation_to_quaternion
from spslam.io.files import PartFile
from spslam.io.given_files import read_given
from spslam.notices import notice
from spslam.run.poses_csv import COVARIANCE_COLUMNS
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray, UInt8Array

_LOG = logging.getLogger(__name__)
# Topics, and frames: the axes of the world are those of its first camera (z ahead); `map` has z up.
TRANSFORMS = "tf2_msgs/msg/TFMessage"
ODOMETRY, PATH, POINTS, STATIC = "/spslam/odometry", "/spslam/path", "/spslam/points", "/tf_static"
WORLD, CAMERA, UPRIGHT = "spslam_world", "camera", "map"
# Rotation from the world to `map`, a quaternion: x ahead, y left, z up (REP 103).
_UPRIGHT = (-0.5, 0.5, -0.5, 0.5)
# Largest difference of two equal stamps, seconds: texts have nine decimals.
_SAME_STAMP_S = 1e-8
# Largest poses.csv and map.ply, bytes.
_LARGEST = 1 << 30
_PLY_TYPES = {"float": "<f4", "uchar": "u1"}


def write_bag(path: Path, trajectory: Trajectory, run: Path | None = None) -> int:
    """Write poses as nav_msgs/Odometry and Path, and a run's points as sensor_msgs/PointCloud2.

    Args:
        path: `NAME.bag` (ROS 1), `NAME.mcap` or `NAME.db3` (ROS 2), or a new folder for a ROS 2 bag
            in SQLite's format with its metadata.yaml.
        trajectory: poses of the camera.
        run: folder of the run, for the covariances in poses.csv and the points in map.ply; None:
            without these.

    Returns:
        Number of points.

    Raises:
        OutputError: the file cannot be written.
        MissingDependencyError: rosbags is not installed.
    """
    covariances = _covariances(run, trajectory)
    points, colors = _points(run)
    stamps = [round(second * 1e9) for second in trajectory.timestamps.tolist()]
    with _writer(path) as bag:
        bag.add(STATIC, TRANSFORMS, _upright(bag, stamps[0]), stamps[0])
        poses = [_pose(bag, T) for T in trajectory.T_world_cam]
        for stamp, pose, covariance in zip(stamps, poses, covariances, strict=True):
            message = _odometry(bag, stamp, pose, covariance)
            bag.add(ODOMETRY, "nav_msgs/msg/Odometry", message, stamp)
        bag.add(PATH, "nav_msgs/msg/Path", _path(bag, stamps, poses), stamps[-1])
        if len(points):
            cloud = _cloud(bag, stamps[-1], points, colors)
            bag.add(POINTS, "sensor_msgs/msg/PointCloud2", cloud, stamps[-1])
    return len(points)


class _Bag:
    """An open bag.

    Args:
        writer: of rosbags.
        ros: 1 or 2.
    """

    def __init__(self, writer: Any, ros: int) -> None:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        self._writer, self.ros = writer, ros
        self._store = get_typestore(Stores.ROS1_NOETIC if ros == 1 else Stores.LATEST)
        if TRANSFORMS not in self._store.fielddefs:
            # rosbags' types of ROS 1 have no package tf2_msgs.
            definition = "geometry_msgs/TransformStamped[] transforms"
            self._store.register(get_types_from_msg(definition, TRANSFORMS))
        self._connections: dict[str, Any] = {}

    def of(self, kind: str, **fields: Any) -> Any:
        return self._store.types[kind](**fields)

    def header(self, stamp_ns: int, frame: str) -> Any:
        time = self.of(
            "builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
        )
        number = {"seq": 0} if self.ros == 1 else {}
        return self.of("std_msgs/msg/Header", stamp=time, frame_id=frame, **number)

    def triple(self, kind: str, values: FloatArray) -> Any:
        x, y, z = values.tolist()
        return self.of(f"geometry_msgs/msg/{kind}", x=x, y=y, z=z)

    def quaternion(self, values: Any) -> Any:
        x, y, z, w = (float(value) for value in values)
        return self.of("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)

    def add(self, topic: str, kind: str, message: Any, stamp_ns: int) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._store
            )
        store = self._store
        write = store.serialize_ros1 if self.ros == 1 else store.serialize_cdr
        self._writer.write(self._connections[topic], stamp_ns, write(message, kind))


@contextmanager
def _writer(path: Path) -> Iterator[_Bag]:
    """Open a bag in a hidden folder, and move it to `path` at the end of the block."""
    try:
        from rosbags.rosbag1 import Writer as Writer1
        from rosbags.rosbag2 import StoragePlugin
        from rosbags.rosbag2 import Writer as Writer2
    except ImportError:
        raise MissingDependencyError(
            "bags need the package rosbags: pip install 'spslam[ros]'"
        ) from None
    folder = path.suffix not in (".bag", ".mcap", ".db3")
    if folder and (path.exists() or path.is_symlink()):
        raise OutputError(f"cannot write {path}: it exists; give --bag a new folder")
    final = None if folder else PartFile(path)
    hidden: Path | None = None
    try:
        hidden = Path(mkdtemp(dir=path.absolute().parent, prefix=f".{path.name[:40]}."))
        # The name of a ROS 2 bag's folder becomes the name of its file.
        inside = hidden / path.name
        plugin = StoragePlugin.MCAP if path.suffix == ".mcap" else StoragePlugin.SQLITE3
        ros = 1 if path.suffix == ".bag" else 2
        writer = Writer1(inside) if ros == 1 else Writer2(inside, version=9, storage_plugin=plugin)
        with writer:
            yield _Bag(writer, ros)
        if final is None:
            inside.rename(path)
        else:
            file = inside if ros == 1 else next(inside.glob(f"*{path.suffix}"))
            file.replace(final.path)
            final.publish()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if final is not None:
            final.discard()
        if hidden is not None:
            shutil.rmtree(hidden, ignore_errors=True)


def _odometry(bag: _Bag, stamp_ns: int, pose: Any, covariance: FloatArray) -> Any:
    twist = bag.of(
        "geometry_msgs/msg/Twist",
        linear=bag.triple("Vector3", np.zeros(3)),
        angular=bag.triple("Vector3", np.zeros(3)),
    )
    return bag.of(
        "nav_msgs/msg/Odometry",
        header=bag.header(stamp_ns, WORLD),
        child_frame_id=CAMERA,
        pose=bag.of(
            "geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=covariance.ravel()
        ),
        # Zeros are unknown, as in sensor_msgs.
        twist=bag.of("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
    )


def _pose(bag: _Bag, T: FloatArray) -> Any:
    return bag.of(
        "geometry_msgs/msg/Pose",
        position=bag.triple("Point", T[:3, 3]),
        orientation=bag.quaternion(rotation_to_quaternion(T[:3, :3])),
    )


def _path(bag: _Bag, stamps: list[int], poses: list[Any]) -> Any:
    return bag.of(
        "nav_msgs/msg/Path",
        header=bag.header(stamps[-1], WORLD),
        poses=[
            bag.of("geometry_msgs/msg/PoseStamped", header=bag.header(stamp, WORLD), pose=pose)
            for stamp, pose in zip(stamps, poses, strict=True)
        ],
    )


def _upright(bag: _Bag, stamp_ns: int) -> Any:
    transform = bag.of(
        "geometry_msgs/msg/Transform",
        translation=bag.triple("Vector3", np.zeros(3)),
        rotation=bag.quaternion(_UPRIGHT),
    )
    stamped = bag.of(
        "geometry_msgs/msg/TransformStamped",
        header=bag.header(stamp_ns, UPRIGHT),
        child_frame_id=WORLD,
        transform=transform,
    )
    return bag.of(TRANSFORMS, transforms=[stamped])


def _cloud(bag: _Bag, stamp_ns: int, points: FloatArray, colors: UInt8Array | None) -> Any:
    """Return the points with a field `rgb`: the bytes of blue, green, red as a float (PCL)."""
    names = ["x", "y", "z", *(["rgb"] if colors is not None else [])]
    rows = np.zeros(len(points), dtype=[(name, "<f4") for name in names])
    for axis, name in enumerate("xyz"):
        rows[name] = points[:, axis]
    if colors is not None:
        packed = np.zeros((len(points), 4), dtype=np.uint8)
        packed[:, :3] = colors[:, ::-1]
        rows["rgb"] = packed.view("<f4").ravel()
    kind = "sensor_msgs/msg/PointField"
    fields = [
        bag.of(kind, name=name, offset=4 * i, datatype=7, count=1) for i, name in enumerate(names)
    ]
    data = np.frombuffer(rows.tobytes(), dtype=np.uint8)
    return bag.of(
        "sensor_msgs/msg/PointCloud2",
        header=bag.header(stamp_ns, WORLD),
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=rows.itemsize,
        row_step=len(data),
        data=data,
        is_dense=True,
    )


def _covariances(run: Path | None, trajectory: Trajectory) -> FloatArray:
    """Return covariances (N, 6, 6) about the axes of the world; zeros where they are unknown.

    A run has them in the axes of the camera: ξ in `T_world_cam · exp(ξ)`. ROS has x, y, z and the
    rotation about fixed axes: both parts are turned by the rotation of the pose.
    """
    covariances = np.zeros((len(trajectory), 6, 6))
    found = {} if run is None else _read_covariances(run / "poses.csv")
    stamps = np.array(sorted(found))
    if run is not None and not len(stamps):
        text = "%s has no poses.csv with covariances: they are written as unknown (zeros)"
        notice(_LOG, "no_covariances", text, run)
    if not len(stamps):
        return covariances
    near = np.abs(trajectory.timestamps[:, None] - stamps[None]).argmin(axis=1)
    for i, j in enumerate(near.tolist()):
        if abs(trajectory.timestamps[i] - stamps[j]) <= _SAME_STAMP_S:
            turn = np.zeros((6, 6))
            turn[:3, :3] = turn[3:, 3:] = trajectory.T_world_cam[i, :3, :3]
            covariances[i] = turn @ found[float(stamps[j])] @ turn.T
    return covariances


def _read_covariances(path: Path) -> dict[float, FloatArray]:
    upper = np.triu_indices(6)
    found: dict[float, FloatArray] = {}
    try:
        text = read_given(path, _LARGEST).decode("utf-8")
        for row in csv.DictReader(io.StringIO(text)):
            values = [row.get(name) or "" for name in COVARIANCE_COLUMNS]
            if all(values):
                covariance = np.zeros((6, 6))
                covariance[upper] = [float(value) for value in values]
                covariance.T[upper] = covariance[upper]
                found[float(row["timestamp"])] = covariance
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        notice(_LOG, "no_covariances", "%s is not used, because it cannot be read: %s", path, error)
        return {}
    return found


def _points(run: Path | None) -> tuple[FloatArray, UInt8Array | None]:
    """Return points (N, 3) of a run's map.ply and their colours (N, 3), red green blue, or None."""
    nothing = np.zeros((0, 3))
    if run is None:
        return nothing, None
    try:
        vertices = _read_ply(read_given(run / "map.ply", _LARGEST))
    except FileNotFoundError:
        notice(_LOG, "no_points", "%s has no map.ply: the bag has no points", run)
        return nothing, None
    except (OSError, ValueError, KeyError) as error:
        text = "%s is not used, because it cannot be read: %s"
        notice(_LOG, "no_points", text, run / "map.ply", error)
        return nothing, None
    points = np.stack([vertices[name].astype(np.float64) for name in "xyz"], axis=1)
    if not {"red", "green", "blue"} <= set(vertices.dtype.names or ()):
        return points, None
    return points, np.stack([vertices[name] for name in ("red", "green", "blue")], axis=1)


def _read_ply(data: bytes) -> Any:
    """Return the vertices of a file that `write_ply` wrote.

    Raises:
        ValueError, KeyError: it is another file.
    """
    header, separator, body = data.partition(b"end_header\n")
    lines = [line.split() for line in header.decode("ascii").splitlines()]
    if not separator or lines[:2] != [["ply"], ["format", "binary_little_endian", "1.0"]]:
        raise ValueError("it is no binary little-endian PLY")
    counts = [int(line[2]) for line in lines if line[:2] == ["element", "vertex"]]
    fields = [(line[2], _PLY_TYPES[line[1]]) for line in lines if line[0] == "property"]
    return np.frombuffer(body, dtype=np.dtype(fields), count=counts[0] if counts else 0)
