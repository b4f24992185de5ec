"""`spslam track`."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import call, refused

from spslam.cli import track as cli_track


@pytest.fixture
def images(tmp_path: Path) -> str:
    """Ten images of a scene that moves to the left."""
    folder = tmp_path / "images"
    folder.mkdir()
    cells = np.random.default_rng(0).integers(0, 256, (20, 60)).astype(np.uint8)
    scene = cells.repeat(8, axis=0).repeat(8, axis=1)
    for index in range(10):
        cv2.imwrite(str(folder / f"{index:03d}.png"), scene[:, 8 * index : 8 * index + 240])
    return str(folder)


def test_a_video_of_a_slice_of_the_images(
    images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tracks.mp4"
    part = ["--start", "1", "--stride", "2", "--max-frames", "4"]
    assert call("track", images, "--extractor", "orb", *part, "--out", str(out)) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("4 frames, ") and printed.out.endswith(f", in {out}\n")
    assert int(printed.out.split()[2]) > 20
    assert printed.err.startswith("007.png")
    capture = cv2.VideoCapture(str(out))
    assert (capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)) == (4, 10)


def test_pictures_in_a_folder_and_a_video_as_source(images: str, tmp_path: Path) -> None:
    video, folder = tmp_path / "tracks.mp4", tmp_path / "tracks"
    assert call("track", images, "--extractor", "orb", "--out", str(video)) == 0
    assert (
        call("track", str(video), "--extractor", "sift", "--max-frames", "3", "--out", str(folder))
        == 0
    )
    assert len(list(folder.iterdir())) == 3


def test_wrong_calls_give_a_one_line_error(
    images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    out = ["--extractor", "orb", "--out", str(tmp_path / "out.mp4")]
    assert "found nothing at" in refused(capsys, "track", str(tmp_path / "gone.mp4"), *out)
    assert "camera:97: found no camera that can be opened" in refused(capsys, "track", "97", *out)
    assert "start 10 lies past the end" in refused(capsys, "track", images, "--start", "10", *out)
    assert "no extractor named 'surf'" in refused(
        capsys, "track", images, "--extractor", "surf", *out[2:]
    )
    assert "needs a display, found none" in refused(capsys, "track", images, "--extractor", "orb")
    gone = ["--out", str(tmp_path / "gone" / "out.mp4")]
    assert "cannot write" in refused(capsys, "track", images, "--extractor", "orb", *gone)
    assert "left alone" in refused(capsys, "track", images, "--extractor", "orb", "--out", images)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_an_interrupt_keeps_what_was_written(
    images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()
    stopped.set()

    class Flag:
        def __enter__(self) -> threading.Event:
            return stopped

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(cli_track, "interrupt_as_flag", Flag)
    assert call("track", images, "--extractor", "orb", "--out", str(tmp_path / "out")) == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["000000.png"]


def test_closing_the_window_ends_the_command(
    images: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Window:
        def __init__(self, title: str) -> None:
            self.shown = 0

        def __enter__(self) -> Window:
            return self

        def show(self, image: np.ndarray) -> bool:
            self.shown += 1
            return self.shown < 3

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr("spslam.visualization.image_window.ImageWindow", Window)
    assert call("track", images, "--extractor", "orb") == 0
    assert capsys.readouterr().out.startswith("3 frames, ")


def test_masked_parts_have_no_tracks(
    images: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    white, half = np.full((160, 240), 255, np.uint8), np.full((160, 240), 255, np.uint8)
    half[:, 120:] = 0
    for name, mask in (("white", white), ("half", half)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / f"{name}.png"), mask)
        for index in range(9):
            cv2.imwrite(str(tmp_path / name / f"{index:03d}.png.png"), mask)
    found = {}
    for given in ("white.png", "half.png", "half"):
        out = tmp_path / f"out-{given}"
        options = ("--extractor", "orb", "--out", str(out), "--mask", str(tmp_path / given))
        assert call("track", images, *options) == 0
        printed = capsys.readouterr()
        found[given] = int(printed.out.split()[2])
        assert ("1 image has no mask" in printed.err) == (given == "half")
    assert found["half.png"] < 0.7 * found["white.png"]
    assert found["half"] == found["half.png"]
