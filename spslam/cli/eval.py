"""The command that compares trajectories, `spslam eval`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.errors import TrajectoryError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from spslam.trajectory import Trajectory

# Value of --json for standard output.
_STANDARD_OUTPUT = Path("-")


class Align(StrEnum):
    """Values of `--align`."""

    SE3 = "se3"
    SIM3 = "sim3"
    FIRST_POSE = "first-pose"
    NONE = "none"


class StampUnit(StrEnum):
    """Values of `--time-unit`."""

    AUTO = "auto"
    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    NANOSECONDS = "ns"


class DeltaUnit(StrEnum):
    """Values of `--delta-unit`."""

    FRAMES = "frames"
    SECONDS = "s"
    METRES = "m"


def evaluate(
    estimates: Annotated[
        list[Path],
        typer.Argument(
            metavar="EST...", show_default=False, help="Estimated trajectories, one or more."
        ),
    ],
    ground_truth: Annotated[
        Path, typer.Argument(metavar="GT", show_default=False, help="True trajectory.")
    ],
    also: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="GT",
            show_default=False,
            help="One more ground truth to compare with; repeatable.",
        ),
    ] = None,
    camera: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="EuRoC's sensor.yaml of a camera: the ground truth, poses of the body, is "
            "converted to poses of this camera. Default: cam0's file beside the ground truth, if "
            "it exists.",
        ),
    ] = None,
    times: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Times of all frames (KITTI's times.txt, TUM's rgb.txt, EuRoC's cam0/data.csv), "
            "for the tracking rate, and as time stamps of KITTI's trajectories.",
        ),
    ] = None,
    time_unit: Annotated[
        StampUnit,
        typer.Option(
            help="Unit of the times, in files where it is plausible (poses 1 ms to 10 s apart). "
            "auto: from the steps between poses and the times of the other files."
        ),
    ] = StampUnit.AUTO,
    align: Annotated[
        Align,
        typer.Option(
            help="se3: rotation and translation; sim3: with scale, too (for mono); first-pose: "
            "align the first poses; none: no alignment."
        ),
    ] = Align.SE3,
    max_difference: Annotated[
        float,
        typer.Option(
            metavar="S", min=0.0, help="Largest time between a pose and its true pose, seconds."
        ),
    ] = 0.01,
    interpolate: Annotated[
        bool,
        typer.Option("--interpolate", help="Interpolate the ground truth at the estimate's times."),
    ] = False,
    delta: Annotated[
        float, typer.Option(metavar="N", help="Length of the steps of the relative error.")
    ] = 1.0,
    delta_unit: Annotated[
        DeltaUnit, typer.Option(help="Unit of --delta; m: along the true path.")
    ] = DeltaUnit.FRAMES,
    all_pairs: Annotated[
        bool,
        typer.Option(
            "--all-pairs",
            help="Start a step of the relative error at every pose, not at the end of the step "
            "before.",
        ),
    ] = False,
    recall: Annotated[
        list[float] | None,
        typer.Option(
            metavar="M",
            min=0.0,
            show_default=False,
            help="Count frames within M metres; repeatable. Default: 0.1, 1.",
        ),
    ] = None,
    spread: Annotated[
        bool,
        typer.Option(
            "--spread",
            help="The estimates are repeats of one run: also print their median, minimum and "
            "maximum.",
        ),
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            show_default=False,
            help="Write all metrics to this file; - prints them.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG", show_default=False, help="Plot trajectories and errors to this file."
        ),
    ] = None,
) -> None:
    """Compare trajectories with ground truth: absolute and relative errors, drift, tracking rate.

    \b
    spslam eval runs/x/trajectory.tum truth.tum --align sim3 --plot x.png
    spslam eval runs/*/trajectory.tum mav0/state_groundtruth_estimate0/data.csv --json metrics.json

    Files have the format of TUM, KITTI or EuRoC, or a similar one; the format is recognised. A
    header may name the columns. Rows that hold no pose are skipped and counted. Positions alone
    give the absolute error only. KITTI's format has no times: compare it with the same format, or
    give --times. EuRoC's ground truth is the path of the body; if the camera is known, estimates
    are compared with both paths. The number of frames of a run comes from the files beside its
    trajectory.tum.
    """
    from spslam.cli.console import print_comparisons, print_metrics
    from spslam.evaluation.comparison import Conventions, as_document, compare_with, short_names
    from spslam.evaluation.comparison import spread as spread_of
    from spslam.evaluation.rpe import Step
    from spslam.evaluation.tracking_rate import RECALL_DISTANCES_M
    from spslam.io.files import write_atomic
    from spslam.timestamps import UNITS_PER_SECOND
    from spslam.trajectory import read_times, read_trajectories

    unit = next((unit for unit in UNITS_PER_SECOND if unit == time_unit.value), None)
    frame_times = None if times is None else read_times(times, unit)
    conventions = Conventions(
        align.value,
        max_difference,
        interpolate,
        Step(delta, delta_unit.value, all_pairs),
        tuple(recall or RECALL_DISTANCES_M),
    )
    paths = [ground_truth, *(also or ())]
    trajectories = read_trajectories([*paths, *estimates], frame_times, unit)
    read, estimated = trajectories[: len(paths)], trajectories[len(paths) :]
    truths = [
        truth
        for path, found in zip(paths, read, strict=True)
        for truth in _carried_too(path, found, camera)
    ]
    if camera is not None and all(truth.frame != "body" for truth in truths):
        raise TrajectoryError(
            "--camera needs EuRoC's ground truth (data.csv), found another format in "
            f"{ground_truth}"
        )
    frames = [
        _frames(path, found, times, frame_times)
        for path, found in zip(estimates, estimated, strict=True)
    ]
    comparisons = [
        compare_with(name, trajectory, truth, conventions, *known)
        for truth in truths
        for name, trajectory, known in zip(short_names(estimates), estimated, frames, strict=True)
    ]
    if all(comparison.evaluation is None for comparison in comparisons):
        raise TrajectoryError(str(comparisons[0].metrics["not_compared"]))
    spreads = spread_of(comparisons[: len(estimates)]) if spread else {}
    document = json.dumps(as_document(comparisons, spreads), indent=2, allow_nan=False) + "\n"
    if json_file == _STANDARD_OUTPUT:
        typer.echo(document, nl=False)
    elif len(comparisons) == 1 and not spreads:
        print_metrics(comparisons[0].metrics)
    else:
        print_comparisons([comparison.metrics for comparison in comparisons], spreads)
    if json_file is not None and json_file != _STANDARD_OUTPUT:
        write_atomic(json_file, document)
    if plot is not None:
        from spslam.reports.comparison_plot import plot_comparisons

        plot_comparisons(plot, comparisons[: len(estimates)], truths[0])


def _frames(
    path: Path, estimate: Trajectory, times: Path | None, frame_times: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64] | None, int, str]:
    """Return the times of an estimate's frames, the number of other frames, and their file."""
    from spslam.visualization.saved_run import frames_beside

    if times is not None:
        return frame_times, 0, str(times)
    found = frames_beside(path, estimate)
    return (None, 0, "") if found is None else (found.times, found.missing, str(found.file))


def _carried_too(path: Path, truth: Trajectory, camera: Path | None) -> list[Trajectory]:
    """Return a ground truth; for EuRoC's body first the poses of its camera, if it is known."""
    if truth.frame != "body":
        return [truth]
    from spslam.datasets import left_camera_ground_truth

    carried = left_camera_ground_truth(truth, path, camera)
    return [truth] if carried is None else [carried, truth]
