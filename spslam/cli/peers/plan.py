"""The plan of `spslam bench peers`: its runs with the folders that all systems read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

if TYPE_CHECKING:
    from spslam.benchmark.peers.inputs import PeerInput
    from spslam.benchmark.peers.perform import TurnPlan
    from spslam.benchmark.peers.suite import Layout, PeerSequence, PeerSuite, Turn
    from spslam.datasets.fetch.catalogue import Catalogue
    from spslam.datasets.fetch.fetching import DataFolder
    from spslam.frame import Sensor
    from spslam.interfaces import Sequence


class Places:
    """The sequences of a suite, and the folders that its systems read.

    Args:
        suite: the suite.
        data: public sequences on this disk.
        catalogue: all public sequences.
        inputs: folder for sequences that peers cannot read where they are.

    Attributes:
        missing: a line of text for each sequence and sensor that cannot be read.
    """

    def __init__(
        self, suite: PeerSuite, data: DataFolder, catalogue: Catalogue, inputs: Path
    ) -> None:
        self._suite = suite
        self._data, self._catalogue = data, catalogue
        self._inputs = inputs
        self._readable = {layout for peer in suite.peers.values() for layout in peer.layouts}
        self._opened: dict[tuple[str, str], tuple[PeerSequence, Sequence, Layout]] = {}
        self._unreadable: set[tuple[str, str]] = set()
        self._prepared: dict[tuple[str, str, int], PeerInput] = {}
        self.missing: list[str] = []

    def turns(self, *, realtime: bool, settings: bool) -> list[Turn]:
        """Return all runs of the sequences that can be read."""
        from spslam.benchmark.peers.inputs import layout_for
        from spslam.benchmark.peers.suite import turns_of
        from spslam.errors import SpslamError

        turns = []
        for label, entry in self._sequences().items():
            for sensor in entry.sensors or self._suite.sensors:
                try:
                    sequence = self._open(entry, sensor)
                    layout = layout_for(sequence, entry.layout, self._readable)
                except SpslamError as error:
                    # A default sensor that a recording lacks is no fault: KITTI has no depth.
                    if entry.sensors is not None or len(self._suite.sensors) == 1:
                        self.missing.append(f"{label}, {sensor}: {error}")
                    continue
                self._opened[label, sensor] = (entry, sequence, layout)
                turns += turns_of(
                    self._suite, label, entry, sensor, layout, realtime=realtime, settings=settings
                )
            known = any(line.startswith(f"{label}, ") for line in self.missing)
            if not known and not any(opened == label for opened, _ in self._opened):
                self.missing.append(f"{label} cannot be read: {self._why(entry)}")
        return turns

    def plan(self, turn: Turn, here: Path, timeout_s: float | None) -> TurnPlan | None:
        """Return the plan of a run; write its folder first, if that is needed.

        None, with a line in `missing`, where the frames cannot be read.

        Args:
            turn: the run.
            here: folder of the suite's file.
            timeout_s: time limit, seconds; None: that of the suite.

        Raises:
            OutputError: the folder cannot be written.
        """
        from spslam.benchmark.peers.perform import TurnPlan
        from spslam.cli.options import resolve_config
        from spslam.errors import BenchmarkError, DatasetError

        place = (turn.case.sequence, turn.case.sensor)
        if place in self._unreadable:
            return None
        try:
            given = self._prepare(*place, turn.repeat if turn.entry.seeds else 0)
        except (BenchmarkError, DatasetError) as error:
            self._unreadable.add(place)
            self.missing.append(f"{', '.join(place)}: {error}")
            typer.echo(f"left out: {self.missing[-1]}", err=True)
            return None
        points = None
        if turn.varies_points:
            front_end = turn.front_end
            extractor = None if front_end is None else front_end.extractor
            config = resolve_config(given.config, None, extractor, None)
            points = max(1, round(turn.points * config.features.max_keypoints))
        own = None if turn.peer is None else turn.peer.timeout_s
        limit = timeout_s or own or self._suite.timeout_s
        return TurnPlan(turn, given, here, limit, points)

    def _sequences(self) -> dict[str, PeerSequence]:
        from spslam.benchmark.peers.suite import default_sequences

        if self._suite.sequences:
            return {
                shown: one
                for label, entry in self._suite.sequences.items()
                for shown, one in self._expanded(label, entry)
            }
        found = [
            name
            for name, sequence in self._catalogue.sequences.items()
            if self._data.folder(sequence).is_dir()
        ]
        return default_sequences(found, self._suite.public_frames)

    def _expanded(self, label: str, entry: PeerSequence) -> Iterable[tuple[str, PeerSequence]]:
        """Yield a sequence; of a whole public data set each of its sequences on this disk."""
        if entry.public is None:
            yield label, entry
            return
        public = self._catalogue.choose([entry.public])
        here = [one for one in public if self._data.folder(one).is_dir()]
        if len(public) == 1 or not here:
            yield label, entry
            return
        for one in here:
            yield one.name, entry.model_copy(update={"public": one.name})

    def _open(self, entry: PeerSequence, sensor: str) -> Sequence:
        from spslam.datasets import open_sequence
        from spslam.datasets.world.disturbed import disturb
        from spslam.errors import DatasetError

        path = entry.world or entry.path
        if entry.public is not None:
            path = str(self._data.folder(self._catalogue.choose([entry.public])[0]))
            if not Path(path).is_dir():
                raise DatasetError(
                    f"{entry.public} is not in {self._data.root}: spslam data fetch {entry.public}"
                )
        max_frames = entry.max_frames
        options: dict[str, Any] = {
            "dataset": entry.dataset, "sequence": entry.sequence, "sensor": sensor,
            "calibration": entry.calibration,
        }  # fmt: skip
        sequence = open_sequence(str(path), **options)
        if max_frames is not None and max_frames >= len(sequence):
            # All frames: peers can read the recording where it is.
            max_frames = None
        if (entry.start, max_frames, entry.stride) != (0, None, 1):
            sequence = open_sequence(
                str(path), **options, start=entry.start, max_frames=max_frames, stride=entry.stride
            )
        return disturb(sequence, entry.disturb) if entry.disturb else sequence

    def _why(self, entry: PeerSequence) -> str:
        from spslam.errors import SpslamError

        try:
            self._open(entry, "auto")
        except SpslamError as error:
            return str(error)
        return f"it has none of the sensors {', '.join(self._suite.sensors)}"

    def _prepare(self, label: str, sensor: Sensor | str, repeat: int) -> PeerInput:
        from spslam.benchmark.peers.inputs import (
            PeerInput,
            as_recorded,
            export,
            write_calibration,
        )
        from spslam.config import config_for
        from spslam.datasets import open_sequence

        if (label, sensor, repeat) in self._prepared:
            return self._prepared[label, sensor, repeat]
        entry, sequence, layout = self._opened[label, sensor]
        folder = self._inputs / f"{_file_name(label)}_{sensor}"
        if repeat:
            entry, folder = entry.in_round(repeat), Path(f"{folder}_{repeat + 1}")
            sequence = self._open(entry, sensor)
        if as_recorded(sequence) == layout and not (entry.calibration or entry.disturb):
            place = Path(sequence.source)
        else:
            shown = f"{label}, round {repeat + 1}" if repeat else label
            typer.echo(f"writing {shown}, {sensor}, as a folder of {layout}", err=True)
            place = export(sequence, folder, layout, _record(entry, sensor, len(sequence)))
        read = open_sequence(place, dataset=layout, sensor=sensor)
        calibration = self._inputs / f"{folder.name}.json"
        write_calibration(calibration, read.camera)
        config = config_for(sequence.dataset, sensor)
        self._prepared[label, sensor, repeat] = PeerInput(
            place, layout, calibration, config, _times(read), read.ground_truth
        )
        return self._prepared[label, sensor, repeat]


def _times(sequence: Sequence) -> np.ndarray:
    stamps = getattr(sequence, "timestamps", None)
    if stamps is not None:
        return np.asarray(stamps, dtype=np.float64)
    return np.array([frame.timestamp for frame in sequence], dtype=np.float64)


def _record(entry: PeerSequence, sensor: str, frames: int) -> dict[str, object]:
    """Return what an exported folder depends on."""
    from spslam.benchmark.identity import code_sha256

    return {
        "sequence": entry.model_dump(mode="json"),
        "sensor": sensor,
        "frames": frames,
        "code_sha256": code_sha256(),
    }


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.@]+", "-", label).strip("-.")
