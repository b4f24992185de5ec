"""Run ORB-SLAM3 (wheel `pyorbslam3`, GPL-3.0) for `spslam bench peers`, in its own environment.

    python orbslam3.py SEQUENCE kitti|tum mono|stereo|rgbd CAMERA.json OUT.tum \
        --vocabulary ORBvoc.txt [--keyframes KEYFRAMES.tum] [--realtime]

Stereo and RGB-D: the trajectory that ORB-SLAM3 saves, a pose of each tracked frame. A single
camera: it saves keyframes only. Each frame's pose relative to the last keyframe before it, as
tracking returned it, is put on the final pose of that keyframe.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyorbslam3
from frames import Report, arguments, play, read_recording, write_trajectory

# Points of an image, as in ORB-SLAM3's own settings of the data sets.
_POINTS = {"kitti": 2000, "tum": 1000}
# Baseline of the virtual stereo pair of RGB-D, metres, as in ORB-SLAM3's settings of TUM.
_RGBD_BASELINE_M = 0.08
# States without a map: the poses after them belong to a new one.
_WITHOUT_MAP = {"SYSTEM_NOT_READY", "NO_IMAGES_YET", "NOT_INITIALIZED"}
_SAME_TIME_S = 1e-4


def main() -> None:
    """Run ORB-SLAM3; write the trajectories and print the report."""
    parser = arguments("Run ORB-SLAM3 on a folder.")
    parser.add_argument("--vocabulary", type=Path, required=True, help="vocabulary of DBoW2, text")
    given = parser.parse_args()
    camera = json.loads(given.calibration.read_text())
    recording = read_recording(given.sequence, given.layout, given.sensor)
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "settings.yaml")
        settings.write_text(settings_text(camera, given.layout, given.sensor))
        slam = pyorbslam3.Slam(
            vocab_file=str(given.vocabulary),
            settings_file=str(settings),
            sensor={
                "mono": pyorbslam3.Sensor.MONOCULAR,
                "stereo": pyorbslam3.Sensor.STEREO,
                "rgbd": pyorbslam3.Sensor.RGBD,
            }[given.sensor],
            use_viewer=False,
        )
    poses, report = [], Report(recording, given.realtime)
    part = 0
    for frame in play(recording, given.sensor, given.realtime):
        begin = time.perf_counter()
        if given.sensor == "stereo":
            result = slam.track_stereo(frame.image, frame.second, frame.stamp)
        elif given.sensor == "rgbd":
            result = slam.track_rgbd(frame.image, frame.second.astype(np.float32), frame.stamp)
        else:
            result = slam.track_monocular(frame.image, frame.stamp)
        report.add(frame, begin, bool(result.ok))
        part += result.state.name in _WITHOUT_MAP
        if result.ok and result.pose_wc is not None:
            poses.append((frame.stamp, part, np.array(result.pose_wc, dtype=float)))
    slam.shutdown()
    keyframes = given.keyframes or given.out.with_suffix(".keyframes")
    slam.save_keyframe_trajectory_tum(str(keyframes))
    if given.sensor == "mono":
        stamps, rows = on_keyframes(poses, keyframes)
        write_trajectory(given.out, stamps, rows)
    else:
        slam.save_trajectory_tum(str(given.out))
    report.show()


def settings_text(camera: dict[str, Any], layout: str, sensor: str) -> str:
    """Return ORB-SLAM3's settings, in the older form: the wheel crashes with the newer one."""
    if camera["distortion_model"] not in ("none", "radtan") or len(camera["distortion"]) > 5:
        raise SystemExit(f"ORB-SLAM3 cannot use the distortion {camera['distortion_model']}")
    k1, k2, p1, p2, k3 = [*camera["distortion"], 0.0, 0.0, 0.0, 0.0, 0.0][:5]
    baseline = camera["baseline_m"] if sensor == "stereo" else _RGBD_BASELINE_M
    values = {
        "Camera.type": '"PinHole"',
        **{f"Camera.{key}": float(camera[key]) for key in ("fx", "fy", "cx", "cy", "fps")},
        "Camera.k1": float(k1), "Camera.k2": float(k2), "Camera.p1": float(p1),
        "Camera.p2": float(p2), "Camera.k3": float(k3),
        "Camera.bf": float(baseline * camera["fx"]),
        "Camera.width": camera["width"], "Camera.height": camera["height"], "Camera.RGB": 1,
        "ThDepth": 40.0,
        "DepthMapFactor": float(camera["depth_factor"]),
        "RGBD.DepthMapFactor": float(camera["depth_factor"]),
        "ORBextractor.nFeatures": _POINTS[layout],
        "ORBextractor.scaleFactor": 1.2, "ORBextractor.nLevels": 8,
        "ORBextractor.iniThFAST": 20, "ORBextractor.minThFAST": 7,
        # The viewer is off, but its settings are read.
        "Viewer.KeyFrameSize": 0.05, "Viewer.KeyFrameLineWidth": 1.0,
        "Viewer.GraphLineWidth": 0.9, "Viewer.PointSize": 2.0, "Viewer.CameraSize": 0.08,
        "Viewer.CameraLineWidth": 3.0, "Viewer.ViewpointX": 0.0, "Viewer.ViewpointY": -0.7,
        "Viewer.ViewpointZ": -1.8, "Viewer.ViewpointF": 500.0,
    }  # fmt: skip
    return "%YAML:1.0\n" + "".join(f"{key}: {value}\n" for key, value in values.items())


def on_keyframes(
    poses: list[tuple[float, int, np.ndarray]], keyframes: Path
) -> tuple[list[float], list[list[float]]]:
    """Put the poses of frames on the final poses of the keyframes before them.

    Frames before the first keyframe, and of a map other than their keyframe's, are left out.

    Args:
        poses: stamp, number of the map, and pose (4, 4) of each tracked frame.
        keyframes: file that ORB-SLAM3 wrote, TUM's format.
    """
    finals = {}
    for line in keyframes.read_text().splitlines():
        stamp, *values = map(float, line.split())
        finals[stamp] = _matrix(values)
    stamps, rows, known = [], [], np.array(sorted(finals))
    base: tuple[int, np.ndarray, np.ndarray] | None = None
    for stamp, part, pose in poses:
        found = np.flatnonzero(np.abs(known - stamp) < _SAME_TIME_S)
        if len(found):
            base = (part, finals[known[found[0]]], pose)
        if base is None or base[0] != part:
            continue
        corrected = base[1] @ np.linalg.inv(base[2]) @ pose
        stamps.append(stamp)
        rows.append([*corrected[:3, 3], *_quaternion(corrected[:3, :3])])
    return stamps, rows


def _matrix(values: list[float]) -> np.ndarray:
    tx, ty, tz, x, y, z, w = values
    pose = np.eye(4)
    pose[:3, 3] = tx, ty, tz
    angle = 2.0 * np.arctan2(np.linalg.norm([x, y, z]), w)
    axis = np.array([x, y, z]) / max(np.linalg.norm([x, y, z]), 1e-12)
    pose[:3, :3] = cv2.Rodrigues(axis * angle)[0]
    return pose


def _quaternion(R: np.ndarray) -> list[float]:
    rotation = cv2.Rodrigues(R)[0].ravel()
    angle = float(np.linalg.norm(rotation))
    axis = rotation / max(angle, 1e-12)
    return [*(axis * np.sin(angle / 2.0)), float(np.cos(angle / 2.0))]


if __name__ == "__main__":
    main()
