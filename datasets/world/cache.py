"""Cache the textures of the built-in worlds in the user's cache folder; it may fail harmlessly."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path

import cv2
import numpy as np

from spslam.errors import OutputError
from spslam.io.files import cache_folder
from spslam.io.sealed import SealError, read_sealed, write_sealed
from spslam.notices import notice
from spslam.typing import FloatArray

from .render import LEVELS, TextureAtlas, build_atlas, face_densities
from .scene import Face

_log = logging.getLogger(__name__)

# Version of the textures and their packing; raise it when either changes.
_VERSION = 2


def cached_atlas(
    name: str, faces: list[Face], texels_per_m: float, seed: int, levels: int = LEVELS
) -> TextureAtlas:
    """Load the atlas of an earlier call with equal arguments, or call `build_atlas` and store it.

    Args:
        name: name of the layout, for the file's name.
        faces: the faces to draw.
        texels_per_m: density of the textures, 1/m.
        seed: seed of the textures.
        levels: number of mip levels.
    """
    path = _path(name, faces, texels_per_m, seed, levels)
    atlas = _load(path, face_densities(faces, texels_per_m), levels) if path is not None else None
    if atlas is None:
        atlas = build_atlas(faces, texels_per_m, seed, levels)
        if path is not None:
            _store(path, atlas)
    return atlas


def _path(name: str, faces: list[Face], texels_per_m: float, seed: int, levels: int) -> Path | None:
    # Other versions of OpenCV may draw other letters, other versions of NumPy other random numbers.
    versions = (_VERSION, cv2.__version__, np.__version__)
    digest = hashlib.sha256(repr((versions, texels_per_m, seed)).encode())
    if levels != LEVELS:
        digest.update(str(levels).encode())
    for face in faces:
        digest.update(face.corners.tobytes() + face.normal.tobytes() + face.style.encode())
        if face.twin_of is not None:
            digest.update(str(face.twin_of).encode())
        if (face.density, face.tone) != (1.0, 0):
            digest.update(repr((face.density, face.tone)).encode())
    try:
        return cache_folder() / "worlds" / f"{name}-{digest.hexdigest()[:16]}.textures"
    except RuntimeError:  # The user has no home folder.
        return None


def _load(path: Path, densities: FloatArray, levels: int) -> TextureAtlas | None:
    try:
        with np.load(io.BytesIO(read_sealed(path)), allow_pickle=False) as stored:
            return TextureAtlas(
                stored["image"], stored["corner"], stored["span"], densities, levels
            )
    except FileNotFoundError:
        return None
    except (OSError, SealError) as error:
        notice(_log, "damaged_cache", "%s; its textures are drawn again", error)
        return None


def _store(path: Path, atlas: TextureAtlas) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, image=atlas.image, corner=atlas.corner, span=atlas.span)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(path, buffer.getbuffer())
    except (OSError, OutputError) as error:
        _log.info("textures are not cached: %s", error)
