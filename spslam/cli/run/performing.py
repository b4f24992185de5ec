"""Do a run: check its options, open its viewers, and track with progress and ^C."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from spslam.cli.options import INTERRUPTED
from spslam.errors import ConfigError, RunStoppedError, ScaleError
from spslam.process.signals import cleaned_up, interrupt_as_flag

if TYPE_CHECKING:
    from spslam.config import Config
    from spslam.interfaces import Sequence as FrameSequence
    from spslam.run.metric_scale import ScaleRequest
    from spslam.run.output import RunLog
    from spslam.visualization.viewer import Viewer


def input_labels(
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


def check_live(path: str, live: bool, record: Path | None, disturbances: list[str] | None) -> None:
    """Raise a ConfigError for options that fit only live cameras, or only recordings."""
    if record is not None and not live:
        raise ConfigError(f"--record is for live cameras (camera:0, realsense:, oak:), not {path}")
    if disturbances and live:
        raise ConfigError(f"--disturb is for recordings, and {path} is a live camera")


def live_labels(source: str, record: Path | None) -> dict[str, str]:
    """Return how the images of a live camera are found again: where they were recorded, if so."""
    labels = {"input_live": source}
    if record is not None:
        labels |= {"input_path": str(record.absolute()), "input_dataset": "images"}
    return labels


def mode_of(map_file: Path | None, localize: bool, extend: bool) -> str:
    """Return the mode of a run: slam, localize or extend; refuse `--map` without a mode."""
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


def chosen_outputs(text: str | None, extend: bool) -> tuple[str, ...]:
    """Return the names of the results to write, from the value of `--outputs`."""
    from spslam.reports.writers import OUTPUTS, parse_outputs

    if text is None:
        return OUTPUTS
    chosen = parse_outputs(text)
    if extend and "map" not in chosen:
        raise ConfigError("--extend writes a map: add map to --outputs")
    return chosen


def scale_request(text: str, frames: FrameSequence, indices: range) -> ScaleRequest:
    """Read the value of `--scale`, and check it against the sequence.

    Args:
        text: the value.
        frames: the sequence.
        indices: indices of its frames in the recording.
    """
    from spslam.run.metric_scale import check_scale, parse_scale

    request = parse_scale(text)
    check_scale(request, frames, indices)
    return request


class ViewerChoice(StrEnum):
    """Values of `--viewer`."""

    NONE = "none"
    OPEN3D = "open3d"
    RERUN = "rerun"


def recorded(watch: Callable[[], Viewer], folder: Path, frames: FrameSequence) -> Viewer:
    """Open the viewers, and a recorder of the tracked frames of a live camera."""
    from spslam.datasets.live.recorder import FrameRecorder
    from spslam.datasets.live.sequence import LiveSequence
    from spslam.visualization.viewer import Viewers

    assert isinstance(frames, LiveSequence)
    recorder = FrameRecorder(folder, frames)
    return Viewers(watch(), recorder)


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


def perform_run(
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
    """Run the system on a sequence and write its results; print them.

    Args:
        frames: the sequence.
        config: the resolved configuration.
        labels: what `metrics.json` says of the call.
        out: value of `--out`; None: a new folder below `runs`.
        watch: opens the viewers.
        log: messages so far.
        map_file: value of `--map`.
        extend: whether the map of `map_file` is extended and replaced.
        scale: how the map becomes metric; None: not.
        cache: folder of the feature cache.
        realtime: play the frames at their time stamps.
        outputs: names of the results to write.
        own_calibration: text of the calibration that was found from the images, if one was.

    Raises:
        typer.Exit: the run was stopped.
        SpslamError: it failed; what was computed so far is kept.
    """
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
