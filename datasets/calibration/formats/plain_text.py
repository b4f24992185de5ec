"""Files of bare numbers: `camera.txt` of DSO, LSD-SLAM and TUM mono, and lines of others."""

from __future__ import annotations

import re

from spslam.errors import CalibrationError
from spslam.io.structured_text import shown

from .rig import CORNER_PX, FoundCamera, Rig
from .source import Source
from .values import numbers, of_matrix, size_of

TUM_MONO = "a camera.txt of TUM mono, DSO or LSD-SLAM"
LINE, MATRIX = "a line of fx fy cx cy, as DROID-SLAM's", "a camera matrix alone"
_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS_ONLY = re.compile(rf"\s*{_NUMBER}(?:[\s,;]+{_NUMBER})*\s*")
_NAMES = {
    "radtan": "radtan",
    "equidistant": "equidistant",
    "equi": "equidistant",
    "kannalabrandt": "equidistant",
    "fov": "fov",
    "atan": "fov",
    "pinhole": "none",
}
# A longer file holds no bare numbers of a camera.
_LONGEST = 10_000


def is_tum_mono(source: Source) -> bool:
    """Return whether the first line is a camera and the second one the size of its images."""
    if len(source.text) > _LONGEST:
        return False
    lines = _words(source.text)
    if len(lines) not in (2, 3, 4) or len(lines[1]) != 2 or len(lines[0]) not in range(4, 10):
        return False
    named = not re.fullmatch(_NUMBER, lines[0][0])
    return (
        all(word.isdigit() for word in lines[1])
        and all(re.fullmatch(_NUMBER, word) for word in lines[0][named:])
        and (not named or lines[0][0].lower() in _NAMES or lines[0][0].isalpha())
    )


def is_numbers(source: Source) -> bool:
    """Return whether a file is a line of fx fy cx cy …, or a camera matrix."""
    if len(source.text) > _LONGEST:
        return False
    rows = _rows(source.text)
    widths = {len(row) for row in rows}
    return (len(rows) == 1 and widths <= {4, 8, 9}) or (
        len(rows) in (3, 4) and widths in ({3}, {4})
    )


def read_tum_mono(source: Source) -> Rig:
    """Read `[model] fx fy cx cy [coefficients]` and `width height`; below 2 they are fractions."""
    lines = _words(source.text)
    words = list(lines[0])
    name = "" if re.fullmatch(_NUMBER, words[0]) else words.pop(0)
    parameters = numbers(words, "line 1")
    if len(parameters) not in (4, 5, 8):
        raise CalibrationError(f"line 1: expected 4, 5 or 8 numbers, found {len(parameters)}")
    width, height = (int(word) for word in lines[1])
    fx, fy, cx, cy = parameters[:4]
    relative = 0 < max(parameters[:4]) < 2
    if relative:
        fx, cx = fx * width, cx * width - CORNER_PX
        fy, cy = fy * height, cy * height - CORNER_PX
    bent = parameters[4:]
    if not name:
        model = "radtan" if len(bent) == 4 else "fov" if len(bent) == 1 and bent[0] else "none"
    else:
        model = _NAMES.get(name.lower(), "")
        if not model:
            raise CalibrationError(f"line 1: expected a lens model, found {shown(name)}")
        # DSO writes `Pinhole fx fy cx cy 0`.
    bent = bent if model != "none" else ()
    remarks = ("its numbers are fractions of the image's size",) if relative else ()
    camera = FoundCamera("", size_of(width, height), (fx, fy, cx, cy), model, bent)
    return Rig(TUM_MONO, (camera,), remarks=remarks)


def read_numbers(source: Source) -> Rig:
    """Read `fx fy cx cy [k1 k2 p1 p2 [k3]]`, or a camera matrix."""
    rows = _rows(source.text)
    if len(rows) > 1:
        return Rig(MATRIX, (FoundCamera("", None, of_matrix(rows, "matrix")),))
    fx, fy, cx, cy = rows[0][:4]
    model = "radtan" if len(rows[0]) > 4 else None
    return Rig(LINE, (FoundCamera("", None, (fx, fy, cx, cy), model, tuple(rows[0][4:])),))


def _words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


def _rows(text: str) -> list[list[float]]:
    """Return the numbers of each line; an empty list if a line holds something else."""
    lines = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    if len(lines) > 4 or not all(_NUMBERS_ONLY.fullmatch(line) for line in lines):
        return []
    return [list(numbers(re.findall(_NUMBER, line), "line")) for line in lines]
