"""The image files of a sequence, with their stamps or numbers, as a table describes them."""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError
from spslam.io.given_files import read_given
from spslam.notices import counted, notice
from spslam.timestamps import UNITS_PER_SECOND, are_stamps

from ..paths import contents, reason
from ..timestamps import Timing, read_stamps
from .schema import Files, Stamps

_LOG = logging.getLogger(__name__)
# Beginnings of lines that are comments.
_COMMENTS = ("#", "%", "//")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, eq=False)
class NumberedFiles:
    """Files with the numbers or stamps that their names or a list give.

    Attributes:
        source: the list or the pattern, for messages.
        numbers: (N,) float64, in the unit of the table.
        paths: N files.
    """

    source: Path
    numbers: NDArray[np.float64]
    paths: list[Path]


@dataclass(frozen=True)
class Clock:
    """Conversion of numbers to seconds, for both images and poses.

    Attributes:
        stamps: what the table says.
        timing: the user's settings.
    """

    stamps: Stamps
    timing: Timing

    @property
    def counts(self) -> bool:
        """Whether the numbers count frames."""
        return self.stamps.unit == "frames" and self.timing.unit in ("auto", "frames")

    def seconds(self, numbers: NDArray[np.float64], what: str) -> tuple[NDArray[np.float64], str]:
        """Convert the numbers (N,) of images to seconds; returns these and their unit.

        Raises:
            TimestampError: the unit is ambiguous.
            DatasetError: the numbers are no times.
        """
        if self.counts:
            return numbers / self.stamps.fps, "frames"
        declared = "s" if self.stamps.unit == "frames" else self.stamps.unit
        return read_stamps(numbers, declared, what, self.timing, self.stamps.fps)

    def pose_seconds(
        self,
        numbers: NDArray[np.float64],
        images: NDArray[np.float64],
        times: NDArray[np.float64],
        unit: str,
    ) -> NDArray[np.float64]:
        """Convert the numbers (N,) of poses to seconds, NaN where that is impossible.

        Args:
            numbers: numbers or stamps of the poses.
            images: (F,) numbers of the frames.
            times: (F,) their times, seconds, increasing.
            unit: unit that the images' numbers were read in.
        """
        if self.counts:
            return numbers / self.stamps.fps
        if unit in UNITS_PER_SECOND and self.stamps.unit != "frames":
            scale = UNITS_PER_SECOND[unit]
            return numbers / scale
        known = dict(zip(images.tolist(), times.tolist(), strict=True))
        return np.array([known.get(number, np.nan) for number in numbers.tolist()])


def exists(folder: Path, pattern: str) -> bool:
    """Return whether a folder has a file or folder of a pattern, or of one of `a|b`."""
    return any(_first(folder, each.strip()) is not None for each in pattern.split("|"))


def first_of(folder: Path, patterns: Iterable[str]) -> Path | None:
    """Return the first file or folder that fits one of `patterns`, or None."""
    found = (_first(folder, pattern) for pattern in patterns)
    return next((path for path in found if path is not None), None)


def _first(folder: Path, pattern: str) -> Path | None:
    if "*" not in pattern:
        path = folder / pattern
        return path if path.exists() else None
    where, _, name = pattern.rpartition("/")
    names = _names(folder / where)
    fitting = sorted(each for each in names if fnmatch.fnmatchcase(each, name))
    return folder / where / fitting[0] if fitting else None


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def has_files(folder: Path, files: Files) -> bool:
    """Return whether a sequence has such files, without reading them."""
    patterns = files.files if files.files is not None else files.listed_in
    return first_of(folder, patterns or ()) is not None


def find_files(folder: Path, files: Files, what: str) -> NumberedFiles:
    """Find the files of a sequence that a table describes.

    Args:
        folder: the sequence.
        files: the entry of the table.
        what: what the files hold, for messages: "image", "right image" or "depth image".

    Raises:
        DatasetError: there are none, or a list cannot be read.
    """
    if files.files is not None:
        return numbered_files(folder, files.files, what)
    assert files.listed_in is not None
    path = first_of(folder, files.listed_in)
    if path is None:
        raise _none(folder, files.listed_in, f"a list of {what}s")
    return _listed(path, files, what)


def numbered_files(folder: Path, patterns: list[str], what: str) -> NumberedFiles:
    """Find files by the first pattern that fits any; `*` stands for the number.

    Raises:
        DatasetError: no file fits, or none has a number.
    """
    for pattern in patterns:
        where, _, name = pattern.rpartition("/")
        before, after = name.split("*")
        texts = {
            each: each[len(before) : len(each) - len(after)]
            for each in _names(folder / where)
            if each.startswith(before)
            and each.endswith(after)
            and len(each) > len(before) + len(after)
        }
        numbers = {each: float(text) for each, text in texts.items() if _NUMBER.fullmatch(text)}
        if not numbers:
            continue
        if others := len(texts) - len(numbers):
            text = "%s: %s left out: what stands for * in %s is no number"
            were = counted(others, "file is", "files are")
            notice(_LOG, "stray_images", text, folder, were, pattern, count=others)
        names = sorted(numbers, key=lambda each: (numbers[each], each))
        values = np.array([numbers[each] for each in names])
        return NumberedFiles(folder / pattern, values, [folder / where / each for each in names])
    raise _none(folder, patterns, f"{what}s")


def _listed(path: Path, files: Files, what: str) -> NumberedFiles:
    try:
        lines = read_given(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"expected a list of {what}s at {path}: cannot be read ({reason(error)})"
        ) from None
    numbers: list[float] = []
    paths: list[Path] = []
    least = max(files.stamp_column, files.path_column)
    for at, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith(_COMMENTS):
            continue
        cells = re.split(r"[\s,;]+", line.strip())
        number = _number(cells[files.stamp_column - 1]) if len(cells) >= least else None
        if number is None:
            if not numbers:  # a heading
                continue
            raise DatasetError(
                f"{path}:{at}: expected a stamp in column {files.stamp_column} and a path in "
                f"column {files.path_column}, found {line[:60]!r}"
            )
        numbers.append(number)
        paths.append(path.parent / cells[files.path_column - 1].replace("\\", "/"))
    values = np.array(numbers)
    known = are_stamps(values)
    if not known.any():
        raise DatasetError(f"{path} lists no {what}s with a stamp")
    if unknown := int(np.count_nonzero(~known)):
        were = counted(unknown, "line is", "lines are")
        notice(_LOG, "no_stamp", "%s: %s left out: no stamp", path, were, count=unknown)
    kept = [each for each, good in zip(paths, known, strict=True) if good]
    return NumberedFiles(path, values[known], kept)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _none(folder: Path, patterns: Iterable[str], what: str) -> DatasetError:
    places = " or ".join(str(pattern) for pattern in patterns)
    return DatasetError(f"expected {what} in {folder} ({places}), found {contents(folder)}")
