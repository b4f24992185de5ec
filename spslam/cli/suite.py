"""The commands for benchmark suites: `spslam bench SUITE`, `list`, `show` and `compare`."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spslam.cli.data import DataOption
from spslam.cli.options import FAILED
from spslam.cli.suite_plan import (
    Plan,
    changes,
    expand_suite,
    fetch_command,
    open_data,
    plan_runs,
)
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
from spslam.notices import counted, plural

if TYPE_CHECKING:
    from spslam.benchmark.perform import Finished
    from spslam.benchmark.pools import Pool
    from spslam.benchmark.results import Results, Row
    from spslam.cli.suites.running import FinishedRun

# Exit code of `compare` if a result got worse.
REGRESSION = 1

OutOption = Annotated[Path | None, folder_option("runs/bench-SUITE.")]
OnlyOption = Annotated[list[str] | None, only_option("sequence, sensor, front end, configuration")]


def suite(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            show_default=False,
            help="A built-in suite (spslam bench list) or a YAML file.",
        ),
    ],
    out: OutOption = None,
    data: DataOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1024,
            show_default=False,
            help="Runs at a time on this machine. Default: one per core.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            show_default=False,
            help="Run on the workers of a Dask cluster, such as tcp://10.0.0.1:8786.",
        ),
    ] = None,
    only: OnlyOption = None,
    available: Annotated[
        bool, typer.Option("--available", help="Skip the runs whose sequences are missing.")
    ] = False,
    overwrite: OverwriteOption = False,
    markdown: MarkdownOption = None,
) -> None:
    """Do the remaining runs of a suite; write results.json, tables, a plot and a page.

    Exit codes: 0 all runs have metrics (they may have lost tracking), 2 some have none or an error,
    130 stopped by ^C: finished runs are kept, and the same command resumes.
    """
    from spslam.benchmark.published import load_published
    from spslam.benchmark.report import write_reports
    from spslam.benchmark.suite import chosen, load_suite, suite_name
    from spslam.benchmark.tables import check_markers, insert_markdown, summary_markdown

    described, label = load_suite(name), suite_name(name)
    published = load_published(described.published)
    if markdown is not None:
        # Fail before the runs, not after them.
        check_markers(markdown, label)
    folder, catalogue = open_data(data)
    runs = expand_suite(described, folder, catalogue)
    order = [run.id for run in runs]
    results = open_results(
        out or Path("runs") / f"bench-{label}",
        {
            "suite": label,
            "title": described.title,
            "metrics": described.metrics,
            "published": described.published,
        },
    )
    plans, missing = plan_runs(chosen(runs, only or []), folder, catalogue, available)
    drop_stale(results, order, "no longer in the suite", overwrite)
    waiting = undone(
        plans, results, overwrite, lambda plan: plan.run.id, lambda plan: changes(plan, results)
    )
    interrupted = False
    try:
        if waiting:
            pool = choose_pool(workers, scheduler)
            finished = _finished_runs(waiting, pool)
            perform(finished, len(waiting), len(plans), results, order, pool.description, _describe)
    except KeyboardInterrupt:
        interrupted = True
    if results.rows:
        write_reports(results, published, missing)
        text = summary_markdown(results, published)
        typer.echo(text)
        if markdown is not None and not interrupted:
            insert_markdown(markdown, label, text)
        typer.echo(f"results in {results.folder}")
    if interrupted:
        end_interrupted([plan.run.id for plan in plans], results)
    _end(plans, results)


def show_list(data: DataOption = None) -> None:
    """List the built-in suites and how many of their sequences are on this disk."""
    from spslam.benchmark.suite import load_suite, suite_names

    folder, catalogue = open_data(data)
    for name in suite_names():
        described = load_suite(name)
        runs = expand_suite(described, folder, catalogue)
        needed = dict.fromkeys(run.public for run in runs if run.public)
        there = [one for one in needed if folder.folder(catalogue.choose([one])[0]).is_dir()]
        state = (
            f"{len(there)} of {counted(len(needed), 'sequence')} "
            f"{plural(len(there), 'is', 'are')} in {folder.root}"
            if needed
            else "built-in worlds only"
        )
        typer.echo(f"{name}: {described.title}, {counted(len(runs), 'run')}; {state}")
        if described.description:
            typer.echo(f"  {' '.join(described.description.split())}")
        if len(there) < len(needed):
            typer.echo(
                f"  {fetch_command([one for one in needed if one not in there], catalogue, folder)}"
            )


def show(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", show_default=False, help="Results of a suite: folder or results.json."
        ),
    ],
    markdown: MarkdownOption = None,
) -> None:
    """Print the tables of finished results, and write their page, plot and table.md again."""
    from spslam.benchmark.peers.suite import is_of_peers
    from spslam.benchmark.published import load_published
    from spslam.benchmark.report import write_reports
    from spslam.benchmark.results import Results
    from spslam.benchmark.tables import insert_markdown, summary_markdown
    from spslam.cli.peers.reports import show_peers

    results = Results.load(folder)
    if is_of_peers(results.suite):
        show_peers(results, markdown)
        return
    published = load_published(results.published)
    write_reports(results, published, [])
    text = summary_markdown(results, published)
    typer.echo(text)
    if markdown is not None:
        insert_markdown(markdown, results.suite, text)


def compare(
    before: Annotated[
        Path,
        typer.Argument(
            metavar="A", show_default=False, help="Results before: folder or results.json."
        ),
    ],
    after: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="Results after.")],
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="FRACTION",
            min=0.0,
            help="Medians whose relative difference is below this are the same.",
        ),
    ] = 0.10,
    tolerance_few: Annotated[
        float,
        typer.Option(
            metavar="FRACTION",
            min=0.0,
            help="The same limit if A or B has fewer than 3 repeats.",
        ),
    ] = 0.25,
    everything: Annotated[
        bool, typer.Option("--all", help="Also show metrics that are the same.")
    ] = False,
) -> None:
    """Compare two results of suites: list metrics that changed by more than the repeats differ.

    The metrics are the tracking rate, ATE, RPE and drift. Medians differ if their difference
    exceeds the tolerance and the larger of both spreads (maximum minus minimum of the repeats).
    Tracking rates must also differ by 1 % of the frames. Errors are not compared if the tracking
    rates differ. A case or a metric that is missing in B is a regression.
    Exit codes: 0 nothing got worse, 1 something got worse, 2 an error.
    """
    from spslam.benchmark.changes import Verdict, comparison_table
    from spslam.benchmark.changes import compare as compare_results
    from spslam.benchmark.results import Results

    changes = compare_results(Results.load(before), Results.load(after), tolerance, tolerance_few)
    table = comparison_table(changes, everything)
    if table.rows:
        typer.echo(table.to_markdown() + "\n")
    counts = {verdict: sum(change.verdict is verdict for change in changes) for verdict in Verdict}
    typer.echo(", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count))
    if any(change.is_regression for change in changes):
        raise typer.Exit(REGRESSION)


def choose_pool(workers: int | None, scheduler: str | None) -> Pool:
    """Return the processes of this machine, or a Dask cluster if its scheduler is given.

    Raises:
        ConfigError: both are given.
    """
    from spslam.benchmark.pools import DaskPool, LocalPool
    from spslam.errors import ConfigError

    if scheduler is None:
        return LocalPool(workers)
    if workers is not None:
        raise ConfigError(
            "--workers is for this machine and --scheduler for a Dask cluster: drop one of the two"
        )
    return DaskPool(scheduler)


def _finished_runs(plans: list[Plan], pool: Pool) -> Generator[FinishedRun, None, None]:
    """Do the runs; yield the row and the files of each that ended."""
    from spslam.benchmark.results import Row

    by_id = {plan.run.id: plan for plan in plans}
    with closing(pool.run([plan.request for plan in plans])) as finished_runs:
        for finished in finished_runs:
            plan = by_id[finished.id]
            checked = _checked(plan, finished)
            row = Row.of(plan.run, plan.frames, plan.identity, plan.request.command, checked)
            yield row, checked.files


def _checked(plan: Plan, finished: Finished) -> Finished:
    """Return a finished run; mark it failed if it ran with other settings than planned.

    A configuration file may change between plan and run.
    """
    import yaml

    from spslam.benchmark.identity import as_requested, config_sha256
    from spslam.config import Config

    text = finished.files.get("config.yaml")
    if text is None:
        return finished
    ran = Config.model_validate(yaml.safe_load(text))
    if config_sha256(as_requested(ran, plan.config)) == plan.identity.config_sha256:
        return finished
    return replace(
        finished,
        reason="it ran with other settings than planned: a file changed",
        files={},
    )


def _describe(row: Row) -> str:
    accuracy = ", ".join(describe_accuracy(row, "ate_rmse_m"))
    parts = [f"{row.case} #{row.repeat}: {accuracy}", f"{row.seconds:.0f} s"]
    parts += [f"started {row.attempts} times"] if row.attempts > 1 else []
    parts += [] if row.reason is None else [f"failed: {row.reason}"]
    return ", ".join(parts)


def _end(plans: Iterable[Plan], results: Results) -> None:
    broken = [results.rows[plan.run.id] for plan in plans if not results.is_done(plan.run.id)]
    if broken:
        typer.echo(
            f"error: {counted(len(broken), 'run has', 'runs have')} no metrics, such as "
            f"{broken[0].id}: {broken[0].reason}; the same command tries them again",
            err=True,
        )
        raise typer.Exit(FAILED)
