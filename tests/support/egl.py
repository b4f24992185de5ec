"""Whether Open3D can draw without a display on this machine."""

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
    # In a process of its own: a driver that crashes must not end the tests.
    done = subprocess.run(
        [sys.executable, "-c", _CODE], capture_output=True, text=True, check=False
    )
    # A crash is no reason to skip a test.
    return done.stderr.strip().splitlines()[-1] if done.returncode == 1 else ""


def need_egl() -> None:
    """Skip the test without Open3D or EGL."""
    if reason := _why_not():
        pytest.skip(reason)
