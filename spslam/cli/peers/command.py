"""The command `spslam bench peers`: other SLAM systems beside spslam, in turns."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.cli.data import DataOption
from spslam.cli.options import FAILED, INTERRUPTED
from spslam.notices import counted

if TYPE_CHECKING:
    from spslam.benchmark.peers.suite import Turn
    from spslam.benchmark.results import Results, Row
    from spslam.cli.peers.plan import Places

# File of peers without an argument: in the working directory, else in a clone of the repository.
_DEFAULT = Path("peers.yaml")
_IN_CLONE = Path("tools", "peers", "peers.yaml")


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
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of the results, new or earlier ones."),
    ] = Path("runs", "bench-peers"),
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
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            show_default=False,
            help="Only runs with a label (sequence, sensor, system, variant) that contains WORD, "
            "and ours beside them; repeatable.",
        ),
    ] = None,
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
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Repeat runs done with other settings, and drop others."),
    ] = False,
    markdown: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Write the tables into this file, between the comments of the suite `peers`.",
        ),
    ] = None,
) -> None:
    """Run other SLAM systems beside spslam on the same files, in turns; compare errors and time.

    \b
    spslam bench peers peers.yaml --data /data --rounds 3

    Each run is a process of its own, and spslam's evaluator scores all. Do not use the machine
    meanwhile: times are compared. A system that is missing or fails is a row with its reason.
    Exit codes: 0 all of our runs have metrics, 2 some have none or an error, 130 stopped by ^C: the
    same command resumes.
    """
    from spslam.benchmark.peers.suite import SUITE, chosen_turns, load_peer_suite
    from spslam.benchmark.tables import check_markers
    from spslam.cli.peers.plan import Places
    from spslam.cli.peers.reports import show_peers
    from spslam.cli.suite import open_results
    from spslam.cli.suite_plan import open_data
    from spslam.errors import BenchmarkError

    path = _file(file)
    suite = load_peer_suite(path)
    if rounds is not None:
        suite = suite.model_copy(update={"rounds": rounds})
    if markdown is not None:
        # Fail before the runs, not after them.
        check_markers(markdown, SUITE)
    results = open_results(
        out, {"suite": SUITE, "title": suite.title, "metrics": ["ate_rmse_m"], "published": []}
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
    _drop_stale(results, turns, overwrite)
    interrupted = False
    try:
        _perform(chosen, turns, places, results, path, timeout, overwrite)
    except KeyboardInterrupt:
        interrupted = True
    show_peers(results, None if interrupted else markdown, places.missing)
    typer.echo(f"results in {results.folder}")
    if interrupted:
        done = sum(results.is_done(turn.id) for turn in chosen)
        typer.echo(
            f"stopped; {done} of {counted(len(chosen), 'run')} done and kept; "
            "the same command resumes",
            err=True,
        )
        raise typer.Exit(INTERRUPTED)
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


def _drop_stale(results: Results, turns: list[Turn], overwrite: bool) -> None:
    """Drop runs that the suite does not have any more, or tell of them."""
    order = {turn.id for turn in turns}
    stale = [run_id for run_id in results.rows if run_id not in order]
    if stale and overwrite:
        results.remove(stale)
    elif stale:
        typer.echo(
            f"not in this call: {counted(len(stale), 'earlier run')}, kept and shown; "
            "--overwrite drops them",
            err=True,
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
    from spslam.errors import BenchmarkError

    session = datetime.now(UTC).isoformat(timespec="seconds")
    order = [turn.id for turn in turns]
    here = file.expanduser().absolute().parent
    plans = [plan for turn in chosen if (plan := places.plan(turn, here, timeout)) is not None]
    waiting = [plan for plan in plans if not results.is_done(plan.turn.id)]
    changed = [
        plan
        for plan in plans
        if results.is_done(plan.turn.id) and results.rows[plan.turn.id].identity != plan.identity()
    ]
    if changed and not overwrite:
        raise BenchmarkError(
            f"done differently: {counted(len(changed), 'run')} in {results.folder}, such as "
            f"{changed[0].turn.id}: --overwrite repeats them, --out DIR keeps them"
        )
    again = {plan.turn.id for plan in (*waiting, *changed)}
    waiting = [plan for plan in plans if plan.turn.id in again]
    before = len(plans) - len(waiting)
    typer.echo(
        f"{counted(len(waiting), 'run')}, one at a time"
        + (f"; {counted(before, 'was', 'were')} done before" if before else ""),
        err=True,
    )
    for number, plan in enumerate(waiting, start=before + 1):
        row, files = perform_turn(plan, session)
        results.add(row, files, order)
        typer.echo(f"{number}/{len(plans)} {_describe(row)}", err=True)


def _describe(row: Row) -> str:
    from spslam.benchmark.metrics import number, percent, scale_of

    name = f"{row.case} #{row.repeat + 1}"
    if row.metrics is None:
        return f"{name}: failed: {row.reason}"
    ate = row.figure("ate_rmse_m") or row.figure("keyframes_ate_rmse_m")
    factor, unit = scale_of("m", [] if ate is None else [ate])
    parts = [f"{name}: {percent(row.tracking_rate)} tracked"]
    parts += [] if ate is None else [f"ATE {number(factor * ate)} {unit}"]
    parts += [
        f"{title} {number(value)} ms"
        for title, key in (("tracking", "track_median_ms"), ("whole run", "whole_ms"))
        if (value := row.figure(key)) is not None
    ]
    return ", ".join(parts)


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
