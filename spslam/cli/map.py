"""The commands for saved maps: `spslam map …`."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spslam.cli.options import SetOption, command_group
from spslam.errors import ConfigError, MapError
from spslam.notices import counted, notice, notice_renamed, plural

if TYPE_CHECKING:
    from spslam.interfaces import Sequence
    from spslam.map.map import Map

_logger = logging.getLogger(__name__)


app = command_group(
    "map",
    "Describe, export and merge saved maps (map.npz).",
)


class ColmapFormat(StrEnum):
    """Values of `--format`."""

    TEXT = "text"
    BINARY = "binary"
    BOTH = "both"


MapArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", show_default=False, help="The map.npz of a run, or a merged map."
    ),
]


@app.command()
def info(
    file: MapArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Describe a map: camera, front end, keyframes, points, submaps and their size."""
    from spslam.map.export import describe_map
    from spslam.map.io import load_map

    metrics = describe_map(file, load_map(file))
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
    else:
        _print_table(_rows(metrics))


@app.command()
def export(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="MAP|RUN",
            show_default=False,
            help="The map.npz of a run, a merged map, or the folder of a run.",
        ),
    ],
    ply: Annotated[
        Path | None,
        typer.Option(
            metavar="F",
            show_default=False,
            help="Write the points with their colours as binary PLY.",
        ),
    ] = None,
    colmap: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Write a COLMAP model with rigs and frames; stereo pairs are a rig. A folder with "
            "other files is refused.",
        ),
    ] = None,
    colmap_format: Annotated[
        ColmapFormat,
        typer.Option("--format", help="Files of --colmap. COLMAP reads binary ones first."),
    ] = ColmapFormat.TEXT,
    nerfstudio: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Write undistorted images of the keyframes, transforms.json and points, for "
            "Gaussian splatting and NeRF. The images come from the recording of the run.",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            show_default=False,
            help="Recording with the images of --nerfstudio, as for spslam run. Default: the one "
            "that metrics.json beside the map names.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", show_default=False, help="Format of --images. Default: that of the run."
        ),
    ] = None,
    sequence: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", show_default=False, help="Sequence in --images. Default: the run's."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Calibration of --images. Default: the run's.",
        ),
    ] = None,
    session: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            show_default=False,
            help="Session of the map whose recording --images is; default: the newest.",
        ),
    ] = None,
    g2o: Annotated[
        Path | None,
        typer.Option(
            metavar="F",
            show_default=False,
            help="Write the pose graph: SE(3), for a mono map Sim(3). The config.yaml beside the "
            "map decides which keyframes are connected.",
        ),
    ] = None,
    submap: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            show_default=False,
            help="Submap to export; default: the one with most keyframes.",
        ),
    ] = None,
    part: Annotated[int | None, typer.Option(min=0, hidden=True)] = None,
) -> None:
    """Write a submap for other programs, in one or several formats.

    \b
    spslam map export runs/x/map.npz --ply points.ply
    spslam map export runs/x/map.npz --colmap model/ --g2o graph.g2o
    spslam map export runs/x --nerfstudio scene/ --colmap scene/sparse/0 --format binary

    COLMAP's camera has no lens distortion: the images of --nerfstudio fit it, and their names are
    those of the model.
    """
    from spslam.map.export import choose_submap
    from spslam.map.io import load_map
    from spslam.run.output import read_run_config

    if all(output is None for output in (ply, colmap, g2o, nerfstudio)):
        raise ConfigError(
            "nothing to export: give one or several of --ply F, --colmap DIR, --g2o F and "
            "--nerfstudio DIR"
        )
    if nerfstudio is None and (images, dataset, sequence, calibration, session) != (None,) * 5:
        raise ConfigError(
            "--images, --dataset, --sequence, --calibration and --session need --nerfstudio DIR"
        )
    if colmap is None and colmap_format is not ColmapFormat.TEXT:
        raise ConfigError("--format is that of a COLMAP model: give --colmap DIR, too")
    file = _map_file(file)
    _check_outputs(file, ply, g2o)
    if part is not None:
        notice_renamed(_logger, "spslam map export", "--part", "--submap")
    slam_map = load_map(file).map
    chosen = choose_submap(slam_map, part if submap is None else submap)
    if nerfstudio is not None:
        # Before a COLMAP model, which may go to a folder inside.
        given = _Recording(images, dataset, sequence, calibration)
        frames = _open_recording(file.parent, slam_map, given)
        typer.echo(_export_nerfstudio(nerfstudio, slam_map, chosen, frames, session))
    if colmap is not None:
        typer.echo(_export_colmap(colmap, slam_map, chosen, colmap_format.value))
    if g2o is not None:
        # A run writes its configuration beside its map.
        loop = read_run_config(file.parent).loop
        typer.echo(_export_g2o(g2o, slam_map, chosen, loop.min_covisibility))
    if ply is not None:
        typer.echo(_export_ply(ply, slam_map, chosen))


def _check_outputs(file: Path, ply: Path | None, g2o: Path | None) -> None:
    """Check that no output replaces another one, or the map.

    Raises:
        ConfigError: one would.
    """
    if ply is not None and g2o is not None and ply.resolve() == g2o.resolve():
        raise ConfigError(f"--ply and --g2o both name {ply}: give two files")
    for option, path in (("--ply", ply), ("--g2o", g2o)):
        if path is not None and path.resolve() == file.resolve():
            raise ConfigError(f"{option} {path} is the map itself: give another file")


@app.command()
def merge(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE FILE...",
            show_default=False,
            help="Maps made with the same camera and front end.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", show_default=False, help="File of the merged map.")
    ],
    config: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="Configuration of matching and loop closing.")
    ] = "default",
    overrides: SetOption = None,
) -> None:
    """Merge several maps that show the same places into one.

    \b
    spslam map merge monday/map.npz tuesday/map.npz --out both.npz
    """
    from spslam.config import load_config
    from spslam.factory import build_components
    from spslam.map.io import SavedMap, load_map, save_map
    from spslam.slam.loops.map_merging import merge_maps

    if len(files) < 2:
        raise ConfigError(f"merging needs two maps or more, found {len(files)}")
    resolved = load_config(config, overrides)
    merged = load_map(files[0])
    for file in files[1:]:
        components = build_components(resolved)
        loops = merge_maps(resolved, components, merged, load_map(file))
        merged = SavedMap(merged.map, components.place_recognition.arrays())
        typer.echo(
            f"{file}: {counted(loops, 'loop')} closed; "
            f"{counted(len(merged.map.keyframes), 'keyframe')}, "
            f"{counted(len(merged.map.points), 'point')}"
        )
    save_map(out, merged.map, merged.places)


def _map_file(path: Path) -> Path:
    """Return the map of a run's folder, or the file itself.

    Raises:
        MapError: The folder has no map.
    """
    if not path.is_dir():
        return path
    from spslam.run.output import read_metrics

    file = path / "map.npz"
    if not file.is_file():
        used = read_metrics(path).get("map_file")
        raise MapError(
            f"the run {path} has no map.npz"
            + (f": it localized in {used}, export that" if used else "")
        )
    return file


@dataclass(frozen=True)
class _Recording:
    """The options that name a recording; None: as in the run."""

    path: str | None
    dataset: str | None
    sequence: str | None
    calibration: Path | None


def _open_recording(folder: Path, slam_map: Map, given: _Recording) -> Sequence:
    """Open the recording of a map: as given, else as the run in the folder did.

    Raises:
        ConfigError: Neither says where the images are.
        DatasetError: The recording cannot be opened.
    """
    from spslam.datasets import open_sequence
    from spslam.map.export import needed_origin
    from spslam.run.output import METRICS, read_metrics, recording_of

    run = read_metrics(folder) if (folder / METRICS).is_file() else {}
    if run.get("disturb") and given.path is None:
        raise ConfigError(
            f"the run {folder} disturbed its images ({run['disturb']}), which the recording does "
            "not hold: give the undisturbed one with --images"
        )
    recording = recording_of(run, folder) | {
        name: value for name, value in vars(given).items() if value is not None
    }
    if not recording["path"]:
        raise ConfigError(
            f"the live camera {run['input_live']} kept no images of its run: "
            "--record DIR of spslam run keeps them"
            if run.get("input_live")
            else f"no {METRICS} beside the map says where its images are: give --images PATH"
        )
    return open_sequence(**recording, sensor=needed_origin(slam_map).sensor)


def _export_nerfstudio(
    folder: Path, slam_map: Map, submap: int, frames: Sequence, session: int | None
) -> str:
    from spslam.reports.nerfstudio import tell, write_nerfstudio

    found = write_nerfstudio(folder, slam_map, submap, frames, session)
    tell(found)
    colors = {0: "grey", found.images: "in colour"}.get(
        found.colored, f"{found.colored} of them in colour"
    )
    depths = f", {counted(found.depths, 'depth image')} in millimetres" if found.depths else ""
    return (
        f"{counted(found.images, 'image')} ({colors}){depths}, "
        f"{counted(found.points, 'point')}, of submap {submap} "
        f"in {folder}"
    )


def _export_colmap(folder: Path, slam_map: Map, submap: int, formats: str) -> str:
    from spslam.map.colmap import write_colmap

    found = write_colmap(folder, slam_map, submap, formats)
    _tell_colors(slam_map, found.colored)
    return (
        f"{counted(found.images, 'image')}, {counted(found.points, 'point')}, "
        f"{counted(found.observations, 'observation')}, "
        f"mean reprojection error {found.mean_error_px:.3f} px, of submap {submap} in {folder}"
    )


def _export_g2o(path: Path, slam_map: Map, submap: int, min_covisibility: int) -> str:
    from spslam.backend.pose_graph import write_g2o
    from spslam.map.export import submap_graph

    nodes, edges, fixed = submap_graph(slam_map, submap, min_covisibility)
    write_g2o(path, nodes, edges, fixed)
    kind = "Sim(3)" if edges.information.shape[-1] == 7 else "SE(3)"
    return (
        f"{counted(len(nodes), f'{kind} node')}, {counted(len(edges.i), 'edge')}, "
        f"{edges.robust.sum()} of them {plural(edges.robust.sum(), 'a loop', 'loops')}, "
        f"of submap {submap} in {path}"
    )


def _export_ply(path: Path, slam_map: Map, submap: int) -> str:
    from spslam.map.colors import point_colors
    from spslam.map.submaps import points_of
    from spslam.reports.plots import write_ply

    ids = points_of(slam_map, submap)
    points, colors = slam_map.positions[slam_map.point_rows(ids)], point_colors(slam_map, ids)
    _tell_colors(slam_map, colors is not None)
    write_ply(path, points, colors)
    return f"{counted(len(points), 'point')} of submap {submap} in {path}"


def _tell_colors(slam_map: Map, colored: bool) -> None:
    if not colored and len(slam_map.points):
        text = "the map is of an earlier version: its points have no colours (in COLMAP: grey)"
        notice(_logger, "points_without_colors", text)


def _rows(metrics: dict[str, Any]) -> dict[str, str]:
    """Return the text of each row of the table, by name."""
    size = f"{metrics['size_mb']:.2f} MB, format version {metrics['format_version']}"
    linked, per_keyframe = metrics["linked_observations"], metrics["points_per_keyframe"]
    mean = "" if per_keyframe is None else f", {per_keyframe:.0f} per keyframe"
    rows = {
        "file": f"{metrics['path']} ({size})",
        "made with": "nothing yet"
        if metrics["sensor"] is None
        else f"{metrics['sensor']}, {metrics['extractor']}",
        "camera": _camera(metrics["camera"]),
        "scale": metrics["scale"] or "",
        "keyframes": f"{metrics['keyframes']} of {counted(metrics['sessions'], 'session')}",
        "points": str(metrics["points"]),
        "observations": f"{linked} of {metrics['observations']} see a point{mean}",
        "loops": str(metrics["loops"]),
    }
    for submap in metrics["submaps"]:
        box = " × ".join(f"{length:.3g}" for length in submap["extent"])
        rows[f"submap {submap['submap']}"] = (
            f"{counted(submap['keyframes'], 'keyframe')}, {counted(submap['points'], 'point')}, "
            f"{box} {metrics['unit']}"
        )
    return rows | {"place recognition": "stored" if metrics["places"] else "not stored"}


def _camera(camera: dict[str, Any] | None) -> str:
    if camera is None:
        return ""
    baseline = "" if camera["baseline_m"] is None else f", baseline {camera['baseline_m']:.4g} m"
    return (
        f"{camera['width']}x{camera['height']}, fx {camera['fx']:.6g}, fy {camera['fy']:.6g}, "
        f"cx {camera['cx']:.6g}, cy {camera['cy']:.6g}{baseline}"
    )


def _print_table(rows: dict[str, str]) -> None:
    from rich.table import Table

    from spslam.cli.console import make_console

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows.items():
        if text:
            table.add_row(name, text)
    make_console().print(table)
