"""`spslam features`: extract features of many images by several processes, and continue later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spslam import __version__
from spslam.callbacks import never
from spslam.config import FeatureConfig
from spslam.errors import ConfigError, FeatureFileError
from spslam.features.cameras import CameraChoice
from spslam.features.extraction import (
    Extracted,
    ExtractionJob,
    ImageTask,
    Unreadable,
    on_cluster,
)
from spslam.features.h5 import (
    FEATURES_FORMAT,
    SUFFIXES,
    FeatureFile,
    StoredFeatures,
    check_h5py,
    open_features,
    write_features_file,
)
from spslam.features.image_list import ImageList
from spslam.features.journal import Journal, journal_path
from spslam.io.files import PartFile
from spslam.notices import notice
from spslam.process.cluster import Cluster
from spslam.process.workers import Crashed, core_count, in_order

if TYPE_CHECKING:
    from spslam.datasets.images.grey_levels import GreyScaling
    from spslam.features.masks import ChosenMasks

_LOG = logging.getLogger(__name__)
DATABASE_SUFFIXES = (".db",)
COORDINATE_ORIGIN = "(0, 0) is the centre of the first pixel"
# Attributes that must be equal for results to be comparable.
_DECISIVE = ("extractor_identity", "engine", "spslam_version", "settings")
# Settings that do not change features, or that the extractor's identity and engine contain.
_WITHOUT_EFFECT = {"weights", "device", "engine", "precision", "threads", "max_concurrency"}
# Images that are submitted to each worker of a cluster at a time.
_PER_WORKER = 4
# Unreadable images that are named one by one.
_NAMED = 5
# Value of `mask` that finds the mask.
_AUTO = "auto"

Progress = Callable[[int, int], None]
_Results = Generator[Extracted | Unreadable | Crashed]


@dataclass(frozen=True)
class ExtractionSettings:
    """What `extract_features` computes, and how.

    Attributes:
        config: the front end.
        max_size: larger images are reduced to this many pixels on their longer side; None: never.
        full_precision: scores and descriptors are float32 instead of float16 (HDF5 files only).
        workers: number of processes; None: one for each core, or one for a GPU.
        scheduler: address of the scheduler of a Dask cluster, instead of processes.
        cameras: cameras of a COLMAP database.
        mask: mask image or folder of masks, or `auto`: what is fixed to the camera is found; None:
            whole images are used.
    """

    config: FeatureConfig
    max_size: int | None = None
    full_precision: bool = False
    workers: int | None = None
    scheduler: str | None = None
    cameras: CameraChoice = field(default_factory=CameraChoice)
    mask: str | None = None


@dataclass
class ExtractionSummary:
    """Result of `extract_features`.

    Attributes:
        done: number of images processed now.
        present: number of images that were processed before.
        unreadable: name -> reason of each image that has no features.
        keypoints: number of keypoints of the images processed now.
        masked: masked fraction of each image processed now that has a mask.
        stopped: the command was stopped; the results are in the journal.
        journal: file of partial results, if it is kept.
    """

    done: int = 0
    present: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    keypoints: int = 0
    masked: list[float] = field(default_factory=list)
    stopped: bool = False
    journal: Path | None = None


def extract_features(
    images: ImageList,
    out: Path,
    settings: ExtractionSettings,
    progress: Progress | None = None,
    stopped: Callable[[], bool] = never,
) -> ExtractionSummary:
    """Extract the features of images, and write them as an HDF5 file or a COLMAP database.

    Images that the file has already are not processed again; if the extractor or its settings
    differ, the file is refused. If the work ends early, finished results stay in
    `OUT.partial`, and the next call continues. The bytes of the file depend neither on that nor
    on the number of processes.

    Args:
        images: the images.
        out: the file: .h5 or .hdf5 for HDF5, .db for COLMAP.
        settings: the settings.
        progress: called with the number of images that are done, and of all.
        stopped: called after each image; True ends the work.

    Raises:
        ConfigError: the file has another suffix, or settings contradict each other.
        DatasetError: there are no masks, or they do not fit.
        FeatureFileError: the file is of another extractor or other settings, or is damaged.
        MissingDependencyError: an optional package is missing.
        OutputError: the file cannot be written.
        WeightsError: the weights cannot be used.
    """
    is_database = check_output(out)
    if is_database:
        settings = replace(settings, full_precision=True)
    if settings.scheduler is not None and settings.workers is not None:
        raise ConfigError(
            "--workers is for this machine and --scheduler for a Dask cluster: drop one of the two"
        )
    header, job = _prepare(images, out, settings, is_database)
    present = _present(out, header, is_database, settings.cameras)
    journal = Journal(out, header)
    try:
        todo = [name for name in images.names if name not in present and name not in journal]
        summary = ExtractionSummary(present=len(images.names) - len(todo))
        _extract(todo, images, job, settings, journal, summary, progress, stopped)
        new = [name for name in journal.in_order(images.names) if name not in present]
        if new and not summary.stopped:
            _publish(out, header, journal, new, settings, is_database)
            journal.remove()
    finally:
        journal.discard_if_empty()
        journal.close()
    if journal.path.exists():
        summary.journal = journal.path
    return summary


def check_output(path: Path) -> bool:
    """Return whether an output is a COLMAP database, by its suffix; otherwise it is HDF5.

    Raises:
        ConfigError: it has another suffix.
        MissingDependencyError: the package that writes it is not installed.
    """
    if path.suffix.lower() in DATABASE_SUFFIXES:
        from spslam.features.colmap import check_pycolmap

        check_pycolmap()
        return True
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"expected a name that ends with {', '.join((*SUFFIXES, *DATABASE_SUFFIXES))} "
            f"(COLMAP), found {path}"
        )
    check_h5py()
    return False


def check_same(path: Path, found: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    """Check that a file was made with the same extractor and settings.

    Args:
        path: the file.
        found: its attributes.
        header: the attributes of this call.

    Raises:
        FeatureFileError: it was not.
    """
    if found.get("format") != header["format"]:
        raise FeatureFileError(
            f"{path} was not written by this command of spslam: give another file"
        )
    differing = differences(found, header, _DECISIVE)
    if differing:
        raise FeatureFileError(
            f"{path} was made with another extractor or other settings ({'; '.join(differing)}): "
            "give another file, or remove it"
        )


def differences(
    found: Mapping[str, Any], expected: Mapping[str, Any], keys: Iterable[str]
) -> list[str]:
    """Return in words which attributes differ, for example `ratio 0.0, now 0.8`."""
    return [
        f"{where} {_shown(old)}, now {_shown(new)}"
        for key in keys
        for where, old, new in _differences(key, found.get(key), expected.get(key))
    ]


def _differences(where: str, found: Any, expected: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted({*found, *expected}):
            yield from _differences(f"{where}.{key}", found.get(key), expected.get(key))
    elif found != expected:
        yield where.removeprefix("settings."), found, expected


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)[:60]


def _prepare(
    images: ImageList, out: Path, settings: ExtractionSettings, is_database: bool
) -> tuple[dict[str, Any], ExtractionJob]:
    """Return the attributes of the file, and the job."""
    from spslam.datasets.images.grey_levels import GreyScaling
    from spslam.frontend.extractors.registry import create_extractor

    config = _single(settings.config)
    extractor = create_extractor(config)
    black, white = _grey_range(images, out, is_database)
    chosen = {
        "features": config.model_dump(mode="json", exclude=_WITHOUT_EFFECT),
        "max_size": settings.max_size,
        "precision": "float32" if settings.full_precision else "float16",
        "grey_range": [black, white],
    }
    masks = _masks(images, out, settings, GreyScaling(black, white))
    if masks is not None:
        chosen["mask"] = masks.digest
    header = {
        "format": FEATURES_FORMAT,
        "spslam_version": __version__,
        "extractor": extractor.name,
        "extractor_identity": extractor.identity,
        "engine": extractor.engine,
        "max_descriptor_distance": float(extractor.max_descriptor_distance),
        "coordinate_origin": COORDINATE_ORIGIN,
        "weights": settings.config.weights or "",
        "settings": chosen,
    }
    job = ExtractionJob(
        config.model_dump_json(),
        settings.max_size,
        black,
        white,
        (__version__, extractor.identity, extractor.engine),
        settings.scheduler is not None,
        None if masks is None else masks.place,
    )
    return header, job


def _masks(
    images: ImageList, out: Path, settings: ExtractionSettings, scaling: GreyScaling
) -> ChosenMasks | None:
    """Return the masks; `auto` looks for one unless it continues an earlier call."""
    from spslam.features.masks import auto_mask_file, choose_masks, find_mask

    if settings.mask is None:
        return None
    if settings.mask != _AUTO:
        return choose_masks(Path(settings.mask), images)
    file = auto_mask_file(out)
    begun = out.exists() or journal_path(out).exists()
    if not (begun and file.exists()) and not find_mask(
        images, scaling, settings.cameras.calibrated, file
    ):
        # A file of an earlier call would look like the mask of this one.
        file.unlink(missing_ok=True)
        return None
    return choose_masks(file, images)


def _single(config: FeatureConfig) -> FeatureConfig:
    """Let the network use one thread, unless the user chose: each process has one core."""
    return config.model_copy(update={"threads": config.threads or 1, "max_concurrency": 1})


def _grey_range(images: ImageList, out: Path, is_database: bool) -> tuple[int, int]:
    """Return the range of 16-bit images: that of the file, or of a sample of the images."""
    from spslam.datasets.images.grey_levels import GreyReader

    found = _attributes(out, is_database).get("settings") if out.exists() else None
    if isinstance(found, dict) and len(found.get("grey_range", ())) == 2:
        black, white = found["grey_range"]
        return int(black), int(white)
    scaling = GreyReader(str(images.root), [images.path(name) for name in images.names]).scaling()
    return scaling.black, scaling.white


def _attributes(out: Path, is_database: bool) -> dict[str, Any]:
    if is_database:
        from spslam.features.colmap import open_database

        with open_database(out) as database:
            return database.attributes
    with open_features(out) as file:
        return file.attributes


def _present(
    out: Path, header: Mapping[str, Any], is_database: bool, cameras: CameraChoice
) -> set[str]:
    """Return the names of the images that the file has.

    Raises:
        CalibrationError: the calibration does not fit an image of the database.
        FeatureFileError: the file was made with another extractor, other settings or cameras.
    """
    if not out.exists():
        return set()
    if is_database:
        from spslam.features.colmap import check_cameras, open_database

        with open_database(out) as database:
            check_same(out, database.attributes, header)
            names = set(database.names)
        check_cameras(out, cameras)
        return names
    with open_features(out) as file:
        check_same(out, file.attributes, header)
        return set(file.names)


def _extract(
    todo: list[str],
    images: ImageList,
    job: ExtractionJob,
    settings: ExtractionSettings,
    journal: Journal,
    summary: ExtractionSummary,
    progress: Progress | None,
    stopped: Callable[[], bool],
) -> None:
    """Process images, and add the results to the journal."""
    tagged: list[tuple[str, int]] = []
    total = len(images.names)
    half = not settings.full_precision
    dimension: int | None = None
    with closing(_results(todo, images, job, settings)) as results:
        for name, result in zip(todo, results, strict=False):
            if isinstance(result, Extracted):
                dimension = _same_dimension(name, result.features, dimension)
                journal.append(name, _arrays(result.features, half))
                summary.done += 1
                summary.keypoints += len(result.features)
                if result.masked is not None:
                    summary.masked.append(result.masked)
                if result.orientation != 1:
                    tagged.append((name, result.orientation))
            else:
                summary.unreadable[name] = result.reason
                _name_unreadable(len(summary.unreadable), name, result.reason)
            if progress is not None:
                progress(summary.present + summary.done + len(summary.unreadable), total)
            if stopped():
                summary.stopped = True
                break
    if tagged:
        text = (
            "%d images have an orientation tag (%s: %d), which is ignored: pixels are used as the "
            "sensor stored them"
        )
        notice(_LOG, "orientation_tag", text, len(tagged), *tagged[0], count=len(tagged))


def _name_unreadable(count: int, name: str, reason: str) -> None:
    if count <= _NAMED:
        notice(_LOG, "unreadable_images", "%s is left out: %s", name, reason)
    elif count == _NAMED + 1:
        notice(_LOG, "unreadable_images", "further unreadable images are counted, not named")


def _same_dimension(name: str, features: StoredFeatures, dimension: int | None) -> int:
    found = int(features.descriptors.shape[1])
    if dimension is not None and len(features) and found != dimension:
        raise FeatureFileError(
            f"{name}: expected descriptors of {dimension} numbers as of the other images, found "
            f"{found}: repair the extractor"
        )
    return found if len(features) else dimension or found


def _results(
    todo: list[str], images: ImageList, job: ExtractionJob, settings: ExtractionSettings
) -> _Results:
    # Absolute: workers of a cluster have other working folders.
    tasks = [ImageTask(name, images.path(name).absolute()) for name in todo]
    if settings.scheduler is not None:
        return _on_cluster(job, tasks, settings.scheduler)
    from spslam.frontend.engines.choice import runs_on_gpu

    # Several processes on one GPU would only divide its memory.
    workers = settings.workers or (1 if runs_on_gpu(settings.config) else core_count())
    return in_order(job, tasks, max(min(workers, len(tasks)), 1)) if tasks else _nothing()


def _nothing() -> _Results:
    yield from ()


def _on_cluster(job: ExtractionJob, tasks: list[ImageTask], scheduler: str) -> _Results:
    """Yield the results of a Dask cluster in the order of the tasks."""
    cluster = Cluster(scheduler)
    requests = [(index, job, task) for index, task in enumerate(tasks) if task.path.is_file()]
    missing = Unreadable("the file is missing")
    waiting: dict[int, Extracted | Unreadable | Crashed] = {
        index: missing for index, task in enumerate(tasks) if not task.path.is_file()
    }
    most = max(cluster.workers, 1) * _PER_WORKER
    finished = 0
    found = cluster.run(on_cluster, requests, lambda request: request[2].name, most)
    with closing(found):
        for request, result in found:
            if isinstance(result, BaseException):
                if type(result).__name__ != "KilledWorker":
                    raise result
                result = Crashed("it killed four workers")
            waiting[request[0]] = result
            while finished in waiting:
                yield waiting.pop(finished)
                finished += 1
    while finished in waiting:
        yield waiting.pop(finished)
        finished += 1


def _arrays(features: StoredFeatures, half: bool) -> dict[str, NDArray[Any]]:
    kind = np.float16 if half else np.float32
    return {
        "keypoints": features.keypoints,
        "scores": features.scores,
        "descriptors": features.descriptors.astype(kind),
        "image_size": np.array(features.image_size),
        "pixel_sigma": np.array(features.pixel_sigma),
    }


def _from_journal(journal: Journal, name: str) -> StoredFeatures:
    arrays = journal.read(name)
    return StoredFeatures(
        arrays["keypoints"],
        arrays["scores"],
        arrays["descriptors"].astype(np.float32),
        (int(arrays["image_size"][0]), int(arrays["image_size"][1])),
        float(arrays["pixel_sigma"]),
    )


def _publish(
    out: Path,
    header: Mapping[str, Any],
    journal: Journal,
    new: list[str],
    settings: ExtractionSettings,
    is_database: bool,
) -> None:
    """Write the file: earlier images first, then new ones in the order of their list."""
    images = ((name, _from_journal(journal, name)) for name in new)
    if is_database:
        from spslam.features.colmap import add_features

        add_features(out, header, images, settings.cameras)
        return
    part = PartFile(out)
    try:
        precision = np.float32 if settings.full_precision else np.float16
        if out.exists():
            with open_features(out) as before:
                everything = _all(before, images)
                write_features_file(part.path, header, everything, precision)
        else:
            write_features_file(part.path, header, images, precision)
        part.publish()
    finally:
        part.discard()


def _all(
    before: FeatureFile, images: Iterator[tuple[str, StoredFeatures]]
) -> Iterator[tuple[str, StoredFeatures]]:
    for name in before.names:
        yield name, before.read(name)
    yield from images
