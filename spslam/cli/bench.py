"""The benchmark commands, `spslam bench …`."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from spslam.cli import suite as cli_suite
from spslam.cli.options import CommandGroup, command_group
from spslam.cli.peers import command as cli_peers
from spslam.notices import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from spslam.benchmark.speed import RunSpeed, RunSpeedComparison, SpeedReport
    from spslam.frame import Frame, Sensor
    from spslam.process.timing import Timing

# Image sizes (height, width) of the engines' timings, pixels: half of TUM, TUM, EuRoC, KITTI.
_SIZES = ((240, 320), (480, 640), (480, 752), (376, 1241))
# The same with --quick, pixels.
_QUICK_SIZES = ((64, 96),)
# Sensor and image size (height, width) of the timed runs, pixels: EuRoC's for stereo, else TUM's.
_RUNS = (("mono", (480, 640)), ("stereo", (480, 752)), ("rgbd", (480, 640)))
# Built-in worlds of the runs, without and with --quick.
_WORLD, _QUICK_WORLD = "demo", "demo-small"
# Frames of a timed run, without and with --quick.
_FRAMES, _QUICK_FRAMES = 60, 3
# Rounds of engines and of runs with --quick.
_QUICK_ROUNDS = 2
# Timed starts with a filled cache; their median is reported.
_WARM_STARTS = 3

# Runs of each sensor; the reference clock runs between them.
_RUN_ROUNDS = 5

# Command that is called if the first argument names no command.
_SUITE = "suite"
# Options of the help.
_HELP = ("-h", "--help")


class _BenchGroup(CommandGroup):
    """Commands; a first argument that names no command names a suite: `spslam bench smoke`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in _HELP:
            args = [_SUITE, *args]
        return super().parse_args(ctx, args)


app = command_group(
    "bench",
    "Run a suite, `spslam bench SUITE` (smoke, ablation, kitti, tum, euroc, or a YAML file; "
    "its options: `spslam bench suite --help`), compare two results, run other systems beside "
    "spslam, or measure this machine.",
    _BenchGroup,
)
app.command(_SUITE)(cli_suite.suite)
app.command("list")(cli_suite.show_list)
app.command()(cli_suite.show)
app.command()(cli_suite.compare)
app.command()(cli_peers.peers)


@app.command()
def speed(
    context: typer.Context,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|NAME",
            show_default=False,
            help="Networks to time; repeatable. Default: both built-in ones.",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, max=100_000, help="Rounds of each engine.")
    ] = 15,
    threads: Annotated[
        int, typer.Option(metavar="N", min=0, max=256, help="Threads an engine; 0: all cores.")
    ] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Time a small image, two rounds and three frames.")
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", show_default=False, help="Write the metrics as JSON."
        ),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Also write the page to this file."),
    ] = None,
) -> None:
    """Time engines, networks, stages, runs with each sensor, and the start of a process.

    Each engine and network is timed at four image sizes. The runs are on a rendered world.

    \b
    spslam bench speed --markdown docs/speed.md
    """
    from spslam.errors import OutputError
    from spslam.io.files import write_atomic

    for path in (json_file, markdown):
        # Fail before the measurement, not after it.
        if path is not None and not path.parent.is_dir():
            raise OutputError(f"cannot write {path}: there is no folder {path.parent}")
    command = shlex.join(["spslam", *(context.obj or sys.argv[1:])])
    report = _measure(command, weights, _QUICK_ROUNDS if quick else rounds, threads, quick)
    text = report.to_markdown()
    typer.echo(text, nl=False)
    if json_file is not None:
        write_atomic(json_file, report.to_json())
    if markdown is not None:
        write_atomic(markdown, text)


def _measure(
    command: str, weights: list[str] | None, rounds: int, threads: int, quick: bool
) -> SpeedReport:
    from spslam.benchmark.speed import SpeedReport
    from spslam.frontend.engine_timing import make_extractors, time_engines
    from spslam.frontend.engines.engine import usable_cores
    from spslam.frontend.superpoint.checkpoints import BUILT_IN, read_checkpoint
    from spslam.frontend.timing_reference import REFERENCE_SIZE, reference_clock
    from spslam.process.machine import processor
    from spslam.run.metrics import versions

    networks = weights or [*BUILT_IN]
    for network in networks:
        # Refuse unusable weights before the runs, not after them.
        read_checkpoint(network)
    report = SpeedReport(
        command, {**processor(), "cores": usable_cores(), **versions()}, rounds, threads
    )
    # Time the runs first, before all engines are loaded: loaded engines make runs slower.
    world, count = (_QUICK_WORLD, _QUICK_FRAMES) if quick else (_WORLD, _FRAMES)
    reference_size = _QUICK_SIZES[0] if quick else REFERENCE_SIZE
    with reference_clock(threads, reference_size) as clock:
        for sensor, size in _RUNS:
            typer.echo(f"runs, {sensor}", err=True)
            frames = _rendered(world, sensor, _QUICK_SIZES[0] if quick else size, count)
            report.runs.append(
                _runs(
                    world, sensor, frames, threads, clock, _QUICK_ROUNDS if quick else _RUN_ROUNDS
                )
            )
            if sensor == "mono":
                report.parts = _parts(frames, threads)
    extractors = make_extractors(networks, threads)
    for size in _QUICK_SIZES if quick else _SIZES:
        typer.echo(f"{counted(len(extractors), 'engine')} at {size[1]}x{size[0]}", err=True)
        report.engines += time_engines(extractors, size, rounds)
    if not quick:
        typer.echo("starts", err=True)
        report.starts = time_starts(_QUICK_WORLD, threads)
    return report


def _rendered(world: str, sensor: str, size: tuple[int, int], count: int) -> list[Frame]:
    """Render the first frames of a built-in world at a size (height, width), before the timing."""
    from spslam.datasets.world.world import RenderedWorld, world_spec

    spec = replace(world_spec(world), height=size[0], width=size[1])
    return list(islice(RenderedWorld(spec, cast("Sensor", sensor)), count))


def _runs(
    world: str,
    sensor: str,
    frames: list[Frame],
    threads: int,
    clock: Callable[[], float],
    rounds: int,
) -> RunSpeedComparison:
    """Time runs, with the reference clock before, between and after them."""
    from spslam.benchmark.speed import RunSpeedComparison

    runs, reference_ms = [], [clock()]
    for _ in range(rounds):
        runs.append(_run(world, sensor, frames, threads))
        reference_ms.append(clock())
    return RunSpeedComparison.of(runs, reference_ms)


def _run(world: str, sensor: str, frames: list[Frame], threads: int) -> RunSpeed:
    from spslam.benchmark.speed import time_run
    from spslam.config import load_config
    from spslam.factory import build_components
    from spslam.slam.system import Slam

    config = load_config(f"demo_{sensor}", [f"features.threads={threads}"])
    components = build_components(config, offline=True)
    # The first image of a size compiles the network.
    components.extractor.extract(frames[0].image)
    return time_run(Slam(config, components), frames, world)


def _parts(frames: list[Frame], threads: int) -> dict[str, Timing]:
    """Time the stages of one image: read the file, network, keypoints, matching, pose."""
    from spslam.benchmark.speed_stages import time_tracking_stages
    from spslam.config import FeatureConfig, load_config
    from spslam.factory import build_components
    from spslam.frontend.engine_timing import time_stages
    from spslam.frontend.extractors.superpoint_extractor import SuperPointExtractor

    images = [frame.image for frame in frames]
    extractor = SuperPointExtractor(FeatureConfig(threads=threads))
    features = extractor.extract(images[0])
    network, keypoints = time_stages(extractor, images)
    components = build_components(load_config("demo_stereo", [f"features.threads={threads}"]))
    return {
        "reading a PNG file": _reading(images),
        "network": network,
        "keypoints of its maps": keypoints,
        **time_tracking_stages(
            components.matcher, components.pose_solver, len(images), features.descriptors.shape[1]
        ),
    }


def time_starts(world: str, threads: int) -> dict[str, float]:
    """Measure seconds from the start of a process to its first pose: `cold` and `warm` cache.

    With a filled cache, the value is the median of several starts.
    """
    command = [sys.executable, "-m", "spslam", "run", world, "--max-frames", "1"]
    from spslam.io.files import temporary_folder

    with temporary_folder() as folder:
        out = folder / "out"
        command += ["--out", str(out), "--set", f"features.threads={threads}"]
        seconds = []
        for _ in range(1 + _WARM_STARTS):
            subprocess.run(
                command,
                env={**os.environ, "SPSLAM_CACHE": str(folder)},
                stdout=subprocess.DEVNULL,
                check=True,
                text=True,
            )
            seconds.append(json.loads((out / "metrics.json").read_bytes())["start_to_first_pose_s"])
    return {"cold": seconds[0], "warm": median(seconds[1:])}


def _reading(images: list[NDArray[np.uint8]]) -> Timing:
    import cv2

    from spslam.datasets.images.decoding import read_image
    from spslam.io.files import temporary_folder, write_atomic
    from spslam.process.timing import Timing

    milliseconds = []
    with temporary_folder() as folder:
        for index, image in enumerate(images):
            path = folder / f"{index}.png"
            write_atomic(path, cv2.imencode(".png", image)[1].tobytes(), durable=False)
            start = perf_counter()
            read_image(path)
            milliseconds.append((perf_counter() - start) * 1e3)
    return Timing.of(milliseconds)
