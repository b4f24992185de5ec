"""Public files: workflows only call make; versions and addresses agree."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from package_builds import ROOT

import spslam

ADDRESS = "https://github.com/spslam/spslam"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps_of(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_there_are_three_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "nightly", "release"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_make_only(workflow: Path) -> None:
    targets = set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for step in steps_of(workflow):
        if "run" in step:
            make, *called = step["run"].split()
            assert make == "make" and called
            assert set(called) <= targets
        else:
            assert re.fullmatch(
                r"actions/[a-z-]+@v\d+|pypa/gh-action-pypi-publish@release/v1", step["uses"]
            )


def test_citation_names_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["repository-code"]) == (spslam.__version__, ADDRESS)


def test_addresses_agree_and_exist() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    public = [ROOT / "SECURITY.md", *(ROOT / ".github").rglob("*.yml")]
    found = [
        *urls.values(),
        *re.findall(r"https://github\.com/[\w/-]+", "".join(path.read_text() for path in public)),
    ]
    assert len(found) > len(urls)
    assert [address for address in found if not address.startswith(ADDRESS)] == []
    for address in urls.values():
        inside = re.sub(r"^/(tree|blob)/main/", "", address.removeprefix(ADDRESS))
        assert inside in ("", "/issues") or (ROOT / inside).exists(), address
