"""`nasgraph meta population`: thousands of small trained networks, made by one resumable command."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import DataDirOption, JsonOption, SeedOption, SpaceOption, WrongUsageError

if TYPE_CHECKING:
    from nasgraph.commands.output import Cell
    from nasgraph.meta.population import Population


def population(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where; goes on with what is there.")],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="A named recipe: digits-mlp, digits-widths, digits-families, ...", show_default=False),
    ] = None,
    space: SpaceOption = None,
    data: Annotated[str, typer.Option("--data", help="With --space: data set, or path of one.")] = "digits",
    architectures: Annotated[int, typer.Option("--architectures", min=1, help="With --space: how many.")] = 10,
    each: Annotated[int, typer.Option("--each", min=1, help="With --space: networks of each architecture.")] = 20,
    steps: Annotated[int, typer.Option("--steps", min=1, help="With --space: most steps of training; some networks stop much earlier.")] = 600,
    seed: SeedOption = 0,
    data_dir: DataDirOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Train many small networks at once, with their initial weights, trajectories, settings and measured behaviour.

    What is killed goes on where it stopped when the same command is given again, and ends with the same bits.
    """
    from nasgraph.commands.output import Output
    from nasgraph.data import load_dataset
    from nasgraph.meta.population import Ranges, Recipe, families_from_space, preset, train_population
    from nasgraph.spaces import load_space

    output = Output(json_mode=json)
    if (recipe is None) == (space is None):
        raise WrongUsageError("Expected either --recipe or --space")
    if recipe is not None:
        chosen = preset(recipe)
        chosen = chosen if seed == chosen.seed else replace(chosen, seed=seed)
        loaded = None
    else:
        assert space is not None, "one of both is given"
        loaded = load_dataset(data, data_dir=data_dir)
        shaped = load_space(space, input_shape=loaded.input_shape, num_classes=loaded.num_classes)
        families = families_from_space(shaped, architectures=architectures, count=each, seed=seed)
        chosen = Recipe(
            name=f"{loaded.name}-{space}",
            data=data,
            families=families,
            ranges=Ranges(steps=(max(1, steps // 15), steps)),
            seed=seed,
        )
    with output.progress(f"training {chosen.count:,} networks", total=chosen.count) as bar:
        done = train_population(
            chosen, out, progress=lambda count, _: bar.update(completed=count), data=loaded, data_dir=data_dir
        )
    report = _report(done)
    if not output.json_mode:
        rows: list[list[Cell]] = [[name, *values.values()] for name, values in report.items()]
        output.table(["split", "networks", "test accuracy: lowest", "median", "highest"], rows)
    output.message(f"{len(done):,} networks in '{out}'")
    output.result({"folder": str(out), "networks": len(done), "splits": report})


def _report(done: "Population") -> dict[str, dict[str, float]]:
    """Test accuracies of the networks of each split; those that diverged count as 0."""
    import numpy as np

    splits, accuracy = done.table["split"], np.nan_to_num(done.table["test_accuracy"].astype(float))
    report = {}
    for name in sorted(set(splits)):
        chosen = accuracy[splits == name]
        report[str(name)] = {
            "networks": len(chosen),
            "lowest": round(float(chosen.min()), 4),
            "median": round(float(np.median(chosen)), 4),
            "highest": round(float(chosen.max()), 4),
        }
    return report
