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
from spslam.process.machine import processor
from spslam.interfaces import Extractor, engine, fingerprint, identity

_LIBRARIES = ("numpy", "opencv-python-headless", "torch", "openvino", "onnxruntime")
# What the extractor makes of these is in its fingerprint.
_IN_FINGERPRINT = {"weights", "device", "engine", "precision"}
# Threads change no features, or are in the fingerprint; the deviation is for those who use them.
_WITHOUT_EFFECT = {"pixel_sigma", "threads", "at_once"}


def describe(extractor: Extractor, config: FeatureConfig) -> dict[str, Any]:
    """All that the features of an image follow from, as what JSON can hold: the extractor with its parameters, the
    settings, the code and the libraries that it uses, and the processor, whose instructions decide about last bits."""
    left_out = _WITHOUT_EFFECT | (_IN_FINGERPRINT if hasattr(extractor, "fingerprint") else set())
    return {
        "extractor": extractor.name,
        "identity": identity(extractor),
        "engine": engine(extractor),
        "fingerprint": fingerprint(extractor),
        "settings": config.model_dump(exclude=left_out),
        "weights": _digest_of(config.weights),
        "code": code_digest(extractor),
        "spslam": __version__,
        "libraries": {name: _version(name) for name in _LIBRARIES},
        **processor(),
    }


def code_digest(extractor: Extractor) -> str:
    """Hexadecimal digits that stand for the source of the extractor's module and of those of its package that it uses,
    one through another: no version number has to be raised when they change."""
    digest = hashlib.blake2b(digest_size=16)
    for name, path in sorted(code_files(extractor).items()):
        digest.update(name.encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def code_files(extractor: Extractor) -> dict[str, Path]:
    """The files of `code_digest` by their modules' names, imported so far or, of this package, only when they are
    needed: what they did may lie in a cache. Of a package of its own, all that it has imported so far."""
    start = type(extractor).__module__
    packages = {__package__, __package__ if start.startswith(f"{__package__}.") else start.partition(".")[0]}
    found: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        inside = any(name == package or name.startswith(f"{package}.") for package in packages)
        if name in found or not inside:
            continue
        module = sys.modules.get(name)
        if module is not None:
            found[name] = Path(module.__file__ or "")
            waiting += [origin for value in vars(module).values() if isinstance(origin := _origin(value), str)]
        elif name.startswith(f"{__package__}."):
            found[name] = Path(__file__).with_name(f"{name.rpartition('.')[2]}.py")
        if name in found and name.startswith(f"{__package__}."):
            waiting += _neighbours(found[name])
    return found


def _neighbours(path: Path) -> list[str]:
    """Modules of this package that a file of it imports, be it inside a function."""
    nodes = ast.walk(ast.parse(path.read_bytes()))
    return [f"{__package__}.{node.module}" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 1]


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
