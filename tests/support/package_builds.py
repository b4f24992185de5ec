"""Copies of the source, wheels of them, and environments that never saw this folder."""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("frontend", "backend", "datasets", "configs")
SOURCES = ("spslam", *ROOMS)
FILES = ("pyproject.toml", "README.md", "LICENSE", "run_slam.py")


def command(*arguments: str | Path, cwd: Path) -> str:
    """What a command prints; it must succeed."""
    # Without what would lead back to this folder.
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")
    }
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


def copy_source(target: Path, *, links: bool) -> None:
    """Copy all that a build needs, with spslam/frontend and the others as links, or as the text files that git writes
    where the system has no symbolic links."""
    for name in SOURCES:
        shutil.copytree(
            ROOT / name, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in FILES:
        shutil.copy(ROOT / name, target)
    for room in ROOMS:
        link = target / "spslam" / room
        link.unlink()
        if links:
            link.symlink_to(Path("..") / room, target_is_directory=True)
        else:
            link.write_text(f"../{room}", encoding="utf-8")


def build_wheel(source: Path) -> Path:
    """The wheel of a copy: a build leaves folders behind, and takes up those that an earlier one left."""
    command(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", cwd=source
    )
    return next((source / "dist").glob("*.whl"))


def make_environment(root: Path) -> Path:
    """The folder of commands of a new environment; the packages that spslam needs are lent by this one's.

    A .pth file lends them: it makes packages importable but runs no .pth file in turn, so that an editable spslam
    of this environment stays out of sight.
    """
    venv.create(root, with_pip=False)
    scheme = sysconfig.get_paths("venv", vars={"base": str(root), "platbase": str(root)})
    lent = Path(scheme["purelib"]) / "lent.pth"
    lent.write_text(
        "\n".join(dict.fromkeys([sysconfig.get_path("purelib"), *site.getsitepackages()])) + "\n"
    )
    return Path(scheme["scripts"])


def python_of(environment: Path) -> Path:
    """The interpreter in a folder of commands."""
    return environment / Path(sys.executable).name


def install(environment: Path, *arguments: str | Path) -> None:
    """Install with pip, from this machine only."""
    pip = [sys.executable, "-m", "pip", "--python", python_of(environment)]
    command(*pip, "install", "--no-deps", "--no-index", "--quiet", *arguments, cwd=environment)
