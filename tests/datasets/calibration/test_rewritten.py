"""demo-small with its calibration rewritten for other programs gives the same trajectory."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import WITHOUT_PICTURES, call
from world_folder import CAMERA, write_world

from spslam.datasets.calibration.calibration import load_calibration
from spslam.datasets.calibration.formats.writers import write_calibration

pytestmark = pytest.mark.slow

FRAMES = {"stereo": 8, "mono": 24}
# The names that are found without an option.
NAMES = {
    "kalibr": "camchain.yaml",
    "opencv": "stereo.yml",
    "orbslam3": "camera.yaml",
    "ros": "left.yaml",
    "colmap": "cameras.txt",
    "nerfstudio": "transforms.json",
}


def trajectory(folder: Path, sensor: str, out: Path) -> bytes:
    options = ("--extractor", "orb", *WITHOUT_PICTURES, "--out", str(out))
    assert call("run", str(folder), "--sensor", sensor, *options) == 0
    return (out / "trajectory.tum").read_bytes()


@pytest.mark.parametrize(
    ("sensor", "formats"),
    [
        ("stereo", ("kalibr", "opencv", "orbslam3", "ros")),
        ("mono", ("colmap", "nerfstudio")),
    ],
)
def test_the_trajectory_does_not_depend_on_the_format(
    tmp_path: Path, sensor: str, formats: tuple[str, ...]
) -> None:
    folder = write_world(tmp_path / "walk", sensor, FRAMES[sensor])
    # Times in the names: not every format holds a rate for counted images.
    for side in ("left", "right")[: 2 if sensor == "stereo" else 1]:
        for index, path in enumerate(sorted((folder / side).iterdir())):
            path.rename(path.with_name(f"{14378659749280 + round(index * 1e9 / CAMERA.fps)}.png"))
    ours = folder / "calibration.yaml"
    expected = trajectory(folder, sensor, tmp_path / "ours")
    calibration = load_calibration(ours)
    ours.unlink()
    for name in formats:
        files = write_calibration(calibration, name, folder / NAMES[name])[0]
        for path, text in files.items():
            path.write_text(text)
        assert trajectory(folder, sensor, tmp_path / name) == expected, name
        for path in files:
            path.unlink()
