"""The command `spslam bench peers`: other SLAM systems beside spslam, in turns."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.cli.data import DataOption
from spslam.cli.options import FAILED
from spslam.cli.suites.running import (
    MarkdownOption,
    OverwriteOption,
    describe_accuracy,
    drop_stale,
    end_interrupted,
    folder_option,
    only_option,
    open_results,
    perform,
    undone,
)

if TYPE_CHECKING:
    from spslam.benchmark.peers.perform import TurnPlan
    from spslam.benchmark.peers.suite import Turn
    from spslam.benchmark.results import Results, Row
    from spslam.cli.peers.plan import Places

# File of peers without an argument: in the working directory, else in a clone of the repository.
_DEFAULT = Path("peers.yaml")
_IN_CLONE = Path("tools", "peers", "peers.yaml")

OutOption = Annotated[
    Path | None,
    folder_option("runs/bench-NAME, by the file's name: runs/bench-peers without one."),
]
OnlyOption = Annotated[
    list[str] | None, only_option("sequence, sensor, system, variant", ", and ours beside them")
]


def peers(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PEERS.yaml]",
            show_default=False,
            help="The other systems: command lines, licences, sequences. Default: peers.yaml here, "
            "else tools/peers/peers.yaml of the repository.",
        ),
    ] = None,
    out: OutOption = None,
    data: DataOption = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=100,
            show_default=False,
            help="Rounds of each sequence and sensor. Default: that of the file, else 3.",
        ),
    ] = None,
    only: OnlyOption = None,
    realtime: Annotated[
        bool,
        typer.Option("--realtime", help="Add runs at the time stamps: latency, dropped frames."),
    ] = False,
    settings: Annotated[
        bool,
        typer.Option(
            "--settings",
            help="Add our runs with other numbers of points; their median ATE is compared, too.",
        ),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            min=0.1,
            show_default=False,
            help="Time limit of a run, seconds. Default: that of the file, else 1800.",
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    markdown: MarkdownOption = None,
) -> None:
    """Run other SLAM systems beside spslam on the same files, in turns; compare errors and time.

    \b
    spslam bench peers peers.yaml --data /data --rounds 3

    Each run is a process of its own, and spslam's evaluator scores all. Do not use the machine
    meanwhile: times are compared. A system that is missing or fails is a row with its reason.
    Exit codes: 0 all of our runs have metrics, 2 some have none or an error, 130 stopped by ^C: the
    same command resumes.
    """
    from spslam.benchmark.peers.suite import chosen_turns, load_peer_suite
    from spslam.benchmark.tables import check_markers
    from spslam.cli.peers.plan import Places
    from spslam.cli.peers.reports import show_peers
    from spslam.cli.suite_plan import open_data
    from spslam.errors import BenchmarkError

    path = _file(file)
    suite = load_peer_suite(path)
    if rounds is not None:
        suite = suite.model_copy(update={"rounds": rounds})
    if markdown is not None:
        # Fail before the runs, not after them.
        check_markers(markdown, suite.name)
    results = open_results(
        out or Path("runs", f"bench-{suite.name}"),
        {"suite": suite.name, "title": suite.title, "metrics": ["ate_rmse_m"], "published": []},
    )
    # The folder is one of results from now on, even if the first run is stopped.
    results.save()
    folder, catalogue = open_data(data)
    places = Places(suite, folder, catalogue, results.folder / "inputs")
    turns = places.turns(realtime=realtime, settings=settings)
    for line in places.missing:
        typer.echo(f"left out: {line}", err=True)
    if not turns:
        raise BenchmarkError("no sequence of the suite can be read")
    chosen = chosen_turns(turns, only or [], suite.main)
    drop_stale(results, [turn.id for turn in turns], "not in this call", overwrite)
    interrupted = False
    try:
        _perform(chosen, turns, places, results, path, timeout, overwrite)
    except KeyboardInterrupt:
        interrupted = True
    show_peers(results, None if interrupted else markdown, places.missing)
    typer.echo(f"results in {results.folder}")
    if interrupted:
        end_interrupted([turn.id for turn in chosen], results)
    _end(chosen, results)


def _file(given: Path | None) -> Path:
    """Return the file of peers.

    Raises:
        BenchmarkError: none is given, and none is at the default places.
    """
    import spslam
    from spslam.errors import BenchmarkError

    if given is not None:
        return given
    for path in (_DEFAULT, Path(spslam.__file__).parent.parent / _IN_CLONE):
        if path.is_file():
            return path
    raise BenchmarkError(
        "no file of peers: give one, such as tools/peers/peers.yaml of spslam's repository "
        "(docs/benchmarks.md describes it)"
    )


def _perform(
    chosen: list[Turn],
    turns: list[Turn],
    places: Places,
    results: Results,
    file: Path,
    timeout: float | None,
    overwrite: bool,
) -> None:
    from spslam.benchmark.peers.perform import perform_turn

    def changed(plan: TurnPlan) -> str | None:
        same = results.rows[plan.turn.id].identity == plan.identity()
        return None if same else plan.turn.id

    session = datetime.now(UTC).isoformat(timespec="seconds")
    here = file.expanduser().absolute().parent
    plans = [plan for turn in chosen if (plan := places.plan(turn, here, timeout)) is not None]
    waiting = undone(plans, results, overwrite, lambda plan: plan.turn.id, changed)
    perform(
        (perform_turn(plan, session) for plan in waiting),
        len(waiting),
        len(plans),
        results,
        [turn.id for turn in turns],
        "one at a time",
        _describe,
    )


def _describe(row: Row) -> str:
    from spslam.benchmark.metrics import number

    name = f"{row.case} #{row.repeat + 1}"
    if row.metrics is None:
        return f"{name}: failed: {row.reason}"
    accuracy = ", ".join(describe_accuracy(row, "ate_rmse_m", "keyframes_ate_rmse_m"))
    times = [
        f"{title} {number(value)} ms"
        for title, key in (("tracking", "track_median_ms"), ("whole run", "whole_ms"))
        if (value := row.figure(key)) is not None
    ]
    return ", ".join([f"{name}: {accuracy}", *times])


def _end(chosen: list[Turn], results: Results) -> None:
    """Tell of runs without metrics; exit with 2 if one of them is ours."""
    broken = [turn for turn in chosen if not results.is_done(turn.id)]
    for turn in broken:
        row = results.rows.get(turn.id)
        if row is not None and (turn.repeat == 0 or turn.peer is None):
            typer.echo(f"no metrics: {turn.id}: {row.reason}", err=True)
    if any(turn.peer is None for turn in broken):
        typer.echo("error: runs of spslam failed; the same command tries them again", err=True)
        raise typer.Exit(FAILED)
