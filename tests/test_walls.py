"""Which part of the house may know which: see docs/decisions/0001-package-layout.md."""

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("frontend", "backend", "datasets", "configs")
# The command line and the wiring know the rooms; nothing else in the ground does.
KNOW_THE_ROOMS = (
    "build",
    "cli",
    "cli_bench",
    "cli_data",
    "cli_evaluation",
    "cli_export",
    "cli_map",
    "cli_suite",
    "cli_suite_plan",
    "cli_track",
    "cli_training",
    "cli_trajectories",
    "__main__",
)
HEAVY = {
    "torch": "frontend",
    "g2opy": "backend",
    "open3d": "spslam",
    "rerun": "spslam",
    "openvino": "frontend",
    "onnx": "frontend",
    "onnxruntime": "frontend",
    "onnxscript": "frontend",
    "nncf": "frontend",
    "distributed": "spslam",
}


def modules() -> dict[str, Path]:
    """Module name -> file of all shipped code."""
    found = {}
    for folder in ("spslam", *ROOMS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            # rglob may follow the links in spslam/ to the rooms: they are seen once, at the root.
            if folder == "spslam" and len(parts) > 2 and parts[1] in ROOMS:
                continue
            name = parts if folder == "spslam" else ("spslam", *parts)
            found[".".join(name[:-1] if name[-1] == "__init__" else name)] = path
    return found


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "spslam" and parts[1] in ROOMS else None


def imports(module: str, path: Path) -> Iterator[tuple[str, int]]:
    """(absolute name of what is imported, level of a relative import), but for type checkers' imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{origin}.{alias.name}", node.level) for alias in node.names)


MODULES = modules()


def test_all_rooms_are_walked() -> None:
    assert {
        "spslam.frontend.matching.matching",
        "spslam.backend.pose",
        "spslam.datasets.kitti",
        "spslam.slam.system",
    } <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_ground_imports_no_room_and_rooms_never_meet(module: str) -> None:
    own = room_of(module)
    for name, level in imports(module, MODULES[module]):
        imported = room_of(name)
        if own is None:
            allowed = module.removeprefix("spslam.") in KNOW_THE_ROOMS
            assert imported is None or allowed, f"{module} imports {name}"
        else:
            assert imported in (None, own), f"{module} imports {name}"
            assert (level > 0) == (imported == own), f"{module}: {name} must be imported relatively inside a room only"
            assert not name.startswith(("spslam.cli.app", "spslam.factory")), f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_live_in_one_place(module: str) -> None:
    for name, _ in imports(module, MODULES[module]):
        package = name.split(".")[0]
        assert package != "evo", f"{module} imports evo, which is GPL: for tests only"
        if package in HEAVY:
            assert (room_of(module) or "spslam") == HEAVY[package], f"{module} imports {package}"
        if package in ("open3d", "rerun"):
            assert module.startswith("spslam.visualization.viewer"), f"{module} imports {package}"
        if package == "distributed":
            assert module == "spslam.benchmark.pools", f"{module} imports distributed"


def test_ground_loads_nothing_heavy() -> None:
    ground = [name for name in MODULES if room_of(name) is None and name != "spslam.factory"]
    code = (
        "import importlib, sys\n"
        f"for name in {ground!r}: importlib.import_module(name)\n"
        f"loaded = {{*{[*HEAVY]!r}, *{[f'spslam.{room}' for room in ROOMS]!r}}} & set(sys.modules)\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_import_of_spslam_is_light() -> None:
    code = (
        "import sys, spslam; sys.exit(' '.join({'torch', 'g2opy', 'open3d', 'numpy', 'cv2'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_with_a_warm_cache_needs_no_torch(tmp_path: Path) -> None:
    """Importing it takes longer than all else before the first pose."""
    code = (
        "import sys\n"
        "from spslam.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end\n"
        "sys.exit(' '.join({'torch', 'scipy.optimize', 'nncf', 'onnx'} & set(sys.modules)) or 0)"
    )
    run = ["run", "demo-small", "--max-frames", "1", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "SPSLAM_CACHE": str(tmp_path / "cache")}
    for warm in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", code, *run], cwd=ROOT, capture_output=True, text=True, check=False, env=environment
        )
        assert (done.returncode == 0) == warm, done.stderr


def test_every_package_folder_is_listed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent for folder in ("spslam", *ROOMS) for path in (ROOT / folder).rglob("__init__.py")}
    folders = {folder.relative_to(ROOT).as_posix() for folder in folders}
    names = {
        folder.replace("/", ".") if folder.startswith("spslam") else "spslam." + folder.replace("/", ".")
        for folder in folders
    }
    assert names == set(setuptools["packages"])
    assert setuptools["package-dir"] == {"spslam": "spslam", **{f"spslam.{room}": room for room in ROOMS}}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_linked_into_the_package(room: str) -> None:
    link = ROOT / "spslam" / room
    assert link.is_symlink()
    assert link.readlink() == Path("..") / room
