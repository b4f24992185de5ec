"""`spslam`, `python -m spslam`, and under torchrun `-m spslam`."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the `spslam` command as its own process and end it with the command's exit code."""
    # Before the slow imports: ^C during them must not print a traceback.
    signal.signal(signal.SIGINT, _end)
    from spslam.process.machine import use_one_arena
    from spslam.process.signals import leave_process, own_process

    use_one_arena()
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
