"""Archives in the layouts of KITTI, TUM RGB-D and EuRoC, with a few tiny images."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping

import cv2
import numpy as np

Files = Mapping[str, bytes | str]

_IDENTITY = "1 0 0 0 0 1 0 0 0 0 1 0\n"
_STAMPS = (1403636579763555584, 1403636579813555456)


def zip_of(files: Files) -> bytes:
    """A zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return buffer.getvalue()


def tgz_of(files: Files, *others: tarfile.TarInfo) -> bytes:
    """A tar file compressed by gzip; `others` are members without data."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            content = data.encode() if isinstance(data, str) else data
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        for member in others:
            file.addfile(member)
    return buffer.getvalue()


def kitti_archives() -> dict[str, bytes]:
    """The three archives of KITTI odometry with the sequences 00 and 01."""
    grey: dict[str, bytes | str] = {"dataset/": "", "dataset/sequences/": ""}
    calibrations, poses = {}, {}
    for key in ("00", "01"):
        folder = f"dataset/sequences/{key}"
        for camera in (0, 1):
            for i in range(3):
                grey[f"{folder}/image_{camera}/{i:06d}.png"] = _png(10 * camera + i)
        projections = "".join(
            f"P{k}: 30 0 19.5 {-15.0 * k} 0 30 14.5 0 0 0 1 0\n" for k in range(2)
        )
        calibrations[f"{folder}/calib.txt"] = projections
        grey[f"{folder}/times.txt"] = calibrations[f"{folder}/times.txt"] = "0.0\n0.1\n0.2\n"
        poses[f"dataset/poses/{key}.txt"] = 3 * _IDENTITY
    return {
        "data_odometry_gray.zip": zip_of(grey),
        "data_odometry_calib.zip": zip_of(calibrations),
        "data_odometry_poses.zip": zip_of(poses),
    }


def tum_files(sequence: str) -> dict[str, bytes | str]:
    """The files of a TUM RGB-D sequence, for example freiburg1_xyz."""
    folder = f"rgbd_dataset_{sequence}"
    stamps = ("1.000000", "1.033333")
    files: dict[str, bytes | str] = {}
    for i, stamp in enumerate(stamps):
        files[f"{folder}/rgb/{stamp}.png"] = _png(i, 640, 480, channels=3)
        files[f"{folder}/depth/{stamp}.png"] = _png_of(np.full((480, 640), 5000, dtype=np.uint16))
    for kind in ("rgb", "depth"):
        files[f"{folder}/{kind}.txt"] = "".join(f"{stamp} {kind}/{stamp}.png\n" for stamp in stamps)
    files[f"{folder}/groundtruth.txt"] = "".join(f"{stamp} 0 0 0 0 0 0 1\n" for stamp in stamps)
    return files


def tum_archive(sequence: str) -> bytes:
    """The archive of a TUM RGB-D sequence."""
    return tgz_of(tum_files(sequence))


def euroc_archive(room: str, *sequences: str) -> bytes:
    """The archive of a room of EuRoC: an archive and a ROS bag of each sequence."""
    files: dict[str, bytes | str] = {}
    for name in sequences:
        files[f"{room}/{name}/{name}.bag"] = b"a recording for ROS"
        files[f"{room}/{name}/{name}.zip"] = zip_of({"__MACOSX/._mav0": "", **_euroc_files()})
    return zip_of(files)


def _euroc_files() -> dict[str, bytes | str]:
    files: dict[str, bytes | str] = {"mav0/": ""}
    for camera, x in ((0, 0.0), (1, 0.1)):
        folder = f"mav0/cam{camera}"
        files[f"{folder}/sensor.yaml"] = (
            "T_BS:\n  cols: 4\n  rows: 4\n"
            f"  data: [1, 0, 0, {x}, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]\n"
            "rate_hz: 20\nresolution: [80, 60]\nintrinsics: [60, 60, 40, 30]\n"
            "distortion_model: radial-tangential\ndistortion_coefficients: [0, 0, 0, 0]\n"
        )
        files[f"{folder}/data.csv"] = "#timestamp [ns],filename\n" + "".join(
            f"{s},{s}.png\n" for s in _STAMPS
        )
        for i, stamp in enumerate(_STAMPS):
            files[f"{folder}/data/{stamp}.png"] = _png(10 * camera + i, 80, 60)
    return files


def _png(seed: int, width: int = 40, height: int = 30, channels: int = 1) -> bytes:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return _png_of(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def _png_of(image: np.ndarray) -> bytes:
    written, data = cv2.imencode(".png", image)
    assert written
    return data.tobytes()
