"""Suites from YAML files: sequences × sensors × front ends × configurations × repeats."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from spslam.benchmark.metrics import METRICS
from spslam.config import config_names, load_settings
from spslam.errors import ConfigError
from spslam.frame import Sensor

FOLDER = "suites"
# Setting of the threads, 1 in suites: results and times must not depend on parallel runs.
_THREADS = "features.threads"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SequenceEntry(_Entry):
    """Source of frames: exactly one of `world`, `public` and `path`."""

    world: str | None = Field(
        None, description="a built-in world; repeats draw other textures and noise"
    )
    public: str | None = Field(
        None, description="a name in `spslam data list`, or a data set: all its sequences"
    )
    path: str | None = Field(None, description="folder or video, relative to the file of the suite")
    dataset: str = Field("auto", description="format of `path`")
    sequence: str | None = Field(None, description="name of the sequence, if `path` holds several")
    calibration: str | None = Field(None, description="camera calibration for images and videos")
    sensors: list[Sensor] | None = Field(
        None, min_length=1, description="sensors, instead of those of the grid"
    )
    start: int = Field(0, ge=0, description="first frame")
    max_frames: int | None = Field(None, ge=1, description="largest number of frames")
    stride: int = Field(1, ge=1, description="every n-th frame")
    disturb: list[str] = Field(
        [], description="as `--disturb`; repeats use other seeds unless one is given"
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
    """A front end, as by `--extractor` and `--weights`."""

    extractor: str | None = Field(
        None, description="superpoint, orb, sift or the name of a plug-in"
    )
    weights: str | None = Field(None, description="network weights: a file or a built-in name")


class ConfigEntry(_Entry):
    """A configuration, as by `--config` and `--set`."""

    config: str | None = Field(
        None, description="a built-in name or a YAML file; None: that of data set and sensor"
    )
    set: dict[str, Any] = Field({}, description="key of the configuration -> value")


class Grid(_Entry):
    """Sets of labels; every combination is run."""

    sequences: dict[str, SequenceEntry] = Field(min_length=1)
    sensors: list[Sensor] = Field(min_length=1)
    extractors: dict[str, FrontEndEntry] = Field(min_length=1)
    configs: dict[str, ConfigEntry] = Field({"default": ConfigEntry()}, min_length=1)
    repeats: int = Field(1, ge=1, le=100, description="runs of each combination, with other seeds")


class Suite(_Entry):
    """A suite: a file in configs/suites, or a user's own file."""

    title: str
    description: str = ""
    metrics: list[str] = Field(
        ["ate_rmse_m"], min_length=1, description="metrics that get their own table"
    )
    published: list[str] = Field([], description="files of configs/published to compare with")
    grids: list[Grid] = Field(min_length=1)

    @model_validator(mode="after")
    def _known_metrics(self) -> Suite:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown:
            raise ValueError(f"metrics must be of {', '.join(METRICS)}, found {unknown[0]!r}")
        return self


def seeded(disturbance: str, seed: int) -> str:
    """Return the text of `--disturb` with a seed, unless it has one."""
    if "seed=" in disturbance:
        return disturbance
    return f"{disturbance}{',' if ':' in disturbance else ':'}seed={seed}"


@dataclass(frozen=True, order=True)
class Case:
    """A combination of labels, which is run in several repeats; a row of the table."""

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
        case, repeat: the case, and the index of the repeat, from 0.
        varied: what this repeat varies, as text.
        path: PATH argument of `spslam run`.
        public: name of the public sequence; None for other sequences.
        entry: the suite's sequence.
        front_end: the suite's front end.
        config: value of `--config`; None: that of data set and sensor.
        overrides: values of `--set`, each `key=value`.
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
        return [seeded(text, self.repeat) for text in self.entry.disturb]

    @property
    def id(self) -> str:
        """Name of the run, valid as the name of a folder."""
        case = self.case
        config = "" if case.config == "default" else case.config
        parts = (case.sequence, case.sensor, case.extractor, config, str(self.repeat))
        return "_".join(re.sub(r"[^\w.@]+", "-", part).strip("-.") for part in parts if part)

    def arguments(self, config: str) -> list[str]:
        """Return the arguments of `spslam` without `--out`.

        Args:
            config: name of the configuration.
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
    """Return the names of the built-in suites."""
    return config_names(FOLDER)


def load_suite(name_or_path: str) -> Suite:
    """Load a built-in suite by name, or a YAML file by path; `extends:` works as in configurations.

    Raises:
        ConfigError: there is no such suite, or its contents are invalid.
    """
    suite = load_settings(Suite, name_or_path, folder=FOLDER, kind="suite")
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
    """Return the name of a built-in suite, or of a file without its suffix."""
    return Path(name_or_path).stem


def expand(suite: Suite, public: Callable[[str], Mapping[str, Path]]) -> list[Run]:
    """Return all runs; the first repeats of all cases come before the second ones.

    Args:
        suite: the suite.
        public: returns name -> folder of the public sequences that a name stands for.

    Raises:
        ConfigError: two runs have the same name.
    """
    runs: dict[str, Run] = {}
    for grid in suite.grids:
        for run in _expand_grid(grid, public):
            if run.id in runs:
                raise ConfigError(
                    f"two runs of the suite are called {run.id}: give distinct names to sequences, "
                    "extractors and configurations"
                )
            runs[run.id] = run
    return sorted(runs.values(), key=lambda run: run.repeat)


def chosen(runs: Iterable[Run], words: Iterable[str]) -> list[Run]:
    """Return the runs for which every word is contained in a label.

    Raises:
        ConfigError: no run is left.
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
            # The sequences of a data set keep their own names.
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
        # The values are formatted as JSON, which is valid YAML.
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
    """Return the path of a file beside the suite, else the name, which may be a built-in one."""
    if name is None or not (base / Path(name).expanduser()).is_file():
        return name
    return _beside(base, name)
