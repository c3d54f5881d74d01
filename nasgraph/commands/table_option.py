"""The option that names a table, and opening it: the same in every `nasgraph bench` command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nasgraph.commands.output import Output
    from nasgraph.evaluate.table import Table

TableOption = Annotated[
    str,
    typer.Option(
        "--table",
        "-t",
        help="A shipped table by name (nasbench201), or a file: .safetensors, .csv, .jsonl, also .gz of these two.",
    ),
]


def open_for_command(out: "Output", name: str) -> "Table":
    """Open a table; if it is converted on the way, say what was noticed."""
    from nasgraph.evaluate.table import convert, is_convertible, open_table

    if not is_convertible(Path(name)):
        return open_table(name)
    found = convert(Path(name))
    for warning in found.warnings():
        out.message(f"note: {warning}")
    return found.table
