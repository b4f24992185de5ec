"""Do a run: the output folder, the system, progress and ^C."""

from __future__ import annotations

from collections.abc import Callable
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
