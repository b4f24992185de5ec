"""Read models of COLMAP, text or binary: cameras, images and their poses.

Format: https://colmap.github.io/format.html (Schönberger & Frahm, CVPR 2016). Poses map the world
to the camera.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError, DatasetError
from spslam.geometry import inverse
from spslam.interfaces import SequenceRequest
from spslam.io.given_files import read_given
from spslam.notices import counted, notice

from ..base import FileSequence
from ..calibration.calibration import CALIBRATION_NAME
from ..images.decoding import list_files
from ..paths import contents, reason, subfolders
from .cameras import MODELS_BY_ID, colmap_camera
from .posed_images import FPS, PosedImage, Reconstruction, open_reconstruction
from .poses import pose_of_quaternion

_LOG = logging.getLogger(__name__)
# Folders that hold models in a project of COLMAP, nerfstudio and others, and folders of images.
_MODEL_FOLDERS = (".", "sparse", "colmap/sparse", "colmap", "dense/sparse", "dense", "model")
_IMAGE_FOLDERS = ("images", "../images", "../../images", "../../../images", "..", "../..")
_SUFFIXES = (".bin", ".txt")
# Bytes of a point of an image in images.bin: x, y, id.
_POINT_BYTES = 24
_LARGEST_COUNT = 10**8


@dataclass(frozen=True, eq=False)
class ColmapImage:
    """An image of a model.

    Attributes:
        name: its path in the folder of images.
        camera: id of its camera.
        T_world_cam: (4, 4), camera to world; NaN if its quaternion has no direction.
    """

    name: str
    camera: int
    T_world_cam: NDArray[np.float64]


def is_colmap(path: Path) -> bool:
    """Return whether a folder is a model of COLMAP or its project, without our calibration."""
    return bool(_models(path)) and not (path / CALIBRATION_NAME).is_file()


def open_colmap(path: Path, request: SequenceRequest) -> FileSequence:
    """Open the images of a model of COLMAP.

    Poses of the model become the ground truth, in the scale of the model. Images of the same folder
    that are not in a model of a single camera are read, too. Binary files win over text files.

    Args:
        path: the folder of a model (`cameras`, `images`), or a project with `images/` and
            `sparse/0`. Of several models, the one that `request.sequence` names is read, else
            the one with the most images.
        request: the user's choices.

    Raises:
        DatasetError: files are missing or hold something else than expected.
    """
    models = _models(path)
    if not models:
        raise DatasetError(
            f"expected a model of COLMAP in {path} (cameras and images, .bin or .txt, also in "
            f"sparse/0), found {contents(path)}"
        )
    folder, wanted = _choose_model(path, models, request.sequence)
    suffix = next(suffix for suffix in _SUFFIXES if _is_model(folder, suffix))
    if suffix == ".bin" and _is_model(folder, ".txt"):
        text = "%s: the binary files of the model are read, not the text files beside them"
        notice(_LOG, "model_files", text, folder)
    file = folder / f"images{suffix}"
    cameras = read_cameras(folder / f"cameras{suffix}")
    listed = read_images(file)
    if not listed:
        raise DatasetError(f"{file} lists no images")
    unknown = sorted({image.camera for image in listed} - cameras.keys())
    if unknown:
        raise CalibrationError(f"{folder}/cameras{suffix} lacks camera {unknown[0]}")
    root = _image_folder(folder, path, listed)
    used = {image.camera for image in listed}
    # Photographs often have a camera each: then the cameras are no streams.
    alone = len(used) == len(listed)
    images = [
        PosedImage(
            root / image.name,
            cameras[image.camera],
            "" if alone or len(used) == 1 else f"camera {image.camera}",
            image.T_world_cam,
        )
        for image in listed
    ]
    if len(used) == 1:
        images += _others(images, file)
    name = f"colmap {path.name}"
    found = Reconstruction("colmap", name, path, file, images, "units of COLMAP's model")
    return open_reconstruction(found, replace(request, sequence=wanted))


def read_cameras(path: Path) -> dict[int, Camera]:
    """Read `cameras.txt` or `cameras.bin`: cameras by id.

    Raises:
        CalibrationError: the file cannot be read or holds something else.
    """
    read = _cameras_binary if path.suffix == ".bin" else _cameras_text
    try:
        return read(_bytes(path))
    except DatasetError as error:
        raise CalibrationError(str(error)) from None
    except (CalibrationError, ValueError, struct.error, OverflowError) as error:
        raise CalibrationError(f"{path} holds no cameras of COLMAP: {error}") from None


def read_images(path: Path) -> list[ColmapImage]:
    """Read `images.txt` or `images.bin`.

    Raises:
        DatasetError: the file cannot be read or holds something else.
    """
    read = _images_binary if path.suffix == ".bin" else _images_text
    try:
        return read(_bytes(path))
    except (ValueError, struct.error, OverflowError) as error:
        raise DatasetError(f"{path} holds no images of COLMAP: {error}") from None


def _is_model(folder: Path, suffix: str) -> bool:
    return all((folder / f"{name}{suffix}").is_file() for name in ("cameras", "images"))


def _models(path: Path) -> dict[str, Path]:
    """Return the folders of models in a project, by their paths in it."""
    found: dict[str, Path] = {}
    for name in _MODEL_FOLDERS:
        for folder in (path / name, *(subfolders(path / name) if name != "." else ())):
            if any(_is_model(folder, suffix) for suffix in _SUFFIXES):
                found[folder.relative_to(path).as_posix()] = folder
    return found


def _choose_model(
    path: Path, models: dict[str, Path], wanted: str | None
) -> tuple[Path, str | None]:
    """Return the folder of the model, and the part of the request that is not its name."""
    if len(models) == 1:
        return next(iter(models.values())), wanted
    if wanted is not None:
        fitting = [n for n in models if n == wanted or n.split("/")[-1] == wanted]
        if len(fitting) == 1:
            return models[fitting[0]], None
    counts = {name: _count(folder) for name, folder in models.items()}
    most = max(counts, key=counts.__getitem__)
    listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
    text = "%s: of %d models, %s is read, which has the most images (%s); --sequence chooses"
    notice(_LOG, "model_choice", text, path, len(models), most, listed)
    return models[most], wanted


def _count(folder: Path) -> int:
    suffix = next(suffix for suffix in _SUFFIXES if _is_model(folder, suffix))
    try:
        return len(read_images(folder / f"images{suffix}"))
    except DatasetError:
        return 0


def _image_folder(folder: Path, path: Path, listed: list[ColmapImage]) -> Path:
    """Return the folder that the names of images are relative to: where most of them are."""
    places = [path / "images", *(folder / name for name in _IMAGE_FOLDERS)]
    sample = listed[:: max(1, len(listed) // 20)]
    counts = [sum((place / image.name).is_file() for image in sample) for place in places]
    best = int(np.argmax(counts))
    return places[best].resolve() if counts[best] else places[0]


def _others(images: list[PosedImage], file: Path) -> list[PosedImage]:
    """Return the images in the folders of a model's images that are not in the model."""
    known = {image.path for image in images}
    folders = dict.fromkeys(image.path.parent for image in images)
    others = [path for folder in folders for path in list_files(folder) if path not in known]
    if others:
        text = "%s: %s not in the model, and read without ground truth"
        what = counted(len(others), "image of its folder is", "images of its folder are")
        notice(_LOG, "sparse_truth", text, file, what, count=len(others))
    return [PosedImage(path, None, images[0].group) for path in others]


def _bytes(path: Path) -> bytes:
    try:
        return read_given(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {reason(error)}") from None


def _cameras_text(data: bytes) -> dict[int, Camera]:
    cameras = {}
    for line in data.decode("utf-8-sig").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 5:
            raise ValueError(f"expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS, found {line[:60]!r}")
        size = float(words[2]), float(words[3])
        params = tuple(float(word) for word in words[4:])
        cameras[int(words[0])] = colmap_camera(words[1], size, params, FPS)
    return cameras


def _images_text(data: bytes) -> list[ColmapImage]:
    # Two lines an image: the second one, of its points, may be empty.
    lines = [line.rstrip() for line in data.decode("utf-8-sig").splitlines()]
    lines = [line for line in lines if not line.lstrip().startswith("#")]
    while lines and not lines[0]:
        lines.pop(0)
    images = []
    for line in lines[::2]:
        if not line:
            continue
        words = line.split(maxsplit=9)
        if len(words) < 10:
            raise ValueError(
                "expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME in every second line, "
                f"found {line[:60]!r}"
            )
        int(words[0])
        numbers = np.array([float(word) for word in words[1:8]])
        images.append(_image(words[9], int(words[8]), numbers))
    return images


def _cameras_binary(data: bytes) -> dict[int, Camera]:
    (count,) = struct.unpack_from("<Q", data, 0)
    at, cameras = 8, {}
    for _ in range(_checked(count)):
        number, kind, width, height = struct.unpack_from("<IiQQ", data, at)
        if kind not in MODELS_BY_ID:
            raise ValueError(f"camera {number} has the model {kind}, which is not supported")
        model = MODELS_BY_ID[kind]
        params = struct.unpack_from(f"<{model.count}d", data, at + 24)
        cameras[number] = colmap_camera(model.name, (width, height), params, FPS)
        at += 24 + 8 * model.count
    return cameras


def _images_binary(data: bytes) -> list[ColmapImage]:
    (count,) = struct.unpack_from("<Q", data, 0)
    at, images = 8, []
    for _ in range(_checked(count)):
        _, *numbers, camera = struct.unpack_from("<I7dI", data, at)
        end = data.index(b"\0", at + 64)
        name = data[at + 64 : end].decode("utf-8")
        (points,) = struct.unpack_from("<Q", data, end + 1)
        at = end + 9 + _POINT_BYTES * _checked(points)
        if at > len(data):
            raise ValueError("the file is cut short")
        images.append(_image(name, camera, np.array(numbers)))
    return images


def _checked(count: int) -> int:
    if count > _LARGEST_COUNT:
        raise ValueError(f"it would hold {count} entries")
    return count


def _image(name: str, camera: int, numbers: NDArray[np.float64]) -> ColmapImage:
    T_cam_world = pose_of_quaternion(numbers[:4], numbers[4:])
    return ColmapImage(name.replace("\\", "/"), camera, inverse(T_cam_world))
