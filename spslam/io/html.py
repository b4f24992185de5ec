"""HTML pages from the templates in `spslam/templates/`, with escaped text."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render_page(template: str, **values: Any) -> str:
    """Return a page that needs no other file.

    Args:
        template: File in `spslam/templates/`.
        **values: Values by their names in the template; all but `markupsafe.Markup` are escaped.

    Raises:
        jinja2.UndefinedError: The template uses a name that is not given.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    # Imported here, because the import takes 0.1 s and most runs write no page.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("spslam", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.globals["source"] = _source
    return environment


def _source(name: str) -> Any:
    """Return the text of a style sheet or script unchanged: its braces are not template syntax."""
    from markupsafe import Markup

    return Markup((resources.files("spslam") / "templates" / name).read_text(encoding="utf-8"))
