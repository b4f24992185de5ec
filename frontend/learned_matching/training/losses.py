"""Loss of the learned matcher: negative log-likelihood of true matches and of points without.

Source: LightGlue, ICCV 2023 (arXiv 2306.13643), section 3.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..data.true_matches import IGNORED
from ..network import Assignment
from ..torch_matching import UNMATCHED


@dataclass(frozen=True)
class TrueMatches:
    """True matches of a batch of pairs.

    Attributes:
        index0: (B, N) int64, the index in image 1 of each match; `UNMATCHED` for a point that has
            no match, `IGNORED` for one that is not judged.
        index1: (B, M) int64, the same for image 1.
    """

    index0: Tensor
    index1: Tensor


def assignment_loss(found: Assignment, true: TrueMatches) -> dict[str, Tensor]:
    """Return the loss of an assignment, (B,) each: `matches`, `unmatched` and their sum `total`.

    The first is the mean over the true matches of a pair, the second over its points without a
    match, with equal weight of both images. A pair without one of them has 0 there.
    """
    similarity = found.similarity
    rows, columns = similarity.logsumexp(2), similarity.logsumexp(1)
    matched = true.index0 >= 0
    index = true.index0.clamp(min=0)
    pairs = 2 * similarity.gather(2, index[..., None])[..., 0] - rows - columns.gather(1, index)
    points = functional.logsigmoid(found.matchable0)
    points = points + functional.logsigmoid(found.matchable1).gather(1, index)
    matches = -_mean(pairs + points, matched)
    unmatched = -0.5 * (
        _mean(functional.logsigmoid(-found.matchable0), true.index0 == UNMATCHED)
        + _mean(functional.logsigmoid(-found.matchable1), true.index1 == UNMATCHED)
    )
    return {"matches": matches, "unmatched": unmatched, "total": matches + unmatched}


def confidence_loss(logit: Tensor, right: Tensor, judged: Tensor) -> Tensor:
    """Return the cross entropy (B,) of a point's confidence.

    Args:
        logit: (B, N), that the point's match is final after a layer.
        right: (B, N) bool, whether it is.
        judged: (B, N) bool, which points are real.
    """
    entropy = functional.binary_cross_entropy_with_logits(
        logit.float(), right.float(), reduction="none"
    )
    return _mean(entropy, judged)


@torch.no_grad()
def match_counts(predicted0: Tensor, true: TrueMatches) -> dict[str, Tensor]:
    """Return counts (B,): `found` right matches, `predicted` judged matches, `true` matches."""
    judged = (predicted0 >= 0) & (true.index0 != IGNORED)
    right = judged & (predicted0 == true.index0)
    counts = {"found": right, "predicted": judged, "true": true.index0 >= 0}
    return {name: value.sum(dim=1) for name, value in counts.items()}


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Return the means (B,) of values (B, N) where a mask is True; 0 where it is never True."""
    # Not a product: 0 times an infinite value of a padded point would be NaN.
    kept = torch.where(where, values, torch.zeros_like(values))
    return kept.sum(dim=1) / where.sum(dim=1).clamp(min=1)
