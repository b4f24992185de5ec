"""`spslam match`: match pairs of images by several processes, and continue later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam import __version__
from spslam.callbacks import never
from spslam.config import MatchingConfig
from spslam.errors import ConfigError, FeatureFileError, WeightsError, WorkerError
from spslam.features.cameras import CameraChoice
from spslam.features.colmap import (
    Database,
    add_features,
    add_matches,
    check_cameras,
    open_database,
)
from spslam.features.files import DATABASE_SUFFIXES, check_output, differences
from spslam.features.h5 import (
    LARGEST_INT16,
    MATCHES_FORMAT,
    FeatureFile,
    PairMatches,
    StoredFeatures,
    match_names,
    matched_counts,
    open_features,
    pair_name,
    write_matches_file,
)
from spslam.features.journal import Journal
from spslam.features.pairs import Pair, check_pair_names, unit
from spslam.frame import KeypointView
from spslam.interfaces import Matcher, WideStage
from spslam.io.files import PartFile
from spslam.notices import notice
from spslam.process.workers import Crashed, core_count, in_order

_LOG = logging.getLogger(__name__)
# Pairs that a process matches at a time.
_PAIRS_AT_A_TIME = 16
# Images whose features a process keeps in memory: about 0.5 MB each.
_KEPT_IMAGES = 200
# Distance of a verified match from its epipolar line, standard deviations of a position.
_LINE_SIGMAS = 3.0
# Standard deviation where a file does not give it, pixels.
_USUAL_SIGMA = 1.0
# Least number of matches, and of verified matches, of a verified pair. Source: COLMAP's
# `TwoViewGeometryOptions.min_num_inliers`.
_LEAST_INLIERS = 15
_CONFIDENCE, _MOST_TRIALS = 0.9999, 10_000

Source = FeatureFile | Database


@dataclass(frozen=True)
class MatchSettings:
    """How pairs are matched.

    Attributes:
        max_descriptor_distance: maximum L2 distance of a match; None: as the file says.
        ratio: maximum ratio of the nearest to the second-nearest distance; None: no test.
        verify: count the matches that agree with an epipolar geometry.
        workers: number of processes; None: one for each core.
        cameras: cameras of a new COLMAP database.
        matching: a learned matcher, which needs neither distance nor ratio.
    """

    max_descriptor_distance: float | None = None
    ratio: float | None = None
    verify: bool = False
    workers: int | None = None
    cameras: CameraChoice = field(default_factory=CameraChoice)
    matching: MatchingConfig = field(default_factory=MatchingConfig)


@dataclass
class MatchSummary:
    """Result of `match_pairs`.

    Attributes:
        done: number of pairs matched now.
        present: number of pairs that were matched before.
        matches: number of matches of the pairs matched now.
        verified: number of pairs matched now that agree with an epipolar geometry; None: not
            counted.
        inliers: number of their matches that agree with it.
        stopped: the command was stopped; the results are in the journal.
        journal: file of partial results, if it is kept.
    """

    done: int = 0
    present: int = 0
    matches: int = 0
    verified: int | None = None
    inliers: int = 0
    stopped: bool = False
    journal: Path | None = None


@dataclass(frozen=True, eq=False)
class Matched:
    """Matches of a pair, and how many agree with an epipolar geometry."""

    pair: PairMatches
    inliers: int


def open_source(path: Path) -> AbstractContextManager[Source]:
    """Open a file of features or a COLMAP database for reading.

    Raises:
        FeatureFileError: it is missing or damaged.
        MissingDependencyError: h5py is not installed.
    """
    if path.suffix.lower() in DATABASE_SUFFIXES:
        return open_database(path)
    return open_features(path)


def match_pairs(
    source: Path,
    pairs: Sequence[Pair],
    out: Path,
    settings: MatchSettings,
    progress: Callable[[int, int], None] | None = None,
    stopped: Callable[[], bool] = never,
) -> MatchSummary:
    """Match pairs of images, and write the matches as an HDF5 file or into a COLMAP database.

    Pairs that the file has already are not matched again; if they were matched with other settings,
    the file is refused. If the work ends early, finished results stay in `OUT.partial`.

    Args:
        source: file of features, or a COLMAP database of `spslam features`.
        pairs: names of two images each.
        out: .h5 or .hdf5 for HDF5; .db for COLMAP, which may be the source itself.
        settings: the settings.
        progress: called with the number of pairs that are done, and of all.
        stopped: called now and then; True ends the work.

    Raises:
        ConfigError: the output has another suffix, or settings exclude each other.
        WeightsError: the learned matcher cannot be used, or belongs to other weights.
        FeatureFileError: a file is damaged, foreign, or of other settings.
        MissingDependencyError: an optional package is missing.
        OutputError: the file cannot be written.
    """
    is_database = check_output(out)
    with open_source(source) as opened:
        distance, description, matching = _matcher_of(opened, settings)
        header = _header(opened.attributes, distance, settings, description)
        identity = str(opened.attributes.get("extractor_identity", ""))
        counts = opened.counts() if isinstance(opened, Database) else None
    if out.exists() and not is_database and out.samefile(source):
        raise ConfigError(f"{out} holds the features: give another file for the matches")
    if is_database:
        present = _present_in_database(source, out, header, settings, counts)
    else:
        check_pair_names(pairs)
        present = _present_in_file(out, header)
        _check_counts(source, out, pairs, present)
    name_of = _key if is_database else _file_name
    journal = Journal(out, header)
    try:
        todo = [
            pair
            for pair in pairs
            if not {name_of(pair), name_of(pair[::-1])} & present
            and not (_key(pair) in journal or _key(pair[::-1]) in journal)
        ]
        summary = MatchSummary(present=len(pairs) - len(todo))
        summary.verified = 0 if settings.verify else None
        job = MatchJob(source, distance, settings.ratio, settings.verify, matching, identity)
        _match(job, todo, journal, summary, settings, progress, len(pairs), stopped)
        if len(journal) and not summary.stopped:
            kept = (_from_journal(journal, name) for name in journal.in_order(map(_key, pairs)))
            new = (one for one in kept if name_of((one.name0, one.name1)) not in present)
            _publish(out, header, new, is_database)
            journal.remove()
    finally:
        journal.discard_if_empty()
        journal.close()
    if journal.path.exists():
        summary.journal = journal.path
    return summary


@dataclass(frozen=True)
class MatchJob:
    """Settings of all processes that match.

    Attributes:
        source: file of features, or COLMAP database.
        max_descriptor_distance: maximum L2 distance of a match.
        ratio: maximum ratio of the nearest to the second-nearest distance; None: no test.
        verify: count the matches that agree with an epipolar geometry.
        matching: the learned matcher, with the path of its weights; off: nearest neighbours.
        extractor: identity of the extractor of the features.
    """

    source: Path
    max_descriptor_distance: float
    ratio: float | None
    verify: bool
    matching: MatchingConfig
    extractor: str

    @contextmanager
    def start(self) -> Iterator[Callable[[Sequence[Pair]], list[Matched]]]:
        """Open the file; the block gets the function that matches several pairs."""
        with open_source(self.source) as source:
            yield _PairMatcher(self, source, _create_matcher(self.matching, self.extractor)).match


class _PairMatcher:
    """Matches pairs of an open file."""

    def __init__(self, job: MatchJob, source: Source, matcher: Matcher) -> None:
        self._job, self._source, self._matcher = job, source, matcher
        self._read = lru_cache(maxsize=_KEPT_IMAGES)(self._read_unit)

    def match(self, pairs: Sequence[Pair]) -> list[Matched]:
        return [self._match(pair, self._read(pair[0]), self._read(pair[1])) for pair in pairs]

    def _read_unit(self, name: str) -> StoredFeatures:
        found = self._source.read(name)
        return replace(found, descriptors=unit(found.descriptors))

    def _match(self, pair: Pair, first: StoredFeatures, second: StoredFeatures) -> Matched:
        if len(first) and len(second) and first.descriptors.shape[1] != second.descriptors.shape[1]:
            raise FeatureFileError(
                f"{pair[0]} has descriptors of {first.descriptors.shape[1]} numbers, {pair[1]} of "
                f"{second.descriptors.shape[1]}: extract both with the same extractor"
            )
        job = self._job
        matched = self._matcher.match_views(
            _view(first), _view(second), job.max_descriptor_distance, job.ratio,
            stage=WideStage.FILES,
        )  # fmt: skip
        rows = np.flatnonzero(matched.matches0 >= 0)
        columns = matched.matches0[rows]
        if matched.probability is None:
            # hloc's score of a nearest neighbour.
            cosine = np.einsum("ij,ij->i", first.descriptors[rows], second.descriptors[columns])
            scores = (cosine + 1) / 2
        else:
            scores = matched.probability[rows]
        found = PairMatches(
            *pair,
            len(first),
            np.stack([rows, columns], axis=1).astype(np.int32),
            scores.astype(np.float16),
            max(len(first), len(second)) > LARGEST_INT16,
        )
        inliers = _verified(first, second, rows, columns) if job.verify else 0
        return Matched(found, inliers)


def _verified(
    first: StoredFeatures, second: StoredFeatures, rows: NDArray[Any], columns: NDArray[Any]
) -> int:
    """Count the matches that agree with one fundamental matrix; 0 if they are too few."""
    if len(rows) < _LEAST_INLIERS:
        return 0
    sigma = np.nanmax([first.pixel_sigma, second.pixel_sigma, 0.0]) or _USUAL_SIGMA
    try:
        _, mask = cv2.findFundamentalMat(
            first.keypoints[rows],
            second.keypoints[columns],
            cv2.USAC_MAGSAC,
            _LINE_SIGMAS * float(sigma),
            _CONFIDENCE,
            _MOST_TRIALS,
        )
    except cv2.error:
        return 0
    count = 0 if mask is None else int(np.count_nonzero(mask))
    return count if count >= _LEAST_INLIERS else 0


# -- details --------------------------------------------------------------------------------------


def _view(features: StoredFeatures) -> KeypointView:
    return KeypointView(features.keypoints, features.descriptors, features.image_size)


def _create_matcher(matching: MatchingConfig, extractor: str) -> Matcher:
    """Create the matcher of features; PyTorch is imported only for a learned one."""
    if matching.learned == "off":
        from spslam.frontend.matching.matching import DescriptorMatcher

        return DescriptorMatcher()
    from spslam.frontend.learned_matching.matcher import create_matcher

    # One thread for each process, and the same matches for any number of processes.
    threads = matching.threads or 1
    return create_matcher(matching.model_copy(update={"threads": threads}), extractor)


def _matcher_of(source: Source, settings: MatchSettings) -> tuple[float, str, MatchingConfig]:
    """Choose the matcher of a file of features.

    Returns:
        The maximum distance of a match, the description of the matcher, and the settings with which
        a process creates it.
    """
    matching, attributes = settings.matching, source.attributes
    extractor = str(attributes.get("extractor_identity", ""))
    if matching.learned != "off" and matching.weights is None:
        beside = _matcher_beside(attributes)
        if beside is not None:
            matching = matching.model_copy(update={"weights": str(beside)})
    matcher = _create_matcher(matching, extractor)
    if matcher.learned_pairs is None:
        return _distance(source, settings), matcher.description, MatchingConfig()
    if settings.ratio is not None or settings.max_descriptor_distance is not None:
        raise ConfigError(
            "the maximum distance and the ratio are of nearest neighbours: leave them out, or use "
            "matching.learned=off"
        )
    return source.max_descriptor_distance or 0.0, matcher.description, matching


def _matcher_beside(attributes: Mapping[str, Any]) -> Path | None:
    """Return the file of a matcher beside the weights of features, if there is one."""
    if attributes.get("extractor") != "superpoint":
        return None
    from spslam.frontend.learned_matching.card import matcher_beside
    from spslam.frontend.superpoint.checkpoints import find_weights

    try:
        path = matcher_beside(find_weights(attributes.get("weights") or None))
    except WeightsError:
        return None
    return path if path.is_file() else None


def _distance(source: Source, settings: MatchSettings) -> float:
    distance = settings.max_descriptor_distance or source.max_descriptor_distance
    if distance is None:
        raise FeatureFileError(
            f"{source.path} does not say how far matching descriptors may be apart, because it is "
            "of another program: give --max-distance (0.7 is usual for SuperPoint)"
        )
    return distance


def _header(
    attributes: Mapping[str, Any], distance: float, settings: MatchSettings, matcher: str
) -> dict[str, Any]:
    return {
        "format": MATCHES_FORMAT,
        "spslam_version": __version__,
        "extractor_identity": str(attributes.get("extractor_identity", "")),
        # With other settings of the features, the same index is another keypoint.
        "engine": str(attributes.get("engine", "")),
        "settings": dict(attributes.get("settings", {})),
        "matcher": matcher,
        "max_descriptor_distance": distance,
        "ratio": 0.0 if settings.ratio is None else settings.ratio,
    }


def _present_in_file(out: Path, header: Mapping[str, Any]) -> set[str]:
    if not out.exists():
        return set()
    found, present = match_names(out)
    _check_header(out, found, header)
    return present


def _check_counts(source: Path, out: Path, pairs: Sequence[Pair], present: set[str]) -> None:
    """Check the numbers of keypoints that a file of matches was made for.

    The file has the number of the first image of each pair; one pair of each image is checked.

    Raises:
        FeatureFileError: an image has another number of keypoints now.
    """
    one_each = {
        pair[0]: pair
        for given in pairs
        for pair in (given, given[::-1])
        if _file_name(pair) in present
    }
    if not one_each:
        return
    names = {name: _file_name(pair) for name, pair in one_each.items()}
    with open_source(source) as opened:
        counts = opened.counts()
    for name, before in matched_counts(out, names).items():
        if before != counts[name]:
            raise FeatureFileError(
                f"{out} holds matches of other features: {before} keypoints of {name}, {source} "
                f"has {counts[name]}: give another file, or remove it"
            )


def _present_in_database(
    source: Path,
    out: Path,
    header: Mapping[str, Any],
    settings: MatchSettings,
    counts: Mapping[str, int] | None,
) -> set[str]:
    """Return the keys of the pairs that a database has; create it if it is missing."""
    if not out.exists():
        with open_source(source) as opened:
            images = ((name, opened.read(name)) for name in opened.names)
            add_features(out, opened.attributes, images, settings.cameras)
        return set()
    check_cameras(out, settings.cameras)
    with open_database(out) as database:
        found = database.attributes.get("matches")
        if found is not None:
            _check_header(out, found, header)
        present = database.pairs()
        there = database.counts()
    if counts is None:
        with open_features(source) as features:
            counts = features.counts()
    other = next((name for name, count in counts.items() if there.get(name) != count), None)
    if other is not None:
        raise FeatureFileError(
            f"{out} has {there.get(other, 'no')} keypoints of {other}, {source} has "
            f"{counts[other]}: give another database"
        )
    if present and found is None:
        raise FeatureFileError(
            f"{out} holds matches of another program: give a database without matches"
        )
    return {_key(pair) for pair in present}


def _check_header(out: Path, found: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    if found.get("format") != MATCHES_FORMAT:
        raise FeatureFileError(
            f"{out} was not written by this command of spslam: give another file"
        )
    differing = differences(found, header, header)
    if differing:
        raise FeatureFileError(
            f"{out} holds matches of another extractor or other settings ({'; '.join(differing)}): "
            "give another file, or remove it"
        )


def _match(
    job: MatchJob,
    todo: list[Pair],
    journal: Journal,
    summary: MatchSummary,
    settings: MatchSettings,
    progress: Callable[[int, int], None] | None,
    total: int,
    stopped: Callable[[], bool],
) -> None:
    tasks = [
        todo[start : start + _PAIRS_AT_A_TIME] for start in range(0, len(todo), _PAIRS_AT_A_TIME)
    ]
    if not tasks:
        return
    workers = max(min(settings.workers or core_count(), len(tasks)), 1)
    wide = False
    with closing(in_order(job, tasks, workers)) as results:
        for task, result in zip(tasks, results, strict=False):
            if isinstance(result, Crashed):
                raise WorkerError(
                    f"matching {' '.join(task[0])} and the next pairs failed: {result.reason}; "
                    "what was finished is kept"
                )
            for one in result:
                journal.append(_key((one.pair.name0, one.pair.name1)), _arrays(one.pair))
                summary.done += 1
                summary.matches += len(one.pair.matches)
                wide = wide or one.pair.wide
                if summary.verified is not None and one.inliers:
                    summary.verified += 1
                    summary.inliers += one.inliers
            if progress is not None:
                progress(summary.present + summary.done, total)
            if stopped():
                summary.stopped = True
                break
    if wide:
        text = "images have more than %d keypoints: their matches0 are int32, which hloc reads, too"
        notice(_LOG, "wide_matches", text, LARGEST_INT16)


def _key(pair: Pair) -> str:
    # No name of an image contains a line break.
    return "\n".join(pair)


def _file_name(pair: Pair) -> str:
    return pair_name(*pair)


def _arrays(pair: PairMatches) -> dict[str, NDArray[Any]]:
    return {
        "matches": pair.matches,
        "scores": pair.scores,
        "count0": np.array(pair.count0),
        "wide": np.array(pair.wide),
    }


def _from_journal(journal: Journal, name: str) -> PairMatches:
    arrays = journal.read(name)
    name0, name1 = name.split("\n")
    return PairMatches(
        name0,
        name1,
        int(arrays["count0"]),
        arrays["matches"],
        arrays["scores"],
        bool(arrays["wide"]),
    )


def _publish(
    out: Path,
    header: Mapping[str, Any],
    pairs: Iterator[PairMatches],
    is_database: bool,
) -> None:
    if is_database:
        found = ((pair.name0, pair.name1, pair.matches) for pair in pairs)
        add_matches(out, {"matches": dict(header)}, found)
        return
    part = PartFile(out)
    try:
        write_matches_file(part.path, header, pairs, out if out.exists() else None)
        part.publish()
    finally:
        part.discard()
