"""The process that one run of a suite has for itself: `spslam run …`, which ends when who started it is gone."""

from __future__ import annotations

import os
import sys
from threading import Thread


def main() -> None:
    """`python -m spslam.cli.suite_worker CORE run …`: CORE is the one it may use, or `-`: any."""
    core, *arguments = sys.argv[1:]
    if core != "-" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    from spslam.cli.app import main as spslam

    spslam(arguments)


def _end_with_parent() -> None:
    # A pipe that nobody writes to: it ends when the last process that holds its other end does, however that ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
