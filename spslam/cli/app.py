"""The commands of `spslam`.

Each command imports its modules when it is called, to keep `--help` fast.
"""

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
from spslam.cli import features as cli_features
from spslam.cli import map as cli_map
from spslam.cli import mesh as cli_mesh
from spslam.cli import plugin as cli_plugin
from spslam.cli import track as cli_track
from spslam.cli import train as cli_training
from spslam.cli import trajectory as cli_trajectory
from spslam.cli import view as cli_view
from spslam.cli.cameras import calibrate as cli_calibrate
from spslam.cli.cameras import calibration as cli_calibration
from spslam.cli.cameras import check as cli_check
from spslam.cli.cameras.own_calibration import OwnCalibration, find_own_calibration
from spslam.cli.options import (
    FAILED,
    INTERRUPTED,
    CommandGroup,
    ConfigArgument,
    DepthTopicOption,
    ExtractorOption,
    MaskOption,
    MaxFramesOption,
    PairWithinOption,
    RerunOption,
    RightTopicOption,
    SetOption,
    StartOption,
    StrideOption,
    TimeUnitOption,
    TimeUnitValue,
    TopicOption,
    TruthTopicOption,
    WeightsOption,
    resolve_config,
)
from spslam.errors import (
    ConfigError,
    InputError,
    MissingCalibrationError,
    NoPoseError,
    RunStoppedError,
    ScaleError,
)
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

# Maximum width of a help text, columns.
_WIDEST_HELP = 120
# Environment variable: number of threads of NumPy's matrix products.
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
    """All commands; prints one line when a signal ends a command."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            tell_end()
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="spslam",
    cls=_Commands,
    help="Visual SLAM with a SuperPoint front end: images in, trajectory and map out.",
    epilog="Start with: spslam demo",
    no_args_is_help=True,
    add_completion=False,
    # Rich would show :B: in a help text as an emoji and read [x] as markup.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST_HELP},
)

app.add_typer(cli_bench.app)
app.add_typer(cli_calibration.app)
app.add_typer(cli_calibrate.app)
app.add_typer(cli_data.app)
app.add_typer(cli_map.app)
app.add_typer(cli_plugin.app)
app.add_typer(cli_training.app)
app.command()(cli_training.adapt)
app.command()(cli_check.check)
app.command()(cli_export.export)
app.command("export-trajectory")(cli_trajectory.export_trajectory)
app.command()(cli_features.features)
app.command()(cli_features.match)
app.command()(cli_mesh.mesh)
app.command("eval")(cli_trajectories.evaluate)
app.command()(cli_track.track)
app.command()(cli_view.view)

PathArgument = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        show_default=False,
        help="A dataset's root, a sequence's folder, a folder of images (left/ right/ for stereo, "
        "depth/ for RGB-D), a video, a ROS bag, a live camera (camera:0, realsense:, oak:), or a "
        "built-in world: demo, demo-small, demo-loop, demo-twins, demo-crowd, demo-turn, "
        "demo-street.",
    ),
]
SensorOption = Annotated[
    SensorChoice, typer.Option(help="Sensor to use; auto: all that the sequence has.")
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        show_default=False,
        help="Configuration: a built-in one (see spslam config) or a YAML file. Default: by "
        "dataset and sensor.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        show_default=False,
        help="Output folder. The folder of an earlier run is replaced as a whole; any other folder "
        "is refused. Default: runs/SEQUENCE-SENSOR-EXTRACTOR[-N].",
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
        help="Makes the map of a single camera metric: height=1.65 (metres above the ground "
        "plane), distance=A:B:2.5 (metres between the camera positions at frames A and B), "
        "ground-truth=A:B (the same from the true poses), tag=0.16 (side of the AprilTags or ArUco "
        "markers in the scene, metres).",
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
            help="Format of PATH: kitti, tum, euroc, images, video, ros, demo, another one of "
            "docs/datasets.md, a layout (a name of spslam data layouts, or a YAML file) or a "
            "plug-in's; auto recognises it.",
        ),
    ] = "auto",
    sequence: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Sequence below a dataset's root, for example 00 or fr1_desk.",
        ),
    ] = None,
    sensor: SensorOption = SensorChoice.AUTO,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Camera calibration for images, videos and bags, of spslam or another program; "
            "without one the camera is found from the images, see spslam calibrate (extra colmap).",
        ),
    ] = None,
    self_calibration: Annotated[
        bool,
        typer.Option(
            "--self-calibration/--no-self-calibration",
            help="Find the camera of images and videos without a calibration from the images.",
        ),
    ] = True,
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
            help="The map.npz of an earlier run; with --localize or --extend.",
        ),
    ] = None,
    localize: Annotated[
        bool,
        typer.Option(
            "--localize", help="Localize the camera in the map of --map; the map does not change."
        ),
    ] = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="Extend the map of --map; the file is replaced.")
    ] = False,
    scale: ScaleOption = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Cache features in this folder: runs over the same images with other settings of "
            "tracking and mapping extract nothing. The results are the same. Several runs may "
            "share the folder.",
        ),
    ] = None,
    time_unit: TimeUnitOption = TimeUnitValue.AUTO,
    pair_within: PairWithinOption = 0.02,
    mask: MaskOption = None,
    topic: TopicOption = None,
    right_topic: RightTopicOption = None,
    depth_topic: DepthTopicOption = None,
    truth_topic: TruthTopicOption = None,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime",
            help="Play frames at the pace of their time stamps; drop and count those that come "
            "while tracking is busy. Without: every frame, as fast as possible, and the same bytes "
            "each time.",
        ),
    ] = False,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Keep the tracked frames of a live camera as images in a new folder; spslam run "
            "DIR repeats the run.",
        ),
    ] = None,
    disturbances: Annotated[
        list[str] | None,
        typer.Option(
            "--disturb",
            metavar="KIND:KEY=VALUE,…",
            show_default=False,
            help="Add a disturbance to the recording, to test the run: still:frames=70, "
            "mover:fraction=0.25,speed=3.3, dark:at=100,frames=8, blur:at=0,every=3, "
            "jump:at=150,to=20 or body:fraction=0.2; may be repeated.",
        ),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            show_default=False,
            help="Results to write beside trajectory.tum, config.yaml, metrics.json and log.txt: "
            "trajectory (other formats, keyframes), map, ground-truth, frames, points, plots, "
            "report. Default: all.",
        ),
    ] = None,
) -> None:
    """Track a sequence; write its trajectory, map, metrics and plots to a folder.

    \b
    spslam run demo
    spslam run /data/kitti --sequence 00
    spslam run /data/rgbd_dataset_freiburg1_desk --out runs/desk
    spslam run walk.mp4
    spslam run walk.mp4 --calibration phone.yaml --extractor orb
    spslam run walk.bag --topic /camera/image_raw
    spslam run walk2.mp4 --calibration phone.yaml --map runs/walk-mono-superpoint/map.npz --localize
    spslam run camera:0 --calibration webcam.yaml --record walk3

    ^C stops after the current frame and writes the results; a second ^C discards them. SIGTERM and
    SIGHUP act like ^C. Exit codes: 0 done, 2 an error (printed in one line), 130 stopped by ^C,
    143 by SIGTERM, 129 by SIGHUP.
    """
    from spslam.config import config_for
    from spslam.datasets import auto_masked, is_live, open_sequence
    from spslam.run.output import RunLog

    topics = {
        "topic": topic,
        "right_topic": right_topic,
        "depth_topic": depth_topic,
        "truth_topic": truth_topic,
    }
    live = dataset == "auto" and is_live(path)
    _check_live(path, live, record, disturbances)
    realtime = realtime or live
    mode = _mode(map_file, localize, extend)
    chosen = _outputs(outputs, extend)
    with RunLog() as log:
        opened = partial(
            open_sequence,
            path,
            dataset=dataset,
            sequence=sequence,
            sensor=sensor.value,
            start=start,
            max_frames=max_frames,
            stride=stride,
            time_unit=time_unit.value,
            pair_within_s=pair_within,
            mask=None if mask == "auto" else mask,
            **topics,
        )
        own: OwnCalibration | None = None
        try:
            frames = opened(calibration=calibration)
        except MissingCalibrationError as error:
            if live or not self_calibration:
                raise
            own = find_own_calibration(error, path, sequence, dataset, sensor.value, time_unit)
            frames = opened(calibration=own.path)
            calibration = own.path
        if disturbances:
            frames = _disturbed(frames, disturbances)
        if mask == "auto" and live:
            raise ConfigError("--mask auto looks at a recording first: give a mask image")
        if mask == "auto":
            frames = auto_masked(frames)
        config_name = config or config_for(frames.dataset, frames.sensor)
        resolved = resolve_config(config_name, overrides, extractor, weights)
        labels: dict[str, Any] = {
            "dataset": frames.dataset,
            "extractor": resolved.features.extractor,
            "config": config_name,
            "mode": mode,
        }
        if map_file is not None:
            labels["map_file"] = str(map_file)
        if scale is not None and localize:
            raise ConfigError(
                "--scale cannot be used with --localize, which does not change the map: "
                "drop one of the two"
            )
        labels["pace"] = "realtime" if realtime else "offline"
        labels |= (
            _live_labels(frames.source, record)
            if live
            else _input_labels(
                path,
                dataset,
                sequence,
                calibration,
                time_unit.value,
                str(pair_within),
                mask,
                topics,
            )
        )
        if own is not None:
            labels |= own.labels
        if disturbances:
            labels["disturb"] = " ".join(disturbances)
        if cache is not None:
            # The cache changes the timings.
            labels["feature_cache"] = str(cache)
        request = (
            None
            if scale is None
            else _scale(scale, frames, range(start, start + stride * _most_frames(frames), stride))
        )
        watch = partial(open_viewer, viewer, rerun, frames)
        if record is not None:
            watch = partial(_recorded, watch, record, frames)
        try:
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
                None if own is None else own.text,
            )
        except (InputError, NoPoseError) as error:
            if live or disturbances:
                raise
            command = cli_check.command_line(labels, sensor.value, start, max_frames, stride)
            raise type(error)(f"{error}; {command} says what is wrong") from None


def _input_labels(
    path: str,
    dataset: str,
    sequence: str | None,
    calibration: Path | None,
    time_unit: str,
    pair_within: str,
    mask: str | None,
    topics: dict[str, str | None],
) -> dict[str, str]:
    """Return how the recording was opened, so that an export finds its images again."""
    place = Path(path).absolute()
    given = {
        "input_path": str(place) if place.exists() else path,
        # The path of a layout is relative to this folder, its name is not.
        "input_dataset": str(Path(dataset).expanduser().absolute())
        if dataset.lower().endswith((".yaml", ".yml"))
        else dataset,
        "input_sequence": sequence,
        "input_calibration": None if calibration is None else str(calibration.absolute()),
        "input_time_unit": time_unit,
        "input_pair_within_s": pair_within,
        "input_mask": mask if mask in (None, "auto") else str(Path(mask).absolute()),
        **{f"input_{key}": value for key, value in topics.items()},
    }
    return {key: value for key, value in given.items() if value is not None}


def _check_live(path: str, live: bool, record: Path | None, disturbances: list[str] | None) -> None:
    """Raise a ConfigError for options that fit only live cameras, or only recordings."""
    if record is not None and not live:
        raise ConfigError(f"--record is for live cameras (camera:0, realsense:, oak:), not {path}")
    if disturbances and live:
        raise ConfigError(f"--disturb is for recordings, and {path} is a live camera")


def _live_labels(source: str, record: Path | None) -> dict[str, str]:
    """Return how the images of a live camera are found again: where they were recorded, if so."""
    labels = {"input_live": source}
    if record is not None:
        labels |= {"input_path": str(record.absolute()), "input_dataset": "images"}
    return labels


def _most_frames(frames: FrameSequence) -> int:
    from spslam.pipeline import number_of_frames

    total = number_of_frames(frames)
    return sys.maxsize if total is None else total


def _recorded(watch: Callable[[], Viewer], folder: Path, frames: FrameSequence) -> Viewer:
    from spslam.datasets.live.recorder import FrameRecorder
    from spslam.datasets.live.sequence import LiveSequence
    from spslam.visualization.viewer import Viewers

    assert isinstance(frames, LiveSequence)
    recorder = FrameRecorder(folder, frames)
    return Viewers(watch(), recorder)


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
    """Run on a built-in rendered world: spslam run demo."""
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
def show_config(name: ConfigArgument = None, overrides: SetOption = None) -> None:
    """Print a configuration with all its values, or list the built-in ones."""
    from spslam.config import config_names, load_config

    if name is None:
        typer.echo("\n".join(config_names()))
    else:
        typer.echo(load_config(name, overrides).to_yaml(), nl=False)


@ends_on_signals
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the `spslam` command and end the process with its exit code."""
    # OpenCV's warnings would break the progress line; the log has the faults of images.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    # -8: quiet. FFmpeg would print a second line for a file that it cannot read.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # Matrices and images are small: threads of NumPy and OpenCV would compete for cores with the
    # threads that read, extract and track. OpenCV's threads use a core even while they wait.
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
    """Return all commands; cached, because typer takes long to read the types of their options."""
    return typer.main.get_command(app)


def _call(arguments: list[str], threads: str) -> int:
    """Run the command of the arguments and return its exit code.

    Args:
        arguments: command line without the name of the program.
        threads: value of `OPENBLAS_NUM_THREADS` that the user set, or "1".
    """
    command = _command()
    try:
        with shown_notices(lambda found: typer.echo(f"note: {found.text}", err=True)):
            if threads != "1":
                notice(
                    _logger,
                    "blas_threads",
                    "%s=%s is not used: only one thread gives the same bytes each time",
                    _BLAS_THREADS,
                    threads,
                )
            # The model cards of weights name the command that made them.
            code = command.main(
                arguments, prog_name="spslam", standalone_mode=False, obj=list(arguments)
            )
    except typer.Abort as error:
        # No command prompts the user: typer raises this for an unexpected end of file.
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
    own_calibration: str | None = None,
) -> None:
    from spslam.cli.console import ProgressLine, print_result
    from spslam.datasets import write_masks
    from spslam.io.files import write_atomic
    from spslam.map.io import HeldMap, load_map
    from spslam.pipeline import number_of_frames
    from spslam.pipeline import run as run_sequence
    from spslam.run.output import CALIBRATION, OutputFolder, default_output
    from spslam.slam.system import Slam

    if (
        map_file is not None
        and not extend
        and out is not None
        and map_file.resolve().parent == out.resolve()
    ):
        raise ConfigError(
            f"--out {out} holds the map of --localize and would be replaced: give another folder"
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
            if labels.get("input_mask") == "auto":
                write_masks(frames, output.partial)
            saved = None if map_file is None else load_map(map_file)
            localization_only = saved is not None and not extend
            slam = Slam.from_config(
                config,
                saved=saved,
                localization_only=localization_only,
                cache=cache,
                offline=not realtime,
            )
            labels = {**labels, "engine": slam.preprocessor.engine}
            if own_calibration is not None:
                write_atomic(output.partial / CALIBRATION, own_calibration, durable=False)
            viewer = watch()
            total = number_of_frames(frames)
            with interrupt_as_flag() as interrupted, ProgressLine(total) as line:
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
                # A map whose scale could not be set is complete otherwise.
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
    print_result(outcome)
    if outcome.failure is not None:
        raise outcome.failure
    # ^C may also come while the results are written.
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
            f"--map FILE needs one of --localize and --extend, found {' '.join(found)}"
        )
    return "localize" if localize else "extend"


def _outputs(text: str | None, extend: bool) -> tuple[str, ...]:
    from spslam.reports.writers import OUTPUTS, parse_outputs

    if text is None:
        return OUTPUTS
    chosen = parse_outputs(text)
    if extend and "map" not in chosen:
        raise ConfigError("--extend writes a map: add map to --outputs")
    return chosen


def _scale(text: str, frames: FrameSequence, indices: range) -> ScaleRequest:
    from spslam.run.metric_scale import check_scale, parse_scale

    request = parse_scale(text)
    check_scale(request, frames, indices)
    return request


def open_viewer(choice: ViewerChoice, recording: Path | None, frames: FrameSequence) -> Viewer:
    """Open the viewers of a run: the chosen window, and a recording to a file if one is given."""
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
