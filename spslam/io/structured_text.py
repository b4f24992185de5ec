"""YAML and JSON of users: read in bounded time and memory, or refused with a one-line message.

A few hundred bytes of YAML can expand to billions of values (anchors that contain anchors), contain
themselves, or nest too deep. The loader counts the values while it parses, before it builds them.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Hashable
from typing import Any

import yaml

# Largest YAML text, characters: PyYAML needs a second for 200,000. Real files are far below this
# and the next two limits.
_LONGEST_YAML = 250_000
# Largest number of values; an alias counts as the values it stands for.
_MOST_VALUES = 20_000
# Largest depth of nesting, of YAML and JSON.
_DEEPEST = 64
# Largest length of a number, characters: the largest float has 309 digits.
_LONGEST_NUMBER = 500
# YAML tags of values that are parsed as numbers.
_NUMBERS = ("int", "float", "timestamp")
# Memory of an object and of a list in Python, bytes.
_OBJECT_BYTES, _LIST_BYTES = 200, 64
# Largest memory of the objects and lists of a JSON text: bytes, or a multiple of its length if that
# is more.
_JSON_MEMORY, _JSON_GROWTH = 20_000_000, 8
# PyYAML does not convert the errors of building dates, numbers and sets.
_PARSER_ERRORS = (
    yaml.YAMLError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)
# Largest number of characters of a value in a message.
_LONGEST_SHOWN = 60


class StructureError(ValueError):
    """The text is not valid YAML or JSON or exceeds a limit; one line says where."""


def parse_yaml(text: str) -> Any:
    """Parse YAML text.

    Raises:
        StructureError: It is not valid YAML, has a key twice or exceeds a limit.
    """
    if len(text) > _LONGEST_YAML:
        raise StructureError(
            f"has {len(text):,} characters of YAML, expected at most {_LONGEST_YAML:,}"
        )
    try:
        return yaml.load(text, _Loader)
    except StructureError:
        raise
    except _PARSER_ERRORS as error:
        raise StructureError(_describe(error, text)) from None


def parse_json(text: str) -> Any:
    """Parse JSON text; numbers must be finite.

    Raises:
        StructureError: It is not valid JSON or exceeds a limit.
    """
    # Braces within strings count, too: the limit is high enough for that.
    built = _OBJECT_BYTES * text.count("{") + _LIST_BYTES * text.count("[")
    if built > max(_JSON_MEMORY, _JSON_GROWTH * len(text)):
        raise StructureError(
            f"has {text.count('{')} objects and {text.count('[')} lists in {len(text)} characters"
        )
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    except StructureError:
        raise
    except RecursionError:
        raise StructureError(_too_deep()) from None
    except ValueError as error:
        raise StructureError(f"is not valid JSON: {' '.join(str(error).split())[:160]}") from None
    _check_depth(value)
    return value


def one_line(text: str) -> str:
    """Return the text on one line, cut to the length that a message can show."""
    line = " ".join(
        "".join(letter if letter.isprintable() else " " for letter in text[:1000]).split()
    )
    return line if len(line) <= _LONGEST_SHOWN else f"{line[:_LONGEST_SHOWN]}…"


def shown(value: Any) -> str:
    """Return a short text of any value, even of one that contains itself or very many others."""
    return one_line(_SHORT.repr(value))


class _ShortRepr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict, self.maxstring = 3, 6, 4, _LONGEST_SHOWN

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print integers of more than 4,300 digits.
        return (
            super().repr_int(x, level)
            if x.bit_length() < 1000
            else f"a number of {x.bit_length()} bits"
        )


_SHORT = _ShortRepr()


class _Loader(yaml.SafeLoader):
    """A loader that counts the values behind aliases and refuses duplicate keys."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._values = self._depth = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if name in self.anchors and name not in self._sizes:
                raise StructureError(f"is not valid YAML in line {line}: *{name[:40]} holds itself")
            self._count(self._sizes.get(name, 0), line)
            return super().compose_node(parent, index)
        before = self._values
        self._depth += 1
        if self._depth > _DEEPEST:
            raise StructureError(
                f"is not valid YAML in line {line}: it is nested more than {_DEEPEST} deep"
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._count(1, line)
        if isinstance(node, yaml.ScalarNode) and node.tag.rpartition(":")[2] in _NUMBERS:
            _check_number(node.value, line)
        if event.anchor is not None:
            self._sizes[event.anchor] = self._values - before
        return node

    def _count(self, values: int, line: int) -> None:
        self._values += values
        if self._values > _MOST_VALUES:
            raise StructureError(
                f"is not valid YAML in line {line}: it expands to more than {_MOST_VALUES:,} values"
                + (", because its aliases contain one another" if self._sizes else "")
            )

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            line = key.start_mark.line + 1
            if key.value in seen:
                first = seen[key.value]
                raise StructureError(
                    f"key {one_line(key.value)} occurs twice, in lines {first} and {line}"
                )
            seen[key.value] = line
        return super().construct_mapping(node, deep)


def _check_number(text: str, line: int) -> None:
    if len(text) > _LONGEST_NUMBER:
        raise StructureError(
            f"is not valid YAML in line {line}: a number of {len(text)} characters"
        )


def _describe(error: Exception, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f" in line {mark.line + 1}"
    if isinstance(error, RecursionError):
        return "is not valid YAML: it is nested too deep"
    if mark is not None and mark.line < len(text.splitlines()):
        line = text.splitlines()[mark.line]
        if (
            "\t" in line[: len(line) - len(line.lstrip())]
            or line[mark.column : mark.column + 1] == "\t"
        ):
            return f"is not valid YAML{where}: it is indented by a tab; use spaces"
    problem = getattr(error, "problem", None) or str(error) or type(error).__name__
    return f"is not valid YAML{where}: {' '.join(str(problem).split())[:160]}"


def _no_number(name: str) -> Any:
    raise StructureError(f"is not valid JSON: it holds {name}")


def _whole(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise StructureError(f"is not valid JSON: it holds a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise StructureError(f"is not valid JSON: {one_line(text)} is beyond any number")
    return value


def _too_deep() -> str:
    return f"is not valid JSON: it is nested more than {_DEEPEST} deep"


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return
    raise StructureError(_too_deep())


def _parts(value: Any) -> list[Any]:
    """Return the lists and objects directly within a value."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [part for part in inside if isinstance(part, (dict, list))]
