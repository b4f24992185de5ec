"""Comparison of metrics of several extractors: JSON, Markdown tables, a plot."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spslam.io.files import write_atomic
from spslam.io.markdown import format_table

from .homography_metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Return value of `evaluate_extractor`.
Result = dict[str, Any]

# Column names of the metrics.
_TABLE_NAMES = {
    "repeatability": "rep.",
    "mle_px": "MLE px",
    "homography_accuracy_1": "H@1",
    "homography_accuracy_3": "H@3",
    "homography_accuracy_5": "H@5",
    "nn_map": "NN mAP",
    "matching_score": "M.score",
    "mma_1": "MMA@1",
    "mma_3": "MMA@3",
    "mma_5": "MMA@5",
    "auc_5": "AUC@5",
}


def write_json(results: Sequence[Result], path: Path) -> None:
    """Write one result as an object, several as a list.

    Raises:
        OutputError: the file cannot be written.
    """
    content = results[0] if len(results) == 1 else list(results)
    write_atomic(path, json.dumps(content, indent=2) + "\n")


def markdown_table(results: Sequence[Result]) -> str:
    """Return tables of results for homography sets, shapes and pose, followed by the protocol."""
    parts = [
        _table(["set", "extractor", *_TABLE_NAMES.values()], _homography_rows(results)),
        _table(
            ["shapes", "detector", "mAP", "AP", "MLE px", *_primitives(results)],
            _shape_rows(results),
        ),
        _table(
            ["pose", "extractor", "rotation °", "direction °", "AUC@5°", "inliers", "pairs"],
            _pose_rows(results),
        ),
        "\n\n".join(dict.fromkeys(result["protocol"] for result in results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plot(results: Sequence[Result], path: Path) -> None:
    """Draw the metrics of several results as bars, a row per set.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sets = list(dict.fromkeys(name for result in results for name in _sets(result)))
    figure = Figure(figsize=(11.0, 2.6 * max(len(sets), 1) + 0.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(max(len(sets), 1), 2, width_ratios=[6, 1])
    fractions = [key for key in METRICS if key != "mle_px"]
    for row, name in enumerate(sets):
        left, right = figure.add_subplot(grid[row, 0]), figure.add_subplot(grid[row, 1])
        _bars(left, results, name, fractions)
        _bars(right, results, name, ["mle_px"])
        left.set_ylim(0, 1)
        left.set_title(name, fontsize=10, loc="left")
    if sets:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(len(labels), 4),
            fontsize=9,
            frameon=False,
        )
    buffer = io.BytesIO()
    # Leave out the version, so that the same metrics give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def _sets(result: Result) -> dict[str, dict[str, float | None]]:
    photos = {"photos": result["photos"]} if "photos" in result else {}
    return {**photos, **result.get("homography", {})}


def _bars(axes: Axes, results: Sequence[Result], name: str, keys: Sequence[str]) -> None:
    width = 0.8 / len(results)
    for number, result in enumerate(results):
        scores = _sets(result).get(name, {})
        values = [np.nan if (value := scores.get(key)) is None else value for key in keys]
        axes.bar(
            np.arange(len(keys)) + (number - 0.5 * (len(results) - 1)) * width,
            values,
            width,
            label=result["label"],
        )
    axes.set_xticks(np.arange(len(keys)), [_TABLE_NAMES[key] for key in keys], fontsize=8)
    axes.grid(axis="y", linewidth=0.4)
    axes.set_axisbelow(True)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    return format_table(header, rows, align="ll".ljust(len(header), "r"))


def _homography_rows(results: Sequence[Result]) -> list[list[str]]:
    names = dict.fromkeys(name for result in results for name in _sets(result))
    return [
        [name, result["label"], *(_number(_sets(result)[name].get(key)) for key in _TABLE_NAMES)]
        for name in names
        for result in results
        if name in _sets(result)
    ]


def _primitives(results: Sequence[Result]) -> list[str]:
    shapes = (result["shapes"]["clean"]["primitives"] for result in results if "shapes" in result)
    return list(dict.fromkeys(name for primitives in shapes for name in primitives))


def _shape_rows(results: Sequence[Result]) -> list[list[str]]:
    detectors: dict[str, dict[str, Any]] = {}
    for result in results:
        if "shapes" in result:
            detectors[result["label"]] = result["shapes"]
            for name, scores in result["shapes"]["beside"].items():
                detectors.setdefault(name, scores)
    primitives = _primitives(results)
    return [
        [
            kind,
            label,
            *(_number(shapes[kind][key]) for key in ("map", "ap", "mle_px")),
            *(_number(shapes[kind]["primitives"].get(name, {}).get("ap")) for name in primitives),
        ]
        for kind in ("clean", "noisy")
        for label, shapes in detectors.items()
    ]


def _pose_rows(results: Sequence[Result]) -> list[list[str]]:
    gaps = dict.fromkeys(gap for result in results for gap in result.get("pose", {}))
    return [
        [
            gap.replace("gap_", "") + " apart",
            result["label"],
            *(
                _number(result["pose"][gap][key])
                for key in ("rotation_deg", "direction_deg", "auc_5")
            ),
            *(_number(result["pose"][gap][key], 0) for key in ("inliers", "pairs")),
        ]
        for gap in gaps
        for result in results
        if gap in result.get("pose", {})
    ]
