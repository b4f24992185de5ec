"""`spslam data …` against a server on this machine: what it fetches, keeps and prints."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from command_line import call
from file_server import FileServer, serve
from public_archives import euroc_archive, kitti_archives, tgz_of, tum_archive, tum_files

from spslam.datasets import open_sequence
from spslam.datasets.fetch import download
from spslam.datasets.fetch.catalogue import Catalogue

XYZ = "rgbd_dataset_freiburg1_xyz.tgz"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Serve the archives of all datasets, with a catalogue without lengths and checksums."""
    entries = yaml.safe_load(
        (files("spslam.datasets") / "catalogue.yaml").read_text(encoding="utf-8")
    )
    with serve() as state:
        for entry in entries.values():
            entry["archives"] = {name: {"url": f"{state.url}/{name}"} for name in entry["archives"]}
        monkeypatch.setattr(Catalogue, "load", lambda: Catalogue(entries))
        monkeypatch.setattr(download, "_PAUSE_S", 0.0)
        state.files = {**kitti_archives(), XYZ: tum_archive("freiburg1_xyz")}
        state.files["machine_hall.zip"] = euroc_archive("machine_hall", "MH_01_easy", "MH_02_easy")
        yield state


def fetch(folder: Path, *names: str) -> int:
    return call("data", "fetch", *names, "--data", str(folder))


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *names: str) -> str:
    """The one-line error of a fetch that fails."""
    capsys.readouterr()
    assert fetch(folder, *names) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def files_of(folder: Path) -> list[str]:
    """All files below `folder` except the records of what was fetched."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(str(p) for p in paths if p.name != ".spslam-fetched.json")


@pytest.mark.parametrize("command", [[], ["list"], ["info"], ["fetch"]])
def test_help_of_every_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("data", *command, "--help") == 0
    assert "Usage: spslam data" in capsys.readouterr().out


def test_tum_is_fetched_and_read(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, "fr1_xyz") == 0
    printed = capsys.readouterr()
    assert printed.out == f"tum-fr1_xyz: {tmp_path / 'tum' / 'rgbd_dataset_freiburg1_xyz'}\n"
    assert "CC BY 4.0" in printed.err and "MB/s" in printed.err
    sequence = open_sequence(tmp_path / "tum" / "rgbd_dataset_freiburg1_xyz")
    assert (sequence.sensor, len(sequence)) == ("rgbd", 2)
    assert sequence.ground_truth is not None and sequence[1].depth is not None
    # The archive is removed after all of it is unpacked.
    assert files_of(tmp_path) == sorted(f"tum/{name}" for name in tum_files("freiburg1_xyz"))


def test_kitti_is_downloaded_once_and_the_requested_sequences_unpacked(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, "kitti-00") == 0
    assert "kept for its other sequences" in capsys.readouterr().err
    assert not (tmp_path / "kitti/sequences/01").exists()
    assert fetch(tmp_path, "kitti-00", "kitti-01") == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("(was there)")
    assert sorted(name for name, _ in server.requested) == sorted(kitti_archives())
    for key in ("00", "01"):
        sequence = open_sequence(tmp_path / "kitti", sequence=key)
        assert (sequence.name, sequence.sensor, len(sequence)) == (f"kitti {key}", "stereo", 3)
        assert sequence.ground_truth is not None and sequence.camera.baseline_m == pytest.approx(
            0.5
        )
        assert sequence[2].image.shape == (30, 40)


def test_euroc_archives_inside_an_archive_are_unpacked(server: FileServer, tmp_path: Path) -> None:
    assert fetch(tmp_path, "MH_01_easy") == 0
    sequence = open_sequence(tmp_path / "euroc", sequence="MH_01")
    assert (sequence.name, sequence.sensor, len(sequence)) == ("euroc MH_01_easy", "stereo", 2)
    assert sequence[1].image.shape == (60, 80)
    assert (tmp_path / "downloads/machine_hall.zip").is_file()
    assert not list(tmp_path.rglob("*.bag")) and not list(tmp_path.rglob("__MACOSX"))


def test_fetched_sequences_are_skipped(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, "tum-fr1_xyz") == 0
    server.requested.clear()
    capsys.readouterr()
    assert fetch(tmp_path, "tum-fr1_xyz") == 0
    assert capsys.readouterr().out.endswith("(was there)\n")
    assert server.requested == []


def test_a_folder_that_lost_files_is_fetched_again(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(tmp_path, "tum-fr1_xyz") == 0
    (tmp_path / "tum/rgbd_dataset_freiburg1_xyz/rgb/1.000000.png").unlink()
    assert "is not as it was fetched (7 files with" in refused(capsys, tmp_path, "tum-fr1_xyz")


def test_a_foreign_folder_is_left_alone(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "tum/rgbd_dataset_freiburg1_xyz"
    own.mkdir(parents=True)
    (own / "rgb.txt").write_text("mine")
    assert "was not fetched by spslam and is left alone" in refused(capsys, tmp_path, "tum-fr1_xyz")
    assert server.requested == [] and (own / "rgb.txt").read_text() == "mine"


def test_missing_poses_are_fetched_again(server: FileServer, tmp_path: Path) -> None:
    assert fetch(tmp_path, "kitti-00") == 0
    (tmp_path / "kitti/poses/00.txt").unlink()
    assert fetch(tmp_path, "kitti-00") == 0
    assert open_sequence(tmp_path / "kitti", sequence="00").ground_truth is not None


def test_a_download_that_broke_off_is_continued(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.cuts = [1000] + [0] * download._TRIES
    assert "broke off at 1000 bytes" in refused(capsys, tmp_path, "tum-fr1_xyz")
    assert call("data", "list", "tum", "--data", str(tmp_path)) == 0
    assert "1.0 kB downloaded" in capsys.readouterr().out
    server.cuts.clear()
    server.requested.clear()
    assert fetch(tmp_path, "tum-fr1_xyz") == 0
    assert server.requested == [(XYZ, "bytes=1000-")]


def test_an_interrupt_keeps_the_part_file(
    server: FileServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("spslam.cli.console.TransferLine.move", interrupt)
        assert fetch(tmp_path, "tum-fr1_xyz") == 130
    part = tmp_path / "downloads" / f"{XYZ}.part"
    assert f"stopped; kept: {part}; the same command resumes" in capsys.readouterr().err
    assert part.stat().st_size > 0
    assert fetch(tmp_path, "tum-fr1_xyz") == 0


def test_a_full_disk_is_reported_before_the_download(
    server: FileServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 5_000_000, 5_000_000)
    )
    message = refused(capsys, tmp_path, "tum-fr1_xyz")
    assert f"no room in {tmp_path} to download {XYZ}" in message and "5.0 MB free" in message
    assert files_of(tmp_path) == [f"downloads/{XYZ}.part.json"]


def test_a_truncated_archive_is_removed(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = server.files[XYZ]
    server.files[XYZ] = whole[: len(whole) // 2]
    assert "is damaged or cut short" in refused(capsys, tmp_path, "tum-fr1_xyz")
    assert files_of(tmp_path) == []
    server.files[XYZ] = whole
    assert fetch(tmp_path, "tum-fr1_xyz") == 0


def test_an_archive_with_a_wrong_checksum_is_removed(
    server: FileServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = yaml.safe_load(
        (files("spslam.datasets") / "catalogue.yaml").read_text(encoding="utf-8")
    )
    entries["tum"]["archives"][XYZ] = {"url": f"{server.url}/{XYZ}", "md5": 32 * "0"}
    monkeypatch.setattr(Catalogue, "load", lambda: Catalogue(entries))
    assert "checksum (MD5) 0000" in refused(capsys, tmp_path, "tum-fr1_xyz")
    assert files_of(tmp_path) == []


def test_a_full_disk_while_unpacking_keeps_the_archive(
    server: FileServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = iter([10**9, 0])
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, next(room)))
        assert "to unpack tum-fr1_xyz" in refused(capsys, tmp_path, "tum-fr1_xyz")
    assert files_of(tmp_path) == [f"downloads/{XYZ}"]
    server.requested.clear()
    assert fetch(tmp_path, "tum-fr1_xyz") == 0
    assert server.requested == []


def test_a_member_outside_the_target_folder_is_refused(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files[XYZ] = tgz_of(
        {**tum_files("freiburg1_xyz"), "rgbd_dataset_freiburg1_xyz/../../../evil": "evil"}
    )
    data = tmp_path / "data"
    assert "leads out of the folder" in refused(capsys, data, "tum-fr1_xyz")
    assert files_of(tmp_path) == []


def test_names_are_checked_before_anything_is_fetched(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean tum-fr1_xyz" in refused(capsys, tmp_path, "kitti-00", "tum-fr1_xzy")
    assert server.requested == [] and files_of(tmp_path) == []


def test_a_file_that_the_server_lacks_is_reported(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "HTTP 404" in refused(capsys, tmp_path, "tum-fr1_rpy")


def test_a_folder_that_cannot_be_created_is_reported(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert f"cannot use {tmp_path}/file" in refused(capsys, tmp_path / "file", "tum-fr1_xyz")


def test_list_and_info_print_the_catalogue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPSLAM_DATA", str(tmp_path))
    assert call("data", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + 69
    assert "KITTI odometry" in lines[0] and "CC BY-NC-SA 3.0" in lines[0]
    assert lines[1].split() == ["kitti-00", "22.0", "GB", "for", "all", "11"]
    assert ["tum-fr1_rpy", "size", "unknown"] in [line.split() for line in lines]
    assert call("data", "info", "V1_01_easy") == 0
    text = capsys.readouterr().out
    for expected in (
        "https://www.research-collection.ethz.ch/", "6042263426 bytes, MD5 5ce0", "Non-Commercial",
        f"{tmp_path}/euroc/V1_01_easy (not fetched)",
    ):  # fmt: skip
        assert expected in text


def test_layouts_are_listed_with_those_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPSLAM_LAYOUTS", str(tmp_path))
    assert call("data", "layouts") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11 and lines[0].split()[0] == "7-scenes"
    assert any(line.endswith("TartanAir V1, rendered, stereo") for line in lines)
    own = tmp_path / "mine.yaml"
    text = (files("spslam.datasets.layouts") / "replica.yaml").read_text(encoding="utf-8")
    own.write_text(text.replace("name: replica", "name: mine"))
    (tmp_path / "bad.yaml").write_text("name: 1")
    assert call("data", "layouts") == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].endswith(f"[{own}]")
    assert printed.err.startswith("note: left out: layout") and printed.err.count("\n") == 1
