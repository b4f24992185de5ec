"""The number of files that a reader opens to follow a run up to its first pose."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# This number only decreases.
MOST = 82


@pytest.mark.slow
def test_a_run_enters_no_more_files_than_before() -> None:
    command = [sys.executable, str(ROOT / "tools/count_entered.py"), "--most", str(MOST)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert {"run_slam.py", "spslam/pipeline.py", "spslam/slam/system.py", "backend/pose.py"} <= set(
        lines
    )
    assert done.returncode == 0, lines[-1]
