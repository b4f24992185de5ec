"""Compiled OpenVINO models in the cache folder, each with a checksum.

OpenVINO's own cache (`CACHE_DIR`) notices files that are cut or of another version, but uses most
files with a changed bit silently. This cache therefore verifies each file before OpenVINO reads it.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from spslam.errors import OutputError
from spslam.io.sealed import SealError, read_sealed, write_sealed
from spslam.notices import notice

from .openvino_model import Model, openvino_cache

# Version of the keys; raise it whenever the same key may stand for another compiled model.
_VERSION = "1"

_logger = logging.getLogger(__name__)


class CompiledCache:
    """The compiled models of one model, for images of several sizes.

    A model is compiled again if its file is missing, damaged or refused by OpenVINO. If the folder
    cannot be written to, nothing is cached. Several processes may share the folder: files appear
    whole.

    Args:
        core: OpenVINO's core.
        model: the model to compile.
        properties: properties for compiling and importing it.
        machine: OpenVINO's version and the processor, which decide the result.
    """

    def __init__(
        self, core: Any, model: Model, properties: Mapping[str, Any], machine: str
    ) -> None:
        self._core = core
        self._properties = dict(properties)
        self._key = hashlib.sha256(
            repr((_VERSION, machine, sorted(self._properties.items()))).encode()
        )
        self._key.update(model_digest(model))
        self._folder = _folder()

    def compiled(self, height: int, width: int, compile_model: Callable[[], Any]) -> Any:
        """Return the compiled model for images of a size, from the cache if possible.

        Args:
            height: of the images, pixels; -1: any.
            width: of the images, pixels; -1: any.
            compile_model: compiles the model if the cache lacks it; its result is cached.
        """
        path = self._path(height, width)
        if path is None:
            return compile_model()
        found = self._read(path)
        if found is not None:
            return found
        made = compile_model()
        try:
            write_sealed(path, made.export_model().getbuffer())
        except (OutputError, RuntimeError) as error:
            _logger.info("the compiled network is not cached: %s", error)
        return made

    def _path(self, height: int, width: int) -> Path | None:
        """Return the file of a compiled model; None if nothing can be cached."""
        key = self._key.copy()
        key.update(f"{height} {width}".encode())
        return None if self._folder is None else self._folder / f"{key.hexdigest()[:32]}.compiled"

    def _read(self, path: Path) -> Any:
        """Import a compiled model; None if its file is missing, damaged or refused."""
        try:
            content = read_sealed(path)
        except FileNotFoundError:
            return None
        except (OSError, SealError) as error:
            notice(_logger, "damaged_cache", "%s; the network is compiled again", error)
            return None
        try:
            return self._core.import_model(io.BytesIO(content), "CPU", self._properties)
        except RuntimeError as error:
            _logger.info(
                "OpenVINO refuses %s (%s): the network is compiled again",
                path,
                " ".join(str(error).split()),
            )
            return None


def model_digest(model: Model) -> bytes:
    """Hash a model by SHA-256: its operations, their inputs, and its constants."""
    digest = hashlib.sha256()
    order: dict[str, int] = {}
    for index, node in enumerate(model.get_ordered_ops()):
        order[node.get_friendly_name()] = index
        sources = [
            (order[value.get_node().get_friendly_name()], value.get_index())
            for value in node.input_values()
        ]
        kind = node.get_type_name()
        digest.update(repr((kind, sorted(node.get_attributes().items()), sources)).encode())
        if kind == "Constant":
            digest.update(node.get_data().tobytes())
    return digest.digest()


def _folder() -> Path | None:
    """Make the folder of compiled models; None if that fails."""
    folder = openvino_cache()
    if folder is None:
        return None
    try:
        (folder / "compiled").mkdir(exist_ok=True)
    except OSError as error:
        _logger.info("compiled networks are not cached: %s", error)
        return None
    return folder / "compiled"
