"""Read configurations: YAML files that extend others, and overrides of single keys."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from spslam.config.config import Config
from spslam.errors import ConfigError
from spslam.io.given_files import read_given
from spslam.io.structured_text import StructureError, one_line, parse_yaml, shown
from spslam.notices import notice_renamed

# Maximum size of a configuration file, bytes; larger files are refused.
_LONGEST_BYTES = 1_000_000
# Maximum number of files in a chain of `extends`; longer chains are refused.
_LONGEST_CHAIN = 16
# Maximum number of names in a dotted key of an override (`a.b` has two); longer keys are refused.
_MOST_PARTS = 8
# Maximum number of mistakes that one error message lists; the rest is counted.
_MOST_MISTAKES = 8

# Old keys and their new names. Old names are accepted for one release, with a notice.
RENAMED_KEYS = {
    "features.at_once": "features.max_concurrency",
    "tracking.min_inlier_share": "tracking.min_inlier_fraction",
    "tracking.min_coverage": "tracking.min_inlier_coverage",
    "tracking.recovery_places": "tracking.recovery_candidates",
    "tracking.new_part_after_s": "tracking.new_submap_after_s",
    "tracking.new_part_frames": "tracking.new_submap_frames",
    "keyframes.min_tracked_share": "keyframes.min_tracked_fraction",
    "keyframes.max_flow_share": "keyframes.max_flow_fraction",
    "mapping.redundant_share": "mapping.redundant_fraction",
    "loop.min_likeness": "loop.min_similarity",
    "loop.min_coverage": "loop.min_inlier_coverage",
    "loop.global_delay": "global_bundle.delay",
    "loop.global_iterations": "global_bundle.iterations",
}

# The same of the configurations of trainings.
RENAMED_TRAINING_KEYS = {"optimizer.final_share": "optimizer.final_fraction"}

Settings = TypeVar("Settings", bound=BaseModel)

_logger = logging.getLogger(__name__)


def config_names(folder: str = "") -> list[str]:
    """Names of the built-in configurations in a folder of the package's configs.

    Args:
        folder: the folder; empty: the configurations of runs.
    """
    entries = resources.files("spslam.configs").joinpath(folder).iterdir()
    return sorted(entry.name[:-5] for entry in entries if entry.name.endswith(".yaml"))


# Data sets that were recorded like another one: by a car at 10 Hz, by a drone or hand at 20 Hz.
_SAME_VEHICLE = {
    "kitti_raw": "kitti",
    "kitti360": "kitti",
    "demo-street": "kitti",
    "tumvi": "euroc",
    "uzhfpv": "euroc",
}


def config_for(dataset: str, sensor: str) -> str:
    """The built-in configuration for a data set and sensor; `default` if neither has its own."""
    name = f"{_SAME_VEHICLE.get(dataset, dataset)}_{sensor}"
    return name if name in config_names() else "default"


def load_config(name_or_path: str | Path = "default", overrides: list[str] | None = None) -> Config:
    """Load a built-in configuration by name or a YAML file by path.

    Args:
        name_or_path: `default`, `kitti_stereo`, … or a path that ends in .yaml or .yml.
        overrides: `a.b=value` each; the value is read as YAML.

    Raises:
        ConfigError: unknown name, unreadable file, unknown key or impossible value; the message
            names the key.
    """
    return load_settings(Config, name_or_path, overrides)


def load_settings(
    model: type[Settings],
    name_or_path: str | Path,
    overrides: list[str] | None = None,
    *,
    folder: str = "",
    kind: str = "config",
) -> Settings:
    """Load a configuration of any kind: a built-in one by name or a YAML file by path.

    Args:
        model: class of the configuration.
        name_or_path: a name in the folder, or a path that ends in .yaml or .yml.
        overrides: `a.b=value` each; the value is read as YAML.
        folder: folder of the package's configs with the built-in ones; empty: those of runs.
        kind: what the message of an error calls it.

    Raises:
        ConfigError: unknown name, unreadable file, unknown key or impossible value; the message
            names the key.
    """
    values = load_values(str(name_or_path), overrides, folder)
    try:
        return model.model_validate(_with_defaults(model, values))
    except ValidationError as error:
        raise ConfigError(f"{kind} {name_or_path}: {describe_errors(error)}") from None


def load_values(
    name_or_path: str, overrides: list[str] | None = None, folder: str = ""
) -> dict[str, Any]:
    """Load a YAML file, merged with the files it extends and with the overrides.

    Args:
        name_or_path: a name in the package's configs, or a path that ends in .yaml or .yml.
        overrides: `a.b=value` each; the value is read as YAML.
        folder: the folder of the package's configs with that name; empty: those of runs.

    Raises:
        ConfigError: unknown name, unreadable file, or a file that is no mapping.
    """
    values = _load_chain(name_or_path, (), folder)
    for override in overrides or []:
        values = _merge(
            values, _today(_parse_override(override), f"override {shown(override)}", folder)
        )
    return values


def with_new_names(
    values: Mapping[str, Any], names: Mapping[str, str] = RENAMED_KEYS
) -> tuple[dict[str, Any], list[str]]:
    """Rename the old keys of `RENAMED_KEYS` in the values of one file or override.

    Returns:
        The values with new names, and the old names that were found.

    Raises:
        ConfigError: a key is given under both names.
    """
    renamed: dict[str, Any] = dict(values)
    found = []
    for old, new in names.items():
        (old_stage, old_key), (new_stage, new_key) = old.split("."), new.split(".")
        before, after = renamed.get(old_stage), renamed.get(new_stage, {})
        if not isinstance(before, dict) or not isinstance(after, dict) or old_key not in before:
            continue
        if new_key in after:
            raise ConfigError(f"{old} is the old name of {new}: give one of them, not both")
        renamed[old_stage] = {key: value for key, value in before.items() if key != old_key}
        renamed[new_stage] = renamed.get(new_stage, {}) | {new_key: before[old_key]}
        found.append(old)
    return renamed, found


def _today(values: dict[str, Any], where: str, folder: str) -> dict[str, Any]:
    """Rename the old keys of a run's configuration; a notice names each."""
    names = RENAMED_TRAINING_KEYS if folder == "training" else {} if folder else RENAMED_KEYS
    try:
        values, found = with_new_names(values, names)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    for old in found:
        notice_renamed(_logger, where, old, names[old])
    return values


def _read_yaml(name_or_path: str, folder: str) -> tuple[str, Path | None]:
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        try:
            return read_given(path, _LONGEST_BYTES).decode("utf-8"), path
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read config file {path}: {getattr(error, 'strerror', None) or error}"
            ) from None
    entry = resources.files("spslam.configs").joinpath(folder) / f"{name_or_path}.yaml"
    if not entry.is_file():
        raise ConfigError(
            f"no config named {name_or_path!r}: expected one of {', '.join(config_names(folder))}, "
            "or a path ending in .yaml"
        )
    return entry.read_text(encoding="utf-8"), None


def _load_chain(name_or_path: str, chain: tuple[str, ...], folder: str) -> dict[str, Any]:
    if name_or_path in chain:
        raise ConfigError(
            f"configs extend each other in a circle: {' -> '.join((*chain, name_or_path))}"
        )
    if len(chain) >= _LONGEST_CHAIN:
        raise ConfigError(
            f"config {chain[0]} extends {_LONGEST_CHAIN} others in a chain: use fewer files"
        )
    text, path = _read_yaml(name_or_path, folder)
    try:
        values = parse_yaml(text)
    except StructureError as error:
        raise ConfigError(f"config {name_or_path} {error}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(
            f"config {name_or_path}: expected keys and values, found {type(values).__name__}"
        )
    values = {str(key): value for key, value in values.items()}
    parent = values.pop("extends", None)
    # Rename before merging: a new name in this file overrides an old name in the files it extends.
    values = _today(values, f"config {name_or_path}", folder)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise ConfigError(
            f"config {name_or_path}: extends must be a name or a path, found {shown(parent)}"
        )
    if path is not None and parent.endswith((".yaml", ".yml")):
        parent = str((path.parent / parent).resolve())
    return _merge(_load_chain(parent, (*chain, name_or_path), folder), values)


def _with_defaults(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """Add what a section sets in a section inside it, where only other keys of it are given.

    Pydantic would make the inner section from the defaults of its class.
    """
    whole = dict(values)
    for name, field in model.model_fields.items():
        given = whole.get(name)
        if isinstance(field.default, BaseModel) and isinstance(given, dict):
            # A wrong value stays for the validation to name.
            whole[name] = _merge(field.default.model_dump(), given)
    return whole


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip() or key.count(".") >= _MOST_PARTS:
        raise ConfigError(
            f"override {shown(text)}: expected section.key=value, "
            "for example tracking.min_inliers=15"
        )
    try:
        tree: Any = parse_yaml(value) if value.strip() else None
    except StructureError as error:
        raise ConfigError(f"override {shown(text)}: the value {error}") from None
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    assert isinstance(tree, dict)
    return tree


def describe_errors(error: ValidationError) -> str:
    """Describe the mistakes of a configuration in one line, with their keys."""
    parts = []
    for item in error.errors()[:_MOST_MISTAKES]:
        path = one_line(".".join(str(part) for part in item["loc"]))
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown key {path}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            parts.append(f"{path}: {message}, found {shown(item['input'])}" if path else message)
    more = error.error_count() - _MOST_MISTAKES
    return "; ".join([*parts, f"and {more} more"] if more > 0 else parts)
