"""`spslam`, `python -m spslam`, and under torchrun `-m spslam`."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """The `spslam` command as a process of its own; ends it with its exit code."""
    # Before anything is imported, which takes a while during which nobody should see where ^C met it.
    signal.signal(signal.SIGINT, _end)
    from spslam.process.signals import leave_process, own_process

    own_process()
    from spslam.cli.app import main as command

    try:
        command(arguments)
    except SystemExit as leaving:
        leave_process(leaving.code)
        raise


def _end(number: int, frame: object) -> None:
    os.write(2, b"stopped by ^C\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
