"""The commands for public sequences: `spslam data …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.cli.options import (
    INTERRUPTED,
    DepthTopicOption,
    RightTopicOption,
    TopicOption,
    TruthTopicOption,
    command_group,
)

if TYPE_CHECKING:
    from spslam.datasets.fetch.catalogue import Archive, Catalogue, PublicSequence
    from spslam.datasets.fetch.fetching import DataFolder

app = command_group(
    "data",
    "List and download public sequences (KITTI odometry, TUM RGB-D, EuRoC); describe "
    "recordings; list layouts.",
)

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        show_default=False,
        help="Folder of the sequences. Default: $SPSLAM_DATA, else ~/spslam-data.",
    ),
]


@app.command("list")
def show_list(
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATASET]", show_default=False, help="List one data set: kitti, tum or euroc."
        ),
    ] = None,
    data: DataOption = None,
) -> None:
    """List the public sequences with their download size and whether they are on this disk."""
    folder, catalogue = _open(data)
    sequences = (
        list(catalogue.sequences.values()) if dataset is None else catalogue.choose([dataset])
    )
    width = max(len(sequence.name) for sequence in sequences)
    for title, licence in dict.fromkeys(
        (sequence.title, sequence.licence) for sequence in sequences
    ):
        typer.echo(f"{title} ({licence})")
        for sequence in sequences:
            if sequence.title == title:
                row = (
                    f"  {sequence.name:{width}}  {_download_size(sequence):18}  "
                    f"{folder.state(sequence)}"
                )
                typer.echo(row.rstrip())


@app.command()
def info(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH", show_default=False, help="Name in the list, or a recording."
        ),
    ],
    data: DataOption = None,
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Format of PATH; auto recognises it.")
    ] = "auto",
    sequence: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default=False, help="Sequence where PATH has several."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Camera calibration of PATH."),
    ] = None,
    topic: TopicOption = None,
    right_topic: RightTopicOption = None,
    depth_topic: DepthTopicOption = None,
    truth_topic: TruthTopicOption = None,
) -> None:
    """Show a public sequence (address, size, licence), or what a recording on this disk holds.

    \b
    spslam data info kitti-00
    spslam data info walk.bag

    Of a bag: topics, types, numbers of messages, rates, encodings and frames. Of any recording:
    sensor, camera, frames, time stamps and ground truth, as spslam run reads them.
    """
    folder, catalogue = _open(data)
    from spslam.cli.cameras.recording_info import is_recording, show_recording

    known = {*catalogue.sequences, *(entry.dataset for entry in catalogue.sequences.values())}
    if name not in known and is_recording(name):
        show_recording(
            name,
            dataset=dataset,
            sequence=sequence,
            calibration=calibration,
            topic=topic,
            right_topic=right_topic,
            depth_topic=depth_topic,
            truth_topic=truth_topic,
        )
        return
    for entry in catalogue.choose([name]):
        rows = {
            "name": entry.name,
            "data set": entry.title,
            "page": entry.page,
            "licence": f"{entry.licence}; see the page for what to cite",
            **{f"archive {archive.name}": _describe(archive) for archive in entry.archives},
            "folder": f"{folder.folder(entry)} ({folder.state(entry) or 'not fetched'})",
        }
        for title, text in rows.items():
            typer.echo(f"{title}: {text}")


@app.command("layouts")
def show_layouts() -> None:
    """List the data sets that are described by a table (layout), each on a line.

    \b
    spslam run /data/living_room_traj0_frei_png          # recognised by itself
    spslam run /data/walk --dataset my_layout.yaml       # a table of your own

    Tables in ~/.config/spslam/layouts/ (or $SPSLAM_LAYOUTS) are recognised like these. The site's
    page on data sets says how to write one.
    """
    from spslam.datasets.layouts.tables import all_layouts, user_folder

    layouts = all_layouts()
    width = max(len(layout.name) for layout, _ in layouts)
    for layout, path in layouts:
        own = f"  [{path}]" if path.parent == user_folder() else ""
        typer.echo(f"{layout.name:{width}}  {layout.title}{own}")


@app.command()
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            show_default=False,
            help="Names in the list; kitti, tum or euroc: the whole data set.",
        ),
    ],
    data: DataOption = None,
) -> None:
    """Download and check sequences, and unpack them into the layout that spslam run reads.

    \b
    spslam data fetch tum-fr1_xyz
    spslam data fetch kitti-00 kitti-05 --data /data

    Sequences that are already here are skipped. The same command resumes a download that was cut
    off or stopped by ^C. An archive of several sequences stays in downloads/ until all of them are
    unpacked. Exit codes: 0 done, 2 an error (printed in one line), 130 stopped by ^C.
    """
    from spslam.cli.console import TransferLine

    folder, catalogue = _open(data)
    sequences = catalogue.choose(names)
    for licence in dict.fromkeys(f"{s.dataset}: {s.licence}, see {s.page}" for s in sequences):
        typer.echo(licence, err=True)
    there: list[str] = []
    try:
        with TransferLine() as line:
            kept = folder.fetch(
                sequences,
                line.move,
                lambda sequence, before: there.append(_describe_done(folder, sequence, before)),
            )
    except KeyboardInterrupt:
        typer.echo(_what_is_kept(folder), err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        # After the progress line has ended: it would mix with other output.
        for text in there:
            typer.echo(text)
    for archive in kept:
        typer.echo(f"kept for its other sequences: {archive}", err=True)


def _open(data: Path | None) -> tuple[DataFolder, Catalogue]:
    from spslam.datasets.fetch.catalogue import Catalogue
    from spslam.datasets.fetch.fetching import DataFolder
    from spslam.io.files import data_folder

    catalogue = Catalogue.load()
    root = data_folder() if data is None else data.expanduser()
    return DataFolder(root, catalogue), catalogue


def _describe_done(folder: DataFolder, sequence: PublicSequence, before: bool) -> str:
    return f"{sequence.name}: {folder.folder(sequence)}{' (was there)' if before else ''}"


def _what_is_kept(folder: DataFolder) -> str:
    kept = ", ".join(str(path) for path in folder.partial_downloads())
    return (
        f"stopped; {f'kept: {kept}' if kept else 'no download is cut off'}; "
        "the same command resumes"
    )


def _download_size(sequence: PublicSequence) -> str:
    from spslam.datasets.fetch.fetching import format_bytes

    sizes = [archive.expected_bytes for archive in sequence.archives]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return "size unknown"
    shared = max(archive.sequences for archive in sequence.archives)
    return format_bytes(sum(known)) + (f" for all {shared}" if shared > 1 else "")


def _describe(archive: Archive) -> str:
    from spslam.datasets.fetch.fetching import format_bytes

    if archive.exact_bytes is not None:
        size = f"{archive.exact_bytes} bytes"
    elif archive.about_bytes is not None:
        size = f"about {format_bytes(archive.about_bytes)}"
    else:
        size = "size unknown"
    checksum = f"MD5 {archive.md5}" if archive.md5 else "no checksum published"
    return f"{archive.url} ({size}, {checksum})"
