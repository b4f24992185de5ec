"""demo-small rewritten in published forms: a run finds what it finds in the world itself."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import WITHOUT_PICTURES, call
from recordings import published_forms as forms

pytestmark = pytest.mark.slow

FRAMES = 45


def error_of(path: str | Path, sensor: str, out: Path) -> float:
    """ATE of a run, in units of the ground truth."""
    options = ("--extractor", "orb", "--config", f"demo_{sensor}", *WITHOUT_PICTURES)
    limits = ("--max-frames", str(FRAMES), "--out", str(out))
    assert call("run", str(path), "--sensor", sensor, *options, *limits) == 0
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["tracked"], metrics["frames"]) == (FRAMES, FRAMES)
    return float(metrics["ate_rmse_m"])


def _kitti(folder: Path, shots: tuple[forms.Shot, ...]) -> Path:
    return forms.kitti_raw(folder, shots)


def _nerfstudio(folder: Path, shots: tuple[forms.Shot, ...]) -> Path:
    return forms.nerfstudio(folder, shots, depth=True)


def _colmap(folder: Path, shots: tuple[forms.Shot, ...]) -> Path:
    return forms.colmap(folder, shots, binary=True)


@pytest.mark.parametrize(
    ("write", "sensor", "scale"),
    [(_kitti, "stereo", 1.0), (_nerfstudio, "rgbd", 1.0), (_colmap, "mono", forms.SCALE)],
)
def test_the_error_is_that_of_the_world_itself(
    tmp_path: Path, write: Callable[..., Path], sensor: str, scale: float
) -> None:
    folder = write(tmp_path / "data", forms.take(range(FRAMES)))
    original = error_of("demo-small", sensor, tmp_path / "original")
    assert error_of(folder, sensor, tmp_path / "out") / scale == pytest.approx(original, rel=0.01)
