"""Files and folders that one process holds and others may read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spslam.errors import MapError, OutputError
from spslam.map.io import HeldMap, load_map, save_map
from spslam.map.map import Map
from spslam.process.ownership import OWNER, claim_file, claim_folder, is_abandoned

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
_HOLDING = """
import sys, time
from pathlib import Path
from spslam.process.ownership import claim_file
claim = claim_file(Path(sys.argv[1]))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_file_is_held_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    path.write_text("map")
    first = claim_file(path)
    assert first is not None
    assert claim_file(path) is None
    assert path.read_text() == "map"
    first.release()
    first.release()
    second = claim_file(path)
    assert second is not None
    second.release()


def test_a_file_that_replaces_a_held_one_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    path.write_text("old")
    first = claim_file(path)
    assert first is not None
    (tmp_path / "new").write_text("new")
    (tmp_path / "new").replace(path)
    second = claim_file(path)
    assert second is not None
    first.release()
    assert claim_file(path) is None
    second.release()


def test_a_killed_process_releases_its_files(tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    path.write_text("map")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDING, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert claim_file(path) is None
        process.kill()
    claim = claim_file(path)
    assert claim is not None
    claim.release()


def test_holding_a_read_only_file_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    path.write_text("map")
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        claim = claim_file(path)
        assert claim is not None
        assert claim_file(path) is None
        claim.release()
        assert [entry.name for entry in tmp_path.iterdir()] == ["map.npz"]
    finally:
        tmp_path.chmod(0o755)


def test_a_folder_is_abandoned_only_by_its_owner_file(tmp_path: Path) -> None:
    assert not is_abandoned(tmp_path)
    claim = claim_folder(tmp_path)
    assert claim is not None
    assert not is_abandoned(tmp_path)
    claim.release()
    assert is_abandoned(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [OWNER]


def test_without_file_locks_no_folder_is_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    claim = claim_folder(tmp_path / "old")
    assert claim is not None
    claim.release()

    def flock(*arguments: object) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr("fcntl.flock", flock)
    assert not is_abandoned(tmp_path / "old")
    (tmp_path / "new").mkdir()
    assert claim_folder(tmp_path / "new") is None
    assert list((tmp_path / "new").iterdir()) == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_map(tmp_path / "map.npz", Map(4))
    return tmp_path / "map.npz"


def test_a_map_is_extended_by_one_run_at_a_time(path: Path) -> None:
    held = HeldMap(path)
    with pytest.raises(MapError, match=r"another run extends .*map.npz right now"):
        HeldMap(path)
    load_map(path)
    held.save(lambda to: save_map(to, Map(8)), path.parent / "nowhere")
    held.release()
    HeldMap(path).release()
    assert load_map(path).map.tables()["points"]["descriptor"].shape[1] == 8


def test_a_map_changed_by_another_program_is_not_overwritten(path: Path, tmp_path: Path) -> None:
    held = HeldMap(path)
    save_map(path, Map(6))
    before = path.read_bytes()
    with pytest.raises(
        MapError, match=r"changed by another program during the run .*: the extended map is out"
    ):
        held.save(lambda to: save_map(to, Map(8)), Path("out"))
    held.release()
    assert path.read_bytes() == before


def test_a_map_that_was_extended_in_place_is_not_written_twice(path: Path) -> None:
    held = HeldMap(path)
    # The output folder of the run is the folder of the map.
    save_map(path, Map(8))
    held.save(lambda to: pytest.fail("written again"), path)
    held.release()


def test_a_map_that_cannot_be_locked_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr("fcntl.flock", flock)
    held = HeldMap(path)
    assert "cannot lock" in caplog.text
    held.save(lambda to: save_map(to, Map(8)), Path("out"))
    held.release()
    with pytest.raises(OutputError, match="nowhere"):
        HeldMap(path.parent / "nowhere" / "map.npz").save(
            lambda to: save_map(to, Map(8)), Path("out")
        )
