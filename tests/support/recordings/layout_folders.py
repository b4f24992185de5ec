"""Frames of demo-small captured by any camera, and written in the published form of data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from spslam.camera import Camera
from spslam.datasets.world.world import RenderedWorld, world_spec

BASELINE_M = 0.25
# Published cameras: width, height, fx, fy, cx, cy.
ICL = Camera(640, 480, 481.2, 480.0, 319.5, 239.5)
TARTANAIR = Camera(640, 480, 320, 320, 320, 240)
TARTANAIR_V2 = Camera(640, 640, 320, 320, 320, 320)
SEVEN_SCENES = Camera(640, 480, 525, 525, 319.5, 239.5)
REPLICA = Camera(600, 340, 300, 302, 299.5, 169.5)
SCANNET = Camera(648, 484, 585.4, 586.2, 321.3, 244.6)
SCANNET_DEPTH = Camera(320, 240, 288.9, 289.4, 158.7, 121.1)
ETH3D = Camera(739, 458, 726.3, 726.1, 354.6, 186.5)
BONN = Camera(
    640,
    480,
    542.822841,
    542.57687,
    315.59352,
    237.756098,
    "radtan",
    (0.039903, -0.099343, -0.00073, -0.000144, 0.0),
)
OPENLORIS = Camera(
    848, 480, 611.45, 610.9, 433.2, 249.47, "radtan", (0.02, -0.01, 0.0005, -0.0004, 0.0)
)


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame: index, images (H, W) uint8, depth in metres, and its pose in camera axes."""

    index: int
    image: np.ndarray
    right: np.ndarray
    depth: np.ndarray
    T_world_cam: np.ndarray


@cache
def capture(camera: Camera, indices: tuple[int, ...], *, right: bool = False) -> tuple[Shot, ...]:
    """Capture frames of demo-small; right images only if wanted, by default `BASELINE_M` beside."""
    baseline_m = camera.baseline_m or BASELINE_M
    spec = replace(
        world_spec("demo-small"), width=camera.width, height=camera.height, baseline_m=baseline_m
    )
    world = RenderedWorld(spec, "stereo" if right else "mono")
    world.camera = replace(camera.without_distortion(), baseline_m=baseline_m)
    truth = world.ground_truth
    assert truth is not None
    shots = []
    for index in indices:
        frame = world[index]
        image, depth = _through_lens(camera, frame.image, world.depth(index))
        other = image if frame.image_right is None else frame.image_right
        shots.append(Shot(index, image, other, depth, truth.T_world_cam[index]))
    return tuple(shots)


def _through_lens(
    camera: Camera, image: np.ndarray, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if not camera.distortion:
        return image, depth
    x, y = _ideal_places(camera)
    bent = cv2.remap(image, x, y, cv2.INTER_LINEAR)
    return bent, cv2.remap(depth, x, y, cv2.INTER_NEAREST)


@cache
def _ideal_places(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """x and y (H, W) of the pixel without a lens that each pixel of a mild lens shows."""
    rows, columns = np.indices((camera.height, camera.width), dtype=np.float64)
    k1, k2, p1, p2, k3 = camera.distortion
    bent_x, bent_y = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    x, y = bent_x, bent_y
    for _ in range(8):
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        shift_x = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        shift_y = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        x, y = (bent_x - shift_x) / radial, (bent_y - shift_y) / radial
    places = (x * camera.fx + camera.cx, y * camera.fy + camera.cy)
    return places[0].astype(np.float32), places[1].astype(np.float32)


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a grey picture as the colour picture that data sets have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 98] if path.suffix == ".jpg" else []
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), quality)


def write_depth(path: Path, depth: np.ndarray, units: float, none: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.rint(depth * units)
    values[depth <= 0] = none
    assert cv2.imwrite(str(path), values.astype(np.uint16))


def tum_line(stamp: object, T: np.ndarray) -> str:
    return f"{stamp} {seven(T)}"


def seven(T: np.ndarray) -> str:
    numbers = [*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()]
    return " ".join(f"{number:.9f}" for number in numbers)


def rows_of(T: np.ndarray, between: str = " ") -> str:
    return "\n".join(between.join(f"{number:.9g}" for number in row) for row in T) + "\n"


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def mirrored(T: np.ndarray) -> np.ndarray:
    """The pose in ICL-NUIM's axes: y up in the world and in the camera."""
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    return np.asarray(flip @ T @ flip)


def north_east_down(T: np.ndarray) -> np.ndarray:
    """The pose of a frame with x forward, y right, z down, in a world with such axes."""
    out = np.eye(4)
    right, down, forward = T[:3, 0], T[:3, 1], T[:3, 2]
    for column, axis in enumerate((forward, right, down)):
        out[:3, column] = axis[[2, 0, 1]]
    out[:3, 3] = T[:3, 3][[2, 0, 1]]
    return out


def icl_nuim(folder: Path, shots: Sequence[Shot]) -> Path:
    """Frames are numbered in order from 0; the first has no pose."""
    pairs, poses = [], []
    for number, shot in enumerate(shots):
        write_image(folder / "rgb" / f"{number}.png", shot.image)
        write_depth(folder / "depth" / f"{number}.png", shot.depth, 5000)
        pairs.append(f"{number} depth/{number}.png {number} rgb/{number}.png")
        poses.append(tum_line(number, mirrored(shot.T_world_cam)))
    write_lines(folder / "associations.txt", pairs)
    write_lines(folder / "livingRoom0.gt.freiburg", poses[1:])
    return folder


def icl_nuim_loop(folder: Path, shots: Sequence[Shot], camera: Camera = ICL) -> Path:
    """Text depth along the rays; images count from 0, poses from 1."""
    x = (np.arange(camera.width) - camera.cx) / camera.fx
    y = (np.arange(camera.height) - camera.cy) / camera.fy
    rays = np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)
    poses = []
    for number, shot in enumerate(shots):
        write_image(folder / f"scene_00_{number:04d}.png", shot.image)
        text = " ".join(f"{value:.5g}" for value in (shot.depth * rays).ravel())
        (folder / f"scene_00_{number:04d}.depth").write_text(text + " ")
        (folder / f"scene_00_{number:04d}.txt").write_text("cam_pos = [0, 0, 0]';\n")
        poses.append(tum_line(number + 1, mirrored(shot.T_world_cam)))
    write_lines(folder / "livingRoom0.gt.freiburg", poses)
    return folder


def tartanair(folder: Path, shots: Sequence[Shot]) -> Path:
    for number, shot in enumerate(shots):
        write_image(folder / "image_left" / f"{number:06d}_left.png", shot.image)
        write_image(folder / "image_right" / f"{number:06d}_right.png", shot.right)
        (folder / "depth_left").mkdir(exist_ok=True)
        depth = np.where(shot.depth > 0, shot.depth, 1e4).astype(np.float32)
        depth[0, 0] = 1e4  # sky
        np.save(folder / "depth_left" / f"{number:06d}_left_depth.npy", depth)
    poses = [seven(north_east_down(shot.T_world_cam)) for shot in shots]
    write_lines(folder / "pose_left.txt", poses)
    return folder


def tartanair_v2(folder: Path, shots: Sequence[Shot]) -> Path:
    for number, shot in enumerate(shots):
        for side, image in (("lcam", shot.image), ("rcam", shot.right)):
            write_image(folder / f"image_{side}_front" / f"{number:06d}_{side}_front.png", image)
        depth = np.ascontiguousarray(shot.depth.astype("<f4"))
        packed = depth.view(np.uint8).reshape(*depth.shape, 4)
        (folder / "depth_lcam_front").mkdir(exist_ok=True)
        # OpenCV stores the first byte as blue.
        name = f"{number:06d}_lcam_front_depth.png"
        assert cv2.imwrite(str(folder / "depth_lcam_front" / name), packed)
    poses = [seven(north_east_down(shot.T_world_cam)) for shot in shots]
    write_lines(folder / "pose_lcam_front.txt", poses)
    return folder


def seven_scenes(folder: Path, shots: Sequence[Shot]) -> Path:
    folder.mkdir(parents=True)
    for number, shot in enumerate(shots):
        write_image(folder / f"frame-{number:06d}.color.png", shot.image)
        depth = shot.depth.copy()
        depth[:8] = 0
        write_depth(folder / f"frame-{number:06d}.depth.png", depth, 1000, none=65535)
        text = "".join(f"{line}\t\n" for line in rows_of(shot.T_world_cam, "\t ").splitlines())
        (folder / f"frame-{number:06d}.pose.txt").write_text(text)
    return folder


def replica(folder: Path, shots: Sequence[Shot], camera: Camera = REPLICA) -> Path:
    """The scale in cam_params.json is another than the published 6553.5, which it replaces."""
    for number, shot in enumerate(shots):
        write_image(folder / "results" / f"frame{number:06d}.jpg", shot.image)
        write_depth(folder / "results" / f"depth{number:06d}.png", shot.depth, 6000)
    lines = [" ".join(f"{value:.18e}" for value in shot.T_world_cam.ravel()) for shot in shots]
    write_lines(folder / "traj.txt", lines)
    c = camera
    values = {"w": c.width, "h": c.height, "fx": c.fx, "fy": c.fy, "cx": c.cx, "cy": c.cy}
    text = json.dumps({"camera": values | {"scale": 6000.0}})
    (folder.parent / "cam_params.json").write_text(text)
    return folder


def scannet(
    folder: Path,
    shots: Sequence[Shot],
    depths: Sequence[Shot],
    cameras: tuple[Camera, Camera] = (SCANNET, SCANNET_DEPTH),
) -> Path:
    """Numbers without zeros; the second frame has no pose; depth of a camera of its own."""
    for number, (shot, other) in enumerate(zip(shots, depths, strict=True)):
        write_image(folder / "color" / f"{number}.jpg", shot.image)
        write_depth(folder / "depth" / f"{number}.png", other.depth, 1000)
        T = np.full((4, 4), -np.inf) if number == 1 else shot.T_world_cam
        write_lines(folder / "pose" / f"{number}.txt", rows_of(T).splitlines())
    for name, camera in zip(("color", "depth"), cameras, strict=True):
        K = np.eye(4)
        K[:3, :3] = camera.K
        write_lines(folder / "intrinsic" / f"intrinsic_{name}.txt", rows_of(K).splitlines())
        lines = rows_of(np.eye(4)).splitlines()
        write_lines(folder / "intrinsic" / f"extrinsic_{name}.txt", lines)
    return folder


def _tum_form(
    folder: Path, shots: Sequence[Shot], units: float, rgb: str, depth: str, late_s: float
) -> list[str]:
    """Write two folders with their lists; returns the stamps."""
    stamps = [f"{1548339800.25 + 0.05 * shot.index:.5f}" for shot in shots]
    lists: dict[str, list[str]] = {rgb: [], depth: []}
    for stamp, shot in zip(stamps, shots, strict=True):
        write_image(folder / rgb / f"{stamp}.png", shot.image)
        lists[rgb].append(f"{stamp} {rgb}/{stamp}.png")
        late = f"{float(stamp) + late_s:.5f}"
        write_depth(folder / depth / f"{late}.png", shot.depth, units)
        lists[depth].append(f"{late} {depth}/{late}.png")
    for name, lines in lists.items():
        write_lines(folder / f"{name}.txt", lines)
    return stamps


def eth3d(folder: Path, shots: Sequence[Shot], camera: Camera = ETH3D) -> Path:
    stamps = _tum_form(folder, shots, 5000, "rgb", "depth", 0.0)
    c = camera
    write_lines(folder / "calibration.txt", [f"{c.fx} {c.fy} {c.cx} {c.cy}"])
    poses = [tum_line(at, shot.T_world_cam) for at, shot in zip(stamps, shots, strict=True)]
    write_lines(folder / "groundtruth.txt", ["# timestamp tx ty tz qx qy qz qw", *poses])
    return folder


def eth3d_stereo(folder: Path, shots: Sequence[Shot], camera: Camera = ETH3D) -> Path:
    """Camera 1 (rgb, ground truth) is the right one, camera 2 (rgb2) the left one."""
    T_left_right = np.eye(4)
    T_left_right[0, 3] = camera.baseline_m or BASELINE_M
    poses, listed = [], []
    for shot in shots:
        stamp = f"{1548339800.25 + 0.05 * shot.index:.6f}"
        write_image(folder / "rgb" / f"{stamp}.png", shot.right)
        write_image(folder / "rgb2" / f"{stamp}.png", shot.image)
        listed.append(f"{stamp} rgb/{stamp}.png")
        poses.append(tum_line(stamp, shot.T_world_cam @ T_left_right))
    c = camera
    for name in ("calibration.txt", "calibration2.txt"):
        write_lines(folder / name, [f"{c.fx} {c.fy} {c.cx} {c.cy}"])
    write_lines(folder / "rgb.txt", listed)
    T_right_left = np.linalg.inv(T_left_right)
    write_lines(folder / "extrinsics_1_2.txt", rows_of(T_right_left[:3]).splitlines())
    write_lines(folder / "groundtruth.txt", poses)
    return folder


def bonn(folder: Path, shots: Sequence[Shot]) -> Path:
    """The ground truth is of the markers, in the world of the motion capture."""
    T_ros = np.diag([-1.0, 0.0, 0.0, 1.0])
    T_ros[1, 2] = T_ros[2, 1] = 1.0
    published = np.array(
        [
            [1.0157, 0.1828, -0.2389, 0.0113],
            [0.0009, -0.8431, -0.6413, -0.0098],
            [-0.3009, 0.6147, -0.8085, 0.0111],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    T_m = published.copy()
    U, _, Vt = np.linalg.svd(published[:3, :3])
    T_m[:3, :3] = U @ Vt
    stamps = _tum_form(folder, shots, 5000, "rgb", "depth", 0.004)
    back = np.linalg.inv(T_ros @ T_m)
    poses = [
        tum_line(at, T_ros @ shot.T_world_cam @ back)
        for at, shot in zip(stamps, shots, strict=True)
    ]
    write_lines(folder / "groundtruth.txt", poses)
    return folder


OPENLORIS_SENSORS = """%YAML:1.0
# Sensors
d400_color_optical_frame:
   sensor_type: camera
   sensor_name: d400_color_optical_frame
   fps: 30
   width: {width}
   height: {height}
   model: pinhole
   intrinsics: !!opencv-matrix
      rows: 1
      cols: 4
      dt: d
      data: [ {fx}, {cx},
          {fy}, {cy} ]
   distortion_model: radial-tangential
   distortion_coefficients: !!opencv-matrix
      rows: 1
      cols: 5
      dt: d
      data: {distortion}
t265_fisheye1_optical_frame:
   sensor_type: camera
"""


def openloris(folder: Path, shots: Sequence[Shot], camera: Camera = OPENLORIS) -> Path:
    """The ground truth is of base_link, whose x points forward and z up."""
    T_base_laser = np.eye(4)
    T_base_laser[:3, 3] = (0.1, 0.0, 0.2)
    T_base_color = np.eye(4)
    T_base_color[:3, :3] = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    T_base_color[:3, 3] = (0.36, 0.03, 1.2)
    stamps = _tum_form(folder, shots, 1000, "color", "aligned_depth", -0.003)
    c = camera
    values = {key: getattr(c, key) for key in ("width", "height", "fx", "fy", "cx", "cy")}
    text = OPENLORIS_SENSORS.format(**values, distortion=list(c.distortion))
    (folder / "sensors.yaml").write_text(text)
    entries = []
    for child, T in (("laser", T_base_laser), ("d400_color_optical_frame", T_base_color)):
        data = ", ".join(f"{value:.6g}" for value in T.ravel())
        entries.append(
            f"   -\n      parent_frame: base_link\n      child_frame: {child}\n"
            "      matrix: !!opencv-matrix\n         rows: 4\n         cols: 4\n"
            f"         dt: d\n         data: [ {data} ]"
        )
    write_lines(folder / "trans_matrix.yaml", ["%YAML:1.0", "trans_matrix:", *entries])
    poses = [
        tum_line(at, shot.T_world_cam @ np.linalg.inv(T_base_color))
        for at, shot in zip(stamps, shots, strict=True)
    ]
    write_lines(folder / "groundtruth.txt", ["#Time px py pz qx qy qz qw", *poses])
    return folder


Writer = Callable[[Path, Sequence[Shot]], Path]
