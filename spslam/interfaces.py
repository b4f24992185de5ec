"""Protocols of the front end and the data sets, which plug-ins implement, too; all components.

The core imports no implementation; `factory.py` connects the two. Those of the back end are in
`spslam.backend_interfaces`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spslam.backend_interfaces import (
    BundleAdjuster,
    PlaceRecognizer,
    PoseGraphSolver,
    PoseSolver,
    TwoViewSolver,
)
from spslam.camera import Camera
from spslam.errors import ConfigError
from spslam.frame import Features, Frame, KeypointView, Sensor
from spslam.timestamps import TimeUnitChoice
from spslam.trajectory import Trajectory

# Reasons for which an image is left out of a sequence.
EQUAL_STAMP = "equal time stamp"
NO_STAMP = "no time stamp"
STEPPED_BACK = "clock stepped back"


@dataclass(frozen=True)
class LeftOut:
    """An image of a recording that is left out of the sequence.

    Attributes:
        stamp_s: time of the image, seconds; NaN if it has no time.
        reason: why it is left out, in a few words.
    """

    stamp_s: float
    reason: str


@runtime_checkable
class Sequence(Protocol):
    """The frames of one recording with their calibration.

    Iteration yields every `Frame` that can be decoded, in the order of time, and adds the others to
    `skipped`. Random access raises `FrameError` for a frame that cannot be decoded and `IndexError`
    past the end.

    Attributes:
        name: short name for reports, for example `kitti 00`.
        dataset: name of the reader, for example `kitti`; with `sensor` it selects the built-in
            configuration.
        sensor: kind of sensor of the frames.
        camera: camera of `Frame.image`, after rectification if there is any.
        source: the folder, file or built-in world of the recording.
        ground_truth: poses of the camera of `Frame.image`, or None.
        skipped: (index, reason) of each frame until now that could not be decoded.
        time_unit: unit of the recording's time stamps: a `TimeUnit`, `frames`, or `container` for
            the stamps of a video.
        left_out: images of the recording that are no frames, for example because of an equal stamp
            or a missing partner.
    """

    name: str
    dataset: str
    sensor: Sensor
    camera: Camera
    source: str
    ground_truth: Trajectory | None
    skipped: list[tuple[int, str]]
    time_unit: str
    left_out: list[LeftOut]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Frame: ...
    def __iter__(self) -> Iterator[Frame]: ...


@runtime_checkable
class LiveSource(Protocol):
    """A sequence whose frames come from a camera while it sees; only the newest frame is there.

    Its length is the number of frames until now, and it can be iterated once.

    Attributes:
        max_frames: number of images of the camera after which it ends; None: it ends with the
            camera.
        dropped: indices of the frames that a newer one replaced before they were taken.
        latency_from: what `Frame.captured_s` is: `capture`, or `arrival` where the camera does not
            tell when it took an image.
    """

    max_frames: int | None
    dropped: list[int]

    @property
    def latency_from(self) -> str:
        """See above."""
        ...

    def __iter__(self) -> Iterator[Frame]: ...

    def begin(self, stop: Callable[[], bool]) -> Frame | None:
        """Wait for a frame to prepare with, which does not count; None if `stop` became True."""
        ...

    def close(self) -> None:
        """Release the camera."""
        ...


@dataclass(frozen=True)
class Topics:
    """Topics of a bag that the user chose; None: found by their type and name.

    Attributes:
        image: the (left) images.
        right: the right images.
        depth: the depth images.
        truth: the poses of the ground truth.
    """

    image: str | None = None
    right: str | None = None
    depth: str | None = None
    truth: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """The topics that were chosen, by option."""
        values = {
            "--topic": self.image,
            "--right-topic": self.right,
            "--depth-topic": self.depth,
            "--truth-topic": self.truth,
        }
        return {option: name for option, name in values.items() if name is not None}


@dataclass(frozen=True)
class SequenceRequest:
    """The user's choices for opening a recording.

    Attributes:
        sequence: which sequence, if a path holds several: its name or a unique part of its name.
        sensor: `mono`, `stereo`, `rgbd`, or `auto` for the most that the recording offers.
        calibration: path of a calibration file; None: the recording's own.
        time_unit: unit of the stamps in lists and file names: `s`, `ms`, `us`, `ns`, `frames` (the
            stamps count frames), or `auto`.
        pair_within_s: maximum time between the left and right image, or image and depth, seconds.
        mask: path of a mask or of a folder of masks; None: the calibration's, or none.
        topics: topics of a bag.
    """

    sequence: str | None
    sensor: str
    calibration: Path | None
    time_unit: TimeUnitChoice
    pair_within_s: float
    mask: Path | None = None
    topics: Topics = Topics()


class DatasetReader(Protocol):
    """Opens the recordings of one format."""

    def recognises(self, path: Path) -> bool:
        """Whether an existing file or folder (absolute path) is a recording of this format."""
        ...

    def open(self, path: Path, request: SequenceRequest) -> Sequence:
        """Open a recording.

        Args:
            path: absolute path of the recording.
            request: the user's choices.

        Raises:
            DatasetError: the recording lacks something that is requested.
        """
        ...


@runtime_checkable
class Extractor(Protocol):
    """Finds and describes keypoints.

    An extractor inherits this class and sets `name`, `max_descriptor_distance` and
    `pixel_sigma`; the other attributes have defaults.

    Attributes:
        name: registry name.
        max_descriptor_distance: maximum L2 distance of the unit descriptors of a match (see
            `unit_descriptors`).
        pixel_sigma: standard deviation of a keypoint's position, pixels.
        max_concurrency: number of threads that may call `extract` at the same time.
    """

    name: str
    max_descriptor_distance: float
    pixel_sigma: float
    max_concurrency: int = 1

    @abstractmethod
    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Extract the features of a grey image (H, W) uint8 of any size."""
        ...

    def extract_inside(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Features:
        """Extract features only where a mask (H, W) is True.

        This default drops the features that `extract` finds outside. Extractors that limit the
        number of keypoints override it, so that the limit counts only keypoints inside.
        """
        return self.extract(image).inside(mask)

    def describe(
        self, image: NDArray[np.uint8], keypoints: NDArray[np.float32]
    ) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Compute descriptors (N, D) at given positions of a grey image.

        Args:
            image: (H, W) uint8.
            keypoints: (N, 2) x y inside the image, pixels.

        Raises:
            ConfigError: the extractor cannot describe positions; this default always raises it.
        """
        raise ConfigError(
            f"extractor {self.name} cannot describe given keypoints: detect and describe in one "
            "call, or use superpoint"
        )

    @cached_property
    def identity(self) -> str:
        """The name, and the weights of a network: equal identities have comparable descriptors."""
        return self.name

    @cached_property
    def engine(self) -> str:
        """The engine and its arithmetic, for example `openvino int8`."""
        return self.name

    @cached_property
    def fingerprint(self) -> str:
        """All that determines the features besides settings, code and image.

        For example the parameters of a network, versions of libraries, and the processor.
        """
        return self.identity


class WideStage(StrEnum):
    """A stage that matches views which may be far apart; `metrics.json` counts its pairs."""

    START = "start"
    RELOCALIZATION = "relocalization"
    LOOPS = "loops"
    SUBMAPS = "submaps"
    FILES = "match"
    CALIBRATION = "calibration"

    @classmethod
    def of_runs(cls) -> tuple[WideStage, ...]:
        """Return the stages of `spslam run`."""
        return cls.START, cls.RELOCALIZATION, cls.LOOPS, cls.SUBMAPS


@dataclass(frozen=True, eq=False)
class ViewMatches:
    """Matches of two views.

    Attributes:
        matches0: (N0,) int64, the index in the second view, -1 without a match.
        probability: (N0,) float32 of each match, 0 without one; None: the matcher has none.
    """

    matches0: NDArray[np.int64]
    probability: NDArray[np.float32] | None = None


class Matcher(Protocol):
    """Matches unit descriptors.

    All results follow the `matches0` convention: (N0,) int64, the index in image 1 of each match,
    -1 without a match.
    """

    @property
    def description(self) -> str:
        """How views far apart are matched, and by which weights."""
        ...

    @property
    def learned_pairs(self) -> dict[WideStage, int] | None:
        """Number of pairs that a network matched, by stage; None: there is no network."""
        ...

    def attempts(self, stage: WideStage) -> tuple[WideStage | None, ...]:
        """Return the values of `stage` for `match_views` to try in turn until a pose is found.

        The nearest neighbours come first: they take a sixth of the time of a network.
        """
        ...

    def match_views(
        self,
        view0: KeypointView,
        view1: KeypointView,
        max_descriptor_distance: float,
        ratio: float | None = None,
        *,
        among: NDArray[np.int64] | None = None,
        stage: WideStage | None = None,
    ) -> ViewMatches:
        """Match two views of a scene; equal views are matched once.

        Args:
            view0: of image 0.
            view1: of image 1.
            max_descriptor_distance: maximum L2 distance of nearest neighbours.
            ratio: of nearest neighbours, see `match`.
            among: (K,) keypoints of view 1 that may be matched; None: all.
            stage: of views that may be far apart; None: match nearest neighbours.
        """
        ...

    def match(
        self,
        descriptors0: NDArray[np.float32],
        descriptors1: NDArray[np.float32],
        max_descriptor_distance: float,
        ratio: float | None = None,
    ) -> NDArray[np.int64]:
        """Find the mutual nearest neighbours.

        Args:
            descriptors0: (N0, D).
            descriptors1: (N1, D).
            max_descriptor_distance: maximum L2 distance of a match.
            ratio: Lowe's ratio test: maximum ratio of the nearest to the second-nearest distance;
                None: no test.
        """
        ...

    def match_images(
        self,
        features0: Features,
        features1: Features,
        size0: tuple[int, int],
        size1: tuple[int, int],
    ) -> NDArray[np.int64]:
        """Match two whole images, which may show a scene from far apart.

        Args:
            features0: features of image 0.
            features1: features of image 1.
            size0: width and height of image 0, pixels.
            size1: width and height of image 1, pixels.
        """
        ...

    def match_near(
        self,
        pixels0: NDArray[np.float64],
        descriptors0: NDArray[np.float32],
        pixels1: NDArray[np.float64],
        descriptors1: NDArray[np.float32] | NDArray[np.float16],
        radius: NDArray[np.float64] | float,
        max_descriptor_distance: float,
    ) -> NDArray[np.int64]:
        """Match as `match`, but only pairs within a search radius.

        Args:
            pixels0: (N0, 2) predicted positions in image 1; NaN matches nothing.
            descriptors0: (N0, D).
            pixels1: (N1, 2).
            descriptors1: (N1, D), also in the half precision of the map: a small radius needs only
                a few of them in full precision.
            radius: search radius, pixels, for all or (N0,).
            max_descriptor_distance: maximum L2 distance of a match.
        """
        ...

    def match_epipolar(
        self,
        pixels0: NDArray[np.float64],
        descriptors0: NDArray[np.float32] | NDArray[np.float16],
        pixels1: NDArray[np.float64],
        descriptors1: NDArray[np.float32] | NDArray[np.float16],
        F_10: NDArray[np.float64],
        max_line_distance: float,
        max_descriptor_distance: float,
    ) -> NDArray[np.int64]:
        """Match as `match`, but only pairs near the epipolar line `F_10 @ [x0, y0, 1]` in image 1.

        Args:
            pixels0: (N0, 2).
            descriptors0: (N0, D), also in the half precision of the map.
            pixels1: (N1, 2).
            descriptors1: (N1, D), also in the half precision of the map.
            F_10: (3, 3) fundamental matrix.
            max_line_distance: maximum distance to the epipolar line, pixels.
            max_descriptor_distance: maximum L2 distance of a match.
        """
        ...


class StereoMatcher(Protocol):
    """Left-right matching of a rectified stereo pair."""

    def match(
        self,
        image_left: NDArray[np.uint8],
        keypoints: NDArray[np.float32],
        image_right: NDArray[np.uint8],
    ) -> NDArray[np.float64]:
        """Find the sub-pixel x (N,) float64 in the right image of left keypoints (N, 2).

        A keypoint without a match gets NaN.
        """
        ...


@dataclass(frozen=True)
class Components:
    """One implementation of each protocol, put together by `factory.py`."""

    extractor: Extractor
    stereo_matcher: StereoMatcher
    matcher: Matcher
    pose_solver: PoseSolver
    two_view: TwoViewSolver
    bundle: BundleAdjuster
    global_bundle: BundleAdjuster
    pose_graph: PoseGraphSolver
    place_recognition: PlaceRecognizer
