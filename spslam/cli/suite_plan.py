"""The plan of a suite: the runs that can be done with the data on this disk, and those done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from spslam.notices import counted

if TYPE_CHECKING:
    from spslam.benchmark.identity import Identity
    from spslam.benchmark.perform import Request
    from spslam.benchmark.results import Results
    from spslam.benchmark.suite import Run, Suite
    from spslam.config import Config
    from spslam.datasets.fetch.catalogue import Catalogue
    from spslam.datasets.fetch.fetching import DataFolder
    from spslam.errors import Refusal


@dataclass(frozen=True)
class Plan:
    """A run that can be done.

    Attributes:
        run: the run of the suite.
        frames: number of frames.
        config: the resolved configuration.
        identity: all that the results depend on.
        request: the call for the worker.
    """

    run: Run
    frames: int
    config: Config
    identity: Identity
    request: Request


def open_data(data: Path | None) -> tuple[DataFolder, Catalogue]:
    """Open the folder of public sequences (None: the default one) and the catalogue."""
    from spslam.datasets.fetch.catalogue import Catalogue
    from spslam.datasets.fetch.fetching import DataFolder
    from spslam.io.files import data_folder

    catalogue = Catalogue.load()
    root = data_folder() if data is None else data.expanduser()
    return DataFolder(root.absolute(), catalogue), catalogue


def expand_suite(described: Suite, folder: DataFolder, catalogue: Catalogue) -> list[Run]:
    """List all runs of a suite, with public sequences in their folders."""
    from spslam.benchmark.suite import expand

    return expand(
        described, lambda name: {one.name: folder.folder(one) for one in catalogue.choose([name])}
    )


def plan_runs(
    runs: list[Run], folder: DataFolder, catalogue: Catalogue, available: bool
) -> tuple[list[Plan], list[str]]:
    """Plan the runs that can be done.

    Args:
        runs: runs of the suite.
        folder: public sequences on this disk.
        catalogue: all public sequences.
        available: skip runs whose input is missing, instead of an error.

    Returns:
        The plans, and a line of text for each missing input.

    Raises:
        BenchmarkError: an input is missing and `available` is false, or no run can be done.
    """
    from spslam.errors import BenchmarkError, Refusal

    looks: dict[tuple[str, ...], tuple[int, str] | Refusal] = {}
    plans: list[Plan] = []
    absent: dict[str, None] = {}
    problems: dict[str, None] = {}
    for run in runs:
        key = (run.path, run.case.sensor, run.entry.model_dump_json())
        if key not in looks:
            looks[key] = _look(run)
        found = looks[key]
        if not isinstance(found, Refusal):
            plans.append(_plan_run(run, found[0], run.config or found[1]))
        elif run.public and not Path(run.path).is_dir():
            absent[run.public] = None
        else:
            problems[f"{run.case.sequence}, {run.case.sensor}: {found}"] = None
    missing = [*problems]
    if absent:
        command = fetch_command([*absent], catalogue, folder)
        missing.insert(
            0,
            f"{counted(len(absent), 'sequence is', 'sequences are')} not in {folder.root}: "
            f"{command}",
        )
    if missing and not available:
        raise BenchmarkError(
            f"{'; '.join(missing)}; --available does the other {len(plans)} of "
            f"{counted(len(runs), 'run')}"
        )
    if not plans:
        raise BenchmarkError(f"no run of the suite can be done: {'; '.join(missing)}")
    for line in missing:
        typer.echo(f"left out: {line}", err=True)
    return plans, missing


def _look(run: Run) -> tuple[int, str] | Refusal:
    """Return the number of frames and the configuration of a run, if it can be read."""
    from spslam.config import config_for
    from spslam.datasets import open_sequence
    from spslam.datasets.world.disturbed import disturb
    from spslam.errors import Refusal, SpslamError

    entry = run.entry
    try:
        frames = open_sequence(
            run.path,
            dataset=entry.dataset,
            sequence=entry.sequence,
            sensor=run.case.sensor,
            calibration=entry.calibration,
            start=entry.start,
            max_frames=entry.max_frames,
            stride=entry.stride,
        )
        if entry.disturb:
            frames = disturb(frames, run.disturbances)
    except SpslamError as error:
        return Refusal(str(error))
    return len(frames), config_for(frames.dataset, run.case.sensor)


def _plan_run(run: Run, frames: int, config_name: str) -> Plan:
    from spslam.benchmark.identity import Identity, code_sha256, file_sha256
    from spslam.benchmark.perform import Request
    from spslam.cli.options import resolve_config
    from spslam.frontend.superpoint.checkpoints import find_weights

    front_end = run.front_end
    weights = None if front_end.weights is None else Path(front_end.weights)
    config = resolve_config(config_name, list(run.overrides), front_end.extractor, weights)
    features = config.features
    network = find_weights(features.weights) if features.extractor == "superpoint" else None
    beside = (run.entry.calibration, front_end.weights, run.config)
    files = {
        path: file_sha256(Path(path))
        for path in beside
        if path is not None and Path(path).is_file()
    }
    request = Request(run.id, tuple(run.arguments(config_name)), files, code_sha256())
    return Plan(run, frames, config, Identity.of(run, config, network), request)


def changes(plan: Plan, results: Results) -> str | None:
    """Describe a finished run that was done with other settings; None: with those of the plan."""
    from spslam.benchmark.identity import config_changes

    run_id = plan.run.id
    difference = plan.identity.difference(results.rows[run_id].identity)
    if difference is None:
        return None
    settings = config_changes(plan.config, results.run_folder(run_id) / "config.yaml")
    return f"{run_id} with {difference}{f' ({settings})' if settings else ''}"


def fetch_command(names: list[str], catalogue: Catalogue, folder: DataFolder) -> str:
    """Return the command that downloads these sequences; a whole data set by its name."""
    from spslam.io.files import data_folder

    sequences = catalogue.choose(names)
    wanted = []
    for dataset in dict.fromkeys(one.dataset for one in sequences):
        of_it = [one.name for one in sequences if one.dataset == dataset]
        wanted += [dataset] if len(of_it) == len(catalogue.choose([dataset])) else of_it
    place = "" if folder.root == data_folder().absolute() else f" --data {folder.root}"
    return f"spslam data fetch {' '.join(wanted)}{place}"
