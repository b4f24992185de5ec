"""`results.json`: a row a run, written after each of them; and what the repeats of a case amount to."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from spslam.benchmark.figures import SHARE
from spslam.benchmark.identity import Identity
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
_FORMAT = 1
# Notices that say nothing about the trajectory.
_NO_DOUBTS = {"ground_truth_not_compared", "output_failed"}
# A suite of ten thousand runs has less.
_LONGEST_BYTES = 500_000_000
# Figures that every run has which came to any.
_COUNTS, _MOST_FRAMES = ("frames", "tracked"), 10**12


@dataclass(frozen=True)
class Row:
    """One run that was done.

    Attributes:
        id: of the run, and of its folder below `runs/`.
        sequence, sensor, extractor, config: the suite's labels.
        repeat, varied: which one, and in words what makes it another one.
        reason: why it failed; None: it did not.
        frames: of the sequence, whatever became of the run.
        command: that repeats it.
        identity: what its results follow from (see `Identity`).
        machine, seconds, attempts: see `Finished`.
        metrics: its `metrics.json`; None where it came to nothing.
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

    # Other keys are of another version, or of somebody else.
    __pydantic_config__ = ConfigDict(extra="forbid")

    @classmethod
    def of(cls, run: Run, frames: int, identity: Identity, command: str, finished: Finished) -> Row:
        """The row of a run that is done."""
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
        """What it is a repeat of."""
        return Case(self.sequence, self.sensor, self.extractor, self.config)

    @property
    def share_tracked(self) -> float:
        """Of all frames of the sequence, those that were never reached among them."""
        return (
            0.0
            if self.metrics is None
            else self.metrics["tracked"] / max(self.frames, self.metrics["frames"])
        )

    @property
    def tells_a_doubt(self) -> bool:
        """Whether the run itself said that not all is as it should be: by a notice, or by frames that it is lost in."""
        if self.metrics is None:
            return True
        topics = {notice["topic"] for notice in self.metrics.get("notices", [])}
        return bool(topics - _NO_DOUBTS) or self.metrics.get("lost_frames", 0) > 0

    def figure(self, key: str) -> float | None:
        """A figure of `metrics.json`, where there is one."""
        if key == SHARE.key:
            return self.share_tracked
        value = None if self.metrics is None else self.metrics.get(key)
        return float(value) if isinstance(value, int | float) else None


class _Head(BaseModel):
    """What `results.json` says of its suite."""

    format: int
    suite: str
    title: str
    metrics: list[str]
    published: list[str]


def _read_rows(found: Any) -> list[Row]:
    """Rows of `results.json`.

    Raises:
        ValidationError, ValueError: something in them is of another kind than `Row` says.
    """
    rows = TypeAdapter(list[Row]).validate_python(found)
    for row in rows:
        if not isinstance(row.identity.get("input", {}), dict):
            raise ValueError(f"run {row.id[:60]} does not say what it is of")
        counts = [0 if row.metrics is None else row.metrics.get(key) for key in _COUNTS]
        if not all(isinstance(count, int) and 0 <= count <= _MOST_FRAMES for count in counts):
            raise ValueError(f"run {row.id[:60]} says no numbers of frames")
    return rows


@dataclass(frozen=True)
class Group:
    """The repeats of one case, at least one."""

    case: Case
    rows: tuple[Row, ...]

    def spread(self, key: str) -> Spread | None:
        """Of a figure, over the repeats that have it; None: none has."""
        values = [value for row in self.rows if (value := row.figure(key)) is not None]
        return Spread.of(values) if values else None

    @property
    def disturbances(self) -> list[str]:
        """What was put into the recording, as of the first repeat."""
        return list(self.rows[0].identity.get("input", {}).get("disturb", []))

    @property
    def tracked(self) -> Spread:
        """Share of frames that were tracked."""
        return Spread.of([row.share_tracked for row in self.rows])

    @property
    def whole_sequence(self) -> str | None:
        """The name or place of the sequence that all repeats went through from end to end; None: it was a part."""
        inputs = [row.identity.get("input", {}) for row in self.rows]
        whole = all(
            (one.get("start"), one.get("max_frames"), one.get("stride")) == (0, None, 1)
            for one in inputs
        )
        return str(inputs[0].get("frames")) if whole else None

    @property
    def failures(self) -> list[Row]:
        """Repeats that failed."""
        return [row for row in self.rows if row.reason is not None]


class Results:
    """What is known of a suite's runs, in a folder.

    Attributes:
        folder: where.
        suite, title, metrics, published: of the suite.
        rows: by their ids, in the order of the suite.
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
        """From a folder of results, or from the `results.json` in it.

        Raises:
            BenchmarkError: there is none, or it is damaged, foreign or of a newer version.
        """
        file = path / FILE if path.is_dir() else path
        try:
            values = parse_json(read_given(file, _LONGEST_BYTES).decode("utf-8"))
            if values["format"] != _FORMAT:
                raise BenchmarkError(
                    f"{file} has format {shown(values['format'])}, expected {_FORMAT}: use another spslam"
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
                f"cannot read {file} ({error.strerror or error}): expected a folder that `spslam bench SUITE` wrote, "
                f"or its {FILE}"
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
            OutputError: that cannot be done.
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
        """Where a run's own results are."""
        return self.folder / RUNS / run_id

    def is_done(self, run_id: str) -> bool:
        """Whether a run needs not be done again: it came to figures, and its folder is there. A run that could not
        even begin is tried again.
        """
        row = self.rows.get(run_id)
        return (
            row is not None
            and row.metrics is not None
            and (self.run_folder(run_id) / "metrics.json").is_file()
        )

    def add(self, row: Row, files: dict[str, bytes], order: list[str]) -> None:
        """Take up a run that is done: its folder, then its row.

        Args:
            order: ids of all runs of the suite, which rows are sorted by.

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
        """Forget runs, with their folders.

        Raises:
            OutputError: `results.json` cannot be written.
        """
        for run_id in run_ids:
            self.rows.pop(run_id)
            shutil.rmtree(self.run_folder(run_id), ignore_errors=True)
        self.save()

    def groups(self) -> list[Group]:
        """The cases, in the order of the suite."""
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
