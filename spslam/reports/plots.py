"""Plots of trajectories as PNG, and point clouds as PLY."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spslam.errors import TrajectoryError
from spslam.evaluation.ate import Alignment, Evaluation, evaluate
from spslam.io.files import printable, write_atomic
from spslam.notices import counted
from spslam.reports.plotting import draw_png
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray, UInt8Array
from spslam.visualization.path_views import (
    ALIGNMENT_WORDS,
    AXES,
    View,
    broken,
    choose_views,
    during,
    gaps,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)


def plot_trajectory(
    path: Path | str,
    estimate: Trajectory,
    ground_truth: Trajectory | None = None,
    align: Alignment = "se3",
    title: str = "trajectory",
) -> None:
    """Plot a trajectory from above and the side, coloured by its error if the truth is known.

    The ground truth is drawn for the time of the estimate only. If the two cannot be compared, the
    estimate is drawn alone, and the plot and the log say why.

    Args:
        path: PNG file to write.
        estimate: poses to draw; the line breaks at gaps in time.
        ground_truth: poses to compare with.
        align: alignment of the estimate with the ground truth, see `spslam.evaluation.ate`.
        title: title of the plot, for example the name of the sequence.

    Raises:
        OutputError: the file cannot be written.
    """
    evaluation, caption = _compare(estimate, ground_truth, align)
    shown = estimate if evaluation is None else evaluation.aligned
    truth = None if evaluation is None else during(evaluation.ground_truth, estimate.timestamps)
    everything = (
        shown.positions if truth is None else np.concatenate([shown.positions, truth.positions])
    )
    views = choose_views(shown, truth)
    extent = np.ptp(everything, axis=0) if len(everything) else np.ones(3)
    extent = np.maximum(extent, 0.05 * max(extent.max(), 1e-6))
    heights = np.clip(
        [extent[view.vertical] / extent[view.across] for view in views], [0.35, 0.16], [1.0, 0.6]
    )
    # The path of a single camera has no metric scale unless it is aligned with the truth.
    unit = "map units" if evaluation is None and align == "sim3" else "m"
    words = printable(f"{title}\n{caption}")
    write_atomic(
        path, draw_png(lambda: _figure(shown, truth, evaluation, views, heights, unit, words))
    )


def _figure(
    shown: Trajectory,
    truth: Trajectory | None,
    evaluation: Evaluation | None,
    views: tuple[View, View],
    heights: FloatArray,
    unit: str,
    title: str,
) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 2.2 + 7.0 * float(heights.sum())), dpi=120, layout="constrained")
    top, side = figure.subplots(2, 1, height_ratios=heights.tolist())
    for axes, view in zip((top, side), views, strict=True):
        _draw(axes, shown, truth, evaluation, (view.across, view.vertical), unit)
        axes.set_title(view.title, fontsize=10, loc="left")
        if view.turned:
            axes.invert_yaxis()
    handles, labels = top.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9, frameon=False
    )
    if evaluation is not None and top.collections:
        figure.colorbar(
            top.collections[0], ax=[top, side], label="position error (m)", fraction=0.045, pad=0.02
        )
    figure.suptitle(title, fontsize=11)
    return figure


def write_ply(path: Path | str, points: FloatArray, colors: UInt8Array | None = None) -> None:
    """Write a point cloud as binary little-endian PLY.

    Points that are not finite are left out; the log gives their number.

    Args:
        path: PLY file to write.
        points: (N, 3), metres; stored as float32.
        colors: (N, 3) uint8, red green blue.

    Raises:
        ValueError: the shapes do not match.
        OutputError: the file cannot be written.
    """
    if (
        points.ndim != 2
        or points.shape[1] != 3
        or (colors is not None and colors.shape != points.shape)
    ):
        raise ValueError(
            f"expected points (N, 3) and as many colours, found {points.shape} and "
            f"{None if colors is None else colors.shape}"
        )
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        _log.warning(
            "%s: %s not finite and left out",
            path,
            counted(np.count_nonzero(~finite), "point is", "points are"),
        )
    fields = [(name, "<f4") for name in AXES]
    if colors is not None:
        fields += [(name, "u1") for name in ("red", "green", "blue")]
    vertices = np.empty(np.count_nonzero(finite), dtype=fields)
    for column, name in enumerate(AXES):
        vertices[name] = points[finite, column]
    if colors is not None:
        for column, name in enumerate(("red", "green", "blue")):
            vertices[name] = colors[finite, column]
    kinds = {"<f4": "float", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {kinds[kind]} {name}" for name, kind in fields]
    write_atomic(
        path, ("\n".join([*header, "end_header"]) + "\n").encode("ascii") + vertices.tobytes()
    )


def _compare(
    estimate: Trajectory, ground_truth: Trajectory | None, align: Alignment
) -> tuple[Evaluation | None, str]:
    """Return the evaluation, None if the two cannot be compared, and the plot's subtitle."""
    length = (
        f"{estimate.path_length_m:.3g} map units"
        if align == "sim3"
        else _length(estimate.path_length_m)
    )
    plain = f"{counted(len(estimate), 'pose')}, {length}"
    if ground_truth is None:
        return None, f"{plain}, no ground truth"
    try:
        evaluation = evaluate(estimate, ground_truth, align)
    except TrajectoryError as error:
        _log.warning("trajectory drawn without ground truth: %s", error)
        return (
            None,
            f"{plain}, not compared with the ground truth ({str(error).split(':')[0][:60]})",
        )
    metrics = evaluation.absolute.statistics
    scale = f", scale {evaluation.absolute.scale:.4g}" if align == "sim3" else ""
    return evaluation, (
        f"ATE {metrics.rmse:.3g} m rmse, {metrics.max:.3g} m max, {ALIGNMENT_WORDS[align]}{scale}; "
        f"{evaluation.matched} of {counted(len(estimate), 'pose')} compared, "
        f"{_length(evaluation.path_length_m)}"
    )


def _length(metres: float) -> str:
    return f"{metres / 1000:.2f} km" if metres >= 1000 else f"{metres:.3g} m"


def _draw(
    axes: Axes,
    shown: Trajectory,
    truth: Trajectory | None,
    evaluation: Evaluation | None,
    columns: tuple[int, int],
    unit: str,
) -> None:
    from matplotlib.collections import LineCollection

    if truth is not None:
        line = broken(truth.timestamps, truth.positions)[:, columns]
        axes.plot(
            line[:, 0],
            line[:, 1],
            color="0.35",
            linewidth=1.2,
            linestyle=(0, (4, 2)),
            label="ground truth",
        )
    line = broken(shown.timestamps, shown.positions)[:, columns]
    if evaluation is None:
        axes.plot(line[:, 0], line[:, 1], color="tab:blue", linewidth=1.8, label="estimate")
    else:
        axes.plot(line[:, 0], line[:, 1], color="0.7", linewidth=0.8, zorder=1.5)
        rows, errors = evaluation.absolute.association.estimate, evaluation.absolute.errors_m
        points = shown.positions[rows][:, columns]
        joined = ~gaps(shown.timestamps[rows])
        segments = np.stack([points[:-1], points[1:]], axis=1)[joined]
        collection = LineCollection(list(segments), cmap="plasma", linewidths=2.4, zorder=3)
        collection.set_array(0.5 * (errors[:-1] + errors[1:])[joined])
        collection.set_clim(0.0, max(float(errors.max()), 1e-9))
        axes.add_collection(collection)
        axes.plot(
            [],
            [],
            color=collection.get_cmap()(0.5),
            linewidth=2.4,
            label=f"estimate, {ALIGNMENT_WORDS[evaluation.absolute.alignment]}",
        )
    for row, marker, label in ((0, "o", "start"), (-1, "s", "end")):
        if len(shown):
            at = shown.positions[row, columns]
            axes.plot(
                *at,
                marker,
                color="white",
                markeredgecolor="black",
                markersize=7,
                zorder=4,
                label=label,
            )
    axes.set_xlabel(f"{AXES[columns[0]]} ({unit})")
    axes.set_ylabel(f"{AXES[columns[1]]} ({unit})")
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.06)
