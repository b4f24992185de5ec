"""Codebooks: clusters and subspaces are found; files are read or refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from spslam.codebook import Codebook, learn_codebook
from spslam.errors import WeightsError
from spslam.frame import Features, unit_descriptors
from spslam.frontend.superpoint.checkpoints import read_codebook
from spslam.frontend.training.codebook import learn_codebook_from_images
from spslam.interfaces import Extractor


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def clustered(
    seed: int, counts: tuple[int, ...], noise: float = 0.005
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors around orthogonal axes in random order, and the axis of each."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return unit(np.eye(16)[labels] + noise * rng.normal(size=(len(labels), 16))), labels


class GradientExtractor(Extractor):
    """Describes every eighth pixel by the values around it, without any network."""

    name = "gradient"
    max_descriptor_distance = 1.0
    pixel_sigma = 1.0

    def __init__(self) -> None:
        self.images = 0

    def extract(self, image: NDArray[np.uint8]) -> Features:
        self.images += 1
        height, width = image.shape
        blocks = (
            image.reshape(height // 4, 4, width // 4, 4)
            .swapaxes(1, 2)
            .reshape(-1, 16)
            .astype(np.float64)
        )
        blocks = blocks[np.ptp(blocks, axis=1) > 0]
        count = len(blocks)
        values = (
            unit(blocks - blocks.mean(axis=1, keepdims=True))
            if count
            else np.zeros((0, 16), np.float32)
        )
        return Features(np.zeros((count, 2), np.float32), np.ones(count, np.float32), values)


class BinaryExtractor(GradientExtractor):
    """The signs of the same values, as packed bits."""

    def extract(self, image: NDArray[np.uint8]) -> Features:
        features = super().extract(image)
        bits = np.packbits(features.descriptors > 0, axis=1)
        return Features(features.keypoints, features.scores, bits)


def noise_images(count: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(7)
    return [
        np.asarray(
            cv2.GaussianBlur(rng.integers(0, 256, (32, 48), np.uint8), (0, 0), 1.0), np.uint8
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_finds_clusters_of_unequal_size(seed: int) -> None:
    descriptors, labels = clustered(seed, (900, 200, 60, 40, 30, 20))
    codebook = learn_codebook(descriptors, 6, seed=seed)
    assert codebook.centres.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(codebook.centres, axis=1), 1.0, atol=1e-6)
    expected = unit(
        np.stack([descriptors[labels == axis].sum(axis=0) for axis in range(6)]).astype(np.float64)
    )
    order = np.argmax(expected @ codebook.centres.T, axis=1)
    assert sorted(order) == list(range(6))
    np.testing.assert_allclose(codebook.centres[order], expected, atol=1e-5)


def test_same_seed_same_centres() -> None:
    descriptors = unit(np.random.default_rng(0).normal(size=(500, 16)))
    first, again, other = (learn_codebook(descriptors, 8, 0, seed).centres for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_iterations_bring_descriptors_closer_to_their_centres() -> None:
    descriptors = unit(np.random.default_rng(0).normal(size=(2000, 16)))

    def similarity(iterations: int) -> float:
        return float(
            (descriptors @ learn_codebook(descriptors, 8, iterations=iterations).centres.T)
            .max(axis=1)
            .mean()
        )

    assert similarity(0) < similarity(1) < similarity(20)


def test_no_centre_is_left_empty() -> None:
    # Two kinds of vectors and three clusters: one cluster starts empty.
    descriptors = np.repeat(np.eye(16, dtype=np.float32)[:2], 20, axis=0)
    centres = learn_codebook(descriptors, 3).centres
    assert np.isfinite(centres).all()
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1.0, atol=1e-6)


def test_chunk_size_does_not_change_the_result() -> None:
    descriptors, _ = clustered(0, (50, 40, 30))
    whole = learn_codebook(descriptors, 3).centres
    # 65536 descriptors are processed at a time; equal ones change nothing, except for rounding.
    chunked = learn_codebook(np.repeat(descriptors, 1500, axis=0), 3).centres
    order = (whole @ chunked.T).argmax(axis=1)
    np.testing.assert_allclose(chunked[order], whole, atol=1e-5)


def test_projects_to_the_subspace_of_the_descriptors() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(16, 5)))[0].T
    descriptors = unit(rng.normal(size=(400, 5)) @ basis + 1e-3 * rng.normal(size=(400, 16)))
    codebook = learn_codebook(descriptors, 4, dimensions=5)
    assert codebook.projection is not None
    assert codebook.projection.shape == (5, 16)
    assert codebook.centres.shape == (4, 5)
    assert codebook.descriptor_dim == 16
    np.testing.assert_allclose(codebook.projection @ codebook.projection.T, np.eye(5), atol=1e-5)
    reduced = descriptors @ codebook.projection.T
    np.testing.assert_allclose(reduced @ reduced.T, descriptors @ descriptors.T, atol=0.01)


def test_the_strongest_direction_comes_first() -> None:
    descriptors = unit(np.random.default_rng(0).normal(size=(400, 16)) * np.linspace(0.1, 1, 16))
    projection = learn_codebook(descriptors, 4, dimensions=8).projection
    assert projection is not None
    strength = np.square(descriptors @ projection.T).sum(axis=0)
    assert np.all(np.diff(strength) < 0)


@pytest.mark.parametrize("dimensions", [0, 16, 40])
def test_no_projection_at_full_descriptor_size(dimensions: int) -> None:
    codebook = learn_codebook(clustered(0, (20, 20))[0], 2, dimensions)
    assert codebook.projection is None
    assert codebook.centres.shape == (2, 16)
    assert codebook.descriptor_dim == 16


@pytest.mark.parametrize("kind", [GradientExtractor, BinaryExtractor])
def test_learns_from_images_in_one_pass(kind: type[GradientExtractor]) -> None:
    images, extractor = noise_images(6), kind()
    # One image has no features at all.
    images[3] = np.zeros((32, 48), np.uint8)
    codebook = learn_codebook_from_images(extractor, iter(images), clusters=4, dimensions=6)
    assert extractor.images == 6
    assert codebook.centres.shape == (4, 6)
    assert codebook.descriptor_dim == 16
    everything = np.concatenate(
        [unit_descriptors(kind().extract(image).descriptors) for image in images]
    )
    np.testing.assert_array_equal(codebook.centres, learn_codebook(everything, 4, 6).centres)


def test_takes_some_descriptors_of_each_image() -> None:
    # As many as clusters: each centre is one descriptor.
    images = noise_images(3)
    centres = learn_codebook_from_images(
        GradientExtractor(), images, 12, dimensions=0, per_image=4
    ).centres
    similarity = [
        (centres @ GradientExtractor().extract(image).descriptors.T).max(axis=1) for image in images
    ]
    np.testing.assert_array_equal(np.sum(np.array(similarity) > 0.9999, axis=1), [4, 4, 4])
    with pytest.raises(WeightsError, match="found 12"):
        learn_codebook_from_images(GradientExtractor(), images, 13, per_image=4)


def test_too_few_descriptors_are_refused() -> None:
    with pytest.raises(WeightsError, match="found 0"):
        learn_codebook_from_images(GradientExtractor(), [], clusters=4)
    with pytest.raises(WeightsError, match="found 3"):
        learn_codebook(np.eye(3, dtype=np.float32), 4)


def network_tensors(length: int) -> dict[str, NDArray[np.float32]]:
    """The tensors that mark a file as SuperPoint and give the descriptor size."""
    shapes = {"conv1a.weight": (4, 1, 3, 3), "convDb.weight": (length, 4, 1, 1)}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def test_a_stored_codebook_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "book.safetensors"
    for codebook in (
        Codebook(np.eye(2, 3, dtype=np.float32)),
        Codebook(np.eye(2, 3, dtype=np.float32), np.ones((3, 5), np.float32)),
    ):
        save_file(network_tensors(codebook.descriptor_dim) | codebook.tensors(), path)
        found = read_codebook(path)
        assert found is not None
        np.testing.assert_array_equal(found.centres, codebook.centres)
        assert (found.projection is None) == (codebook.projection is None)
        if found.projection is not None:
            np.testing.assert_array_equal(found.projection, codebook.projection)


def test_files_without_a_codebook(tmp_path: Path) -> None:
    save_file({"conv1a.bias": np.zeros(1, np.float32)}, tmp_path / "bare.safetensors")
    torch.save({}, tmp_path / "old.pth")
    assert read_codebook(tmp_path / "bare.safetensors") is None
    assert read_codebook(tmp_path / "old.pth") is None


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    broken: dict[str, dict[str, NDArray[np.float32]]] = {
        "flat": {"centres": np.zeros(6, np.float32)},
        "other": {
            "centres": np.zeros((2, 3), np.float32),
            "projection": np.zeros((4, 5), np.float32),
        },
        "headless": {"projection": np.zeros((3, 5), np.float32)},
    }
    for name, parts in broken.items():
        stored = {f"codebook.{key}": part for key, part in parts.items()}
        save_file(network_tensors(5) | stored, tmp_path / f"{name}.safetensors")
    save_file({"codebook.centres": np.zeros((2, 5), np.float32)}, tmp_path / "alone.safetensors")
    (tmp_path / "garbage.safetensors").write_bytes(b"no weights")
    expected = dict.fromkeys(broken, "expected a codebook") | {
        "alone": "holds no SuperPoint weights",
        "garbage": "not a readable",
        "absent": "no weights file",
    }
    for name, text in expected.items():
        with pytest.raises(WeightsError, match=text) as caught:
            read_codebook(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
