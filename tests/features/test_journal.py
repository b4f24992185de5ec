"""Partial results survive a kill; damaged ends are cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spslam.errors import FeatureFileError
from spslam.features.journal import Journal

HEADER = {"extractor": "orb", "size": 3}


def filled(final: Path, count: int = 3) -> Path:
    journal = Journal(final, HEADER)
    for index in range(count):
        journal.append(f"image {index}", {"values": np.arange(index + 2)})
    journal.close()
    return journal.path


def test_records_are_read_back_by_another_process(tmp_path: Path) -> None:
    path = filled(tmp_path / "f.h5")
    assert path == tmp_path / "f.h5.partial"
    journal = Journal(tmp_path / "f.h5", HEADER)
    assert len(journal) == 3 and "image 1" in journal and "image 3" not in journal
    assert journal.read("image 1")["values"].tolist() == [0, 1, 2]
    assert journal.in_order(["image 2", "gone"]) == ["image 2", "image 0", "image 1"]
    journal.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lost", [1, 30, 300])
def test_an_incomplete_record_is_cut_off(lost: int, tmp_path: Path) -> None:
    path = filled(tmp_path / "f.h5")
    path.write_bytes(path.read_bytes()[:-lost])
    journal = Journal(tmp_path / "f.h5", HEADER)
    assert len(journal) == 2
    journal.append("image 9", {"values": np.arange(4)})
    journal.close()
    again = Journal(tmp_path / "f.h5", HEADER)
    assert len(again) == 3 and again.read("image 9")["values"].tolist() == [0, 1, 2, 3]
    again.close()


def test_an_incomplete_header_is_written_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "f.h5", 0)
    path.write_bytes(path.read_bytes()[:20])
    journal = Journal(tmp_path / "f.h5", HEADER)
    journal.append("a", {"values": np.zeros(1)})
    journal.close()
    again = Journal(tmp_path / "f.h5", HEADER)
    assert len(again) == 1
    again.close()


def test_other_settings_and_a_second_process_are_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "f.h5")
    before = path.read_bytes()
    with pytest.raises(FeatureFileError, match="other settings"):
        Journal(tmp_path / "f.h5", {**HEADER, "size": 4})
    assert path.read_bytes() == before
    journal = Journal(tmp_path / "f.h5", HEADER)
    with pytest.raises(FeatureFileError, match="another process"):
        Journal(tmp_path / "f.h5", HEADER)
    journal.close()
