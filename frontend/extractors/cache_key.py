"""The key of the feature cache: everything but the image that decides the features.

Two runs with the same key may share the features of an image.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from spslam import __version__
from spslam.config import FeatureConfig
from spslam.interfaces import Extractor
from spslam.process.machine import processor

from .registry import AdaptedExtractor

# The front end's package, and its folder.
_FRONT_END = "spslam.frontend"
_FOLDER = Path(__file__).parents[1]
# Libraries whose versions decide the features.
_LIBRARIES = ("numpy", "opencv-python-headless", "torch", "openvino", "onnxruntime")
# Settings whose effect is part of the extractor's fingerprint.
_IN_FINGERPRINT = {"weights", "device", "engine", "precision"}
# Settings that do not change the features. Where threads do, they are part of the fingerprint.
_WITHOUT_EFFECT = {"pixel_sigma", "threads", "max_concurrency"}


def describe(extractor: Extractor, config: FeatureConfig) -> dict[str, Any]:
    """Describe everything but the image that decides the features, as JSON values.

    That is the extractor with its parameters, the settings, the code, the libraries, and the
    processor, whose instructions decide the last bits.
    """
    has_fingerprint = extractor.fingerprint != extractor.identity
    left_out = _WITHOUT_EFFECT | (_IN_FINGERPRINT if has_fingerprint else set())
    return {
        "extractor": extractor.name,
        "identity": extractor.identity,
        "engine": extractor.engine,
        "fingerprint": extractor.fingerprint,
        "settings": config.model_dump(exclude=left_out),
        "weights": _digest_of(config.weights),
        "code": code_digest(extractor),
        "spslam": __version__,
        "libraries": {name: _version(name) for name in _LIBRARIES},
        **processor(),
    }


def code_digest(extractor: Extractor) -> str:
    """Hash the source files that the extractor uses, directly or indirectly; see `code_files`.

    The key of the cache thus changes with the code, without a version number.

    Returns:
        Hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, path in sorted(code_files(extractor).items()):
        digest.update(name.encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def code_files(extractor: Extractor) -> dict[str, Path]:
    """Return the source files that decide the features, by module name.

    These are the modules of the front end and of the extractor's own package that the extractor's
    module uses, directly or indirectly. A front-end module counts even if it is not imported yet,
    because a cache may hold its results. A module of another package counts if it is imported.
    """
    start = type(
        extractor.wrapped if isinstance(extractor, AdaptedExtractor) else extractor
    ).__module__
    packages = {
        _FRONT_END,
        _FRONT_END if _is_inside(start, _FRONT_END) else start.partition(".")[0],
    }
    found: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in found or not any(_is_inside(name, package) for package in packages):
            continue
        module = sys.modules.get(name)
        if module is not None:
            found[name] = Path(module.__file__ or "")
            waiting += [
                origin
                for value in vars(module).values()
                if isinstance(origin := _origin(value), str)
            ]
        elif _is_inside(name, _FRONT_END) and (path := _path_of(name)) is not None:
            found[name] = path
        if name in found and _is_inside(name, _FRONT_END):
            waiting += _neighbours(name, found[name])
    return found


def _is_inside(name: str, package: str) -> bool:
    """Whether a module is a package or lies inside it."""
    return name == package or name.startswith(f"{package}.")


def _path_of(name: str) -> Path | None:
    """Find the file of a front-end module that is not imported; None if no module has the name."""
    path = _FOLDER.joinpath(*name.removeprefix(_FRONT_END).split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _neighbours(name: str, path: Path) -> list[str]:
    """List the names that a front-end module imports by relative imports, also inside functions.

    Some of the names are not modules.
    """
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [
                *package[: len(package) - node.level + 1],
                *([node.module] if node.module else []),
            ]
            found += [".".join(base), *(".".join([*base, alias.name]) for alias in node.names)]
    return found


def _origin(value: object) -> object:
    """Return the name of the module that a value comes from, if known."""
    return value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)


def _digest_of(weights: str | None) -> str:
    """Hash all bytes of a weights file; return a built-in name as it is."""
    if weights is None or not Path(weights).is_file():
        return str(weights)
    return hashlib.blake2b(Path(weights).read_bytes(), digest_size=16).hexdigest()


def _version(name: str) -> str:
    """Return the version of a library; "" if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
