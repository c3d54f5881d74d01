"""`nasgraph ghn`: train graph hypernetworks, measure them, list them."""

import typer

from nasgraph.commands import ghn_eval, ghn_train
from nasgraph.commands.options import JsonOption

app = typer.Typer(help="Graph hypernetworks: train, evaluate, list.")
app.command("train")(ghn_train.train)
app.command("eval")(ghn_eval.evaluate)


@app.command("list")
def list_ghns(json: JsonOption = False) -> None:
    """List the hypernetworks that are shipped."""
    from nasgraph.commands.output import Output
    from nasgraph.pipeline import recipe_of, shipped_ghns

    output = Output(json_mode=json)
    found, rows = [], []
    for name, folder in shipped_ghns().items():
        recipe = recipe_of(folder)
        trained_on = recipe.get("spaces")
        assert isinstance(trained_on, list)
        spaces = sorted(set(map(str, trained_on)))
        data, shape = recipe.get("data"), recipe.get("input_shape")
        found.append(
            {"name": name, "data": data, "input_shape": shape, "spaces": spaces, "folder": str(folder)}
        )
        rows.append([name, str(data), str(shape), ", ".join(spaces)])
    if not json:
        output.table(["name", "data", "input shape", "spaces"], rows)
    output.result({"ghns": found})
