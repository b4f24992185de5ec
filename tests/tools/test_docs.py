"""The documents: links, length of the README, generated content."""

import re
from pathlib import Path

import import_graph
import mkdocs_hooks
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "findings/*.md", "frontend/weights/*.md")
    for path in ROOT.glob(pattern)
)
MOST_README_LINES = 80
MOST_WORDS = 25
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(text: str) -> str:
    """The text without code blocks, tables and headings, with links replaced by their words."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^(#|\||!\[).*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def sentences(text: str) -> list[str]:
    """The sentences and list items of Markdown text."""
    blocks = re.split(r"\n\s*\n|\n(?=- )", prose(text))
    return [
        one
        for block in blocks
        for one in re.split(r"(?<=[.:;!?])\s+", " ".join(block.split()))
        if one
    ]


def anchors(path: Path) -> set[str]:
    """Anchors of a page as Python-Markdown and GitHub generate them from plain headings."""
    text = re.sub(
        r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {
        re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
        for heading in headings
    }


def broken_links(page: Path) -> list[str]:
    """Relative links of a page without a target file or heading."""
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    broken = []
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def test_pages_are_found() -> None:
    assert {"README.md", "docs/index.md", "docs/decisions/index.md", "CONTRIBUTING.md"} <= set(
        PAGES
    )


@pytest.mark.parametrize("page", PAGES)
def test_links_have_a_target(page: str) -> None:
    assert broken_links(ROOT / page) == []


def test_broken_links_are_detected(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A heading: with `code`\n", encoding="utf-8")
    page = tmp_path / "page.md"
    links = [
        "there.md",
        "there.md#a-heading-with-code",
        "there.md#no-heading",
        "gone.md",
        "#none",
        "https://x.org/y",
    ]
    page.write_text("".join(f"[x]({link})\n" for link in links), encoding="utf-8")
    assert broken_links(page) == ["there.md#no-heading", "gone.md", "#none"]


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_every_page_is_in_the_navigation(page: str) -> None:
    assert re.search(
        rf"\s{re.escape(page.removeprefix('docs/'))}$",
        (ROOT / "mkdocs.yml").read_text(),
        re.MULTILINE,
    )


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "docs" / "decisions" / "index.md").read_text(encoding="utf-8")
    names = {path.name for path in (ROOT / "docs" / "decisions").glob("0*.md")}
    assert names == set(re.findall(r"\((0[^)]*\.md)\)", index))


def test_readme_fits_a_screen() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_README_LINES
    assert [one for one in sentences(text) if len(one.split()) > MOST_WORDS] == []


def test_text_is_split_into_sentences() -> None:
    text = (
        "# A\n\nOne two. Three [four five](x.md): six.\n\n"
        "| a | b |\n\n```sh\ncode\n```\n- seven\n- eight nine\n"
    )
    assert sentences(text) == ["One two.", "Three four five:", "six.", "- seven", "- eight nine"]


def test_picture_of_the_imports_is_current() -> None:
    assert import_graph.main(["--check"]) == 0


def test_indirect_arrows_are_left_out() -> None:
    edges = {"cli": {"slam", "map", "core"}, "slam": {"map"}, "map": {"core"}, "core": set()}
    assert import_graph.reduced(edges) == {
        "cli": {"slam"},
        "slam": {"map"},
        "map": {"core"},
        "core": set(),
    }
    with pytest.raises(ValueError, match="map imports itself"):
        import_graph.reduced({"map": {"slam"}, "slam": {"map"}})


def test_the_site_includes_files_outside_docs() -> None:
    text = (
        "[card](../frontend/weights/superpoint.md) [code](../spslam/factory.py#L1) "
        "[page](maps.md) [web](https://x.org)"
    )
    assert mkdocs_hooks.relink(text, "docs/training.md") == (
        "[card](repository/frontend/weights/superpoint.md) "
        "[code](repository/spslam/factory.py.md#L1) [page](maps.md) [web](https://x.org)"
    )
    assert mkdocs_hooks.relink("[page](docs/maps.md)", "CONTRIBUTING.md") == "[page](../maps.md)"
    assert {"frontend/weights/superpoint.md", "CONTRIBUTING.md"} <= mkdocs_hooks.shown_files()
