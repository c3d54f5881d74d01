"""Plug-ins by entry point: found by name, loaded only when named. Built-in content uses the same door."""

from collections.abc import Callable, Collection
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from nasgraph.errors import NasGraphError, UnknownNameError


@cache
def _entry_points(group: str) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        known = found.setdefault(point.name, point)
        if known.value != point.value:
            raise NasGraphError(
                f"Two installed packages offer '{point.name}' in '{group}': {known.value} and {point.value}"
            )
    return found


def plugin_names(group: str) -> tuple[str, ...]:
    """Sorted names of all plug-ins of an entry-point group. Loads none of them."""
    return tuple(sorted(_entry_points(group)))


def load_plugin(group: str, name: str, *, kind: str, hint: str = "") -> object:
    """Import and return one plug-in.

    Args:
        group: Entry-point group, such as `nasgraph.search_spaces`.
        name: Registered name.
        kind: What to call it in the error message, such as "search space".
        hint: Sentence that ends the error message for an unknown name.

    Raises:
        UnknownNameError: If no plug-in has that name; the message offers close ones.
    """
    points = _entry_points(group)
    if name not in points:
        raise UnknownNameError(kind, name, points, hint=hint)
    return points[name].load()


def load_callable(
    group: str, name: str, *, kind: str, called_with: str, shipped: Collection[str]
) -> Callable[..., Any]:
    """Import and return a plug-in that stands beside what we ship under names of the same kind.

    Args:
        group: Entry-point group.
        name: Registered name, none of `shipped`.
        kind: What to call it in error messages.
        called_with: What it is called with, for the message.
        shipped: Names that need no plug-in; offered where a name is unknown.

    Raises:
        UnknownNameError: If no plug-in has that name; the message offers close ones.
        NasGraphError: If it cannot be called.
    """
    if name not in plugin_names(group):
        raise UnknownNameError(kind, name, sorted({*shipped, *plugin_names(group)}))
    plugin = load_plugin(group, name, kind=kind)
    if not callable(plugin):
        raise NasGraphError(
            f"Expected the {kind} plug-in '{name}' to be callable with {called_with} (got {type(plugin).__name__})"
        )
    return plugin
