"""The file of `spslam bench peers`: other systems, sequences, our front ends and settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from spslam.benchmark.suite import Case, FrontEndEntry, SequenceEntry, seeded
from spslam.config import load_settings
from spslam.errors import ConfigError
from spslam.frame import Sensor

# Names of suites of peers begin with this; in `results.json` and in the comments of Markdown files.
SUITE = "peers"
# Layouts of the folders that peers read.
Layout = Literal["kitti", "tum", "euroc"]
# Variants of a run: as fast as possible, and at the time stamps.
OFFLINE, REALTIME = "default", "realtime"
# Start of the names of the variants with other numbers of points.
POINTS = "points "
# Placeholders of a command line; `docs/benchmarks.md` describes them.
PLACEHOLDERS = (
    "sequence", "layout", "sensor", "out", "keyframes", "calibration", "realtime", "here", "frames",
)  # fmt: skip
# Variable of an environment in a command line: $NAME or ${NAME}.
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PeerEntry(_Entry):
    """A system that runs beside ours: a command that writes a trajectory in TUM's format."""

    command: str = Field(
        min_length=1, description="command line with placeholders, split as by a shell"
    )
    environment: dict[str, str] = Field({}, description="environment variables, added to ours")
    licence: str = Field(min_length=1, description="licence, shown below the tables")
    sensors: list[Sensor] = Field(["mono", "stereo", "rgbd"], min_length=1)
    layouts: list[Layout] = Field(["kitti", "tum"], min_length=1, description="folders it reads")
    realtime: bool = Field(False, description="whether the command understands {realtime}")
    timeout_s: float | None = Field(None, gt=0, description="time limit of a run, seconds")

    @field_validator("command")
    @classmethod
    def _known_placeholders(cls, command: str) -> str:
        try:
            parts = shlex.split(command)
            names = [name for part in parts for _, name, _, _ in Formatter().parse(part)]
        except ValueError as error:
            raise ValueError(f"the command cannot be split: {error}") from None
        unknown = [name for name in names if name is not None and name not in PLACEHOLDERS]
        if unknown:
            raise ValueError(
                f"the command has {{{unknown[0]}}}, placeholders are {', '.join(PLACEHOLDERS)}"
            )
        if "out" not in names:
            raise ValueError("the command has no {out}, the trajectory that it must write")
        return command


class PeerSequence(SequenceEntry):
    """A sequence of a suite; peers get it in a layout."""

    layout: Layout | None = Field(
        None, description="default: that of the recording, else kitti for stereo, tum for others"
    )
    seeds: bool = Field(
        False,
        description="a built-in world: each round has other textures, noise and disturbances",
    )

    @model_validator(mode="after")
    def _seeds_of_a_world(self) -> PeerSequence:
        if self.seeds and (self.world is None or "@" in self.world):
            raise ValueError("seeds: true belongs to a built-in world without a seed of its own")
        return self

    def in_round(self, repeat: int) -> PeerSequence:
        """Return the sequence of a round, from 0."""
        if not self.seeds or repeat == 0:
            return self
        disturb = [seeded(text, repeat) for text in self.disturb]
        return self.model_copy(update={"world": f"{self.world}@{repeat + 1}", "disturb": disturb})


class PeerSuite(_Entry):
    """A suite of peers, from a YAML file."""

    name: str = Field(
        SUITE,
        pattern=rf"^{SUITE}(-[\w-]+)?$",
        description="names the folder of the results and the two comments of --markdown",
    )
    title: str = "Beside other systems"
    rounds: int = Field(3, ge=1, le=100, description="turns of each sequence and sensor")
    timeout_s: float = Field(1800.0, gt=0, description="time limit of a run, seconds")
    points: list[float] = Field(
        [0.85, 0.92, 1.0, 1.1, 1.2],
        min_length=1,
        description="factors of features.max_keypoints in the runs of --settings",
    )
    public_frames: int = Field(
        300, ge=1, description="largest number of frames of public sequences by default"
    )
    sequences: dict[str, PeerSequence] = Field(
        {}, description="default: demo-small and the public sequences on this disk"
    )
    sensors: list[Sensor] = Field(["stereo", "mono", "rgbd"], min_length=1)
    extractors: dict[str, FrontEndEntry] = Field(
        {
            "spslam": FrontEndEntry(extractor=None, weights=None),
            "spslam, ORB": FrontEndEntry(extractor="orb", weights=None),
            "spslam, SIFT": FrontEndEntry(extractor="sift", weights=None),
        },
        min_length=1,
        description="our front ends; peers are compared with the first, the others run once",
    )
    peers: dict[str, PeerEntry] = Field(min_length=1)

    @field_validator("points")
    @classmethod
    def _positive(cls, points: list[float]) -> list[float]:
        if not all(0.01 <= factor <= 100 for factor in points):
            raise ValueError(f"points must be factors from 0.01 to 100, found {points}")
        return points

    @model_validator(mode="after")
    def _other_names(self) -> PeerSuite:
        both = set(self.extractors) & set(self.peers)
        if both:
            raise ValueError(f"{min(both)!r} names a front end and a peer")
        return self

    @property
    def main(self) -> str:
        """Label of our runs that peers are compared with."""
        return next(iter(self.extractors))


@dataclass(frozen=True)
class Turn:
    """One run: ours or a peer's.

    Attributes:
        case: sequence, sensor, system (`extractor`), and variant (`config`).
        repeat: index of the round, from 0.
        entry: the sequence.
        front_end: our front end; None for a peer.
        peer: the peer; None for ours.
        points: factor of `features.max_keypoints`; 1 for runs of peers.
        main: whether peers of the same round are compared with this run.
    """

    case: Case
    repeat: int
    entry: PeerSequence
    front_end: FrontEndEntry | None
    peer: PeerEntry | None
    points: float = 1.0
    main: bool = False

    @property
    def varies_points(self) -> bool:
        """Whether the run belongs to those with other numbers of points."""
        return self.case.config.startswith(POINTS)

    @property
    def id(self) -> str:
        """Name of the run, valid as the name of a folder."""
        case = self.case
        variant = "" if case.config == OFFLINE else case.config
        parts = (case.sequence, case.sensor, case.extractor, variant, str(self.repeat))
        return "_".join(re.sub(r"[^\w.@]+", "-", part).strip("-.") for part in parts if part)


@dataclass(frozen=True)
class Values:
    """Values of the placeholders of one run; see `PLACEHOLDERS`."""

    sequence: Path
    layout: Layout
    sensor: Sensor
    out: Path
    keyframes: Path
    calibration: Path
    realtime: bool
    here: Path
    frames: int
    environment: Mapping[str, str] = field(default_factory=dict)

    def fill(self, command: str) -> list[str]:
        """Return the arguments of a command line.

        Raises:
            ConfigError: the command line has a variable that the environment lacks.
        """
        texts = {
            name: "--realtime" if value is True else "" if value is False else str(value)
            for name, value in vars(self).items()
            if name != "environment"
        }
        parts = shlex.split(command)
        if not self.realtime:
            parts = [part for part in parts if part != "{realtime}"]
        return [self._with_variables(part).format_map(texts) for part in parts]

    def _with_variables(self, part: str) -> str:
        def value(found: re.Match[str]) -> str:
            name = found[1] or found[2]
            if name not in self.environment:
                raise ConfigError(f"set the environment variable {name}, which the command needs")
            return self.environment[name].replace("{", "{{").replace("}", "}}")

        return _VARIABLE.sub(value, part)


def variables_of(command: str) -> list[str]:
    """Return the names of the environment variables in a command line, sorted."""
    return sorted({found[1] or found[2] for found in _VARIABLE.finditer(command)})


def is_of_peers(suite: str) -> bool:
    """Whether results of a suite, by its name, are those of peers."""
    return suite.partition("-")[0] == SUITE


def load_peer_suite(path: Path) -> PeerSuite:
    """Load a file of peers; paths in it are relative to its folder.

    Raises:
        ConfigError: there is no such file, or its contents are invalid.
    """
    suite = load_settings(PeerSuite, path, kind="peers")
    base = path.expanduser().absolute().parent
    sequences = {
        label: entry.model_copy(
            update={
                name: str(base / Path(value).expanduser())
                for name in ("path", "calibration")
                if (value := getattr(entry, name)) is not None
            }
        )
        for label, entry in suite.sequences.items()
    }
    return suite.model_copy(update={"sequences": sequences})


def default_sequences(found: Iterable[str], frames: int) -> dict[str, PeerSequence]:
    """Return the sequences of a file without any.

    Args:
        found: names of the public sequences on this disk.
        frames: largest number of their frames.
    """
    world: dict[str, Any] = {"world": "demo-small"}
    return {
        "demo-small": PeerSequence.model_validate(world),
        **{
            name: PeerSequence.model_validate({"public": name, "max_frames": frames})
            for name in found
        },
    }


def turns_of(
    suite: PeerSuite,
    label: str,
    entry: PeerSequence,
    sensor: Sensor,
    layout: Layout,
    *,
    realtime: bool = False,
    settings: bool = False,
) -> list[Turn]:
    """Return the runs of one sequence and sensor in order: in each round ours, then the peers.

    Our other front ends and the runs of `settings` belong to the first round; the front ends to all
    rounds where these have other seeds.

    Args:
        suite: the suite.
        label: name of the sequence.
        entry: the sequence.
        sensor: the sensor.
        layout: layout of the sequence's folder.
        realtime: add runs at the time stamps.
        settings: add our runs with other numbers of points.
    """
    turns: list[Turn] = []
    for variant in (OFFLINE, *([REALTIME] if realtime else [])):
        for repeat in range(suite.rounds):
            turns += _round(suite, label, entry, sensor, layout, variant, repeat)
    if settings:
        front_end = suite.extractors[suite.main]
        turns += [
            Turn(
                Case(label, sensor, suite.main, points_label(factor)),
                0, entry, front_end, None, factor,
            )
            for factor in suite.points
        ]  # fmt: skip
    return turns


def points_label(factor: float) -> str:
    """Return the variant of a run with another number of points."""
    return f"{POINTS}×{factor:g}"


def chosen_turns(turns: list[Turn], words: Iterable[str], main: str) -> list[Turn]:
    """Return the runs for which every word is contained in a label, and ours beside them.

    Args:
        turns: all runs.
        words: the words.
        main: label of our runs that peers are compared with.

    Raises:
        ConfigError: no run is left.
    """
    wanted = list(words)
    left = {
        turn.id
        for turn in turns
        if all(any(word in label for label in vars(turn.case).values()) for word in wanted)
    }
    if not left:
        raise ConfigError(f"--only {' --only '.join(wanted)} leaves no run")
    places = {_place(turn) for turn in turns if turn.id in left and turn.peer is not None}
    return [
        turn
        for turn in turns
        if turn.id in left or (turn.case.extractor == main and _place(turn) in places)
    ]


def _place(turn: Turn) -> tuple[str, str, str, int]:
    return turn.case.sequence, turn.case.sensor, turn.case.config, turn.repeat


def _round(
    suite: PeerSuite,
    label: str,
    entry: PeerSequence,
    sensor: Sensor,
    layout: Layout,
    variant: str,
    repeat: int,
) -> Iterable[Turn]:
    for name, front_end in suite.extractors.items():
        if name == suite.main:
            case = Case(label, sensor, name, variant)
            yield Turn(case, repeat, entry, front_end, None, main=True)
    for name, peer in suite.peers.items():
        fits = sensor in peer.sensors and layout in peer.layouts
        if fits and (variant == OFFLINE or peer.realtime):
            yield Turn(Case(label, sensor, name, variant), repeat, entry, None, peer)
    if (repeat == 0 or entry.seeds) and variant == OFFLINE:
        for name, front_end in suite.extractors.items():
            if name != suite.main:
                yield Turn(Case(label, sensor, name, variant), repeat, entry, front_end, None)
