"""Views of saved maps: their true matches are the points that two keyframes share."""

from pathlib import Path

import numpy as np
import pytest
import torch
from point_room import PointRoom, components_of, drive, sway

from spslam.cli.learned_matching.map_views import read_map_groups
from spslam.errors import DatasetError, WeightsError
from spslam.frontend.learned_matching.data.true_matches import ViewPoints, true_matches
from spslam.frontend.learned_matching.data.view_store import View
from spslam.map.io import load_map

SIZE = (240, 320)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    room = PointRoom()
    slam, _ = drive(room, sway(60), "stereo")
    path = tmp_path_factory.mktemp("map") / "map.npz"
    slam.save_map(path)
    return path, components_of(room).extractor.identity


def points_of(view: View) -> ViewPoints:
    return ViewPoints(
        torch.from_numpy(view.features.keypoints)[None],
        torch.from_numpy(view.places)[None],
        torch.from_numpy(view.projection)[None],
        torch.ones((1, len(view.places)), dtype=torch.bool),
    )


def test_keyframes_match_where_they_see_the_same_point(saved: tuple[Path, str]) -> None:
    path, identity = saved
    groups = read_map_groups([path], identity, 3)
    assert len(groups.groups) >= 3
    shown = load_map(path).map
    right = judged = 0
    for number, (_, keyframes) in enumerate(groups.groups):
        assert len(set(keyframes)) == 3
        views = groups.views(number, SIZE)
        for view in views:
            assert (view.features.keypoints >= -0.5).all()
            assert (view.features.keypoints <= np.array(SIZE[::-1])).all()
            # The places are seen where the keypoints are, up to the noise of the room.
            known = np.isfinite(view.places[:, 0])
            assert known.sum() >= 20
            seen = np.c_[view.places[known], np.ones(known.sum())] @ view.projection.T
            off = seen[:, :2] / seen[:, 2:] - view.features.keypoints[known]
            assert np.median(np.linalg.norm(off, axis=1)) < 1.5
        index0, _ = true_matches(points_of(views[0]), points_of(views[1]), 3.0, 4.0)
        found = np.flatnonzero(index0[0].numpy() >= 0)
        same = views[0].places[found] == views[1].places[index0[0].numpy()[found]]
        right, judged = right + int(same.all(axis=1).sum()), judged + len(found)
    assert judged > 100
    assert right > 0.9 * judged
    assert {ids[0] for _, ids in groups.groups} <= set(shown.keyframes["id"].tolist())


def test_other_maps_are_refused(saved: tuple[Path, str]) -> None:
    path, identity = saved
    with pytest.raises(WeightsError, match="the matcher is for superpoint other"):
        read_map_groups([path], "superpoint other", 3)
    with pytest.raises(DatasetError, match="shares 20 points with 99 others"):
        read_map_groups([path], identity, 100)
    assert len(read_map_groups([], identity, 3)) == 0
