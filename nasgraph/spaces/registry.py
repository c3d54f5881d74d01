"""Search spaces by name."""

from nasgraph.errors import NasGraphError
from nasgraph.plugins import load_plugin, plugin_names
from nasgraph.spaces.space import SearchSpace

GROUP = "nasgraph.search_spaces"


def space_names() -> tuple[str, ...]:
    """Names of all installed search spaces, sorted. Loads none."""
    return plugin_names(GROUP)


def load_space(name: str, *, input_shape: tuple[int, ...], num_classes: int) -> SearchSpace:
    """The named search space, fitted to the shape of the data.

    Raises:
        UnknownNameError: If no installed space has that name; the message offers close ones.
        NasGraphError: If the plug-in is not a search space, or cannot serve this shape.
    """
    factory = load_plugin(GROUP, name, kind="search space", hint="List them with 'nasgraph spaces list'.")
    if not (isinstance(factory, type) and issubclass(factory, SearchSpace)):
        raise NasGraphError(
            f"The plug-in '{name}' is not a subclass of nasgraph.spaces.SearchSpace (got {factory!r})"
        )
    space: SearchSpace = factory(input_shape=input_shape, num_classes=num_classes)
    return space
