"""Public sequences by name: where they are published, how large they are, and what is taken of their archives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

import yaml

from spslam.errors import FetchError

_SUGGESTED = 3


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        name: of the file.
        url: its official address.
        exact_bytes: its length where known for sure; a file of another length is refused.
        about_bytes: its length as the page of the data set rounds it; None where neither is known.
        md5: its checksum where one is published.
        sequences: how many sequences of the catalogue take a part of it.
    """

    name: str
    url: str
    exact_bytes: int | None
    about_bytes: int | None
    md5: str | None
    sequences: int

    @property
    def expected_bytes(self) -> int | None:
        """The length, exactly or about; None where it is unknown."""
        return self.exact_bytes or self.about_bytes


@dataclass(frozen=True)
class Part:
    """What a sequence takes of an archive.

    Attributes:
        archive: the archive.
        source: the file, or the folder with all that is in it, in the archive.
        target: where it goes, below the folder of all data.
        inside: the name of the zip file in the archive that holds `source`; None: the archive itself does.
    """

    archive: Archive
    source: PurePosixPath
    target: PurePosixPath
    inside: str | None


@dataclass(frozen=True)
class PublicSequence:
    """A sequence that can be downloaded.

    Attributes:
        name: its name here, for example `kitti-00`.
        dataset: `kitti`, `tum` or `euroc`.
        title, page, licence: of the data set.
        folder: where it lies, below the folder of all data.
        parts: what it consists of.
    """

    name: str
    dataset: str
    title: str
    page: str
    licence: str
    folder: PurePosixPath
    parts: tuple[Part, ...]

    @property
    def archives(self) -> tuple[Archive, ...]:
        """The archives that it is taken of, each once."""
        return tuple(dict.fromkeys(part.archive for part in self.parts))

    @property
    def side_files(self) -> tuple[PurePosixPath, ...]:
        """Files of it that do not lie in its folder, below the folder of all data: KITTI's poses."""
        return tuple(
            p.target for p in self.parts if self.folder not in (p.target, *p.target.parents)
        )


class Catalogue:
    """The public sequences, by name.

    Args:
        datasets: what `catalogue.yaml` holds; its head tells the keys.
    """

    def __init__(self, datasets: Mapping[str, Any]) -> None:
        self.sequences = {
            s.name: s for name, entry in datasets.items() for s in _sequences_of(name, entry)
        }

    @classmethod
    def load(cls) -> Catalogue:
        """The one that comes with spslam."""
        return cls(
            yaml.safe_load(
                (files("spslam.datasets") / "catalogue.yaml").read_text(encoding="utf-8")
            )
        )

    def choose(self, names: Iterable[str]) -> list[PublicSequence]:
        """The sequences of these names, each once. A data set's name stands for all of its sequences.

        Upper and lower case, `-` and `_`, `fr1` and `freiburg1` are the same, and the data set may be left out.

        Raises:
            FetchError: there is none of a name.
        """
        return list(dict.fromkeys(sequence for name in names for sequence in self._find(name)))

    def sharing(self, archive: Archive) -> list[PublicSequence]:
        """The sequences that take a part of `archive`."""
        return [sequence for sequence in self.sequences.values() if archive in sequence.archives]

    def _find(self, name: str) -> list[PublicSequence]:
        of_dataset = [
            sequence for sequence in self.sequences.values() if sequence.dataset == name.lower()
        ]
        if of_dataset:
            return of_dataset
        known = self._by_spelling.get(_spelling(name))
        if known is None:
            close = get_close_matches(_spelling(name), self._by_spelling, n=_SUGGESTED, cutoff=0.5)
            nearest = ", ".join(
                dict.fromkeys(self._by_spelling[spelling].name for spelling in close)
            )
            raise FetchError(
                f"no public sequence {name!r}: "
                + (f"did you mean {nearest}? " if nearest else "")
                + "`spslam data list` has all names"
            )
        return [known]

    @cached_property
    def _by_spelling(self) -> dict[str, PublicSequence]:
        whole = {_spelling(name): sequence for name, sequence in self.sequences.items()}
        short = {
            _spelling(name.partition("-")[2]): sequence for name, sequence in self.sequences.items()
        }
        return short | whole


def _spelling(name: str) -> str:
    return re.sub("freiburg(?=[123])", "fr", name.lower().replace("_", "-"))


def _sequences_of(dataset: str, entry: Mapping[str, Any]) -> list[PublicSequence]:
    keys = {name: _placeholders(key, entry) for name, key in entry["sequences"].items()}
    used = [
        archive
        for words in keys.values()
        for archive in {_fill(p["archive"], words) for p in entry["parts"]}
    ]
    archives = {
        name: Archive(
            name,
            facts["url"],
            facts.get("bytes"),
            facts.get("about_bytes"),
            facts.get("md5"),
            used.count(name),
        )
        for name, facts in entry["archives"].items()
    }
    return [
        PublicSequence(
            name=name,
            dataset=dataset,
            title=entry["title"],
            page=entry["page"],
            licence=entry["licence"],
            folder=PurePosixPath(dataset, _fill(entry["folder"], words)),
            parts=tuple(_part(dataset, part, words, archives) for part in entry["parts"]),
        )
        for name, words in keys.items()
    ]


def _placeholders(key: str, entry: Mapping[str, Any]) -> dict[str, str]:
    return {"key": key, "group": entry.get("groups", {}).get(key[:2], "")}


def _fill(text: str, words: Mapping[str, str]) -> str:
    return text.format_map(words)


def _part(
    dataset: str, part: Mapping[str, str], words: Mapping[str, str], archives: Mapping[str, Archive]
) -> Part:
    return Part(
        archive=archives[_fill(part["archive"], words)],
        source=PurePosixPath(_fill(part["from"], words)),
        target=PurePosixPath(dataset, _fill(part["to"], words)),
        inside=_fill(part["inside"], words) if "inside" in part else None,
    )
