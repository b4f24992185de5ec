"""Render textured rectangles in NumPy with z-buffer, mip maps and four samples a pixel.

On the plane of a face, 1/z and the texture coordinates times 1/z are affine in the pixel
coordinates. So every step is whole-array arithmetic over the bounding box of the face. Pixel (0, 0)
is the centre of the first pixel; texture coordinates are metres on the face.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import DTypeLike, NDArray

from spslam.camera import Camera
from spslam.typing import FloatArray

from .scene import Face
from .street.textures import is_street, street_texture
from .texture import face_texture

# Offsets of the samples from the centre of a pixel, pixels. A rotated grid has four different
# columns and rows, so near-vertical and near-horizontal edges get five grey levels.
_SAMPLE_OFFSETS = np.array([[-0.125, -0.375], [0.375, -0.125], [-0.375, 0.125], [0.125, 0.375]])
SAMPLES = len(_SAMPLE_OFFSETS)
# Factors on the footprint of each sample: each sample rounds its mip level differently, and their
# mean blends two levels without a visible seam.
_LEVEL_DITHER = np.exp2(np.array([0.125, 0.625, 0.375, 0.875])).astype(np.float32)[:, None, None]
# Number of mip levels.
LEVELS = 6
# Mask that rounds a positive float32 down to a power of two.
_EXPONENT_BITS = np.int32(0x7F800000)
# Number of faces in view from which they are drawn from near to far and hidden ones are skipped.
_MANY_FACES = 128
# Distance of the near plane, metres; nearer surfaces are clipped.
_NEAR_M = 0.05
# Size of a sample, pixels: across the slope of a face, and along it (there are four rows of
# samples).
_FOOTPRINT_ACROSS, _FOOTPRINT_ALONG = 0.5, 0.25


@dataclass(frozen=True, eq=False)
class TextureAtlas:
    """The mip maps of all faces in one image.

    The maps of a face lie one below the other. The map at level L begins (1 - 2^-L) · `span` below
    the first, so that the place of a texel needs no table.

    Attributes:
        image: (H, W) uint8.
        corner: (F, 2) float64, pixel (x, y) in `image` of the texture coordinate 0 of each finest
            map, that is of the outer edge of its first texel.
        span: (F,) float64, pixels; gives the places of the coarser maps.
        texels_per_m: (F,) float64, densities of the finest maps, 1/m.
        levels: number of mip levels.
    """

    image: NDArray[np.uint8]
    corner: FloatArray
    span: FloatArray
    texels_per_m: FloatArray
    levels: int = LEVELS


def build_atlas(
    faces: list[Face], texels_per_m: float, seed: int, levels: int = LEVELS
) -> TextureAtlas:
    """Draw and pack the textures of `faces`.

    The texture of a face depends on the seed and the position of the face, or of its twin, in the
    list.

    Args:
        faces: the faces to draw.
        texels_per_m: density of the finest maps of faces of density 1, 1/m.
        seed: seed of the textures.
        levels: number of mip levels.
    """
    densities = face_densities(faces, texels_per_m)
    # Size of a texel of the coarsest level, in texels of the finest.
    coarsest = 1 << (levels - 1)
    metres = np.array([face.size for face in faces])
    sizes = np.ceil(metres * densities[:, None] / coarsest).astype(np.int64) * coarsest
    # Leave room for one texel of border on either side of the coarsest map.
    pitch = sizes[:, 1] + 2 * coarsest
    corners, atlas_shape = _pack(np.stack([sizes[:, 0] + 2, 2 * pitch], axis=1))
    image = np.zeros(atlas_shape, dtype=np.uint8)
    for i, face in enumerate(faces):
        columns, rows = sizes[i]
        rng = np.random.default_rng([seed, i if face.twin_of is None else face.twin_of])
        draw = street_texture if is_street(face.style) else face_texture
        texture = draw(face, (int(rows), int(columns)), float(densities[i]), rng)
        x, y = corners[i]
        for level in range(levels):
            if level:
                size = (texture.shape[1] // 2, texture.shape[0] // 2)
                texture = np.asarray(
                    cv2.resize(texture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8
                )
            h, w = texture.shape
            top = int(y + 2 * (pitch[i] - (pitch[i] >> level)))
            # Add one texel of border: bilinear interpolation needs it at the edge of the face.
            image[top : top + h + 2, x : x + w + 2] = cv2.copyMakeBorder(
                texture, 1, 1, 1, 1, cv2.BORDER_REPLICATE
            )
    return TextureAtlas(
        image, corners.astype(np.float64) + 0.5, 2.0 * pitch.astype(np.float64), densities, levels
    )


def face_densities(faces: list[Face], texels_per_m: float) -> FloatArray:
    """Return the density (F,) of each face's finest map, 1/m."""
    return texels_per_m * np.array([face.density for face in faces])


def _pack(sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Pack rectangles of `sizes` (F, 2) on shelves; return corners (F, 2) and the whole's shape."""
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
    """Faces in front of one camera.

    Attributes:
        index: (V,) int64, rows of the list of faces.
        inverse_depth, s_over_z, t_over_z: (V, 3) float64, coefficients of 1/z, s/z and t/z in
            (x, y, 1), with (x, y) in pixels and (s, t) the texture coordinates in metres.
        outline: V polygons (M, 2), pixels, clipped at the near plane.
        slope: (V,) float64; slope · z² is the larger side of a pixel's footprint, metres.
    """

    index: NDArray[np.int64]
    inverse_depth: FloatArray
    s_over_z: FloatArray
    t_over_z: FloatArray
    outline: list[FloatArray]
    slope: FloatArray


class _Scratch(threading.local):
    """Arrays of one thread that keep their memory between faces and frames.

    The operating system takes longer to provide fresh memory than the arithmetic to fill it.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an uninitialized array, valid until the thread requests `name` again."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(size, dtype=np.uint8)
        return buffer[:size].view(dtype).reshape(shape)


class Renderer:
    """Render images and depth of faces with one pinhole camera; threads may share it.

    Args:
        faces: the faces.
        atlas: their textures.
        camera: the camera.
        sample: take only this one of the `SAMPLES` samples of a pixel; None: all.
        background: grey level without a face.
    """

    def __init__(
        self,
        faces: list[Face],
        atlas: TextureAtlas,
        camera: Camera,
        sample: int | None = None,
        background: int = 0,
    ) -> None:
        taken = slice(None) if sample is None else slice(sample, sample + 1)
        self._offsets, self._dither = _SAMPLE_OFFSETS[taken], _LEVEL_DITHER[taken]
        self._camera = camera
        self._atlas = atlas
        self._background = background
        self._scratch = _Scratch()
        self._corners = np.stack([face.corners for face in faces])
        velocity = np.array([face.velocity for face in faces])
        self._velocity = velocity[:, None] if velocity.any() else None
        self._axes = np.stack([np.stack([face.axis_s, face.axis_t, face.normal]) for face in faces])

    def image(self, T_world_cam: FloatArray, time_s: float = 0.0) -> NDArray[np.float32]:
        """Render the image seen from `T_world_cam` (4, 4) at a time, seconds.

        Returns:
            (H, W) float32, grey values from 0 to 255; the background's without a face.
        """
        view = self._look(T_world_cam, time_s)
        face, inverse_depth = self._visibility(view, self._offsets)
        map_x, map_y = self._texture_maps(view, face, inverse_depth)
        height, width = self._camera.height, self._camera.width
        flat = (len(self._offsets) * height, width)
        samples = self._scratch.array("samples", flat, np.uint8)
        cv2.remap(
            self._atlas.image,
            map_x.reshape(flat),
            map_y.reshape(flat),
            cv2.INTER_LINEAR,
            dst=samples,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=self._background,
        )
        total = samples.reshape(-1, height, width).sum(axis=0, dtype=np.uint16)
        mean: NDArray[np.float32] = total.astype(np.float32) / np.float32(len(self._offsets))
        return mean

    def depth(self, T_world_cam: FloatArray, time_s: float = 0.0) -> NDArray[np.float32]:
        """Render the depth seen from `T_world_cam` (4, 4) at a time, seconds.

        Returns:
            (H, W) float32, depth along the optical axis at the pixel centres, metres; 0 without a
            face.
        """
        face, inverse_depth = self._visibility(self._look(T_world_cam, time_s), np.zeros((1, 2)))
        seen = face[0] >= 0
        depth = np.zeros(seen.shape, dtype=np.float32)
        np.divide(1.0, inverse_depth[0], out=depth, where=seen)
        return depth

    def _look(self, T_world_cam: FloatArray, time_s: float) -> _View:
        R, centre = T_world_cam[:3, :3], T_world_cam[:3, 3]
        world = self._corners
        if self._velocity is not None:
            world = world + time_s * self._velocity
        corners = (world - centre) @ R
        axes = self._axes @ R
        origin = corners[:, 0]
        distance = np.einsum("fi,fi->f", axes[:, 2], origin)
        possible = (distance < -1e-6) & (corners[:, :, 2].max(axis=1) > _NEAR_M)
        possible &= self._in_frustum(corners)
        outlines = [self._outline(corners[i]) if possible[i] else None for i in range(len(corners))]
        index = np.array(
            [i for i, outline in enumerate(outlines) if outline is not None], dtype=np.int64
        )
        origin, axes, distance = origin[index], axes[index], distance[index]
        camera = self._camera
        # Maps (x, y, 1) in pixels to the ray with z = 1.
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

    def _in_frustum(self, corners: FloatArray) -> NDArray[np.bool_]:
        """Return (F,) bool: which faces (F, 4, 3) are not wholly beyond one side of the view."""
        camera = self._camera
        x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
        inside = np.ones(len(corners), dtype=np.bool_)
        for position, focal, middle, size in (
            (x, camera.fx, camera.cx, camera.width),
            (y, camera.fy, camera.cy, camera.height),
        ):
            # One pixel of margin keeps what `_outline` would keep.
            inside &= (focal * position + (middle + 1.5) * z > 0).any(axis=1)
            inside &= (focal * position + (middle - size - 0.5) * z < 0).any(axis=1)
        return inside

    def _outline(self, corners: FloatArray) -> FloatArray | None:
        """Return the polygon (M, 2) of a face, pixels; None if it is not in view."""
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
        self, view: _View, offsets: FloatArray
    ) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """Find the nearest face at each pixel plus each of `offsets` (S, 2), pixels.

        Returns:
            (S, H, W) rows of `view`, -1 without a face, and their 1/z, 1/m. Both lie in scratch
            memory and are valid until this thread renders again.
        """
        scratch, shape = self._scratch, (len(offsets), self._camera.height, self._camera.width)
        face, nearest = (
            scratch.array("face", shape, np.int16),
            scratch.array("nearest", shape, np.float32),
        )
        face.fill(-1)
        nearest.fill(0.0)
        for i in self._order(view):
            outline = view.outline[i]
            if self._hidden(view, i, nearest):
                continue
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

    def _order(self, view: _View) -> Iterable[int]:
        """Return rows of `view`: from near to far where many faces hide others."""
        if len(view.outline) < _MANY_FACES:
            return range(len(view.outline))
        nearest = [
            (np.column_stack([outline, np.ones(len(outline))]) @ view.inverse_depth[i]).min()
            for i, outline in enumerate(view.outline)
        ]
        order: list[int] = np.argsort(-np.array(nearest), kind="stable").tolist()
        return order

    def _hidden(self, view: _View, i: int, nearest: NDArray[np.float32]) -> bool:
        """Return whether nearer faces cover the bounding box of a face in every sample (S, H, W).

        Few samples are looked at first, which tells most visible faces.
        """
        if len(view.outline) < _MANY_FACES:
            return False
        outline = view.outline[i]
        low = np.maximum(np.floor(outline.min(axis=0) - 0.5), 0).astype(int)
        high = np.minimum(
            np.ceil(outline.max(axis=0) + 0.5), (self._camera.width - 1, self._camera.height - 1)
        ).astype(int)
        box = nearest[:, low[1] : high[1] + 1, low[0] : high[0] + 1]
        a, b, c = view.inverse_depth[i]
        own = np.float32((outline[:, 0] * a + outline[:, 1] * b + c).max())
        sparse = box[0, :: max(box.shape[1] // 8, 1), :: max(box.shape[2] // 8, 1)]
        return bool(sparse.min() > own) and bool(box.min() > own)

    def _grid(
        self, outline: FloatArray, offsets: FloatArray
    ) -> tuple[FloatArray, FloatArray, tuple[slice, slice, slice]]:
        """Return samples x (S, 1, w), y (S, h, 1) in an outline's bounding box, and the box."""
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
        """Return the positions x and y, (S, H, W), of every sample in the atlas, in scratch memory.

        Samples without a face get positions outside of the atlas.
        """
        scratch = self._scratch
        map_x = scratch.array("map_x", face.shape, np.float32)
        map_y = scratch.array("map_y", face.shape, np.float32)
        map_x.fill(-10.0)
        map_y.fill(-10.0)
        for i, outline in enumerate(view.outline):
            x, y, region = self._grid(outline, self._offsets)
            texels = self._atlas.texels_per_m[view.index[i]]
            x, y, region = self._grid(outline, self._offsets)
            box = (len(face), y.shape[1], x.shape[2])
            seen = np.equal(face[region], i, out=scratch.array("wins", box, np.bool_))
            rows, columns = seen.any(axis=(0, 2)).nonzero()[0], seen.any(axis=(0, 1)).nonzero()[0]
            if len(rows) == 0:
                continue
            tight = (slice(None), slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            seen, x, y = seen[tight], x[:, :, tight[2]], y[:, tight[1]]
            z_scaled, scale = self._mip_scale(inverse_depth[region][tight], view.slope[i], texels)
            corner, span = self._atlas.corner[view.index[i]], self._atlas.span[view.index[i]]
            position = scratch.array("position", seen.shape, np.float32)
            _affine(view.s_over_z[i] * texels, x, y, position)
            position *= z_scaled
            position += np.float32(corner[0])
            np.copyto(map_x[region][tight], position, where=seen)
            _affine(view.t_over_z[i] * texels, x, y, position)
            position *= z_scaled
            # The map at scale 2^-L begins (1 - 2^-L) spans below the finest map.
            scale *= np.float32(-span)
            position += scale
            position += np.float32(corner[1] + span)
            np.copyto(map_y[region][tight], position, where=seen)
        return map_x, map_y

    def _mip_scale(
        self, inverse_depth: NDArray[np.float32], slope: float, texels: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return z · 2^-L and 2^-L, where L is the mip level of each sample (S, h, w) of one face.

        Args:
            inverse_depth: (S, h, w) float32, 1/z of the samples, 1/m.
            slope: entry of `_View.slope` for the face.
            texels: density of the face's finest map, 1/m.
        """
        z = self._scratch.array("z", inverse_depth.shape, np.float32)
        np.maximum(inverse_depth, np.float32(1e-3), out=z)
        np.divide(1.0, z, out=z)
        footprint = self._scratch.array("footprint", inverse_depth.shape, np.float32)
        np.multiply(z, np.float32(_FOOTPRINT_ALONG * slope * texels), out=footprint)
        np.maximum(
            footprint, np.float32(_FOOTPRINT_ACROSS * texels / self._camera.fx), out=footprint
        )
        footprint *= z
        footprint *= self._dither
        np.clip(footprint, 1.0, 1 << (self._atlas.levels - 1), out=footprint)
        # The footprint of a sample in texels, rounded down to a power of two, gives its mip level.
        bits = footprint.view(np.int32)
        bits &= _EXPONENT_BITS
        scale = np.divide(1.0, footprint, out=footprint)
        z *= scale
        return z, scale


def _affine(
    coefficients: FloatArray, x: FloatArray, y: FloatArray, out: NDArray[np.float32]
) -> None:
    """Fill `out` (S, h, w) with coefficients · (x, y, 1) for x (S, 1, w) and y (S, h, 1)."""
    a, b, c = coefficients
    np.add((a * x).astype(np.float32), (b * y + c).astype(np.float32), out=out)


def _clip_near(corners: FloatArray) -> FloatArray:
    """Clip a polygon (M, 3) in camera coordinates at the near plane (Sutherland & Hodgman)."""
    if corners[:, 2].min() >= _NEAR_M:
        return corners
    kept = []
    for current, following in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if current[2] >= _NEAR_M:
            kept.append(current)
        if (current[2] >= _NEAR_M) != (following[2] >= _NEAR_M):
            fraction = (_NEAR_M - current[2]) / (following[2] - current[2])
            kept.append(current + fraction * (following - current))
    return np.array(kept).reshape(-1, 3)


def _row_spans(
    outline: FloatArray, y: FloatArray
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the x, each shaped as `y`, at which rows enter and leave a convex polygon (M, 2).

    The span is empty (entry at infinity, exit at minus infinity) for rows that miss the polygon.
    """
    left, right = np.full(y.shape, np.inf), np.full(y.shape, -np.inf)
    corners = outline.tolist()
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y0 == y1:
            continue
        crossed = (y >= min(y0, y1)) & (y < max(y0, y1))
        crossing = x0 + (y - y0) * ((x1 - x0) / (y1 - y0))
        np.minimum(left, crossing, out=left, where=crossed)
        np.maximum(right, crossing, out=right, where=crossed)
    return left.astype(np.float32), right.astype(np.float32)
