"""Find the tables of data sets: the user's, then those of the package."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path

from spslam.errors import DatasetError
from spslam.notices import notice

from .schema import Layout, load_layout

_LOG = logging.getLogger(__name__)
# Variable with the folder of the user's tables.
FOLDER_VARIABLE = "SPSLAM_LAYOUTS"
SUFFIXES = (".yaml", ".yml")


def user_folder() -> Path:
    """Return the folder of the user's tables: SPSLAM_LAYOUTS, else ~/.config/spslam/layouts."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given) if given else Path("~/.config/spslam/layouts").expanduser()


def is_layout_file(name: str) -> bool:
    """Return whether a value of `--dataset` is the path of a table, not a name."""
    return name.lower().endswith(SUFFIXES)


def layout_names() -> list[str]:
    """Return the names of all tables."""
    return [layout.name for layout, _ in all_layouts()]


def all_layouts() -> list[tuple[Layout, Path]]:
    """Return all tables with their files, in the order in which they are tried.

    A user's table that cannot be read is left out, with a notice, because it must not stop
    others. A user's table takes the place of the package's one of the same name.
    """
    found: dict[str, tuple[Layout, Path]] = {}
    for path in _files(user_folder()):
        try:
            layout = load_layout(path)
        except DatasetError as error:
            notice(_LOG, "layout_unreadable", "left out: %s", error)
            continue
        found.setdefault(layout.name, (layout, path))
    for layout, path in _built_in():
        if layout.name in found:
            text = "layout %s of %s takes the place of the built-in one"
            notice(_LOG, "layout_replaced", text, layout.name, found[layout.name][1])
        found.setdefault(layout.name, (layout, path))
    return list(found.values())


def find_layout(name: str) -> tuple[Layout, Path]:
    """Return the table of a name or a path, with its file.

    Raises:
        DatasetError: there is no such table, or it cannot be read.
    """
    if is_layout_file(name):
        path = Path(name).expanduser().absolute()
        return load_layout(path), path
    for layout, path in all_layouts():
        if layout.name == name:
            return layout, path
    raise DatasetError(f"no layout is called {name!r}; there are {', '.join(layout_names())}")


_PACKAGE = Path(__file__).parent


@cache
def _built_in() -> tuple[tuple[Layout, Path], ...]:
    return tuple((load_layout(path), path) for path in _files(_PACKAGE))


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
