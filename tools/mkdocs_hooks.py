"""Add files outside docs/ that pages link to (weights cards, examples, sources) to the site.

Pages link to them by relative paths, which work in a checkout. The site has them below
`repository/`.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs"
SHOWN = "repository"
LANGUAGES = {".cpp": "cpp", ".py": "python", ".toml": "toml", ".yaml": "yaml"}
# Target of a relative Markdown link, without the anchor.
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")


def linked_files(path: str) -> set[str]:
    """Return the repository files that a Markdown file links to, as paths from the root."""
    folder = posixpath.dirname(path)
    text = (ROOT / path).read_text(encoding="utf-8")
    found = {posixpath.normpath(posixpath.join(folder, target)) for target in _LINK.findall(text)}
    return {name for name in found if (ROOT / name).is_file()}


def shown_files() -> set[str]:
    """Return the files outside docs/ that pages link to, directly or through each other."""
    waiting = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / DOCS).rglob("*.md"))]
    found: set[str] = set()
    while waiting:
        for name in linked_files(waiting.pop()) - found:
            if not name.startswith(f"{DOCS}/"):
                found.add(name)
                waiting += [name] if name.endswith(".md") else []
    return found


def uri(path: str) -> str:
    """Return the site's path of a repository file; source files become Markdown pages."""
    if path.startswith(f"{DOCS}/"):
        return path.removeprefix(f"{DOCS}/")
    is_source = posixpath.splitext(path)[1] in LANGUAGES
    return f"{SHOWN}/{path}" + (".md" if is_source else "")


def relink(markdown: str, path: str) -> str:
    """Return the text of the repository file `path` with its links adapted to the site."""
    here = posixpath.dirname(uri(path))

    def replaced(match: re.Match[str]) -> str:
        name = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        return posixpath.relpath(uri(name), here) if (ROOT / name).is_file() else match[1]

    return _LINK.sub(replaced, markdown)


def page_text(path: str) -> str:
    """Return the site's text of a file outside docs/."""
    text = (ROOT / path).read_text(encoding="utf-8")
    suffix = posixpath.splitext(path)[1]
    if suffix not in LANGUAGES:
        return relink(text, path)
    return f"# {posixpath.basename(path)}\n\n`{path}`\n\n````{LANGUAGES[suffix]}\n{text}````\n"


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add the linked files to the site (event of MkDocs)."""
    from mkdocs.structure.files import File

    for path in sorted(shown_files()):
        files.append(File.generated(config, uri(path), content=page_text(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Adapt the links of a page to the site (event of MkDocs)."""
    name = page.file.src_uri
    return markdown if name.startswith(f"{SHOWN}/") else relink(markdown, f"{DOCS}/{name}")
