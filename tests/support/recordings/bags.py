"""Bags written by tests through rosbags: ROS 1, and ROS 2 as MCAP or SQLite's db3."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spslam.camera import Camera
from spslam.geometry import rotation_to_quaternion

STORES = {1: get_typestore(Stores.ROS1_NOETIC), 2: get_typestore(Stores.LATEST)}
TRANSFORMS = "tf2_msgs/msg/TFMessage"
STORES[1].register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", TRANSFORMS))
# Delay of a recorder, nanoseconds: times of recording are no stamps.
LATE_NS = 40_000_000
START_NS = 1_700_000_000_123_456_789


class BagMaker:
    """Collects messages, and writes them as a bag of ROS 1 or 2.

    Args:
        ros: 1 or 2.
    """

    def __init__(self, ros: int) -> None:
        self.ros = ros
        self.messages: list[tuple[str, str, Any, int]] = []
        self._sequence = 0

    def add(self, topic: str, kind: str, message: Any, recorded_ns: int) -> None:
        self.messages.append((topic, kind, message, recorded_ns))

    def of(self, kind: str, **fields: Any) -> Any:
        return STORES[self.ros].types[kind](**fields)

    def header(self, stamp_ns: int, frame: str) -> Any:
        time = self.of(
            "builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
        )
        number = {"seq": self._sequence} if self.ros == 1 else {}
        self._sequence += 1
        return self.of("std_msgs/msg/Header", stamp=time, frame_id=frame, **number)

    def image(
        self,
        topic: str,
        pixels: np.ndarray,
        encoding: str,
        stamp_ns: int,
        *,
        frame: str = "camera",
        padding: int = 0,
        size: tuple[int, int] | None = None,
        recorded_ns: int | None = None,
    ) -> None:
        """Add an image of rows of bytes; big-endian pixels are marked as such.

        `size` is width and height where they are not those of `pixels`.
        """
        rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
        padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
        width, height = size or (pixels.shape[1], pixels.shape[0])
        kind = "sensor_msgs/msg/Image"
        message = self.of(
            kind,
            header=self.header(stamp_ns, frame),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=int(pixels.dtype.byteorder == ">"),
            step=padded.shape[1],
            data=padded.ravel(),
        )
        self.add(topic, kind, message, stamp_ns + LATE_NS if recorded_ns is None else recorded_ns)

    def compressed(
        self, topic: str, data: bytes, form: str, stamp_ns: int, *, frame: str = "camera"
    ) -> None:
        kind = "sensor_msgs/msg/CompressedImage"
        message = self.of(
            kind,
            header=self.header(stamp_ns, frame),
            format=form,
            data=np.frombuffer(data, dtype=np.uint8),
        )
        self.add(topic, kind, message, stamp_ns + LATE_NS)

    def camera_info(
        self,
        topic: str,
        camera: Camera,
        stamp_ns: int = START_NS,
        *,
        frame: str = "camera",
        model: str = "plumb_bob",
        baseline: float = 0.0,
        R: np.ndarray | None = None,
        P: np.ndarray | None = None,
        size: tuple[int, int] | None = None,
        binning: int = 0,
        roi: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> None:
        """Add a calibration; `roi` is x, y, width and height."""
        if P is None:
            P = np.hstack([camera.K, [[-camera.fx * baseline], [0.0], [0.0]]])
        values = {
            "D": np.array(camera.distortion, dtype=np.float64),
            "K": camera.K.ravel(),
            "R": (np.eye(3) if R is None else R).ravel(),
            "P": P.ravel(),
        }
        region = self.of(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=roi[0],
            y_offset=roi[1],
            width=roi[2],
            height=roi[3],
            do_rectify=False,
        )
        kind = "sensor_msgs/msg/CameraInfo"
        width, height = size or (camera.width, camera.height)
        message = self.of(
            kind,
            header=self.header(stamp_ns, frame),
            height=height,
            width=width,
            distortion_model=model,
            binning_x=binning,
            binning_y=binning,
            roi=region,
            **{name if self.ros == 1 else name.lower(): value for name, value in values.items()},
        )
        self.add(topic, kind, message, stamp_ns + LATE_NS)

    def transform(self, parent: str, child: str, T: np.ndarray, stamp_ns: int = START_NS) -> Any:
        return self.of(
            "geometry_msgs/msg/TransformStamped",
            header=self.header(stamp_ns, parent),
            child_frame_id=child,
            transform=self.of(
                "geometry_msgs/msg/Transform",
                translation=self._triple("Vector3", T[:3, 3]),
                rotation=self._quaternion(T),
            ),
        )

    def tf_static(self, *transforms: Any) -> None:
        message = self.of(TRANSFORMS, transforms=list(transforms))
        self.add("/tf_static", TRANSFORMS, message, START_NS)

    def pose(self, topic: str, T: np.ndarray, stamp_ns: int, *, frame: str = "map") -> None:
        kind = "geometry_msgs/msg/PoseStamped"
        message = self.of(kind, header=self.header(stamp_ns, frame), pose=self._pose(T))
        self.add(topic, kind, message, stamp_ns + LATE_NS)

    def odometry(self, topic: str, T: np.ndarray, stamp_ns: int, *, child: str) -> None:
        kind = "nav_msgs/msg/Odometry"
        zeros = np.zeros(36)
        twist = self.of(
            "geometry_msgs/msg/Twist",
            linear=self._triple("Vector3", np.zeros(3)),
            angular=self._triple("Vector3", np.zeros(3)),
        )
        message = self.of(
            kind,
            header=self.header(stamp_ns, "odom"),
            child_frame_id=child,
            pose=self.of(
                "geometry_msgs/msg/PoseWithCovariance", pose=self._pose(T), covariance=zeros
            ),
            twist=self.of("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=zeros),
        )
        self.add(topic, kind, message, stamp_ns + LATE_NS)

    def text(self, topic: str, words: str, recorded_ns: int = START_NS) -> None:
        self.add(
            topic, "std_msgs/msg/String", self.of("std_msgs/msg/String", data=words), recorded_ns
        )

    def write(self, path: Path, packing: str = "") -> Path:
        """Write `NAME.bag`, or the folder of a ROS 2 bag.

        Args:
            path: the file of ROS 1; of ROS 2 a folder that ends in `.mcap` or `.db3`.
            packing: ROS 1: `bz2` or `lz4`; ROS 2: `file`, `message` or `chunk` (zstd).

        Returns:
            `path`.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.ros == 1:
            self._write1(path, packing)
        else:
            self._write2(path, packing)
        return path

    def write_file(self, path: Path, packing: str = "") -> Path:
        """Write a ROS 2 bag, and keep its only file as `path`."""
        folder = self.write(path.with_name(f"folder-{path.name}"), packing)
        (file,) = (found for found in folder.iterdir() if found.name != "metadata.yaml")
        shutil.move(file, path)
        shutil.rmtree(folder)
        return path

    def _write1(self, path: Path, packing: str) -> None:
        writer = Writer1(path)
        if packing:
            writer.set_compression(Writer1.CompressionFormat[packing.upper()])
        with writer:
            connections: dict[str, Any] = {}
            for topic, kind, message, recorded in sorted(self.messages, key=lambda m: m[3]):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=STORES[1])
                data = STORES[1].serialize_ros1(message, kind)
                writer.write(connections[topic], recorded, data)

    def _write2(self, path: Path, packing: str) -> None:
        plugin = StoragePlugin.MCAP if path.suffix == ".mcap" else StoragePlugin.SQLITE3
        writer = Writer2(path, version=9, storage_plugin=plugin)
        if packing:
            mode = "storage" if packing == "chunk" else packing
            writer.set_compression(CompressionMode[mode.upper()], CompressionFormat.ZSTD)
        with writer:
            connections: dict[str, Any] = {}
            for topic, kind, message, recorded in sorted(self.messages, key=lambda m: m[3]):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=STORES[2])
                writer.write(connections[topic], recorded, STORES[2].serialize_cdr(message, kind))

    def _triple(self, name: str, values: np.ndarray) -> Any:
        x, y, z = (float(value) for value in values)
        return self.of(f"geometry_msgs/msg/{name}", x=x, y=y, z=z)

    def _quaternion(self, T: np.ndarray) -> Any:
        x, y, z, w = (float(value) for value in rotation_to_quaternion(T[:3, :3]))
        return self.of("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)

    def _pose(self, T: np.ndarray) -> Any:
        return self.of(
            "geometry_msgs/msg/Pose",
            position=self._triple("Point", T[:3, 3]),
            orientation=self._quaternion(T),
        )
