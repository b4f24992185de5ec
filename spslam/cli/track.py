"""The command that shows what a front end follows, `spslam track`; `spslam.cli.app` adds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.cli.options import (
    INTERRUPTED,
    ExtractorOption,
    MaxFramesOption,
    SetOption,
    StartOption,
    StrideOption,
    WeightsOption,
    resolve_config,
)
from spslam.errors import DatasetError
from spslam.process.signals import interrupt_as_flag

if TYPE_CHECKING:
    from spslam.datasets.images.pictures import Picture
    from spslam.interfaces import Extractor
    from spslam.visualization.video_writer import PictureSink

_VIDEO_SUFFIX = ".mp4"


def track(
    source: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO|IMAGES|CAMERA",
            show_default=False,
            help="A video, a folder of images, a KITTI, TUM or EuRoC sequence, a built-in world, or the number of a "
            "camera (0 is the first); no calibration.",
        ),
    ],
    sequence: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", show_default=False, help="Which sequence of a dataset's root."
        ),
    ] = None,
    extractor: ExtractorOption = None,
    weights: WeightsOption = None,
    overrides: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.mp4|DIR",
            show_default=False,
            help="Write a video, or PNG files into a new folder. Default: a window.",
        ),
    ] = None,
    fps: Annotated[
        float, typer.Option(metavar="F", min=0.1, max=1000, help="Frames a second of the video.")
    ] = 10.0,
    length: Annotated[
        int,
        typer.Option(
            metavar="L",
            min=2,
            max=200,
            help="Frames that a track is drawn back; longer ones are red.",
        ),
    ] = 20,
    start: StartOption = 0,
    max_frames: MaxFramesOption = None,
    stride: StrideOption = 1,
) -> None:
    """Show which points a front end finds again from frame to frame, coloured by how long it has followed them.

    \b
    spslam track walk.mp4 --out tracks.mp4
    spslam track /data/kitti --sequence 00 --extractor orb --out tracks/
    spslam track 0

    ^C stops after the current frame; what was written stays.
    """
    from spslam.frontend.extractors.registry import create_extractor

    front_end = create_extractor(resolve_config("default", overrides, extractor, weights).features)
    pictures = _begun(_pictures(source, sequence), source, start, max_frames, stride)
    with interrupt_as_flag() as interrupted, _sink(out, fps, source) as sink:
        summary = _show_tracks(pictures, front_end, length, sink, interrupted.is_set)
    typer.echo(summary if out is None else f"{summary}, in {out}")
    if interrupted.is_set():
        raise typer.Exit(INTERRUPTED)


def _pictures(source: str, sequence: str | None) -> Iterator[Picture]:
    from spslam.datasets import read_camera, read_pictures

    # A folder of such a name is a folder.
    if source.isdecimal() and not Path(source).exists():
        return read_camera(int(source))
    return read_pictures(source, sequence)


def _begun(
    pictures: Iterator[Picture], source: str, start: int, max_frames: int | None, stride: int
) -> Iterable[Picture]:
    """The part of the pictures that is wanted, the first one read: what cannot be read is refused before anything is
    written.
    """
    wanted = islice(islice(pictures, start, None, stride), max_frames)
    first = next(wanted, None)
    if first is None:
        raise DatasetError(f"start {start} lies past the end of {source}: give a smaller --start")
    return chain([first], wanted)


def _sink(out: Path | None, fps: float, title: str) -> PictureSink:
    from spslam.visualization.video_writer import PngFolder, VideoFile

    if out is None:
        from spslam.visualization.image_window import ImageWindow

        return ImageWindow(f"spslam track {title}")
    return VideoFile(out, fps) if out.suffix.lower() == _VIDEO_SUFFIX else PngFolder(out)


def _show_tracks(
    pictures: Iterable[Picture],
    extractor: Extractor,
    length: int,
    sink: PictureSink,
    stop: Callable[[], bool],
) -> str:
    """Draw frame after frame; what there was to see, in one line."""
    import numpy as np

    from spslam.cli.console import StatusLine
    from spslam.frontend.matching.point_tracks import PointTracks
    from spslam.visualization.draw_tracks import draw_tracks

    tracks = PointTracks(length, extractor.max_distance)
    counts: list[int] = []
    with StatusLine() as line:
        for name, image in pictures:
            tracks.update(extractor.extract(image))
            counts.append(int(np.count_nonzero(tracks.lengths > 1)))
            line.say(f"{name}  {len(tracks.lengths)} key points  {counts[-1]} tracks")
            shown = sink.show(
                draw_tracks(image, tracks.positions, tracks.lengths, f"{name}  {counts[-1]} tracks")
            )
            if not shown or stop():
                break
    return f"{len(counts)} frames, {np.median(counts[1:] or [0]):.0f} tracks a frame (median)"
