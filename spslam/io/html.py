"""Pages made from the templates in `spslam/templates/`; text in them is escaped."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render_page(template: str, **values: Any) -> str:
    """A page that needs no file beside it.

    Args:
        template: file in `spslam/templates/`.
        values: by the names that the template uses; all but `markupsafe.Markup` is escaped.

    Raises:
        jinja2.UndefinedError: the template uses a name that is not given.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    # Takes 0.1 s, which only runs that write a page spend.
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
    """The text of a style sheet or script, as it is: braces in it are no places of a template."""
    from markupsafe import Markup

    return Markup((resources.files("spslam") / "templates" / name).read_text(encoding="utf-8"))
