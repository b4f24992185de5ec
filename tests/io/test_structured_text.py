"""YAML and JSON that expand to far more than their text."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from spslam.io.structured_text import StructureError, parse_json, parse_yaml, shown

LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 2000, "in line 1: it is nested more than 64 deep"),
        ("{a: " * 2000, "nested more than 64 deep"),
        ("- " * 2000, "nested more than 64 deep"),
        (
            LAUGHS,
            r"in line \d+: it expands to more than 20,000 values, "
            "because its aliases contain one another",
        ),
        (MERGES, "expands to more than 20,000 values"),
        ("a: &a [*a]", r"in line 1: \*a holds itself"),
        ("&a {b: *a}", "holds itself"),
        ("&a {? *a : 1}", "holds itself"),
        ("a: *b", "undefined alias"),
        ("a: 1" + ":1" * 5000, "a number of 10001 characters"),
        ("a: 0x" + "f" * 5000, "a number of 5002 characters"),
        ("a: 2001-99-99", "month"),
        ("a: 1\na: 2", "key a occurs twice, in lines 1 and 2"),
        ("a: " + "x" * 300_000, "has 300,003 characters of YAML"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_abusive_yaml_is_refused_in_one_line(text: str, message: str) -> None:
    tracemalloc.start()
    with pytest.raises(StructureError, match=message) as error:
        parse_yaml(text)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_ordinary_aliases_and_merges_are_read() -> None:
    text = "base: &base {a: 1, b: [1, 2]}\nown: {<<: *base, a: 3}\nlist: [*base, *base]"
    assert parse_yaml(text) == {
        "base": {"a": 1, "b": [1, 2]},
        "own": {"a": 3, "b": [1, 2]},
        "list": [{"a": 1, "b": [1, 2]}] * 2,
    }


def test_ordinary_depth_and_length_are_read() -> None:
    deep = "".join("  " * level + "a:\n" for level in range(60))
    value = parse_yaml(deep)
    for _ in range(60):
        value = value["a"]
    assert value is None
    assert len(parse_yaml("\n".join(f"k{n}: {n}" for n in range(5000)))) == 5000
    assert parse_yaml(f"a: {2**1023 * 1.9:.0f}") == {"a": int(2**1023 * 1.9)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested more than 64 deep"),
        ("[" * 900 + "]" * 900, "nested more than 64 deep"),
        ("[NaN]", "holds NaN"),
        ("[-Infinity]", "holds -Infinity"),
        ("[1e999]", "1e999 is beyond any number"),
        ("9" * 5000, "a number of 5000 digits"),
        ("[" + "{}," * 200_000 + "{}]", "200001 objects and 1 lists"),
        ("{", "is not valid JSON"),
    ],
)
def test_abusive_json_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(StructureError, match=message) as error:
        parse_json(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_json_is_read_back_as_written() -> None:
    value = {"a": [1, 2.5, None, True, "{" * 100], "b": {"c": [[[1e300]]]}, "d": -(10**30)}
    assert parse_json(json.dumps(value)) == value


def test_quoted_values_are_shortened() -> None:
    holds_itself: list[object] = []
    holds_itself.append(holds_itself)
    for value in (
        holds_itself,
        10**5000,
        "x" * 10_000,
        [[[[[1]]]]] * 1000,
        {n: n for n in range(1000)},
    ):
        assert len(shown(value)) <= 61
