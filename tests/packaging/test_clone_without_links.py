"""A clone on a system without symbolic links, where git writes text files instead, works too."""

import zipfile
from pathlib import Path

import pytest
from package_builds import (
    LINKED_PACKAGES,
    ROOT,
    build_wheel,
    command,
    copy_source,
    install,
    make_environment,
    python_of,
)

from spslam.benchmark.identity import code_sha256

# Print where each sub-package is imported from; fails where one is not found.
WHERE = f"""
import importlib, spslam
from spslam.benchmark.identity import code_sha256
for name in {LINKED_PACKAGES!r}:
    print(importlib.import_module(f"spslam.{{name}}").__file__)
print(code_sha256())
"""
RUN = ("demo-small", "--extractor", "orb", "--max-frames", "2", "--outputs", "map", "--out", "out")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "clone"
    folder.mkdir()
    copy_source(folder, links=False)
    assert all((folder / "spslam" / name).is_file() for name in LINKED_PACKAGES)
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    return make_environment(tmp_path / "environment")


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def assert_packages_come_from(clone: Path, printed: str) -> None:
    *files, code = printed.splitlines()
    expected = [clone / name / "__init__.py" for name in LINKED_PACKAGES]
    assert [Path(file) for file in files] == expected
    assert code == code_sha256(), "the code digest must not depend on links"


@pytest.mark.slow
def test_the_wheel_equals_that_of_a_clone_with_links(clone: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    copy_source(linked, links=True)
    assert contents(build_wheel(clone)) == contents(build_wheel(linked))


@pytest.mark.slow
def test_editable_install_runs(clone: Path, environment: Path, tmp_path: Path) -> None:
    install(environment, "--no-build-isolation", "--editable", clone)
    assert_packages_come_from(clone, command(python_of(environment), "-c", WHERE, cwd=tmp_path))
    command(environment / "spslam", "run", *RUN, cwd=tmp_path)
    assert len((tmp_path / "out" / "trajectory.tum").read_text(encoding="utf-8").splitlines()) >= 2


@pytest.mark.slow
def test_packages_are_found_without_an_installation(clone: Path, environment: Path) -> None:
    assert_packages_come_from(clone, command(python_of(environment), "-c", WHERE, cwd=clone))


def test_links_are_used_if_they_exist() -> None:
    """`spslam.__path__` is not changed: no folder next to spslam/ becomes a sub-package."""
    import spslam

    assert [Path(folder) for folder in spslam.__path__] == [ROOT / "spslam"] or not (
        ROOT / "spslam/frontend"
    ).is_dir()
