"""Copies of the source, wheels of them, and environments without access to this checkout."""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINKED_PACKAGES = ("frontend", "backend", "datasets", "configs")
SOURCES = ("spslam", *LINKED_PACKAGES)
FILES = ("pyproject.toml", "README.md", "LICENSE", "run_slam.py")


def command(*arguments: str | Path, cwd: Path) -> str:
    """Return the output of a command, which must succeed."""
    # Without variables that would lead back to this checkout.
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
    """Copy everything that a build needs.

    The packages inside spslam are links (`links`) or text files, which git writes on systems
    without symbolic links.
    """
    for name in SOURCES:
        shutil.copytree(
            ROOT / name, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in FILES:
        shutil.copy(ROOT / name, target)
    for name in LINKED_PACKAGES:
        link = target / "spslam" / name
        link.unlink()
        if links:
            link.symlink_to(Path("..") / name, target_is_directory=True)
        else:
            link.write_text(f"../{name}", encoding="utf-8")


def build_wheel(source: Path) -> Path:
    """Build the wheel of a copy; the build leaves folders behind and reuses earlier ones."""
    command(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", cwd=source
    )
    return next((source / "dist").glob("*.whl"))


def make_environment(root: Path) -> Path:
    """Make an environment and return its folder of commands.

    The packages that spslam needs come from the running environment, through a .pth file. The .pth
    files of that environment are not run, so that an editable spslam in it stays invisible.
    """
    venv.create(root, with_pip=False)
    scheme = sysconfig.get_paths("venv", vars={"base": str(root), "platbase": str(root)})
    lent = Path(scheme["purelib"]) / "lent.pth"
    lent.write_text(
        "\n".join(dict.fromkeys([sysconfig.get_path("purelib"), *site.getsitepackages()])) + "\n"
    )
    return Path(scheme["scripts"])


def python_of(environment: Path) -> Path:
    """The interpreter of an environment."""
    return environment / Path(sys.executable).name


def install(environment: Path, *arguments: str | Path) -> None:
    """Install with pip, without network access."""
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python_of(environment)]
    command(*pip, "install", "--no-deps", "--no-index", "--quiet", *arguments, cwd=environment)
