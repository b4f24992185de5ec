"""How fast this machine is, as tables: what `spslam bench speed` measures and writes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from spslam.io.markdown import format_table
from spslam.run.prefetch import prepared, track_prepared
from spslam.slam.system import Slam
from spslam.timing import EngineSpeed, Timing

if TYPE_CHECKING:
    from spslam.frame import Frame

# In the order of a frame's way; `features` holds extraction and, of stereo pairs, disparities.
_STAGES = ("features", "tracking", "mapping", "refinement", "loop closing")
# What the speed of small numbers hangs on.
_TOLD_INSTRUCTIONS = (
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
    """One run over frames that are at hand.

    Attributes:
        world, sensor, engine: what ran.
        width, height: of the images, pixels.
        camera_fps: frames a second that the camera takes.
        fps: that the run takes.
        frame: of whole frames, from their features to their pose; features are found beside tracking the frame before.
        stages: of each stage that any frame went through, over those that did.
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
class RunComparison:
    """Several runs with one sensor, and the reference's extraction between them.

    Attributes:
        run: the one of the middle speed.
        all_fps: of all of them.
        reference: one image by the reference, before, between and after them.
        frames_per_reference: frames that a run takes in the time of one extraction around it, median of the runs.
    """

    run: RunSpeed
    all_fps: list[float]
    reference: Timing
    frames_per_reference: float

    @classmethod
    def of(cls, runs: list[RunSpeed], reference_ms: list[float]) -> RunComparison:
        """Of runs, one at least, and the times (one more than runs) around them."""
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
    """All that was measured.

    Attributes:
        command: that made it.
        machine: what `spslam.process.machine.processor` says, `cores` that may be used, versions.
        rounds, threads: turns of each engine; threads of each, 0: all cores.
        engines: the reference comes first at every size.
        runs: of each sensor.
        parts: of one image: reading, the network, key points, matching, the pose.
        starts: seconds from the start of a process to the first pose, by the state of the cache; empty: not measured.
    """

    command: str
    machine: dict[str, Any]
    rounds: int
    threads: int
    engines: list[EngineSpeed] = field(default_factory=list)
    runs: list[RunComparison] = field(default_factory=list)
    parts: dict[str, Timing] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """Everything, as JSON."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """The page that docs/speed.md is."""
        parts = [self._heading(), self._engine_table(), self._run_table(), self._stage_table()]
        if self.starts:
            parts.append(self._start_table())
        return "\n\n".join(parts) + "\n"

    def _heading(self) -> str:
        told = [
            name
            for name in _TOLD_INSTRUCTIONS
            if name in self.machine.get("instructions", "").split()
        ]
        versions = [
            f"{key.removeprefix('version_')} {value}"
            for key, value in self.machine.items()
            if key.startswith("version_") and value
        ]
        return (
            "# Speed\n\n"
            f"Made by `{self.command}`; the same command says it of another machine. Ratios hold where "
            "milliseconds do not: other programs may have used this one, too.\n\n"
            f"- Machine: {self.machine['processor'] or self.machine['architecture']} "
            f"({', '.join(told) or self.machine['architecture']}), no GPU used\n"
            f"- Cores that the command may use: {self.machine['cores']}\n"
            f"- Threads of the network: {self.threads or 'one a core'}\n"
            f"- Versions: {', '.join(versions)}"
        )

    def _engine_table(self) -> str:
        reference = self.engines[0]
        about = (
            f"One image at a time to features (1,000 points at most); the engines take turns, {self.rounds} rounds. "
            f"Times as fast: as {reference.network} by {reference.engine} in the same round, median of the rounds. "
            "MB: the file with the parameters."
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
            "The default configuration on frames that are at hand. A frame's time is from its image to its pose; "
            "features are found while the frame before is tracked, so that more frames a second come out. Between the "
            "runs of a sensor superpoint extracts one 640×480 image by torch eager; the last column, which holds where "
            "frames a second do not, says how many frames a run takes in that time."
        )
        heads = ["world", "sensor", "size", "engine", "frames", "frame ms, median / p95"]
        heads += [
            "frames/s, median (least to most)",
            "camera's",
            "reference ms",
            "frames in its time",
        ]
        rows = [
            [
                compared.run.world,
                compared.run.sensor,
                f"{compared.run.width}×{compared.run.height}",
                compared.run.engine,
                compared.run.frame.count,
                _median_p95(compared.run.frame),
                f"{compared.run.fps:.1f} ({min(compared.all_fps):.1f} to {max(compared.all_fps):.1f})",
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
            "Of the runs above, over the frames that went through a stage, and its time shared among all frames. "
            "`features` of stereo has the disparities, too; `refinement` is what the frame after a key frame waits for "
            "local bundle adjustment, which runs beside its tracking, and takes it up. Below: the parts of one image "
            "by itself; matching and the pose on drawn input (see `spslam.benchmark.speed_stages`)."
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
            "From the start of the process, `spslam run` on a built-in world, to the first pose. Cold: with an empty "
            "cache the network is converted, compiled and compared with PyTorch, and the world's textures are drawn."
        )
        rows = [[state, f"{seconds:.1f}"] for state, seconds in self.starts.items()]
        return _section(
            "Start", about, format_table(["start to first pose", "s"], rows, align="lr")
        )


def time_run(slam: Slam, frames: list[Frame], world: str) -> RunSpeed:
    """Track frames of one sequence, one at least, as a run does, and say how long it took."""
    begin = perf_counter()
    with prepared(
        frames, slam.preprocessor.observe, at_once=slam.preprocessor.max_concurrency
    ) as items:
        frame_ms = [track_prepared(slam, item)[1] for item in items]
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
