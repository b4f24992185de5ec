"""Rounding the filters of a first convolution to whole numbers."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from numpy.typing import NDArray

from spslam.frontend.engines.int8_rounding import patch_moments, round_filters
from spslam.typing import FloatArray


def images() -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(3)
    noise = random.integers(0, 256, (3, 90, 120)).astype(np.uint8)
    return [np.asarray(cv2.GaussianBlur(image, (0, 0), 2.0), np.uint8) for image in noise]


def errors(
    filters: FloatArray, whole: NDArray[np.int8], steps: NDArray[np.float32], moments: FloatArray
) -> FloatArray:
    off = whole * steps[:, None].astype(np.float64) - filters
    return np.sqrt(np.einsum("ci,ij,cj->c", off, moments, off))


def test_moments_are_those_of_all_patches() -> None:
    image = images()[0]
    patches = [image[r : r + 3, c : c + 3].ravel() / 255.0 for r in range(88) for c in range(118)]
    every = np.array(patches[::37])
    np.testing.assert_allclose(patch_moments([image], 3), every.T @ every / len(every))


def test_joint_rounding_is_better_than_rounding_each_weight() -> None:
    moments = patch_moments(images(), 3)
    filters = np.random.default_rng(5).normal(size=(16, 9))
    whole, steps = round_filters(filters, moments)
    assert whole.dtype == np.int8 and np.abs(whole).max() <= 63
    plain_steps = np.abs(filters).max(axis=1) / 63
    plain = np.round(filters / plain_steps[:, None]).astype(np.int8)
    ours, theirs = (
        errors(filters, whole, steps, moments),
        errors(filters, plain, plain_steps.astype(np.float32), moments),
    )
    assert (ours <= theirs + 1e-9).all()
    assert ours.mean() < 0.35 * theirs.mean()


def test_no_other_rounding_is_much_better() -> None:
    moments = patch_moments(images(), 2)
    filters = np.random.default_rng(6).normal(size=(5, 4))
    whole, steps = round_filters(filters, moments)
    found = errors(filters, whole, steps, moments)
    for row, (one, step) in enumerate(zip(filters, steps, strict=True)):
        # For a given step, try all sixteen ways to round.
        choices = np.clip(
            np.floor(one / step) + np.array(list(itertools.product((0, 1), repeat=4))), -63, 63
        )
        best = errors(
            np.tile(one, (16, 1)), choices.astype(np.int8), np.full(16, step), moments
        ).min()
        assert found[row] < 1.5 * best + 1e-6


def test_zero_filters_stay_zero() -> None:
    whole, steps = round_filters(np.zeros((2, 9)), patch_moments(images(), 3))
    assert not whole.any() and np.isfinite(steps).all()
