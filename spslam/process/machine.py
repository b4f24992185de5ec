"""The computer and its C library, as far as results, times and memory depend on them."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from pathlib import Path

# Linux: processor, and state of this process.
_CPU_INFO = Path("/proc/cpuinfo")
_OWN_STATUS = Path("/proc/self/stat")
# Index of the start time, clock ticks since boot, among the fields after the process name.
_BEGIN_FIELD = 19
# Time of the import of this module, seconds of `time.perf_counter`.
_IMPORTED = time.perf_counter()
# `mallopt` parameter of glibc: largest number of arenas (malloc.h).
_M_ARENA_MAX = -8
# The user's own settings of the allocator.
_USER_SETTINGS = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")


def processor() -> dict[str, str]:
    """Return architecture, name and, on Linux, instruction sets of the processor."""
    found = {"architecture": platform.machine(), "processor": platform.processor()}
    try:
        lines = (
            _CPU_INFO.read_text(encoding="utf-8", errors="replace")
            .partition("\n\n")[0]
            .splitlines()
        )
    except OSError:
        return found
    values = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    found["processor"] = values.get("model name", found["processor"])
    found["instructions"] = values.get("flags", values.get("Features", ""))
    return found


def process_age_s(own_status: Path = _OWN_STATUS) -> float:
    """Return the seconds since this process started, to 0.01 s.

    On systems other than Linux, it is the time since the import of this module, without the start
    of the interpreter.

    Args:
        own_status: the state of this process, as Linux writes it.
    """
    try:
        fields = own_status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        begin = int(fields[_BEGIN_FIELD]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - begin
    except (OSError, ValueError, IndexError, AttributeError):
        return time.perf_counter() - _IMPORTED


def use_one_arena() -> None:
    """Let all threads allocate from one arena; call it before the first thread starts.

    By default glibc gives each thread an arena, and memory that one thread frees is not used by
    others. Threads rarely allocate at the same time, so one arena costs no time
    (docs/decisions/0011-speed.md). Nothing happens with other C libraries, or if the user has set
    up the allocator.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _USER_SETTINGS):
        return
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    except (OSError, AttributeError):
        # For example musl, which has no arenas.
        return
