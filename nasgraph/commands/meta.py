"""`nasgraph meta`: networks that read, change and write networks. Each verb lives in a file of its own."""

import typer

from nasgraph.commands import meta_grow, meta_merge, meta_population, meta_prune, meta_read, meta_train

app = typer.Typer(
    help="Read, change and merge trained networks by their weights.",
    no_args_is_help=True,
)
app.command("predict")(meta_read.predict)
app.command("embed")(meta_read.embed)
app.command("heritage")(meta_read.heritage)
app.command("prune")(meta_prune.prune)
app.command("grow")(meta_grow.grow)
app.command("merge")(meta_merge.merge)
app.command("population")(meta_population.population)
app.command("train")(meta_train.train)
