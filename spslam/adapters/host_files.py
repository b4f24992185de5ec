"""The files through which other programs load spslam, written from templates.

Each is a small file that imports `spslam.adapters`. Its first line marks it as written by spslam
and has a checksum of the rest: a file that someone has edited is not replaced unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spslam import __version__
from spslam.config import Config, load_config
from spslam.errors import ConfigError, OutputError
from spslam.io.files import printable, write_atomic
from spslam.io.given_files import read_given
from spslam.io.structured_text import one_line
from spslam.notices import notice

if TYPE_CHECKING:
    from jinja2 import Environment

_LOG = logging.getLogger(__name__)

# First line of every written file: plug-in, and checksum of the lines below.
_MARK = re.compile(rb"# spslam-host-file \S+ (?P<digest>[0-9a-f]{16})\n")
# Largest file that is compared before it is replaced, bytes.
_LONGEST_BYTES = 1_000_000
# Length of descriptors that hosts of `demo_superpoint` often assume.
_USUAL_DIM = 256
# Keys of the front end's settings in a configuration.
_FEATURES = "features."
# Settings that have an option of their own, or that an adapter fixes.
_NOT_SET = {
    "features.weights": "use --weights",
    "features.extractor": "the files run SuperPoint only",
    "features.device": "the host chooses the device",
}


@dataclass(frozen=True)
class HostFile:
    """A file of a plug-in.

    Attributes:
        template: its template in `spslam/templates/`.
        name: its name.
        place: where the host looks for it.
    """

    template: str
    name: str
    place: str


@dataclass(frozen=True)
class HostPlugin:
    """The files for one kind of host.

    Attributes:
        name: name for `spslam plugin write`.
        host: the programs that load the files.
        files: the files.
        needs: what must be installed beside spslam.
        weights: weights where none are given.
        whole_config: whether every key of a configuration may be set, not only `features.*`.
        usual_dim: length of descriptors that hosts may assume; None: any.
    """

    name: str
    host: str
    files: tuple[HostFile, ...]
    needs: str
    weights: str = "superpoint_lite"
    whole_config: bool = False
    usual_dim: int | None = None


_FILES = (
    HostPlugin(
        "opencv",
        "programs with OpenCV (cv2.Feature2D)",
        (HostFile("host_opencv.py.j2", "spslam_opencv.py", "anywhere: an example to run"),),
        "nothing more",
    ),
    HostPlugin(
        "demo_superpoint",
        "pySLAM, SuperPoint odometry repositories",
        (
            HostFile(
                "host_demo_superpoint.py.j2",
                "demo_superpoint.py",
                "where the host imports demo_superpoint (pySLAM: thirdparty/superpoint)",
            ),
        ),
        "the host",
        weights="superpoint",
        usual_dim=_USUAL_DIM,
    ),
    HostPlugin(
        "hloc",
        "hloc, image-matching-webui",
        (HostFile("host_hloc.py.j2", "spslam_superpoint.py", "hloc/extractors/"),),
        "the host (with PyTorch)",
    ),
    HostPlugin(
        "glue-factory",
        "glue-factory",
        (
            HostFile(
                "host_gluefactory.py.j2", "spslam_superpoint.py", "gluefactory/models/extractors/"
            ),
        ),
        "the host (with PyTorch)",
    ),
    HostPlugin(
        "deep-image-matching",
        "deep-image-matching",
        (
            HostFile(
                "host_deep_image_matching.py.j2",
                "spslam_superpoint.py",
                "src/deep_image_matching/extractors/",
            ),
        ),
        "the host (with PyTorch)",
    ),
    HostPlugin(
        "rtabmap",
        "RTAB-Map built with Python",
        (HostFile("host_rtabmap.py.j2", "spslam_rtabmap.py", "anywhere: --PyDetector/Path FILE"),),
        "the Python that RTAB-Map was built with",
    ),
    HostPlugin(
        "vslamlab",
        "VSLAM-LAB",
        (
            HostFile("host_vslamlab_run.py.j2", "vslamlab_spslam.py", "Baselines/spslam/"),
            HostFile(
                "host_vslamlab_settings.yaml.j2",
                "vslamlab_spslam_settings.yaml",
                "Baselines/spslam/",
            ),
            HostFile(
                "host_vslamlab_baseline.py.j2",
                "baseline_spslam.py",
                "Baselines/baseline_files/",
            ),
            HostFile("host_vslamlab_pixi.toml.j2", "pixi_spslam.toml", "into pixi.toml"),
        ),
        "a pixi environment",
        whole_config=True,
    ),
)
HOST_PLUGINS = {plugin.name: plugin for plugin in _FILES}


def write_plugin(
    name: str,
    folder: Path,
    weights: str | None = None,
    overrides: list[str] | None = None,
    force: bool = False,
) -> list[Path]:
    """Write the files of a plug-in.

    Args:
        name: a key of `HOST_PLUGINS`.
        folder: folder of the files; it is created.
        weights: a built-in name or a file; None: the plug-in's default.
        overrides: settings, `features.KEY=VALUE` each.
        force: replace files that spslam did not write, or that were edited since.

    Returns:
        The files.

    Raises:
        ConfigError: there is no such plug-in or setting.
        WeightsError: the weights cannot be used.
        OutputError: a file is not replaced, or cannot be written.
    """
    plugin = HOST_PLUGINS.get(name)
    if plugin is None:
        raise ConfigError(f"no plug-in named {name!r}: expected one of {', '.join(HOST_PLUGINS)}")
    values = _values(plugin, weights, overrides or [])
    texts = {folder / file.name: _text(plugin, file, values) for file in plugin.files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from None
    if not force:
        for path in texts:
            _refuse_foreign(path)
    for path, text in texts.items():
        write_atomic(path, text)
    return list(texts)


def _values(plugin: HostPlugin, weights: str | None, overrides: list[str]) -> dict[str, Any]:
    """Return the values of a plug-in's templates."""
    from spslam.frontend.superpoint.checkpoints import BUILT_IN, find_weights, read_checkpoint

    chosen = weights or plugin.weights
    dim = read_checkpoint(chosen).descriptor_dim
    if plugin.usual_dim not in (None, dim):
        text = "%s: these weights have descriptors of %d numbers; a host may assume %d"
        notice(_LOG, "descriptor_length", text, plugin.name, dim, plugin.usual_dim)
    if chosen not in BUILT_IN:
        # The host runs in another folder.
        given = Path(chosen)
        chosen = str((given if given.is_dir() else find_weights(given)).absolute())
    settings = _settings(plugin, overrides)
    given_options = [*(["--weights", chosen] if weights else [])]
    given_options += [word for item in overrides for word in ("--set", item)]
    flat = {key.removeprefix(_FEATURES): value for key, value in settings.items()}
    return {
        "version": __version__,
        "name": plugin.name,
        "options": one_line(printable(shlex.join(given_options))),
        "weights_text": one_line(printable(chosen)),
        "weights": repr(chosen),
        "settings": repr(flat),
        "weights_yaml": json.dumps(chosen),
        "settings_yaml": json.dumps(settings),
    }


def _settings(plugin: HostPlugin, overrides: list[str]) -> dict[str, Any]:
    """Check KEY=VALUE settings, and return their values by key."""
    keys = [item.partition("=")[0].strip() for item in overrides]
    for key in keys:
        if key in _NOT_SET:
            raise ConfigError(f"--set {key} is not for plug-ins: {_NOT_SET[key]}")
        if not (plugin.whole_config or key.startswith(_FEATURES)):
            raise ConfigError(f"--set takes features.* for {plugin.name}, found {key!r}")
    config = load_config("default", overrides)
    return {key: _value(config, key) for key in keys}


def _value(config: Config, key: str) -> Any:
    value: Any = config.model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return value


def _text(plugin: HostPlugin, file: HostFile, values: dict[str, Any]) -> str:
    """Render a file, with the mark as its first line."""
    environment = _environment()
    head = environment.get_template("host_header.j2").render(values)
    body = head + environment.get_template(file.template).render(values)
    return f"# spslam-host-file {plugin.name} {_digest(body.encode())}\n{body}"


def _refuse_foreign(path: Path) -> None:
    """Refuse a file that spslam did not write, or that was edited since."""
    if not path.exists():
        return
    try:
        content = read_given(path, _LONGEST_BYTES)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    mark = _MARK.match(content)
    if mark is None:
        raise OutputError(f"{path} was not written by spslam: give --force to replace it")
    if mark["digest"].decode() != _digest(content[mark.end() :]):
        raise OutputError(f"{path} was edited since spslam wrote it: give --force to replace it")


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("spslam", "templates"),
        autoescape=False,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
