"""Protocols of the back end: poses, two views, bundle adjustment, pose graph, place recognition.

The core imports no implementation; `factory.py` connects the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spslam.camera import Camera
from spslam.errors import Refusal

# Median length of a 2D vector of standard normal deviates.
MEDIAN_LENGTH = 1.1774


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """A camera pose from 2D-3D matches.

    Attributes:
        T_cam_world: (4, 4) float64.
        inliers: (N,) bool.
        covariance: (6, 6) float64 of a left perturbation [translation, rotation] of `T_cam_world`
            (metres, radians); NaN if it cannot be computed.
        median_error_px: median reprojection error of the inliers, pixels.
        scatter: standard deviation of the inliers' residuals in units of the assumed one, by their
            median.
    """

    T_cam_world: NDArray[np.float64]
    inliers: NDArray[np.bool_]
    covariance: NDArray[np.float64]
    median_error_px: float
    scatter: float


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
        relative_sigma: NDArray[np.float32] | None = None,
        coarse: bool = False,
    ) -> PoseEstimate:
        """Refine a pose robustly.

        Args:
            T_cam_world: (4, 4) initial pose.
            points: (N, 3) world points.
            pixels: (N, 2) their undistorted pixels.
            u_right: (N,) x in the right image, pixels; NaN where unknown.
            camera: the camera.
            relative_sigma: (N,) standard deviations of the pixels, divided by the extractor's
                `pixel_sigma`; None: 1.
            coarse: refine faster, only precisely enough to search for more matches.
        """
        ...

    def ransac(
        self,
        points: NDArray[np.float64],
        pixels: NDArray[np.float64],
        u_right: NDArray[np.float64],
        camera: Camera,
        *,
        relative_sigma: NDArray[np.float32] | None = None,
    ) -> PoseEstimate | None:
        """Estimate a pose by PnP in RANSAC, then `refine` it; deterministic.

        Arguments as for `refine`. Returns None if too few points support any pose.
        """
        ...


@dataclass(frozen=True, eq=False)
class TwoViewEstimate:
    """Relative pose and points of two views, up to scale.

    Attributes:
        T_1_0: (4, 4) float64, camera 0 to camera 1, with a translation of unit length.
        points: (N, 3) float64 in coordinates of camera 0; NaN where not triangulated.
        model: `essential` or `homography`.
        parallax_rad: median angle between the two rays of the triangulated points, radians.
    """

    T_1_0: NDArray[np.float64]
    points: NDArray[np.float64]
    model: str
    parallax_rad: float


class TwoViewSolver(Protocol):
    """Relative pose of two cameras."""

    def solve(
        self, pixels0: NDArray[np.float64], pixels1: NDArray[np.float64], camera: Camera
    ) -> TwoViewEstimate | Refusal:
        """Estimate the relative pose from matched undistorted pixels (N, 2) each.

        Returns a refusal if the matches do not determine it.
        """
        ...

    def standstill(
        self,
        pixels0: NDArray[np.float64],
        pixels1: NDArray[np.float64],
        still: NDArray[np.float64],
        camera: Camera,
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]] | None:
        """Test whether pixels that did not move between two images fit a static scene.

        Args:
            pixels0: (N, 2) matched pixels in image 0, undistorted.
            pixels1: (N, 2) the same in image 1.
            still: (M, 2) pixels at the same place in both images, undistorted.
            camera: the camera.

        Returns:
            Which of the matches agree with the motion (N,), and the distance of each `still` pixel
            to its epipolar line (M,), pixels; None if no motion is found.
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
        """Triangulate world points (N, 3) from matched undistorted pixels (N, 2) each.

        A point with too little parallax, a bad depth or a large reprojection error becomes NaN.
        """
        ...


@dataclass(frozen=True, eq=False)
class BundleProblem:
    """Keyframes, points and their observations, as arrays.

    Attributes:
        T_cam_world: (K, 4, 4) float64, poses of the keyframes.
        fixed: (K,) bool, keyframes that are not optimised.
        points: (P, 3) float64.
        camera_index, point_index: (O,) int64, rows of `T_cam_world` and `points`.
        pixels: (O, 2) float64, undistorted.
        u_right: (O,) float64, x in the right image, pixels; NaN where unknown.
        relative_sigma: (O,) float32, standard deviations of the pixels, divided by the extractor's
            `pixel_sigma`; None: 1.
    """

    T_cam_world: NDArray[np.float64]
    fixed: NDArray[np.bool_]
    points: NDArray[np.float64]
    camera_index: NDArray[np.int64]
    point_index: NDArray[np.int64]
    pixels: NDArray[np.float64]
    u_right: NDArray[np.float64]
    relative_sigma: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class BundleResult:
    """Refined copies of the poses and points of a problem.

    Attributes:
        T_cam_world: (K, 4, 4) float64.
        points: (P, 3) float64.
        inliers: (O,) bool.
        cost_before, cost_after: robust χ² before and after.
    """

    T_cam_world: NDArray[np.float64]
    points: NDArray[np.float64]
    inliers: NDArray[np.bool_]
    cost_before: float
    cost_after: float


class BundleAdjuster(Protocol):
    """Bundle adjustment: refines keyframes and points together."""

    def adjust(self, problem: BundleProblem, camera: Camera) -> BundleResult:
        """Refine the poses and points of a problem."""
        ...


@dataclass(frozen=True, eq=False)
class PoseGraphEdges:
    """Relative-pose measurements between the nodes of a pose graph.

    Attributes:
        i, j: (E,) int64, rows of the nodes.
        S_i_j: (E, 4, 4) float64, measured transform from the coordinates of node j to those of
            node i; for Sim(3) the upper left block is s·R.
        information: (E, 6, 6) for SE(3) or (E, 7, 7) for Sim(3), in the order translation,
            rotation[, log scale].
        robust: (E,) bool, edges with a robust kernel (loops, but never the spanning tree).
    """

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    S_i_j: NDArray[np.float64]
    information: NDArray[np.float64]
    robust: NDArray[np.bool_]


class PoseGraphSolver(Protocol):
    """Optimises the nodes of a pose graph."""

    def optimize(
        self,
        S_world_node: NDArray[np.float64],
        edges: PoseGraphEdges,
        fixed: NDArray[np.bool_],
        with_scale: bool,
    ) -> NDArray[np.float64]:
        """Optimise a pose graph.

        Args:
            S_world_node: (K, 4, 4) initial nodes.
            edges: the measurements.
            fixed: (K,) bool, nodes that do not move; at least one, which fixes the gauge.
            with_scale: nodes are Sim(3) instead of SE(3).

        Returns:
            The optimised nodes (K, 4, 4); for Sim(3) with s·R as the upper left block.
        """
        ...


class PlaceRecognizer(Protocol):
    """Place recognition: finds keyframes by the similarity of their images."""

    def add(self, keyframe_id: int, descriptors: NDArray[np.float32]) -> None:
        """Add a keyframe with its unit descriptors (N, D); ids must ascend."""
        ...

    def remove(self, keyframe_id: int) -> None:
        """Remove a keyframe; unknown ids are ignored."""
        ...

    def search(
        self, descriptors: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Compare all keyframes with an image.

        Args:
            descriptors: (N, D) unit descriptors of the image.

        Returns:
            Ids (K,), ascending, and similarities (K,), at most 1; both may be empty.
        """
        ...

    def similarities(self, keyframe_id: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Compare all keyframes with one of them, as `search` does with an image."""
        ...

    def arrays(self) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
        """The state of the index as arrays, for saving it with a map."""
        ...

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Restore the state that `arrays` returned.

        Raises:
            KeyError, ValueError: the arrays are damaged.
        """
        ...
