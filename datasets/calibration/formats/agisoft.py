"""Agisoft Metashape's camera calibration (XML)."""

from __future__ import annotations

from xml.etree import ElementTree

from spslam.errors import CalibrationError
from spslam.io.structured_text import shown

from .rig import CORNER_PX, FoundCamera, Rig
from .source import Source, xml_root
from .values import Values, number, size_of

KIND = "an Agisoft Metashape calibration"


def is_agisoft(source: Source) -> bool:
    """Return whether a file is XML with a `calibration` that has a focal length."""
    if not source.is_xml or "<calibration" not in source.text:
        return False
    try:
        return _calibration(xml_root(source.text)) is not None
    except CalibrationError:
        return False


def read_agisoft(source: Source) -> Rig:
    """Read the (adjusted) calibration.

    cx and cy are offsets from the image's centre; p1 and p2 are OpenCV's p2 and p1; b1 is the
    difference of fx and fy.
    """
    root = xml_root(source.text)
    found = _calibration(root)
    assert found is not None
    given: Values = {child.tag: child.text for child in found}
    kind = str(given.get("projection") or found.get("type") or "frame")
    if kind not in ("frame", "fisheye"):
        raise CalibrationError(f"projection: expected frame or fisheye, found {shown(kind)}")
    size = _size(found, given)
    if size is None:
        raise CalibrationError("width and height of the images are missing")
    if number(given, "b2", 0.0) or number(given, "k4", 0.0):
        raise CalibrationError("its lens has b2 (skew) or k4, which spslam does not support")
    f = number(given, "f")
    # Positions count from the image's corner.
    centre = [
        half / 2 + number(given, key, 0.0) - CORNER_PX
        for half, key in zip(size, ("cx", "cy"), strict=True)
    ]
    k1, k2, k3, p1, p2 = (number(given, key, 0.0) for key in ("k1", "k2", "k3", "p1", "p2"))
    if kind == "fisheye":
        if p1 or p2:
            raise CalibrationError("its fisheye lens has p1 and p2, which spslam does not support")
        bent: tuple[float, ...] = (k1, k2, k3, 0.0)
        model = "equidistant"
    else:
        model, bent = "radtan", (k1, k2, p2, p1, k3)
    fx = f + number(given, "b1", 0.0)
    sensors = len(root.findall(".//sensor"))
    more = ("the first of its sensors",) if sensors > 1 else ()
    camera = FoundCamera("", size, (fx, f, centre[0], centre[1]), model, bent)
    return Rig(KIND, (camera,), remarks=more)


def _calibration(root: ElementTree.Element) -> ElementTree.Element | None:
    found = [
        element
        for element in ([root] if root.tag == "calibration" else root.iter("calibration"))
        if element.find("f") is not None
    ]
    adjusted = [element for element in found if element.get("class") == "adjusted"]
    return next(iter([*adjusted, *found]), None)


def _size(found: ElementTree.Element, given: Values) -> tuple[int, int] | None:
    resolution = found.find("resolution")
    if resolution is not None:
        return size_of(resolution.get("width"), resolution.get("height"))
    return size_of(given.get("width"), given.get("height"))
