"""Count spslam's files whose functions are called between `run_slam.py` and the first pose.

    python tools/count_entered.py [--most 45] [-- demo-small --sensor stereo ...]

A reader who follows one run has to open these files. Calls during the import of a module do not
count. Exit code 1: more files than `--most`.
"""

from __future__ import annotations

import argparse
import inspect
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# The count ends when this function first returns a pose.
FIRST_POSE = "Slam.track"
# Folders beside spslam/ that are its sub-packages when installed.
LINKED_PACKAGES = ("frontend", "backend", "datasets", "configs")


class Entered:
    """Collect the files entered from `start` until `Slam.track` returns a pose.

    Attributes:
        files: path below the root -> names of the functions that were called.
    """

    def __init__(self) -> None:
        self.files: dict[str, set[str]] = {}
        self.done = False
        self._known: dict[CodeType, str | None] = {}

    def start(self) -> None:
        """Profile this thread and all that start later."""
        threading.setprofile(self._see)
        sys.setprofile(self._see)

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.done:
            sys.setprofile(None)
        elif event == "call":
            self._enter(frame)
        elif event == "return" and frame.f_code.co_qualname == FIRST_POSE:
            self.done = argument is not None and argument.T_world_cam is not None

    def _enter(self, frame: FrameType) -> None:
        code = frame.f_code
        if code not in self._known:
            self._known[code] = _file_of_ours(code)
        file = self._known[code]
        if (
            file is not None
            and code.co_qualname not in self.files.get(file, ())
            and not _imports(frame)
        ):
            self.files.setdefault(file, set()).add(code.co_qualname)


def _file_of_ours(code: CodeType) -> str | None:
    """Return the path of a function's file below the root.

    None for code outside spslam, module bodies and class bodies.
    """
    if not code.co_flags & inspect.CO_OPTIMIZED:
        return None
    path = Path(os.path.realpath(code.co_filename))
    if not path.is_relative_to(ROOT):
        return None
    parts = path.relative_to(ROOT).parts
    return "/".join(parts) if parts[0] in ("spslam", "run_slam.py", *LINKED_PACKAGES) else None


def _imports(frame: FrameType | None) -> bool:
    """Return whether a caller of the frame is importing a module."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def count_entered(arguments: list[str]) -> dict[str, set[str]]:
    """Run `run_slam.py`; return the files and their functions called up to the first pose."""
    entered = Entered()
    # Count the entry script itself, which has no function.
    entered.files["run_slam.py"] = set()
    sys.argv = ["run_slam.py", *arguments]
    sys.path.insert(0, str(ROOT))
    entered.start()
    try:
        runpy.run_path(str(ROOT / "run_slam.py"), run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return entered.files


def warm_up(arguments: list[str], out: Path) -> None:
    """Fill the caches: the first run on a machine also converts and checks networks."""
    command = [
        sys.executable,
        str(ROOT / "run_slam.py"),
        *arguments,
        "--max-frames",
        "1",
        "--outputs",
        "trajectory",
    ]
    subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Print the list and the count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--most", type=int, metavar="N", help="exit code 1 if there are more files")
    parser.add_argument("--functions", action="store_true", help="also list the functions")
    parser.add_argument(
        "arguments", nargs="*", help="arguments of run_slam.py; default: demo-small"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        warm_up(given.arguments or ["demo-small"], Path(folder) / "first")
        out = ["--max-frames", "3", "--out", str(Path(folder) / "run")]
        files = count_entered([*(given.arguments or ["demo-small"]), *out])
    for file, functions in sorted(files.items()):
        print(f"{file}: {', '.join(sorted(functions))}" if given.functions else file)
    deeper = [
        file
        for file, functions in files.items()
        if any(not name.endswith("__init__") for name in functions)
    ]
    print(f"{len(files)} files; {len(files) - len(deeper)} of them only make an object")
    sys.exit(given.most is not None and len(files) > given.most)


if __name__ == "__main__":
    main()
