"""Tables by name or by file."""

from pathlib import Path

from nasgraph.evaluate.table.convert import SUFFIXES, convert, is_convertible
from nasgraph.evaluate.table.file import read_table
from nasgraph.evaluate.table.records import TableError
from nasgraph.evaluate.table.table import Table
from nasgraph.plugins import load_plugin, plugin_names

GROUP = "nasgraph.tables"
SUFFIX = ".safetensors"


def table_names() -> tuple[str, ...]:
    """Names of all tables that installed packages ship, sorted. Opens none."""
    return plugin_names(GROUP)


def open_table(name_or_path: str | Path) -> Table:
    """Open a table: a shipped one by its name, or a file: `.safetensors`, or CSV or JSON Lines, packed with gzip or not.

    Raises:
        UnknownNameError: If it is neither a file nor the name of a shipped table.
        TableError: If the file is damaged or of another form.
    """
    path = Path(name_or_path)
    if is_convertible(path):
        return convert(path).table
    if path.suffix == SUFFIX or path.exists():
        if path.suffix != SUFFIX:
            raise TableError(f"Expected a table with one of {', '.join((SUFFIX, *SUFFIXES))} (got '{path}')")
        return read_table(path)
    place = load_plugin(
        GROUP, str(name_or_path), kind="table", hint=f"Or name a file: {', '.join((SUFFIX, *SUFFIXES))}."
    )
    if not isinstance(place, Path):
        raise TableError(
            f"Expected the plug-in '{name_or_path}' to be the path of a table (got {type(place).__name__})"
        )
    return read_table(place)
