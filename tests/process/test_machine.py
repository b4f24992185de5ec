"""Information about the machine and the process."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from spslam.process.machine import process_age_s

# Threads that allocate at the same time; prints the number of arenas.
_ALLOCATE = """
import ctypes, os, threading
if {shared}:
    from spslam.process.machine import use_one_arena
    use_one_arena()
libc = ctypes.CDLL(None, use_errno=True)
libc.malloc.restype = ctypes.c_void_p
barrier = threading.Barrier(4)
def work():
    barrier.wait()
    libc.malloc(20_000)
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.malloc_stats()
"""
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not report it")
def test_the_age_of_a_process_includes_the_time_before_the_import() -> None:
    code = (
        "import time; time.sleep(0.5); from spslam.process.machine import process_age_s; "
        "print(process_age_s())"
    )
    reported = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert 0.5 <= float(reported) < 60


def test_the_age_is_unknown_if_the_system_does_not_report_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, clock = process_age_s(tmp_path / "stat"), time.perf_counter() + 7.0
    monkeypatch.setattr(time, "perf_counter", lambda: clock)
    for text in (None, "", "7 (a) b) R 1", "7 (python) R" + " x" * 40):
        if text is not None:
            (tmp_path / "stat").write_text(text)
        assert process_age_s(tmp_path / "stat") == pytest.approx(begun + 7.0, abs=0.5)


def arenas(shared: bool, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _ALLOCATE.format(shared=shared)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), **environment},
    )
    return done.stderr.count("Arena ")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="arenas are glibc's")
def test_threads_use_one_arena_unless_the_user_says_otherwise() -> None:
    separate = arenas(shared=False)
    if separate == 0:
        pytest.skip("this C library is not glibc")
    assert separate > 1
    assert arenas(shared=True) == 1
    assert arenas(shared=True, MALLOC_ARENA_MAX="3") > 1
