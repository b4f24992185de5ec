"""The command `spslam check`: what is wrong with a recording or its calibration."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from spslam.cli.options import (
    DepthTopicOption,
    MaskOption,
    MaxFramesOption,
    PairWithinOption,
    RightTopicOption,
    SequenceOption,
    StartOption,
    StrideOption,
    TimeUnitOption,
    TimeUnitValue,
    TopicOption,
    TruthTopicOption,
)

# Exit code where a run would fail or be useless.
USELESS = 1
_SENSORS = ("auto", "mono", "stereo", "rgbd")


def check(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", show_default=False, help="The recording, as for spslam run."
        ),
    ],
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Format of PATH; auto recognises it.")
    ] = "auto",
    sequence: SequenceOption = None,
    sensor: Annotated[
        str, typer.Option(metavar="|".join(_SENSORS), help="Sensor to check.")
    ] = "auto",
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Camera calibration (YAML)."),
    ] = None,
    start: StartOption = 0,
    max_frames: MaxFramesOption = None,
    stride: StrideOption = 1,
    time_unit: TimeUnitOption = TimeUnitValue.AUTO,
    pair_within: PairWithinOption = 0.02,
    mask: MaskOption = None,
    topic: TopicOption = None,
    right_topic: RightTopicOption = None,
    depth_topic: DepthTopicOption = None,
    truth_topic: TruthTopicOption = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", show_default=False, help="Also write the findings as JSON."
        ),
    ] = None,
) -> None:
    """Examine a recording and its calibration, and say what is wrong and what to do.

    \b
    spslam check walk.mp4 --calibration phone.yaml
    spslam check /data/kitti --sequence 00 --sensor stereo

    It reads up to 72 frames from all over the recording and takes a few seconds. Each
    finding has a level: ok; note: true, and worth knowing; warning: results will be worse than they
    need to be; error: a run would fail or be useless. Exit codes: 0 no error, 1 an error was found,
    2 the recording cannot be opened.
    """
    from spslam.check.doctor import examine
    from spslam.config import config_for, load_config
    from spslam.datasets import open_sequence
    from spslam.io.files import write_atomic
    from spslam.notices import captured_notices

    with captured_notices() as captured:
        frames = open_sequence(
            path,
            dataset=dataset,
            sequence=sequence,
            sensor=sensor,
            calibration=calibration,
            start=start,
            max_frames=max_frames,
            stride=stride,
            time_unit=time_unit.value,
            pair_within_s=pair_within,
            mask=mask,
            topic=topic,
            right_topic=right_topic,
            depth_topic=depth_topic,
            truth_topic=truth_topic,
        )
        config = load_config(config_for(frames.dataset, frames.sensor))
        report = examine(frames, config, captured.notices)
    for line in report.lines():
        typer.echo(line)
    if json_file is not None:
        text = json.dumps(report.to_dict(), indent=2, allow_nan=False)
        write_atomic(json_file, f"{text}\n")
    if report.failed:
        raise typer.Exit(USELESS)


def command_line(
    labels: Mapping[str, str], sensor: str, start: int, max_frames: int | None, stride: int
) -> str:
    """Return the command that checks the recording of a run.

    Args:
        labels: of the run, with `input_path` and how the recording was opened.
        sensor: value of the run's `--sensor`.
        start: value of its `--start`.
        max_frames: value of its `--max-frames`.
        stride: value of its `--stride`.
    """
    values = {
        "--dataset": labels.get("input_dataset", "auto"),
        "--sequence": labels.get("input_sequence"),
        "--sensor": sensor,
        "--calibration": labels.get("input_calibration"),
        "--time-unit": labels.get("input_time_unit", "auto"),
        "--pair-within": labels.get("input_pair_within_s", "0.02"),
        "--mask": labels.get("input_mask"),
        "--topic": labels.get("input_topic"),
        "--right-topic": labels.get("input_right_topic"),
        "--depth-topic": labels.get("input_depth_topic"),
        "--truth-topic": labels.get("input_truth_topic"),
        "--start": str(start),
        "--max-frames": None if max_frames is None else str(max_frames),
        "--stride": str(stride),
    }
    # `auto` is the default of the others, but finds a mask.
    defaults = {"--pair-within": "0.02", "--start": "0", "--stride": "1", "--mask": ""}
    words = ["spslam", "check", labels["input_path"]]
    for option, value in values.items():
        if value is not None and value != defaults.get(option, "auto"):
            words += [option, value]
    return shlex.join(words)
