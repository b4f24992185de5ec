"""Console output: a progress line during a run, a short table at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from time import monotonic
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from spslam.notices import counted

if TYPE_CHECKING:
    from spslam.evaluation.summary import Spread
    from spslam.frontend.training.loop.progress import Progress as TrainingProgress
    from spslam.pipeline import RunResult, Status

# Time between two progress lines where standard error is not a terminal, seconds.
_PLAIN_INTERVAL_S = 10.0
# End of the key of a stage's median time.
_STAGE_SUFFIX = "_median_ms"
# Width of tables where standard output is not a terminal, columns.
_PLAIN_WIDTH = 200
# Metrics that are fractions, printed in percent.
_FRACTIONS = ("tracking_rate",)
# Columns of the comparison table: heading by metric.
_COLUMNS = {
    "tracking_rate": "tracked",
    "ate_rmse_m": "ATE m",
    "ate_max_m": "max m",
    "rpe_trans_m": "RPE m",
    "rpe_rot_deg": "RPE °",
    "t_rel_percent": "drift %",
    "r_rel_deg_per_100m": "°/100 m",
    "scale": "scale",
}
# Losses that the training line shows.
_LOSSES = ("total", "detector", "descriptor")

Metrics = Mapping[str, float | int | str | None]


def make_console(
    file: IO[str] | None = None, stderr: bool = False, width: int | None = None
) -> Console:
    """Return a console without markup: paths and names may contain `:b:` or `[red]`."""
    return Console(
        file=file, stderr=stderr, width=width, emoji=False, markup=False, highlight=False
    )


class ProgressLine:
    """A progress line on standard error: updated on a terminal, else printed every ten seconds.

    Args:
        total: frames of the run; None if unknown.
        console: where to print; default: standard error.
    """

    def __init__(self, total: int | None, console: Console | None = None) -> None:
        self._console = console or make_console(stderr=True)
        self._last = monotonic()
        self._bar: Progress | None = None
        self._status: Status | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                TimeRemainingColumn(compact=True),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("preparing", total=total)

    def __enter__(self) -> ProgressLine:
        if self._bar is not None:
            self._bar.start()
        return self

    def update(self, status: Status) -> None:
        """Show the progress of the run."""
        self._status = status
        if self._bar is not None:
            self._bar.update(self._task, completed=status.done, description=describe_status(status))
        elif monotonic() - self._last >= _PLAIN_INTERVAL_S:
            self._print()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._status is not None:
            self._print()

    def _print(self) -> None:
        assert self._status is not None
        self._last = monotonic()
        self._console.print(describe_status(self._status), soft_wrap=True)


class StatusLine:
    """A progress line like `ProgressLine`, for work other than SLAM.

    Args:
        console: where to print; default: standard error.
        quiet: print nothing: for all processes but the first.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or make_console(stderr=True)
        self._quiet = quiet
        self._start = self._last = monotonic()
        self._text = ""
        self._status = (
            self._console.status(Text("preparing"))
            if self._console.is_terminal and not quiet
            else None
        )

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def update(self, progress: TrainingProgress) -> None:
        """Show the progress of the training."""
        losses = "  ".join(
            f"{name} {progress.loss[name]:.3f}" for name in _LOSSES if name in progress.loss
        )
        metrics = f"validation {progress.metrics['metric']:.3f}" if progress.metrics else ""
        self._show(
            f"{progress.stage}  step {progress.step}  {100 * progress.fraction:.0f} %  "
            f"{progress.images_per_second:.1f} images/s  "
            f"{_duration(progress.seconds_left)} left  {losses}  {metrics}"
        )

    def count(self, done: int, total: int, what: str = "image") -> None:
        """Show how many images, or other things, are done."""
        seconds = monotonic() - self._start
        left = seconds * (total - done) / max(done, 1)
        self._show(
            f"{what} {done}/{total}  {done / max(seconds, 1e-9):.1f} {what}s/s  "
            f"{_duration(left)} left"
        )

    def say(self, text: str) -> None:
        """Show a line of text."""
        self._show(text)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()
        elif self._text and not self._quiet:
            self._print()

    def _show(self, text: str) -> None:
        self._text = text.rstrip()
        if self._status is not None:
            self._status.update(Text(self._text))
        elif not self._quiet and monotonic() - self._last >= _PLAIN_INTERVAL_S:
            self._print()

    def _print(self) -> None:
        self._last = monotonic()
        self._console.print(self._text, soft_wrap=True)


class TransferLine(StatusLine):
    """A progress line of a transfer, like `StatusLine`: rate and time left."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._action = ""
        self._first = 0

    def move(self, action: str, done: int, total: int | None) -> None:
        """Show the progress of an action.

        Args:
            action: its name.
            done: bytes done.
            total: bytes in all; None if unknown.
        """
        now = monotonic()
        if action != self._action:
            # Bytes of an earlier call do not count for the rate.
            self._action, self._first, self._start = action, done, now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        whole = (
            f" of {total / 1e6:.1f} MB  {100 * done / max(total, 1):.0f} %"
            if total is not None
            else " MB"
        )
        left = (
            f"  {_duration((total - done) / rate)} left" if total is not None and rate > 0 else ""
        )
        self._show(f"{action}  {done / 1e6:.1f}{whole}  {rate / 1e6:.1f} MB/s{left}")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def print_result(outcome: RunResult, console: Console | None = None) -> None:
    """Print the main metrics of a run and its output folder."""
    console = console or make_console()
    metrics = outcome.metrics
    title = " · ".join(str(metrics.get(key)) for key in ("sequence", "sensor", "extractor"))
    console.print(
        title if metrics["ended"] == "complete" else f"{title} · {metrics['ended']} early",
        style="bold",
    )
    print_metrics(
        {key: value for key, value in metrics.items() if not isinstance(value, list)}, console
    )
    console.print(f"results in {outcome.folder}", soft_wrap=True)


def print_metrics(metrics: Metrics, console: Console | None = None) -> None:
    """Print the main metrics of a run or of a comparison; unknown ones are left out."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    rows = {
        "frames": _frames(metrics),
        "time stamps": str(metrics.get("time_stamps") or ""),
        "scale": _scale(metrics),
        "ATE": _ate(metrics),
        "RPE": _rpe(metrics),
        "drift": _drift(metrics),
        "within": _recall(metrics),
        "ground truth": _truth(metrics),
        "map": _map(metrics),
        "time": _time(metrics),
        "latency": _latency(metrics),
        "stages, median / 95 %": _stages(metrics),
    }
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    (console or make_console()).print(table)


def print_comparisons(
    rows: list[Metrics], spreads: Mapping[str, Spread], console: Console | None = None
) -> None:
    """Print a row for each estimate and ground truth, then the spread.

    Args:
        rows: metrics of each comparison, with the tracking rate beside the errors.
        spreads: spread of each metric over the estimates; empty: print none.
        console: where to print; default: standard output.
    """
    console = console or make_console()
    if not console.is_terminal:
        console = make_console(console.file, width=_PLAIN_WIDTH)
    compared = next(row for row in rows if "not_compared" not in row)
    columns = {
        key: title
        for key, title in _COLUMNS.items()
        if any(row.get(key) is not None for row in rows)
    }
    table = Table(box=None, pad_edge=False)
    table.add_column("estimate")
    table.add_column("ground truth")
    for title in columns.values():
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(str(row["estimate"]), str(row["ground_truth_frame"]), *_cells(row, columns))
    for key in ("median", "min", "max") if spreads else ():
        values = {name: getattr(spread, key) for name, spread in spreads.items()}
        runs = max(spread.runs for spread in spreads.values())
        table.add_row(
            f"{key} of {runs}",
            str(rows[0]["ground_truth_frame"]),
            *_cells(values, columns),
            style="bold",
        )
    console.print(table)
    for row in rows:
        if "not_compared" in row:
            console.print(f"{row['estimate']}: {row['not_compared']}", soft_wrap=True)
    about = (
        ", estimated from the usual step of the poses"
        if compared["frames_are"] == "estimated"
        else ""
    )
    if compared.get("frames_from"):
        about = f", counted in {PurePath(str(compared['frames_from'])).name}"
    over = next((row["rpe_over"] for row in rows if row.get("rpe_over")), None)
    relative = f"RPE: RMSE over {over}" if over else "RPE: none without rotations"
    console.print(
        f"tracked: fraction of the frames{about}; ATE: RMSE, aligned by {compared['alignment']}; "
        f"{relative}; true poses: {compared['association']}",
        soft_wrap=True,
        style="dim",
    )


def _cells(row: Metrics, columns: Mapping[str, str]) -> list[str]:
    values = {key: row.get(key) for key in columns}
    return [
        "–"
        if value is None
        else f"{100 * float(value):.1f} %"
        if key in _FRACTIONS
        else f"{value:.4g}"
        for key, value in values.items()
    ]


def describe_status(status: Status) -> str:
    """Return the text of a progress line."""
    result = status.result
    of = "" if status.total is None else f"/{status.total}"
    return (
        f"frame {status.done}{of}  {result.state.value}  {status.fps:.1f} fps  "
        f"{counted(status.keyframes, 'keyframe')}  {counted(status.points, 'point')}  "
        f"{counted(result.inliers, 'inlier')}"
    )


def _frames(metrics: Metrics) -> str:
    extra = "".join(
        f", {metrics[key]} {word}"
        for key, word in (
            ("skipped_frames", "unreadable"),
            ("dropped_frames", "dropped"),
            ("left_out_frames", "left out"),
            ("lost_frames", "lost"),
        )
        if metrics.get(key)
    )
    if metrics.get("left_out_why"):
        extra = extra.replace(" left out", f" left out ({metrics['left_out_why']})")
    if metrics.get("first_pose_delay_s"):
        extra += f", the first after {metrics['first_pose_delay_s']:.4g} s"
    fraction = 100 * float(metrics["tracking_rate"] or 0)
    about = "about " if metrics.get("frames_are") == "estimated" else ""
    source = (
        f", counted in {PurePath(str(metrics['frames_from'])).name}"
        if metrics.get("frames_from")
        else ""
    )
    if about:
        source = ", frames estimated from the time of the ground truth"
    frames = f"{metrics['tracked']} of {about}{metrics['frames']}"
    return f"{frames} tracked ({fraction:.1f} %){extra}{source}"


def _ate(metrics: Metrics) -> str:
    if metrics.get("not_compared"):
        return str(metrics["not_compared"])
    ate, length = metrics.get("ate_rmse_m"), metrics.get("path_length_m")
    if not isinstance(ate, float):
        return "no ground truth"
    fraction = f" = {100 * ate / length:.2f} %" if isinstance(length, float) and length > 0 else ""
    scale = f", scale {metrics['scale']:.4g}" if metrics["alignment"] == "sim3" else ""
    return (
        f"{ate:.4g} m RMSE of {length:.4g} m{fraction} (aligned by {metrics['alignment']}{scale})"
    )


def _scale(metrics: Metrics) -> str:
    """Describe the source of the metric scale of a mono map, or why the request failed."""
    if metrics.get("scale_refused"):
        return f"{metrics['scale_source']}: {metrics['scale_refused']}"
    if metrics.get("scale_applied") is None:
        return ""
    error = metrics.get("scale_error_percent")
    wrong = "" if error is None else f", best fit to the ground truth at {error:+.2f} %"
    return f"{metrics['scale_source']}{wrong}"


def _rpe(metrics: Metrics) -> str:
    if metrics.get("compared") == "positions":
        return "none without rotations"
    if metrics.get("rpe_trans_m") is None:
        return ""
    return (
        f"{metrics['rpe_trans_m']:.4g} m, {metrics['rpe_rot_deg']:.4g}° RMSE "
        f"over {metrics['rpe_over']}"
    )


def _drift(metrics: Metrics) -> str:
    if metrics.get("t_rel_percent") is None:
        return ""
    text = (
        f"{metrics['t_rel_percent']:.4g} %, {metrics['r_rel_deg_per_100m']:.4g}°/100 m "
        "over 100 to 800 m"
    )
    left_out = metrics.get("drift_segments_left_out")
    if not left_out:
        return text
    return (
        f"{text} ({counted(left_out, 'segment that ends', 'segments that end')} in a gap left out)"
    )


def _recall(metrics: Metrics) -> str:
    """Describe the fraction of frames near the true path; frames without a pose are not near."""
    near = {
        key.removeprefix("recall_"): value
        for key, value in metrics.items()
        if key.startswith("recall_")
    }
    known = [
        f"{distance.removesuffix('m')} m: {100 * value:.1f} %"
        for distance, value in near.items()
        if value is not None
    ]
    return ", ".join(known) + " of the frames" if known else ""


def _truth(metrics: Metrics) -> str:
    """Describe the ground truth: poses of the body or of a camera, and how many were compared."""
    frame = metrics.get("ground_truth_frame")
    if not frame:
        return ""
    text = f"poses of the {frame}"
    if frame == "body":
        text += ": the camera path differs by the offset between body and camera"
    if metrics.get("matched_poses") is not None:
        text += f"; {metrics['matched_poses']} compared, {metrics['association']}"
    return text


def _map(metrics: Metrics) -> str:
    if "keyframes" not in metrics:
        return ""
    names = ("keyframe", "point", "loop", "relocalisation")
    text = ", ".join(counted(metrics[f"{name}s"], name) for name in names)
    if metrics.get("submaps") not in (None, 0, 1):
        text += (
            f"; {metrics['submaps']} submaps, "
            f"{counted(metrics['tracked_in_other_submaps'], 'frame')} tracked in the smaller ones"
        )
    return text


def _time(metrics: Metrics) -> str:
    if metrics.get("frame_median_ms") is None:
        return ""
    parts = [f"{metrics['fps']:.1f} frames a second"] if metrics.get("fps") is not None else []
    # May exceed 1 / fps: several frames are processed at the same time.
    parts.append(
        f"{metrics['frame_median_ms']:.0f} / {metrics['frame_p95_ms']:.0f} ms "
        "from image to pose (median / 95 %)"
    )
    if metrics.get("peak_rss_mb") is not None:
        parts.append(f"{metrics['peak_rss_mb']:.0f} MB")
    return ", ".join(parts)


def _latency(metrics: Metrics) -> str:
    """Describe the time from the image of a live camera to its pose; empty for a recording."""
    if metrics.get("latency_median_ms") is None:
        return ""
    return (
        f"{metrics['latency_median_ms']:.0f} / {metrics['latency_p95_ms']:.0f} ms "
        f"from {metrics['latency_from']} to pose (median / 95 %)"
    )


def _stages(metrics: Metrics) -> str:
    """List the median and 95th percentile of each stage, milliseconds."""
    parts = []
    for key, median in metrics.items():
        if key.startswith("stage_") and key.endswith(_STAGE_SUFFIX) and median is not None:
            name = key.removeprefix("stage_").removesuffix(_STAGE_SUFFIX)
            p95 = metrics[f"stage_{name}_p95_ms"]
            parts.append(f"{name.replace('_', ' ')} {median:.0f} / {p95:.0f} ms")
    return ", ".join(parts)
