"""`spslam plugin`: the list, the files, and the calls it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call, refused

from spslam.adapters.host_files import HOST_PLUGINS


def test_the_list_names_every_plugin_and_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plugin", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    for plugin in HOST_PLUGINS.values():
        (row,) = (line for line in lines if line.split()[:1] == [plugin.name])
        assert plugin.host in row and plugin.needs in row
        for file in plugin.files:
            assert any(file.name in line for line in lines)


def test_write_prints_each_file_and_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plugin", "write", "vslamlab", str(tmp_path / "new" / "folder")]
    assert call(*arguments, "--weights", "superpoint", "--set", "features.border=8") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for line, file in zip(printed.out.splitlines(), HOST_PLUGINS["vslamlab"].files, strict=True):
        path = Path(line.split("  (")[0].strip())
        assert path == tmp_path / "new" / "folder" / file.name
        assert path.is_file() and file.place in line
    assert "superpoint" in (tmp_path / "new/folder/vslamlab_spslam_settings.yaml").read_text()


def test_a_foreign_file_is_replaced_only_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo_superpoint.py").write_text("import torch\n")
    arguments = ["plugin", "write", "demo_superpoint", str(tmp_path)]
    assert "--force" in refused(capsys, *arguments)
    assert call(*arguments, "--force") == 0
    assert "spslam" in (tmp_path / "demo_superpoint.py").read_text()


def test_an_unknown_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "demo_superpoint" in refused(capsys, "plugin", "write", "pyslam", str(tmp_path))
