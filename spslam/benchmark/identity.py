"""What a run's results follow from, so that nobody takes results of one thing for those of another."""

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

# No configuration is longer.
_LONGEST_BYTES = 1_000_000
# They show and time; they make nothing that a run's figures follow from.
_BESIDE = ("benchmark/", "cli/", "frontend/training/", "reports/", "templates/", "visualization/")


@dataclass(frozen=True)
class Identity:
    """Of one run; equal identities give equal results on equal processors.

    Attributes:
        input: path or public name, sensor, part of the sequence, repeat; and the calibration file's SHA-256;
            disturbances, where there are any.
        config_sha256: of all settings, resolved.
        front_end: the extractor with the weights, or with the library that has it.
        weights_sha256: of the weights' file; None for extractors without.
        code_sha256: of the sources that a run uses.
    """

    input: dict[str, Any]
    config_sha256: str
    front_end: str
    weights_sha256: str | None
    code_sha256: str

    @classmethod
    def of(cls, run: Run, config: Config, weights: Path | None) -> Identity:
        """The identity of a run with its resolved configuration and, where it has a network, the weights' file."""
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
                # Results of before there were disturbances stay what they are.
                **({"disturb": run.disturbances} if entry.disturb else {}),
            },
            config_sha256=config_sha256(config),
            front_end=f"{name} {_behind(name, weights)}".strip(),
            weights_sha256=None if weights is None else file_sha256(weights),
            code_sha256=code_sha256(),
        )

    def difference(self, stored: dict[str, Any]) -> str | None:
        """In words, what differs from an identity of `results.json`; None: nothing."""
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
    """Of all settings, in the order of their names."""
    return hashlib.sha256(
        json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()
    ).hexdigest()


def as_asked(ran: Config, asked: Config) -> Config:
    """The configuration of a run without what the run chose itself: the concurrency, where that was left open."""
    if asked.features.max_concurrency:
        return ran
    return ran.model_copy(
        update={"features": ran.features.model_copy(update={"max_concurrency": 0})}
    )


def config_changes(config: Config, stored: Path) -> str:
    """Which settings differ from a run's config.yaml: `bundle.window 8 (was 6), …`; empty where that cannot be told."""
    try:
        values = parse_yaml(read_given(stored, _LONGEST_BYTES).decode("utf-8"))
        before = Config.model_validate(with_new_names(values)[0])
    except (OSError, ValueError, TypeError, ConfigError):
        return ""
    old, new = _flat(as_asked(before, config).model_dump()), _flat(config.model_dump())
    return ", ".join(f"{key} {new[key]} (was {old[key]})" for key in new if new[key] != old[key])


@cache
def code_sha256() -> str:
    """Of the sources in the package that figures can follow from."""
    root = Path(spslam.__file__).parent
    files = {file.relative_to(root).as_posix(): file for file in root.rglob("*.py")}
    # rglob does not follow links, and a clone without links has these folders elsewhere.
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
    """Where a package lies, without importing it."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(name)
    return Path(spec.origin).parent


@cache
def file_sha256(path: Path) -> str:
    """Of a file's bytes."""
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
    """The network, or the library of the classical ones; a plug-in's name stands alone."""
    if weights is not None:
        return weights.stem
    if extractor not in ("orb", "sift"):
        return ""
    try:
        return f"opencv {metadata.version('opencv-python-headless')}"
    except metadata.PackageNotFoundError:
        return "opencv"
