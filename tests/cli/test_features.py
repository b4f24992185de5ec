"""`spslam features` and `spslam match`: what they print, their exit codes, and ends by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import call, refused
from feature_files import random_features, write_images, write_random

from spslam.features.h5 import MATCHES_FORMAT, image_names, match_names, write_matches_file

pytest.importorskip("h5py")
ORB = ("--extractor", "orb", "--workers", "1")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos", 6)
    return Path("photos")


def test_features_are_extracted_and_matched(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("features", str(photos), "--out", "f.h5", *ORB) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("6 images done, ") and "0 were there; f.h5" in printed.out
    one = ("--workers", "1")
    assert call("match", "f.h5", "--pairs", "sequential", "--neighbours", "1", "--out", "m.h5") == 0
    assert len(match_names(Path("m.h5"))[1]) == 5
    arguments = ("match", "f.h5", "--pairs", "sequential", "--apart", "3", "--out", "m.h5")
    assert call(*arguments, "--neighbours", "1", "--verify", *one) == 0
    printed = capsys.readouterr()
    assert "3 pairs done" in printed.out and "pairs verified" in printed.out
    assert "5 were there; m.h5" in printed.out
    Path("pairs.txt").write_text("back/0.png front/5.png\n")
    assert call("match", "f.h5", "--pairs", "pairs.txt", "--out", "p.h5", *one) == 0
    assert match_names(Path("p.h5"))[1] == {"back-0.png/front-5.png"}
    assert call("match", "f.h5", "--pairs", "retrieval", "--out", "r.h5", *one) == 0
    assert len(match_names(Path("r.h5"))[1]) == 15


def test_unreadable_images_end_with_exit_code_2_and_keep_the_others(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "back" / "2.png").write_bytes(b"no image")
    assert call("features", str(photos), "--out", "f.h5", *ORB) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("5 images done")
    last = printed.err.splitlines()[-1]
    assert last.startswith("error: no features of 1 of 6 images, the first is back/2.png (")
    assert "2.png: " not in last and last.endswith("all others are in f.h5")
    assert len(image_names(Path("f.h5"))) == 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("features", "gone", "--out", "f.h5"), "found none at gone"),
        (("features", "empty", "--out", "f.h5"), "found none: check the path"),
        (("features", "photos", "--out", "f.txt"), ".h5, .hdf5, .db"),
        (("features", "photos", "--out", "gone/f.h5"), "cannot write gone/f.h5.partial"),
        (("features", "photos", "--out", "f.h5", "--camera-per", "all"), "--out NAME.db"),
        (("features", "photos", "--out", "f.db", "--float32"), "--float32"),
        (("features", "photos", "--out", "f.h5", "--extractor", "surf"), "no extractor named"),
        (("match", "x.h5", "--pairs", "exhaustive"), "--out FILE is missing"),
        (("match", "gone.h5", "--pairs", "exhaustive", "--out", "m.h5"), "found none"),
        (("match", "x.h5", "--pairs", "all", "--out", "m.h5"), "exhaustive, sequential"),
        (("match", "x.h5", "--pairs", "none.txt", "--out", "m.h5"), "in none.txt, found no pairs"),
        (("match", "one.h5", "--pairs", "exhaustive", "--out", "m.h5"), "features of 1 image"),
        (("match", "pairs.h5", "--pairs", "exhaustive", "--out", "m.h5"), "matches, not features"),
        (("match", "x.h5", "--pairs", "unknown.txt", "--out", "m.h5"), "no features of c"),
        (("match", "x.h5", "--pairs", "exhaustive", "--apart", "2", "--out", "m.h5"), "--apart"),
        (("match", "x.h5", "--pairs", "sequential", "--apart", "0", "--out", "m.h5"), "10,20"),
        (("match", "x.h5", "--pairs", "exhaustive", "--ratio", "2", "--out", "m.h5"), "--ratio"),
        (("match", "cut.h5", "--pairs", "exhaustive", "--out", "m.h5"), "damaged"),
        (("match", "two.h5", "--pairs", "exhaustive", "--out", "m.h5"), "16 numbers, b of 8"),
    ],
)
def test_wrong_calls_give_one_line(
    arguments: tuple[str, ...],
    expected: str,
    photos: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("empty").mkdir()
    Path("unknown.txt").write_text("a c\n")
    Path("none.txt").write_text("# no pairs\n")
    write_random(Path("one.h5"), a=random_features(0))
    write_matches_file(Path("pairs.h5"), {"format": MATCHES_FORMAT}, [], None)
    whole = write_random(Path("x.h5"), a=random_features(0), b=random_features(1)).read_bytes()
    write_random(Path("two.h5"), a=random_features(0), b=random_features(1, dimension=8))
    Path("cut.h5").write_bytes(whole[:-1000])
    is_plain = arguments[0] == "features" and "--extractor" not in arguments
    more: tuple[str, ...] = ORB if is_plain else ("--workers", "1")
    assert expected in refused(capsys, *arguments, *more)
    assert not Path("m.h5").exists() and not Path("f.h5").exists()


@pytest.fixture(scope="module")
def whole_features(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The features of 300 images, extracted without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    write_images(folder / "photos", 300)
    assert call("features", str(folder / "photos"), "--out", str(folder / "f.h5"), *ORB) == 0
    return (folder / "f.h5").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_command_continues(
    number: int,
    whole_features: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos", 300)
    command = ["features", "photos", "--out", "f.h5", "--extractor", "orb", "--workers"]
    process = subprocess.Popen(
        [sys.executable, "-m", "spslam", *command, "2"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    partial = tmp_path / "f.h5.partial"
    # Enough for some whole images: SIGKILL may cut the last one.
    enough = len(whole_features) // 30
    while process.poll() is None and (not partial.exists() or partial.stat().st_size < enough):
        time.sleep(0.002)
    process.send_signal(number)
    printed = process.communicate()[0]
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), printed
    assert not (tmp_path / "f.h5").exists()
    if number != signal.SIGKILL:
        assert "kept in f.h5.partial; the same command continues" in printed
    capsys.readouterr()
    assert call(*command, "1") == 0
    printed = capsys.readouterr().out
    assert int(printed.split(" were there")[0].split()[-1]) > 0
    assert (tmp_path / "f.h5").read_bytes() == whole_features
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.h5", "photos"]
