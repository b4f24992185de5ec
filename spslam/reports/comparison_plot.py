"""Plot several estimates and the ground truth in one figure, with their errors over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spslam.errors import OutputError
from spslam.evaluation.ate import Evaluation
from spslam.evaluation.comparison import Comparison
from spslam.io.files import printable, write_atomic
from spslam.reports.plotting import draw_png
from spslam.trajectory import Trajectory
from spslam.visualization.path_views import ALIGNMENT_WORDS, AXES, broken, choose_views, during

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours for colour-blind readers, without yellow, which white paper hides.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_STYLES = ("-", "--", "-.", ":")


def plot_comparisons(
    path: Path | str, comparisons: Sequence[Comparison], ground_truth: Trajectory
) -> None:
    """Plot the aligned estimates and the truth from above and the side, and the errors over time.

    Args:
        path: PNG file to write.
        comparisons: estimates compared with `ground_truth`, at least one of them with an
            evaluation; the others are only named.
        ground_truth: true trajectory; drawn for the time of the estimates.

    Raises:
        OutputError: the plot cannot be drawn, or the file cannot be written.
    """
    try:
        picture = draw_png(lambda: _figure(comparisons, ground_truth))
    except Exception as error:
        raise OutputError(f"cannot draw {path}: {error or type(error).__name__}") from error
    write_atomic(path, picture)


def _figure(comparisons: Sequence[Comparison], ground_truth: Trajectory) -> Figure:
    from matplotlib.figure import Figure

    drawn = [(each, each.evaluation) for each in comparisons if each.evaluation is not None]
    times = np.sort(np.concatenate([evaluation.aligned.timestamps for _, evaluation in drawn]))
    truth = during(ground_truth, times)
    views = choose_views(truth)
    extent = np.maximum(np.ptp(truth.positions, axis=0), 0.05 * max(np.ptp(truth.positions), 1e-6))
    fractions = [extent[view.vertical] / extent[view.across] for view in views]
    heights = np.append(np.clip(fractions, [0.35, 0.16], [1.0, 0.6]), 0.3)
    figure = Figure(figsize=(9.0, 2.4 + 7.0 * float(heights.sum())), dpi=120, layout="constrained")
    top, side, errors = figure.subplots(3, 1, height_ratios=heights.tolist())
    for axes, view in zip((top, side), views, strict=True):
        _draw_paths(
            axes, truth, [evaluation for _, evaluation in drawn], (view.across, view.vertical)
        )
        axes.set_title(view.title, fontsize=10, loc="left")
        if view.turned:
            axes.invert_yaxis()
    _draw_errors(errors, truth, drawn)
    handles, labels = errors.get_legend_handles_labels()
    handles, labels = [*top.get_legend_handles_labels()[0], *handles], ["ground truth", *labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=1, fontsize=9, frameon=False)
    figure.suptitle(_title(comparisons, drawn[0][1]), fontsize=11)
    return figure


def _draw_paths(
    axes: Axes, truth: Trajectory, evaluations: list[Evaluation], columns: tuple[int, int]
) -> None:
    line = broken(truth.timestamps, truth.positions)[:, columns]
    axes.plot(
        line[:, 0],
        line[:, 1],
        color="black",
        linewidth=0.9,
        linestyle=(0, (4, 4)),
        zorder=3,
        label="ground truth",
    )
    for number, evaluation in enumerate(evaluations):
        line = broken(evaluation.aligned.timestamps, evaluation.aligned.positions)[:, columns]
        color, style = _look(number)
        axes.plot(line[:, 0], line[:, 1], color=color, linestyle=style, linewidth=1.4)
    axes.set_xlabel(f"{AXES[columns[0]]} (m)")
    axes.set_ylabel(f"{AXES[columns[1]]} (m)")
    axes.set_aspect("equal", adjustable="datalim")
    _grid(axes)


def _draw_errors(axes: Axes, truth: Trajectory, drawn: list[tuple[Comparison, Evaluation]]) -> None:
    start = 0.0 if truth.numbered else truth.timestamps[0]
    for number, (comparison, evaluation) in enumerate(drawn):
        stamps = evaluation.aligned.timestamps[evaluation.absolute.association.estimate]
        metrics, errors = comparison.metrics, evaluation.absolute.errors_m
        label = (
            f"{printable(comparison.name)}: ATE {metrics['ate_rmse_m']:.3g} m, "
            f"{100 * float(metrics['tracking_rate'] or 0):.1f} % of the frames"
        )
        color, style = _look(number)
        axes.plot(
            broken(stamps, stamps - start),
            broken(stamps, errors),
            color=color,
            linestyle=style,
            linewidth=1.2,
            label=label,
        )
    axes.set_title("Position error over time", fontsize=10, loc="left")
    axes.set_xlabel("frame" if truth.numbered else "time (s)")
    axes.set_ylabel("error (m)")
    axes.set_ylim(bottom=0.0)
    _grid(axes)


def _look(number: int) -> tuple[str, str]:
    """Return the colour and the line style of estimate `number`; they repeat after 28 estimates."""
    return _COLORS[number % len(_COLORS)], _STYLES[number // len(_COLORS) % len(_STYLES)]


def _grid(axes: Axes) -> None:
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(0.06)


def _title(comparisons: Sequence[Comparison], evaluation: Evaluation) -> str:
    missing = [
        printable(comparison.name) for comparison in comparisons if comparison.evaluation is None
    ]
    conventions = (
        f"{ALIGNMENT_WORDS[evaluation.absolute.alignment]}; "
        f"true poses of the {evaluation.ground_truth.frame}"
    )
    return conventions + (f"\nnot compared: {', '.join(missing)}" if missing else "")
