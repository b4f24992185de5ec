"""Which computer this is, as far as results and times depend on it."""

from __future__ import annotations

import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


def processor() -> dict[str, str]:
    """Architecture, name and, where the system tells them, instruction sets of the processor."""
    found = {"architecture": platform.machine(), "processor": platform.processor()}
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0].splitlines()
    except OSError:
        return found
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    found["processor"] = values.get("model name", found["processor"])
    found["instructions"] = values.get("flags", values.get("Features", ""))
    return found
