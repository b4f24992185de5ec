"""Identity of a run: everything that determines its results, to detect outdated ones."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import spslam
from spslam.benchmark.suite import Run
from spslam.config import Config, with_new_names
from spslam.errors import ConfigError
from spslam.io.given_files import read_given
from spslam.io.structured_text import parse_yaml

# Largest size of a configuration file that is read, bytes.
_LONGEST_BYTES = 1_000_000
# Folders of the package that do not affect the metrics of a run.
_BESIDE = ("benchmark/", "cli/", "frontend/training/", "reports/", "templates/", "visualization/")


@dataclass(frozen=True)
class Identity:
    """Identity of one run; equal identities give equal results on equal processors.

    Attributes:
        input: path or public name, sensor, range of frames, the calibration file's SHA-256, and
            disturbances if there are any.
        config_sha256: SHA-256 of all resolved settings.
        front_end: extractor, with its weights or its library.
        weights_sha256: SHA-256 of the weights file; None without one.
        code_sha256: SHA-256 of the source files that a run uses.
    """

    input: dict[str, Any]
    config_sha256: str
    front_end: str
    weights_sha256: str | None
    code_sha256: str

    @classmethod
    def of(cls, run: Run, config: Config, weights: Path | None) -> Identity:
        """Return the identity of a run from its resolved configuration and its weights file."""
        entry = run.entry
        name = config.features.extractor
        return cls(
            input={
                "frames": run.public or run.path,
                "dataset": entry.dataset,
                "sequence": entry.sequence,
                "sensor": run.case.sensor,
                "start": entry.start,
                "max_frames": entry.max_frames,
                "stride": entry.stride,
                "calibration": None
                if entry.calibration is None
                else file_sha256(Path(entry.calibration)),
                # Without disturbances, the identity equals that of older results.
                **({"disturb": run.disturbances} if entry.disturb else {}),
            },
            config_sha256=config_sha256(config),
            front_end=f"{name} {_behind(name, weights)}".strip(),
            weights_sha256=None if weights is None else file_sha256(weights),
            code_sha256=code_sha256(),
        )

    def difference(self, stored: dict[str, Any]) -> str | None:
        """Return as text what differs from an identity in `results.json`; None: nothing."""
        words = {
            "input": "other frames",
            "config_sha256": "another configuration",
            "front_end": "another front end",
            "weights_sha256": "other weights",
            "code_sha256": "another state of spslam's code",
        }
        own = asdict(self)
        found = [text for name, text in words.items() if own[name] != stored.get(name)]
        return " and ".join(found) or None


def config_sha256(config: Config) -> str:
    """Return the SHA-256 of all settings, sorted by name."""
    return hashlib.sha256(
        json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()
    ).hexdigest()


def as_requested(ran: Config, requested: Config) -> Config:
    """Return the configuration of a run with `max_concurrency` as requested (0: automatic)."""
    if requested.features.max_concurrency:
        return ran
    return ran.model_copy(
        update={"features": ran.features.model_copy(update={"max_concurrency": 0})}
    )


def config_changes(config: Config, stored: Path) -> str:
    """Return the settings that differ from a run's config.yaml: `bundle.window 8 (was 6), …`.

    The text is empty if nothing differs or the file cannot be read.
    """
    try:
        values = parse_yaml(read_given(stored, _LONGEST_BYTES).decode("utf-8"))
        before = Config.model_validate(with_new_names(values)[0])
    except (OSError, ValueError, TypeError, ConfigError):
        return ""
    old, new = _flat(as_requested(before, config).model_dump()), _flat(config.model_dump())
    return ", ".join(f"{key} {new[key]} (was {old[key]})" for key in new if new[key] != old[key])


@cache
def code_sha256() -> str:
    """Return the SHA-256 of the source files that can affect metrics."""
    root = Path(spslam.__file__).parent
    files = {file.relative_to(root).as_posix(): file for file in root.rglob("*.py")}
    # rglob does not follow links, and checkouts without links have these folders elsewhere.
    for room in ("frontend", "backend", "datasets", "configs"):
        folder = _package_folder(f"spslam.{room}")
        files |= {
            f"{room}/{file.relative_to(folder).as_posix()}": file for file in folder.rglob("*.py")
        }
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        if not name.startswith(_BESIDE):
            digest.update(name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _package_folder(name: str) -> Path:
    """Return the folder of a package without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name)
    return Path(spec.origin).parent


@cache
def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _behind(extractor: str, weights: Path | None) -> str:
    """Return the network, or the library of OpenCV extractors; empty for plug-ins."""
    if weights is not None:
        return weights.stem
    if extractor not in ("orb", "sift"):
        return ""
    try:
        return f"opencv {metadata.version('opencv-python-headless')}"
    except metadata.PackageNotFoundError:
        return "opencv"
