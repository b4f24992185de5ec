from pathlib import Path

import numpy as np
import pytest

from spslam.datasets.images.decoding import read_raw_depth
from spslam.datasets.images.depth_files import DepthReader, DepthUnits
from spslam.errors import FrameError

OpenEXR = pytest.importorskip("OpenEXR")
DEPTH = np.linspace(0.5, 9.0, 40 * 30, dtype=np.float32).reshape(30, 40)


def write_exr(path: Path, channels: dict[str, np.ndarray], **header: object) -> Path:
    values = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}
    OpenEXR.File(values, channels).write(str(path))
    return path


@pytest.mark.parametrize(
    "channels",
    [
        {"Z": DEPTH},
        {"Y": DEPTH},
        {"ViewLayer.Depth.Z": DEPTH, "ViewLayer.Combined.R": DEPTH * 0},
        {"R": DEPTH, "G": DEPTH, "B": DEPTH},
    ],
)
def test_the_depth_channel_is_found(tmp_path: Path, channels: dict[str, np.ndarray]) -> None:
    assert np.array_equal(read_raw_depth(write_exr(tmp_path / "a.exr", channels)), DEPTH)


def test_half_precision_and_infinity(tmp_path: Path) -> None:
    depth = DEPTH.astype(np.float16)
    depth[0, :3] = np.inf, np.nan, np.finfo(np.float16).max
    path = write_exr(tmp_path / "a.exr", {"Z": depth})
    metres = DepthReader("a", DepthUnits(1000.0)).read(path)
    assert (metres[0, :3] == 0).all() and np.allclose(metres[1:], DEPTH[1:], rtol=1e-3)


def test_a_data_window_inside_of_the_picture(tmp_path: Path) -> None:
    path = write_exr(
        tmp_path / "a.exr",
        {"Z": DEPTH},
        dataWindow=((5, 2), (44, 31)),
        displayWindow=((0, 0), (59, 39)),
    )
    raw = read_raw_depth(path)
    assert raw.shape == (40, 60)
    assert np.array_equal(raw[2:32, 5:45], DEPTH) and np.count_nonzero(raw) == DEPTH.size


def test_colours_are_refused(tmp_path: Path) -> None:
    path = write_exr(tmp_path / "a.exr", {"R": DEPTH, "G": DEPTH * 2, "B": DEPTH})
    with pytest.raises(
        FrameError, match=r"expected one channel, a channel called Z.*found B, G, R"
    ):
        read_raw_depth(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.exr").write_bytes(b"no picture")
    with pytest.raises(FrameError, match=r"a\.exr: is cut short, damaged or no OpenEXR file"):
        read_raw_depth(tmp_path / "a.exr")
