"""Archives: which files are extracted and what is refused."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from public_archives import Files, tgz_of, zip_of

from spslam.datasets.fetch.unpacking import DamagedArchiveError, Extract, unpack, unpacked_bytes

FILES = {
    "top/a/1.txt": "one",
    "top/a/b/2.txt": "two!",
    "top/ab/3.txt": "three",
    "top/4.txt": "four",
}


def take(
    tmp_path: Path, data: bytes, source: str = "top/a", inside: str | None = None
) -> dict[str, str]:
    """Unpack and return the text of the files in the target by name."""
    archive = tmp_path / "archive"
    archive.write_bytes(data)
    target = tmp_path / "deep" / "target"
    unpack(archive, Extract(PurePosixPath(source), target, inside), lambda written: None)
    return {
        str(path.relative_to(target)): path.read_text()
        for path in target.rglob("*")
        if path.is_file()
    }


def refused(tmp_path: Path, data: bytes, source: str = "top/a", inside: str | None = None) -> str:
    with pytest.raises(DamagedArchiveError) as caught:
        take(tmp_path, data, source, inside)
    return str(caught.value)


@pytest.mark.parametrize("pack", [zip_of, tgz_of])
def test_only_the_requested_folder_is_extracted(tmp_path: Path, pack: type) -> None:
    assert take(tmp_path, pack(FILES)) == {"1.txt": "one", "b/2.txt": "two!"}


def test_a_single_file_is_extracted(tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    archive.write_bytes(zip_of(FILES))
    progress: list[int] = []
    extract = Extract(PurePosixPath("top/4.txt"), tmp_path / "out" / "four.txt")
    unpack(archive, extract, progress.append)
    assert (tmp_path / "out" / "four.txt").read_text() == "four"
    assert progress == [4] and unpacked_bytes(archive, extract) == 4


def test_an_archive_inside_the_archive_is_extracted(tmp_path: Path) -> None:
    data = zip_of({"room/x/x.bag": "…", "room/x/x.zip": zip_of(FILES)})
    assert take(tmp_path, data, inside="x.zip") == {"1.txt": "one", "b/2.txt": "two!"}
    assert "holds no y.zip" in refused(tmp_path, data, inside="y.zip")


def test_names_in_a_tar_file_may_begin_with_a_dot(tmp_path: Path) -> None:
    assert (
        take(tmp_path, tgz_of({f"./{name}": text for name, text in FILES.items()}))["1.txt"]
        == "one"
    )


@pytest.mark.parametrize("pack", [zip_of, tgz_of])
@pytest.mark.parametrize(
    "name",
    ["top/a/../../../evil.txt", "../evil.txt", "/evil.txt", "top/a/..\\evil.txt", "C:evil.txt"],
)
def test_paths_that_lead_out_are_refused(tmp_path: Path, pack: type, name: str) -> None:
    assert "leads out of the folder" in refused(tmp_path, pack({name: "evil", **FILES}))
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_special_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("top/a/link")
    member.type, member.linkname = kind, "/etc"
    assert "a link or a special file" in refused(tmp_path, tgz_of(FILES, member))
    assert not (tmp_path / "deep/target/link").exists()


def test_a_link_in_a_zip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "link.zip"
    with zipfile.ZipFile(path, "w") as file:
        member = zipfile.ZipInfo("top/a/link")
        member.external_attr = 0o120777 << 16
        file.writestr(member, "/etc")
    assert "a link or a special file" in refused(tmp_path, path.read_bytes())


@pytest.mark.parametrize("pack", [zip_of, tgz_of])
@pytest.mark.parametrize("fraction", [0.5, 0.97])
def test_a_truncated_archive_is_refused(tmp_path: Path, pack: type, fraction: float) -> None:
    noise: Files = {**FILES, "top/a/noise.txt": bytes(range(32, 127)) * 100}
    data = pack(noise)
    assert "is damaged or cut short" in refused(tmp_path, data[: int(fraction * len(data))])


@pytest.mark.parametrize("pack", [zip_of, tgz_of])
def test_a_flipped_byte_is_detected(tmp_path: Path, pack: type) -> None:
    data = bytearray(pack({"top/a/1.txt": b"".join(i.to_bytes(2, "big") for i in range(5000))}))
    data[len(data) // 2] ^= 0xFF
    assert "is damaged or cut short" in refused(tmp_path, bytes(data))


def test_files_that_are_not_the_expected_archive_are_refused(tmp_path: Path) -> None:
    assert "is damaged or cut short" in refused(tmp_path, b"<html>please log in</html>")
    assert "holds no other: the archive is another than expected" in refused(
        tmp_path, zip_of(FILES), source="other"
    )
