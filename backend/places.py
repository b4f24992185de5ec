"""Place recognition: which key frames of a map show the place that an image shows.

Images are compared by one vector each, the VLAD of their descriptors over a codebook (see `spslam.codebook`); there is
no vocabulary file. The codebook comes with the network's weights; without one it is learned from the first key frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spslam.codebook import CLUSTERS, Codebook, learn_codebook

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]

# A codebook of one's own needs a few hundred descriptors a cluster, of different views.
_LEARN_FROM = 20
_PER_KEYFRAME = 300


class PlaceIndex:
    """Key frames by what they look like (a `spslam.interfaces.PlaceRecognizer`).

    Args:
        codebook: of the extractor; None: learned from the first 20 key frames. Who searches earlier has one learned
            from those that there are.
        seed: of the codebook that is learned.
    """

    def __init__(self, codebook: Codebook | None = None, seed: int = 0) -> None:
        self._codebook = codebook
        self._seed = seed
        # Descriptors by id, as long as a codebook is to be learned from them.
        self._first: dict[int, Floats] = {}
        self._settled = codebook is not None
        self._ids = np.zeros(0, np.int64)
        self._vectors = np.zeros((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self._ids) if self._settled else len(self._first)

    def add(self, keyframe_id: int, descriptors: Floats) -> None:
        """Take up a key frame with its unit descriptors (N, D); ids must ascend."""
        if self._settled and self._codebook is not None:
            self._append(keyframe_id, self._codebook.describe(descriptors))
            return
        self._first[keyframe_id] = descriptors
        self._codebook = None
        if len(self._first) >= _LEARN_FROM and self._learn():
            self._settled = True
            self._first = {}

    def remove(self, keyframe_id: int) -> None:
        """Forget a key frame; one that is not there is none."""
        self._first.pop(keyframe_id, None)
        kept = self._ids != keyframe_id
        if not kept.all():
            count = len(self._ids)
            self._vectors[: count - 1] = self._vectors[:count][kept]
            self._ids = self._ids[kept]

    def search(self, descriptors: Floats) -> tuple[Ids, Floats]:
        """All key frames and how much each looks like an image of unit descriptors (N, D).

        Returns:
            Ids (K,), ascending, and cosines (K,); none as long as there are too few descriptors for a codebook.
        """
        if self._codebook is None and not self._learn():
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        assert self._codebook is not None
        return self._likeness(self._codebook.describe(descriptors))

    def similarities(self, keyframe_id: int) -> tuple[Ids, Floats]:
        """All key frames and how much each looks like one of them; as `search`."""
        if self._codebook is None:
            self._learn()
        rows = np.flatnonzero(self._ids == keyframe_id)
        if len(rows) == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        return self._likeness(self._vectors[rows[0]])

    def arrays(self) -> dict[str, Floats | Ids]:
        """The codebook, ids and vectors; nothing as long as there is no codebook."""
        if self._codebook is None and not self._learn():
            return {}
        assert self._codebook is not None
        vectors = self._vectors[: len(self._ids)]
        return {"ids": self._ids, "vectors": vectors, **self._codebook.tensors()}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take up what `arrays` gave; the codebook, too, for vectors of another one cannot be compared.

        Raises:
            KeyError, ValueError: arrays are missing or disagree in shape.
        """
        codebook = Codebook(arrays["codebook.centres"], arrays.get("codebook.projection"))
        ids, vectors = arrays["ids"], arrays["vectors"]
        if vectors.shape != (len(ids), codebook.centres.size):
            raise ValueError(
                f"the index of places has vectors {vectors.shape} for {len(ids)} key frames"
            )
        self._codebook, self._settled, self._first = codebook, True, {}
        self._ids, self._vectors = ids.copy(), vectors.copy()

    def _likeness(self, vector: Floats) -> tuple[Ids, Floats]:
        if len(self._ids) == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        return self._ids, self._vectors[: len(self._ids)] @ vector

    def _append(self, keyframe_id: int, vector: Floats) -> None:
        count = len(self._ids)
        if count == len(self._vectors):
            grown = np.zeros((max(64, 2 * count), len(vector)), np.float32)
            grown[:count] = self._vectors if count else 0
            self._vectors = grown
        self._vectors[count] = vector
        self._ids = np.append(self._ids, keyframe_id)

    def _learn(self) -> bool:
        """A codebook from the first key frames, and these described with it; False if they show too little."""
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
