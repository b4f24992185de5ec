"""Localise views from aside in a saved map, with and without a learned matcher.

    python tools/localize_aside.py demo-small --angle 45
    python tools/localize_aside.py demo --frames 75 --angle 60 --walk 0 --matcher my.safetensors

A stereo map of a built-in world is made. Single views of one camera are then localised in it, each
on its own. Each camera of another walk through the world (`--walk 0`: of the same path) is moved
aside by the angle, right and left in turn, around the point that it looks at. Views without room
for the camera, or whose camera does not see that point, are left out. A pose counts as wrong above
0.25 m or 5 degrees.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import numpy as np

from spslam.config import load_config
from spslam.datasets.world.render import Renderer, build_atlas
from spslam.datasets.world.scene import LAYOUTS
from spslam.datasets.world.world import RenderedWorld, world_spec
from spslam.factory import build_components
from spslam.frame import Frame
from spslam.geometry import make_transform
from spslam.io.markdown import format_table
from spslam.map.io import SavedMap, load_map
from spslam.slam.system import Slam
from spslam.typing import FloatArray

# Errors up to which a pose is right.
RIGHT_M, RIGHT_DEG = 0.25, 5.0
# Least distance of a camera from walls, metres, and largest relative error of the depth at which a
# camera sees the point.
_MARGIN_M, _DEPTH_TOLERANCE = 0.25, 0.05


@dataclass(frozen=True)
class Tried:
    """What became of the views: right and wrong poses, processor seconds."""

    right: int
    wrong: int
    seconds: float


def views_aside(
    world: RenderedWorld, walk: int, angle_deg: float, frames: int, step: int
) -> Iterator[tuple[Frame, FloatArray]]:
    """Yield views and their true `T_world_cam`.

    Args:
        world: a rendered world.
        walk: seed of another walk along its path; 0: the path itself.
        angle_deg: angle by which each camera is moved aside.
        frames: number of the path's frames.
        step: frames from one view to the next.
    """
    spec = replace(world.spec, walk=walk)
    path = RenderedWorld(spec, "mono")
    layout = LAYOUTS[spec.layout]()
    faces = layout.faces()
    renderer = Renderer(faces, build_atlas(faces, spec.texels_per_m, spec.seed), path.camera)
    truth = path.ground_truth
    assert truth is not None
    rng = np.random.default_rng(0)
    for number, pose in enumerate(truth.T_world_cam[:frames:step]):
        moved = _moved_aside(renderer, pose, np.radians(angle_deg) * (-1) ** number)
        if moved is None or not layout.free(moved[None, :3, 3], _MARGIN_M)[0]:
            continue
        image = renderer.image(moved)
        noisy = image + rng.normal(0, spec.noise_sigma, image.shape)
        grey = np.rint(noisy).clip(0, 255).astype(np.uint8)
        yield Frame(number, float(number), path.camera, grey), moved


def _moved_aside(renderer: Renderer, pose: FloatArray, turn: float) -> FloatArray | None:
    """Turn a pose about the vertical axis through the point it looks at; None if that is hidden."""
    distance = _middle_depth(renderer, pose)
    if distance <= 0:
        return None
    target = pose[:3, 3] + distance * pose[:3, 2]
    turned = np.array(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    )
    moved = make_transform(turned @ pose[:3, :3], target + turned @ (pose[:3, 3] - target))
    seen = _middle_depth(renderer, moved)
    return moved if abs(seen - distance) <= _DEPTH_TOLERANCE * distance else None


def _middle_depth(renderer: Renderer, pose: FloatArray) -> float:
    depth = renderer.depth(pose)
    return float(depth[depth.shape[0] // 2, depth.shape[1] // 2])


def make_map(world: RenderedWorld, frames: int) -> SavedMap:
    """Run stereo SLAM on the first frames of a world, and return the saved map."""
    slam = Slam.from_config("demo_stereo")
    for index in range(min(frames, len(world))):
        slam.track(world[index])
    slam.finish()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "map.npz")
        slam.save_map(path)
        return load_map(path)


def localise(
    saved: SavedMap,
    views: list[tuple[Frame, FloatArray]],
    T_world_map: FloatArray,
    given: list[str],
) -> Tried:
    """Localise each view on its own, with the settings `given` (KEY=VALUE)."""
    config = load_config("demo_mono", given)
    components = build_components(config)
    right = wrong = 0
    seconds = 0.0
    for frame, truth in views:
        slam = Slam(config, components, saved, localization_only=True)
        observations = slam.preprocessor.observe(frame)
        begun = process_time()
        found = slam.track(frame, observations).T_world_cam
        seconds += process_time() - begun
        if found is not None:
            good = _is_right(T_world_map @ found, truth)
            right, wrong = right + good, wrong + (not good)
    return Tried(right, wrong, seconds)


def _is_right(pose: FloatArray, truth: FloatArray) -> bool:
    cosine = (np.trace(truth[:3, :3].T @ pose[:3, :3]) - 1) / 2
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return bool(np.linalg.norm(pose[:3, 3] - truth[:3, 3]) <= RIGHT_M and angle <= RIGHT_DEG)


def main() -> None:
    """Print a table with a row for each matcher."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("world", help="a built-in world that is no street")
    parser.add_argument("--angle", type=float, default=45.0, help="degrees")
    parser.add_argument("--walk", type=int, default=5, help="seed of the other walk")
    parser.add_argument("--frames", type=int, default=10**6, help="most frames of map and walk")
    parser.add_argument("--step", type=int, default=2, help="frames from one view to the next")
    parser.add_argument("--matcher", action="append", default=[], help="weights; repeatable")
    given = parser.parse_args()

    world = RenderedWorld(world_spec(given.world), "stereo")
    saved = make_map(world, given.frames)
    truth = world.ground_truth
    assert truth is not None
    views = list(views_aside(world, given.walk, given.angle, given.frames, given.step))
    rows = []
    for name in ("off", *given.matcher):
        chosen = [f"matching.learned={name if name == 'off' else 'on'}"]
        if name not in ("off", "on"):
            chosen.append(f"matching.weights={name}")
        # The map's world is the camera of its first frame.
        tried = localise(saved, views, truth.T_world_cam[0], chosen)
        share = f"{tried.right} ({tried.right / max(len(views), 1):.0%})"
        each = f"{1e3 * tried.seconds / max(len(views), 1):.0f} ms"
        rows.append([name, str(len(views)), share, str(tried.wrong), each])
    print(format_table(["matcher", "views", "right", "wrong", "processor time a view"], rows))


if __name__ == "__main__":
    main()
