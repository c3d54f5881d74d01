"""`nasgraph meta`: networks that read, change and write networks. Each verb lives in a file of its own."""

import typer

from nasgraph.commands import meta_merge

app = typer.Typer(
    help="Read, change and merge trained networks by their weights.",
    no_args_is_help=True,
)
app.command("merge")(meta_merge.merge)
