"""Figures that others published, to stand beside ours."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import yaml

from spslam.benchmark.results import Group
from spslam.errors import ConfigError


@dataclass(frozen=True)
class Published:
    """Figures of one system.

    Attributes:
        system: its name.
        sensor: that it used.
        source: paper and table.
        note: what a reader must know before comparing.
        figures: name of the figure -> sequence -> value; figures are those of `metrics.json`.
    """

    system: str
    sensor: str
    source: str
    note: str
    figures: dict[str, dict[str, float]]

    def value(self, group: Group, key: str) -> float | None:
        """Its figure for the sequence and sensor of a case; None, too, where the case is a part of the sequence."""
        if group.case.sensor != self.sensor or group.whole_sequence is None:
            return None
        return self.figures.get(key, {}).get(group.whole_sequence)


def load_published(names: list[str]) -> list[Published]:
    """What files of `configs/published` hold.

    Raises:
        ConfigError: there is none of a name.
    """
    found = []
    for name in names:
        entry = resources.files("spslam.configs") / "published" / f"{name}.yaml"
        if not entry.is_file():
            raise ConfigError(f"there are no published figures called {name!r}")
        found += [
            Published(**{"note": "", **system})
            for system in yaml.safe_load(entry.read_text(encoding="utf-8"))
        ]
    return found
