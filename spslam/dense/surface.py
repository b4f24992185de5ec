"""A coloured triangle mesh: order, small components, and its PLY file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from spslam.io.files import write_atomic
from spslam.typing import BoolArray, Float32Array, IntArray, UInt8Array

_VERTEX = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    + [(name, "u1") for name in ("red", "green", "blue")]
)
_TRIANGLE = np.dtype([("count", "u1"), ("corners", "<i4", (3,))])
_KINDS = {"<f4": "float", "u1": "uchar", "|u1": "uchar"}


@dataclass(frozen=True, eq=False)
class Surface:
    """A triangle mesh.

    Attributes:
        vertices: (V, 3) float32, metres.
        normals: (V, 3) float32, unit vectors that point to the cameras.
        colors: (V, 3) uint8, red first.
        triangles: (T, 3) int64, rows of vertices.
    """

    vertices: Float32Array
    normals: Float32Array
    colors: UInt8Array
    triangles: IntArray

    def keep(self, chosen: BoolArray) -> Surface:
        """Return the mesh of the chosen triangles (T,) and their vertices."""
        triangles = self.triangles[chosen]
        used = np.zeros(len(self.vertices), dtype=bool)
        used[triangles] = True
        number = np.cumsum(used) - 1
        return Surface(
            self.vertices[used], self.normals[used], self.colors[used], number[triangles]
        )


def make_surface(
    vertices: Float32Array,
    normals: Float32Array,
    colors: Float32Array,
    triangles: IntArray | None = None,
) -> Surface:
    """Make a mesh whose vertices and triangles have an order that depends on their values only.

    Parallel extraction gives them in another order each time. Equal vertices become one, and
    triangles with two equal corners are left out.

    Args:
        vertices: (V, 3) float32, metres.
        normals: (V, 3) float32; not finite: becomes 0.
        colors: (V, 3) float32, 0 to 1, red first.
        triangles: (T, 3) rows of vertices; None: no triangles.
    """
    levels = np.clip(np.rint(colors * 255.0), 0, 255)
    # Adding 0 makes -0 to 0: both are equal, but their bytes differ.
    table = np.concatenate([vertices, np.nan_to_num(normals), levels], axis=1) + np.float32(0)
    order = np.lexsort(table.T[::-1])
    ordered = table[order]
    first = np.ones(len(table), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    number = np.empty(len(table), dtype=np.int64)
    number[order] = np.cumsum(first) - 1
    kept = ordered[first]
    corners = np.zeros((0, 3), np.int64) if triangles is None else number[triangles]
    return Surface(
        np.ascontiguousarray(kept[:, :3]),
        np.ascontiguousarray(kept[:, 3:6]),
        kept[:, 6:].astype(np.uint8),
        _ordered_triangles(corners),
    )


def _ordered_triangles(corners: IntArray) -> IntArray:
    """Turn triangles (T, 3) so that the lowest corner comes first, and sort them."""
    turn = corners.argmin(axis=1)[:, None] if len(corners) else np.zeros((0, 1), np.int64)
    turned = np.take_along_axis(corners, (turn + np.arange(3)) % 3, axis=1)
    whole = (turned[:, 0] != turned[:, 1]) & (turned[:, 1] != turned[:, 2])
    whole &= turned[:, 0] != turned[:, 2]
    turned = turned[whole]
    ordered: IntArray = turned[np.lexsort(turned.T[::-1])]
    return ordered


def without_small_components(surface: Surface, min_triangles: int) -> tuple[Surface, int]:
    """Leave out connected components with fewer triangles, which are mostly noise.

    Args:
        surface: the mesh.
        min_triangles: smallest number of triangles of a component that is kept.

    Returns:
        The mesh, and the number of components that were left out.
    """
    triangles, count = surface.triangles, len(surface.vertices)
    if len(triangles) == 0:
        return surface, 0
    starts, ends = triangles[:, :2].ravel(), triangles[:, 1:].ravel()
    graph = coo_array((np.ones(len(starts), np.int8), (starts, ends)), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    owner = label[triangles[:, 0]]
    sizes = np.bincount(owner)
    small = (sizes > 0) & (sizes < min_triangles)
    return surface.keep(~small[owner]), int(np.count_nonzero(small))


def write_surface(path: Path, surface: Surface, *, with_triangles: bool = True) -> None:
    """Write a mesh, or only its vertices, as binary little-endian PLY.

    Args:
        path: the file.
        surface: the mesh.
        with_triangles: also write the triangles.

    Raises:
        OutputError: the file cannot be written.
    """
    vertices = np.empty(len(surface.vertices), dtype=_VERTEX)
    columns = np.concatenate([surface.vertices, surface.normals], axis=1)
    for column, name in enumerate(_VERTEX.names or ()):
        vertices[name] = columns[:, column] if column < 6 else surface.colors[:, column - 6]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {_KINDS[_VERTEX[name].str]} {name}" for name in _VERTEX.names or ()]
    body = vertices.tobytes()
    if with_triangles:
        faces = np.empty(len(surface.triangles), dtype=_TRIANGLE)
        faces["count"], faces["corners"] = 3, surface.triangles
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        body += faces.tobytes()
    write_atomic(path, "\n".join([*header, "end_header", ""]).encode("ascii") + body)
