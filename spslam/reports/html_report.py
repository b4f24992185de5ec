"""`report.html`: one self-contained page about a run, without network access.

The page is rendered from `templates/report.html`. It contains the data of the charts as JSON and a
script that draws them.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spslam.errors import Refusal
from spslam.evaluation.ate import Evaluation
from spslam.io.files import write_atomic
from spslam.io.html import render_page
from spslam.notices import counted
from spslam.reports.chart_data import Columns, chart_data
from spslam.run.metrics import Metrics, RunRecord
from spslam.run.sample_frames import Sample
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray
from spslam.visualization.path_views import ALIGNMENT_WORDS

if TYPE_CHECKING:
    from spslam.slam.system import Slam


def write_report(
    path: Path | str,
    slam: Slam,
    record: RunRecord,
    trajectory: Trajectory,
    evaluation: Evaluation | Refusal,
    metrics: Metrics,
    samples: list[Sample],
) -> None:
    """Write the HTML report of a run.

    Args:
        path: HTML file to write.
        slam: the finished system, with the map and the configuration.
        record: results and timing of every frame.
        trajectory: estimated poses.
        evaluation: comparison with the ground truth, or why there is none.
        metrics: contents of `metrics.json`.
        samples: frames to show as images.

    Raises:
        OutputError: the file cannot be written.
    """
    data = chart_data(slam, record, trajectory, evaluation)
    title = " · ".join(str(metrics[key]) for key in ("sequence", "sensor", "extractor"))
    page = render_page(
        "report.html",
        title=title,
        subtitle=f"{metrics['source']} · configuration {metrics['config']} · "
        f"spslam {metrics['version_spslam']}",
        remarks=_notes(record, metrics, data),
        headlines=_tiles(metrics, data["unit"]),
        losses=[_loss(row) for row in data["losses"]],
        loops=[_loop(row, data["unit"]) for row in data["loops"]],
        stages=_stages(metrics),
        samples=[_figure(sample, record.results[0].timestamp) for sample in samples],
        metrics=[(key, _plain(value)) for key, value in metrics.items()],
        config=slam.config.to_yaml(),
        data=data,
    )
    write_atomic(path, page)


def _notes(record: RunRecord, metrics: Metrics, data: Columns) -> list[str]:
    """Return the remarks above the metrics."""
    notes = []
    last = record.results[-1].index
    if record.failure is not None:
        notes.append(
            f"The run failed after frame {last}; what was computed until then is shown: "
            f"{record.failure}"
        )
    elif record.stopped:
        notes.append(
            f"The run was stopped after frame {last}; what was computed until then is shown."
        )
    if metrics.get("not_compared"):
        notes.append(f"Not compared with the ground truth: {metrics['not_compared']}")
    elif not data["compared"]:
        notes.append("This sequence has no ground truth: the path is shown as estimated.")
    if metrics["alignment"] == "sim3":
        notes.append(
            "A single camera does not measure scale: the path is aligned with the ground truth "
            f"by Sim(3), which multiplied its lengths by {_short(metrics['scale'])}."
        )
    elif data["unit"] != "m":
        notes.append("A single camera does not measure scale: lengths are in units of its map.")
    if metrics.get("compared") == "positions":
        notes.append(
            "The ground truth has positions only: relative and rotation errors are not known."
        )
    if metrics["scale_refused"]:
        notes.append(f"The map was not scaled as requested: {metrics['scale_refused']}")
    step = data["frames"]["step"]
    if step > 1:
        notes.append(f"The charts show one frame in {step}; the metrics are of all.")
    return notes


def _tiles(metrics: Metrics, unit: str) -> list[tuple[str, str, str]]:
    """Return name, value and explanation of each headline metric."""
    fraction = 100.0 * _float(metrics["tracking_rate"])
    lost = f"{metrics['lost_frames']} lost, {metrics['skipped_frames']} unreadable"
    lost += f", {metrics['dropped_frames']} dropped" if metrics["dropped_frames"] else ""
    stages = (
        f"95 %: {_milliseconds(metrics['frame_p95_ms'])}, {_short(metrics['fps'])} frames a second"
    )
    return [
        (
            "Tracked",
            f"{metrics['tracked']} of {metrics['frames']}",
            f"{fraction:.1f} % of the frames, {lost}",
        ),
        *_error_tiles(metrics, unit),
        (
            "Map",
            counted(metrics["points"], "point"),
            f"{counted(metrics['keyframes'], 'keyframe')}; submaps: {metrics['submaps']}",
        ),
        (
            "Loops",
            str(metrics["loops"]),
            f"{counted(metrics['relocalisations'], 'relocalisation')}, "
            f"{counted(metrics['merges'], 'merge')}",
        ),
        ("Losses", str(metrics["losses_count"]), "times that tracking was lost"),
        (
            "Seen",
            f"{_short(metrics['inliers_median'])} points",
            f"median a frame; {_short(metrics['reprojection_error_median_px'])} px off, "
            f"{_percent(metrics['inlier_coverage_median'])} of the image",
        ),
        ("A frame takes", _milliseconds(metrics["frame_median_ms"]), f"median; {stages}"),
    ]


def _error_tiles(metrics: Metrics, unit: str) -> list[tuple[str, str, str]]:
    if metrics["ate_rmse_m"] is None:
        length = metrics["path_length_m"]
        return (
            []
            if length is None
            else [("Path", _length(length, unit), "no error without a ground truth")]
        )
    alignment = ALIGNMENT_WORDS[str(metrics["alignment"])]
    length, ate = _float(metrics["path_length_m"]), _float(metrics["ate_rmse_m"])
    fraction = f", {100 * ate / length:.2f} % of {_length(length, 'm')}" if length > 0 else ""
    absolute = (
        "ATE",
        _length(ate, "m"),
        f"RMSE{fraction}, {alignment}; {counted(metrics['matched_poses'], 'pose')} compared",
    )
    if metrics["rpe_trans_m"] is None:
        return [absolute]
    return [
        absolute,
        (
            "RPE",
            _length(metrics["rpe_trans_m"], "m"),
            f"RMSE a frame, and {_short(metrics['rpe_rot_deg'])}°; "
            f"truth: poses of the {metrics['ground_truth_frame']}",
        ),
    ]


def _loss(row: Columns) -> tuple[object, ...]:
    frames, seconds = f"{row['frame']}–{row['last']}", f"{row['from']:.2f}–{row['to']:.2f}"
    return frames, row["frames"], seconds, row["cause"], row["reason"]


def _loop(row: Columns, unit: str) -> tuple[object, ...]:
    ends = zip(row["frames"], row["earlier"], strict=True)
    frames = (f"{frame} (earlier run)" if old else frame for frame, old in ends)
    return *frames, row["inliers"], _length(float(np.linalg.norm(np.subtract(*row["ends"]))), unit)


def _stages(metrics: Metrics) -> list[tuple[str, str, str]]:
    names = [
        key[: -len("_median_ms")]
        for key in metrics
        if key.startswith("stage_") and key.endswith("_median_ms")
    ]
    return [
        (
            name.removeprefix("stage_").replace("_", " "),
            _milliseconds(metrics[f"{name}_median_ms"]),
            _milliseconds(metrics[f"{name}_p95_ms"]),
        )
        for name in names
    ]


def _figure(sample: Sample, begin: float) -> dict[str, object]:
    """Return the template's data of a frame: the image, and the points as SVG paths."""
    moved = np.isfinite(sample.before).all(axis=1)
    lines = "".join(
        f"M{x0:.0f} {y0:.0f}L{x1:.0f} {y1:.0f}"
        for (x0, y0), (x1, y1) in zip(sample.before[moved], sample.seen[moved], strict=True)
    )
    caption = (
        f"frame {sample.index}, {sample.timestamp - begin:.2f} s, {sample.state.value}: "
        f"{counted(len(sample.seen) + len(sample.loose), 'keypoint')}, {len(sample.seen)} in "
        "the map"
    )
    reason = f" ({sample.reason})" if sample.reason and sample.state.value != "tracking" else ""
    width, height = sample.size
    return {
        "state": sample.state.value,
        "width": width,
        "height": height,
        "jpeg": base64.b64encode(sample.jpeg).decode("ascii"),
        "loose": _dots(sample.loose),
        "motion": lines,
        "seen": _dots(sample.seen),
        "caption": caption + reason,
    }


def _dots(pixels: FloatArray) -> str:
    """Return an SVG path of zero-length lines: round caps draw each as a dot, in ten bytes."""
    return "".join(f"M{x:.0f} {y:.0f}h0" for x, y in pixels[np.isfinite(pixels).all(axis=1)])


def _plain(value: object) -> str:
    if value is None:
        return "–"
    return (
        f"{value:.6g}"
        if isinstance(value, float)
        else json.dumps(value)
        if isinstance(value, list)
        else str(value)
    )


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _short(value: object) -> str:
    return "–" if value is None else f"{_float(value):.3g}"


def _percent(value: object) -> str:
    return "–" if value is None else f"{100 * _float(value):.0f} %"


def _milliseconds(value: object) -> str:
    return (
        "–"
        if value is None
        else f"{_float(value):.0f} ms"
        if _float(value) >= 10
        else f"{_float(value):.1f} ms"
    )


def _length(value: object, unit: str) -> str:
    """Format a length as mm, m or km, or in map units."""
    if value is None:
        return "–"
    length = _float(value)
    if unit != "m":
        return f"{length:.3g} {unit}"
    if length < 0.1:
        return f"{1000 * length:.3g} mm"
    return f"{length:.3g} m" if length < 1000 else f"{length / 1000:.3g} km"
