"""What the rooms offer to the ground, as Protocols: the ground names no room, `build.py` plugs them in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.frame import Features, Frame, Sensor
from spslam.timestamps import TimeUnitChoice
from spslam.trajectory import Trajectory

# Why an image is left out whose time stamp another one had before.
EQUAL_STAMP = "equal time stamp"
NO_STAMP = "no time stamp"
STEPPED_BACK = "clock stepped back"


@dataclass(frozen=True)
class LeftOut:
    """An image of a recording that is no frame of the sequence.

    Attributes:
        stamp_s: its time, seconds; NaN where it has none.
        reason: why, in a few words.
    """

    stamp_s: float
    reason: str


@runtime_checkable
class Sequence(Protocol):
    """Frames of one recording with their calibration.

    Iteration yields every `Frame` that can be decoded, in the order of time; the others are counted in
    `skipped`. Random access raises `FrameError` for a frame that cannot be decoded and `IndexError`
    past the end. Attributes:
        name: short name for reports, for example `kitti 00`.
        dataset: name of the reader, for example `kitti`; with `sensor` it chooses the built-in configuration.
        sensor: what its frames carry.
        camera: the camera that `Frame.image` was taken with (after rectification, where there is one).
        source: the folder, file or built-in world it came from.
        ground_truth: poses of `Frame.image`'s camera, or None.
        skipped: (index, reason) of each frame met so far that could not be decoded.
        time_unit: what the recording counts time in: a `TimeUnit`, `frames`, or `container` for a video's own stamps.
        left_out: what the recording holds and is no frame: images with the stamp of another, without a partner, ….
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


@dataclass(frozen=True)
class SequenceRequest:
    """What a user asks of a recording.

    Attributes:
        sequence: which one, where a path holds several: its name or a part of it that only one has.
        sensor: `mono`, `stereo`, `rgbd`, or `auto` for the most that is there.
        calibration: a calibration file.
        time_unit: of the stamps in lists and names: `s`, `ms`, `us`, `ns`, `frames` (they count), or `auto`.
        pair_within_s: how far apart left and right image, or image and depth, may be, seconds.
    """

    sequence: str | None
    sensor: str
    calibration: Path | None
    time_unit: TimeUnitChoice
    pair_within_s: float


class DatasetReader(Protocol):
    """Opens the recordings of one format."""

    def recognises(self, path: Path) -> bool:
        """Whether an existing file or folder, an absolute path, is a recording of this format."""
        ...

    def open(self, path: Path, request: SequenceRequest) -> Sequence:
        """Open a recording. Raises `DatasetError` where it lacks what is asked for."""
        ...


@runtime_checkable
class Extractor(Protocol):
    """Finds and describes keypoints.

    A front end inherits this class and sets `name`, `max_distance` and `pixel_sigma`; the other attributes have
    defaults.

    Attributes:
        name: registry name.
        max_distance: L2 distance of unit descriptors above which two points are no match (see `unit_descriptors`).
        pixel_sigma: standard deviation of a keypoint's position, pixels.
        max_concurrency: number of threads that may call `extract` at the same time.
    """

    name: str
    max_distance: float
    pixel_sigma: float
    max_concurrency: int = 1

    @abstractmethod
    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Features of a (H, W) uint8 grey image of any size."""
        ...

    @cached_property
    def identity(self) -> str:
        """Maps of equal identity have comparable descriptors: the name, and the weights of a network."""
        return self.name

    @cached_property
    def engine(self) -> str:
        """What computes the features and how exactly, for example `openvino int8`."""
        return self.name

    @cached_property
    def fingerprint(self) -> str:
        """What determines the features beside settings, code and image: parameters, versions, the processor."""
        return self.identity


class Matcher(Protocol):
    """Matches unit descriptors. All results follow the `matches0` convention: (N0,) int64, -1 for none."""

    def match(
        self,
        descriptors0: NDArray[np.float32],
        descriptors1: NDArray[np.float32],
        max_distance: float,
        ratio: float | None = None,
    ) -> NDArray[np.int64]:
        """Mutual nearest neighbours of (N0, D) in (N1, D) within `max_distance` (L2), optionally with Lowe's
        ratio test (nearest / second nearest distance < `ratio`).
        """
        ...

    def match_near(
        self,
        pixels0: NDArray[np.float64],
        descriptors0: NDArray[np.float32],
        pixels1: NDArray[np.float64],
        descriptors1: NDArray[np.float32] | NDArray[np.float16],
        radius: NDArray[np.float64] | float,
        max_distance: float,
    ) -> NDArray[np.int64]:
        """As `match`, among pairs no farther apart than `radius` pixels (scalar or (N0,)) only: `pixels0` (N0, 2)
        are predicted positions in the image of `pixels1` (N1, 2). NaN positions match nothing. `descriptors1` may be
        as the map keeps them: of a small gate only a few are needed in full precision.
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
        max_distance: float,
    ) -> NDArray[np.int64]:
        """As `match`, among pairs whose pixel in image 1 lies within `max_line_distance` pixels of the epipolar
        line `F_10 @ [x0, y0, 1]` only. Descriptors may be as the map keeps them.
        """
        ...


class StereoMatcher(Protocol):
    """Left-right matching of a rectified pair."""

    def match(
        self,
        image_left: NDArray[np.uint8],
        keypoints: NDArray[np.float32],
        image_right: NDArray[np.uint8],
    ) -> NDArray[np.float64]:
        """(N,) float64: sub-pixel x in the right image of each left key point (N, 2); NaN where there is none."""
        ...


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """A camera pose from 2D-3D matches.

    Attributes:
        T_cam_world: (4, 4) float64.
        inliers: (N,) bool.
        covariance: (6, 6) float64 of a left perturbation [translation, rotation] of `T_cam_world`
            (metres, radians); NaN where it could not be computed.
        median_error_px: median reprojection error of the inliers, pixels.
    """

    T_cam_world: NDArray[np.float64]
    inliers: NDArray[np.bool_]
    covariance: NDArray[np.float64]
    median_error_px: float


class PoseSolver(Protocol):
    """Absolute pose of one camera."""

    def refine(
        self,
        T_cam_world: NDArray[np.float64],
        points: NDArray[np.float64],
        pixels: NDArray[np.float64],
        u_right: NDArray[np.float64],
        camera: Camera,
        *,
        coarse: bool = False,
    ) -> PoseEstimate:
        """Robust refinement of a pose from points (N, 3), undistorted pixels (N, 2) and u_right (N,), NaN where
        unknown. Coarse: good enough to look for more matches around the points, at a part of the price.
        """
        ...

    def ransac(
        self,
        points: NDArray[np.float64],
        pixels: NDArray[np.float64],
        u_right: NDArray[np.float64],
        camera: Camera,
    ) -> PoseEstimate | None:
        """PnP in RANSAC, then `refine`; None if no pose is supported by enough points. Deterministic."""
        ...


@dataclass(frozen=True, eq=False)
class TwoViewEstimate:
    """Relative pose and points of two views, up to scale.

    Attributes:
        T_1_0: (4, 4) float64, camera 0 to camera 1, translation of unit length.
        points: (N, 3) float64 in camera 0; NaN where not triangulated.
        model: `essential` or `homography`.
        parallax_rad: median angle between the two rays of the triangulated points.
    """

    T_1_0: NDArray[np.float64]
    points: NDArray[np.float64]
    model: str
    parallax_rad: float


class TwoViewSolver(Protocol):
    """Relative pose of two cameras."""

    def solve(
        self, pixels0: NDArray[np.float64], pixels1: NDArray[np.float64], camera: Camera
    ) -> TwoViewEstimate | str:
        """Solve from matched undistorted pixels (N, 2) each; a refusal is one line that says why."""
        ...

    def standstill(
        self,
        pixels0: NDArray[np.float64],
        pixels1: NDArray[np.float64],
        still: NDArray[np.float64],
        camera: Camera,
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]] | None:
        """How well pixels `still` (M, 2), the same in both images, fit a static scene that matches (N, 2) move in:
        which of the matches agree with one motion (N,), and how far each `still` pixel is from its epipolar line (M,),
        pixels. None where no motion is found.
        """
        ...

    def triangulate(
        self,
        T_cam0_world: NDArray[np.float64],
        T_cam1_world: NDArray[np.float64],
        pixels0: NDArray[np.float64],
        pixels1: NDArray[np.float64],
        camera: Camera,
    ) -> NDArray[np.float64]:
        """World points (N, 3) of matched pixels; NaN where parallax, depth or reprojection refuse them."""
        ...


@dataclass(frozen=True, eq=False)
class BundleProblem:
    """Key frames, points and the observations between them, as arrays.

    Attributes:
        T_cam_world: (K, 4, 4) float64.
        fixed: (K,) bool, key frames that do not move.
        points: (P, 3) float64.
        camera_index, point_index: (O,) int64, rows of the two arrays above.
        pixels: (O, 2) float64, undistorted.
        u_right: (O,) float64, NaN where unknown.
    """

    T_cam_world: NDArray[np.float64]
    fixed: NDArray[np.bool_]
    points: NDArray[np.float64]
    camera_index: NDArray[np.int64]
    point_index: NDArray[np.int64]
    pixels: NDArray[np.float64]
    u_right: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BundleResult:
    """Refined copies of a problem's poses and points; `inliers` (O,) bool, `cost` before and after (robust χ²)."""

    T_cam_world: NDArray[np.float64]
    points: NDArray[np.float64]
    inliers: NDArray[np.bool_]
    cost_before: float
    cost_after: float


class BundleAdjuster(Protocol):
    """Refines key frames and points together."""

    def adjust(self, problem: BundleProblem, camera: Camera) -> BundleResult: ...


@dataclass(frozen=True, eq=False)
class PoseGraphEdges:
    """Relative-pose measurements between the nodes of a pose graph.

    Attributes:
        i, j: (E,) int64, node rows.
        S_i_j: (E, 4, 4) float64, the measured transform of node j's coordinates to node i's; for Sim(3) the upper
            left block is s·R.
        information: (E, 6, 6) for SE(3) or (E, 7, 7) for Sim(3), order translation, rotation[, log scale].
        robust: (E,) bool, which edges get the robust kernel (loops, never the spanning tree).
    """

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    S_i_j: NDArray[np.float64]
    information: NDArray[np.float64]
    robust: NDArray[np.bool_]


class PoseGraphSolver(Protocol):
    """Optimises poses over relative-pose measurements."""

    def optimize(
        self,
        S_world_node: NDArray[np.float64],
        edges: PoseGraphEdges,
        fixed: NDArray[np.bool_],
        with_scale: bool,
    ) -> NDArray[np.float64]:
        """(K, 4, 4): refined nodes; SE(3), or Sim(3) (upper left block s·R) when `with_scale`. At least one node
        must be `fixed` (K,) bool (the gauge).
        """
        ...


class PlaceRecognizer(Protocol):
    """Key frames by what they look like."""

    def add(self, keyframe_id: int, descriptors: NDArray[np.float32]) -> None:
        """Take up a key frame with its unit descriptors (N, D); ids must ascend."""
        ...

    def remove(self, keyframe_id: int) -> None:
        """Forget a key frame; one that is not there is none."""
        ...

    def search(
        self, descriptors: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids (K,), ascending, of all key frames and how much each looks like an image of unit descriptors (N, D):
        up to 1. Both may be empty.
        """
        ...

    def similarities(self, keyframe_id: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `search`, for one of the key frames."""
        ...

    def arrays(self) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
        """All that it knows, to be saved with a map."""
        ...

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Know what an index knew when it gave `arrays`; raises `KeyError` or `ValueError` where these are damaged."""
        ...


@dataclass(frozen=True)
class Parts:
    """One implementation of each, plugged together by `build.py`."""

    extractor: Extractor
    stereo_matcher: StereoMatcher
    matcher: Matcher
    pose_solver: PoseSolver
    two_view: TwoViewSolver
    bundle: BundleAdjuster
    global_bundle: BundleAdjuster
    pose_graph: PoseGraphSolver
    places: PlaceRecognizer
