"""Find public sequences by name: their addresses, sizes, and the files to unpack."""

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

# Largest number of similar names in the message about an unknown name.
_SUGGESTED = 3


@dataclass(frozen=True)
class Archive:
    """A file to download.

    Attributes:
        name: name of the file.
        url: its official address.
        exact_bytes: length, bytes; None if unknown. A file of another length is refused.
        about_bytes: length, bytes, rounded on the page of the data set; None if unknown.
        md5: published checksum, or None.
        sequences: number of sequences in the catalogue that need the file.
    """

    name: str
    url: str
    exact_bytes: int | None
    about_bytes: int | None
    md5: str | None
    sequences: int

    @property
    def expected_bytes(self) -> int | None:
        """The exact or rounded length, bytes; None if unknown."""
        return self.exact_bytes or self.about_bytes


@dataclass(frozen=True)
class Part:
    """The files that a sequence needs from one archive.

    Attributes:
        archive: the archive.
        source: path in the archive: a file, or a folder with its contents.
        target: path to unpack to, below the folder of all data.
        inside: name of the zip file in the archive that holds `source`; None: `source` is in the
            archive itself.
    """

    archive: Archive
    source: PurePosixPath
    target: PurePosixPath
    inside: str | None


@dataclass(frozen=True)
class PublicSequence:
    """A sequence that can be downloaded.

    Attributes:
        name: name in the catalogue, for example `kitti-00`.
        dataset: `kitti`, `tum` or `euroc`.
        title, page, licence: title, web page and licence of the data set.
        folder: folder of the sequence, below the folder of all data.
        parts: the files to unpack.
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
        """The archives that hold the sequence, each once."""
        return tuple(dict.fromkeys(part.archive for part in self.parts))

    @property
    def side_files(self) -> tuple[PurePosixPath, ...]:
        """Its files outside of its folder (KITTI's poses), relative to the folder of all data."""
        return tuple(
            p.target for p in self.parts if self.folder not in (p.target, *p.target.parents)
        )


class Catalogue:
    """The public sequences, by name.

    Args:
        datasets: the contents of `catalogue.yaml`, whose first lines explain the keys.
    """

    def __init__(self, datasets: Mapping[str, Any]) -> None:
        self.sequences = {
            s.name: s for name, entry in datasets.items() for s in _sequences_of(name, entry)
        }

    @classmethod
    def load(cls) -> Catalogue:
        """Load the catalogue that comes with spslam."""
        return cls(
            yaml.safe_load(
                (files("spslam.datasets") / "catalogue.yaml").read_text(encoding="utf-8")
            )
        )

    def choose(self, names: Iterable[str]) -> list[PublicSequence]:
        """Return the sequences of these names, each once.

        The name of a data set stands for all of its sequences. Names may differ in case, `-` or
        `_`, `fr1` or `freiburg1`, and may leave out the data set.

        Raises:
            FetchError: no sequence has one of the names.
        """
        return list(dict.fromkeys(sequence for name in names for sequence in self._find(name)))

    def sharing(self, archive: Archive) -> list[PublicSequence]:
        """Return the sequences that need `archive`."""
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
