"""Place recognition: find the keyframes of a map that show the same place as an image.

Each image is described by one vector, the VLAD of its descriptors over a codebook (see
`spslam.codebook`); there is no vocabulary file. The codebook comes with the network's weights.
Without one, it is learned from the first keyframes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.codebook import CLUSTERS, Codebook, learn_codebook
from spslam.notices import counted
from spslam.typing import Float32Array, IntArray

# Number of keyframes that a codebook is learned from: it needs different views.
_LEARN_FROM = 20
# Largest number of descriptors of one keyframe that a codebook is learned from. Together they
# should give a few hundred descriptors per cluster.
_PER_KEYFRAME = 300


class PlaceIndex:
    """An index of keyframes by appearance (a `spslam.interfaces.PlaceRecognizer`).

    Args:
        codebook: Codebook of the extractor; None: learned from the first 20 keyframes. An earlier
            search learns a preliminary one from the keyframes it has.
        seed: Seed of the learned codebook.
    """

    def __init__(self, codebook: Codebook | None = None, seed: int = 0) -> None:
        self._codebook = codebook
        self._seed = seed
        # Descriptors by keyframe id, until the codebook is final.
        self._first: dict[int, Float32Array] = {}
        self._settled = codebook is not None
        self._ids = np.zeros(0, np.int64)
        self._vectors = np.zeros((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self._ids) if self._settled else len(self._first)

    def add(self, keyframe_id: int, descriptors: Float32Array) -> None:
        """Add a keyframe with its unit descriptors (N, D); ids must ascend."""
        if self._settled and self._codebook is not None:
            self._append(keyframe_id, self._codebook.describe(descriptors))
            return
        self._first[keyframe_id] = descriptors
        self._codebook = None
        if len(self._first) >= _LEARN_FROM and self._learn():
            self._settled = True
            self._first = {}

    def remove(self, keyframe_id: int) -> None:
        """Remove a keyframe; an unknown id is ignored."""
        self._first.pop(keyframe_id, None)
        kept = self._ids != keyframe_id
        if not kept.all():
            count = len(self._ids)
            self._vectors[: count - 1] = self._vectors[:count][kept]
            self._ids = self._ids[kept]

    def search(self, descriptors: Float32Array) -> tuple[IntArray, Float32Array]:
        """Return the similarity of every keyframe to an image of unit descriptors (N, D).

        Returns:
            Ids (K,), ascending, and cosines (K,); empty while the descriptors are too few to learn
            a codebook.
        """
        if self._codebook is None and not self._learn():
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        assert self._codebook is not None
        return self._similarity(self._codebook.describe(descriptors))

    def similarities(self, keyframe_id: int) -> tuple[IntArray, Float32Array]:
        """Return the similarity of every keyframe to one of them, as `search` does."""
        if self._codebook is None:
            self._learn()
        rows = np.flatnonzero(self._ids == keyframe_id)
        if len(rows) == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        return self._similarity(self._vectors[rows[0]])

    def arrays(self) -> dict[str, Float32Array | IntArray]:
        """Return the codebook, ids and vectors by name; empty without a codebook."""
        if self._codebook is None and not self._learn():
            return {}
        assert self._codebook is not None
        vectors = self._vectors[: len(self._ids)]
        return {"ids": self._ids, "vectors": vectors, **self._codebook.tensors()}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Restore the index from `arrays`, codebook included.

        Vectors of different codebooks cannot be compared, so the stored codebook replaces the
        current one.

        Raises:
            KeyError: An array is missing.
            ValueError: Arrays disagree in shape.
        """
        codebook = Codebook(arrays["codebook.centres"], arrays.get("codebook.projection"))
        ids, vectors = arrays["ids"], arrays["vectors"]
        if vectors.shape != (len(ids), codebook.centres.size):
            raise ValueError(
                f"the place index has vectors {vectors.shape} for {counted(len(ids), 'keyframe')}"
            )
        self._codebook, self._settled, self._first = codebook, True, {}
        self._ids, self._vectors = ids.copy(), vectors.copy()

    def _similarity(self, vector: Float32Array) -> tuple[IntArray, Float32Array]:
        if len(self._ids) == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        return self._ids, self._vectors[: len(self._ids)] @ vector

    def _append(self, keyframe_id: int, vector: Float32Array) -> None:
        count = len(self._ids)
        if count == len(self._vectors):
            grown = np.zeros((max(64, 2 * count), len(vector)), np.float32)
            grown[:count] = self._vectors if count else 0
            self._vectors = grown
        self._vectors[count] = vector
        self._ids = np.append(self._ids, keyframe_id)

    def _learn(self) -> bool:
        """Learn a codebook from the first keyframes; False: they have too few descriptors."""
        rng = np.random.default_rng(self._seed)
        taken = [
            found[np.sort(rng.permutation(len(found))[:_PER_KEYFRAME])]
            for found in self._first.values()
            if len(found)
        ]
        if sum(map(len, taken)) < CLUSTERS:
            return False
        self._codebook = learn_codebook(np.concatenate(taken), seed=self._seed)
        self._ids, self._vectors = np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
        for keyframe_id, descriptors in self._first.items():
            self._append(keyframe_id, self._codebook.describe(descriptors))
        return True
