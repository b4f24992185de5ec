"""The commands for saved maps: `spslam map …`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spslam.cli.options import CommandGroup, SetOption
from spslam.errors import ConfigError
from spslam.notices import counted, notice_renamed, plural

if TYPE_CHECKING:
    from spslam.map.map import Map

_logger = logging.getLogger(__name__)

app = typer.Typer(
    name="map",
    cls=CommandGroup,
    help="Describe, export and merge saved maps (map.npz).",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
    file: MapArgument,
    ply: Annotated[
        Path | None,
        typer.Option(metavar="F", show_default=False, help="Write the points as binary PLY."),
    ] = None,
    colmap: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Write COLMAP's text model (cameras, images, points3D .txt); a folder with other "
            "files is refused.",
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

    COLMAP's camera has no lens distortion: undistort the images before you use them with the model.
    """
    from spslam.map.export import choose_submap
    from spslam.map.io import load_map
    from spslam.run.output import read_run_config

    if ply is None and colmap is None and g2o is None:
        raise ConfigError(
            "nothing to export: give one or several of --ply F, --colmap DIR and --g2o F"
        )
    if part is not None:
        notice_renamed(_logger, "spslam map export", "--part", "--submap")
    slam_map = load_map(file).map
    chosen = choose_submap(slam_map, part if submap is None else submap)
    if colmap is not None:
        typer.echo(_export_colmap(colmap, slam_map, chosen))
    if g2o is not None:
        # A run writes its configuration beside its map.
        loop = read_run_config(file.parent).loop
        typer.echo(_export_g2o(g2o, slam_map, chosen, loop.min_covisibility))
    if ply is not None:
        typer.echo(_export_ply(ply, slam_map, chosen))


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


def _export_colmap(folder: Path, slam_map: Map, submap: int) -> str:
    from spslam.map.export import write_colmap

    found = write_colmap(folder, slam_map, submap)
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
    from spslam.map.submaps import scene_of
    from spslam.reports.plots import write_ply

    points, _ = scene_of(slam_map, submap)
    write_ply(path, points)
    return f"{counted(len(points), 'point')} of submap {submap} in {path}"


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
