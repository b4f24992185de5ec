"""The built-in world demo-small written in the published forms of data sets.

Each writer takes shots of one camera and makes a folder as the authors of the data set publish it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from spslam.camera import Camera
from spslam.datasets.world.cache import cached_atlas
from spslam.datasets.world.render import Renderer
from spslam.datasets.world.world import RenderedWorld, world_faces, world_spec
from spslam.frame import Frame
from spslam.geometry import inverse, make_transform, rotation_to_quaternion

SPEC = world_spec("demo-small")
WORLD = RenderedWorld(SPEC)
# demo-small's own camera, and fisheye and radtan cameras of other sizes.
OWN = WORLD.camera
FISHEYE = Camera(
    256, 256, 150.0, 149.5, 130.2, 125.7, "equidistant", (0.003, 0.0007, -0.002, 0.0002)
)
BENT = Camera(240, 160, 150.0, 151.0, 118.3, 82.4, "radtan", (-0.2, 0.06, 0.001, -0.002, 0.0))


def rigid(rotation_vector: Sequence[float], t: Sequence[float]) -> np.ndarray:
    """A transform (4, 4) of a rotation vector, radians, and a translation, metres."""
    return make_transform(Rotation.from_rotvec(rotation_vector).as_matrix(), np.array(t))


# Poses of the sensors of a rig: any turn and shift, so that a forgotten inverse shows.
T_CAM_IMU = rigid([0.4, -1.1, 0.7], [0.05, -0.03, 0.02])


@dataclass(frozen=True, eq=False)
class Shot:
    """A moment of the world.

    Attributes:
        index: frame of demo-small.
        time_s: seconds.
        T_world_cam: (4, 4) pose of the left camera.
        left, right: images (H, W) uint8.
    """

    index: int
    time_s: float
    T_world_cam: np.ndarray
    left: np.ndarray
    right: np.ndarray

    @property
    def depth(self) -> np.ndarray:
        """Exact depth of demo-small's own camera, metres."""
        return WORLD.depth(self.index)


@cache
def renderer(camera: Camera) -> Renderer:
    faces = world_faces(SPEC)
    return Renderer(faces, cached_atlas(SPEC.layout, faces, SPEC.texels_per_m, SPEC.seed), camera)


def take(indices: Sequence[int], camera: Camera = OWN, T_left_right: np.ndarray | None = None):
    """Shots of frames of demo-small by its own camera, or through a lens."""
    return tuple(
        _shot(index, camera, None if T_left_right is None else _bytes(T_left_right))
        for index in indices
    )


def _bytes(T: np.ndarray) -> bytes:
    return np.ascontiguousarray(T, dtype=np.float64).tobytes()


@cache
def _shot(index: int, camera: Camera, relative: bytes | None) -> Shot:
    truth = WORLD.ground_truth
    assert truth is not None
    pose, time_s = truth.T_world_cam[index], float(truth.timestamps[index])
    if camera is OWN:
        frame: Frame = WORLD[index]
        assert frame.image_right is not None
        return Shot(index, time_s, pose, frame.image, frame.image_right)
    assert relative is not None
    T_left_right = np.frombuffer(relative).reshape(4, 4)
    left, right = through_lens(camera, pose), through_lens(camera, pose @ T_left_right)
    return Shot(index, time_s, pose, left, right)


def through_lens(camera: Camera, T_world_cam: np.ndarray) -> np.ndarray:
    """The image of the world through a lens, which sees less than 69 degrees to each side."""
    wide = Camera(801, 801, 150.0, 150.0, 400.0, 400.0)
    y, x = np.indices((camera.height, camera.width), dtype=np.float64)
    rays = camera.lens_rays(np.stack([x.ravel(), y.ravel()], axis=1))
    maps = np.nan_to_num(wide.project(rays), nan=-1e4).astype(np.float32)
    maps = maps.reshape(camera.height, camera.width, 2)
    image = renderer(wide).image(T_world_cam)
    seen = cv2.remap(image, maps[..., 0].copy(), maps[..., 1].copy(), cv2.INTER_LINEAR)
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)


def differs_from_world(image: np.ndarray, camera: Camera, T_world_cam: np.ndarray) -> float:
    """Median difference of grey values to the world seen by an ideal camera at a pose."""
    seen = renderer(camera.without_distortion()).image(T_world_cam)
    blurred = [cv2.GaussianBlur(np.asarray(one, np.float32), (5, 5), 1.2) for one in (image, seen)]
    return float(np.median(np.abs(blurred[0] - blurred[1])))


def put(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def text(path: Path, lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def row(numbers: Any) -> str:
    return " ".join(repr(float(number)) for number in np.ravel(numbers))


def date_line(time_s: float, nanoseconds: int = 0) -> str:
    """A stamp as KITTI writes it: a date with nine digits."""
    whole, part = divmod(round(time_s * 1e9) + nanoseconds, 10**9)
    moment = datetime.fromtimestamp(1317042145 + whole, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{part:09d}"


# --- KITTI ----------------------------------------------------------------------------------------

_R_RECT = Rotation.from_rotvec([0.01, -0.02, 0.004]).as_matrix()
T_VELO_IMU = rigid([0.01, 0.02, -0.01], [-0.81, 0.32, -0.8])
T_CAM_VELO = make_transform(
    np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.array([0.0, -0.08, -0.27])
)
_LATITUDE, _LONGITUDE, _EARTH = np.radians(49.015), np.radians(8.434), 6378137.0
# The world's axes (x right, y down, z forwards) as east, north and up.
_ENU = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def kitti_lines(
    camera: Camera, T_cam0_right: np.ndarray, baseline: float, colour_shift: float = 0.06
) -> list[str]:
    """`calib_cam_to_cam.txt`: cameras 0 and 1 grey, 2 and 3 in colour, 6 cm to the left."""
    lines = ["calib_time: 09-Jan-2012 13:57:47", "corner_dist: 9.950000e-02"]
    shifts = (0.0, -baseline, colour_shift, colour_shift - baseline)
    k1k2p1p2k3 = (*camera.distortion, *(0.0,) * 5)[:5]
    for number, shift in enumerate(shifts):
        P = np.concatenate([camera.K, camera.K @ [[shift], [0], [0]]], axis=1)
        T = inverse(T_cam0_right) if number % 2 else np.eye(4)
        lines += [
            f"S_{number:02d}: {camera.width:.6e} {camera.height:.6e}",
            f"K_{number:02d}: {row(camera.K)}",
            f"D_{number:02d}: {row(k1k2p1p2k3)}",
            f"R_{number:02d}: {row(T[:3, :3])}",
            f"T_{number:02d}: {row(T[:3, 3])}",
            f"S_rect_{number:02d}: {OWN.width:.6e} {OWN.height:.6e}",
            f"R_rect_{number:02d}: {row(_R_RECT)}",
            f"P_rect_{number:02d}: {row(P)}",
        ]
    return lines


def kitti_raw(
    root: Path,
    shots: Sequence[Shot],
    name: str = "2011_09_26_drive_0001_sync",
    cameras: tuple[int, int] = (0, 1),
    camera: Camera = OWN,
    T_left_right: np.ndarray | None = None,
) -> Path:
    """A drive of KITTI raw; returns the folder of the date."""
    date = root / "2011_09_26"
    baseline = OWN.baseline_m
    assert baseline is not None
    T_left_right = _beside(baseline) if T_left_right is None else T_left_right
    text(date / "calib_cam_to_cam.txt", kitti_lines(camera, T_left_right, baseline))
    for file, T in (("imu_to_velo", T_VELO_IMU), ("velo_to_cam", T_CAM_VELO)):
        lines = ["calib_time: 25-May-2012 16:47:16", f"R: {row(T[:3, :3])}", f"T: {row(T[:3, 3])}"]
        text(date / f"calib_{file}.txt", [*lines, "delta_f: 0 0", "delta_c: 0 0"])
    drive = date / name
    for number, side in zip(cameras, ("left", "right"), strict=True):
        folder = drive / f"image_{number:02d}"
        for at, shot in enumerate(shots):
            put(folder / "data" / f"{at:010d}.png", getattr(shot, side))
        # The right camera's stamps differ by nanoseconds.
        text(folder / "timestamps.txt", [date_line(s.time_s, 7 * number) for s in shots])
    rectified = name.endswith("_sync")
    R_rect = make_transform(_R_RECT, np.zeros(3)) if rectified else np.eye(4)
    T_imu_cam0 = inverse(R_rect @ T_CAM_VELO @ T_VELO_IMU)
    shift = make_transform(np.eye(3), np.array([-0.06 if cameras[0] == 2 else 0.0, 0.0, 0.0]))
    poses = [_ENU @ shot.T_world_cam @ inverse(T_imu_cam0 @ shift) for shot in shots]
    text(drive / "oxts" / "timestamps.txt", [date_line(s.time_s, 1_000_000) for s in shots])
    for at, line in enumerate(_oxts(np.array(poses))):
        text(drive / "oxts" / "data" / f"{at:010d}.txt", [line])
    text(drive / "oxts" / "dataformat.txt", ["lat:   latitude of the oxts-unit (deg)"])
    return date


def _beside(baseline: float) -> np.ndarray:
    return make_transform(np.eye(3), np.array([baseline, 0.0, 0.0]))


def _oxts(poses: np.ndarray) -> list[str]:
    """Lines of latitude, longitude, …: Mercator's projection inverted."""
    scale = _EARTH * np.cos(_LATITUDE)
    east, north, up = (poses[:, :3, 3] - poses[0, :3, 3]).T
    longitude = _LONGITUDE + east / scale
    mercator = np.log(np.tan(np.pi / 4 + _LATITUDE / 2)) + north / scale
    latitude = 2 * np.arctan(np.exp(mercator)) - np.pi / 2
    angles = Rotation.from_matrix(poses[:, :3, :3]).as_euler("xyz")
    table = np.column_stack([np.degrees(latitude), np.degrees(longitude), up + 112.8, angles])
    return [f"{row(values)} {' '.join(['0.01'] * 19)} 4 10 4 4 0" for values in table]


def kitti_360(root: Path, shots: Sequence[Shot], posed: Sequence[int]) -> Path:
    """KITTI-360 with one drive; frames `posed` have a pose."""
    baseline = OWN.baseline_m
    assert baseline is not None
    lines = kitti_lines(OWN, _beside(baseline), baseline)
    text(root / "calibration" / "perspective.txt", [line for line in lines if "_03" not in line])
    name = "2013_05_28_drive_0000_sync"
    drive = root / "data_2d_raw" / name
    for number, side in enumerate(("left", "right")):
        folder = drive / f"image_{number:02d}"
        for at, shot in enumerate(shots):
            put(folder / "data_rect" / f"{at:010d}.png", getattr(shot, side))
        text(folder / "timestamps.txt", [date_line(shot.time_s) for shot in shots])
    (drive / "image_02" / "data_rgb").mkdir(parents=True)
    # UTM coordinates: millions of metres.
    world = make_transform(_ENU[:3, :3], np.array([3.9e6, 1.2e6, 115.0]))
    poses = {at: world @ shots[at].T_world_cam for at in posed}
    T_pose_cam = make_transform(_ENU[:3, :3], np.array([1.57, 0.04, -1.05]))
    R_rect = make_transform(_R_RECT, np.zeros(3))
    data = root / "data_poses" / name
    text(data / "cam0_to_world.txt", [f"{at} {row(T)} " for at, T in poses.items()])
    body = {at: T @ R_rect @ inverse(T_pose_cam) for at, T in poses.items()}
    text(data / "poses.txt", [f"{at} {row(T[:3])}" for at, T in body.items()])
    text(root / "calibration" / "calib_cam_to_pose.txt", [f"image_00: {row(T_pose_cam[:3])}"])
    return root


# --- Kalibr's camchains ---------------------------------------------------------------------------


def camchain(
    path: Path, camera: Camera, T_left_right: np.ndarray, shift_s: float = 0.0, imu: bool = True
) -> Path:
    """A camchain as Kalibr writes it."""
    entries: dict[str, Any] = {}
    for name, T in (("cam0", T_CAM_IMU), ("cam1", inverse(T_left_right) @ T_CAM_IMU)):
        entries[name] = {
            "cam_overlaps": [1 if name == "cam0" else 0],
            "camera_model": "pinhole",
            "distortion_coeffs": list(camera.distortion),
            "distortion_model": "equidistant",
            "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy],
            "resolution": [camera.width, camera.height],
            "rostopic": f"/{name}/image_raw",
            "timeshift_cam_imu": shift_s,
        }
        if imu:
            entries[name]["T_cam_imu"] = T.tolist()
        if name == "cam1":
            entries[name]["T_cn_cnm1"] = inverse(T_left_right).tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(entries))
    return path


# TUM VI's stamps: nanoseconds of this clock.
_TUM_VI_NS = 1520530308199447626


def tum_vi(root: Path, shots: Sequence[Shot], T_left_right: np.ndarray, posed: slice) -> Path:
    """A recording of TUM VI: 16-bit images, ground truth of the IMU in `mocap0`."""
    folder = root / "dataset-room1_512_16"
    stamps = [_TUM_VI_NS + round(shot.time_s * 1e9) for shot in shots]
    for number, side in enumerate(("left", "right")):
        camera = folder / "mav0" / f"cam{number}"
        for stamp, shot in zip(stamps, shots, strict=True):
            put(camera / "data" / f"{stamp}.png", getattr(shot, side).astype(np.uint16) * 257)
        names = [f"{stamp},{stamp}.png" for stamp in stamps]
        text(camera / "data.csv", ["#timestamp [ns],filename", *names])
    heading = "#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], "
    lines = [heading + "q_RS_y [], q_RS_z []"]
    for stamp, shot in list(zip(stamps, shots, strict=True))[posed]:
        T = shot.T_world_cam @ T_CAM_IMU
        x, y, z, w = rotation_to_quaternion(T[:3, :3])
        lines.append(f"{stamp}," + ",".join(map(repr, map(float, [*T[:3, 3], w, x, y, z]))))
    text(folder / "mav0" / "mocap0" / "data.csv", lines)
    camchain(folder / "dso" / "camchain.yaml", FISHEYE, T_left_right)
    return folder


def uzh_fpv(
    root: Path,
    shots: Sequence[Shot],
    T_left_right: np.ndarray,
    numbered_truth: bool,
    shift_s: float = 0.0,
) -> Path:
    """A recording of UZH-FPV, and its calibration in a folder of its own."""
    folder = root / "indoor_forward_3_snapdragon_with_gt"
    begin = 1540223241.0
    for number, name in enumerate(("left", "right")):
        lines = ["# id timestamp image_name"]
        for at, shot in enumerate(shots):
            put(folder / "img" / f"image_{number}_{at}.png", getattr(shot, name))
            stamp = begin + shot.time_s
            lines.append(f"{at} {stamp:.16f} img/image_{number}_{at}.png")
        text(folder / f"{name}_images.txt", lines)
    names = "timestamp tx ty tz qx qy qz qw"
    lines = [f"# id {names}" if numbered_truth else f"# {names}"]
    for at, shot in enumerate(shots):
        T = shot.T_world_cam @ T_CAM_IMU
        values = [*T[:3, 3], *rotation_to_quaternion(T[:3, :3])]
        front = f"{at} " if numbered_truth else ""
        lines.append(f"{front}{begin + shot.time_s + shift_s:.9f} {row(values)}")
    text(folder / "groundtruth.txt", lines)
    chain = "camchain-imucam-..indoor_forward_calib_snapdragon_imu.yaml"
    calibration = root / "indoor_forward_calib_snapdragon"
    camchain(calibration / chain, FISHEYE, T_left_right, shift_s)
    camchain(calibration / chain.replace("-imucam", ""), FISHEYE, T_left_right, shift_s, imu=False)
    return folder


# --- Reconstructions ------------------------------------------------------------------------------

# A world of another origin, scale and orientation, as reconstructions have.
SCALE = 2.5
_OTHER = rigid([0.3, 0.2, -0.9], [4.0, -2.0, 7.0])


def other_world(T_world_cam: np.ndarray, scale: float) -> np.ndarray:
    T = _OTHER @ T_world_cam
    T[:3, 3] *= scale
    return T


def nerfstudio(
    folder: Path,
    shots: Sequence[Shot],
    depth: bool = False,
    per_frame: bool = False,
    change: Callable[[dict[str, Any]], None] = lambda values: None,
) -> Path:
    """`transforms.json` with images, as nerfstudio's tools write it."""
    intrinsics = {
        "w": OWN.width,
        "h": OWN.height,
        "fl_x": OWN.fx,
        "fl_y": OWN.fy,
        "cx": OWN.cx + 0.5,
        "cy": OWN.cy + 0.5,
    }
    values: dict[str, Any] = {"camera_model": "OPENCV", "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0}
    values |= {} if per_frame else intrinsics
    frames = []
    for at, shot in enumerate(shots):
        # Not padded: frame_10 comes after frame_9.
        name = f"images/frame_{at + 1}.png"
        put(folder / name, shot.left)
        T = other_world(shot.T_world_cam, 1.0 if depth else SCALE)
        T = T @ np.diag([1.0, -1.0, -1.0, 1.0])
        frame: dict[str, Any] = {"file_path": name, "transform_matrix": T.tolist()}
        frame |= intrinsics if per_frame else {}
        if depth:
            frame["depth_file_path"] = f"depths/frame_{at + 1}.png"
            millimetres = np.rint(shot.depth * 1000).astype(np.uint16)
            put(folder / frame["depth_file_path"], millimetres)
        frames.append(frame)
    values["frames"] = frames[::-1]
    change(values)
    (folder / "transforms.json").write_text(json.dumps(values, indent=4))
    return folder


def colmap(
    folder: Path, shots: Sequence[Shot], binary: bool, registered: Sequence[int] | None = None
) -> Path:
    """A project of COLMAP with a model in `sparse/0`; images `registered` are in the model."""
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    for at, shot in enumerate(shots):
        put(folder / "images" / f"walk_{at}.png", shot.left)
    rows = list(range(len(shots))) if registered is None else list(registered)
    params = (OWN.fx, OWN.fy, OWN.cx + 0.5, OWN.cy + 0.5)
    if binary:
        write_cameras_binary(model, {1: (1, OWN.width, OWN.height, params)})
        entries = [(at, 1, f"walk_{at}.png", *_colmap_pose(shots[at])) for at in reversed(rows)]
        write_images_binary(model, entries)
        return folder
    size = f"{OWN.width} {OWN.height}"
    text(
        model / "cameras.txt",
        ["# Camera list with one line of data per camera:", f"1 PINHOLE {size} {row(params)}"],
    )
    lines = ["# Image list with two lines of data per image:", f"# Number of images: {len(rows)}"]
    for at in reversed(rows):
        q, t = _colmap_pose(shots[at])
        # Every other image has no points: an empty line.
        points = "" if at % 2 else "12.5 20.5 -1 7.25 8.75 3"
        lines += [f"{at + 1} {row(q)} {row(t)} 1 walk_{at}.png", points]
    text(model / "images.txt", lines)
    return folder


def _colmap_pose(shot: Shot) -> tuple[np.ndarray, np.ndarray]:
    T = inverse(other_world(shot.T_world_cam, SCALE))
    return np.roll(rotation_to_quaternion(T[:3, :3]), 1), T[:3, 3]


def write_cameras_binary(
    model: Path, cameras: Mapping[int, tuple[int, int, int, tuple[float, ...]]]
) -> None:
    data = struct.pack("<Q", len(cameras))
    for number, (kind, width, height, params) in cameras.items():
        data += struct.pack("<IiQQ", number, kind, width, height)
        data += struct.pack(f"<{len(params)}d", *params)
    (model / "cameras.bin").write_bytes(data)


def write_images_binary(
    model: Path, images: Sequence[tuple[int, int, str, np.ndarray, np.ndarray]]
) -> None:
    data = struct.pack("<Q", len(images))
    for number, camera, name, q, t in images:
        data += struct.pack("<I7dI", number + 1, *q, *t, camera) + name.encode() + b"\0"
        # Two points: x, y, and the id of the point in space.
        data += struct.pack("<Qddqddq", 2, 12.5, 20.5, -1, 7.25, 8.75, 3)
    (model / "images.bin").write_bytes(data)


def kapture(folder: Path, shots: Sequence[Shot], rig: bool = False, first_stamp: int = 0) -> Path:
    """A kapture of one camera, with its poses or those of a rig that holds it."""
    sensors, mark = folder / "sensors", "# kapture format: 1.1"
    values = f"{OWN.width}, {OWN.height}, {OWN.fx!r}, {OWN.fy!r}, {OWN.cx + 0.5}, {OWN.cy + 0.5}"
    heading = "# sensor_device_id, name, sensor_type, [sensor_params]+"
    lines = [mark, heading, "lidar0, , lidar", f"cam0, Hero7, camera, PINHOLE, {values}"]
    text(sensors / "sensors.txt", lines)
    records = [mark, "# timestamp, device_id, image_path"]
    poses = [mark, "# timestamp, device_id, qw, qx, qy, qz, tx, ty, tz"]
    T_cam_rig = T_CAM_IMU if rig else np.eye(4)
    for at, shot in enumerate(shots):
        name = f"mapping/cam_01/{at:05d}.png"
        put(sensors / "records_data" / name, shot.left)
        stamp = at if first_stamp == 0 else first_stamp + round(shot.time_s * 1e9)
        records.append(f"{stamp:04d}, cam0, {name}")
        T = inverse(T_cam_rig) @ inverse(other_world(shot.T_world_cam, SCALE))
        numbers = [*np.roll(rotation_to_quaternion(T[:3, :3]), 1), *T[:3, 3]]
        device = "rig" if rig else "cam0"
        poses.append(f"{stamp:04d}, {device}, {row(numbers).replace(' ', ', ')}")
    text(sensors / "records_camera.txt", records)
    text(sensors / "trajectories.txt", poses)
    if rig:
        q = np.roll(rotation_to_quaternion(T_cam_rig[:3, :3]), 1)
        pose = row([*q, *T_cam_rig[:3, 3]]).replace(" ", ", ")
        heading = "# rig_device_id, sensor_device_id, qw, qx, qy, qz, tx, ty, tz"
        text(sensors / "rigs.txt", [mark, heading, f"rig, cam0, {pose}"])
    return folder


def query_list(folder: Path, shots: Sequence[Shot], intrinsics: bool) -> Path:
    """A list of queries as hloc reads it, with images below its folder."""
    lines = []
    params = f"{OWN.width} {OWN.height} {row([OWN.fx, OWN.cx + 0.5, OWN.cy + 0.5, 0.0])}"
    for at, shot in enumerate(shots):
        name = f"query/day/{at}.png"
        put(folder / name, shot.left)
        lines.append(f"{name} SIMPLE_RADIAL {params}" if intrinsics else name)
    return text(folder / "day_time_queries_with_intrinsics.txt", lines)
