"""Measuring a command and its children."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from spslam.benchmark.peers.process import Usage, run_measured

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
# A child that holds 60 MB, and works for half a processor second.
CHILD = (
    "import time, sys\n"
    "block = bytearray(60_000_000)\n"
    "for i in range(0, len(block), 1000): block[i] = 1\n"
    "while time.process_time() < 0.5: pass\n"
    "time.sleep(0.3)\n"
)


@LINUX
def test_memory_and_processor_time_of_children_count(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}], check=True)"
    # Memory of this process must not count as that of the command.
    own = bytearray(150_000_000)
    usage = run_measured([sys.executable, "-c", code], dict(os.environ), tmp_path, 60.0)
    del own
    assert usage.code == 0
    assert usage.cpu_s is not None
    assert 0.5 <= usage.cpu_s < 3.0
    assert usage.peak_mb is not None
    assert 60 < usage.peak_mb < 140
    between = usage.cpu_between(0.0, usage.seconds)
    assert between == pytest.approx(usage.cpu_s, abs=0.15)


def test_processor_time_between_two_times() -> None:
    usage = Usage(0, False, 0.0, 4.0, 3.0, None, ((1.0, 0.0), (2.0, 2.0)))
    assert usage.cpu_between(1.5, 3.0) == pytest.approx(1.5)
    assert Usage(0, False, 0.0, 4.0, None, None).cpu_between(0.0, 1.0) is None
