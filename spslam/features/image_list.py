"""The images of `spslam features`: a folder with its subfolders, or a list of names."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from spslam.errors import DatasetError
from spslam.io.files import printable
from spslam.io.given_files import read_given
from spslam.notices import notice

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageList:
    """Images by name.

    Attributes:
        root: folder to which the names are relative.
        names: names with `/` as separator, in the order of processing.
    """

    root: Path
    names: tuple[str, ...]

    def path(self, name: str) -> Path:
        """Return the path of an image."""
        return self.root / name


def find_images(source: Path, root: Path | None = None) -> ImageList:
    """Find images.

    Args:
        source: a folder, which is searched with its subfolders, or a text file with a name a line.
            Blank lines and lines that begin with # are skipped.
        root: folder to which the names of a list are relative; None: the folder of the list.

    Raises:
        DatasetError: the source is missing or has no images, or a line of the list is no name of an
            image below `root`.
    """
    if source.is_dir():
        if root is not None:
            raise DatasetError(f"--root is for a list of images, but {source} is a folder")
        return _in_folder(source)
    if not source.exists():
        raise DatasetError(
            f"expected a folder of images or a list of their names, found none at {source}: "
            "check the path"
        )
    return _in_list(source, source.parent if root is None else root)


def _in_folder(folder: Path) -> ImageList:
    from spslam.frontend.photos import find_photos

    names = [path.relative_to(folder).as_posix() for path in find_photos(folder)]
    storable = [name for name in names if printable(name) == name]
    if len(storable) < len(names):
        notice(
            _LOG,
            "unprintable_names",
            "%d images have names that are not UTF-8 and are left out: rename them",
            len(names) - len(storable),
            count=len(names) - len(storable),
        )
    return ImageList(folder, tuple(storable))


def _in_list(source: Path, root: Path) -> ImageList:
    try:
        text = read_given(source).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DatasetError(
            f"expected a list of image names in UTF-8 at {source}, found other bytes: give a text "
            "file or a folder"
        ) from None
    except OSError as error:
        raise DatasetError(f"cannot read {source}: {error.strerror or error}") from None
    names: dict[str, None] = {}
    repeated = 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name = _name(line.strip(), root, f"{source}, line {number}")
        repeated += name in names
        names[name] = None
    if repeated:
        text = "%s: %d names are repeated and used once"
        notice(_LOG, "repeated_names", text, source, repeated, count=repeated)
    if not names:
        raise DatasetError(f"expected names of images in {source}, found none: check the file")
    return ImageList(root, tuple(names))


def _name(line: str, root: Path, where: str) -> str:
    path = PurePosixPath(line.replace("\\", "/"))
    if path.is_absolute():
        try:
            path = PurePosixPath(Path(line).relative_to(root.absolute()).as_posix())
        except ValueError:
            raise DatasetError(
                f"{where}: {line} is not below {root}: give the common folder as --root"
            ) from None
    if ".." in path.parts or not path.parts or "\0" in line:
        raise DatasetError(f"{where}: expected a name below {root}, found {line}")
    return path.as_posix()
