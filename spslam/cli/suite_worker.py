"""The process of one run of a suite: `spslam run …`; it ends when its parent process ends."""

from __future__ import annotations

import os
import sys
from threading import Thread


def main() -> None:
    """Run `python -m spslam.cli.suite_worker CORE run …`; CORE: the core to use, `-`: any."""
    core, *arguments = sys.argv[1:]
    if core != "-" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core)})
    Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    from spslam.cli.app import main as spslam

    spslam(arguments)


def _end_with_parent() -> None:
    # Standard input is a pipe without data. It closes when the parent ends, even if it is killed.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
