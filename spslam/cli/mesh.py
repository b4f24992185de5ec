"""The command that makes a dense mesh of a finished run, `spslam mesh`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from spslam.cli.options import INTERRUPTED
from spslam.errors import ConfigError, DatasetError, OutputError
from spslam.notices import counted
from spslam.process.signals import interrupt_as_flag

if TYPE_CHECKING:
    from spslam.dense.reconstruct import ChosenSettings, MeshSettings, Progress, Reconstruction
    from spslam.dense.run_poses import FinishedRun
    from spslam.interfaces import Sequence


def mesh(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            show_default=False,
            help="The folder of a stereo or RGB-D run, see spslam run --out.",
        ),
    ],
    sequence: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            show_default=False,
            help="The recording of the run, or the name of a built-in world. Default: where the "
            "run read it.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Calibration of the run, where the recording does not bring it.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.ply",
            show_default=False,
            help="File of the mesh. The point cloud (_cloud.ply) and the numbers (.json) lie "
            "beside it. Default: mesh.ply, cloud.ply and mesh.json in RUN.",
        ),
    ] = None,
    voxel: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            show_default=False,
            help="Side of a voxel, metres. Default: chosen from the scene.",
        ),
    ] = None,
    truncation: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            show_default=False,
            help="Distance from the surface within which depths are averaged, metres. Default: 4 "
            "voxels.",
        ),
    ] = None,
    every: Annotated[
        int, typer.Option(metavar="N", min=1, help="Use every N-th frame that has a pose.")
    ] = 1,
    keyframes: Annotated[bool, typer.Option("--keyframes", help="Use keyframes only.")] = False,
    submap: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            show_default=False,
            help="Mesh of the keyframes of this submap, in its world. Default: all frames of the "
            "trajectory, which are those of one submap.",
        ),
    ] = None,
    min_depth: Annotated[
        float, typer.Option(metavar="M", min=0.0, help="Smallest depth, metres.")
    ] = 0.0,
    max_depth: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            show_default=False,
            help="Largest depth, metres. Default: 3 times the median depth; for stereo at most "
            "baseline × fx / --min-disparity.",
        ),
    ] = None,
    min_disparity: Annotated[
        float,
        typer.Option(
            metavar="PX", help="Stereo: smallest disparity, pixels; it limits the depth's error."
        ),
    ] = 6.0,
    max_disparity: Annotated[
        int,
        typer.Option(
            metavar="PX",
            min=0,
            help="Stereo: largest disparity, pixels; nearer surfaces are not found. 0: an eighth "
            "of the image's width.",
        ),
    ] = 0,
    block: Annotated[
        int,
        typer.Option(metavar="PX", min=1, max=21, help="Stereo: side of compared blocks, pixels."),
    ] = 5,
    speckle: Annotated[
        int,
        typer.Option(
            metavar="PX", min=0, help="Stereo: smallest region of similar disparity, pixels."
        ),
    ] = 100,
    edge: Annotated[
        float,
        typer.Option(
            metavar="F",
            help="Leave out pixels whose 3 × 3 neighbours differ in depth by more than this "
            "fraction of the depth.",
        ),
    ] = 0.05,
    max_angle: Annotated[
        float,
        typer.Option(
            metavar="DEG",
            help="Leave out pixels whose surface is seen at more than this angle from its normal, "
            "degrees.",
        ),
    ] = 86.0,
    min_observations: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default=False,
            help="Smallest number of frames that see a voxel. Default: 3, fewer with few frames.",
        ),
    ] = None,
    min_triangles: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Leave out connected pieces with fewer triangles: noise."
        ),
    ] = 100,
    max_memory: Annotated[
        float,
        typer.Option(
            metavar="MB",
            help="Largest memory of the voxels and of the extraction, MB; the fusion stops before.",
        ),
    ] = 4000.0,
) -> None:
    """Make a coloured mesh and point cloud (PLY) of a stereo or RGB-D run, from its final poses.

    \b
    spslam mesh runs/desk
    spslam mesh runs/desk --voxel 0.01 --every 3
    spslam mesh runs/street --sequence /data/kitti/sequences/00 --max-depth 25

    Needs Open3D: pip install 'spslam[viewer]'. ^C stops the fusion and writes what was fused until
    then. The same call writes the same mesh and point cloud, byte for byte.
    """
    from spslam.dense.depth_images import DepthSettings
    from spslam.dense.reconstruct import MeshSettings
    from spslam.dense.run_poses import read_run
    from spslam.dense.stereo_depth import StereoSettings
    from spslam.process.output_lock import hold_output
    from spslam.visualization.open3d_window import import_open3d

    _check(
        {"--voxel": voxel, "--truncation": truncation, "--max-depth": max_depth}
        | {"--min-disparity": min_disparity, "--edge": edge, "--max-memory": max_memory}
    )
    if not 0 < max_angle <= 90:
        raise ConfigError(f"--max-angle is 0 to 90 degrees, found {max_angle:g}")
    if block % 2 == 0:
        raise ConfigError(f"--block must be odd, found {block}")
    if max_depth is not None and max_depth <= min_depth:
        raise ConfigError(
            f"--max-depth must exceed --min-depth, found {max_depth:g} and {min_depth:g} m"
        )
    run = read_run(folder, keyframes_only=keyframes, submap=submap)
    import_open3d("a mesh")
    frames = _recording(run, sequence, calibration)
    settings = MeshSettings(
        voxel,
        truncation,
        every,
        min_observations,
        min_triangles,
        max_memory,
        DepthSettings(
            min_depth,
            max_depth,
            min_disparity,
            edge,
            max_angle_deg=max_angle,
            stereo=StereoSettings(block, max_disparity, speckle=speckle),
        ),
    )
    mesh_file, cloud_file = _places(folder, out)
    with hold_output(mesh_file):
        _make(run, frames, settings, mesh_file, cloud_file)


def _check(lengths: dict[str, float | None]) -> None:
    for name, value in lengths.items():
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} must be positive, found {value:g}")


def _places(folder: Path, out: Path | None) -> tuple[Path, Path]:
    if out is None:
        return folder / "mesh.ply", folder / "cloud.ply"
    if out.suffix.lower() != ".ply":
        raise ConfigError(f"--out writes a .ply file, found {out.name!r}")
    if not out.parent.is_dir():
        raise OutputError(f"cannot write {out}: there is no folder {out.parent}")
    cloud = out.with_name(f"{out.stem}_cloud.ply")
    _check_beside(out, cloud)
    return out, cloud


def _check_beside(mesh: Path, cloud: Path) -> None:
    """Check that the files beside a mesh are new, or of an earlier mesh.

    Raises:
        OutputError: one is of something else; only the mesh itself was named by the user.
    """
    from spslam.dense.reconstruct import is_of_mesh

    numbers = mesh.with_suffix(".json")
    if is_of_mesh(numbers):
        return
    other = next((file for file in (numbers, cloud) if file.exists()), None)
    if other is not None:
        raise OutputError(
            f"{other} is left alone: it is not of an earlier mesh; give another name with --out"
        )


def _recording(run: FinishedRun, path: str | None, calibration: Path | None) -> Sequence:
    """Open the recording of a run as the run did.

    Raises:
        DatasetError: the recording is missing or is not of the run's sensor.
    """
    from spslam.datasets import open_sequence
    from spslam.datasets.world.world import is_world

    given = {"path": path, "calibration": calibration}
    recording = run.recording | {name: value for name, value in given.items() if value is not None}
    if not recording["path"]:
        raise DatasetError(
            f"the run saw the live camera {run.metrics.get('input_live')} and kept no images: "
            "--record DIR of spslam run keeps them"
        )
    try:
        frames = open_sequence(**recording, sensor=run.sensor)
    except DatasetError as error:
        place = recording["path"]
        if path is not None or is_world(place) or Path(place).exists():
            # Something else is wrong, for example the calibration.
            raise
        raise DatasetError(
            f"the recording of the run is not at {place}: give its place with "
            f"--sequence PATH ({error})"
        ) from None
    disturbances = run.metrics.get("disturb")
    if isinstance(disturbances, str):
        from spslam.datasets.world.disturbed import disturb

        frames = disturb(frames, disturbances.split())
    return frames


def _make(
    run: FinishedRun, frames: Sequence, settings: MeshSettings, mesh_file: Path, cloud_file: Path
) -> None:
    from spslam.cli.console import StatusLine
    from spslam.dense.reconstruct import give_notices, reconstruct, write_reconstruction

    with interrupt_as_flag() as interrupted, StatusLine() as line:

        def goes_on(progress: Progress) -> bool:
            line.say(
                f"frame {progress.done}/{progress.total}  {progress.blocks} blocks  "
                f"{progress.memory_mb:.0f} MB"
            )
            return not interrupted.is_set()

        made = reconstruct(run, frames, settings, _announce, goes_on)
        give_notices(run, made, settings)
        labels = {
            "run": str(run.folder),
            "sequence": frames.name,
            "source": frames.source,
            "sensor": frames.sensor,
            "poses": run.what,
            "every": settings.every,
        }
        is_empty = len(made.surface.triangles) == 0
        if not is_empty:
            numbers = write_reconstruction(made, mesh_file, cloud_file, labels)
    _print(run, made, settings)
    if is_empty:
        _tell_empty(made, settings, interrupted.is_set())
    typer.echo(f"mesh in {mesh_file}, point cloud in {cloud_file}, numbers in {numbers}")
    if made.full:
        raise OutputError(
            f"the fusion stopped before --max-memory {settings.max_memory_mb:g} MB, after "
            f"{made.counts['frames_fused']} frames; the mesh of these is written: give a larger "
            "--voxel, a smaller --max-depth or more memory"
        )
    if interrupted.is_set():
        raise typer.Exit(INTERRUPTED)


def _tell_empty(made: Reconstruction, settings: MeshSettings, interrupted: bool) -> NoReturn:
    """Say why there is no mesh, and end; files of an earlier mesh stay."""
    if interrupted:
        typer.echo("stopped before there was a surface: no file is written")
        raise typer.Exit(INTERRUPTED)
    why = (
        f"the fusion stopped before --max-memory {settings.max_memory_mb:g} MB, after "
        f"{counted(made.counts['frames_fused'], 'frame')}; give a larger --voxel, a smaller "
        "--max-depth or more memory"
        if made.full
        else "no surface was seen by enough frames; try --min-observations 1, --min-triangles 1 "
        "or a larger --voxel"
    )
    raise OutputError(f"the mesh is empty and not written: {why}")


def _announce(chosen: ChosenSettings) -> None:
    typer.echo(
        f"voxels of {chosen.voxel_m:g} m ({chosen.voxel_from}), truncation "
        f"{chosen.truncation_m:.3g} m, depths of {chosen.min_depth_m:.3g} to "
        f"{chosen.max_depth_m:.3g} m, {chosen.min_observations} or more observations"
    )


def _print(run: FinishedRun, made: Reconstruction, settings: MeshSettings) -> None:
    metrics = made.metrics()
    every = f", every {settings.every}" if settings.every > 1 else ""
    memory = metrics["peak_rss_mb"]
    colors = "colours of the images" if made.colored else "grey, as the images are read"
    typer.echo(
        f"{metrics['frames_fused']} of {len(run.trajectory)} {run.what} with a pose fused{every}: "
        f"{metrics['blocks']} blocks, {metrics['vertices']} vertices, {metrics['triangles']} "
        f"triangles ({metrics['small_components_left_out']} small components left out), {colors}"
    )
    typer.echo(
        f"{metrics['seconds']:.1f} s" + ("" if memory is None else f", peak memory {memory:.0f} MB")
    )
