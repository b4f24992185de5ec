"""Run a command and measure its time, processor seconds and memory, with its child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spslam.errors import BenchmarkError

# Time between two looks at the processes, seconds.
_POLL_S = 0.05
_PROC = Path("/proc")
# Time for a process to end after SIGTERM, seconds.
_PATIENCE_S = 2.0


@dataclass(frozen=True)
class Usage:
    """What a command used.

    Attributes:
        code: exit code; negative: the signal that ended it.
        timed_out: whether it was ended at its time limit.
        begun_at: when it was started, seconds since 1970.
        seconds: wall time.
        cpu_s: processor seconds, user and system, with its children; None if unknown.
        peak_mb: largest memory of the command and its children together, 10⁶ bytes; shared pages
            count once; None if unknown.
        timeline: (seconds since the start, processor seconds until then), increasing.
    """

    code: int
    timed_out: bool
    begun_at: float
    seconds: float
    cpu_s: float | None
    peak_mb: float | None
    timeline: tuple[tuple[float, float], ...] = field(default=())

    def cpu_between(self, begin_s: float, end_s: float) -> float | None:
        """Return the processor seconds between two times after the start; None if unknown."""
        if self.cpu_s is None or len(self.timeline) < 2:
            return None
        times, used = np.array([*self.timeline, (self.seconds, self.cpu_s)]).T
        begin, end = np.interp([begin_s, end_s], times, used)
        return float(end - begin)


def run_measured(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    timeout_s: float,
) -> Usage:
    """Run a command in a session of its own; end it and its children at the time limit.

    Standard output and standard error go to `stdout.txt` and `stderr.txt` of `folder`.

    Args:
        command: the command and its arguments.
        environment: all environment variables.
        folder: working directory.
        timeout_s: time limit, seconds.

    Raises:
        BenchmarkError: the command cannot be started.
    """
    with (folder / "stdout.txt").open("wb") as out, (folder / "stderr.txt").open("wb") as err:
        begun_at, begin = time.time(), time.perf_counter()
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=dict(environment),
                # ^C in a terminal must stop the suite only, which then ends the command.
                start_new_session=True,
            )
        except OSError as error:
            raise BenchmarkError(f"cannot start {command[0]}: {error.strerror or error}") from None
        watch = _Watch(process)
        try:
            while not watch.ended(begin):
                if time.perf_counter() - begin > timeout_s:
                    watch.timed_out = True
                    break
                time.sleep(_POLL_S)
        finally:
            watch.end()
    return Usage(
        code=process.returncode,
        timed_out=watch.timed_out,
        begun_at=begun_at,
        seconds=time.perf_counter() - begin,
        cpu_s=watch.cpu_s,
        peak_mb=watch.peak_bytes / 1e6 if watch.peak_bytes else None,
        timeline=tuple(watch.timeline),
    )


class _Watch:
    """Look at a process and its children from time to time.

    `ru_maxrss` is not used: a new process begins with the memory of the process that started it.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.timed_out = False
        self.cpu_s: float | None = None
        self.peak_bytes = 0
        self.timeline: list[tuple[float, float]] = []

    def ended(self, begin: float) -> bool:
        """Measure once; return whether the process has ended."""
        tree = _process_tree(self.process.pid)
        now = time.perf_counter() - begin
        found = [one for pid in tree if (one := _look(pid)) is not None]
        if found:
            self.timeline.append((now, sum(one.cpu_s for one in found)))
            together = found[0].memory if len(found) == 1 else sum(map(_proportional, tree))
            self.peak_bytes = max(self.peak_bytes, together, *(one.most for one in found))
        return self._reaped(os.WNOHANG if hasattr(os, "WNOHANG") else 0)

    def end(self) -> None:
        """End the session of the process, and wait for the process."""
        if self.process.returncode is None:
            self._signal(signal.SIGTERM)
            until = time.perf_counter() + _PATIENCE_S
            while not self._reaped(getattr(os, "WNOHANG", 0)) and time.perf_counter() < until:
                time.sleep(_POLL_S)
        # Children may outlive the process.
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        if self.process.returncode is None:
            self._reaped(0)

    def _signal(self, number: int) -> None:
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)
        elif self.process.returncode is None:
            self.process.kill()

    def _reaped(self, options: int) -> bool:
        """Return whether the process has ended; take its exit code and processor seconds."""
        if self.process.returncode is not None:
            return True
        if not hasattr(os, "wait4"):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_POLL_S if options or not self.timed_out else None)
            return self.process.returncode is not None
        pid, status, used = os.wait4(self.process.pid, options)
        if pid == 0:
            return False
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_s = used.ru_utime + used.ru_stime
        return True


@dataclass(frozen=True)
class _Process:
    """Processor seconds with ended children; memory now and at most, bytes."""

    cpu_s: float
    memory: int
    most: int


def _look(pid: int) -> _Process | None:
    """Read the state of a process from /proc; None if it has ended or there is no /proc."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        status = (_PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold spaces. utime, stime, cutime and cstime are fields 14 to 17.
    ticks = [int(text) for text in stat.rpartition(")")[2].split()[11:15]]
    memory = {
        key: int(value.split()[0]) * 1024
        for key, _, value in (line.partition(":") for line in status.splitlines())
        if key in ("VmRSS", "VmHWM")
    }
    return _Process(
        cpu_s=sum(ticks) / os.sysconf("SC_CLK_TCK"),
        memory=memory.get("VmRSS", 0),
        most=memory.get("VmHWM", 0),
    )


def _proportional(pid: int) -> int:
    """Return the memory of a process, bytes; pages shared with others count in proportion.

    0 if the process has ended.
    """
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        looked = _look(pid)
        return 0 if looked is None else looked.memory
    found = [line.split()[1] for line in lines if line.startswith("Pss:")]
    return int(found[0]) * 1024 if found else 0


def _process_tree(pid: int) -> list[int]:
    """Return a process and its descendants; only itself where the system does not list them."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        with suppress(OSError):
            for task in (_PROC / str(one) / "task").iterdir():
                with suppress(OSError):
                    waiting += map(int, (task / "children").read_text(encoding="ascii").split())
    return found
