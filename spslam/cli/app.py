"""The commands. Each imports what it needs when it is called, so that `--help` answers at once."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spslam import __version__
from spslam.cli import bench as cli_bench
from spslam.cli import data as cli_data
from spslam.cli import eval as cli_trajectories
from spslam.cli import export as cli_export
from spslam.cli import map as cli_map
from spslam.cli import track as cli_track
from spslam.cli import train as cli_training
from spslam.cli import view as cli_view
from spslam.cli.options import (
    FAILED,
    INTERRUPTED,
    CommandGroup,
    ExtractorOption,
    MaxFramesOption,
    PairWithinOption,
    RerunOption,
    SetOption,
    StartOption,
    StrideOption,
    TimeUnitOption,
    TimeUnitValue,
    WeightsOption,
    resolve_config,
)
from spslam.errors import ConfigError, RunStoppedError, ScaleError
from spslam.notices import notice, shown_notices
from spslam.process.failures import line_of
from spslam.process.signals import cleaned_up, ends_on_signals, interrupt_as_flag, tell_end
from spslam.process.streams import tolerant_streams

if TYPE_CHECKING:
    from spslam.config import Config
    from spslam.interfaces import Sequence as FrameSequence
    from spslam.run.metric_scale import ScaleRequest
    from spslam.run.output import RunLog
    from spslam.visualization.viewer import Viewer

# Columns of a help text on a wide terminal.
_WIDEST_HELP = 120
_BLAS_THREADS = "OPENBLAS_NUM_THREADS"

_logger = logging.getLogger(__name__)


class SensorChoice(StrEnum):
    """Values of `--sensor`."""

    AUTO = "auto"
    MONO = "mono"
    STEREO = "stereo"
    RGBD = "rgbd"


class ViewerChoice(StrEnum):
    """Values of `--viewer`."""

    NONE = "none"
    OPEN3D = "open3d"
    RERUN = "rerun"


class _Commands(CommandGroup):
    """All commands: a signal that ends one is told in a line of our own."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            tell_end()
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="spslam",
    cls=_Commands,
    help="Visual SLAM with SuperPoint as its front end: images in, trajectory and map out.",
    epilog="Start with: spslam demo",
    no_args_is_help=True,
    add_completion=False,
    # Rich would read :B: in a help text as an emoji and [x] as markup.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST_HELP},
)

app.add_typer(cli_bench.app)
app.add_typer(cli_data.app)
app.add_typer(cli_map.app)
app.add_typer(cli_training.app)
app.command()(cli_training.adapt)
app.command()(cli_export.export)
app.command("eval")(cli_trajectories.evaluate)
app.command()(cli_track.track)
app.command()(cli_view.view)

PathArgument = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        show_default=False,
        help="A dataset's root, one sequence's folder, a folder of images (left/ right/ for stereo, depth/ for RGB-D), "
        "a video, or a built-in world: demo, demo-small, demo-loop, demo-twins.",
    ),
]
SensorOption = Annotated[
    SensorChoice, typer.Option(help="What to use of the sequence; auto: the most that is there.")
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        show_default=False,
        help="Configuration: a built-in one (see spslam config) or a YAML file. Default: the one for the dataset and "
        "sensor.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        show_default=False,
        help="Where the results go; a folder of an earlier run is replaced as a whole, any other is left alone. "
        "Default: runs/SEQUENCE-SENSOR-EXTRACTOR[-N].",
    ),
]
ViewerOption = Annotated[
    ViewerChoice,
    typer.Option(
        help="Watch the run in a window (open3d; its keys are printed) or in Rerun's viewer."
    ),
]
ScaleOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND=VALUE",
        show_default=False,
        help="What makes a single camera's map metric: height=1.65 (metres over the ground), distance=A:B:2.5 (metres "
        "between the camera's positions at frames A and B), ground-truth=A:B (the same from the true poses).",
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spslam {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    path: PathArgument,
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What PATH is: kitti, tum, euroc, images, video, demo or a plug-in's; auto recognises it.",
        ),
    ] = "auto",
    sequence: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Which sequence of a dataset's root, for example 00 or fr1_desk.",
        ),
    ] = None,
    sensor: SensorOption = SensorChoice.AUTO,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Camera calibration (YAML) for images and videos.",
        ),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    extractor: ExtractorOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    viewer: ViewerOption = ViewerChoice.NONE,
    rerun: RerunOption = None,
    start: StartOption = 0,
    max_frames: MaxFramesOption = None,
    stride: StrideOption = 1,
    map_file: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FILE",
            show_default=False,
            help="A map.npz of an earlier run; with --localize or --extend.",
        ),
    ] = None,
    localize: Annotated[
        bool,
        typer.Option(
            "--localize", help="Find the camera in the map of --map, which stays as it is."
        ),
    ] = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="Let the map of --map grow; the file is replaced.")
    ] = False,
    scale: ScaleOption = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Keep features in this folder, and take those that are there: runs over the same images with other "
            "settings of tracking and mapping extract nothing, with the same results. Several runs may share it.",
        ),
    ] = None,
    time_unit: TimeUnitOption = TimeUnitValue.AUTO,
    pair_within: PairWithinOption = 0.02,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime",
            help="Let frames come when their stamps say and drop those that nobody has time for; they are counted. "
            "Without: every frame, as fast as it can be had, and the same bytes each time.",
        ),
    ] = False,
    disturbances: Annotated[
        list[str] | None,
        typer.Option(
            "--disturb",
            metavar="KIND:KEY=VALUE,…",
            show_default=False,
            help="Put a disturbance into the recording, to see what becomes of it: still:frames=70, "
            "mover:share=0.25,speed=3.3, dark:at=100,frames=8 or jump:at=150,to=20; may be repeated.",
        ),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            show_default=False,
            help="Which results to write beside trajectory.tum, config.yaml, metrics.json and log.txt: trajectory "
            "(other formats, keyframes), map, ground-truth, frames, points, plots, report. Default: all.",
        ),
    ] = None,
) -> None:
    """Track a sequence; write its trajectory, map, figures and pictures to a folder.

    \b
    spslam run demo
    spslam run /data/kitti --sequence 00
    spslam run /data/rgbd_dataset_freiburg1_desk --out runs/desk
    spslam run walk.mp4 --calibration phone.yaml --extractor orb
    spslam run walk2.mp4 --calibration phone.yaml --map runs/walk-mono-superpoint/map.npz --localize

    ^C stops after the current frame and writes what is there; a second ^C drops it. SIGTERM and SIGHUP are like ^C.
    Exit codes: 0 done, 2 an error (told in one line), 130 stopped by ^C, 143 by SIGTERM, 129 by SIGHUP.
    """
    from spslam.config import config_for
    from spslam.datasets import open_sequence
    from spslam.run.output import RunLog

    mode = _mode(map_file, localize, extend)
    chosen = _outputs(outputs, extend)
    with RunLog() as log:
        frames = open_sequence(
            path,
            dataset=dataset,
            sequence=sequence,
            sensor=sensor.value,
            calibration=calibration,
            start=start,
            max_frames=max_frames,
            stride=stride,
            time_unit=time_unit.value,
            pair_within_s=pair_within,
        )
        if disturbances:
            frames = _disturbed(frames, disturbances)
        config_name = config or config_for(frames.dataset, frames.sensor)
        resolved = resolve_config(config_name, overrides, extractor, weights)
        labels = {
            "dataset": frames.dataset,
            "extractor": resolved.features.extractor,
            "config": config_name,
            "mode": mode,
        }
        if map_file is not None:
            labels["map_file"] = str(map_file)
        if scale is not None and localize:
            raise ConfigError(
                "--scale is for a map that is made or extended; --localize leaves it as it is: drop one"
            )
        labels["pace"] = "realtime" if realtime else "offline"
        if disturbances:
            labels["disturb"] = " ".join(disturbances)
        if cache is not None:
            # Whoever reads the timings must know.
            labels["feature_cache"] = str(cache)
        request = (
            None
            if scale is None
            else _scale(scale, frames, range(start, start + stride * len(frames), stride))
        )
        watch = partial(_open_viewer, viewer, rerun, frames)
        _run(
            frames,
            resolved,
            labels,
            out,
            watch,
            log,
            map_file,
            extend,
            request,
            cache,
            realtime,
            chosen,
        )


def _disturbed(frames: FrameSequence, disturbances: list[str]) -> FrameSequence:
    from spslam.datasets.world.disturbed import disturb

    return disturb(frames, disturbances)


@app.command()
def demo(
    sensor: SensorOption = SensorChoice.AUTO,
    config: ConfigOption = None,
    overrides: SetOption = None,
    extractor: ExtractorOption = None,
    weights: WeightsOption = None,
    out: OutOption = None,
    viewer: ViewerOption = ViewerChoice.NONE,
    rerun: RerunOption = None,
    max_frames: MaxFramesOption = None,
) -> None:
    """Run on a rendered world that is built in: spslam run demo."""
    run(
        "demo",
        sensor=sensor,
        config=config,
        overrides=overrides,
        extractor=extractor,
        weights=weights,
        out=out,
        viewer=viewer,
        rerun=rerun,
        max_frames=max_frames,
    )


@app.command("config")
def show_config(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FILE]", show_default=False, help="Which one; without: list names."
        ),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Print a configuration with every value it stands for, or list the built-in ones."""
    from spslam.config import config_names, load_config

    if name is None:
        typer.echo("\n".join(config_names()))
    else:
        typer.echo(load_config(name, overrides).to_yaml(), nl=False)


@ends_on_signals
def main(arguments: Sequence[str] | None = None) -> None:
    """The `spslam` command; ends the process with its exit code."""
    # Its warnings would break the progress line; what is wrong with an image is in the log.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    # Quiet: FFmpeg would say beside our own line what it cannot read.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # Products and images here are small: threads of NumPy's and OpenCV's own would fight over few cores with those that
    # read, find features and track, and OpenCV's even do so while they wait.
    # Two threads also sum in another order, which changes the last bits of maps.
    threads = os.environ.get(_BLAS_THREADS, "1")
    os.environ[_BLAS_THREADS] = "1"
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    with tolerant_streams() as (printed, _):
        code = _call(list(sys.argv[1:] if arguments is None else arguments), threads)
        printed.flush()
        if printed.failure is not None:
            reason = getattr(printed.failure, "strerror", None) or printed.failure
            typer.echo(f"error: cannot write to standard output: {reason}", err=True)
            code = code or FAILED
    sys.exit(code)


@cache
def _command() -> Any:
    """All commands; reading the types of their options takes longer than most of what they do with small files."""
    return typer.main.get_command(app)


def _call(arguments: list[str], threads: str) -> int:
    """Do what the arguments say, with so many threads asked for NumPy's products; the exit code."""
    command = _command()
    try:
        with shown_notices(lambda found: typer.echo(f"note: {found.text}", err=True)):
            if threads != "1":
                notice(
                    _logger,
                    "blas_threads",
                    "%s=%s is not used: one thread keeps the bytes",
                    _BLAS_THREADS,
                    threads,
                )
            # The cards of weights say which command made them.
            code = command.main(
                arguments, prog_name="spslam", standalone_mode=False, obj=list(arguments)
            )
    except typer.Abort as error:
        # Nothing here asks; it stands for an end of file that nobody was ready for.
        raise error.__cause__ or error from None
    except Exception as error:
        line = line_of(error, command, arguments)
        if line is None:
            raise
        if line:
            typer.echo(f"error: {line}", err=True)
        return FAILED
    return code if isinstance(code, int) else 0


def _run(
    frames: FrameSequence,
    config: Config,
    labels: dict[str, str],
    out: Path | None,
    watch: Callable[[], Viewer],
    log: RunLog,
    map_file: Path | None,
    extend: bool,
    scale: ScaleRequest | None,
    cache: Path | None,
    realtime: bool,
    outputs: tuple[str, ...],
) -> None:
    from spslam.cli.console import ProgressLine, print_outcome
    from spslam.map.io import HeldMap, load_map
    from spslam.pipeline import run as run_sequence
    from spslam.run.output import OutputFolder, default_output
    from spslam.slam.system import Slam

    if (
        map_file is not None
        and not extend
        and out is not None
        and map_file.resolve().parent == out.resolve()
    ):
        raise ConfigError(
            f"--out {out} would be replaced with the map that --localize leaves as it is: give another"
        )
    output = OutputFolder(
        out or default_output(frames.name, frames.sensor, config.features.extractor),
        numbered=out is None,
    )
    held: HeldMap | None = None
    try:
        if map_file is not None and extend:
            held = HeldMap(map_file)
        with cleaned_up(output.discard):
            saved = None if map_file is None else load_map(map_file)
            mapping = saved is None or extend
            slam = Slam.from_config(
                config, saved=saved, mapping=mapping, cache=cache, offline=not realtime
            )
            labels = {**labels, "engine": slam.preprocessor.engine}
            viewer = watch()
            with interrupt_as_flag() as interrupted, ProgressLine(len(frames)) as line:
                outcome = run_sequence(
                    slam,
                    frames,
                    output,
                    viewer,
                    labels,
                    log,
                    line.update,
                    interrupted.is_set,
                    scale,
                    realtime,
                    outputs,
                )
                # A map without the size that was asked for is a whole map.
                if held is not None and (
                    outcome.failure is None or isinstance(outcome.failure, ScaleError)
                ):
                    held.save(slam.save_map, outcome.folder / "map.npz")
    except RunStoppedError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        output.discard()
        if held is not None:
            held.release()
    print_outcome(outcome)
    if outcome.failure is not None:
        raise outcome.failure
    # While the results were written, too.
    if outcome.stopped or interrupted.is_set():
        raise typer.Exit(INTERRUPTED)


def _mode(map_file: Path | None, localize: bool, extend: bool) -> str:
    if map_file is None and not (localize or extend):
        return "slam"
    if map_file is None or localize == extend:
        found = [
            name
            for name, given in (("--map", map_file), ("--localize", localize), ("--extend", extend))
            if given
        ]
        raise ConfigError(
            f"--map FILE goes with either --localize or --extend, found {' '.join(found)}"
        )
    return "localize" if localize else "extend"


def _outputs(text: str | None, extend: bool) -> tuple[str, ...]:
    from spslam.reports.writers import OUTPUTS, parse_outputs

    if text is None:
        return OUTPUTS
    chosen = parse_outputs(text)
    if extend and "map" not in chosen:
        raise ConfigError("--extend makes a map: add map to --outputs")
    return chosen


def _scale(text: str, frames: FrameSequence, indices: range) -> ScaleRequest:
    from spslam.run.metric_scale import check_scale, parse_scale

    request = parse_scale(text)
    check_scale(request, frames, indices)
    return request


def _open_viewer(choice: ViewerChoice, recording: Path | None, frames: FrameSequence) -> Viewer:
    from spslam.visualization.viewer import Viewers

    if recording is None and choice is ViewerChoice.NONE:
        return Viewers()
    title = f"spslam {frames.name}"
    viewers: list[Viewer] = []
    if recording is not None or choice is ViewerChoice.RERUN:
        from spslam.visualization.rerun_viewer import RerunViewer

        if recording is not None:
            viewers.append(RerunViewer(recording, frames.ground_truth, title))
        if choice is ViewerChoice.RERUN:
            viewers.append(RerunViewer(None, frames.ground_truth, title))
    if choice is ViewerChoice.OPEN3D:
        from spslam.visualization.controls import keys_help
        from spslam.visualization.live_window import Open3DViewer

        viewers.append(Open3DViewer(frames.ground_truth, title))
        typer.echo(keys_help(), err=True)
    return Viewers(*viewers)
