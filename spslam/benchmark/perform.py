"""Execute one run of a suite in its own process, isolated from other runs and their crashes."""

from __future__ import annotations

import os
import platform
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import spslam
from spslam.benchmark.identity import code_sha256, file_sha256
from spslam.callbacks import never
from spslam.io.files import temporary_folder
from spslam.notices import plural
from spslam.process.machine import processor

# Attempts at most if the process is killed.
ATTEMPTS = 3
# Files that are not kept: the map takes a megabyte per keyframe; the command of the row remakes it.
_LEFT_OUT = ("map.npz",)
# Time between checks whether the run was stopped, seconds.
_POLL_S = 0.2
# Environment variables that limit libraries to one thread.
_SINGLE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Request:
    """Request to a worker to execute a run; can be sent to other machines.

    Attributes:
        id: id of the run.
        arguments: arguments of `spslam` without `--out`.
        files: path -> SHA-256 of each file read besides the frames; must match on every machine.
        code: result of `code_sha256` on this machine.
    """

    id: str
    arguments: tuple[str, ...]
    files: dict[str, str]
    code: str

    @property
    def command(self) -> str:
        """Command that repeats the run."""
        return shlex.join(["spslam", *self.arguments])


@dataclass(frozen=True)
class Finished:
    """Outcome of a run.

    Attributes:
        id: id of the run.
        reason: why the run failed, in one line; None if it did not.
        files: file name -> contents of the run's folder; empty if there is no folder.
        machine: processor, cores, system, host name.
        seconds: duration of the last attempt.
        attempts: number of attempts; a killed process is restarted.
    """

    id: str
    reason: str | None
    files: dict[str, bytes] = field(default_factory=dict)
    machine: dict[str, str | int] = field(default_factory=dict)
    seconds: float = 0.0
    attempts: int = 0


class StoppedError(Exception):
    """The run was stopped because its result is no longer needed."""


def perform(
    request: Request, core: int | None = None, stopped: Callable[[], bool] = never
) -> Finished:
    """Execute a run; restart it if its process is killed.

    Args:
        request: the run.
        core: index of the only core that the run may use; None: any.
        stopped: called a few times a second; True ends the run.

    Raises:
        StoppedError: `stopped` returned True.
    """
    unfit = _unfit(request)
    if unfit is not None:
        return Finished(request.id, unfit, machine=machine())
    attempt = 0
    while True:
        attempt += 1
        with temporary_folder("spslam-bench-") as folder:
            begin = monotonic()
            code = run_worker(request, core, folder, stopped)
            if code >= 0 or attempt == ATTEMPTS:
                return Finished(
                    id=request.id,
                    reason=_reason(code, attempt, folder / "stderr.txt"),
                    files=_contents(folder / "run"),
                    machine=machine(),
                    seconds=monotonic() - begin,
                    attempts=attempt,
                )


def machine() -> dict[str, str | int]:
    """Return processor, cores, system and host name of this machine."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    facts = processor()
    facts.pop("instructions", None)
    return {**facts, "cores": cores, "system": platform.platform(), "host": platform.node()}


def _unfit(request: Request) -> str | None:
    """Return why this machine would compute something else; None if it would not."""
    if request.code != code_sha256():
        return (
            f"the worker on {platform.node()} has another state of spslam's code: "
            "install the same version on all machines"
        )
    for path, digest in request.files.items():
        if not Path(path).is_file():
            return (
                f"the worker on {platform.node()} has no file {path}: it must exist on all machines"
            )
        if file_sha256(Path(path)) != digest:
            return f"the worker on {platform.node()} has another {path}"
    return None


def run_worker(
    request: Request, core: int | None, folder: Path, stopped: Callable[[], bool]
) -> int:
    """Run the worker process; return its exit code, negative if a signal ended it."""
    package = str(Path(spslam.__file__).parent.parent)
    environment = {**os.environ, **dict.fromkeys(_SINGLE_THREAD, "1")}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [package, os.environ.get("PYTHONPATH")])
    )
    command = [
        sys.executable,
        "-P",
        "-m",
        "spslam.cli.suite_worker",
        "-" if core is None else str(core),
    ]
    with (folder / "stderr.txt").open("wb") as stderr:
        process = subprocess.Popen(
            [*command, *request.arguments, "--out", str(folder / "run")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd=folder,
            env=environment,
            # ^C in a terminal must stop the suite only, which then ends its runs.
            start_new_session=True,
        )
        try:
            while True:
                try:
                    return process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    if stopped():
                        raise StoppedError from None
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def _reason(code: int, attempts: int, stderr: Path) -> str | None:
    if code == 0:
        return None
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        each = plural(attempts, "in one attempt", f"each of {attempts} times")
        return f"its process was killed by {name} {each}"
    lines = [
        line
        for line in stderr.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    last = lines[-1].strip() if lines else f"exit code {code}"
    return last.removeprefix("error: ")


def _contents(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        return {}
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.name not in _LEFT_OUT
    }
