"""Fusion of depth images in a truncated signed distance field, by Open3D's sparse voxel blocks.

Source: Curless and Levoy, A volumetric method for building complex models from range images,
SIGGRAPH 1996.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spslam.camera import Camera
from spslam.dense.depth_images import DepthImage
from spslam.dense.surface import Surface, make_surface
from spslam.geometry import inverse
from spslam.typing import FloatArray
from spslam.visualization.open3d_window import import_open3d

# Voxels along the side of a block.
_RESOLUTION = 8
# Blocks that memory is reserved for at first.
_FIRST_BLOCKS = 4096
# Factor by which the reserved memory grows.
_GROWTH = 1.5
# Memory of a voxel, bytes: distance, weight and three colours as float32; a copy of them while the
# reserved memory grows, or the indices of vertices while the mesh is extracted.
_VOXEL_BYTES, _WORK_BYTES = 20, 36
_BLOCK_BYTES = (_VOXEL_BYTES + _WORK_BYTES) * _RESOLUTION**3
# Open3D takes the pixel (⌊u⌋, ⌊v⌋) of a projection: its pixels have their centre at 0.5, ours at 0.
_PIXEL_CENTRE = 0.5


class Volume:
    """A distance field with colours.

    Args:
        camera: camera of the depth images, without distortion.
        voxel_m: side of a voxel, metres.
        truncation_m: distance from the surface within which voxels are updated, metres.
        max_memory_mb: largest memory of the field and of the extraction of its mesh, 10⁶ bytes.

    Raises:
        MissingDependencyError: Open3D is missing.
    """

    def __init__(
        self, camera: Camera, voxel_m: float, truncation_m: float, max_memory_mb: float
    ) -> None:
        self._open3d = import_open3d("a mesh")
        core = self._open3d.core
        self._most_blocks = int(max_memory_mb * 1e6 / _BLOCK_BYTES)
        self._reserved = min(_FIRST_BLOCKS, max(self._most_blocks, 1))
        self._grid: Any = self._open3d.t.geometry.VoxelBlockGrid(
            ("tsdf", "weight", "color"),
            (core.float32, core.float32, core.float32),
            ((1), (1), (3)),
            voxel_m,
            _RESOLUTION,
            self._reserved,
        )
        K = camera.K.copy()
        K[:2, 2] += _PIXEL_CENTRE
        self._intrinsic = core.Tensor(K)
        self._truncation = truncation_m / voxel_m
        self._far = float(np.finfo(np.float32).max)

    @property
    def blocks(self) -> int:
        """Number of blocks in use."""
        return int(self._grid.hashmap().size())

    @property
    def memory_mb(self) -> float:
        """Estimated memory of the field and of the extraction of its mesh, 10⁶ bytes."""
        return self.blocks * _BLOCK_BYTES / 1e6

    def integrate(self, image: DepthImage, T_world_cam: FloatArray) -> bool:
        """Fuse a depth image, seen from a pose (4, 4).

        Returns:
            Whether the image was fused; False if the field would exceed its memory.
        """
        core, pictures = self._open3d.core, self._open3d.t.geometry.Image
        # A depth equal to the limit would be dropped.
        limit = min(2.0 * float(image.depth.max(initial=0.0)), self._far)
        if limit == 0.0:
            return True
        depth = pictures(core.Tensor(np.ascontiguousarray(image.depth)))
        color = pictures(core.Tensor(image.color.astype(np.float32) / np.float32(255)))
        extrinsic = core.Tensor(inverse(T_world_cam))
        blocks = self._grid.compute_unique_block_coordinates(
            depth, self._intrinsic, extrinsic, 1.0, limit, self._truncation
        )
        if not self._reserve(blocks):
            return False
        self._grid.integrate(
            blocks,
            depth,
            color,
            self._intrinsic,
            self._intrinsic,
            extrinsic,
            1.0,
            limit,
            self._truncation,
        )
        return True

    def surface(self, min_observations: float) -> Surface:
        """Extract the surface of the voxels that were observed at least so often."""
        nothing = np.zeros((0, 3), np.float32)
        if self.blocks == 0:
            return make_surface(nothing, nothing, nothing)
        # Open3D compares `weight > threshold`, weights are whole numbers.
        mesh = self._grid.extract_triangle_mesh(min_observations - 0.5)
        if "positions" not in mesh.vertex or len(mesh.vertex.positions) == 0:
            return make_surface(nothing, nothing, nothing)
        vertex = mesh.vertex
        return make_surface(
            vertex.positions.numpy(),
            vertex.normals.numpy(),
            vertex.colors.numpy(),
            mesh.triangle.indices.numpy(),
        )

    def _reserve(self, blocks: Any) -> bool:
        """Reserve memory for new blocks; False if they exceed the limit."""
        hashmap = self._grid.hashmap()
        _, known = hashmap.find(blocks)
        needed = self.blocks + int((~known.numpy()).sum())
        if needed > self._most_blocks:
            return False
        if needed > self._reserved:
            wanted = max(needed, int(_GROWTH * self._reserved))
            self._reserved = min(wanted, self._most_blocks)
            hashmap.reserve(self._reserved)
        return True
