"""Which computer this is, as far as results and times depend on it."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_OWN_STATUS = Path("/proc/self/stat")
# The field that says when a process began, counted from the one after its name.
_BEGIN_FIELD = 19
_IMPORTED = time.perf_counter()


def processor() -> dict[str, str]:
    """Architecture, name and, where the system tells them, instruction sets of the processor."""
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


def process_age_s() -> float:
    """Seconds since this process began, to 0.01 s; where the system does not tell (Linux does), since this module was
    imported, which is what the start of the interpreter and of the command line before it takes less.
    """
    try:
        fields = (
            _OWN_STATUS.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        begin = int(fields[_BEGIN_FIELD]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - begin
    except (OSError, ValueError, IndexError, AttributeError):
        return time.perf_counter() - _IMPORTED
