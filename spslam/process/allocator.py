"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes
import os
import sys

# `mallopt` parameter of glibc: largest number of arenas (malloc.h).
_M_ARENA_MAX = -8
# The user's own settings of the allocator.
_USER_SETTINGS = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")


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
