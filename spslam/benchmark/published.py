"""Metrics published by others, for comparison."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import yaml

from spslam.benchmark.results import Group
from spslam.errors import ConfigError


@dataclass(frozen=True)
class Published:
    """Published metrics of one system.

    Attributes:
        system: name of the system.
        sensor: sensor used.
        source: paper and table.
        note: remark on the comparison.
        metrics: key of `metrics.json` -> sequence -> value.
    """

    system: str
    sensor: str
    source: str
    note: str
    metrics: dict[str, dict[str, float]]

    def value(self, group: Group, key: str) -> float | None:
        """Return the metric for a case; None if unknown or if the case is not a whole sequence."""
        if group.case.sensor != self.sensor or group.whole_sequence is None:
            return None
        return self.metrics.get(key, {}).get(group.whole_sequence)


def load_published(names: list[str]) -> list[Published]:
    """Load files of `configs/published`.

    Raises:
        ConfigError: there is no file of a name.
    """
    found = []
    for name in names:
        entry = resources.files("spslam.configs") / "published" / f"{name}.yaml"
        if not entry.is_file():
            raise ConfigError(f"no published metrics called {name!r}")
        found += [
            Published(**{"note": "", **system})
            for system in yaml.safe_load(entry.read_text(encoding="utf-8"))
        ]
    return found
