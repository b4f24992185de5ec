"""Describe the topics of a bag in lines of text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spslam.errors import DatasetError
from spslam.notices import counted

from .bag import Bag, open_bag
from .messages import COMPRESSED, IMAGE
from .topics import ImageTopic, image_topics

_TITLES = ("topic", "type", "messages", "rate", "images", "frame")


def describe_bag(path: Path, sequence: str | None = None) -> list[str]:
    """Return lines about a bag: its size and duration, and a table of its topics.

    Rates are those of the stamps in headers; a star marks rates of the times of recording.

    Args:
        path: a file or folder, see `open_bag`.
        sequence: which recording of a folder with several.

    Raises:
        DatasetError: the bag cannot be read.
        MissingDependencyError: rosbags is not installed.
    """
    bag = open_bag(path, sequence)
    images = {topic.name: topic for topic in image_topics(bag)}
    rows = [_TITLES, *(_row(bag, name, images.get(name)) for name in bag.topics)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_TITLES))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    recorded = np.concatenate([topic.recorded_ns for topic in bag.topics.values()])
    seconds = float(recorded.max() - recorded.min()) / 1e9
    count = len(recorded)
    starred = any("*" in row[3] for row in rows)
    note = ["* by the times of recording: these messages have no stamps of their own"]
    return [
        f"{bag.name}: {counted(len(bag.topics), 'topic')}, {count} messages, {seconds:.3f} s, "
        f"{bag.size_bytes / 1e6:.1f} MB",
        *table,
        *(note if starred else []),
    ]


def _row(bag: Bag, name: str, image: ImageTopic | None) -> tuple[str, ...]:
    topic = bag.topics[name]
    kind = topic.kind or "?"
    if topic.encoding not in ("ros1", "cdr"):
        kind = f"{kind} ({topic.encoding[:20]})"
    what = ""
    if image is not None:
        size = "undecodable" if image.size is None else f"{image.size[0]}x{image.size[1]}"
        what = f"{size} {image.encoding}"
    frame = image.frame if image is not None else _frame(bag, name)
    return name, kind, str(len(topic)), _rate(bag, name), what, frame


def _rate(bag: Bag, name: str) -> str:
    topic = bag.topics[name]
    if len(topic) < 2:
        return ""
    stamps, mark = topic.recorded_ns, "*"
    if topic.has_header or topic.kind in (IMAGE, COMPRESSED):
        try:
            found = bag.stamps_ns([name])[0]
        except DatasetError:
            found = np.zeros(0, dtype=np.int64)
        if found.any():
            stamps, mark = found, ""
    rate = _hertz(stamps)
    return f"{rate:.4g} Hz{mark}" if rate else ""


def _hertz(stamps_ns: NDArray[np.int64]) -> float:
    steps = np.diff(np.unique(stamps_ns))
    return 1e9 / float(np.median(steps)) if len(steps) else 0.0


def _frame(bag: Bag, name: str) -> str:
    topic = bag.topics[name]
    if not topic.has_header or not len(topic):
        return ""
    try:
        message = bag.message(name, 0)
    except DatasetError:
        return "undecodable"
    child = str(getattr(message, "child_frame_id", ""))
    frame = str(message.header.frame_id)
    return f"{frame} → {child}" if child else frame
