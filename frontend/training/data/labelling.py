"""Labelling of many photographs by several processes; existing labels are skipped."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from spslam.errors import DatasetError, OutputError, SpslamError
from spslam.io.files import write_atomic
from spslam.io.structured_text import parse_json
from spslam.process.signals import children_spared, end_with_parent

from ...engines.engine import usable_cores
from ...photos import fit_image, read_photo
from ...superpoint.checkpoints import load_superpoint
from ...superpoint.superpoint import SuperPoint
from ..config import LabelConfig
from ..precision import resolve_precision
from .labels import adapt, find_labels, read_labels, relative_name, write_labels

logger = logging.getLogger(__name__)

# Format of the label folder; raise it when the labels or their files change.
FORMAT_VERSION = 2
# File in the label folder with the settings of the labels.
_SETTINGS_NAME = "labels.json"
# Image rows in a strip of the first stage on a CPU; affects only the speed (cache use).
_STRIP_ROWS = 32

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LabelSummary:
    """Result of `label_images`.

    Attributes:
        done: number of photographs labelled.
        skipped: number of photographs that had labels already.
        unreadable: number of photographs that could not be read; the log names them.
        mean_labels: mean number of labels per photograph, done and skipped; 0 without photographs.
    """

    done: int
    skipped: int
    unreadable: int
    mean_labels: float


def label_images(
    photos: list[Path],
    root: Path,
    out: Path,
    weights: Path | None,
    config: LabelConfig,
    seed: int,
    *,
    processes: int = 1,
    device: str = "cpu",
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> LabelSummary:
    """Label photographs, fitted to `config.size`, in one `.npz` file each.

    Files in `out` have the same subfolders as below `root`; existing files are kept. Random numbers
    depend only on the seed and on the photograph's name below `root`. Photographs are labelled in
    an order given by hashes of their names. Therefore a partial run is a fair sample, and
    interrupted or distributed runs give the same labels.

    Args:
        photos: image files below `root`.
        root: folder to which their names are relative.
        out: label folder; created if missing. Its `labels.json` records the settings.
        weights: weights of the detector; None: the built-in ones.
        config: settings.
        seed: seed of the random homographies.
        processes: number of processes that label; the cores are divided among them.
        device: torch device, `cpu` or `cuda`.
        shard: (i, n): label shard i of n, from 0; for several machines.
        overwrite: label again; if `out` was made with other settings, remove its labels.
        progress: called with the number of finished photographs and of all in this shard.

    Raises:
        DatasetError: a photograph is not below `root`, or `out` was made with other settings or
            weights.
        OutputError: `out` cannot be written to, or a process died.
        WeightsError: the weights cannot be read.
    """
    index, count = shard
    if not 0 <= index < count or processes < 1:
        raise ValueError(
            f"expected 0 <= i < n in shard and processes >= 1, found {shard} and {processes}"
        )
    names = {relative_name(photo, root): photo for photo in photos}
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[index::count]
    settings = _settings(load_superpoint(weights), config, seed, device)
    _prepare_folder(out, settings, overwrite)

    job = _Job(out, weights, config, seed, device)
    counts = _Counts(len(ordered), config.size, progress)
    todo = [name for name in ordered if overwrite or not counts.skip(out / f"{name}.npz")]
    tasks = [(name, names[name]) for name in todo]
    processes = min(processes, len(tasks))
    for name, result in _in_processes(job, tasks, processes) if processes > 1 else job.run(tasks):
        counts.add(name, result)
    return counts.summary()


@dataclass(frozen=True)
class _Unreadable:
    reason: str


@dataclass(frozen=True)
class _Job:
    """Settings of all labelling processes."""

    out: Path
    weights: Path | None
    config: LabelConfig
    seed: int
    device: str

    def run(self, tasks: list[tuple[str, Path]]) -> Iterator[tuple[str, int | _Unreadable]]:
        """Label photographs by name and path; yield the number of labels of each."""
        network = load_superpoint(self.weights).to(self.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.strip_rows = _STRIP_ROWS if torch.device(self.device).type == "cpu" else 0
        for name, photo in tasks:
            try:
                image = fit_image(read_photo(photo), self.config.size)
            except DatasetError as error:
                yield name, _Unreadable(str(error))
                continue
            generator = torch.Generator().manual_seed(_name_seed(name, self.seed))
            labels = find_labels(
                adapt(network, image, self.config, generator, self.device), self.config
            )
            path = self.out / f"{name}.npz"
            _make_folder(path.parent)
            write_labels(path, labels, self.config.size)
            yield name, len(labels.scores)


class _Counts:
    """Counts the results of photographs."""

    def __init__(self, total: int, size: tuple[int, int], progress: Progress | None) -> None:
        self._total, self._size, self._progress = total, size, progress
        self._done = self._skipped = self._unreadable = self._labels = 0

    def skip(self, path: Path) -> bool:
        """Return whether a complete label file exists; if so, count its labels."""
        if not path.is_file():
            return False
        try:
            self._labels += len(read_labels(path, self._size).scores)
        except DatasetError as error:
            logger.warning("%s", error)
            return False
        self._skipped += 1
        self._tell()
        return True

    def add(self, name: str, result: int | _Unreadable) -> None:
        if isinstance(result, _Unreadable):
            logger.warning("no labels for %s: %s", name, result.reason)
            self._unreadable += 1
        else:
            self._done += 1
            self._labels += result
        self._tell()

    def summary(self) -> LabelSummary:
        labelled = self._done + self._skipped
        return LabelSummary(
            self._done, self._skipped, self._unreadable, self._labels / max(labelled, 1)
        )

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self._done + self._skipped + self._unreadable, self._total)


def _name_seed(name: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _settings(network: SuperPoint, config: LabelConfig, seed: int, device: str) -> dict[str, Any]:
    """Return the settings that determine the labels."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} ".encode())
        digest.update(value.numpy().tobytes())
    values = config.model_dump(mode="json")
    # The batch size only changes the speed.
    del values["batch"]
    # Record the resolved precision: machines that share the work must use the same.
    values["precision"] = resolve_precision(device, config.precision)
    return {
        "version": FORMAT_VERSION,
        "weights_sha256": digest.hexdigest(),
        "seed": seed,
        "config": values,
    }


def _prepare_folder(out: Path, settings: dict[str, Any], overwrite: bool) -> None:
    """Prepare `out` as a label folder of these settings.

    Raises:
        DatasetError: it has other settings and must not be overwritten, or it holds foreign files.
        OutputError: it cannot be created.
    """
    path = out / _SETTINGS_NAME
    # Look for labels first: another shard may be creating the folder, with its settings before
    # labels.
    has_labels = next(out.rglob("*.npz"), None) is not None
    found = _read_settings(path)
    if found == settings:
        return
    if found is None and has_labels:
        raise DatasetError(
            f"{out} holds .npz files but no {_SETTINGS_NAME}: give another folder for the labels"
        )
    if found is not None and not overwrite:
        raise DatasetError(
            f"{out} holds labels of other settings ({', '.join(_differences(found, settings))}): "
            "give another folder, or overwrite it"
        )
    _make_folder(out)
    # Remove old labels before writing new settings: if killed in between, the folder stays
    # consistent.
    for old in out.rglob("*.npz") if found is not None else ():
        old.unlink(missing_ok=True)
    write_atomic(path, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _read_settings(path: Path) -> dict[str, Any] | None:
    try:
        found = parse_json(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _differences(found: dict[str, Any], expected: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the paths of the keys whose values differ."""
    names: list[str] = []
    for key in sorted({*found, *expected}):
        one, other = found.get(key), expected.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            names += _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            names.append(f"{prefix}{key}")
    return names


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create the folder {path}: {error.strerror or error}") from None


def _in_processes(
    job: _Job, tasks: list[tuple[str, Path]], processes: int
) -> Iterator[tuple[str, int | _Unreadable]]:
    """Run the job in several processes; yield as `_Job.run`."""
    threads = max(usable_cores() // processes, 1)
    with _started(job, tasks, processes, threads) as (workers, readers):
        running = dict(zip(readers, workers, strict=True))
        while running:
            for reader in wait(list(running)):
                assert isinstance(reader, Connection)
                try:
                    message = reader.recv()
                except EOFError:
                    worker = running.pop(reader)
                    worker.join()
                    if worker.exitcode != 0:
                        raise OutputError(
                            f"a labelling process ended with exit code {worker.exitcode}: see its "
                            "output above; if memory ran out, use fewer processes. Start again: "
                            "finished labels are kept"
                        ) from None
                    continue
                if isinstance(message, SpslamError):
                    raise message
                yield message


@contextmanager
def _started(
    job: _Job, tasks: list[tuple[str, Path]], processes: int, threads: int
) -> Iterator[tuple[list[SpawnProcess], list[Connection]]]:
    # Not fork: it does not work with torch's threads and CUDA.
    context = multiprocessing.get_context("spawn")
    workers: list[SpawnProcess] = []
    readers: list[Connection] = []
    try:
        for first in range(processes):
            reader, writer = context.Pipe(duplex=False)
            worker = context.Process(
                target=_work, args=(job, tasks[first::processes], threads, writer), daemon=True
            )
            with children_spared():
                worker.start()
            # Keep only the worker's end open, so that each process notices the end of the other.
            writer.close()
            workers.append(worker)
            readers.append(reader)
        yield workers, readers
    finally:
        for worker in workers:
            worker.terminate()
        for worker, reader in zip(workers, readers, strict=True):
            worker.join()
            reader.close()


def _work(job: _Job, tasks: list[tuple[str, Path]], threads: int, results: Connection) -> None:
    torch.set_num_threads(threads)
    # Stop writing when the parent process is killed.
    end_with_parent()
    try:
        for message in job.run(tasks):
            results.send(message)
    except SpslamError as error:
        results.send(error)
    except (BrokenPipeError, KeyboardInterrupt):
        # The parent process ended or is stopping.
        pass
