"""Read the calibrations of KITTI raw and KITTI-360: lines of a key and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import CalibrationError
from spslam.geometry import inverse, make_transform, orthonormalize
from spslam.io.given_files import read_given
from spslam.lens import lens

from .calibration.checks import is_rigid, report_baseline, report_doubts
from .paths import reason

# Largest difference of the focal lengths (relative) and the principal points (pixels) of a
# rectified pair.
_SAME_FOCAL, _SAME_CENTRE = 1e-3, 0.5


@dataclass(frozen=True, eq=False)
class KittiCamera:
    """A camera of KITTI's calibration.

    Attributes:
        camera: the camera; rectified cameras have no distortion.
        T_cam0_cam: (4, 4) float64, maps its coordinates to those of camera 0, metres: of the
            rectified camera 0 if it is rectified itself.
    """

    camera: Camera
    T_cam0_cam: NDArray[np.float64]


def read_lines(path: Path) -> list[str]:
    """Read the lines `KEY: number number …` of a calibration file of KITTI.

    Raises:
        CalibrationError: the file cannot be read.
    """
    try:
        return read_given(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"expected KITTI's calibration at {path}: cannot be read ({reason(error)})"
        ) from None


class KittiCalibration:
    """A calibration file of KITTI: `KEY: number number …` on each line.

    Args:
        path: the file.

    Raises:
        CalibrationError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        lines = read_lines(path)
        self.path = path
        self._lines = {
            key.strip(): text
            for key, colon, text in (line.partition(":") for line in lines)
            if colon
        }

    def numbers(self, key: str, count: int) -> NDArray[np.float64]:
        """Return the `count` numbers of a line.

        Raises:
            CalibrationError: there is no such line, or it holds something else.
        """
        text = self._lines.get(key)
        try:
            found = np.array([float(word) for word in (text or "").split()])
        except ValueError:
            found = np.zeros(0)
        if found.shape != (count,) or not np.isfinite(found).all():
            shown = "no such line" if text is None else repr(text.strip()[:60])
            raise CalibrationError(
                f"{self.path}: expected {count} numbers after '{key}:', found {shown}"
            )
        return found

    def size(self, key: str) -> tuple[int, int]:
        """Return width and height of a line, pixels."""
        width, height = self.numbers(key, 2)
        return round(float(width)), round(float(height))

    def rigid(self, rotation: str, translation: str | None = None) -> NDArray[np.float64]:
        """Return the transform (4, 4) of a line with a rotation and one with a translation.

        Raises:
            CalibrationError: a line is missing, or its numbers are no rotation.
        """
        t = np.zeros(3) if translation is None else self.numbers(translation, 3)
        return self._checked(make_transform(self.numbers(rotation, 9).reshape(3, 3), t), rotation)

    def pose(self, key: str) -> NDArray[np.float64]:
        """Return the transform (4, 4) of a line with its first three rows.

        Raises:
            CalibrationError: the line is missing, or its numbers are no transform.
        """
        T = np.concatenate([self.numbers(key, 12).reshape(3, 4), [[0.0, 0.0, 0.0, 1.0]]])
        return self._checked(T, key)

    def rectified(self, number: int, fps: float) -> KittiCamera:
        """Return the rectified camera of a number (`P_rect_0N`, `S_rect_0N`)."""
        key = f"P_rect_{number:02d}"
        P = self.numbers(key, 12).reshape(3, 4)
        upper = np.allclose(P[(0, 1, 2, 2, 2), (1, 0, 0, 1, 2)], (0, 0, 0, 0, 1))
        if not upper or P[0, 0] <= 0 or P[1, 1] <= 0:
            raise CalibrationError(f"{self.path}: {key} is no projection of a rectified camera")
        K = P[:, :3]
        size = self.size(f"S_rect_{number:02d}")
        camera = self._camera(size, K, None, (), fps, key)
        # P maps X of camera 0 to K (X + t): t is camera 0's origin in this camera.
        t = np.asarray(np.linalg.solve(K, P[:, 3]), dtype=np.float64)
        return KittiCamera(camera, make_transform(np.eye(3), -t))

    def unrectified(self, number: int, fps: float) -> KittiCamera:
        """Return the camera of a number before rectification (`K_0N`, `D_0N`, `R_0N`, `T_0N`)."""
        suffix = f"_{number:02d}"
        K = self.numbers(f"K{suffix}", 9).reshape(3, 3)
        bent = tuple(self.numbers(f"D{suffix}", 5).tolist())
        camera = self._camera(self.size(f"S{suffix}"), K, "radtan", bent, fps, f"K{suffix}")
        return KittiCamera(camera, inverse(self.rigid(f"R{suffix}", f"T{suffix}")))

    def rectified_pair(self, left: KittiCamera, right: KittiCamera) -> float:
        """Return the baseline of a rectified pair, metres.

        Raises:
            CalibrationError: the two are no rectified pair.
        """
        a, b = left.camera, right.camera
        focal = np.allclose((a.fx, a.fy), (b.fx, b.fy), rtol=_SAME_FOCAL)
        if not focal or max(abs(a.cx - b.cx), abs(a.cy - b.cy)) > _SAME_CENTRE:
            raise CalibrationError(
                f"{self.path}: the left and the right P_rect differ by more than the baseline"
            )
        baseline = float(right.T_cam0_cam[0, 3] - left.T_cam0_cam[0, 3])
        report_baseline(baseline, f"{self.path}, P_rect")
        return baseline

    def _checked(self, T: NDArray[np.float64], key: str) -> NDArray[np.float64]:
        if not is_rigid(T):
            raise CalibrationError(f"{self.path}: {key} is no rotation matrix")
        return orthonormalize(T)

    def _camera(
        self,
        size: tuple[int, int],
        K: NDArray[np.float64],
        kind: str | None,
        bent: tuple[float, ...],
        fps: float,
        key: str,
    ) -> Camera:
        try:
            model, coefficients = lens(kind, bent)
            fx, fy, cx, cy = (float(value) for value in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
            camera = Camera(*size, fx, fy, cx, cy, model, coefficients, fps=fps)
        except CalibrationError as error:
            raise CalibrationError(f"{self.path}, {key}: {error}") from None
        report_doubts(camera, f"{self.path}, {key}")
        return camera
