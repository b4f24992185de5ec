"""The built-in catalogue and the spellings of its names."""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

import pytest

from spslam.datasets.fetch.catalogue import Catalogue
from spslam.errors import FetchError

OFFICIAL = {
    "kitti": "s3.eu-central-1.amazonaws.com",
    "tum": "cvg.cit.tum.de",
    "euroc": "www.research-collection.ethz.ch",
}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.load()


def test_every_sequence_is_complete(catalogue: Catalogue) -> None:
    counts = Counter(sequence.dataset for sequence in catalogue.sequences.values())
    assert counts == {"kitti": 11, "tum": 47, "euroc": 11}
    for sequence in catalogue.sequences.values():
        assert sequence.title and sequence.licence and sequence.page.startswith("https://")
        assert sequence.folder.parts[0] == sequence.dataset
        for archive in sequence.archives:
            address = urlsplit(archive.url)
            assert (address.scheme, address.netloc) == ("https", OFFICIAL[sequence.dataset])
            assert archive.md5 is None or len(archive.md5) == 32
    folders = [sequence.folder for sequence in catalogue.sequences.values()]
    assert len(set(folders)) == len(folders)


def test_archives_count_the_sequences_in_them(catalogue: Catalogue) -> None:
    fractions = {
        a.name: a.sequences
        for s in catalogue.sequences.values()
        for a in s.archives
        if not a.name.endswith("tgz")
    }
    assert fractions == {
        "data_odometry_poses.zip": 11, "data_odometry_calib.zip": 11, "data_odometry_gray.zip": 11,
        "machine_hall.zip": 5, "vicon_room1.zip": 3, "vicon_room2.zip": 3,
    }  # fmt: skip
    (xyz,) = catalogue.choose(["tum-fr1_xyz"])
    assert [archive.sequences for archive in xyz.archives] == [1]
    assert catalogue.sharing(xyz.archives[0]) == [xyz]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("kitti-00", "kitti-00"),
        ("KITTI_00", "kitti-00"),
        ("fr1_xyz", "tum-fr1_xyz"),
        ("freiburg3_long_office_household", "tum-fr3_long_office_household"),
        ("mh_01_easy", "euroc-MH_01_easy"),
        ("EuRoC-V1-01-easy", "euroc-V1_01_easy"),
    ],
)
def test_names_may_be_written_in_several_ways(
    catalogue: Catalogue, written: str, name: str
) -> None:
    assert [sequence.name for sequence in catalogue.choose([written])] == [name]


def test_a_dataset_name_selects_all_its_sequences(catalogue: Catalogue) -> None:
    names = [sequence.name for sequence in catalogue.choose(["kitti-03", "kitti"])]
    assert names[0] == "kitti-03" and len(names) == len(set(names)) == 11


def test_unknown_names_are_refused(catalogue: Catalogue) -> None:
    with pytest.raises(FetchError, match=r"no public sequence 'fr1_xzy': did you mean tum-fr1_xyz"):
        catalogue.choose(["kitti-00", "fr1_xzy"])
    with pytest.raises(
        FetchError, match=r"no public sequence '§': `spslam data list` has all names"
    ):
        catalogue.choose(["§"])
