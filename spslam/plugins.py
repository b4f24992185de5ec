"""Plug-ins of other packages, found through entry points."""

from __future__ import annotations

import logging
from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from spslam.errors import MissingDependencyError, SpslamError

_LOG = logging.getLogger(__name__)


def find_plugins(group: str, kind: str, taken: Collection[str]) -> dict[str, EntryPoint]:
    """Find the entry points of a group, by name.

    Args:
        group: the entry-point group.
        kind: kind of the plug-ins, for messages.
        taken: names that no plug-in may have.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        if entry.name in taken or (entry.name in found and found[entry.name].value != entry.value):
            _LOG.warning("%s %s of %s is ignored: the name is taken", kind, entry.name, entry.value)
        else:
            found[entry.name] = entry
    return found


def make_plugin(plugin: EntryPoint, kind: str, advice: str, *arguments: Any) -> Any:
    """Load an entry point and call it.

    Args:
        plugin: the entry point.
        kind: kind of the plug-in, for messages.
        advice: what the user can do if this fails.
        *arguments: arguments of the call.

    Raises:
        MissingDependencyError: the plug-in cannot be loaded, or the call raises an error that is
            not one of spslam's.
    """
    # A plug-in may raise anything: the message must say which plug-in it is.
    try:
        return plugin.load()(*arguments)
    except SpslamError:
        raise
    except Exception as error:
        raise MissingDependencyError(
            f"{describe_plugin(plugin, kind)} cannot be loaded: {describe_failure(error)}; {advice}"
        ) from error


def describe_plugin(plugin: EntryPoint, kind: str) -> str:
    """Name and origin of a plug-in, for messages."""
    return f"{kind} {plugin.name!r} ({plugin.value})"


def describe_failure(error: Exception) -> str:
    """An exception of a plug-in in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
