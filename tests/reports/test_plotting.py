"""Pictures do not depend on the matplotlib settings of the user's machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DRAW = """
import sys
from pathlib import Path
import numpy as np
from spslam.reports.plots import plot_trajectory
from spslam.trajectory import Trajectory
poses = np.tile(np.eye(4), (20, 1, 1))
t = np.arange(20)
poses[:, :3, 3] = np.stack([np.cos(t / 3), t / 9, np.sin(t / 3)], axis=1)
path = Trajectory(np.arange(20) / 10, poses)
plot_trajectory(Path(sys.argv[1]), path, path, title="odd \\udcff $x_ name")
"""


def draw(path: Path, **environment: str) -> bytes:
    """The picture drawn by a fresh process."""
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", DRAW, str(path)],
        check=True,
        env=os.environ | {"PYTHONPATH": search} | environment,
    )
    return path.read_bytes()


@pytest.mark.parametrize("trouble", ["style", "backend"])
def test_the_same_picture_under_any_settings(tmp_path: Path, trouble: str) -> None:
    plain = draw(tmp_path / "plain.png")
    if trouble == "style":
        style = (
            "text.usetex: True\nfont.size: 40\nfigure.dpi: 10\n"
            "savefig.dpi: 33\naxes.grid: True\nbackend: foo\n"
        )
        (tmp_path / "matplotlibrc").write_text(style, encoding="utf-8")
        found = draw(tmp_path / "styled.png", MPLCONFIGDIR=str(tmp_path))
    else:
        found = draw(tmp_path / "other.png", MPLBACKEND="no such backend")
    assert found == plain
