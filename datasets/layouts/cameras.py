"""The cameras of a sequence, as a table or a file of the sequence gives them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.geometry import inverse, orthonormalize
from spslam.io.structured_text import shown
from spslam.lens import lens
from spslam.notices import counted

from ..calibration.checks import is_rigid
from ..calibration.yaml_text import parse_yaml, read_text
from .files import first_of
from .schema import CAMERA_NUMBERS, CameraSource, RigidSource

_COMMENT = re.compile(r"(#|%|//).*")
# Largest deviation of R R^T from the identity that counts as rounding: published matrices have as
# few as three digits.
_ROUNDED = 0.02


@dataclass(frozen=True, eq=False)
class FoundCamera:
    """A camera, and where it comes from.

    Attributes:
        camera: the camera, of the size that the source gives, else of the images.
        origin: its origin in words.
        assumed: whether it is the table's, not the sequence's.
        depth_scale: units of depth per metre, if the file of the sequence gives them.
        has_size: whether the source gives the size.
    """

    camera: Camera
    origin: str
    assumed: bool
    depth_scale: float | None = None
    has_size: bool = True


def find_camera(
    folder: Path, source: CameraSource, name: str, size: tuple[int, int], fps: float
) -> FoundCamera:
    """Find the camera of a sequence: of its file, else of the table.

    Args:
        folder: the sequence.
        source: the entry of the table.
        name: name of the table, for messages.
        size: width and height of the images, pixels, where neither file nor table gives it.
        fps: nominal rate, 1/s, where the file does not give it.

    Raises:
        CalibrationError: a file is missing and the table has no numbers, or it holds something
            else.
    """
    path = first_of(folder, source.file)
    values: dict[str, Any] = {
        key: getattr(source, key) for key in ("width", "height", "fx", "fy", "cx", "cy")
    }
    if path is not None:
        found = _numbers_of(path, source) if source.numbers else _values_of(path, source.keys)
        values |= found
    missing = [key for key in ("fx", "fy", "cx", "cy") if values.get(key) is None]
    if missing:
        raise CalibrationError(
            f"expected the calibration of {name} at {folder / source.file[0]}: no such file; "
            "or give --calibration FILE"
        )
    try:
        return _found(values, source, path, name, size, fps)
    except CalibrationError as error:
        raise CalibrationError(f"{path or f'layout {name}'}: {error}") from None


def _found(
    values: dict[str, Any],
    source: CameraSource,
    path: Path | None,
    name: str,
    size: tuple[int, int],
    fps: float,
) -> FoundCamera:
    coefficients = values.get("distortion", source.distortion)
    model, distortion = lens(source.distortion_model, tuple(coefficients))
    has_size = values["width"] is not None and values["height"] is not None
    width, height = (values["width"], values["height"]) if has_size else size
    if width != int(width) or height != int(height):
        raise CalibrationError(f"expected whole pixels, found a size of {width:g}x{height:g}")
    camera = Camera(
        int(width),
        int(height),
        values["fx"],
        values["fy"],
        values["cx"],
        values["cy"],
        model,
        distortion,
        fps=values.get("fps") or fps,
        readout_s=source.readout_s,
    )
    return FoundCamera(
        camera,
        f"the camera of layout {name}" if path is None else f"calibration {path}",
        path is None,
        values.get("depth_scale"),
        has_size,
    )


def describe_camera(camera: Camera) -> str:
    """Return the intrinsics in a few words."""
    text = (
        f"{camera.width}x{camera.height} fx {camera.fx:.6g} fy {camera.fy:.6g} "
        f"cx {camera.cx:.6g} cy {camera.cy:.6g}"
    )
    return f"{text} {camera.distortion_model}" if camera.distortion else text


def read_rigid(folder: Path, source: RigidSource) -> NDArray[np.float64]:
    """Read a rotation and translation (4, 4) float64 of a table or a file of the sequence.

    Raises:
        CalibrationError: the file is missing or holds something else.
    """
    if source.rows is not None:
        T = np.array(source.rows)
    else:
        assert source.file is not None
        path = folder / source.file
        if not path.is_file():
            raise CalibrationError(f"expected a rotation and a translation at {path}: no such file")
        T = _named_frames(path, source) if source.from_frame is not None else _matrix(path)
    T = orthonormalize(T)
    return inverse(T) if source.inverse else T


def _matrix(path: Path) -> NDArray[np.float64]:
    numbers = _read_numbers(path)
    if len(numbers) not in (12, 16):
        raise CalibrationError(f"{path}: expected 12 or 16 numbers, found {len(numbers)}")
    T = np.eye(4)
    T[:3] = np.reshape(numbers[:12], (3, 4))
    return _checked(T, path)


def _checked(T: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    R = T[:3, :3]
    if not (np.abs(R @ R.T - np.eye(3)).max() < _ROUNDED and is_rigid(orthonormalize(T))):
        raise CalibrationError(f"{path}: expected a rotation and a translation in metres")
    return T


def _named_frames(path: Path, source: RigidSource) -> NDArray[np.float64]:
    """Read the transform between two frames of a tree of frames.

    The file is a list of `parent_frame`, `child_frame` and `matrix`, which maps coordinates of the
    child to those of the parent.
    """
    values = parse_yaml(read_text(path))
    lists = values.values() if isinstance(values, dict) else [values]
    entries = next((each for each in lists if isinstance(each, list)), [])
    parents: dict[str, tuple[str, NDArray[np.float64]]] = {}
    for entry in entries:
        try:
            matrix = entry["matrix"]
            numbers = matrix["data"] if isinstance(matrix, dict) else matrix
            T = np.array(numbers, dtype=np.float64).reshape(4, 4)
            parents[str(entry["child_frame"])] = (str(entry["parent_frame"]), _checked(T, path))
        except (KeyError, TypeError, ValueError):
            raise CalibrationError(
                f"{path}: expected parent_frame, child_frame and matrix, found {shown(entry)}"
            ) from None
    assert source.from_frame is not None and source.to_frame is not None
    to_roots = [_to_root(frame, parents) for frame in (source.from_frame, source.to_frame)]
    (T_from, root_from), (T_to, root_to) = to_roots
    if root_from != root_to:
        raise CalibrationError(
            f"{path}: expected a way from {source.from_frame} to {source.to_frame}, "
            f"found the frames {', '.join(sorted(parents))[:200]}"
        )
    return inverse(T_to) @ T_from


def _to_root(
    frame: str, parents: dict[str, tuple[str, NDArray[np.float64]]]
) -> tuple[NDArray[np.float64], str]:
    """Return `T_root_frame` (4, 4) and the root above a frame."""
    T, seen = np.eye(4), {frame}
    while frame in parents:
        frame, T_parent = parents[frame]
        if frame in seen:  # a circle has no root
            return T, ""
        seen.add(frame)
        T = T_parent @ T
    return T, frame


def _read_numbers(path: Path) -> list[float]:
    text = "\n".join(_COMMENT.sub("", line) for line in read_text(path).splitlines())
    try:
        numbers = [float(cell) for cell in re.split(r"[\s,;]+", text) if cell]
    except ValueError:
        numbers = []
    if not numbers or not np.isfinite(numbers).all():
        raise CalibrationError(f"{path}: expected numbers, found {shown(text.strip())}")
    return numbers


def _numbers_of(path: Path, source: CameraSource) -> dict[str, float]:
    numbers = _read_numbers(path)
    if len(numbers) < len(source.numbers):
        raise CalibrationError(
            f"{path}: expected {counted(len(source.numbers), 'number')} "
            f"({' '.join(source.numbers)}), found {len(numbers)}"
        )
    pairs = zip(source.numbers, numbers, strict=False)
    return {name: number for name, number in pairs if name != "skip"}


def _values_of(path: Path, keys: dict[str, str]) -> dict[str, Any]:
    try:
        whole = parse_yaml(read_text(path))
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from None
    found: dict[str, Any] = {}
    for name, key in keys.items():
        value = _at(whole, key)
        if name in CAMERA_NUMBERS:
            found[name] = _as_number(value, key, path)
        else:
            values = value if isinstance(value, list) else [value]
            found[name] = [_as_number(each, key, path) for each in values]
    return found


def _at(value: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def _as_number(value: Any, key: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
        raise CalibrationError(f"{path}: expected a number at {key}, found {shown(value)}")
    return float(value)
