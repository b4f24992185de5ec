"""Pictures and animations without a display, and failures of the renderer."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from egl import need_egl
from pictures import read_picture
from room_scene import room_scene

from spslam.errors import MissingDependencyError, OutputError
from spslam.typing import UInt8Array
from spslam.visualization import render as viewer_render
from spslam.visualization.layers import LIGHT, Look
from spslam.visualization.map_view import MapView
from spslam.visualization.render import Job, render, render_scene


def render_here(
    path: Path, scene: MapView, job: Job, monkeypatch: pytest.MonkeyPatch, wanted: int = 1000
) -> list[str]:
    """Run `render` in this process, which saves loading Open3D again; return its progress lines."""
    need_egl()
    scene.save(path.with_suffix(".npz"))
    printed = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO("go\n" * wanted + "stop\n"))
    monkeypatch.setattr("sys.stdout", printed)
    code = viewer_render.main([job.to_json(), str(path.with_suffix(".npz")), str(path)])
    monkeypatch.undo()
    assert code == 0
    return [line for line in printed.getvalue().splitlines() if line.startswith("picture")]


def fractions(image: UInt8Array, color: tuple[float, float, float]) -> int:
    """Count pixels of about this colour outside the legend, which has all colours."""
    height, width = image.shape[:2]
    shown = image[:, :, ::-1].astype(int)
    shown[int(0.75 * height) :, : int(0.35 * width)] = 300
    return int((np.abs(shown - 255 * np.array(color)).max(axis=2) < 14).sum())


def test_the_picture_shows_every_layer(tmp_path: Path) -> None:
    render_scene(tmp_path / "map.png", room_scene())
    image = read_picture(tmp_path / "map.png")
    assert image.shape == (960, 1280, 3)
    for color in (LIGHT.trajectory, LIGHT.truth, LIGHT.keyframes, LIGHT.loops):
        assert fractions(image, color) > 100, color
    # The room fills the picture although some points are 500 m away.
    drawn = image.min(axis=2) < 200
    assert np.ptp(np.flatnonzero(drawn[100:800].any(axis=0))) > 0.7 * 1280


def test_size_background_and_hidden_layers(tmp_path: Path) -> None:
    look = Look(hidden=frozenset({"loops", "trajectory"}), colors="age", dark=True)
    render(tmp_path / "map.png", room_scene(), Job(look, size=(640, 360)))
    image = read_picture(tmp_path / "map.png")
    assert image.shape == (360, 640, 3)
    assert np.median(image) < 30
    assert fractions(image, look.palette.truth) > 30
    assert fractions(image, look.palette.loops) == fractions(image, look.palette.trajectory) == 0


def test_the_same_scene_gives_the_same_picture(tmp_path: Path) -> None:
    for number in range(2):
        render(tmp_path / f"{number}.png", room_scene(), Job(size=(320, 240)))
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()


def test_an_empty_scene_is_rendered(tmp_path: Path) -> None:
    none = np.zeros((0, 4, 4))
    empty = room_scene(
        points=np.zeros((0, 3)), keyframes=none, trajectory=none, ground_truth=none,
        covisible=np.zeros((0, 2), int), loops=np.zeros((0, 2), int),
    )  # fmt: skip
    render(tmp_path / "map.png", empty, Job(size=(320, 240)))
    assert read_picture(tmp_path / "map.png").shape == (240, 320, 3)
    with pytest.raises(OutputError, match="needs a trajectory"):
        render(tmp_path / "animation.mp4", empty)


def frames_of(path: Path) -> list[UInt8Array]:
    capture = cv2.VideoCapture(str(path))
    frames: list[UInt8Array] = []
    while (read := capture.read())[0]:
        frames.append(read[1].astype(np.uint8))
    return frames


@pytest.mark.parametrize("follow", [False, True])
def test_an_animation_grows_with_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: bool
) -> None:
    path = tmp_path / "animation.mp4"
    job = Job(size=(320, 240), fps=5.0, seconds=2.0, follow=follow)
    reported = render_here(path, room_scene(), job, monkeypatch)
    frames = frames_of(path)
    assert reported == [f"picture {n} 10" for n in range(1, 11)]
    assert len(frames) == 10 and frames[0].shape == (240, 320, 3)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == 5.0
    drawn = [int((frame.min(axis=2) < 200)[:180].sum()) for frame in frames]
    # The last frame shows everything; the overview shows more and more until then.
    assert drawn[-1] > drawn[0]
    if not follow:
        assert drawn[-1] > 1.5 * drawn[0]
        assert (np.diff(drawn) > -20).all()


def test_a_stopped_animation_keeps_its_frames(tmp_path: Path) -> None:
    need_egl()
    path = tmp_path / "animation.mp4"
    job = Job(size=(320, 240), fps=5.0, seconds=60.0)
    reported: list[tuple[int, int]] = []

    def keep_going(done: int, total: int) -> bool:
        reported.append((done, total))
        return done < 3

    render(path, room_scene(), job, keep_going)
    assert reported == [(1, 300), (2, 300), (3, 300)]
    assert len(frames_of(path)) == 3


def test_an_error_names_the_path_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        render(tmp_path / "gone" / "map.png", room_scene(), Job(size=(320, 240)))
    with pytest.raises(OutputError, match="cannot write"):
        render(tmp_path / "gone" / "animation.mp4", room_scene(), Job(size=(320, 240)))


class FakeRenderer:
    """A fake process that ends with the given code or error."""

    def __init__(self, code: int | Exception, stderr_text: str = "") -> None:
        self.code, self.stderr_text = code, stderr_text
        self.environment: dict[str, str] = {}

    def __call__(
        self, command: list[str], stderr: Any, env: dict[str, str], **_: Any
    ) -> FakeRenderer:
        if isinstance(self.code, OSError):
            raise self.code
        stderr.write(self.stderr_text.encode())
        self.environment, self.stdin, self.stdout = env, io.StringIO(), io.StringIO("picture 1 2\n")
        return self

    def __enter__(self) -> FakeRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> int:
        if isinstance(self.code, Exception):
            raise self.code
        return self.code

    def kill(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "stderr_text", "reason"),
    [
        (-11, "", "ended with -11"),
        (-6, "noise of a driver", "ended with -6"),
        (2, "noise\nOpen3D lacks a system library\n", "Open3D lacks a system library"),
        (0, "", "ended with 0"),
        (OSError("no such interpreter"), "", "no such interpreter"),
    ],
)
def test_a_failing_renderer_is_reported_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int | Exception,
    stderr_text: str,
    reason: str,
) -> None:
    monkeypatch.setattr(subprocess, "Popen", FakeRenderer(code, stderr_text))
    with pytest.raises(MissingDependencyError, match=reason) as caught:
        render(tmp_path / "animation.mp4", room_scene())
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_needs_no_graphics_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", FakeRenderer(OSError("no process")))
    monkeypatch.setitem(sys.modules, "open3d", None)
    render_scene(tmp_path / "map.png", room_scene())
    assert read_picture(tmp_path / "map.png").shape == (960, 1280, 3)


def test_the_renderer_finds_this_package_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = FakeRenderer(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", renderer)
    with pytest.raises(MissingDependencyError):
        render(tmp_path / "animation.mp4", room_scene())
    monkeypatch.undo()
    # Without site packages (-S) only the environment points to the package.
    command = [sys.executable, "-S", "-c", "import spslam; print(spslam.__path__[0])"]
    done = subprocess.run(
        command, cwd=tmp_path, env=renderer.environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == Path(viewer_render.__file__).parents[1]


def test_the_renderer_reports_missing_packages_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise MissingDependencyError("the viewer needs Open3D")

    monkeypatch.setattr("spslam.visualization.open3d_window.import_open3d", missing)
    room_scene().save(tmp_path / "scene.npz")
    assert (
        viewer_render.main([Job().to_json(), str(tmp_path / "scene.npz"), str(tmp_path / "a.mp4")])
        == 2
    )
    assert capsys.readouterr().err == "the viewer needs Open3D\n"


def test_a_job_is_passed_unchanged_to_the_renderer() -> None:
    job = Job(Look(frozenset({"grid", "loops"}), "age", True), (640, 480), 12.5, 3.0, True)
    assert Job.from_json(job.to_json()) == job
