"""Order, small components and the PLY file of a mesh."""

from pathlib import Path

import numpy as np

from spslam.dense.surface import make_surface, without_small_components, write_surface


def strip(count: int, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of a strip of `count` triangles."""
    number = np.arange(count + 2)
    vertices = np.stack([number, number % 2, np.full(count + 2, z)], axis=1).astype(np.float32)
    return vertices, np.stack([number[:-2], number[1:-1], number[2:]], axis=1)


def test_the_order_depends_on_values_only() -> None:
    rng = np.random.default_rng(0)
    vertices, triangles = strip(40, 0.0)
    colors = rng.uniform(0, 1, vertices.shape).astype(np.float32)
    first = make_surface(vertices, vertices, colors, triangles)
    order = rng.permutation(len(vertices))
    back = np.argsort(order)
    shuffled = np.roll(back[triangles][rng.permutation(len(triangles))], 1, axis=1)
    second = make_surface(vertices[order], vertices[order], colors[order], shuffled)
    for name in ("vertices", "normals", "colors", "triangles"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_equal_vertices_become_one_and_triangles_without_area_are_left_out() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [-0.0, 0, 0]], np.float32)
    surface = make_surface(vertices, vertices * 0, vertices * 0, np.array([[0, 1, 2], [0, 3, 2]]))
    assert len(surface.vertices) == 3 and len(surface.triangles) == 1


def test_small_components_are_left_out() -> None:
    (few, three), (many, thirty) = strip(3, 0.0), strip(30, 5.0)
    vertices = np.concatenate([few, many])
    triangles = np.concatenate([three, thirty + len(few)])
    surface = make_surface(vertices, vertices, vertices * 0, triangles)
    kept, left_out = without_small_components(surface, 10)
    assert left_out == 1 and len(kept.triangles) == 30
    assert len(kept.vertices) == 32 and (kept.vertices[:, 2] == 5.0).all()
    assert kept.triangles.max() == 31


def test_ply(tmp_path: Path) -> None:
    vertices, triangles = strip(5, 2.0)
    surface = make_surface(vertices, vertices, np.full_like(vertices, 0.2), triangles)
    write_surface(tmp_path / "a.ply", surface)
    header, _, body = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    assert b"element vertex 7" in header and b"element face 5" in header
    assert len(body) == 7 * 27 + 5 * 13
    assert body[24:27] == bytes([51] * 3)
