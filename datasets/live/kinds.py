"""Tell the address of a live camera from a path."""

from __future__ import annotations

import os
from pathlib import Path

# Beginnings of the addresses.
LIVE_KINDS = ("camera", "realsense", "oak")


def is_live(path: str | Path) -> bool:
    """Return whether a path is the address of a live camera; `./camera:0` is a path."""
    kind, colon, _ = os.fspath(path).partition(":")
    return bool(colon) and kind in LIVE_KINDS
