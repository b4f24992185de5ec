"""Perform one turn: run our system or a peer in a process of its own, measure and score it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

import spslam
from spslam.benchmark.identity import code_sha256, file_sha256
from spslam.benchmark.peers.inputs import PeerInput
from spslam.benchmark.peers.process import Usage, run_measured
from spslam.benchmark.peers.scoring import Kind, score
from spslam.benchmark.peers.suite import REALTIME, PeerEntry, Turn, Values, variables_of
from spslam.benchmark.perform import machine
from spslam.benchmark.results import Row
from spslam.errors import SpslamError
from spslam.frame import Sensor
from spslam.io.files import temporary_folder
from spslam.io.structured_text import StructureError, one_line, parse_json

# Files of our runs that are kept; the map takes a megabyte per keyframe.
_KEPT = ("trajectory.tum", "keyframes.tum", "config.yaml", "log.txt", "frames.csv")
# Bytes of a peer's output that are read and kept: its last ones.
_LONGEST_OUTPUT = 200_000
# Keys of the JSON line that a peer may print.
_REPORT_KEYS = {
    "frames", "tracked", "trajectory", "track_ms", "track_ms_median", "track_ms_p95", "begun_at",
    "ended_at", "latency_ms", "latency_ms_median", "latency_ms_p95", "dropped",
}  # fmt: skip
# Largest value of a report: times since 1970 are below it.
_LARGEST = 1e10
# Largest difference of two clocks of this machine, seconds.
_CLOCKS_S = 1.0


@dataclass(frozen=True)
class TurnPlan:
    """A turn with its input.

    Attributes:
        turn: the run.
        given: its input.
        here: folder of the file of peers.
        timeout_s: time limit, seconds.
        max_keypoints: value of `features.max_keypoints` for our run; None: that of the
            configuration.
    """

    turn: Turn
    given: PeerInput
    here: Path
    timeout_s: float
    max_keypoints: int | None = None

    @property
    def licence(self) -> str:
        """Licence of the system; empty for ours."""
        return "" if self.turn.peer is None else self.turn.peer.licence

    def command(self, folder: Path, environment: Mapping[str, str]) -> list[str]:
        """Return the command of the run.

        Args:
            folder: where it writes.
            environment: variables that the command line of a peer may use.

        Raises:
            ConfigError: a variable is missing.
        """
        turn, given = self.turn, self.given
        realtime = turn.case.config == REALTIME
        if turn.peer is not None:
            values = Values(
                sequence=given.folder, layout=given.layout, sensor=_sensor(turn),
                out=folder / "trajectory.tum", keyframes=folder / "keyframes.tum",
                calibration=given.calibration, realtime=realtime, here=self.here,
                frames=len(given.times), environment=environment,
            )  # fmt: skip
            return values.fill(turn.peer.command)
        return [sys.executable, "-P", "-m", "spslam", *self.our_arguments(), "--out", str(folder)]

    def our_arguments(self) -> list[str]:
        """Return the arguments of `spslam` for one of our runs, without `--out`."""
        turn, given = self.turn, self.given
        front_end = turn.front_end
        assert front_end is not None
        options = {
            "dataset": given.layout,
            "sensor": turn.case.sensor,
            "config": given.config,
            "extractor": front_end.extractor,
            "weights": front_end.weights,
        }
        arguments = ["run", str(given.folder)]
        arguments += [
            text for name, value in options.items() if value for text in (f"--{name}", value)
        ]
        if self.max_keypoints is not None:
            arguments += ["--set", f"features.max_keypoints={self.max_keypoints}"]
        return [*arguments, *(["--realtime"] if turn.case.config == REALTIME else [])]

    def shown_command(self) -> str:
        """Return the command that repeats the run, without the place of its results."""
        if self.turn.peer is None:
            return shlex.join(["spslam", *self.our_arguments()])
        return self.turn.peer.command

    def identity(self) -> dict[str, Any]:
        """Return what the results depend on; see `Identity`."""
        turn = self.turn
        peer = turn.peer
        return {
            "input": {
                "frames": str(self.given.folder),
                "layout": self.given.layout,
                "sensor": turn.case.sensor,
                "count": len(self.given.times),
            },
            "command": self.shown_command(),
            "files": {} if peer is None else _files_of(peer.command, self.here),
            "environment": {} if peer is None else _environment_of(peer),
            "licence": self.licence,
            "main": turn.main,
            # Our code decides the poses of our runs only.
            "code_sha256": code_sha256() if peer is None else "",
        }


def perform_turn(plan: TurnPlan, session: str) -> tuple[Row, dict[str, bytes]]:
    """Run, measure and score one turn; a failure becomes the reason of the row.

    Args:
        plan: the turn.
        session: name of this call of the suite: times are compared within one call only.

    Returns:
        The row, and the files of the run's folder.
    """
    turn = plan.turn
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    begin = time.monotonic()
    with temporary_folder("spslam-peers-") as folder:
        metrics, reason = None, None
        try:
            metrics = _metrics(plan, folder)
        except SpslamError as error:
            reason = str(error)
        files = _contents(folder)
    if metrics is not None:
        metrics |= {"session": session, "load_average": load}
        files["metrics.json"] = (json.dumps(metrics, indent=1, allow_nan=False) + "\n").encode()
    row = Row(
        id=turn.id,
        **vars(turn.case),
        repeat=turn.repeat,
        varied=f"round {turn.repeat + 1}",
        reason=reason,
        frames=len(plan.given.times),
        command=plan.shown_command(),
        identity=plan.identity(),
        machine=machine(),
        seconds=round(time.monotonic() - begin, 3),
        attempts=1,
        metrics=metrics,
    )
    return row, files


class _FailedError(SpslamError):
    """A run failed."""


def _metrics(plan: TurnPlan, folder: Path) -> dict[str, Any]:
    turn, given = plan.turn, plan.given
    environment = {**os.environ, **_our_path(turn)}
    environment |= {} if turn.peer is None else turn.peer.environment
    run = folder if turn.peer is not None else folder / "run"
    command = plan.command(run, environment)
    usage = run_measured(command, environment, folder, plan.timeout_s)
    if usage.timed_out:
        raise _FailedError(f"no end after {plan.timeout_s:g} s, the time limit: it was killed")
    if usage.code != 0:
        raise _FailedError(_ending(usage.code, folder / "stderr.txt"))
    trajectory, keyframes = run / "trajectory.tum", run / "keyframes.tum"
    if not trajectory.is_file():
        raise _FailedError(f"it ended without a trajectory, which {{out}} names{_last(folder)}")
    if turn.peer is None:
        own: dict[str, Any] = json.loads((run / "metrics.json").read_bytes())
        found = score(trajectory, keyframes, "frames", given, _sensor(turn))
        return own | found | _used(usage, _our_report(own), len(given.times))
    report = read_report(folder / "stdout.txt")
    found = score(trajectory, keyframes, _kind(report), given, _sensor(turn))
    if "tracked" not in found:
        # Keyframes alone: only the system knows how many frames it tracked.
        found["tracked"] = min(int(report.get("tracked", 0)), len(given.times))
    return found | _used(usage, _peer_report(report, usage), len(given.times))


def read_report(path: Path) -> dict[str, Any]:
    """Return the JSON line of a peer's standard output; empty without one.

    Only valid values of known keys are returned.
    """
    for line in reversed(_tail(path).splitlines()):
        text = line.strip()
        if not (text.startswith("{") and text.endswith("}")):
            continue
        try:
            values = parse_json(text)
        except StructureError:
            continue
        if isinstance(values, dict) and _REPORT_KEYS & set(values):
            return {key: value for key, value in values.items() if _valid(key, value)}
    return {}


def _valid(key: str, value: Any) -> bool:
    if key == "trajectory":
        return value in ("frames", "keyframes")
    if key in ("track_ms", "latency_ms"):
        return isinstance(value, list) and all(map(_is_number, value))
    return key in _REPORT_KEYS and _is_number(value) and 0 <= value < _LARGEST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)


def _kind(report: dict[str, Any]) -> Kind:
    return "keyframes" if report.get("trajectory") == "keyframes" else "frames"


@dataclass(frozen=True)
class _Report:
    """What a system tells of its own time: seconds after its start, milliseconds."""

    begin_s: float | None
    end_s: float | None
    track_ms: tuple[float | None, float | None]
    latency_ms: tuple[float | None, float | None]
    dropped: int | None


def _our_report(own: dict[str, Any]) -> _Report:
    begin, seconds = own.get("tracking_begun_s"), own.get("tracking_s")
    return _Report(
        begin_s=begin,
        end_s=None if begin is None or seconds is None else begin + seconds,
        track_ms=(own.get("frame_median_ms"), own.get("frame_p95_ms")),
        latency_ms=(own.get("latency_median_ms"), own.get("latency_p95_ms")),
        dropped=own.get("dropped_frames"),
    )


def _peer_report(report: dict[str, Any], usage: Usage) -> _Report:
    def after_start(key: str) -> float | None:
        return None if key not in report else float(report[key]) - usage.begun_at

    return _Report(
        begin_s=after_start("begun_at"),
        end_s=after_start("ended_at"),
        track_ms=_median_p95(report, "track_ms"),
        latency_ms=_median_p95(report, "latency_ms"),
        dropped=report.get("dropped"),
    )


def _median_p95(report: dict[str, Any], key: str) -> tuple[float | None, float | None]:
    values = report.get(key)
    if values:
        median, p95 = np.percentile(values, [50, 95])
        return float(median), float(p95)
    return report.get(f"{key}_median"), report.get(f"{key}_p95")


def _used(usage: Usage, report: _Report, frames: int) -> dict[str, Any]:
    """Return the metrics of time and memory; unknown ones are None."""
    per_frame = 1e3 / max(frames, 1)
    metrics: dict[str, Any] = {
        "track_median_ms": report.track_ms[0],
        "track_p95_ms": report.track_ms[1],
        "whole_ms": per_frame * usage.seconds,
        "cpu_whole_ms": None if usage.cpu_s is None else per_frame * usage.cpu_s,
        "tree_peak_mb": usage.peak_mb,
        "image_to_pose_median_ms": report.latency_ms[0],
        "image_to_pose_p95_ms": report.latency_ms[1],
        "dropped": report.dropped,
        **dict.fromkeys(("loop_ms", "cpu_loop_ms", "start_s", "finish_s")),
    }
    begin, end = report.begin_s, report.end_s
    # Times from another clock cannot be those of this process.
    if begin is None or end is None or not 0 <= begin <= end <= usage.seconds + _CLOCKS_S:
        return metrics
    cpu_s = usage.cpu_between(begin, end)
    return metrics | {
        "loop_ms": per_frame * (end - begin),
        "cpu_loop_ms": None if cpu_s is None else per_frame * cpu_s,
        "start_s": begin,
        "finish_s": max(usage.seconds - end, 0.0),
    }


def _our_path(turn: Turn) -> dict[str, str]:
    """Return the variables by which our run imports this spslam."""
    if turn.peer is not None:
        return {}
    package = str(Path(spslam.__file__).parent.parent)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}


def _sensor(turn: Turn) -> Sensor:
    return cast("Sensor", turn.case.sensor)


def _environment_of(peer: PeerEntry) -> dict[str, str | None]:
    """Return the variables of a peer: those of its entry, and those that its command names."""
    named = {name: os.environ.get(name) for name in variables_of(peer.command)}
    return {**named, **peer.environment}


def _files_of(command: str, here: Path) -> dict[str, str]:
    """Return path -> SHA-256 of the files beside the suite's file that a command names."""
    names = [part.replace("{here}", str(here)) for part in shlex.split(command) if "{here}" in part]
    return {name: file_sha256(Path(name)) for name in names if Path(name).is_file()}


def _ending(code: int, stderr: Path) -> str:
    if code < 0:
        try:
            return f"its process was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"its process was killed by signal {-code}"
    lines = [line for line in _tail(stderr).splitlines() if line.strip()]
    last = one_line(lines[-1]).removeprefix("error: ") if lines else "no output"
    return f"exit code {code}: {last}"


def _last(folder: Path) -> str:
    lines = [line for line in _tail(folder / "stderr.txt").splitlines() if line.strip()]
    return f"; its last line: {one_line(lines[-1])}" if lines else ""


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _LONGEST_OUTPUT, 0))
        return file.read().decode("utf-8", errors="replace")


def _contents(folder: Path) -> dict[str, bytes]:
    """Return the files to keep: trajectories, our settings, and the ends of the output."""
    files = {
        path.name: path.read_bytes()
        for place in (folder, folder / "run")
        for path in sorted(place.glob("*"))
        if path.name in _KEPT
    }
    for name in ("stdout.txt", "stderr.txt"):
        if (folder / name).is_file():
            files[name] = _tail(folder / name).encode()
    return files
