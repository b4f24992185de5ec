"""`hold_output`: one process at a time writes a file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spslam.errors import OutputError
from spslam.process.output_lock import hold_output

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
_HOLDING = """
import sys, time
from pathlib import Path
from spslam.process.output_lock import hold_output
with hold_output(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_second_call_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    path, link = tmp_path / "mesh.ply", tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    with hold_output(path):
        for same in (
            path,
            link / "mesh.ply",
            tmp_path / "link" / ".." / tmp_path.name / "mesh.ply",
        ):
            with (
                pytest.raises(OutputError, match=r"another process is writing .*mesh\.ply"),
                hold_output(same),
            ):
                pass
        with hold_output(tmp_path / "other.ply"):
            pass
    with hold_output(path):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["link"]


def test_an_error_releases_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    with pytest.raises(ZeroDivisionError), hold_output(path):
        raise ZeroDivisionError
    with hold_output(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDING, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        with pytest.raises(OutputError, match="another process"), hold_output(path):
            pass
        process.kill()
    assert [entry.name for entry in tmp_path.iterdir()] == [".mesh.ply.lock"]
    with hold_output(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_without_locks_a_notice_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr("fcntl.flock", flock)
    with hold_output(tmp_path / "mesh.ply"):
        assert list(tmp_path.iterdir()) == []
    assert "cannot lock" in caplog.text


def test_a_folder_that_is_missing_gets_a_message(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"cannot write .*mesh\.ply: No such file"),
        hold_output(tmp_path / "none" / "mesh.ply"),
    ):
        pass
