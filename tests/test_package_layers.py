"""Which package may import which: see docs/architecture.md and docs/decisions/0001-package-layout.md."""

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
# A package imports those with smaller numbers and itself; frontend, backend and datasets not each other.
LAYERS = {
    "configs": 0,
    "": 1,
    "io": 1,
    "process": 1,
    "map": 2,
    "evaluation": 2,
    "frontend": 2,
    "backend": 2,
    "datasets": 2,
    "factory": 3,
    "slam": 4,
    "run": 5,
    "visualization": 6,
    "reports": 7,
    "pipeline": 8,
    "benchmark": 8,
    "cli": 9,
    "__main__": 10,
}
APART = {"frontend", "backend", "datasets", "map", "evaluation"}
MAY_IMPORT_ROOMS = {"factory", "cli"}
MOST_MODULES = 20
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


def package_of(module: str) -> str:
    """The key of `LAYERS`: a package, a module of its own layer, or "" for the core."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else ""


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


def test_all_packages_are_walked() -> None:
    expected = {
        "spslam.frontend.matching.matching",
        "spslam.backend.pose",
        "spslam.datasets.kitti",
        "spslam.slam.system",
    }
    assert expected <= set(MODULES)


# `spslam` itself gives its public names when they are asked for.
@pytest.mark.parametrize("module", sorted(set(MODULES) - {"spslam"}))
def test_imports_go_downwards(module: str) -> None:
    own, room = package_of(module), room_of(module)
    for name, level in imports(module, MODULES[module]):
        if name.split(".")[0] != "spslam" or name == "spslam.__version__":
            continue
        imported, other = package_of(name), room_of(name)
        assert LAYERS[imported] <= LAYERS[own], f"{module} imports {name}, which is above it"
        assert imported == own or not {imported, own} <= APART, (
            f"{module} imports {name}, which is beside it"
        )
        assert other in (None, room) or own in MAY_IMPORT_ROOMS or module == "spslam.pipeline", (
            f"{module}: {name}"
        )
        assert (level > 0) == (room is not None and other == room), (
            f"{module}: {name} is relative inside a room only"
        )


def test_no_folder_holds_too_many_modules() -> None:
    folders = [path.parent for path in [*MODULES.values(), *(ROOT / "tests").rglob("*.py")]]
    assert {
        folder: folders.count(folder) for folder in folders if folders.count(folder) > MOST_MODULES
    } == {}


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_live_in_one_place(module: str) -> None:
    for name, _ in imports(module, MODULES[module]):
        package = name.split(".")[0]
        assert package != "evo", f"{module} imports evo, which is GPL: for tests only"
        if package in HEAVY:
            assert (room_of(module) or "spslam") == HEAVY[package], f"{module} imports {package}"
        if package in ("open3d", "rerun"):
            assert module.startswith("spslam.visualization."), f"{module} imports {package}"
        if package == "distributed":
            assert module == "spslam.benchmark.pools", f"{module} imports distributed"


def test_what_is_no_room_loads_nothing_heavy() -> None:
    light = [name for name in MODULES if room_of(name) is None and name != "spslam.factory"]
    code = (
        "import importlib, sys\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
        f"loaded = {{*{[*HEAVY]!r}, *{[f'spslam.{room}' for room in ROOMS]!r}}} & set(sys.modules)\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_import_of_spslam_is_light() -> None:
    code = "import sys, spslam; sys.exit(' '.join({'torch', 'g2opy', 'open3d', 'numpy', 'cv2'} & set(sys.modules)) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
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
            [sys.executable, "-c", code, *run],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert (done.returncode == 0) == warm, done.stderr


def test_every_package_folder_is_listed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]
    folders = {
        path.parent
        for folder in ("spslam", *ROOMS)
        for path in (ROOT / folder).rglob("__init__.py")
    }
    folders = {folder.relative_to(ROOT).as_posix() for folder in folders}
    names = {
        folder.replace("/", ".")
        if folder.startswith("spslam")
        else "spslam." + folder.replace("/", ".")
        for folder in folders
    }
    assert names == set(setuptools["packages"])
    assert setuptools["package-dir"] == {
        "spslam": "spslam",
        **{f"spslam.{room}": room for room in ROOMS},
    }


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_linked_into_the_package(room: str) -> None:
    link = ROOT / "spslam" / room
    # git writes a text file where the system has no symbolic links.
    target = link.readlink().as_posix() if link.is_symlink() else link.read_text(encoding="utf-8")
    assert target == f"../{room}"
