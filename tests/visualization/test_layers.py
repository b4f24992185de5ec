"""The drawn layers of a scene, and the keys that change them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from room_scene import room, room_scene

from spslam.errors import ConfigError
from spslam.visualization.controls import KEYS, Controls, keys_help
from spslam.visualization.layers import (
    LAYERS,
    Lines,
    Look,
    Points,
    check_layers,
    color_bar,
    draw_layers,
    frame_map_view,
    legend,
    thicken_hairs,
)

FRAMING = frame_map_view(room_scene(), 4 / 3)


def test_every_layer_is_drawn_and_named_in_the_legend() -> None:
    drawn = draw_layers(room_scene(), Look(), FRAMING)
    assert drawn.keys() == LAYERS.keys()
    texts = [text for text, _ in legend(room_scene(), Look(), FRAMING)]
    assert texts == [
        "trajectory, 100 poses",
        "ground truth",
        "10 keyframes",
        "keyframes that share points",
        "1 closed loop",
        "3000 of 3050 points",
        "grid: 0.5 m",
    ]
    colors = dict(legend(room_scene(), Look(), FRAMING))
    for text, name in (
        ("trajectory, 100 poses", "trajectory"),
        ("ground truth", "truth"),
        ("1 closed loop", "loops"),
    ):
        layer = drawn[name]
        assert isinstance(layer, Lines) and layer.color == colors[text]


@pytest.mark.parametrize("name", LAYERS)
def test_a_key_hides_its_layer_and_brings_it_back(name: str) -> None:
    controls = Controls()
    press = controls.bindings()[LAYERS[name]]
    everything = draw_layers(room_scene(), controls.look, FRAMING).keys()
    press()
    assert draw_layers(room_scene(), controls.look, FRAMING).keys() == everything - {name}
    assert len(legend(room_scene(), controls.look, FRAMING)) == len(everything) - 1
    assert controls.changed
    press()
    assert draw_layers(room_scene(), controls.look, FRAMING).keys() == everything


def test_keys_change_colours_background_and_time() -> None:
    controls = Controls(changed=False)
    keys = controls.bindings()
    assert keys.keys() == KEYS.keys()
    colors = []
    for _ in range(2):
        keys["C"]()
        colors.append(controls.look.colors)
    assert colors == ["age", "height"]
    light = controls.look.palette.background
    keys["B"]()
    assert np.mean(controls.look.palette.background) < 0.2 < 0.9 < np.mean(light)
    keys["F"]()
    assert controls.following
    keys["R"]()
    assert controls.take_home() and not controls.take_home() and not controls.following
    keys["SPACE"]()
    assert controls.playing
    keys["RIGHT"]()
    keys["RIGHT"]()
    keys["LEFT"]()
    assert (controls.take_steps(), controls.take_steps(), controls.playing) == (1, 0, False)
    assert all(f"{key} " in keys_help() for key in KEYS)


def test_points_are_coloured_by_height_and_by_age() -> None:
    points = room()[0]
    by_height = draw_layers(room_scene(), Look(), FRAMING)["points"]
    by_age = draw_layers(room_scene(), Look(colors="age"), FRAMING)["points"]
    assert isinstance(by_height, Points) and isinstance(by_age, Points)
    high = by_height.positions[:, 1] < -1.3
    np.testing.assert_allclose(
        by_height.colors[high], [Look().palette.height[-1]] * high.sum(), atol=0.2
    )
    np.testing.assert_allclose(
        by_height.colors[by_height.positions[:, 1] > 1.4][0], Look().palette.height[0]
    )
    np.testing.assert_allclose(by_age.colors[0], Look().palette.age[0], atol=0.01)
    # The strays at the end of the list are the newest; they are left out.
    assert len(by_age.colors) == len(points) - 50
    assert np.abs(by_age.colors[-1] - Look().palette.age[-1]).max() < 0.05
    assert color_bar(room_scene(), Look(), FRAMING) == (
        Look().palette.height,
        "low points, 0 m",
        "2.84 m",
    )
    assert color_bar(room_scene(), Look(hidden=frozenset({"points"})), FRAMING) is None


def test_the_path_breaks_where_tracking_was_lost() -> None:
    times = room_scene().times.copy()
    times[50:] += 20.0
    lines = draw_layers(room_scene(times=times), Look(), FRAMING)["trajectory"]
    assert isinstance(lines, Lines) and len(lines.starts) == 98
    whole = draw_layers(room_scene(), Look(), FRAMING)["trajectory"]
    assert isinstance(whole, Lines) and len(whole.starts) == 99


def test_a_loop_between_equal_positions_is_visible() -> None:
    # After a closed loop, keyframes 0 and 9 differ (9 of 10 of a round); 3 and 3 are equal.
    lines = draw_layers(room_scene(loops=np.array([[3, 3]])), Look(), FRAMING)["loops"]
    assert isinstance(lines, Lines)
    at = room_scene().keyframes[3, :3, 3]
    heights = (np.concatenate([lines.starts, lines.ends]) - at) @ FRAMING.up
    assert heights.min() == pytest.approx(0.0)
    assert heights.max() == pytest.approx(4.0 * FRAMING.frustum)
    np.testing.assert_allclose(lines.starts[0], at)


def test_the_grid_lies_on_the_ground_plane_in_round_steps() -> None:
    lines = draw_layers(room_scene(), Look(), FRAMING)["grid"]
    assert isinstance(lines, Lines)
    np.testing.assert_allclose(lines.starts[:, 1], 1.5, atol=1e-6)
    assert FRAMING.square == 0.5
    upright = lines.starts[np.abs(lines.starts[:, 0] - lines.ends[:, 0]) < 1e-9]
    np.testing.assert_allclose(
        np.diff(upright[:, 0]), np.sign(np.diff(upright[:, 0])) * 0.5, atol=1e-9
    )


def test_the_latest_camera_is_drawn_while_a_run_is_played() -> None:
    early = room_scene().until(2.0)
    camera = draw_layers(early, Look(), FRAMING, moving=True)["camera"]
    assert isinstance(camera, Lines)
    np.testing.assert_allclose(camera.starts[0], early.trajectory[-1, :3, 3])
    assert "camera" not in draw_layers(early, Look(), FRAMING)
    assert "camera" not in draw_layers(early, Look().toggled("trajectory"), FRAMING, moving=True)


def test_nearly_empty_scenes_are_drawn_without_failing() -> None:
    none = np.zeros((0, 4, 4))
    nothing = room_scene(
        points=np.zeros((0, 3)), keyframes=none, trajectory=none, ground_truth=none,
        covisible=np.zeros((0, 2), int), loops=np.zeros((0, 2), int), depth=0.0,
    )  # fmt: skip
    for scene in (
        nothing,
        replace(nothing, points=np.ones((1, 3)), point_times=np.ones(1), point_ages=np.ones(1)),
    ):
        framing = frame_map_view(scene, 4 / 3)
        drawn = draw_layers(scene, Look(), framing, moving=True)
        assert np.isfinite(framing.viewpoint.T_cam_world).all()
        assert drawn.keys() <= {"points", "grid"}


def test_unknown_layers_are_named_in_the_error() -> None:
    assert check_layers(["grid", "grid"]) == {"grid"}
    with pytest.raises(
        ConfigError, match="no layer named 'gird': expected one of points, trajectory"
    ):
        check_layers(["gird"])


def test_hairs_have_the_same_width_in_pixels_at_every_depth() -> None:
    view = FRAMING.viewpoint
    drawn = draw_layers(room_scene(), Look(), FRAMING)
    thick = thicken_hairs(drawn, view, 2.0)
    assert {name for name in drawn if thick[name] is not drawn[name]} == {"covisibility", "grid"}
    grid = thick["grid"]
    assert isinstance(grid, Lines) and not grid.hairs
    ends = np.stack([grid.starts, grid.ends], axis=1)
    depths = ends @ view.T_cam_world[2, :3] + view.T_cam_world[2, 3]
    # The width in pixels at the distance of the scene is the same at every depth.
    np.testing.assert_allclose(np.asarray(grid.width) * view.distance / depths, 2.0)
    # A line that starts behind the camera widens from zero.
    behind = view.T_cam_world[2, :3] * (-view.distance - view.T_cam_world[2, 3])
    through = thicken_hairs({"one": Lines(behind[None], ends[:1, 1], (0.0, 0.0, 0.0))}, view, 2.0)[
        "one"
    ]
    assert isinstance(through, Lines)
    assert np.asarray(through.width)[0, 0] == 0.0 < np.asarray(through.width)[0, 1]
