"""The commands for files of features and matches: `spslam features` and `spslam match`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.cli.options import (
    INTERRUPTED,
    ExtractorOption,
    MatchingOption,
    SetOption,
    WeightsOption,
    resolve_config,
    resolve_matching,
)
from spslam.errors import ConfigError, DatasetError
from spslam.notices import counted
from spslam.process.signals import interrupt_as_flag

if TYPE_CHECKING:
    from spslam.features.cameras import CameraChoice
    from spslam.features.cameras import CameraPer as CameraPerName
    from spslam.features.files import ExtractionSummary
    from spslam.features.matching import MatchSummary
    from spslam.features.pairs import Pair


class CameraPer(StrEnum):
    """Values of `--camera-per`."""

    IMAGE = "image"
    FOLDER = "folder"
    ALL = "all"


_PAIRS = ("exhaustive", "sequential", "retrieval")

CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        show_default=False,
        help="Databases: calibration (YAML) of the camera. Default: the focal length is guessed, "
        "and COLMAP refines it.",
    ),
]
CameraPerOption = Annotated[
    CameraPer | None,
    typer.Option(
        show_default=False,
        help="Databases: which images share a camera. Default: all with --calibration, otherwise "
        "each image has its own.",
    ),
]
MaskOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|DIR|auto",
        show_default=False,
        help="Mask: an image whose white pixels are used, or a folder with one for each image (of "
        "the same name or number); auto: find and mask what is fixed to the camera. Default: none.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=1024,
        show_default=False,
        help="Processes that share the work; default: one for each core. The result is the same.",
    ),
]


def features(
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            show_default=False,
            help="A folder, searched with its subfolders, or a text file with a name a line.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="features.h5 in hloc's layout, or a COLMAP database (.db).",
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Folder to which the names in a list are relative; default: that of the list.",
        ),
    ] = None,
    extractor: ExtractorOption = None,
    weights: WeightsOption = None,
    overrides: SetOption = None,
    max_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=16,
            show_default=False,
            help="Reduce larger images to N pixels on their longer side; positions are those in "
            "the original image.",
        ),
    ] = None,
    float32: Annotated[
        bool,
        typer.Option(
            "--float32",
            help="Write scores and descriptors as float32 instead of float16; positions always "
            "are.",
        ),
    ] = False,
    mask: MaskOption = None,
    workers: WorkersOption = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            show_default=False,
            help="Extract on the workers of a Dask cluster, for example tcp://10.0.0.1:8786; the "
            "images must have the same path on all machines.",
        ),
    ] = None,
    calibration: CalibrationOption = None,
    camera_per: CameraPerOption = None,
) -> None:
    """Extract features of many images for hloc, COLMAP and other programs.

    \b
    spslam features PHOTOS --out features.h5
    spslam features PHOTOS --out database.db --camera-per all
    spslam features PHOTOS --out features.h5 --mask masks
    spslam features list.txt --root /data --out features.h5 --extractor orb --max-size 1600

    The same command continues after ^C or a kill, and adds new images to a file. Exit code 2: some
    images could not be read; the file has all others.
    """
    from spslam.cli.console import StatusLine
    from spslam.features.files import ExtractionSettings, check_output, extract_features
    from spslam.features.image_list import find_images

    is_database = check_output(out)
    cameras = _cameras(calibration, camera_per, is_database)
    if float32 and is_database:
        raise ConfigError("--float32 is for HDF5 files: a database holds float32 in any case")
    found = find_images(images, root)
    config = resolve_config("default", overrides, extractor, weights).features
    settings = ExtractionSettings(config, max_size, float32, workers, scheduler, cameras, mask)
    with interrupt_as_flag() as interrupted, StatusLine() as line:
        summary = extract_features(found, out, settings, line.count, interrupted.is_set)
    if summary.stopped:
        kept = f"kept in {summary.journal}" if summary.journal is not None else "none kept"
        done = counted(summary.done, "image")
        typer.echo(f"stopped: {done} done now, {kept}; the same command continues")
        raise typer.Exit(INTERRUPTED)
    mean = f", {summary.keypoints / summary.done:.0f} keypoints an image" if summary.done else ""
    masked = "" if mask is None else _masked(summary)
    typer.echo(
        f"{counted(summary.done, 'image')} done{mean}{masked}, {summary.present} were there; {out}"
    )
    if summary.unreadable:
        name, reason = next(iter(summary.unreadable.items()))
        raise DatasetError(
            f"no features of {len(summary.unreadable)} of {counted(len(found.names), 'image')}, "
            f"the first is {name} ({reason}); all others are in {out}"
            if out.exists()
            else f"no image has features, the first is {name} ({reason})"
        )
    if interrupted.is_set():
        raise typer.Exit(INTERRUPTED)


def _masked(summary: ExtractionSummary) -> str:
    """Say how much of the images is masked, and how many images have no mask."""
    missing = summary.done - len(summary.masked)
    whole = f"{counted(missing, 'image')} without a mask used as a whole" if missing else ""
    if not summary.masked:
        return f", {whole}" if whole else ""
    mean = 100 * sum(summary.masked) / len(summary.masked)
    return f", {mean:.2g} % masked" + (f" ({whole})" if whole else "")


def match(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FEATURES",
            show_default=False,
            help="features.h5, or a COLMAP database of spslam features.",
        ),
    ],
    pairs: Annotated[
        str,
        typer.Option(
            metavar="KIND|FILE",
            show_default=False,
            help="exhaustive: all pairs; sequential: neighbours in natural order of the names; "
            "retrieval: images of similar places; or a text file with two names a line.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="matches.h5 in hloc's layout, or a COLMAP database (.db). Default: the database "
            "of FEATURES.",
        ),
    ] = None,
    neighbours: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            min=1,
            show_default=False,
            help="sequential: pair each image with the K next ones (default 5); retrieval: with "
            "the K most similar ones (default 20).",
        ),
    ] = None,
    apart: Annotated[
        str | None,
        typer.Option(
            metavar="N,…",
            show_default=False,
            help="sequential: also pair images this far apart, for example 10,20.",
        ),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            show_default=False,
            help="Lowe's ratio test: the nearest descriptor must be nearer than R times the "
            "second-nearest.",
        ),
    ] = None,
    max_descriptor_distance: Annotated[
        float | None,
        typer.Option(
            "--max-distance",
            metavar="D",
            show_default=False,
            help="Maximum L2 distance of matching descriptors; default: as FEATURES says.",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Also count the matches that agree with an epipolar geometry; all are written.",
        ),
    ] = False,
    workers: WorkersOption = None,
    calibration: CalibrationOption = None,
    camera_per: CameraPerOption = None,
    overrides: MatchingOption = None,
) -> None:
    """Match features of pairs of images: mutual nearest neighbours, or by a learned matcher.

    \b
    spslam match features.h5 --pairs sequential --apart 10,20 --out matches.h5
    spslam match features.h5 --pairs retrieval --neighbours 20 --out matches.h5
    spslam match database.db --pairs exhaustive --verify
    spslam match f.h5 --pairs sequential --out m.h5 --set matching.learned=on

    The same command continues after ^C or a kill; other pairs are added to the file.
    """
    from spslam.cli.console import StatusLine
    from spslam.features.files import check_output
    from spslam.features.matching import MatchSettings, match_pairs

    target = _match_output(source, out)
    cameras = _cameras(calibration, camera_per, check_output(target))
    if ratio is not None and not 0 < ratio <= 1:
        raise ConfigError(f"--ratio must be above 0 and at most 1, found {ratio:g}")
    if max_descriptor_distance is not None and not 0 < max_descriptor_distance <= 2:
        raise ConfigError(
            "--max-distance is between unit vectors, above 0 and at most 2, found "
            f"{max_descriptor_distance:g}"
        )
    matching = resolve_matching(overrides)
    settings = MatchSettings(max_descriptor_distance, ratio, verify, workers, cameras, matching)
    with interrupt_as_flag() as interrupted, StatusLine() as line:
        chosen = _pairs(source, pairs, neighbours, apart, line)
        count = partial(line.count, what="pair")
        summary = match_pairs(source, chosen, target, settings, count, interrupted.is_set)
    if summary.stopped:
        kept = f"kept in {summary.journal}" if summary.journal is not None else "none kept"
        done = counted(summary.done, "pair")
        typer.echo(f"stopped: {done} done now, {kept}; the same command continues")
        raise typer.Exit(INTERRUPTED)
    typer.echo(f"{_matched(summary)}, {summary.present} were there; {target}")
    if interrupted.is_set():
        raise typer.Exit(INTERRUPTED)


def _matched(summary: MatchSummary) -> str:
    if not summary.done:
        return "0 pairs done"
    mean = summary.matches / summary.done
    text = f"{counted(summary.done, 'pair')} done, {mean:.0f} matches a pair"
    if summary.verified is None:
        return text
    return (
        f"{text}, {counted(summary.verified, 'pair')} verified with "
        f"{summary.inliers / max(summary.verified, 1):.0f} inliers a pair"
    )


def _match_output(source: Path, out: Path | None) -> Path:
    from spslam.features.files import DATABASE_SUFFIXES

    if out is not None:
        return out
    if source.suffix.lower() in DATABASE_SUFFIXES:
        return source
    raise ConfigError("--out FILE is missing: matches.h5, or a COLMAP database (.db)")


def _cameras(
    calibration: Path | None, camera_per: CameraPer | None, is_database: bool
) -> CameraChoice:
    from spslam.features.cameras import CameraChoice

    per: CameraPerName | None = None if camera_per is None else camera_per.value
    if calibration is None and camera_per is None:
        return CameraChoice()
    if not is_database:
        raise ConfigError(
            "--calibration and --camera-per are for COLMAP databases: give --out NAME.db"
        )
    if calibration is None:
        return CameraChoice(None, per)
    from spslam.datasets.calibration.calibration import load_calibration

    return CameraChoice(load_calibration(calibration).camera, per)


def _pairs(
    source: Path, kind: str, neighbours: int | None, apart: str | None, line: object
) -> list[Pair]:
    from spslam.cli.console import StatusLine
    from spslam.features.matching import open_source
    from spslam.features.pairs import (
        exhaustive_pairs,
        read_pairs,
        retrieval_pairs,
        sequential_pairs,
    )

    assert isinstance(line, StatusLine)
    if neighbours is not None and kind not in ("sequential", "retrieval"):
        raise ConfigError("--neighbours is for --pairs sequential and --pairs retrieval")
    if apart is not None and kind != "sequential":
        raise ConfigError("--apart is for --pairs sequential")
    is_file = kind not in _PAIRS
    if is_file and not Path(kind).is_file():
        raise ConfigError(f"--pairs must be {', '.join(_PAIRS)} or a file of pairs, found {kind}")
    with open_source(source) as opened:
        if not is_file and len(opened.names) < 2:
            images = counted(len(opened.names), "image")
            raise ConfigError(f"{source} has features of {images}: pairs need two or more")
        if kind == "exhaustive":
            return exhaustive_pairs(opened.names)
        if kind == "sequential":
            return sequential_pairs(opened.names, neighbours or 5, _steps(apart))
        if kind == "retrieval":
            name = opened.attributes.get("weights")
            # Codebooks come with the weights of SuperPoint only.
            weights = None if opened.attributes.get("extractor") != "superpoint" else name
            return retrieval_pairs(opened.names, opened.read, neighbours or 20, weights, line.count)
        found = read_pairs(Path(kind), opened.names)
        if not found:
            raise ConfigError(f"expected two names a line in {kind}, found no pairs")
        return found


def _steps(apart: str | None) -> list[int]:
    if apart is None:
        return []
    try:
        steps = [int(part) for part in apart.split(",")]
    except ValueError:
        steps = []
    if not steps or min(steps) < 1:
        raise ConfigError(f"--apart must be numbers such as 10,20, found {apart}")
    return steps
