"""Names of the columns of a table of poses: the meaning, the unit and the unit of length."""

from __future__ import annotations

import re

from spslam.timestamps import TimeUnit

# Brackets with their content, such as `[s]` in a column name.
_BRACKETS = re.compile(r"[\[({]([^\])}]*)[\])}]")
# Look-ahead for a position outside brackets.
_OUTSIDE_BRACKETS = r"(?![^\[(]*[\])])"
# Words in the names of columns, by meaning: rotation, position, name and axis without a separator.
_QUATERNION = frozenset(
    {
        "q",
        "quat",
        "quaternion",
        "qvec",
        "rot",
        "rotation",
        "orientation",
        "orient",
        "ori",
        "att",
        "attitude",
    }
)
_POSITION = frozenset(
    {"t", "p", "pos", "position", "trans", "translation", "tvec", "loc", "location", "xyz"}
)
_GLUED = re.compile(r"(q|quat|rot|ori|t|p|pos|position|trans)([wxyz])")
# Words of columns with times or frame numbers, and of units of time.
_TIME = frozenset(
    {
        "time",
        "timestamp",
        "timestamps",
        "stamp",
        "stamps",
        "sec",
        "secs",
        "seconds",
        "nsec",
        "nsecs",
        "ts",
    }
)
_NUMBER = frozenset({"id", "index", "idx", "frame", "seq", "number", "num", "no", "image"})
_UNITS: dict[str, TimeUnit] = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "µs", "μs", "usec", "usecs", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nsec", "nsecs", "nanosec", "nanosecond", "nanoseconds"), "ns"),
}
# Metres per unit of length, by the unit at the end of a column name.
_LENGTHS = {
    **dict.fromkeys(("m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("cm", "centimetre", "centimetres", "centimeter", "centimeters"), 1e-2),
    **dict.fromkeys(("mm", "millimetre", "millimetres", "millimeter", "millimeters"), 1e-3),
    **dict.fromkeys(("km", "kilometre", "kilometres", "kilometer", "kilometers"), 1e3),
}
# Words of columns in degrees, which are refused.
LATITUDE, LONGITUDE = (
    frozenset({"lat", "latitude"}),
    frozenset({"lon", "lng", "long", "longitude"}),
)


def split_names(heading: str) -> list[str]:
    """Return the column names in a line, each with its brackets."""
    if re.search(r"[,;\t]", _BRACKETS.sub("", heading)):
        names = [name.strip(" \"'") for name in re.split(rf"[,;\t]{_OUTSIDE_BRACKETS}", heading)]
    else:
        names = re.findall(r"[^\s\[({]+(?:\s*[\[({][^\])}]*[\])}])*", heading)
    # Skip a prefix, as in `format: timestamp tx …`.
    start = max((n + 1 for n, name in enumerate(names) if name.endswith(":")), default=0)
    return names[start:]


def tokens_of(name: str) -> list[str]:
    """Return the words of a column name in lower case, without its brackets."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", _BRACKETS.sub("", name))
    return [token for token in re.split(r"[^a-z0-9µμ]+", plain.lower()) if token]


def is_time(tokens: list[str]) -> bool:
    """Return whether the words of a column name mean a time."""
    return tokens == ["t"] or any(
        token in _TIME or token.startswith("timestamp") for token in tokens
    )


def time_unit_of(name: str) -> TimeUnit | None:
    """Return the unit of time in a column name; None without one."""
    bracketed = [text.strip().lower() for text in _BRACKETS.findall(name)]
    return next(
        (_UNITS[word] for word in (*bracketed, *reversed(tokens_of(name))) if word in _UNITS), None
    )


def role_of(name: str) -> str:
    """Return the role of a column: x, y, z, qx, qy, qz, qw, time, number or an empty text."""
    tokens = tokens_of(name)
    if len(tokens) > 1 and tokens[-1] in _LENGTHS:
        tokens = tokens[:-1]
    if not tokens:
        return ""
    stem, part = tokens[:-1], tokens[-1]
    glued = _GLUED.fullmatch(part)
    if glued is not None:
        stem, part = [*stem, glued[1]], glued[2]
    elif part not in ("w", "x", "y", "z") and len(tokens) > 1 and tokens[0] in ("w", "x", "y", "z"):
        stem, part = tokens[1:], tokens[0]
    if part in ("w", "x", "y", "z"):
        kind = next((token for token in stem if token in _QUATERNION | _POSITION), None)
        if kind in _QUATERNION or stem == ["r"] or (not stem and part == "w"):
            return f"q{part}"
        return part if part != "w" and (kind in _POSITION or not stem) else ""
    if len(tokens) == 1 and (found := re.fullmatch(r"r([wxyz])", part)):
        return f"q{found[1]}"
    if is_time(tokens):
        return "time"
    return "number" if _NUMBER.intersection(tokens) else ""


def name_bare_quaternion(roles: list[str]) -> list[str]:
    """Name a quaternion in the roles: `w x y z` or `x y z w`, if there is another `x y z`."""
    if "qw" not in roles or "qx" in roles or roles.count("x") != 2:
        return roles
    at = roles.index("qw")
    for first in (at + 1, at - 3):
        if first >= 0 and roles[first : first + 3] == ["x", "y", "z"]:
            return [*roles[:first], "qx", "qy", "qz", *roles[first + 3 :]]
    return roles


def metres_of(name: str) -> float:
    """Return the metres per unit of length in a column name (at its end or in brackets), or 1."""
    bracketed = [text.strip().lower() for text in _BRACKETS.findall(name)]
    return next(
        (_LENGTHS[word] for word in (*bracketed, *tokens_of(name)[1:]) if word in _LENGTHS), 1.0
    )
