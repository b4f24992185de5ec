"""Finding things in dataset folders: one sequence of several, and what lies there for a message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spslam.errors import DatasetError

_SHOWN = 8


def absolute(path: str | Path) -> Path:
    """`path` from the root, with the user's folder for `~` and a real name at its end (not `..`)."""
    whole = Path(path).expanduser().absolute()
    return whole.resolve() if whole.name in ("", "..") else whole


def reason(error: OSError | UnicodeError) -> str:
    """Why a file cannot be read, for a message that names it already."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def shorten(names: list[str]) -> str:
    """The first few of `names` for a message."""
    shown = ", ".join(names[:_SHOWN])
    return f"{shown}, … ({len(names)} in all)" if len(names) > _SHOWN else shown


def contents(folder: Path) -> str:
    """What lies in `folder`, for a message."""
    names = sorted(
        p.name + ("/" if p.is_dir() else "") for p in folder.iterdir() if not p.name.startswith(".")
    )
    return shorten(names) if names else "an empty folder"


def subfolders(folder: Path) -> list[Path]:
    """Visible folders in `folder`, by name."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def choose_sequence(root: Path, choices: Mapping[str, Path], wanted: str | None) -> Path:
    """The folder of the sequence `wanted` among `choices` (name -> folder) in `root`: by its name or by a part of it
    that only one has; without `wanted` the only one.

    Raises:
        DatasetError: none or several fit.
    """
    names = sorted(choices)
    if wanted is None:
        if len(names) == 1:
            return choices[names[0]]
        raise DatasetError(
            f"{root} holds {len(names)} sequences ({shorten(names)}): choose one with --sequence"
        )
    if wanted in choices:
        return choices[wanted]
    fitting = [name for name in names if wanted in name]
    if len(fitting) == 1:
        return choices[fitting[0]]
    found = f"{len(fitting)} fit ({shorten(fitting)})" if fitting else f"there is {shorten(names)}"
    raise DatasetError(f"no single sequence {wanted!r} in {root}: {found}")


def check_sequence_name(folder: Path, wanted: str | None) -> None:
    """For a path that is one sequence already: a sequence that was asked for must be that one.

    Raises:
        DatasetError: it is another.
    """
    if wanted is not None and wanted not in folder.name:
        raise DatasetError(
            f"{folder} is one sequence, but sequence {wanted!r} was asked for: give the dataset's root instead"
        )


def unused_streams(folder: Path, words: tuple[str, ...], used: tuple[str, ...] = ()) -> list[str]:
    """Visible subfolders of `folder` whose name holds one of `words`, for a message; `used` ones are left out."""
    return [
        path.name
        for path in subfolders(folder)
        if path.name not in used and any(word in path.name.lower() for word in words)
    ]
