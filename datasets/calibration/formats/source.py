"""A calibration file: its bytes, its text, its parsed values, and the files beside it."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from spslam.errors import CalibrationError

from ..yaml_text import as_text, parse_yaml, read_data
from .values import Values

# Names of the two sides of a pair, in names of files and folders.
_SIDES = (
    ("left", "right"),
    ("Left", "Right"),
    ("LEFT", "RIGHT"),
    ("cam0", "cam1"),
    ("camera0", "camera1"),
    ("cam_0", "cam_1"),
    ("infra1", "infra2"),
)
# The tag of a matrix of OpenCV in XML.
_MATRIX = "opencv-matrix"


class Source:
    """A calibration file.

    Args:
        path: the file.
        data: its bytes.

    Attributes:
        path, data: as given.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.data = data

    @classmethod
    def open(cls, path: Path) -> Source:
        """Read a file.

        Raises:
            CalibrationError: it cannot be read or is too large.
        """
        return cls(path, read_data(path))

    @cached_property
    def text(self) -> str:
        """The text of the file.

        Raises:
            CalibrationError: it is no text.
        """
        return as_text(self.path, self.data)

    @cached_property
    def values(self) -> Values:
        """The keys of a YAML, JSON or XML file; empty for other files."""
        try:
            found = _xml_values(self.text) if self.is_xml else parse_yaml(_one_document(self.text))
        except CalibrationError:
            return {}
        return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}

    @property
    def is_xml(self) -> bool:
        """Whether the file looks like XML."""
        return self.text.lstrip().startswith("<")

    def beside(self, name: str) -> Source | None:
        """Return a file of the same folder; None if there is no such file.

        Only the last part of `name` counts: a calibration cannot name files elsewhere.
        """
        path = self.path.parent / Path(name.replace("\\", "/")).name
        return Source.open(path) if _is_file(path) and path != self.path else None

    def right(self) -> Source | None:
        """Return the right camera's file beside a left one's, by the usual names; or None."""
        path = partner(self.path)
        return Source.open(path) if path is not None and _is_file(path) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def partner(path: Path) -> Path | None:
    """Return the path of the right camera's file by that of the left one; None if it has no side.

    `left.yaml` belongs to `right.yaml`, `cam0.yaml` to `cam1.yaml`, `cam0/sensor.yaml` to
    `cam1/sensor.yaml`.
    """
    for left, right in _SIDES:
        if re.search(rf"{left}(?![a-z0-9])", path.stem):
            return path.with_name(path.stem.replace(left, right) + path.suffix)
    for left, right in _SIDES:
        if path.parent.name == left:
            return path.parent.with_name(right) / path.name
    return None


def xml_root(text: str) -> ElementTree.Element:
    """Parse XML without entities of its own.

    Raises:
        CalibrationError: it is no XML, or defines entities, which could expand without limit.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise CalibrationError("holds XML definitions (<!DOCTYPE …>), which are not read")
    try:
        return ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise CalibrationError(f"is not valid XML: {' '.join(str(error).split())[:120]}") from None


def _one_document(text: str) -> str:
    """Return the first document: `rostopic echo` ends each message with three hyphens."""
    if "%YAML" in text[:100]:
        return text
    return re.split(r"\n---[ \t]*(?:\r?\n|$)", text.strip())[0]


def _xml_values(text: str) -> dict[str, Any]:
    """Return the keys of a FileStorage of OpenCV in XML."""
    root = xml_root(text)
    return {} if root.tag != "opencv_storage" else {child.tag: _xml_value(child) for child in root}


def _xml_value(element: ElementTree.Element) -> Any:
    if element.get("type_id") == _MATRIX:
        return {
            "rows": element.findtext("rows", ""),
            "cols": element.findtext("cols", ""),
            "data": element.findtext("data", ""),
        }
    if len(element):
        # Nested once: deeper keys hold no calibration.
        return {child.tag: (child.text or "").strip() for child in element}
    return (element.text or "").strip().strip('"')
