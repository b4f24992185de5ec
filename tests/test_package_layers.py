"""Which package may import which: docs/architecture.md, docs/decisions/0001-package-layout.md."""

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINKED_PACKAGES = ("frontend", "backend", "datasets", "configs")
# A package imports itself and those with smaller numbers, but not those in INDEPENDENT.
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
    "adapters": 8,
    "features": 8,
    "dense": 8,
    "calibrate": 8,
    "check": 8,
    "pipeline": 8,
    "benchmark": 8,
    "cli": 9,
    "__main__": 10,
}
INDEPENDENT = {"frontend", "backend", "datasets", "map", "evaluation"}
MAY_IMPORT_LINKED = {"factory", "adapters", "features", "calibrate", "check", "cli"}
MOST_MODULES = 20
# Modules with classes of PyTorch for programs that use PyTorch themselves.
TORCH_ADAPTERS = {
    f"spslam.adapters.{name}"
    for name in ("torch_module", "lightglue", "kornia", "hloc", "glue_factory")
}
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
    "h5py": "spslam",
    "kornia": "frontend spslam",
    "pycolmap": "spslam",
    "OpenEXR": "datasets",
    "rosbags": "datasets spslam",
    "pyrealsense2": "datasets",
    "depthai": "datasets",
}


def modules() -> dict[str, Path]:
    """All shipped code: module name -> file."""
    found = {}
    for folder in ("spslam", *LINKED_PACKAGES):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            # rglob may follow the links in spslam/: linked packages are read once, at the root.
            if folder == "spslam" and len(parts) > 2 and parts[1] in LINKED_PACKAGES:
                continue
            name = parts if folder == "spslam" else ("spslam", *parts)
            found[".".join(name[:-1] if name[-1] == "__init__" else name)] = path
    return found


def linked_package_of(module: str) -> str | None:
    parts = module.split(".")
    return (
        parts[1]
        if len(parts) > 1 and parts[0] == "spslam" and parts[1] in LINKED_PACKAGES
        else None
    )


def package_of(module: str) -> str:
    """The key of `LAYERS`: a package, a module with a layer of its own, or "" for the core."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else ""


def imports(module: str, path: Path) -> Iterator[tuple[str, int]]:
    """(absolute name, level of a relative import) of each import that is not for type checkers."""
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


@cache
def all_imports() -> dict[str, list[tuple[str, int]]]:
    """The `imports` of every module."""
    return {module: [*imports(module, path)] for module, path in MODULES.items()}


def test_all_packages_are_walked() -> None:
    expected = {
        "spslam.frontend.matching.matching",
        "spslam.backend.pose",
        "spslam.datasets.kitti",
        "spslam.slam.system",
    }
    assert expected <= set(MODULES)


def rules_broken_by(module: str, name: str, level: int) -> Iterator[str]:
    """What an import breaks of the order of the packages."""
    imported, other = package_of(name), linked_package_of(name)
    own, linked = package_of(module), linked_package_of(module)
    if LAYERS[imported] > LAYERS[own]:
        yield f"{module} imports {name}, which is above it"
    if imported != own and {imported, own} <= INDEPENDENT:
        yield f"{module} imports {name}, which is independent of it"
    if not (other in (None, linked) or own in MAY_IMPORT_LINKED or module == "spslam.pipeline"):
        yield f"{module} may not import {name}"
    if (level > 0) != (linked is not None and other == linked):
        yield f"{module}: {name} may be relative only inside one linked package"


def test_imports_go_downwards() -> None:
    broken = [
        rule
        # `spslam` imports its public names on first access.
        for module in sorted(set(MODULES) - {"spslam"})
        for name, level in all_imports()[module]
        if name.split(".")[0] == "spslam" and name != "spslam.__version__"
        for rule in rules_broken_by(module, name, level)
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("module", "name", "level", "rule"),
    [
        ("spslam.io.files", "spslam.cli.app", 0, "above it"),
        ("spslam.backend.pose", "spslam.datasets.kitti", 0, "independent of it"),
        ("spslam.slam.system", "spslam.backend.pose", 0, "may not import"),
        ("spslam.backend.pose", "spslam.backend.bundle", 0, "may be relative only"),
        ("spslam.slam.system", "spslam.slam.tracking", 1, "may be relative only"),
    ],
)
def test_a_wrong_import_is_found(module: str, name: str, level: int, rule: str) -> None:
    assert rule in " ".join(rules_broken_by(module, name, level))


def test_no_folder_holds_too_many_modules() -> None:
    folders = [path.parent for path in [*MODULES.values(), *(ROOT / "tests").rglob("*.py")]]
    assert {
        folder: folders.count(folder) for folder in folders if folders.count(folder) > MOST_MODULES
    } == {}


def heavy_imports_of(module: str, names: set[str]) -> Iterator[str]:
    """The packages among `names` that are imported by a module that must not import them."""
    if "evo" in names:
        yield f"{module} imports evo, which is GPL: for tests only"
    for package in names & set(HEAVY):
        allowed = package == "torch" and module in TORCH_ADAPTERS
        if not allowed and (linked_package_of(module) or "spslam") not in HEAVY[package].split():
            yield f"{module} imports {package}"
    drawn = ("spslam.visualization.", "spslam.dense.")
    if "open3d" in names and not module.startswith(drawn):
        yield f"{module} imports open3d"
    if "rerun" in names and not module.startswith("spslam.visualization."):
        yield f"{module} imports rerun"
    if "distributed" in names and module != "spslam.process.cluster":
        yield f"{module} imports distributed"


def test_heavy_packages_are_imported_in_one_place() -> None:
    broken = [
        found
        for module in MODULES
        for found in heavy_imports_of(
            module, {name.split(".")[0] for name, _ in all_imports()[module]}
        )
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("spslam.frontend.extractors.registry", "evo"),
        ("spslam.slam.system", "torch"),
        ("spslam.cli.view", "open3d"),
        ("spslam.cli.view", "rerun"),
        ("spslam.benchmark.suite", "distributed"),
    ],
)
def test_a_heavy_import_in_another_place_is_found(module: str, package: str) -> None:
    assert [*heavy_imports_of(module, {package, "numpy"})] != []


def test_core_modules_load_nothing_heavy() -> None:
    light = [
        name
        for name in set(MODULES) - TORCH_ADAPTERS
        if linked_package_of(name) is None and name != "spslam.factory"
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
        f"loaded = {{*{[*HEAVY]!r}, *{[f'spslam.{linked}' for linked in LINKED_PACKAGES]!r}}} "
        f"& set(sys.modules)\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_import_of_spslam_is_light() -> None:
    code = (
        "import sys, spslam; sys.exit(' '.join({'torch', 'g2opy', 'open3d', 'numpy', 'cv2'} "
        "& set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_with_a_warm_cache_needs_no_torch(tmp_path: Path) -> None:
    """Importing torch takes longer than everything else before the first pose."""
    code = (
        "import sys\n"
        "from spslam.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end\n"
        "sys.exit(' '.join({'torch', 'scipy.optimize', 'nncf', 'onnx'} & set(sys.modules)) or 0)"
    )
    run = ["run", "demo-small", "--max-frames", "1", "--out", str(tmp_path / "out")]
    only_fill = ["--outputs", "trajectory"]
    environment = {**os.environ, "SPSLAM_CACHE": str(tmp_path / "cache")}
    for warm in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", code, *run, *([] if warm else only_fill)],
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
        path.parent.relative_to(ROOT).as_posix()
        for folder in ("spslam", *LINKED_PACKAGES)
        for path in (ROOT / folder).rglob("__init__.py")
    }
    names = {
        folder.replace("/", ".")
        if folder.startswith("spslam")
        else "spslam." + folder.replace("/", ".")
        for folder in folders
    }
    assert names == set(setuptools["packages"])
    assert setuptools["package-dir"] == {
        "spslam": "spslam",
        **{f"spslam.{linked}": linked for linked in LINKED_PACKAGES},
    }


@pytest.mark.parametrize("linked", LINKED_PACKAGES)
def test_packages_are_linked_into_spslam(linked: str) -> None:
    link = ROOT / "spslam" / linked
    # git writes a text file on a system without symbolic links.
    target = link.readlink().as_posix() if link.is_symlink() else link.read_text(encoding="utf-8")
    assert target == f"../{linked}"
