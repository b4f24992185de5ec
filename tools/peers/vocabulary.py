"""Make a vocabulary for ORB-SLAM3 (DBoW2, text) from photographs, if the official one is not here.

    python vocabulary.py OUT.txt PHOTOS_FOLDER...

A tree of binary k-means: 10 branches, 6 levels, leaves weighted by inverse frequency. Takes about a
minute for 3,700 photographs of 320×240. Needs NumPy and OpenCV.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

_BRANCHES, _LEVELS = 10, 6
# Descriptors of a photograph, at most, and rounds of k-means.
_OF_A_PHOTO, _ROUNDS = 100, 8
# A branch with at most this number of descriptors is a leaf.
_FEW = 3
_SUFFIXES = {".png", ".jpg", ".jpeg", ".pgm", ".bmp"}


def main() -> None:
    """Read photographs, write the vocabulary."""
    out, *folders = map(Path, sys.argv[1:])
    random = np.random.default_rng(0)
    paths = sorted(
        path for place in folders for path in place.rglob("*") if path.suffix.lower() in _SUFFIXES
    )
    bits = describe(paths, random)
    print(f"{len(paths)} photographs, {len(bits)} descriptors")
    lines: list[str] = []
    split(bits, np.arange(len(bits)), 0, 1, lines, random)
    out.write_text(f"{_BRANCHES} {_LEVELS} 0 0\n" + "".join(lines))
    print(f"{len(lines)} words and branches in {out}")


def describe(paths: list[Path], random: np.random.Generator) -> np.ndarray:
    """Return the bits (N, 256) uint8 of ORB descriptors."""
    orb = cv2.ORB_create(1000)
    found = []
    for path in paths:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        descriptors = None if image is None else orb.detectAndCompute(image, None)[1]
        if descriptors is not None:
            found.append(descriptors[random.permutation(len(descriptors))[:_OF_A_PHOTO]])
    if not found:
        raise SystemExit("no photograph with corners")
    return np.unpackbits(np.concatenate(found), axis=1)


def split(
    bits: np.ndarray,
    rows: np.ndarray,
    parent: int,
    level: int,
    lines: list[str],
    random: np.random.Generator,
) -> None:
    """Write a node's children, each followed by its own: `parent leaf 32 bytes weight`."""
    own = bits[rows].astype(np.float32)
    if len(rows) <= _BRANCHES:
        centres, nearest = own, np.arange(len(rows))
    else:
        centres, nearest = cluster(own, random)
    for index, centre in enumerate(centres):
        members = rows[nearest == index]
        if len(members) == 0:
            continue
        leaf = level == _LEVELS or len(members) <= _FEW
        weight = np.log(len(bits) / len(members)) if leaf else 0.0
        descriptor = " ".join(map(str, np.packbits(centre.astype(np.uint8))))
        lines.append(f"{parent} {int(leaf)} {descriptor} {weight:.6g}\n")
        if not leaf:
            split(bits, members, len(lines), level + 1, lines, random)


def cluster(bits: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cluster bits (N, 256) by Hamming distance; a centre has the majority of each bit."""
    centres = bits[random.choice(len(bits), _BRANCHES, replace=False)]
    for _ in range(_ROUNDS):
        nearest = _nearest(bits, centres)
        sums = np.stack([bits[nearest == index].sum(axis=0) for index in range(_BRANCHES)])
        counts = np.bincount(nearest, minlength=_BRANCHES)[:, None]
        moved = np.where(counts > 0, (2 * sums > counts).astype(np.float32), centres)
        if (moved == centres).all():
            break
        centres = moved
    return centres, _nearest(bits, centres)


def _nearest(bits: np.ndarray, centres: np.ndarray) -> np.ndarray:
    # Hamming distance but for the number of set bits of the descriptor, which all centres share.
    return (bits @ (1.0 - 2.0 * centres).T + centres.sum(axis=1)).argmin(axis=1)


if __name__ == "__main__":
    main()
