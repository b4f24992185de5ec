"""Plot the errors of a suite, as a PNG file and as an SVG in the colours of the HTML page."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spslam.benchmark.metrics import METRICS, percent, scale_of
from spslam.benchmark.published import Published
from spslam.benchmark.results import Group, Results
from spslam.io.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of the PNG; in the SVG each is replaced by a variable of the style sheet.
_TEXT, _FAINT, _LINE = "#1d2025", "#626a76", "#dfe2e7"
_SERIES = ("#3d7fc1", "#e0940f", "#259b78", "#b9528f", "#7d6bc4", "#9aa2ae")
_VARIABLES = {
    _TEXT: "--text",
    _FAINT: "--faint",
    _LINE: "--line",
    **dict(zip(_SERIES, (*(f"--stage-{i}" for i in range(5)), "--stage-rest"), strict=True)),
}
# Marks of the extractors and of published systems.
_MARKS = ("o", "s", "^", "D", "v", "P")
_PUBLISHED_MARKS = ("x", "+", "1", "2", "3", "4")
# Height of a row with up to four extractors, inches.
_ROW_INCHES = 0.36


def write_plot(path: Path, results: Results, published: list[Published]) -> None:
    """Write the plot as a PNG file, unless there is nothing to plot.

    Raises:
        OutputError: the file cannot be written.
    """
    figure = draw(results, published)
    if figure is not None:
        with atomic_file(path) as file:
            figure.savefig(file, format="png", dpi=130, facecolor="white")


def plot_svg(results: Results, published: list[Published]) -> str:
    """Return the plot as an SVG element for a page with `report.css`; empty if nothing to plot."""
    import matplotlib

    figure = draw(results, published)
    if figure is None:
        return ""
    text = io.StringIO()
    # Keep text as text; equal results give equal bytes.
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "spslam", "font.family": "sans-serif"}
    ):
        figure.savefig(
            text, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    drawing = text.getvalue()
    drawing = re.sub(
        r"<metadata>.*?</metadata>", "", drawing[drawing.index("<svg") :], flags=re.DOTALL
    )
    for colour, variable in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var({variable})")
    # Replace the size in points: the SVG fills the width of the page.
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"',
        r'\1 width="100%"',
        re.sub(r' height="[^"]*pt"', "", drawing, count=1),
    )


def draw(results: Results, published: list[Published]) -> Figure | None:
    """Draw a panel for each metric of the suite; None if there is nothing to plot.

    A panel has a row for each sequence, sensor and configuration. Small marks are repeats, large
    marks medians, lines go from minimum to maximum. Hollow medians: frames were not tracked.
    """
    from matplotlib.figure import Figure

    groups = results.groups()
    keys = [key for key in results.metrics if any(group.spread(key) for group in groups)]
    if not keys:
        return None
    places = list(dict.fromkeys((g.case.sequence, g.case.sensor, g.case.config) for g in groups))
    extractors = list(dict.fromkeys(group.case.extractor for group in groups))
    height = 1.5 + _ROW_INCHES * len(places) * max(1.0, 0.22 * len(extractors))
    figure = Figure(figsize=(9.6, height), layout="constrained")
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        _draw_panel(axes, key, groups, places, extractors, published)
    configs = {config for _, _, config in places}
    labels = [
        " ".join((sequence, sensor, *([config] if len(configs) > 1 else ())))
        for sequence, sensor, config in places
    ]
    panels[0].set_yticks(range(len(places)), labels)
    panels[0].set_ylim(len(places) - 0.5, -0.5)
    handles, names = panels[0].get_legend_handles_labels()
    columns = min(len(names), 5)
    figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        labelcolor=_TEXT,
        fontsize=9,
    )
    return figure


def _draw_panel(
    axes: Axes,
    key: str,
    groups: list[Group],
    places: list[tuple[str, str, str]],
    extractors: list[str],
    published: list[Published],
) -> None:
    metric = METRICS[key]
    medians = [spread.median for group in groups if (spread := group.spread(key))]
    factor, unit = scale_of(metric.unit, medians)
    step = 0.72 / max(len(extractors), 1)
    seen: set[str] = set()
    for group in groups:
        spread = group.spread(key)
        if spread is None:
            continue
        index = extractors.index(group.case.extractor)
        colour, mark = _SERIES[index % 6], _MARKS[index % 6]
        y = places.index((group.case.sequence, group.case.sensor, group.case.config))
        y_mark = y + (index - (len(extractors) - 1) / 2) * step
        axes.plot(
            [factor * spread.min, factor * spread.max],
            [y_mark, y_mark],
            color=colour,
            linewidth=1.6,
            solid_capstyle="round",
        )
        values = [factor * v for row in group.rows if (v := row.figure(key)) is not None]
        axes.plot(values, np.full(len(values), y_mark), "|", color=colour, markersize=5)
        whole = group.tracked.median >= 0.995
        label = "_" if group.case.extractor in seen else group.case.extractor
        seen.add(group.case.extractor)
        fill = colour if whole else "none"
        axes.plot(
            factor * spread.median,
            y_mark,
            mark,
            color=colour,
            markerfacecolor=fill,
            markersize=6,
            label=label,
            linestyle="none",
        )
        if not whole:
            axes.annotate(
                f"{percent(group.tracked.median)} tracked",
                (factor * spread.max, y_mark),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color=_FAINT,
            )
    for number, system in enumerate(published):
        named = False
        for y, place in enumerate(places):
            group = next(
                g for g in groups if (g.case.sequence, g.case.sensor, g.case.config) == place
            )
            value = system.value(group, key)
            if value is not None:
                axes.plot(
                    factor * value,
                    y,
                    _PUBLISHED_MARKS[number % 6],
                    color=_FAINT,
                    markersize=7,
                    label="_" if named else f"{system.system} (published)",
                    linestyle="none",
                )
                named = True
    axes.set_xlabel(f"{metric.title} ({unit})")
    if metric.lower_is_better:
        _set_log(axes)
    axes.grid(axis="x", color=_LINE, linewidth=0.8)
    for y in range(1, len(places)):
        axes.axhline(y - 0.5, color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_FAINT, which="both", labelsize=9, left=False)
    axes.xaxis.label.set_color(_FAINT)
    for side, spine in axes.spines.items():
        spine.set_color(_LINE)
        spine.set_visible(side == "bottom")


def _set_log(axes: Axes) -> None:
    """Make the x axis logarithmic, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    # Label 1, 10, 100 over many decades, else some values between them.
    steps = (
        (1.0,)
        if high / low > 1e3
        else (1.0, 2.0, 5.0)
        if high / low > 8
        else (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    )
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
