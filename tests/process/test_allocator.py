"""One arena of the C library's allocator for all threads."""

import subprocess
import sys

import pytest

# Threads that allocate at the same time; prints the number of arenas.
_ALLOCATE = """
import ctypes, os, threading
if {shared}:
    from spslam.process.allocator import use_one_arena
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
