"""Perspective-correct rendering of textured rectangles in NumPy: z-buffer, mip maps, four samples a pixel.

A face's plane makes 1/z and the texture coordinates times 1/z affine in the pixel coordinates, so every step is
whole-array arithmetic over the face's bounding box. Coordinates are exact: pixel (0, 0) is the centre of the first
pixel, texture coordinates are metres on the face.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray

from spslam.camera import Camera

from .scene import Face
from .texture import face_texture

Array = NDArray[np.float64]

# A rotated grid: four different columns and rows a pixel, so near-vertical and near-horizontal edges get five levels.
_SAMPLE_OFFSETS = np.array([[-0.125, -0.375], [0.375, -0.125], [-0.375, 0.125], [0.125, 0.375]])
# Each sample rounds its mip level differently, so that their mean blends two levels without a visible seam.
_LEVEL_DITHER = np.exp2(np.array([0.125, 0.625, 0.375, 0.875])).astype(np.float32)[:, None, None]
_LEVELS = 6
_COARSEST = 1 << (_LEVELS - 1)
# Of a positive float32, these bits alone are the power of two below it.
_EXPONENT_BITS = np.int32(0x7F800000)
_NEAR_M = 0.05
# What a sample covers, in pixels: half of one across the slope of a face, a quarter along it (four rows of samples).
_FOOTPRINT_ACROSS, _FOOTPRINT_ALONG = 0.5, 0.25


@dataclass(frozen=True, eq=False)
class TextureAtlas:
    """The mip maps of all faces in one image.

    A face's maps stand under each other. The map at level L begins (1 - 2^-L) · `span` below the first, so that
    the place of a texel needs no table.

    Attributes:
        image: (H, W) uint8.
        corner: (F, 2) float64, pixel (x, y) in `image` of each finest map's texture coordinate 0, that is of the
            outer edge of its first texel.
        span: (F,) float64, pixels.
        texels_per_m: density of the finest maps.
    """

    image: NDArray[np.uint8]
    corner: Array
    span: Array
    texels_per_m: float


def build_atlas(faces: list[Face], texels_per_m: float, seed: int) -> TextureAtlas:
    """Draws and packs the textures of `faces`; each depends on the seed and its place in the list (or its twin's)."""
    sizes = (
        np.ceil(np.array([face.size for face in faces]) * texels_per_m / _COARSEST).astype(np.int64)
        * _COARSEST
    )
    # Room for one texel of border on either side of the coarsest map, and in proportion around the others.
    pitch = sizes[:, 1] + 2 * _COARSEST
    corners, atlas_shape = _pack(np.stack([sizes[:, 0] + 2, 2 * pitch], axis=1))
    image = np.zeros(atlas_shape, dtype=np.uint8)
    for i, face in enumerate(faces):
        columns, rows = sizes[i]
        rng = np.random.default_rng([seed, i if face.twin_of is None else face.twin_of])
        texture = face_texture(face, (int(rows), int(columns)), texels_per_m, rng)
        x, y = corners[i]
        for level in range(_LEVELS):
            if level:
                size = (texture.shape[1] // 2, texture.shape[0] // 2)
                texture = np.asarray(
                    cv2.resize(texture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8
                )
            h, w = texture.shape
            top = int(y + 2 * (pitch[i] - (pitch[i] >> level)))
            # One texel of border lets bilinear interpolation run up to the edge of the face.
            image[top : top + h + 2, x : x + w + 2] = cv2.copyMakeBorder(
                texture, 1, 1, 1, 1, cv2.BORDER_REPLICATE
            )
    return TextureAtlas(
        image, corners.astype(np.float64) + 0.5, 2.0 * pitch.astype(np.float64), texels_per_m
    )


def _pack(sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Upper left corners (F, 2) of rectangles (F, 2) on shelves, and the shape of the whole."""
    shelf_width = max(int(sizes[:, 0].max()), int(np.sqrt(np.prod(sizes, axis=1).sum())))
    corners = np.zeros_like(sizes)
    x = y = shelf_height = 0
    for i in np.argsort(-sizes[:, 1], kind="stable"):
        if x + sizes[i, 0] > shelf_width:
            x, y, shelf_height = 0, y + shelf_height, 0
        corners[i] = x, y
        x += int(sizes[i, 0])
        shelf_height = max(shelf_height, int(sizes[i, 1]))
    return corners, (y + shelf_height, shelf_width)


@dataclass(frozen=True, eq=False)
class _View:
    """Faces in front of one camera. 1/z = inverse_depth · (x, y, 1) and s/z, t/z alike, (x, y) in pixels.

    Attributes:
        index: (V,) int64, rows of the list of faces.
        inverse_depth, s_over_z, t_over_z: (V, 3) float64.
        outline: V polygons (M, 2), pixels, clipped at the near plane.
        slope: (V,) float64, major footprint in metres = slope · z².
    """

    index: NDArray[np.int64]
    inverse_depth: Array
    s_over_z: Array
    t_over_z: Array
    outline: list[Array]
    slope: Array


class _Scratch(threading.local):
    """Arrays of one thread that keep their memory between faces and frames: the operating system takes longer to
    hand out fresh pages than the arithmetic takes to fill them.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array with whatever was left in it, valid until the thread asks for `name` again."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers[name] = np.empty(size, dtype=np.uint8)
        return self._buffers[name][:size].view(dtype).reshape(shape)


class Renderer:
    """Renders images and depth of a fixed set of faces with one pinhole camera; threads may share it."""

    def __init__(self, faces: list[Face], atlas: TextureAtlas, camera: Camera) -> None:
        self._camera = camera
        self._atlas = atlas
        self._scratch = _Scratch()
        self._corners = np.stack([face.corners for face in faces])
        self._axes = np.stack([np.stack([face.axis_s, face.axis_t, face.normal]) for face in faces])

    def image(self, T_world_cam: Array) -> NDArray[np.float32]:
        """(H, W) float32 grey values in [0, 255] seen from `T_world_cam` (4, 4); 0 where there is no face."""
        view = self._look(T_world_cam)
        face, inverse_depth = self._visibility(view, _SAMPLE_OFFSETS)
        map_x, map_y = self._texture_maps(view, face, inverse_depth)
        height, width = self._camera.height, self._camera.width
        flat = (len(_SAMPLE_OFFSETS) * height, width)
        samples = self._scratch.array("samples", flat, np.uint8)
        cv2.remap(
            self._atlas.image,
            map_x.reshape(flat),
            map_y.reshape(flat),
            cv2.INTER_LINEAR,
            dst=samples,
            borderMode=cv2.BORDER_CONSTANT,
        )
        total = samples.reshape(-1, height, width).sum(axis=0, dtype=np.uint16)
        mean: NDArray[np.float32] = total.astype(np.float32) / np.float32(len(_SAMPLE_OFFSETS))
        return mean

    def depth(self, T_world_cam: Array) -> NDArray[np.float32]:
        """(H, W) float32 depth along the optical axis at the pixels' centres, metres; 0 where there is no face."""
        face, inverse_depth = self._visibility(self._look(T_world_cam), np.zeros((1, 2)))
        seen = face[0] >= 0
        depth = np.zeros(seen.shape, dtype=np.float32)
        np.divide(1.0, inverse_depth[0], out=depth, where=seen)
        return depth

    def _look(self, T_world_cam: Array) -> _View:
        R, centre = T_world_cam[:3, :3], T_world_cam[:3, 3]
        corners = (self._corners - centre) @ R
        axes = self._axes @ R
        origin = corners[:, 0]
        distance = np.einsum("fi,fi->f", axes[:, 2], origin)
        possible = (distance < -1e-6) & (corners[:, :, 2].max(axis=1) > _NEAR_M)
        outlines = [self._outline(corners[i]) if possible[i] else None for i in range(len(corners))]
        index = np.array(
            [i for i, outline in enumerate(outlines) if outline is not None], dtype=np.int64
        )
        origin, axes, distance = origin[index], axes[index], distance[index]
        camera = self._camera
        # (x, y, 1) in pixels to the ray with z = 1.
        to_ray = np.array(
            [
                [1 / camera.fx, 0, -camera.cx / camera.fx],
                [0, 1 / camera.fy, -camera.cy / camera.fy],
                [0, 0, 1],
            ]
        )
        inverse_depth = axes[:, 2] @ to_ray / distance[:, None]
        along = np.einsum("fai,fi->fa", axes[:, :2], origin)
        s_over_z = axes[:, 0] @ to_ray - along[:, :1] * inverse_depth
        t_over_z = axes[:, 1] @ to_ray - along[:, 1:] * inverse_depth
        kept = [outline for outline in outlines if outline is not None]
        slope = 1.0 / (camera.fx * np.abs(distance))
        return _View(index, inverse_depth, s_over_z, t_over_z, kept, slope)

    def _outline(self, corners: Array) -> Array | None:
        """The face's polygon (M, 2) in pixels, or None if it is out of sight."""
        clipped = _clip_near(corners)
        if len(clipped) < 3:
            return None
        outline = self._camera.project(clipped)
        low, high = outline.min(axis=0), outline.max(axis=0)
        if (
            (high < -0.5).any()
            or low[0] > self._camera.width - 0.5
            or low[1] > self._camera.height - 0.5
        ):
            return None
        return outline

    def _visibility(
        self, view: _View, offsets: Array
    ) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """(S, H, W) rows of `view` seen at the pixels plus `offsets` (S, 2), -1 for none, and their 1/z.

        Both lie in scratch memory: they last until this thread renders again.
        """
        scratch, shape = self._scratch, (len(offsets), self._camera.height, self._camera.width)
        face, nearest = (
            scratch.array("face", shape, np.int16),
            scratch.array("nearest", shape, np.float32),
        )
        face.fill(-1)
        nearest.fill(0.0)
        for i, outline in enumerate(view.outline):
            x, y, region = self._grid(outline, offsets)
            left, right = _row_spans(outline, y[..., 0])
            candidate = scratch.array(
                "position", (len(offsets), y.shape[1], x.shape[2]), np.float32
            )
            _affine(view.inverse_depth[i], x, y, candidate)
            wins = np.greater(
                candidate, nearest[region], out=scratch.array("wins", candidate.shape, np.bool_)
            )
            x32 = x.astype(np.float32)
            for compare, bound in ((np.greater_equal, left), (np.less, right)):
                wins &= compare(
                    x32, bound[..., None], out=scratch.array("inside", wins.shape, np.bool_)
                )
            np.copyto(nearest[region], candidate, where=wins)
            np.copyto(face[region], np.int16(i), where=wins)
        return face, nearest

    def _grid(
        self, outline: Array, offsets: Array
    ) -> tuple[Array, Array, tuple[slice, slice, slice]]:
        """Sample coordinates x (S, 1, w) and y (S, h, 1) over the outline's bounding box, and that box."""
        low = np.maximum(np.floor(outline.min(axis=0) - 0.5), 0).astype(int)
        high = np.minimum(
            np.ceil(outline.max(axis=0) + 0.5), (self._camera.width - 1, self._camera.height - 1)
        )
        columns, rows = np.arange(low[0], int(high[0]) + 1), np.arange(low[1], int(high[1]) + 1)
        region = (slice(None), slice(low[1], int(high[1]) + 1), slice(low[0], int(high[0]) + 1))
        return columns + offsets[:, :1, None], rows[:, None] + offsets[:, 1:, None], region

    def _texture_maps(
        self, view: _View, face: NDArray[np.int16], inverse_depth: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(S, H, W) positions in the atlas of every sample, in scratch memory; outside of it where there is no
        face.
        """
        scratch = self._scratch
        map_x = scratch.array("map_x", face.shape, np.float32)
        map_y = scratch.array("map_y", face.shape, np.float32)
        map_x.fill(-10.0)
        map_y.fill(-10.0)
        texels = self._atlas.texels_per_m
        for i, outline in enumerate(view.outline):
            x, y, region = self._grid(outline, _SAMPLE_OFFSETS)
            box = (len(face), y.shape[1], x.shape[2])
            seen = np.equal(face[region], i, out=scratch.array("wins", box, np.bool_))
            rows, columns = seen.any(axis=(0, 2)).nonzero()[0], seen.any(axis=(0, 1)).nonzero()[0]
            if len(rows) == 0:
                continue
            tight = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            seen, x, y = seen[tight], x[:, :, tight[2]], y[:, tight[1]]
            z_scaled, scale = self._mip_scale(inverse_depth[region][tight], view.slope[i])
            corner, span = self._atlas.corner[view.index[i]], self._atlas.span[view.index[i]]
            position = scratch.array("position", seen.shape, np.float32)
            _affine(view.s_over_z[i] * texels, x, y, position)
            position *= z_scaled
            position += np.float32(corner[0])
            np.copyto(map_x[region][tight], position, where=seen)
            _affine(view.t_over_z[i] * texels, x, y, position)
            position *= z_scaled
            # The map at scale 2^-L begins (1 - 2^-L) spans below the finest.
            scale *= np.float32(-span)
            position += scale
            position += np.float32(corner[1] + span)
            np.copyto(map_y[region][tight], position, where=seen)
        return map_x, map_y

    def _mip_scale(
        self, inverse_depth: NDArray[np.float32], slope: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Z · 2^-L and 2^-L of the mip level L of each sample (S, h, w) of one face with 1/z `inverse_depth`."""
        texels = self._atlas.texels_per_m
        z = self._scratch.array("z", inverse_depth.shape, np.float32)
        np.maximum(inverse_depth, np.float32(1e-3), out=z)
        np.divide(1.0, z, out=z)
        footprint = self._scratch.array("footprint", inverse_depth.shape, np.float32)
        np.multiply(z, np.float32(_FOOTPRINT_ALONG * slope * texels), out=footprint)
        np.maximum(
            footprint, np.float32(_FOOTPRINT_ACROSS * texels / self._camera.fx), out=footprint
        )
        footprint *= z
        footprint *= _LEVEL_DITHER
        np.clip(footprint, 1.0, _COARSEST, out=footprint)
        # What a sample covers, in texels, rounded down to a power of two is the scale of its mip map.
        bits = footprint.view(np.int32)
        bits &= _EXPONENT_BITS
        scale = np.divide(1.0, footprint, out=footprint)
        z *= scale
        return z, scale


def _affine(coefficients: Array, x: Array, y: Array, out: NDArray[np.float32]) -> None:
    """Fills `out` (S, h, w) with coefficients · (x, y, 1) over columns x (S, 1, w) and rows y (S, h, 1)."""
    a, b, c = coefficients
    np.add((a * x).astype(np.float32), (b * y + c).astype(np.float32), out=out)


def _clip_near(corners: Array) -> Array:
    """A polygon (M, 3) in camera coordinates without what lies nearer than the near plane (Sutherland & Hodgman)."""
    kept = []
    for current, following in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if current[2] >= _NEAR_M:
            kept.append(current)
        if (current[2] >= _NEAR_M) != (following[2] >= _NEAR_M):
            share = (_NEAR_M - current[2]) / (following[2] - current[2])
            kept.append(current + share * (following - current))
    return np.array(kept).reshape(-1, 3)


def _row_spans(outline: Array, y: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where rows at `y` (...) enter and leave a convex polygon (M, 2): x (...) each, empty where they miss it."""
    left, right = np.full(y.shape, np.inf), np.full(y.shape, -np.inf)
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crossed = (y >= min(y0, y1)) & (y < max(y0, y1))
        crossing = x0 + (y - y0) * ((x1 - x0) / (y1 - y0))
        np.copyto(left, np.minimum(left, crossing), where=crossed)
        np.copyto(right, np.maximum(right, crossing), where=crossed)
    return left.astype(np.float32), right.astype(np.float32)
