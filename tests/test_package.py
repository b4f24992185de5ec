"""The wheel: what is in it, and that it works in an environment that never saw this folder."""

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("spslam", "frontend", "backend", "datasets", "configs")
FILES = ("pyproject.toml", "README.md", "LICENSE")


def command(*arguments: str | Path, cwd: Path) -> str:
    # Without what would lead back to this folder.
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves folders behind, and takes up those that an earlier one left."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    command(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", cwd=source)
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment with the wheel; the packages it needs are lent by this one's.

    A .pth file lends them: it makes packages importable but runs no .pth file in turn, so that an editable spslam
    of this environment stays out of sight.
    """
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, with_pip=False)
    scheme = sysconfig.get_paths("venv", vars={"base": str(root), "platbase": str(root)})
    lent = Path(scheme["purelib"]) / "lent.pth"
    lent.write_text("\n".join(dict.fromkeys([sysconfig.get_path("purelib"), *site.getsitepackages()])) + "\n")
    python = Path(scheme["scripts"]) / Path(sys.executable).name
    pip = [sys.executable, "-m", "pip", "--python", python]
    command(*pip, "install", "--no-deps", "--no-index", "--quiet", wheel, cwd=root)
    return Path(scheme["scripts"])


def test_wheel_puts_one_name_into_site_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"spslam"}


def test_wheel_holds_every_file_of_the_rooms(wheel: Path) -> None:
    expected = set()
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT)
            # Links to the rooms are followed by their own folder's turn.
            through_link = folder == "spslam" and len(inside.parts) > 2 and inside.parts[1] in SOURCES
            if path.is_file() and not through_link and "__pycache__" not in inside.parts:
                expected.add(inside.as_posix() if folder == "spslam" else f"spslam/{inside.as_posix()}")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        license_text = next(name for name in archive.namelist() if name.endswith("LICENSE"))
        assert "MIT License" in archive.read(license_text).decode()
    assert names == expected


@pytest.mark.slow
def test_installed_wheel_runs_from_another_folder(environment: Path, tmp_path: Path) -> None:
    python, spslam = environment / Path(sys.executable).name, environment / "spslam"
    where = command(python, "-c", "import spslam; print(spslam.__file__)", cwd=tmp_path).strip()
    assert Path(where).resolve().is_relative_to(environment.parent.resolve())
    assert "Usage: spslam" in command(spslam, "--help", cwd=tmp_path)
    assert "kitti_stereo" in command(spslam, "config", cwd=tmp_path)
    command(spslam, "run", "demo-small", "--max-frames", "5", "--out", "out", cwd=tmp_path)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["frames"], metrics["tracked"], metrics["extractor"]) == (5, 5, "superpoint")


def test_python_example_of_the_first_page_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import spslam
    from spslam.datasets import open_sequence

    text = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
    code = next(block for block in text.split("```python\n")[1:]).split("```")[0]
    # The same, but shorter.
    monkeypatch.setattr(spslam, "open_sequence", lambda path: open_sequence(path, max_frames=4), raising=False)
    exec(compile(code, "getting-started.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [[str(index), "tracking"] for index in range(4)]
