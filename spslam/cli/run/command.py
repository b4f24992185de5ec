"""The commands `spslam run` and `spslam demo`: their options, and how they open a recording."""

from __future__ import annotations

import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spslam.cli.cameras import check as cli_check
from spslam.cli.cameras.own_calibration import OwnCalibration, find_own_calibration
from spslam.cli.options import (
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
from spslam.cli.run.performing import (
    ViewerChoice,
    check_live,
    chosen_outputs,
    input_labels,
    live_labels,
    mode_of,
    open_viewer,
    perform_run,
    recorded,
    scale_request,
)
from spslam.errors import ConfigError, InputError, MissingCalibrationError, NoPoseError

if TYPE_CHECKING:
    from spslam.interfaces import Sequence as FrameSequence


class SensorChoice(StrEnum):
    """Values of `--sensor`."""

    AUTO = "auto"
    MONO = "mono"
    STEREO = "stereo"
    RGBD = "rgbd"


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
    check_live(path, live, record, disturbances)
    realtime = realtime or live
    mode = mode_of(map_file, localize, extend)
    chosen = chosen_outputs(outputs, extend)
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
            live_labels(frames.source, record)
            if live
            else input_labels(
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
        request = None
        if scale is not None:
            indices = range(start, start + stride * _most_frames(frames), stride)
            request = scale_request(scale, frames, indices)
        watch = partial(open_viewer, viewer, rerun, frames)
        if record is not None:
            watch = partial(recorded, watch, record, frames)
        try:
            perform_run(
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


def _most_frames(frames: FrameSequence) -> int:
    from spslam.pipeline import number_of_frames

    total = number_of_frames(frames)
    return sys.maxsize if total is None else total


def _disturbed(frames: FrameSequence, disturbances: list[str]) -> FrameSequence:
    from spslam.datasets.world.disturbed import disturb

    return disturb(frames, disturbances)


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
