from pathlib import Path

import pytest
from jinja2 import UndefinedError

import spslam
from spslam.io.html import render_page

TEMPLATES = Path(spslam.__file__).parent / "templates"


def test_a_template_without_a_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        render_page("base.html")


def test_text_is_escaped_and_the_style_is_not() -> None:
    page = render_page("base.html", title="<b>&", subtitle="")
    assert "<title>&lt;b&gt;&amp;</title>" in page
    assert (TEMPLATES / "report.css").read_text(encoding="utf-8") in page


def test_every_page_has_the_same_head() -> None:
    pages = {path.name for path in TEMPLATES.glob("*.html")} - {"base.html", "parts.html"}
    assert pages == {"report.html", "suite.html", "adaptation.html"}
    for name in pages:
        text = (TEMPLATES / name).read_text(encoding="utf-8")
        assert text.startswith('{% extends "base.html" %}') and "<head>" not in text
