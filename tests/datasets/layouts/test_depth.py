from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from spslam.camera import Camera
from spslam.datasets.images.depth_files import DepthUnits
from spslam.datasets.layouts.depth import TableDepthReader
from spslam.datasets.layouts.schema import Depth
from spslam.errors import FrameError
from spslam.notices import shown_notices

CAMERA = Camera(8, 6, 5.0, 6.0, 3.0, 2.5)


def reader(units: float = 1000.0, own: Camera | None = None, **entry: Any) -> TableDepthReader:
    depth = Depth.model_validate({"files": "d/*.png", **entry})
    floats = units if depth.encoding != "numbers" else 1.0
    return TableDepthReader("toy", DepthUnits(units, floats), depth, CAMERA, own)


def png(path: Path, values: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), values)
    return path


def test_no_measurement_and_painted_skies_are_0(tmp_path: Path) -> None:
    values = np.full((6, 8), 1500, np.uint16)
    values[0, :4] = (0, 65535, 7, 60000)
    path = png(tmp_path / "1.png", values)
    metres = reader(no_measurement=[7], farthest_m=50).read(path)
    assert (metres[0, :4] == 0).all() and (metres[1:] == np.float32(1.5)).all()


def test_floats_are_metres_and_their_gaps_are_0(tmp_path: Path) -> None:
    values = np.full((6, 8), 2.5, np.float32)
    values[0, :4] = (np.nan, np.inf, -1.0, 1e4)
    np.save(tmp_path / "1.npy", values)
    metres = reader(farthest_m=1000).read(tmp_path / "1.npy")
    assert metres.dtype == np.float32 and (metres[0, :4] == 0).all() and metres[3, 3] == 2.5


def test_four_channels_are_the_bytes_of_a_float_blue_first(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).uniform(0.5, 90.0, (6, 8)).astype("<f4")
    depth[0, 0] = np.nan
    path = png(tmp_path / "1.png", depth.view(np.uint8).reshape(6, 8, 4))
    metres = reader(1.0, encoding="packed_floats").read(path)
    assert metres[0, 0] == 0
    assert np.array_equal(metres.ravel()[1:], depth.ravel()[1:])
    grey = png(tmp_path / "2.png", np.zeros((6, 8), np.uint16))
    with pytest.raises(FrameError, match=r"expected four channels of 8 bits .* found uint16"):
        reader(1.0, encoding="packed_floats").read(grey)


def test_distances_along_rays_become_depth(tmp_path: Path) -> None:
    x, y = np.meshgrid((np.arange(8) - 3.0) / 5.0, (np.arange(6) - 2.5) / 6.0)
    z = np.random.default_rng(1).uniform(1.0, 4.0, (6, 8))
    path = tmp_path / "1.depth"
    path.write_text(" ".join(f"{value:.7g}" for value in (z * np.sqrt(1 + x**2 + y**2)).ravel()))
    metres = reader(1.0, encoding="text", measured_along="ray").read(path)
    assert metres == pytest.approx(z, rel=1e-5)
    path.write_text("1 2 3")
    with pytest.raises(FrameError, match=r"expected 48 numbers \(8x6\), found 3"):
        reader(1.0, encoding="text").read(path)


def test_another_size_is_resampled_by_the_nearest_and_told(tmp_path: Path) -> None:
    small = np.arange(1000, 1012, dtype=np.uint16).reshape(3, 4)
    path = png(tmp_path / "1.png", small)
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        depths = reader()
        metres = depths.read(path)
        depths.read(path)
    assert np.array_equal(np.rint(metres * 1000), np.kron(small, np.ones((2, 2))))
    assert lines == ["toy: depth of 4x3 pixels is resampled to the 8x6 of the images (nearest)"]
    with pytest.raises(FrameError, match="expected 8x6 pixels or this shape, found 4x4"):
        reader().read(png(tmp_path / "2.png", np.ones((4, 4), np.uint16)))


def test_a_depth_camera_says_where_its_pixels_belong(tmp_path: Path) -> None:
    # Twice the focal length: each pixel of the image lies two pixels apart, around (1, 2).
    own = Camera(6, 5, 10.0, 12.0, 1.0, 2.0)
    values = np.arange(1, 31, dtype=np.uint16).reshape(5, 6)
    metres = reader(own=own).read(png(tmp_path / "1.png", values)) * 1000
    assert metres[2, 3] == pytest.approx(values[1, 1]) and metres[3, 4] == values[3, 3]
    assert metres[0, 0] == 0 and metres[2, 0] == 0  # outside of the depth image
    with pytest.raises(FrameError, match="expected 6x5 pixels, found 4x4"):
        reader(own=own).read(png(tmp_path / "2.png", np.ones((4, 4), np.uint16)))
