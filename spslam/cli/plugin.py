"""The commands for other programs that load spslam: `spslam plugin …`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spslam.cli.options import SetOption, command_group

# Width of the list where standard output is not a terminal, columns.
_PLAIN_WIDTH = 200

app = command_group(
    "plugin",
    "Write files through which other programs use spslam's SuperPoint.",
)


@app.command("list")
def show_list() -> None:
    """List the plug-ins: the programs that they are for, their files, and what they need."""
    from rich.table import Table

    from spslam.adapters.host_files import HOST_PLUGINS
    from spslam.cli.console import make_console

    # Wide where nobody sees it: a name on two lines cannot be searched.
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "for", "files", "needs beside spslam"):
        table.add_column(heading, overflow="fold")
    for plugin in HOST_PLUGINS.values():
        files = "\n".join(file.name for file in plugin.files)
        table.add_row(plugin.name, plugin.host, files, plugin.needs)
    make_console(width=width).print(table)


@app.command()
def write(
    name: Annotated[
        str, typer.Argument(metavar="NAME", show_default=False, help="Name in the list.")
    ],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", show_default=False, help="Folder of the files; it is created."
        ),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            show_default=False,
            help="Network weights: a file, or the built-in superpoint_lite or superpoint. Default: "
            "superpoint for demo_superpoint, else superpoint_lite.",
        ),
    ] = None,
    overrides: SetOption = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace files that spslam did not write or that were edited."
        ),
    ] = False,
) -> None:
    """Write the files that a program loads.

    \b
    spslam plugin write demo_superpoint pyslam/thirdparty/superpoint --force
    spslam plugin write rtabmap . --set features.max_keypoints=500
    spslam plugin write hloc Hierarchical-Localization/hloc/extractors --weights walk.safetensors
    """
    from spslam.adapters.host_files import HOST_PLUGINS, write_plugin

    paths = write_plugin(name, folder, weights, overrides, force)
    places = [file.place for file in HOST_PLUGINS[name].files]
    width = max(len(str(path)) for path in paths)
    for path, place in zip(paths, places, strict=True):
        typer.echo(f"{path!s:{width}}  ({place})")
