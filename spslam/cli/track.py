"""The command that shows the point tracks of a front end, `spslam track`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.cli.options import (
    INTERRUPTED,
    ExtractorOption,
    MaxFramesOption,
    SequenceOption,
    SetOption,
    StartOption,
    StrideOption,
    WeightsOption,
    resolve_config,
)
from spslam.errors import DatasetError
from spslam.notices import counted, notice, plural
from spslam.process.signals import interrupt_as_flag

if TYPE_CHECKING:
    from spslam.datasets.images.pictures import Picture
    from spslam.datasets.masks.mask_files import PictureMasks
    from spslam.interfaces import Extractor
    from spslam.visualization.video_writer import VideoWriter

_LOG = logging.getLogger(__name__)
# End of the name of a video file.
_VIDEO_SUFFIX = ".mp4"


def track(
    source: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO|IMAGES|CAMERA",
            show_default=False,
            help="A video, a folder of images, a KITTI, TUM or EuRoC sequence, a built-in world, "
            "or a live camera (0 or camera:0 is the first, realsense:, oak:); no calibration is "
            "needed.",
        ),
    ],
    sequence: SequenceOption = None,
    extractor: ExtractorOption = None,
    weights: WeightsOption = None,
    overrides: SetOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.mp4|DIR",
            show_default=False,
            help="Write a video, or PNG files into a new folder. Default: show a window.",
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
            help="Number of past frames a track is drawn over; longer tracks are red.",
        ),
    ] = 20,
    start: StartOption = 0,
    max_frames: MaxFramesOption = None,
    stride: StrideOption = 1,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            show_default=False,
            help="Mask: an image whose white pixels are used, or a folder with one for each image.",
        ),
    ] = None,
) -> None:
    """Show the points a front end tracks from frame to frame, coloured by track length.

    \b
    spslam track walk.mp4 --out tracks.mp4
    spslam track /data/kitti --sequence 00 --extractor orb --out tracks/
    spslam track 0

    ^C stops after the current frame; written files stay.
    """
    from spslam.datasets.masks.mask_files import PictureMasks
    from spslam.frontend.extractors.registry import create_extractor

    masks = None if mask is None else PictureMasks(mask)
    front_end = create_extractor(resolve_config("default", overrides, extractor, weights).features)
    pictures = _begun(_pictures(source, sequence), source, start, max_frames, stride)
    with interrupt_as_flag() as interrupted, _sink(out, fps, source) as sink:
        summary = _show_tracks(pictures, front_end, length, sink, interrupted.is_set, masks)
    typer.echo(summary if out is None else f"{summary}, in {out}")
    if interrupted.is_set():
        raise typer.Exit(INTERRUPTED)


def _pictures(source: str, sequence: str | None) -> Iterator[Picture]:
    from spslam.datasets import is_live, read_camera, read_pictures

    # A folder may have a number as its name.
    if source.isdecimal() and not Path(source).exists():
        return read_camera(int(source))
    if is_live(source):
        return read_camera(source)
    return read_pictures(source, sequence)


def _begun(
    pictures: Iterator[Picture], source: str, start: int, max_frames: int | None, stride: int
) -> Iterable[Picture]:
    """Return the requested pictures; reads the first one, to fail before a file is written."""
    wanted = islice(islice(pictures, start, None, stride), max_frames)
    first = next(wanted, None)
    if first is None:
        raise DatasetError(f"start {start} lies past the end of {source}: give a smaller --start")
    return chain([first], wanted)


def _sink(out: Path | None, fps: float, title: str) -> VideoWriter:
    from spslam.visualization.video_writer import PngFolder, VideoFile

    if out is None:
        from spslam.visualization.image_window import ImageWindow

        return ImageWindow(f"spslam track {title}")
    return VideoFile(out, fps) if out.suffix.lower() == _VIDEO_SUFFIX else PngFolder(out)


def _show_tracks(
    pictures: Iterable[Picture],
    extractor: Extractor,
    length: int,
    sink: VideoWriter,
    stop: Callable[[], bool],
    masks: PictureMasks | None = None,
) -> str:
    """Draw the tracks of each frame and return a summary of one line."""
    import numpy as np

    from spslam.cli.console import StatusLine
    from spslam.frontend.matching.point_tracks import PointTracks
    from spslam.slam.preprocessing import with_margin
    from spslam.visualization.draw_tracks import draw_tracks

    tracks = PointTracks(length, extractor.max_descriptor_distance)
    counts: list[int] = []
    unmasked = 0
    with StatusLine() as line:
        for name, image in pictures:
            mask = None if masks is None else masks.of(name, (image.shape[0], image.shape[1]))
            unmasked += masks is not None and mask is None
            tracks.update(
                extractor.extract(image)
                if mask is None
                else extractor.extract_inside(image, with_margin(mask))
            )
            counts.append(int(np.count_nonzero(tracks.lengths > 1)))
            seen = counted(counts[-1], "track")
            line.say(f"{name}  {counted(len(tracks.lengths), 'keypoint')}  {seen}")
            shown = sink.show(
                draw_tracks(image, tracks.positions, tracks.lengths, f"{name}  {seen}")
            )
            if not shown or stop():
                break
    if unmasked:
        text = "%s no mask and %s used as a whole"
        what = counted(unmasked, "image has", "images have")
        notice(_LOG, "masks_missing", text, what, plural(unmasked, "is", "are"), count=unmasked)
    return (
        f"{counted(len(counts), 'frame')}, {np.median(counts[1:] or [0]):.0f} tracks a "
        "frame (median)"
    )
