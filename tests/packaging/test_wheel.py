"""The wheel: its files, and that it works in a fresh environment."""

import json
import zipfile
from pathlib import Path

import pytest
from package_builds import (
    ROOT,
    SOURCES,
    build_wheel,
    command,
    copy_source,
    install,
    make_environment,
    python_of,
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    copy_source(source, links=True)
    return build_wheel(source)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands folder of an environment with the wheel installed."""
    environment = make_environment(tmp_path_factory.mktemp("environment"))
    install(environment, wheel)
    return environment


def test_wheel_installs_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"spslam"}


def test_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    expected = set()
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT)
            # Linked folders (or the text files instead) are checked through their own folder.
            through_link = folder == "spslam" and inside.parts[1] in SOURCES
            if path.is_file() and not through_link and "__pycache__" not in inside.parts:
                expected.add(
                    inside.as_posix() if folder == "spslam" else f"spslam/{inside.as_posix()}"
                )
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        license_text = next(name for name in archive.namelist() if name.endswith("LICENSE"))
        assert "MIT License" in archive.read(license_text).decode()
    assert names == expected
    assert "spslam/py.typed" in names, "type checkers use the annotations"


@pytest.mark.slow
def test_installed_wheel_runs_from_another_folder(environment: Path, tmp_path: Path) -> None:
    spslam = environment / "spslam"
    where = command(
        python_of(environment), "-c", "import spslam; print(spslam.__file__)", cwd=tmp_path
    ).strip()
    assert Path(where).resolve().is_relative_to(environment.parent.resolve())
    assert "Usage: spslam" in command(spslam, "--help", cwd=tmp_path)
    assert "kitti_stereo" in command(spslam, "config", cwd=tmp_path)
    command(spslam, "run", "demo-small", "--max-frames", "5", "--out", "out", cwd=tmp_path)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["frames"], metrics["tracked"], metrics["extractor"]) == (5, 5, "superpoint")


def test_python_example_of_getting_started_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import spslam
    from spslam.datasets import open_sequence

    text = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
    code = next(block for block in text.split("```python\n")[1:]).split("```")[0]
    # The same example with fewer frames.
    monkeypatch.setattr(
        spslam, "open_sequence", lambda path: open_sequence(path, max_frames=4), raising=False
    )
    exec(compile(code, "getting-started.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        [str(index), "tracking"] for index in range(4)
    ]
