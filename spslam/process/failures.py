"""One-line messages for errors of usage, of the system and of spslam."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import typer

from spslam.errors import SpslamError
from spslam.io.files import USE_ANOTHER_TMPDIR

# Recent versions of Typer contain their own Click; `BadParameter` leads to its classes.
UsageError = typer.BadParameter.__mro__[1]
# Click's message about an invalid choice, and quoted words in it.
_NOT_ONE_OF = re.compile(r"'(?P<found>[^']*)' is not one of (?P<choices>.*?)\.?$", re.DOTALL)
_QUOTED = re.compile(r"'([^']*)'")
# Smallest similarity of a mistyped word to a suggestion, 0 to 1 (`difflib`).
_MIN_SIMILARITY = 0.6
# Messages of libraries that do not raise MemoryError.
_NO_MEMORY = (
    "insufficient memory",
    "can't allocate memory",
    "bad_alloc",
    "out of memory",
    "cannot allocate memory",
)
# Largest number of characters of a library's message that is printed.
_LONGEST_REASON = 200


def line_of(error: Exception, command: Any, arguments: Sequence[str]) -> str | None:
    """Return the message of an error.

    It is empty if the error was printed before, and None for a bug, which needs its traceback.

    Args:
        error: The error.
        command: The root of all commands.
        arguments: Command line that it was called with.
    """
    if isinstance(error, SpslamError):
        return _one_line(str(error))
    if isinstance(error, UsageError):
        return _usage(error, command, arguments)
    if is_out_of_memory(error):
        reason = _one_line(str(error))[:_LONGEST_REASON]
        return (
            f"out of memory{f' ({reason})' if reason else ''}: use fewer or smaller images or "
            "shorter files, end other programs, or use a machine with more memory"
        )
    return _system(error) if isinstance(error, OSError) and error.errno is not None else None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, as reported by Python, OpenCV, PyTorch or OpenVINO."""
    if isinstance(error, MemoryError):
        return True
    # OpenCV raises cv2.error, the others RuntimeError.
    explained = isinstance(error, RuntimeError) or (
        type(error).__module__,
        type(error).__name__,
    ) == (
        "cv2",
        "error",
    )
    return explained and any(words in str(error).lower() for words in _NO_MEMORY)


def _one_line(text: str) -> str:
    return " ".join(text.split())


# -- usage ----------------------------------------------------------------------------------------


def _usage(error: Any, command: Any, arguments: Sequence[str]) -> str:
    context = error.ctx
    path, called = (
        (context.command_path, context.command)
        if context is not None
        else _called(command, arguments)
    )
    message = _one_line(_message(error, called)).rstrip(".")
    return f"{message[:1].lower()}{message[1:]}; see {path} --help"


def _called(command: Any, arguments: Sequence[str]) -> tuple[str, Any]:
    """Return the command that the arguments name, with its full name; some errors lack it."""
    path = ["spslam"]
    for argument in arguments:
        found = getattr(command, "commands", {}).get(argument)
        if found is None:
            break
        path, command = [*path, argument], found
    return " ".join(path), command


def _message(error: Any, command: Any) -> str:
    name = type(error).__name__
    if name == "NoSuchOption":
        options = [
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        ]
        return f"no such option: {error.option_name}{_meant(error.option_name, options)}"
    if name == "MissingParameter":
        # Name an argument by the word in the help.
        parameter = error.param
        hint = error.param_hint or (
            parameter.get_error_hint() if hasattr(parameter, "get_error_hint") else ""
        )
        kind = error.param_type or getattr(parameter, "param_type_name", "parameter")
        found = f"missing {kind} {' or '.join([hint] if isinstance(hint, str) else hint)}"
        places = [
            one.metavar or one.name for one in command.params if one.param_type_name == "argument"
        ]
        # A single value fills the first argument, and Click reports the second: show all.
        return (
            f"{found}, expected {' '.join(places)}"
            if kind == "argument" and len(places) > 1
            else found
        )
    message: str = error.format_message()
    unknown = re.fullmatch(r"No such command '(.*?)'.*", message, re.DOTALL)
    if unknown is not None:
        commands = list(getattr(command, "commands", {}))
        return f"no such command: {unknown[1]}{_meant(unknown[1], commands)}"
    return _value_message(error, message)


def _value_message(error: Any, message: str) -> str:
    """Return the message of an invalid value, with the value and a suggestion."""
    message = message.replace("Value error, ", "").replace("Input should be", "should be")
    choice = _NOT_ONE_OF.search(message)
    if choice is not None:
        return message.rstrip(".") + _meant(choice["found"], _QUOTED.findall(choice["choices"]))
    # Pydantic does not name the value in the message, Click does.
    details = getattr(error.__cause__, "errors", None)
    if callable(details):
        found = next((detail["input"] for detail in details() if "input" in detail), None)
        if found is not None:
            return f"{message}, found {found!r}"
    return message


def _meant(found: str, known: Sequence[str]) -> str:
    # The dashes are the same in all options and would raise the similarity.
    by_core = {word.lower().lstrip("-"): word for word in known}
    close = get_close_matches(found.lower().lstrip("-"), by_core, n=1, cutoff=_MIN_SIMILARITY)
    return f" (did you mean {by_core[close[0]]}?)" if close else ""


# -- the machine ----------------------------------------------------------------------------------


def _system(error: OSError) -> str:
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd() would hide which error it is
    except OSError:
        return "the working directory no longer exists: change to another one"
    reason = error.strerror or _one_line(str(error))
    if "temporary directory" in reason:
        return f"{reason}: {USE_ANOTHER_TMPDIR}"
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return _one_line(f"{' -> '.join(names)}: {reason}" if names else reason)
