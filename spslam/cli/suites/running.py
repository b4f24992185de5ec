"""Run a suite from the command line: earlier results, remaining runs, progress, ^C."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from spslam.cli.options import INTERRUPTED
from spslam.notices import counted, plural

if TYPE_CHECKING:
    from spslam.benchmark.results import Results, Row

    # A finished run and its files: name -> content.
    FinishedRun = tuple[Row, dict[str, bytes]]

PlannedRun = TypeVar("PlannedRun")

OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Repeat runs done with other settings; drop runs that the suite does not have.",
    ),
]
MarkdownOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        show_default=False,
        help="Write the tables into this file, between the suite's two comments.",
    ),
]


def folder_option(default: str) -> Any:
    """Return the option `--out` of a suite, with a description of its default."""
    return typer.Option(
        metavar="DIR",
        show_default=False,
        help=f"Folder of the results, new or earlier ones. Default: {default}",
    )


def only_option(label: str, also: str = "") -> Any:
    """Return the option `--only` of a suite.

    Args:
        label: what the label of a run consists of.
        also: which other runs are chosen.
    """
    return typer.Option(
        metavar="WORD",
        show_default=False,
        help=f"Only runs with a label ({label}) that contains WORD{also}; repeatable.",
    )


def open_results(path: Path, head: dict[str, object]) -> Results:
    """Open a folder of results, new or earlier ones.

    Args:
        path: the folder; it is made.
        head: name, title, metrics and published results of the suite.

    Raises:
        OutputError: the folder cannot be made, or holds something else.
        BenchmarkError: it holds results of another suite, or they cannot be read.
    """
    from spslam.benchmark.results import FILE, RUNS, Results
    from spslam.errors import BenchmarkError, OutputError

    path = path.expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise OutputError(f"cannot write results to {path}: {error.strerror or error}") from None
    if FILE not in names:
        # A suite killed in its first run leaves only the folder of runs; other files are foreign.
        if names - {RUNS}:
            raise OutputError(
                f"{path} holds other files than results ({min(names - {RUNS})}): "
                "give --out another folder"
            )
        return Results(path, head, ())
    stored = Results.load(path)
    if stored.suite != head["suite"]:
        raise BenchmarkError(
            f"{path} holds results of the suite {stored.suite}: give --out another folder"
        )
    return Results(path, head, stored.rows.values())


def drop_stale(results: Results, ids: Iterable[str], title: str, overwrite: bool) -> None:
    """Drop the results of runs that a suite does not have, or tell of them.

    Args:
        results: results of earlier calls.
        ids: all runs of the suite.
        title: begins the message about the others, such as `not in this call`.
        overwrite: drop them.
    """
    known = set(ids)
    stale = [run_id for run_id in results.rows if run_id not in known]
    if stale and overwrite:
        results.remove(stale)
    elif stale:
        typer.echo(
            f"{title}: {counted(len(stale), 'run')} in {results.folder}, kept; "
            "--overwrite drops them",
            err=True,
        )


def undone(
    plans: Sequence[PlannedRun],
    results: Results,
    overwrite: bool,
    name: Callable[[PlannedRun], str],
    difference: Callable[[PlannedRun], str | None],
) -> list[PlannedRun]:
    """Return the runs that are not done, or were done with other settings.

    Args:
        plans: runs that can be done.
        results: results of earlier calls.
        overwrite: repeat runs done with other settings, instead of an error.
        name: returns the name of a run.
        difference: describes a run that was done with other settings; None: with these.

    Raises:
        BenchmarkError: runs were done with other settings and `overwrite` is false.
    """
    from spslam.errors import BenchmarkError

    waiting, changed = [], []
    for plan in plans:
        if not results.is_done(name(plan)):
            waiting.append(plan)
        elif (found := difference(plan)) is not None:
            changed.append(found)
            waiting.append(plan)
    if changed and not overwrite:
        raise BenchmarkError(
            f"done differently: {counted(len(changed), 'run')} in {results.folder}, such as "
            f"{changed[0]}: --overwrite repeats them, --out DIR keeps them"
        )
    return waiting


def perform(
    finished: Generator[FinishedRun, None, None],
    count: int,
    total: int,
    results: Results,
    order: list[str],
    how: str,
    describe: Callable[[Row], str],
) -> None:
    """Do the remaining runs; save each when it ends, and print a line for it.

    Args:
        finished: does the runs and yields each that ended; it is closed.
        count: number of these runs.
        total: number of runs, with those done before.
        results: where they are saved.
        order: all runs of the suite, in the order of the tables.
        how: where or how the runs are done, for the first line.
        describe: returns the text of a finished run.
    """
    done = total - count
    typer.echo(
        f"{counted(count, 'run')}, {how}"
        + (f"; {counted(done, 'was', 'were')} done before" if done else ""),
        err=True,
    )
    with closing(finished):
        for row, files in finished:
            results.add(row, files, order)
            done += 1
            typer.echo(f"{done}/{total} {describe(row)}", err=True)


def describe_accuracy(row: Row, *keys: str) -> list[str]:
    """Return the tracking rate and the ATE of a run as words.

    Args:
        row: the run.
        keys: keys of the ATE in its metrics; the first that is there counts.
    """
    from spslam.benchmark.metrics import number, percent, scale_of

    errors = [error for key in keys if (error := row.figure(key)) is not None][:1]
    factor, unit = scale_of("m", errors)
    return [
        f"{percent(row.tracking_rate)} tracked",
        *(f"ATE {number(factor * error)} {unit}" for error in errors),
    ]


def end_interrupted(ids: Sequence[str], results: Results) -> None:
    """Tell how many of the chosen runs are done, and end with the exit code of ^C."""
    done = sum(results.is_done(run_id) for run_id in ids)
    typer.echo(
        f"stopped; {done} of {counted(len(ids), 'run')} {plural(done, 'is', 'are')} "
        "done and kept; the same command resumes",
        err=True,
    )
    raise typer.Exit(INTERRUPTED)
