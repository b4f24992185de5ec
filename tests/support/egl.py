"""Whether Open3D draws here without a display."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

_CODE = """
import sys
from spslam.errors import MissingDependencyError
from spslam.visualization.open3d_window import Canvas
try:
    Canvas("test", (64, 64), visible=False).close()
except MissingDependencyError as error:
    sys.exit(f"{error}")
"""


@functools.cache
def _why_not() -> str:
    # In a process of its own: a driver that crashes must not take the tests with it.
    done = subprocess.run(
        [sys.executable, "-c", _CODE], capture_output=True, text=True, check=False
    )
    # A crash is no reason to skip anything.
    return done.stderr.strip().splitlines()[-1] if done.returncode == 1 else ""


def need_egl() -> None:
    """Skip the test where there is no Open3D or no EGL."""
    if reason := _why_not():
        pytest.skip(reason)
