"""True matches of two views from the places that their keypoints show.

A place is a point (3,), and a view has a projection (3, 4) from places to its pixels. For views of
a photograph the place is the pixel (x, y, 1) of the photograph and the projection is the homography
with a column of zeros. For views of a world the place is a world point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..torch_matching import UNMATCHED

# A point that is not judged: its nearest point is too far for a match and too near for none.
IGNORED = -2
# Largest difference of depths of a match, fraction of the depth. A larger one is an occlusion.
_DEPTH_TOLERANCE = 0.05


@dataclass(frozen=True)
class ViewPoints:
    """Keypoints of a batch of views.

    Attributes:
        keypoints: (B, N, 2), pixels.
        places: (B, N, 3), what they show; NaN where unknown.
        projection: (B, 3, 4), from places to pixels of this view.
        exist: (B, N) bool, which points are real.
    """

    keypoints: Tensor
    places: Tensor
    projection: Tensor
    exist: Tensor


def true_matches(
    view0: ViewPoints, view1: ViewPoints, positive_px: float, negative_px: float
) -> tuple[Tensor, Tensor]:
    """Return the true matches of two views.

    Two points match if each is projected within `positive_px` of the other and each is the other's
    nearest. A point has no match if no point of the other view is within `negative_px` of its
    projection, or if all of them lie at another depth (occlusion). A point there whose place is
    unknown may be its match: then it is not judged.

    Returns:
        (B, N) and (B, M) int64: the index in the other view, `UNMATCHED` or `IGNORED`.
    """
    distance0, same0 = _distances(view0, view1)
    distance1, same1 = _distances(view1, view0)
    distance1, same1 = distance1.transpose(1, 2), same1.transpose(1, 2)
    other = ~(same0 & same1 & view0.exist[:, :, None] & view1.exist[:, None])
    near0 = distance0.masked_fill(other & ~_unknown(view1)[:, None], torch.inf)
    near1 = distance1.masked_fill(other & ~_unknown(view0)[:, :, None], torch.inf)
    distance0, distance1 = (
        distance0.masked_fill(other, torch.inf),
        distance1.masked_fill(other, torch.inf),
    )
    both = torch.maximum(distance0, distance1)
    best0, index0 = both.min(dim=2)
    best1, index1 = both.min(dim=1)
    mutual0 = index1.gather(1, index0) == torch.arange(index0.shape[1], device=index0.device)
    mutual1 = index0.gather(1, index1) == torch.arange(index1.shape[1], device=index1.device)
    far0, far1 = near0.amin(2) > negative_px, near1.amin(1) > negative_px
    return (
        _labels(index0, mutual0 & (best0 <= positive_px), far0, view0),
        _labels(index1, mutual1 & (best1 <= positive_px), far1, view1),
    )


def _unknown(view: ViewPoints) -> Tensor:
    """Return which points (B, N) exist, but show an unknown place."""
    return view.exist & ~view.places.isfinite().all(dim=-1)


def _labels(index: Tensor, match: Tensor, far: Tensor, view: ViewPoints) -> Tensor:
    known = view.exist & view.places.isfinite().all(dim=-1)
    labels = torch.where(far, UNMATCHED, IGNORED)
    labels = torch.where(match, index, labels)
    return torch.where(known, labels, IGNORED)


def _distances(view0: ViewPoints, view1: ViewPoints) -> tuple[Tensor, Tensor]:
    """Project the points of view 0 into view 1.

    Returns:
        Distances (B, N, M) to the points of view 1, pixels, and whether both are at the same depth.
    """
    projected, depth = _project(view0.places, view1.projection)
    _, own_depth = _project(view1.places, view1.projection)
    distance = torch.cdist(
        projected, view1.keypoints.to(projected), compute_mode="donot_use_mm_for_euclid_dist"
    )
    distance = torch.nan_to_num(distance, nan=torch.inf)
    difference = (depth[:, :, None] - own_depth[:, None]).abs()
    return distance, difference <= _DEPTH_TOLERANCE * own_depth[:, None]


def _project(places: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
    """Project places (B, N, 3) to pixels (B, N, 2), NaN behind the camera, and depths (B, N)."""
    lifted = places @ projection[:, :, :3].transpose(1, 2) + projection[:, None, :, 3]
    depth = lifted[..., 2]
    depth = torch.where(depth > 1e-6, depth, torch.nan)
    return lifted[..., :2] / depth[..., None], depth
