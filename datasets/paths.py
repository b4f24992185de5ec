"""Find sequences in dataset folders, and describe the contents of folders for messages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spslam.errors import DatasetError

# Largest number of names in a message.
_SHOWN = 8


def absolute(path: str | Path) -> Path:
    """Return the absolute `path`, with `~` expanded and a real name at its end (not `..`)."""
    whole = Path(path).expanduser().absolute()
    return whole.resolve() if whole.name in ("", "..") else whole


def reason(error: OSError | UnicodeError) -> str:
    """Return why a file cannot be read, for a message that names the file already."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def shorten(names: list[str]) -> str:
    """Join the first few of `names` for a message."""
    shown = ", ".join(names[:_SHOWN])
    return f"{shown}, … ({len(names)} in all)" if len(names) > _SHOWN else shown


def contents(folder: Path) -> str:
    """Describe the contents of `folder` for a message."""
    names = sorted(
        p.name + ("/" if p.is_dir() else "") for p in folder.iterdir() if not p.name.startswith(".")
    )
    return shorten(names) if names else "an empty folder"


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in `folder`, sorted by name."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def subfolder(folder: Path, name: str) -> Path:
    """Return the subfolder `name`, whatever the case of its letters; it need not exist."""
    exact = folder / name
    if exact.is_dir():
        return exact
    return next((path for path in subfolders(folder) if path.name.lower() == name), exact)


def choose_sequence(root: Path, choices: Mapping[str, Path], wanted: str | None) -> Path:
    """Return the folder of one sequence.

    Args:
        root: the folder of the dataset, for messages.
        choices: folders of the sequences by name.
        wanted: name of the sequence, or a unique part of the name; None: the only sequence.

    Raises:
        DatasetError: no sequence fits, or several do.
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


def find_sequence(
    path: Path, is_one: bool, choices: Mapping[str, Path], wanted: str | None, expected: str
) -> Path:
    """Return the folder of the sequence to open.

    Args:
        path: the given folder.
        is_one: whether `path` itself is a sequence.
        choices: sequences below `path` by name.
        wanted: name of the sequence, or a unique part of it; None: there is only one.
        expected: what was expected in `path`, for the message.

    Raises:
        DatasetError: there is no such sequence, or several fit.
    """
    if is_one:
        check_sequence_name(path, wanted)
        return path
    if not choices:
        raise DatasetError(f"expected {expected}, found {contents(path)}")
    return choose_sequence(path, choices, wanted)


def check_sequence_name(folder: Path, wanted: str | None) -> None:
    """Check that `folder`, which is one sequence, is the requested sequence.

    Raises:
        DatasetError: another sequence was requested.
    """
    if wanted is not None and wanted not in folder.name:
        raise DatasetError(
            f"{folder} is one sequence, but sequence {wanted!r} was requested: "
            "give the dataset's root instead"
        )


def unused_streams(folder: Path, words: tuple[str, ...], used: tuple[str, ...] = ()) -> list[str]:
    """Return the visible subfolders, without `used`, whose name contains one of `words`."""
    return [
        path.name
        for path in subfolders(folder)
        if path.name not in used and any(word in path.name.lower() for word in words)
    ]
