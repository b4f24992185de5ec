"""Draw where the corners of a board were found in the image, and how well the camera fits them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spslam.calibrate.board_fit import BoardFit
from spslam.calibrate.boards import BoardView
from spslam.io.files import write_atomic

_ORANGE, _BLUE, _GREY = "#c85200", "#1170aa", "#a3acb9"
# Residuals are drawn this much longer than they are, in the picture of the coverage.
_LONGER = 30.0


def draw_board_fit(path: Path, fit: BoardFit, views: Sequence[BoardView], title: str) -> None:
    """Write a PNG: coverage of the image, residuals of the corners, error of each view.

    Raises:
        OutputError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.0, 4.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    coverage, residuals, errors = figure.subplots(1, 3)
    _draw_coverage(coverage, fit, views)
    _draw_residuals(residuals, fit)
    _draw_errors(errors, fit)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def _draw_coverage(axes: Any, fit: BoardFit, views: Sequence[BoardView]) -> None:
    camera = fit.camera
    for view, keep, misses in zip(views, fit.used, fit.residuals, strict=True):
        axes.plot(*view.pixels.T, ".", color=_BLUE if keep else _ORANGE, markersize=3)
        if keep:
            ends = view.pixels + _LONGER * misses
            lines = np.stack([view.pixels, ends], axis=1)
            axes.plot(*lines.transpose(2, 1, 0), color=_GREY, linewidth=0.5)
    for part in (1 / 3, 2 / 3):
        axes.axvline(camera.width * part, color=_GREY, linewidth=0.5, linestyle=":")
        axes.axhline(camera.height * part, color=_GREY, linewidth=0.5, linestyle=":")
    axes.plot(camera.cx, camera.cy, "+", color="black")
    axes.set(
        xlim=(-0.5, camera.width - 0.5),
        ylim=(camera.height - 0.5, -0.5),
        aspect="equal",
        title=f"corners, errors {_LONGER:g} times as long (orange: dropped views)",
    )


def _draw_residuals(axes: Any, fit: BoardFit) -> None:
    misses = np.concatenate(fit.residuals)
    axes.plot(*misses.T, ".", color=_BLUE, markersize=2)
    reach = max(4.0 * fit.rms_px, 0.1)
    axes.axhline(0, color=_GREY, linewidth=0.5)
    axes.axvline(0, color=_GREY, linewidth=0.5)
    axes.set(
        xlim=(-reach, reach),
        ylim=(reach, -reach),
        aspect="equal",
        xlabel="x, pixels",
        ylabel="y, pixels",
        title=f"errors of the corners, {fit.rms_px:.2f} px (root mean square)",
    )


def _draw_errors(axes: Any, fit: BoardFit) -> None:
    rows = np.arange(len(fit.errors_px))
    axes.bar(rows, np.nan_to_num(fit.errors_px), color=_BLUE)
    axes.plot(rows[~fit.used], np.zeros(np.count_nonzero(~fit.used)), "x", color=_ORANGE)
    axes.axhline(fit.rms_px, color="black", linewidth=0.8)
    axes.set(xlabel="view", ylabel="pixels", title="error of each view (crosses: dropped)")
