"""An image is most similar to the keyframe of its place, among many others."""

import numpy as np
import pytest

from spslam.backend.place_recognition import PlaceIndex
from spslam.codebook import Codebook, learn_codebook

D = 32


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def place(number: int, view: int = 0, count: int = 120, noise: float = 0.03) -> np.ndarray:
    """Descriptors (N, D) of a view of a place: three quarters of all, with noise, shuffled."""
    own = unit(np.random.default_rng([1, number]).normal(size=(count, D)))
    rng = np.random.default_rng([2, number, view])
    seen = own[rng.permutation(count)[: 3 * count // 4]]
    return unit(seen + noise * rng.normal(size=seen.shape))


@pytest.fixture(scope="module")
def codebook() -> Codebook:
    return learn_codebook(
        np.concatenate([place(n) for n in range(100, 130)]), clusters=16, dimensions=16
    )


def test_vlad_equals_its_definition(codebook: Codebook) -> None:
    descriptors = place(3)
    slow = np.zeros(codebook.centres.shape)
    assert codebook.projection is not None
    for descriptor in descriptors:
        projected = codebook.projection.astype(float) @ descriptor
        projected /= np.linalg.norm(projected)
        nearest = int(np.argmax(codebook.centres @ projected))
        slow[nearest] += (
            projected - (projected @ codebook.centres[nearest]) * codebook.centres[nearest]
        )
    slow /= np.maximum(np.linalg.norm(slow, axis=1, keepdims=True), 1e-12)
    slow /= np.linalg.norm(slow)
    np.testing.assert_allclose(codebook.describe(descriptors), slow.ravel(), atol=1e-5)
    assert not codebook.describe(descriptors[:0]).any()


def test_other_views_of_a_place_are_the_most_similar(codebook: Codebook) -> None:
    index = PlaceIndex(codebook)
    for number in range(150):
        index.add(2 * number, place(number))
    assert len(index) == 150
    for number in range(0, 150, 7):
        ids, similarity = index.search(place(number, view=1))
        assert ids.tolist() == list(range(0, 300, 2))
        assert ids[np.argmax(similarity)] == 2 * number
        again, same = index.similarities(2 * number)
        assert np.array_equal(again, ids) and ids[np.argmax(same)] == 2 * number
        assert same.max() == pytest.approx(1.0, abs=1e-5)


def test_a_removed_keyframe_is_not_found(codebook: Codebook) -> None:
    index, index_with_all = PlaceIndex(codebook), PlaceIndex(codebook)
    for number in range(70):
        index.add(number, place(number))
        index_with_all.add(number, place(number))
    for gone in (0, 33, 69, 33):
        index.remove(gone)
    ids, similarity = index.search(place(33, view=1))
    assert len(index) == len(ids) == 67 and not np.isin([0, 33, 69], ids).any()
    assert similarity.max() < 0.6 * index_with_all.search(place(33, view=1))[1].max()
    assert len(index.similarities(33)[0]) == 0
    for number in (34, 68):
        assert ids[np.argmax(index.search(place(number, view=2))[1])] == number
    index.add(80, place(33))
    ids, similarity = index.search(place(33, view=1))
    assert ids[np.argmax(similarity)] == 80


def test_a_codebook_is_learned_if_none_is_given() -> None:
    index, again = PlaceIndex(), PlaceIndex()
    for number in range(19):
        index.add(number, place(number))
        again.add(number, place(number))
        if number in (3, 9):
            # Learned from the few descriptors there are, and again from more.
            ids, similarity = index.search(place(2, view=1))
            assert ids.tolist() == list(range(number + 1)) and ids[np.argmax(similarity)] == 2
    index.remove(5)
    again.remove(5)
    for number in range(19, 40):
        index.add(number, place(number))
        again.add(number, place(number))
    ids, similarity = index.search(place(7, view=1))
    assert len(ids) == len(index) == 39
    assert ids[np.argmax(similarity)] == 7
    assert np.array_equal(again.search(place(7, view=1))[1], similarity)


def test_images_without_keypoints(codebook: Codebook) -> None:
    index = PlaceIndex(codebook)
    nothing = np.zeros((0, D), np.float32)
    assert len(index.search(nothing)[0]) == 0
    index.add(0, nothing)
    index.add(1, place(1))
    assert not index.search(nothing)[1].any()
    assert index.search(place(1, view=1))[1].argmax() == 1
    learning = PlaceIndex()
    for number in range(25):
        learning.add(number, nothing)
    assert len(learning.search(nothing)[0]) == 0
