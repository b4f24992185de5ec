"""Write the import graph of the packages into docs/architecture.md; `--check` only compares.

An arrow goes from a package to one that it imports. Arrows that follow from others are left out
(transitive reduction).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tools/import_graph.py -->", "<!-- end of tools/import_graph.py -->"
# Folders beside spslam/ that are its sub-packages when installed.
LINKED = ("frontend", "backend", "datasets", "configs")
# Modules in spslam/ that are nodes of their own: they import the packages above the core.
ALONE = ("factory", "pipeline")
# Folders in spslam/ that belong to the core.
CORE = ("io", "process")
SKIPPED = ("__init__", "__main__")


def modules() -> Iterator[tuple[str, Path]]:
    """Yield (module, file) of all shipped code; skip the symbolic links inside spslam/."""
    for folder in ("spslam", *LINKED):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if folder == "spslam" and len(parts) > 2 and parts[1] in LINKED:
                continue
            yield ".".join(parts if folder == "spslam" else ("spslam", *parts)), path


def package(module: str) -> str:
    """Return the node of a module: its package below spslam, `factory`, `pipeline` or `core`."""
    parts = module.split(".")
    if len(parts) < 2 or parts[1] in CORE:
        return "core"
    is_folder = (
        (ROOT / parts[1]).is_dir() if parts[1] in LINKED else (ROOT / "spslam" / parts[1]).is_dir()
    )
    return parts[1] if is_folder or parts[1] in ALONE else "core"


def imported(module: str, path: Path) -> Iterator[str]:
    """Yield the absolute names of the modules that a module imports, except for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])])


def graph() -> dict[str, set[str]]:
    """Return the graph: package -> packages that it imports."""
    found: dict[str, set[str]] = {}
    for module, path in modules():
        if module.split(".")[-1] in SKIPPED and len(module.split(".")) == 2:
            continue
        own = package(module)
        names = found.setdefault(own, set())
        names |= {
            package(name) for name in imported(module, path) if name.split(".")[0] == "spslam"
        } - {own}
    return found


def reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    """Return all packages that `start` imports, directly or through others."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for name in edges.get(waiting.pop(), set()) - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def reduced(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the transitive reduction of the graph: the fewest arrows with the same reachability.

    Raises:
        ValueError: packages import each other in a cycle.
    """
    for name in edges:
        if name in reachable(edges, name):
            raise ValueError(f"{name} imports itself through {', '.join(sorted(edges[name]))}")
    return {
        name: {
            one
            for one in targets
            if not any(one in reachable(edges, other) for other in targets - {one})
        }
        for name, targets in edges.items()
    }


def mermaid(edges: dict[str, set[str]]) -> str:
    """Return the graph as a Mermaid code block."""
    lines = [f"    {name} --> {target}" for name in sorted(edges) for target in sorted(edges[name])]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```"])


def main(arguments: list[str]) -> int:
    """Update the page, or only compare it with `--check`; return the exit code."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    new = f"{head}{BEGIN}\n{mermaid(reduced(graph()))}\n{END}{tail}"
    if "--check" in arguments:
        if new != text:
            sys.stderr.write(
                "docs/architecture.md is out of date; run: python tools/import_graph.py\n"
            )
        return int(new != text)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
