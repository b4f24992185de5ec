"""Views of spots of rendered worlds."""

import numpy as np

from spslam.datasets.world.viewpoints import SpotViews


def test_views_of_a_spot_see_it_from_several_sides() -> None:
    world = SpotViews("demo-small@11", (96, 128), 40.0)
    views = world.views(3, 4)
    assert len(views) == 4
    camera = world.camera
    assert (camera.width, camera.height) == (128, 96)
    # Points of view 0 near its middle, seen in the others at the depth that they have there.
    rows, columns = (grid.ravel() for grid in np.mgrid[40:56:4, 54:74:4])
    depth = views[0].depth[rows, columns].astype(np.float64)
    rays = np.c_[columns, rows, np.ones(len(rows))] @ np.linalg.inv(camera.K).T
    points = rays * depth[:, None] @ views[0].T_world_cam[:3, :3].T + views[0].T_world_cam[:3, 3]
    angles = []
    for view in views[1:]:
        local = (points - view.T_world_cam[:3, 3]) @ view.T_world_cam[:3, :3]
        u, v = (np.rint(local[:, :2] / local[:, 2:] @ camera.K[:2, :2].T + camera.K[:2, 2])).T
        inside = (u >= 0) & (u < 128) & (v >= 0) & (v < 96)
        seen = view.depth[v[inside].astype(int), u[inside].astype(int)]
        assert inside.mean() > 0.3
        assert (np.abs(seen - local[inside, 2]) < 0.1 * local[inside, 2]).mean() > 0.5
        cosine = view.T_world_cam[:3, 2] @ views[0].T_world_cam[:3, 2]
        angles.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    assert max(angles) > 10


def test_equal_numbers_give_equal_bytes() -> None:
    first, again = (SpotViews("demo-small@11", (48, 64), 40.0).views(2, 2) for _ in range(2))
    assert np.array_equal(first[1].image, again[1].image)
    other = SpotViews("demo-small@12", (48, 64), 40.0).views(2, 2)
    assert not np.array_equal(first[1].T_world_cam, other[1].T_world_cam)
