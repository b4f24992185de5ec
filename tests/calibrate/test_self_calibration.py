"""Which self-calibrations are used, doubted and refused; the calibration file; a whole one."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
from recordings.made_structures import TRUE, Motion, made_structure

from spslam.calibrate import cached
from spslam.calibrate.adjustment import Adjusted, adjust
from spslam.calibrate.cached import self_calibrate
from spslam.calibrate.model import Intrinsics
from spslam.calibrate.self_calibration import judge, median_parallax_deg
from spslam.calibrate.writing import calibration_text, describe, summary
from spslam.datasets.calibration.calibration import load_calibration
from spslam.datasets.world.world import RenderedWorld, open_world, world_spec
from spslam.errors import CalibrationError
from spslam.geometry import so3_exp

FREE = ("f", "k1", "k2", "cx", "cy")


def adjusted(motion: Motion) -> Adjusted:
    start = Intrinsics.central(TRUE.width, TRUE.height, 560.0)
    return adjust(made_structure(motion, 5), start, FREE)


def recording() -> RenderedWorld:
    return open_world("demo-small", "mono")


def test_a_walk_gives_a_file_that_is_read_back(tmp_path: Path) -> None:
    found = judge(adjusted("walk"), 20, 0.0, recording())
    assert (found.registered, found.images, found.doubts) == (14, 20, ())
    assert abs(found.camera.fx - 520.0) < 4.0 * found.sigmas["f"]
    path = tmp_path / "camera.yaml"
    path.write_text(calibration_text(found, "walk.mp4\nfx: 1"))
    camera = load_calibration(path).camera
    assert camera.fx == pytest.approx(found.camera.fx, abs=1e-4)
    assert camera.distortion == pytest.approx(found.camera.distortion, abs=1e-6)
    assert f"± {found.sigmas['f']:.1f} px" in path.read_text()
    assert "14 of 20 images registered (70 %)" in path.read_text()


def test_turning_in_one_place_is_refused() -> None:
    structure = made_structure("turn", 5)
    assert median_parallax_deg(structure) < 0.5
    start = Intrinsics.central(TRUE.width, TRUE.height, 560.0)
    turned = replace(adjust(made_structure("walk", 5), start, FREE), structure=structure)
    with pytest.raises(CalibrationError, match="too little parallax"):
        judge(turned, 14, 1.0, recording())


def test_motion_straight_on_is_refused_with_its_reason() -> None:
    with pytest.raises(CalibrationError, match="hardly turns"):
        judge(adjusted("forward"), 14, 0.0, recording())


def test_a_plane_is_doubted() -> None:
    walk = adjusted("walk")
    flat = walk.structure.points * (1.0, 1.0, 0.0) + (0.0, 0.0, 6.0)
    plane = replace(walk, structure=replace(walk.structure, points=flat @ so3_exp(np.ones(3)).T))
    found = judge(plane, 14, 0.0, recording())
    assert any("one plane" in doubt for doubt in found.doubts)
    assert "do not trust: all points lie on one plane" in describe(found)
    assert "do not trust" in summary(found)


def test_a_vague_focal_length_is_doubted() -> None:
    walk = adjusted("walk")
    grow = 0.03 * walk.intrinsics["f"] / walk.sigma("f")
    found = judge(replace(walk, covariance=walk.covariance * grow**2), 14, 0.0, recording())
    assert any("known to 3.0 % only" in doubt for doubt in found.doubts)


def write_world(folder: Path, turn_only: bool = False) -> None:
    spec = replace(world_spec("demo-small"), frames=36, fps=10.0)
    world = RenderedWorld(spec, "mono")
    if turn_only:
        poses = cast(np.ndarray, world._T_world_cam)
        poses[:, :3, 3] = poses[0, :3, 3]
        still = poses.copy()
        world._path = lambda times: still[np.rint(times * spec.fps).astype(int)]
    folder.mkdir()
    for frame in world:
        cv2.imwrite(str(folder / f"{frame.index:06d}.png"), frame.image)


@pytest.mark.slow
def test_a_rendered_world_gives_its_camera_twice_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pycolmap")
    monkeypatch.setattr(cached, "cache_folder", lambda: tmp_path / "cache")
    write_world(tmp_path / "images")
    done = self_calibrate(tmp_path / "images")
    # fx is 230.66 px, fy 229.89 px.
    assert done.found.camera.fx == pytest.approx(230.3, rel=0.02)
    assert done.found.registered >= 0.9 * done.found.images
    assert not done.found.fps_known
    # From the cache, and computed again without it.
    assert self_calibrate(tmp_path / "images") == done
    monkeypatch.setattr(cached, "cache_folder", lambda: tmp_path / "other")
    assert self_calibrate(tmp_path / "images").text == done.text


@pytest.mark.slow
def test_a_camera_that_only_turns_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    write_world(tmp_path / "images", turn_only=True)
    with pytest.raises(CalibrationError, match=r"cannot be self-calibrated.*only turns|parallax"):
        self_calibrate(tmp_path / "images")
