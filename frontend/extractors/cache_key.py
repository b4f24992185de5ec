"""What features follow from, but for the image: two runs may share those of an image where all of it is equal."""

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

_FRONT_END = "spslam.frontend"
_FOLDER = Path(__file__).parents[1]
_LIBRARIES = ("numpy", "opencv-python-headless", "torch", "openvino", "onnxruntime")
# What the extractor makes of these is in its fingerprint.
_IN_FINGERPRINT = {"weights", "device", "engine", "precision"}
# Threads change no features, or are in the fingerprint; the deviation is for those who use them.
_WITHOUT_EFFECT = {"pixel_sigma", "threads", "max_concurrency"}


def describe(extractor: Extractor, config: FeatureConfig) -> dict[str, Any]:
    """All that the features of an image follow from, as what JSON can hold: the extractor with its parameters, the
    settings, the code and the libraries that it uses, and the processor, whose instructions decide about last bits.
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
    """Hexadecimal digits that stand for the source of the extractor's module and of those of its package that it uses,
    one through another: no version number has to be raised when they change.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, path in sorted(code_files(extractor).items()):
        digest.update(name.encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def code_files(extractor: Extractor) -> dict[str, Path]:
    """The files of `code_digest` by their modules' names, imported so far or, of the front end, only when they are
    needed: what they did may lie in a cache. Of a package of its own, all that it has imported so far.
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
    return name == package or name.startswith(f"{package}.")


def _path_of(name: str) -> Path | None:
    """The file of a module of the front end that is not imported; None: there is none of that name."""
    path = _FOLDER.joinpath(*name.removeprefix(_FRONT_END).split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _neighbours(name: str, path: Path) -> list[str]:
    """Names of the front end that a module of it imports, be it inside a function; some are no modules."""
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
    """The module that a value of a module's namespace comes from, if it can tell."""
    return value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)


def _digest_of(weights: str | None) -> str:
    """Of a weights file's bytes: they may hold more than the parameters. What is no file speaks for itself."""
    if weights is None or not Path(weights).is_file():
        return str(weights)
    return hashlib.blake2b(Path(weights).read_bytes(), digest_size=16).hexdigest()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
