"""What a suite is: sequences × sensors × front ends × configurations × repeats, from a YAML file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spslam.benchmark.figures import METRICS
from spslam.config import config_names, describe_errors, load_values
from spslam.errors import ConfigError
from spslam.frame import Sensor

FOLDER = "suites"
# One thread each: results and times then do not hang on how many runs go on beside each other.
_THREADS = "features.threads"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SequenceEntry(_Entry):
    """Where frames come from: exactly one of `world`, `public` and `path`."""

    world: str | None = Field(
        None, description="a built-in world; repeats draw other textures and noise"
    )
    public: str | None = Field(
        None, description="a name of `spslam data list`, or a data set: all its sequences"
    )
    path: str | None = Field(
        None, description="folder or video; relative ones begin at the suite's file"
    )
    dataset: str = Field("auto", description="what `path` is")
    sequence: str | None = Field(None, description="which one, where `path` holds several")
    calibration: str | None = Field(None, description="camera calibration for images and videos")
    sensors: list[Sensor] | None = Field(None, min_length=1, description="instead of the grid's")
    start: int = Field(0, ge=0, description="first frame")
    max_frames: int | None = Field(None, ge=1, description="most frames")
    stride: int = Field(1, ge=1, description="every n-th frame")
    disturb: list[str] = Field(
        [], description="as `--disturb`; repeats draw other seeds where none is given"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> SequenceEntry:
        given = [name for name in ("world", "public", "path") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a sequence has one of world, public, path, found {' and '.join(given) or 'none'}"
            )
        return self


class FrontEndEntry(_Entry):
    """As `--extractor` and `--weights`."""

    extractor: str | None = Field(None, description="superpoint, orb, sift or a plug-in's")
    weights: str | None = Field(None, description="network weights: a file or a name of the box")


class ConfigEntry(_Entry):
    """As `--config` and `--set`."""

    config: str | None = Field(
        None, description="a name of the box or a YAML file; None: that of data set and sensor"
    )
    set: dict[str, Any] = Field({}, description="key of the configuration -> value")


class Grid(_Entry):
    """Every combination is run."""

    sequences: dict[str, SequenceEntry] = Field(min_length=1)
    sensors: list[Sensor] = Field(min_length=1)
    extractors: dict[str, FrontEndEntry] = Field(min_length=1)
    configs: dict[str, ConfigEntry] = Field({"default": ConfigEntry()}, min_length=1)
    repeats: int = Field(1, ge=1, le=100, description="runs of each, with other seeds")


class Suite(_Entry):
    """A file in configs/suites, or one of one's own."""

    title: str
    description: str = ""
    metrics: list[str] = Field(
        ["ate_rmse_m"], min_length=1, description="figures that get a table of their own"
    )
    published: list[str] = Field([], description="files of configs/published to show beside")
    grids: list[Grid] = Field(min_length=1)

    @model_validator(mode="after")
    def _known_metrics(self) -> Suite:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown:
            raise ValueError(f"metrics must be of {', '.join(METRICS)}, found {unknown[0]!r}")
        return self


@dataclass(frozen=True, order=True)
class Case:
    """What is repeated: the labels of the suite. A row of the table."""

    sequence: str
    sensor: str
    extractor: str
    config: str

    def __str__(self) -> str:
        shown = (
            self.sequence,
            self.sensor,
            self.extractor,
            "" if self.config == "default" else self.config,
        )
        return " ".join(part for part in shown if part)


@dataclass(frozen=True)
class Run:
    """One run of a suite.

    Attributes:
        case, repeat: what is repeated, and which repeat it is, from 0.
        varied: in words, what makes this repeat another one.
        path: what `spslam run` is given.
        public: the name of a public sequence, if it is one.
        entry: the suite's sequence.
        front_end: the suite's front end.
        config: `--config`, or None: that of data set and sensor.
        overrides: `--set`, `key=value` each.
    """

    case: Case
    repeat: int
    varied: str
    path: str
    public: str | None
    entry: SequenceEntry
    front_end: FrontEndEntry
    config: str | None
    overrides: tuple[str, ...] = field(default=())

    @property
    def disturbances(self) -> list[str]:
        """`--disturb`, each with the seed of this repeat unless it has its own."""
        seeds = [
            "" if "seed=" in text else f"{',' if ':' in text else ':'}seed={self.repeat}"
            for text in self.entry.disturb
        ]
        return [text + seed for text, seed in zip(self.entry.disturb, seeds, strict=True)]

    @property
    def id(self) -> str:
        """Its name, fit for a folder."""
        case = self.case
        config = "" if case.config == "default" else case.config
        parts = (case.sequence, case.sensor, case.extractor, config, str(self.repeat))
        return "_".join(re.sub(r"[^\w.@]+", "-", part).strip("-.") for part in parts if part)

    def arguments(self, config: str) -> list[str]:
        """Of `spslam`, but for `--out`.

        Args:
            config: the configuration's name.
        """
        entry = self.entry
        options: dict[str, object] = {
            "dataset": None if entry.dataset == "auto" else entry.dataset,
            "sequence": entry.sequence,
            "sensor": self.case.sensor,
            "calibration": entry.calibration,
            "config": config,
            "extractor": self.front_end.extractor,
            "weights": self.front_end.weights,
            "start": entry.start or None,
            "max-frames": entry.max_frames,
            "stride": None if entry.stride == 1 else entry.stride,
        }
        given = [
            text
            for name, value in options.items()
            if value is not None
            for text in (f"--{name}", str(value))
        ]
        given += [text for one in self.disturbances for text in ("--disturb", one)]
        return [
            "run",
            self.path,
            *given,
            *(text for pair in self.overrides for text in ("--set", pair)),
        ]


def suite_names() -> list[str]:
    """Those in the box."""
    return config_names(FOLDER)


def load_suite(name_or_path: str) -> Suite:
    """A suite of the box by name, or a YAML file by path; `extends:` works as for configurations.

    Raises:
        ConfigError: there is none, or it holds something else than expected.
    """
    values = load_values(name_or_path, folder=FOLDER)
    try:
        suite = Suite.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"suite {name_or_path}: {describe_errors(error)}") from None
    if not name_or_path.endswith((".yaml", ".yml")):
        return suite
    base = Path(name_or_path).expanduser().absolute().parent
    grids = [
        grid.model_copy(
            update={
                "sequences": {
                    label: entry.model_copy(
                        update={
                            "path": _beside(base, entry.path),
                            "calibration": _beside(base, entry.calibration),
                        }
                    )
                    for label, entry in grid.sequences.items()
                },
                "extractors": {
                    label: entry.model_copy(update={"weights": _file_beside(base, entry.weights)})
                    for label, entry in grid.extractors.items()
                },
                "configs": {
                    label: entry.model_copy(update={"config": _file_beside(base, entry.config)})
                    for label, entry in grid.configs.items()
                },
            }
        )
        for grid in suite.grids
    ]
    return suite.model_copy(update={"grids": grids})


def suite_name(name_or_path: str) -> str:
    """The name of the box, or the file's without its ending."""
    return Path(name_or_path).stem


def expand(suite: Suite, public: Callable[[str], Mapping[str, Path]]) -> list[Run]:
    """Every run, the first repeats of all before the second ones.

    Args:
        public: folders of the public sequences that a name stands for, by their names.

    Raises:
        ConfigError: two runs have one name.
    """
    runs: dict[str, Run] = {}
    for grid in suite.grids:
        for run in _expand_grid(grid, public):
            if run.id in runs:
                raise ConfigError(
                    f"two runs of the suite are called {run.id}: give sequences and others distinct names"
                )
            runs[run.id] = run
    return sorted(runs.values(), key=lambda run: run.repeat)


def chosen(runs: Iterable[Run], words: Iterable[str]) -> list[Run]:
    """Those of which every word is a part of a label.

    Raises:
        ConfigError: there is none.
    """
    left, wanted = list(runs), list(words)
    for word in wanted:
        left = [run for run in left if any(word in label for label in vars(run.case).values())]
        if not left:
            raise ConfigError(f"--only {' --only '.join(wanted)} leaves no run of the suite")
    return left


def _expand_grid(grid: Grid, public: Callable[[str], Mapping[str, Path]]) -> Iterable[Run]:
    for label, entry in grid.sequences.items():
        if entry.public is None:
            places: Mapping[str, str] = {label: str(entry.world or entry.path)}
        else:
            found = public(entry.public)
            # A data set's sequences have their own names.
            names = (
                {label: next(iter(found))} if len(found) == 1 else {name: name for name in found}
            )
            places = {shown: str(found[name]) for shown, name in names.items()}
        for shown, path in places.items():
            name = None if entry.public is None else (entry.public if shown == label else shown)
            yield from _repeats(grid, shown, path, name, entry)


def _repeats(
    grid: Grid, label: str, path: str, public: str | None, entry: SequenceEntry
) -> Iterable[Run]:
    combinations = product(
        entry.sensors or grid.sensors,
        grid.extractors.items(),
        grid.configs.items(),
        range(grid.repeats),
    )
    for sensor, (extractor, front_end), (name, config), repeat in combinations:
        # JSON values are YAML values.
        values = {_THREADS: 1, **config.set, "seed": config.set.get("seed", 0) + repeat}
        varied, where = f"seed {values['seed']}", path
        if entry.world is not None:
            varied, where = (
                f"world {repeat + 1}, {varied}",
                f"{path}@{repeat + 1}" if repeat else path,
            )
        yield Run(
            case=Case(label, sensor, extractor, name),
            repeat=repeat,
            varied=varied,
            path=where,
            public=public,
            entry=entry,
            front_end=front_end,
            config=config.config,
            overrides=tuple(f"{key}={json.dumps(value)}" for key, value in values.items()),
        )


def _beside(base: Path, path: str | None) -> str | None:
    return None if path is None else str(base / Path(path).expanduser())


def _file_beside(base: Path, name: str | None) -> str | None:
    """A file of that name beside the suite, else the name itself: it may be one of the box."""
    if name is None or not (base / Path(name).expanduser()).is_file():
        return name
    return _beside(base, name)
