"""Each built-in layout on a folder in the published form: what it reads is right in 3D.

Two frames, their depth or disparity, the camera and the ground truth must show one scene: the
points of one frame have the grey values of the other. No alignment can hide a wrong axis, sign,
unit or focal length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import layout_folders as forms
from recordings.layout_folders import Shot, Writer

from spslam.camera import Camera
from spslam.datasets import open_sequence
from spslam.frame import Frame
from spslam.geometry import apply, inverse
from spslam.interfaces import Sequence as FrameSequence
from spslam.notices import shown_notices

# Frames of demo-small: two, and three where one has no pose.
TWO, THREE = (0, 10), (0, 4, 10)


@dataclass(frozen=True)
class Case:
    """A layout: how it is written, its camera, and what it offers.

    Attributes:
        printed: a part of the notices.
        depth_error_m: largest median error of its depth, metres.
        frames: the frames of demo-small.
        posed: which of them have a pose.
    """

    write: Writer
    camera: Camera
    folder: str
    sensor: str = "rgbd"
    printed: str = ""
    depth_error_m: float = 2e-3
    frames: tuple[int, ...] = TWO
    posed: tuple[int, ...] = TWO


def _scannet(folder: Path, shots: Sequence[Shot]) -> Path:
    return forms.scannet(folder, shots, forms.capture(forms.SCANNET_DEPTH, THREE))


CASES = {
    "icl-nuim": Case(
        forms.icl_nuim,
        forms.ICL,
        "living_room_traj0_frei_png",
        printed="fy 480",
        frames=THREE,
        posed=THREE[1:],
    ),
    "icl-nuim-loop": Case(
        forms.icl_nuim_loop, forms.ICL, "living_room_traj0_loop", frames=THREE, posed=THREE
    ),
    "tartanair": Case(
        forms.tartanair, forms.TARTANAIR, "P000", "stereo", printed="a baseline of 0.25 m"
    ),
    "tartanair-v2": Case(forms.tartanair_v2, forms.TARTANAIR_V2, "P001", "stereo"),
    "7-scenes": Case(forms.seven_scenes, forms.SEVEN_SCENES, "seq-01", printed="525 px is a guess"),
    "replica": Case(forms.replica, forms.REPLICA, "Replica/room0", printed="30 images a second"),
    "scannet": Case(
        _scannet,
        forms.SCANNET,
        "scene0000_00",
        printed="resampled to the 648x484",
        depth_error_m=0.01,
        frames=THREE,
    ),
    "eth3d-slam": Case(forms.eth3d, forms.ETH3D, "cables_1"),
    "eth3d-slam-stereo": Case(forms.eth3d_stereo, forms.ETH3D, "cables_2", "stereo"),
    "bonn": Case(forms.bonn, forms.BONN, "rgbd_bonn_balloon", printed="scale of 1.059"),
    "openloris": Case(forms.openloris, forms.OPENLORIS, "cafe1-1"),
}


# Small images: the others take more than 3 seconds.
QUICK = ("replica", "7-scenes", "eth3d-slam")


@pytest.fixture(
    params=[pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in CASES]
)
def case(request: pytest.FixtureRequest) -> tuple[str, Case]:
    return request.param, CASES[request.param]


def shots_of(case: Case) -> tuple[Shot, ...]:
    return forms.capture(case.camera, case.frames, right=case.sensor == "stereo")


def opened(path: Path, **request: object) -> tuple[FrameSequence, str]:
    lines: list[str] = []
    with shown_notices(lambda found: lines.append(found.text)):
        sequence = open_sequence(path, **request)  # type: ignore[arg-type]
        for _ in sequence:
            pass
    return sequence, "\n".join(lines)


def same_motion(truth: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference of poses (N, 4, 4) relative to the first, in camera axes."""
    moved = [inverse(poses[:1]) @ poses for poses in (truth, expected)]
    return float(np.abs(moved[0] - moved[1]).max())


def grey_error(first: Frame, second: Frame, T_second_first: np.ndarray) -> float:
    """Median difference of grey values between the points of one frame seen in another."""
    camera = first.camera
    depth = first.depth
    assert depth is not None
    rows, columns = np.indices(depth.shape)[:, ::9, ::9].reshape(2, -1)
    far = depth[rows, columns]
    pixels = np.stack([columns, rows], axis=1)[far > 0].astype(np.float64)
    points = camera.unproject(camera.undistort(pixels), far[far > 0].astype(np.float64))
    seen = camera.project(apply(T_second_first, points))
    seen = camera.distort(seen) if camera.distortion else seen
    inside = camera.in_image(np.nan_to_num(seen, nan=-1), 2.0)
    assert inside.mean() > 0.3
    x, y = seen[inside].astype(np.float32).T
    blurred = [cv2.GaussianBlur(frame.image, (5, 5), 1.2) for frame in (first, second)]
    other = cv2.remap(blurred[1], x, y, cv2.INTER_LINEAR).ravel()
    own = blurred[0][rows, columns][far > 0][inside]
    return float(np.median(np.abs(other.astype(float) - own)))


def test_a_layout_is_recognised_and_right_in_space(case: tuple[str, Case], tmp_path: Path) -> None:
    name, entry = case
    shots = shots_of(entry)
    folder = entry.write(tmp_path / entry.folder, shots)
    sequence, printed = opened(folder)
    assert (sequence.dataset, sequence.sensor, len(sequence)) == (name, entry.sensor, len(shots))
    assert f"is read by the layout {name} (" in printed and entry.printed in printed
    for frame, shot in zip(sequence, shots, strict=True):
        assert np.abs(frame.image.astype(int) - shot.image).max() <= 20  # JPEG
    for key in ("width", "height", "fx", "fy", "cx", "cy", "distortion_model", "distortion"):
        assert getattr(sequence.camera, key) == pytest.approx(getattr(entry.camera, key)), key
    truth = sequence.ground_truth
    assert truth is not None and not sequence.skipped
    places = [entry.frames.index(index) for index in entry.posed]
    assert len(truth) == len(places)
    expected = np.array([shots[at].T_world_cam for at in places])
    assert same_motion(truth.T_world_cam, expected) < 1e-5
    assert np.linalg.det(truth.T_world_cam[:, :3, :3]) == pytest.approx(1.0)
    # The poses are at the times of their frames.
    assert truth.timestamps == pytest.approx([sequence[at].timestamp for at in places], abs=1e-6)
    if entry.sensor == "rgbd":
        check_depth(sequence, entry, places, shots)
        return
    check_stereo(sequence[0], entry)
    if name.startswith("tartanair"):
        sequence, printed = opened(folder, sensor="rgbd")
        # These files hold floats, in metres.
        assert sequence.sensor == "rgbd" and "integer depth" not in printed
        if name == "tartanair":  # a painted sky
            sky = sequence[0].depth
            assert sky is not None and sky[0, 0] == 0
        check_depth(sequence, entry, places, shots)


def check_depth(
    sequence: FrameSequence, entry: Case, places: list[int], shots: Sequence[Shot]
) -> None:
    assert sequence.ground_truth is not None
    first, last = sequence[places[0]], sequence[places[-1]]
    for frame, shot in ((first, shots[places[0]]), (last, shots[places[-1]])):
        assert frame.depth is not None and frame.depth.dtype == np.float32
        known = frame.depth > 0
        assert known.mean() > 0.9
        error = np.abs(frame.depth - shot.depth)[known]
        assert np.median(error) < entry.depth_error_m and np.mean(error > 0.1) < 0.02
    T = sequence.ground_truth.T_world_cam
    T_last_first = inverse(T[-1]) @ T[0]
    assert grey_error(first, last, T_last_first) < 6.0
    # The check can fail: without the motion the grey values differ.
    assert grey_error(first, last, np.eye(4)) > 12.0


def check_stereo(frame: Frame, entry: Case) -> None:
    """The right image shows each point `bf / z` to the left."""
    assert frame.image_right is not None
    assert frame.camera.baseline_m == pytest.approx(forms.BASELINE_M, rel=1e-6)
    depth = shots_of(entry)[0].depth
    rows, columns = np.indices(depth.shape)[:, ::5, ::5].reshape(2, -1)
    x = columns - frame.camera.bf / np.maximum(depth[rows, columns], 1e-3)
    inside = (x > 2) & (depth[rows, columns] > 0)
    images = [cv2.GaussianBlur(each, (5, 5), 1.2) for each in (frame.image, frame.image_right)]
    y = rows[inside].astype(np.float32)
    other = cv2.remap(images[1], x[inside].astype(np.float32), y, cv2.INTER_LINEAR).ravel()
    error = np.abs(other.astype(float) - images[0][rows, columns][inside])
    assert np.median(error) < 4.0
