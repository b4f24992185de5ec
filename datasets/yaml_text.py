"""YAML as people write it: text in any Unicode encoding, OpenCV's dialect, no key twice, and one error for all that
PyYAML may raise."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from spslam.errors import CalibrationError

# No calibration is longer.
_LONGEST_BYTES = 1_000_000
# PyYAML builds dates, numbers and sets from what looks like them, and lets the errors of that through.
_PARSER_ERRORS = (yaml.YAMLError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError)
_OPENCV_TAG = re.compile(r"!!opencv-(?:nd-)?matrix|!<?tag:yaml\.org,2002:opencv[-\w]*>?")
_OPENCV_HEADER = re.compile(r"^\s*%YAML[^\n]*$", re.MULTILINE)
# Letters of a value that a message repeats.
_LONGEST_VALUE = 60
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxlist, _REPR.maxdict, _REPR.maxstring = 3, 6, 4, _LONGEST_VALUE
_NO_BLANK = re.compile(r"^(\s*[A-Za-z_][\w.]*):(?=[^\s:/\\])", re.MULTILINE)


def read_text(path: Path) -> str:
    """The text of a file, UTF-8 or, where it says so, UTF-16; letters of other encodings become question marks.

    Raises:
        CalibrationError: it cannot be read, is too large or is no text.
    """
    try:
        if path.is_file() and path.stat().st_size > _LONGEST_BYTES:
            raise CalibrationError(
                f"calibration {path} has {path.stat().st_size / 1e6:.0f} MB: expected a text file with a few numbers"
            )
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise CalibrationError(f"calibration {path} cannot be read: {reason}") from None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = data.decode(encoding, errors="replace")
    if "\0" in text:
        raise CalibrationError(
            f"calibration {path} is no text{_binary(data)}: expected YAML (width height fx fy cx cy …)"
        )
    return text


def parse_yaml(text: str) -> Any:
    """What YAML text says, also OpenCV's (`%YAML:1.0`, `!!opencv-matrix`) and JSON.

    Raises:
        CalibrationError: it is no YAML, or has a key twice; one line that says where.
    """
    if text.lstrip().startswith("{"):
        # JSON is YAML, but for tabs.
        with suppress(ValueError, RecursionError):
            return json.loads(text)
    plain = _OPENCV_TAG.sub("", text)
    opencv = _OPENCV_HEADER.search(plain) is not None
    if opencv:
        plain = _NO_BLANK.sub(r"\1: ", _OPENCV_HEADER.sub("", plain))
    try:
        return yaml.load(plain, _Loader)
    except _PARSER_ERRORS as error:
        raise CalibrationError(_describe(error, plain)) from None


def one_line(text: str) -> str:
    """As much of a text as a message takes."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= _LONGEST_VALUE else f"{line[:_LONGEST_VALUE]}…"


def shown(value: Any) -> str:
    """As much of a value as a message takes; also of one that holds itself, or a billion others."""
    return one_line(_REPR.repr(value))


class _Loader(yaml.SafeLoader):
    """Refuses keys that are there twice, of which PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and name != "<<" and name in seen:
                raise CalibrationError(f"key {name[:40]} is there twice, in lines {seen[name]} and {line}")
            seen[name] = line
        return super().construct_mapping(node, deep)


def _describe(error: Exception, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f" in line {mark.line + 1}"
    if isinstance(error, RecursionError):
        return "is not valid YAML: it is nested too deep"
    if mark is not None and mark.line < len(text.splitlines()):
        line = text.splitlines()[mark.line]
        if "\t" in line[: len(line) - len(line.lstrip())] or line[mark.column : mark.column + 1] == "\t":
            return f"is not valid YAML{where}: it is indented by a tab, and YAML takes blanks only"
    problem = getattr(error, "problem", None) or str(error) or type(error).__name__
    return f"is not valid YAML{where}: {' '.join(str(problem).split())[:160]}"


def _binary(data: bytes) -> str:
    kinds = {
        b"PK\x03\x04": "a NumPy .npz or another zip archive",
        b"\x93NUMPY": "a NumPy .npy array",
        b"MATLAB": "a MATLAB file",
        b"\x80": "a Python pickle",
        b"\x89PNG": "an image",
        b"\xff\xd8": "an image",
    }
    return next((f" but {kind}" for start, kind in kinds.items() if data.startswith(start)), "")
