"""Measure a mesh of a run on a built-in world against the true faces of the world.

    python tools/mesh_accuracy.py runs/x               the files that spslam mesh wrote
    python tools/mesh_accuracy.py runs/x --true-poses  a new mesh, with the true poses

The run is aligned with the ground truth by the mean difference of their poses. Distances are
from the vertices of the mesh to the nearest true face. Completeness is the fraction of the true
surface, seen by the fused frames in the range of depths, that has the mesh within 2 cm.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spslam.camera import Camera
from spslam.datasets.world.scene import Face
from spslam.datasets.world.world import RenderedWorld, is_world, open_world, world_faces
from spslam.dense.depth_images import DepthSettings
from spslam.dense.reconstruct import MeshSettings, reconstruct
from spslam.dense.run_poses import FinishedRun, read_run
from spslam.geometry import apply, inverse, orthonormalize
from spslam.trajectory import Trajectory
from spslam.typing import FloatArray, IntArray
from spslam.visualization.open3d_window import import_open3d

# Points whose distances are computed at once.
_CHUNK = 20_000
# Distance within which the true surface counts as found, metres.
WITHIN_M = 0.02
# Step between the sampled pixels of a true depth image, in x and y; grid of the samples, metres.
_PIXEL_STEP, _SAMPLE_M = 4, 0.02


@dataclass(frozen=True)
class Accuracy:
    """Distances of vertices to the true faces, metres, and the fraction of them that was found."""

    median_m: float
    p95_m: float
    completeness: float


def distances_to_faces(points: FloatArray, faces: list[Face]) -> FloatArray:
    """Return the distance (N,) of points (N, 3) to the nearest of the rectangles, metres."""
    found = [_distances(part, faces) for part in np.array_split(points, len(points) // _CHUNK + 1)]
    return np.concatenate(found)


def _distances(points: FloatArray, faces: list[Face]) -> FloatArray:
    nearest = np.full(len(points), np.inf)
    for face in faces:
        local = points - face.origin
        across = local @ face.normal
        beside = [
            np.maximum(np.abs(local @ axis - size / 2) - size / 2, 0.0)
            for axis, size in zip((face.axis_s, face.axis_t), face.size, strict=True)
        ]
        nearest = np.minimum(nearest, np.sqrt(across**2 + beside[0] ** 2 + beside[1] ** 2))
    return nearest


def visible_surface(
    world: RenderedWorld, rows: list[int], min_depth_m: float, max_depth_m: float
) -> FloatArray:
    """Return points (N, 3) of the true surface in the images of `rows`, one a grid cell."""
    points = [_seen(world, row, min_depth_m, max_depth_m) for row in rows]
    joined = np.concatenate(points)
    _, first = np.unique(np.floor(joined / _SAMPLE_M).astype(np.int64), axis=0, return_index=True)
    return joined[first]


def _seen(world: RenderedWorld, row: int, least: float, most: float) -> FloatArray:
    camera: Camera = world.camera
    pixels = np.stack(
        np.meshgrid(
            np.arange(0, camera.width, _PIXEL_STEP), np.arange(0, camera.height, _PIXEL_STEP)
        ),
        axis=-1,
    ).reshape(-1, 2)
    depth = world.depth(row)[pixels[:, 1], pixels[:, 0]].astype(np.float64)
    used = (depth > 0) & (depth >= least) & (depth <= most)
    assert world.ground_truth is not None
    pose = world.ground_truth.T_world_cam[row]
    return apply(pose, camera.unproject(pixels[used].astype(np.float64), depth[used]))


def distances_to_mesh(points: FloatArray, vertices: FloatArray, triangles: IntArray) -> FloatArray:
    """Return the distance (N,) of points (N, 3) to a mesh, metres."""
    open3d = import_open3d("a mesh")
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        open3d.core.Tensor(vertices.astype(np.float32)),
        open3d.core.Tensor(triangles.astype(np.uint32)),
    )
    found = scene.compute_distance(open3d.core.Tensor(points.astype(np.float32))).numpy()
    return np.asarray(found, dtype=np.float64)


def to_true_world(trajectory: Trajectory, truth: Trajectory) -> FloatArray:
    """Return the transform (4, 4) of a run's world to that of the ground truth.

    It is the mean over the poses. A fit to positions alone would turn the world by the errors of
    the positions divided by the length of the path, which is shorter than the room.
    """
    true = truth.select(_nearest(truth, trajectory)).T_world_cam
    return np.asarray(orthonormalize((true @ inverse(trajectory.T_world_cam)).mean(axis=0)))


def _nearest(truth: Trajectory, trajectory: Trajectory) -> IntArray:
    steps = np.abs(truth.timestamps - trajectory.timestamps[:, None])
    return np.asarray(steps.argmin(axis=1), dtype=np.int64)


def measure(
    world: RenderedWorld,
    rows: list[int],
    vertices: FloatArray,
    triangles: IntArray,
    depths_m: tuple[float, float],
) -> Accuracy:
    """Measure a mesh in the true world.

    Args:
        world: the world.
        rows: the fused frames.
        vertices: (V, 3), metres.
        triangles: (T, 3) rows of vertices.
        depths_m: range of depths that was fused, metres.
    """
    distances = distances_to_faces(vertices, world_faces(world.spec))
    seen = visible_surface(world, rows, *depths_m)
    found = distances_to_mesh(seen, vertices, triangles) <= WITHIN_M
    return Accuracy(
        float(np.median(distances)), float(np.percentile(distances, 95)), float(found.mean())
    )


def with_true_poses(run: FinishedRun, truth: Trajectory) -> FinishedRun:
    """Return the run with the true poses at its stamps."""
    return replace(run, trajectory=truth.select(_nearest(truth, run.trajectory)))


def main(arguments: list[str]) -> int:
    """Print the accuracy of a run's mesh."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path)
    parser.add_argument("--true-poses", action="store_true")
    given = parser.parse_args(arguments)
    run = read_run(given.run)
    numbers = json.loads((given.run / "mesh.json").read_text(encoding="utf-8"))
    name = run.recording["path"]
    if not is_world(name):
        print(f"{name} is no built-in world: its true surface is unknown")
        return 2
    world = open_world(name, run.sensor)
    assert world.ground_truth is not None
    if given.true_poses:
        run = with_true_poses(run, world.ground_truth)
        depth = DepthSettings(numbers["min_depth_m"], numbers["max_depth_m"])
        settings = MeshSettings(
            numbers["voxel_m"],
            numbers["truncation_m"],
            numbers["every"],
            numbers["min_observations"],
            depth=depth,
        )
        made = reconstruct(run, world, settings, lambda _: None, lambda _: True).surface
        vertices, triangles = made.vertices.astype(np.float64), made.triangles
    else:
        mesh = import_open3d("a mesh").io.read_triangle_mesh(str(given.run / "mesh.ply"))
        T = to_true_world(run.trajectory, world.ground_truth)
        vertices = apply(T, np.asarray(mesh.vertices))
        triangles = np.asarray(mesh.triangles, dtype=np.int64)
    stamps = run.trajectory.timestamps[:: numbers["every"]]
    rows = [int(np.abs(world.timestamps - stamp).argmin()) for stamp in stamps]
    found = measure(
        world, rows, vertices, triangles, (numbers["min_depth_m"], numbers["max_depth_m"])
    )
    print(
        f"{len(vertices)} vertices, voxels of {numbers['voxel_m']:g} m: "
        f"{1e3 * found.median_m:.1f} mm median, {1e3 * found.p95_m:.1f} mm 95 %, "
        f"{100 * found.completeness:.1f} % of the seen surface within {1e2 * WITHIN_M:g} cm"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
