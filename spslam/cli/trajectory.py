"""The command that writes trajectories in other formats, `spslam export-trajectory`."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.errors import ConfigError, TrajectoryError
from spslam.notices import notice

if TYPE_CHECKING:
    from spslam.trajectory import Trajectory

_logger = logging.getLogger(__name__)


class TrajectoryFormat(StrEnum):
    """Values of `--format`."""

    TUM = "tum"
    KITTI = "kitti"
    EUROC = "euroc"
    CSV = "csv"


def export_trajectory(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|FILE",
            show_default=False,
            help="The folder of a run, or a trajectory in the format of TUM, KITTI or EuRoC or a "
            "similar one, which is recognised.",
        ),
    ],
    output_format: Annotated[
        TrajectoryFormat | None,
        typer.Option(
            "--format",
            show_default=False,
            help="tum: seconds, quaternion x y z w; kitti: 3x4 matrices without times; euroc: "
            "nanoseconds, quaternion w x y z; csv: seconds, x y z w, all digits, with a header.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default=False, help="Output file.")
    ] = None,
    bag: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            show_default=False,
            help="Write a ROS bag instead: NAME.bag (ROS 1), NAME.mcap, NAME.db3, or a new folder "
            "with a db3 bag (ROS 2). It has the poses with their covariances (Odometry), a Path, "
            "and the points of a run's map (PointCloud2). Needs the extra ros.",
        ),
    ] = None,
    keyframes: Annotated[
        bool, typer.Option("--keyframes", help="Only the keyframes of a run.")
    ] = False,
    times: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Times of the poses of a file without times (KITTI's times.txt).",
        ),
    ] = None,
) -> None:
    """Write a trajectory in the format of TUM, KITTI or EuRoC, as CSV, or as a ROS bag.

    \b
    spslam export-trajectory runs/x --format euroc --out x.csv
    spslam export-trajectory poses/00.txt --times sequences/00/times.txt --format tum --out 00.tum
    spslam export-trajectory runs/x --bag x.mcap

    The poses stay those of the camera (of a file: those that it has). The covariances of a run are
    in its poses.csv.
    """
    from spslam import trajectory as formats

    target = _target(output_format, out, bag)
    file, scale = _file_of(source, keyframes)
    if target.resolve() == file.resolve():
        raise ConfigError(f"--out {target} is the trajectory itself: give another file")
    found = formats.read_trajectory(file, None if times is None else formats.read_times(times))
    if len(found) == 0:
        raise TrajectoryError(f"{file} has no pose to write")
    if bag is not None:
        _write_bag(bag, found, source if source.is_dir() else None)
    elif output_format is TrajectoryFormat.KITTI:
        _tell_missing(file, found)
        formats.write_kitti(target, found)
    elif output_format is TrajectoryFormat.EUROC:
        formats.write_euroc(target, found)
    elif output_format is TrajectoryFormat.CSV:
        formats.write_csv(target, found)
    else:
        formats.write_tum(target, found, scale)
    if output_format is not TrajectoryFormat.KITTI and found.numbered:
        text = "%s has no times: the stamps written are the numbers of its poses; give --times"
        notice(_logger, "poses_numbered", text, file)
    typer.echo(f"{len(found)} poses in {target}")


def _target(output_format: TrajectoryFormat | None, out: Path | None, bag: Path | None) -> Path:
    """Return the file to write; `--format` and `--out` belong together, `--bag` stands alone."""
    if bag is not None and output_format is None and out is None:
        return bag
    if bag is None and output_format is not None and out is not None:
        return out
    raise ConfigError("give --format NAME and --out FILE, or --bag FILE alone")


def _write_bag(bag: Path, found: Trajectory, run: Path | None) -> None:
    from spslam.reports.ros_bag import write_bag

    if found.numbered:
        raise TrajectoryError("a bag needs the times of poses: give --times FILE")
    points = write_bag(bag, found, run)
    if points:
        typer.echo(f"{points} points in {bag}")


def _file_of(source: Path, keyframes: bool) -> tuple[Path, str]:
    """Return the file of a trajectory, and where its scale comes from."""
    from spslam.run.output import read_metrics

    if source.is_dir():
        metrics = read_metrics(source)
        name = "keyframes.tum" if keyframes else "trajectory.tum"
        if not (source / name).is_file():
            raise TrajectoryError(f"the run {source} has no {name}")
        return source / name, str(metrics.get("scale_source") or "")
    if keyframes:
        raise ConfigError(f"--keyframes needs the folder of a run, found the file {source}")
    return source, ""


def _tell_missing(file: Path, found: Trajectory) -> None:
    """Say that row numbers are not frame numbers if frames of a run have no pose."""
    from spslam.visualization.saved_run import frames_beside

    frames = frames_beside(file, found)
    missing = 0 if frames is None else len(frames.times) + frames.missing - len(found)
    if missing > 0:
        notice(
            _logger,
            "frames_without_pose",
            "KITTI's format has no times, and %d frames have no pose: rows are not frame numbers",
            missing,
            count=missing,
        )
