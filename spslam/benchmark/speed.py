"""Speed of this machine, measured and reported by `spslam bench speed`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from spslam.io.markdown import format_table
from spslam.process.timing import EngineSpeed, Timing
from spslam.run.prefetch import prepared, track_prefetched
from spslam.slam.system import Slam

if TYPE_CHECKING:
    from spslam.frame import Frame

# Stages in the order of processing; `features` includes the disparities of stereo pairs.
_STAGES = ("features", "tracking", "mapping", "refinement", "loop closing")
# Instruction sets that decide the speed of low-precision arithmetic; the report lists them.
_INSTRUCTIONS_SHOWN = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "sve",
)


@dataclass(frozen=True)
class RunSpeed:
    """Speed of one run over frames already in memory.

    Attributes:
        world, sensor, engine: input and engine of the run.
        width, height: size of the images, pixels.
        camera_fps: frame rate of the camera, Hz.
        fps: frame rate of the run, Hz.
        frame: time of a whole frame, from image to pose; features are extracted while the previous
            frame is tracked.
        stages: stage -> time over the frames that went through it.
    """

    world: str
    sensor: str
    engine: str
    width: int
    height: int
    camera_fps: float
    fps: float
    frame: Timing
    stages: dict[str, Timing]


@dataclass(frozen=True)
class RunSpeedComparison:
    """Several runs with one sensor, and extractions by the reference between them.

    Attributes:
        run: the run of median speed.
        all_fps: frame rates of all runs, Hz.
        reference: time of one image by the reference, before, between and after the runs.
        frames_per_reference: frames per run in the time of one extraction around it; the median
            over the runs.
    """

    run: RunSpeed
    all_fps: list[float]
    reference: Timing
    frames_per_reference: float

    @classmethod
    def of(cls, runs: list[RunSpeed], reference_ms: list[float]) -> RunSpeedComparison:
        """Summarize N >= 1 runs and the N + 1 reference times around them."""
        around = [(before + after) / 2 for before, after in pairwise(reference_ms)]
        return cls(
            run=sorted(runs, key=lambda run: run.fps)[(len(runs) - 1) // 2],
            all_fps=[run.fps for run in runs],
            reference=Timing.of(reference_ms),
            frames_per_reference=median(
                run.fps * ms / 1e3 for run, ms in zip(runs, around, strict=True)
            ),
        )


@dataclass
class SpeedReport:
    """All measurements of `spslam bench speed`.

    Attributes:
        command: command that made the report.
        machine: result of `spslam.process.machine.processor`, number of usable `cores`, versions.
        rounds, threads: measurements of each engine; threads of each, 0: all cores.
        engines: speeds of the engines; the reference comes first at every size.
        runs: runs of each sensor.
        parts: steps of one image: reading, network, keypoints, matching, pose.
        starts: state of the cache -> time from process start to first pose, seconds; empty if not
            measured.
    """

    command: str
    machine: dict[str, Any]
    rounds: int
    threads: int
    engines: list[EngineSpeed] = field(default_factory=list)
    runs: list[RunSpeedComparison] = field(default_factory=list)
    parts: dict[str, Timing] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """Return the report as Markdown, as in docs/speed.md."""
        parts = [self._heading(), self._engine_table(), self._run_table(), self._stage_table()]
        if self.starts:
            parts.append(self._start_table())
        return "\n\n".join(parts) + "\n"

    def _heading(self) -> str:
        facts = [
            name
            for name in _INSTRUCTIONS_SHOWN
            if name in self.machine.get("instructions", "").split()
        ]
        versions = [
            f"{key.removeprefix('version_')} {value}"
            for key, value in self.machine.items()
            if key.startswith("version_") and value
        ]
        return (
            "# Speed\n\n"
            f"Made by `{self.command}`; the same command measures another machine. Ratios are "
            "more reliable than milliseconds, because other programs may have used the machine.\n\n"
            f"- Machine: {self.machine['processor'] or self.machine['architecture']} "
            f"({', '.join(facts) or self.machine['architecture']}), no GPU used\n"
            f"- Cores usable by the command: {self.machine['cores']}\n"
            f"- Threads of the network: {self.threads or 'one a core'}\n"
            f"- Versions: {', '.join(versions)}"
        )

    def _engine_table(self) -> str:
        reference = self.engines[0]
        about = (
            f"Features of one image at a time (1,000 points at most); the engines take turns, "
            f"{self.rounds} rounds. Times as fast: compared with {reference.network} by "
            f"{reference.engine} in the same round, median of the rounds. "
            "MB: size of the file with the parameters."
        )
        heads = [
            "size",
            "network",
            "engine",
            "network alone ms",
            "extraction ms, median / p95",
            "times as fast",
            "MB",
        ]
        rows = [
            [
                f"{row.width}×{row.height}",
                row.network,
                row.engine,
                f"{row.inference.median_ms:.1f}",
                _median_p95(row.extraction),
                f"{row.times_as_fast:.2f}",
                f"{row.megabytes:.1f}",
            ]
            for row in self.engines
        ]
        return _section("Engines", about, format_table(heads, rows, align="lllrrrr"))

    def _run_table(self) -> str:
        about = (
            "The default configuration on frames already in memory. The time of a frame is from "
            "its image to its pose; features are extracted while the previous frame is tracked, so "
            "the frame rate is higher. Between the runs of a sensor, superpoint extracts one "
            "640×480 image by torch eager. The last column gives the frames of a run in that time, "
            "which is more reliable than frames a second."
        )
        heads = ["world", "sensor", "size", "engine", "frames", "frame ms, median / p95"]
        heads += [
            "frames/s, median (min to max)",
            "camera frames/s",
            "reference ms",
            "frames in that time",
        ]
        rows = [
            [
                compared.run.world,
                compared.run.sensor,
                f"{compared.run.width}×{compared.run.height}",
                compared.run.engine,
                compared.run.frame.count,
                _median_p95(compared.run.frame),
                f"{compared.run.fps:.1f} "
                f"({min(compared.all_fps):.1f} to {max(compared.all_fps):.1f})",
                f"{compared.run.camera_fps:.0f}",
                f"{compared.reference.median_ms:.0f}",
                f"{compared.frames_per_reference:.1f}",
            ]
            for compared in self.runs
        ]
        return _section(
            "Runs against the camera", about, format_table(heads, rows, align="llllrrrrrr")
        )

    def _stage_table(self) -> str:
        about = (
            "Stages of the runs above, over the frames that went through a stage; the last column "
            "divides the time by all frames. `features` of stereo includes the disparities. "
            "`refinement` is the time for which the frame after a keyframe waits for local bundle "
            "adjustment, which runs beside its tracking, and applies it. Below: the steps of one "
            "image alone; matching and pose on random input (see `spslam.benchmark.speed_stages`)."
        )
        rows = [
            _stage_row(f"{compared.run.sensor}: {name}", timing, compared.run.frame.count)
            for compared in self.runs
            for name, timing in compared.run.stages.items()
        ]
        rows += [
            _stage_row(f"one image: {name}", timing, None) for name, timing in self.parts.items()
        ]
        heads = ["what", "times", "ms, median / p95", "ms a frame"]
        return _section("Stages", about, format_table(heads, rows, align="lrrr"))

    def _start_table(self) -> str:
        about = (
            "Time of `spslam run` on a built-in world from the start of the process to the first "
            "pose. Cold: with an empty cache, the network is converted, compiled and compared with "
            "PyTorch, and the textures of the world are drawn."
        )
        rows = [[state, f"{seconds:.1f}"] for state, seconds in self.starts.items()]
        return _section(
            "Start", about, format_table(["start to first pose", "s"], rows, align="lr")
        )


def time_run(slam: Slam, frames: list[Frame], world: str) -> RunSpeed:
    """Track the frames of one sequence, at least one, like a run; return the speed."""
    begin = perf_counter()
    with prepared(
        frames, slam.preprocessor.observe, max_concurrency=slam.preprocessor.max_concurrency
    ) as items:
        frame_ms = [track_prefetched(slam, item)[1] for item in items]
    seconds = perf_counter() - begin
    camera = frames[0].camera
    return RunSpeed(
        world=world,
        sensor=frames[0].sensor,
        engine=slam.preprocessor.engine,
        width=camera.width,
        height=camera.height,
        camera_fps=float(camera.fps or 0.0),
        fps=len(frames) / seconds,
        frame=Timing.of(frame_ms),
        stages={
            name: Timing.of(slam.statistics.stage_ms[name])
            for name in _STAGES
            if name in slam.statistics.stage_ms
        },
    )


def _section(title: str, about: str, table: str) -> str:
    return f"## {title}\n\n{about}\n\n{table}"


def _stage_row(name: str, timing: Timing, frames: int | None) -> list[object]:
    shared = "" if frames is None else f"{timing.total_ms / frames:.1f}"
    return [name, timing.count, _median_p95(timing), shared]


def _median_p95(timing: Timing) -> str:
    return f"{timing.median_ms:.1f} / {timing.p95_ms:.1f}"
