"""`results.json`: one row per run, written after each run; and summaries of repeats."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from spslam.benchmark.identity import Identity
from spslam.benchmark.metrics import FRACTION
from spslam.benchmark.perform import Finished
from spslam.benchmark.suite import Case, Run
from spslam.config import describe_errors
from spslam.errors import BenchmarkError
from spslam.evaluation.summary import Spread
from spslam.io.files import write_atomic
from spslam.io.given_files import read_given
from spslam.io.structured_text import StructureError, parse_json, shown

FILE = "results.json"
RUNS = "runs"
# Format version of results.json.
_FORMAT = 1
# Topics of notices that do not concern the trajectory.
_NO_DOUBTS = {"ground_truth_not_compared", "output_failed"}
# Largest size of results.json that is read, bytes; 10,000 runs need less.
_LONGEST_BYTES = 500_000_000
# Metrics that every row with metrics must have, and their largest valid value.
_COUNTS, _MOST_FRAMES = ("frames", "tracked"), 10**12


@dataclass(frozen=True)
class Row:
    """One finished run.

    Attributes:
        id: id of the run, and name of its folder below `runs/`.
        sequence, sensor, extractor, config: labels of the suite.
        repeat, varied: index of the repeat, and text that says what it varies.
        reason: why the run failed; None if it did not.
        frames: number of frames of the sequence, even if the run ended early.
        command: command that repeats the run.
        identity: everything that determines the results (see `Identity`).
        machine, seconds, attempts: see `Finished`.
        metrics: contents of `metrics.json`; None if the run has none.
    """

    id: str
    sequence: str
    sensor: str
    extractor: str
    config: str
    repeat: int
    varied: str
    reason: str | None
    frames: int
    command: str
    identity: dict[str, Any]
    machine: dict[str, Any]
    seconds: float
    attempts: int
    metrics: dict[str, Any] | None

    # Refuse unknown keys: they come from another version or program.
    __pydantic_config__ = ConfigDict(extra="forbid")

    @classmethod
    def of(cls, run: Run, frames: int, identity: Identity, command: str, finished: Finished) -> Row:
        """Return the row of a finished run."""
        text = finished.files.get("metrics.json")
        return cls(
            id=run.id,
            **vars(run.case),
            repeat=run.repeat,
            varied=run.varied,
            reason=finished.reason,
            frames=frames,
            command=command,
            identity=asdict(identity),
            machine=finished.machine,
            seconds=round(finished.seconds, 3),
            attempts=finished.attempts,
            metrics=None if text is None else json.loads(text),
        )

    @property
    def case(self) -> Case:
        """The case that the run repeats."""
        return Case(self.sequence, self.sensor, self.extractor, self.config)

    @property
    def tracking_rate(self) -> float:
        """Tracking rate over all frames of the sequence, including frames never reached."""
        return (
            0.0
            if self.metrics is None
            else self.metrics["tracked"] / max(self.frames, self.metrics["frames"])
        )

    @property
    def warned(self) -> bool:
        """Whether the run gave a warning: a notice about the trajectory, or lost frames."""
        if self.metrics is None:
            return True
        topics = {notice["topic"] for notice in self.metrics.get("notices", [])}
        return bool(topics - _NO_DOUBTS) or self.metrics.get("lost_frames", 0) > 0

    def figure(self, key: str) -> float | None:
        """Return a metric of `metrics.json`; None if it has no such number."""
        if key == FRACTION.key:
            return self.tracking_rate
        value = None if self.metrics is None else self.metrics.get(key)
        return float(value) if isinstance(value, int | float) else None


class _Head(BaseModel):
    """The suite described in `results.json`."""

    format: int
    suite: str
    title: str
    metrics: list[str]
    published: list[str]


def _read_rows(found: Any) -> list[Row]:
    """Validate the rows of `results.json`.

    Raises:
        ValidationError, ValueError: a value does not fit `Row`.
    """
    rows = TypeAdapter(list[Row]).validate_python(found)
    for row in rows:
        if not isinstance(row.identity.get("input", {}), dict):
            raise ValueError(f"run {row.id[:60]} has an identity without input")
        counts = [0 if row.metrics is None else row.metrics.get(key) for key in _COUNTS]
        if not all(isinstance(count, int) and 0 <= count <= _MOST_FRAMES for count in counts):
            raise ValueError(f"run {row.id[:60]} has no valid numbers of frames")
    return rows


@dataclass(frozen=True)
class Group:
    """All repeats of one case, at least one."""

    case: Case
    rows: tuple[Row, ...]

    def spread(self, key: str) -> Spread | None:
        """Return the spread of a metric over the repeats that have it; None if no repeat does."""
        values = [value for row in self.rows if (value := row.figure(key)) is not None]
        return Spread.of(values) if values else None

    @property
    def disturbances(self) -> list[str]:
        """Disturbances of the recording, as in the first repeat."""
        return list(self.rows[0].identity.get("input", {}).get("disturb", []))

    @property
    def tracked(self) -> Spread:
        """Spread of the tracking rate, 0 to 1."""
        return Spread.of([row.tracking_rate for row in self.rows])

    @property
    def whole_sequence(self) -> str | None:
        """Name or path of the sequence if all repeats used all of its frames; else None."""
        inputs = [row.identity.get("input", {}) for row in self.rows]
        whole = all(
            (one.get("start"), one.get("max_frames"), one.get("stride")) == (0, None, 1)
            for one in inputs
        )
        return str(inputs[0].get("frames")) if whole else None

    @property
    def failures(self) -> list[Row]:
        """Failed repeats."""
        return [row for row in self.rows if row.reason is not None]


class Results:
    """Results of a suite in a folder.

    Attributes:
        folder: folder with `results.json`.
        suite, title, metrics, published: name and settings of the suite.
        rows: id -> row, in the order of the suite.
    """

    def __init__(self, folder: Path, head: dict[str, Any], rows: Iterable[Row]) -> None:
        self.folder = folder
        self.suite = str(head["suite"])
        self.title = str(head["title"])
        self.metrics = [str(key) for key in head["metrics"]]
        self.published = [str(name) for name in head["published"]]
        self.rows = {row.id: row for row in rows}

    @classmethod
    def load(cls, path: Path) -> Results:
        """Load results from a folder, or from the `results.json` in it.

        Raises:
            BenchmarkError: the file is missing, damaged, foreign or of a newer version.
        """
        file = path / FILE if path.is_dir() else path
        try:
            values = parse_json(read_given(file, _LONGEST_BYTES).decode("utf-8"))
            if values["format"] != _FORMAT:
                raise BenchmarkError(
                    f"{file} has format {shown(values['format'])}, expected {_FORMAT}: "
                    "use another version of spslam"
                )
            head = _Head.model_validate(
                {key: value for key, value in values.items() if key != "runs"}
            )
            return cls(file.parent, head.model_dump(), _read_rows(values["runs"]))
        except ValidationError as error:
            raise BenchmarkError(
                f"{file} is no file of results: {describe_errors(error)}"
            ) from None
        except OSError as error:
            raise BenchmarkError(
                f"cannot read {file} ({error.strerror or error}): "
                f"expected a folder that `spslam bench SUITE` wrote, or its {FILE}"
            ) from None
        except StructureError as error:
            raise BenchmarkError(f"{file} is no file of results: it {error}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise BenchmarkError(
                f"{file} is no file of results: {type(error).__name__} {error}"
            ) from None

    def save(self) -> None:
        """Write `results.json`.

        Raises:
            OutputError: the file cannot be written.
        """
        values = {
            "format": _FORMAT,
            "suite": self.suite,
            "title": self.title,
            "metrics": self.metrics,
            "published": self.published,
            "runs": [asdict(row) for row in self.rows.values()],
        }
        write_atomic(self.folder / FILE, json.dumps(values, indent=1, allow_nan=False) + "\n")

    def run_folder(self, run_id: str) -> Path:
        """Return the folder with the results of a run."""
        return self.folder / RUNS / run_id

    def is_done(self, run_id: str) -> bool:
        """Return whether a run has metrics and a folder, and need not be repeated.

        A run that failed before it began is repeated.
        """
        row = self.rows.get(run_id)
        return (
            row is not None
            and row.metrics is not None
            and (self.run_folder(run_id) / "metrics.json").is_file()
        )

    def add(self, row: Row, files: dict[str, bytes], order: list[str]) -> None:
        """Add a finished run: first its folder, then its row.

        Args:
            row: row of the run.
            files: file name -> contents of the run's folder.
            order: ids of all runs of the suite, in the order of the rows.

        Raises:
            OutputError: a file cannot be written.
        """
        self._write_run(row.id, files)
        self.rows[row.id] = row
        places = {run_id: place for place, run_id in enumerate(order)}
        self.rows = dict(
            sorted(self.rows.items(), key=lambda item: places.get(item[0], len(places)))
        )
        self.save()

    def remove(self, run_ids: Iterable[str]) -> None:
        """Remove runs and their folders.

        Raises:
            OutputError: `results.json` cannot be written.
        """
        for run_id in run_ids:
            self.rows.pop(run_id)
            shutil.rmtree(self.run_folder(run_id), ignore_errors=True)
        self.save()

    def groups(self) -> list[Group]:
        """Return the cases in the order of the suite."""
        found: dict[Case, list[Row]] = {}
        for row in self.rows.values():
            found.setdefault(row.case, []).append(row)
        return [Group(case, tuple(rows)) for case, rows in found.items()]

    def _write_run(self, run_id: str, files: dict[str, bytes]) -> None:
        final = self.run_folder(run_id)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{run_id}.", suffix=".partial"))
        try:
            for name, data in files.items():
                write_atomic(partial / name, data, durable=False)
            shutil.rmtree(final, ignore_errors=True)
            if files:
                partial.chmod(0o755)
                partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
