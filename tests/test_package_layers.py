"""Which package may import which: docs/architecture.md, docs/decisions/0001-package-layout.md."""

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
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
    "pipeline": 8,
    "benchmark": 8,
    "cli": 9,
    "__main__": 10,
}
INDEPENDENT = {"frontend", "backend", "datasets", "map", "evaluation"}
MAY_IMPORT_LINKED = {"factory", "adapters", "features", "cli"}
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
    "h5py": "spslam",
    "kornia": "spslam",
    "pycolmap": "spslam",
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


def test_all_packages_are_walked() -> None:
    expected = {
        "spslam.frontend.matching.matching",
        "spslam.backend.pose",
        "spslam.datasets.kitti",
        "spslam.slam.system",
    }
    assert expected <= set(MODULES)


# `spslam` imports its public names on first access.
@pytest.mark.parametrize("module", sorted(set(MODULES) - {"spslam"}))
def test_imports_go_downwards(module: str) -> None:
    own, linked = package_of(module), linked_package_of(module)
    for name, level in imports(module, MODULES[module]):
        if name.split(".")[0] != "spslam" or name == "spslam.__version__":
            continue
        imported, other = package_of(name), linked_package_of(name)
        assert LAYERS[imported] <= LAYERS[own], f"{module} imports {name}, which is above it"
        assert imported == own or not {imported, own} <= INDEPENDENT, (
            f"{module} imports {name}, which is independent of it"
        )
        assert other in (None, linked) or own in MAY_IMPORT_LINKED or module == "spslam.pipeline", (
            f"{module}: {name}"
        )
        assert (level > 0) == (linked is not None and other == linked), (
            f"{module}: {name} may be relative only inside one linked package"
        )


def test_no_folder_holds_too_many_modules() -> None:
    folders = [path.parent for path in [*MODULES.values(), *(ROOT / "tests").rglob("*.py")]]
    assert {
        folder: folders.count(folder) for folder in folders if folders.count(folder) > MOST_MODULES
    } == {}


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_are_imported_in_one_place(module: str) -> None:
    for name, _ in imports(module, MODULES[module]):
        package = name.split(".")[0]
        assert package != "evo", f"{module} imports evo, which is GPL: for tests only"
        if package in HEAVY:
            assert (linked_package_of(module) or "spslam") == HEAVY[package], (
                f"{module} imports {package}"
            )
        if package == "open3d":
            drawn = ("spslam.visualization.", "spslam.dense.")
            assert module.startswith(drawn), f"{module} imports {package}"
        if package == "rerun":
            assert module.startswith("spslam.visualization."), f"{module} imports {package}"
        if package == "distributed":
            assert module == "spslam.process.cluster", f"{module} imports distributed"


def test_core_modules_load_nothing_heavy() -> None:
    light = [
        name for name in MODULES if linked_package_of(name) is None and name != "spslam.factory"
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
