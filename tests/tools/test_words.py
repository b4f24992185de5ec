"""The vocabulary of the field is used everywhere: no word that a reader would have to translate.

Each regular expression stands for a word or phrase that the project no longer uses, with the words
that replace it.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPLACED = {
    r"[Kk]ey[ -]frames?\b": "keyframe",
    r"[Kk]ey[ -]points?\b": "keypoint",
    r"\bparts? of (a|the|this|its|one) map\b|\bmap parts?\b|\b(main|new)_part\b": "submap",
    r"\bbuild_parts\b|\bParts\b": "components",
    r"\bat_once\b": "max_concurrency, undo_rolling_shutter",
    r"\b[Rr]evisit(s|ed|ing)?\b": "loop, loop edge, loop closure",
    r"\b[Ll]ikeness|\blikest\b|_alike\b|\b[Aa]like\b": "similarity, similar",
    r"\bheirs?\b|\bheir_\w+|_heir_|reanchor": "parent keyframe; student of a distillation",
    r"\b(Tracked|Started|Prepared|Record|Outcome|Sighting|Rescaling)\(": "RunResult ...",
    r"\b[Hh]ealth(Monitor)?\b": "loss diagnosis",
    r"\b([Ll]earned|[Cc]lassical) (extractor|front end|feature|detector)": "SuperPoint, OpenCV ...",
    r"\b(films?|is_film|PictureSink|pictures_out)\b": "animation, video writer",
    r"\bshare_|_share\b|_SHARE\b|\bshares? of\b": "fraction, rate",
    r"\b(a|the|this|what|no|its|their|tracked|least) shares?\b": "fraction, rate",
    r"\btold\b|\breckon": "printed, reported, estimated",
    r"\basked\b": "given, requested",
    r"\b(all|these|those|no|of|published|its) figures\b|\bprint_figures\b": "metrics",
    r"\b(in|of|from|outside) the box\b": "built-in",
    r"(?<!\w)max_distance\b": "max_descriptor_distance",
    r"\bmin_coverage\b|(?<!inlier_)\bcoverage_(median|p5)\b": "inlier coverage, tracking rate",
    r"\b[Ss]o (many|few|much)\b": "a number",
    r"(?<!there )\b(is|are) none\b(?! %)": "is not a ...",
    r"\bhangs? on\b": "depends on",
    r"\b(is|are) taken up\b": "is applied",
    r"\banew\b": "again",
    r"\b[Oo]f ours\b": "our",
    r"\bROOMS\b|\brooms are\b": "packages, layers",
}  # fmt: skip
# Old names that are still read, with the files that say so; the name of a published paper; boxes
# that are seen in a scene.
ALLOWED = {
    "at_once": {"frontend/extractors/registry.py", "spslam/config/loading.py"},
    "max_distance": {
        "frontend/extractors/registry.py",
        # The key in the metadata of weights files.
        "frontend/superpoint/checkpoints.py", "frontend/superpoint/weights_file.py",
        "docs/export.md",
    },
    "share": {"spslam/config/loading.py", "spslam/run/output.py"},
    "coverage": {"spslam/config/loading.py", "spslam/run/output.py"},
    "part": {"spslam/config/loading.py", "spslam/run/output.py"},
    "Revisited": {"spslam/map/colmap.py"},
    "the box": {
        "datasets/world/disturbances.py", "datasets/world/drawn_bodies.py",
        "datasets/world/scene.py",
        "docs/decisions/0015-what-moves.md",
        "spslam/visualization/map_view.py",
    },
}  # fmt: skip
FOLDERS = ("spslam", "frontend", "backend", "datasets", "configs", "docs", "tools")
# Tests quote the old names that are still read.
QUOTING_TESTS = {
    "tests/tools/test_words.py", "tests/test_config.py", "tests/test_old_names.py",
    "tests/frontend/extractors/test_registry.py", "tests/frontend/superpoint/test_checkpoints.py",
    "tests/frontend/superpoint/test_weights_file.py", "tests/frontend/training/test_run.py",
}  # fmt: skip


@cache
def texts() -> dict[str, str]:
    """Return what people read, by file: code, configurations, documents, templates."""
    found = [path for name in (*FOLDERS, "tests") for path in (ROOT / name).rglob("*")]
    found += [*ROOT.glob("*.md"), ROOT / "pyproject.toml"]
    kept = {}
    for path in found:
        name = path.relative_to(ROOT).as_posix()
        linked = any(part.is_symlink() for part in (path, *path.parents) if part != ROOT)
        is_text = path.suffix in (".py", ".md", ".yaml", ".toml", ".html", ".js")
        ours = name not in QUOTING_TESTS and name != "CHANGELOG.md" and not linked
        if ours and is_text and path.is_file():
            kept[name] = path.read_text("utf-8", errors="replace")
    return kept


@pytest.mark.parametrize("pattern", REPLACED)
def test_no_word_that_the_project_replaced_is_used(pattern: str) -> None:
    word = re.compile(pattern)
    hits = []
    for name, text in texts().items():
        for number, line in enumerate(text.splitlines(), start=1):
            for match in word.finditer(line):
                if not any(key in match[0] and name in files for key, files in ALLOWED.items()):
                    hits.append(f"{name}:{number}: {line.strip()[:100]}")
    assert not hits, f"write {REPLACED[pattern]} instead:\n" + "\n".join(hits[:20])
