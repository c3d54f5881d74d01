"""`nasgraph meta train`: a metanetwork that predicts the accuracy of networks, or that rewrites them before pruning."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.meta_networks import DataOption, ShapeOption
from nasgraph.commands.options import (
    DataDirOption,
    JsonOption,
    SeedOption,
    TrackingUriOption,
    WrongUsageError,
)

if TYPE_CHECKING:
    from nasgraph.commands.output import Output
    from nasgraph.files import Json
    from nasgraph.meta.networks import Epoch
    from nasgraph.meta.networks.fit import Data
    from nasgraph.meta.population import Population
    from nasgraph.meta.pruning import EditorStep


class Task(StrEnum):
    """What a metanetwork learns."""

    PREDICT = "predict"
    PRUNE = "prune"


class Kind(StrEnum):
    """How a metanetwork reads parameter graphs."""

    MESSAGE_PASSING = "message_passing"
    RELATIONAL = "relational"
    SCALE = "scale"


def train(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for checkpoints and the result.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE]...", help="predict: folder of a population, by default the one that ships. prune: NETWORKs to learn from."),
    ] = None,
    task: Annotated[Task, typer.Option("--task", help="predict: accuracy from weights. prune: weights that are easier to prune.")] = Task.PREDICT,
    kind: Annotated[Kind, typer.Option("--kind", help="Messages, a transformer, or messages equivariant to rescaling.")] = Kind.MESSAGE_PASSING,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="predict: passes over the population.")] = 30,
    steps: Annotated[int, typer.Option("--steps", min=1, help="prune: updates.")] = 150,
    learning_rate: Annotated[float, typer.Option("--learning-rate", min=0, help="Peak learning rate.", show_default="3e-3, prune: 1e-3")] = 0.0,
    data: DataOption = None,
    input_shape: ShapeOption = None,
    seed: SeedOption = 0,
    data_dir: DataDirOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Train a network that reads networks.

    A training that predicts goes on from the checkpoint in --out when it is killed and given again.
    """
    from nasgraph.commands.output import Output

    output = Output(json_mode=json)
    if task is Task.PREDICT:
        metrics, series = _predictor(
            sources or [], out, kind=kind, epochs=epochs, learning_rate=learning_rate or 3e-3, seed=seed, output=output
        )  # fmt: skip
    else:
        metrics, series = _editor(
            sources or [], out, steps=steps, learning_rate=learning_rate or 1e-3, data=data, input_shape=input_shape,
            data_dir=data_dir, tracking_uri=tracking_uri, seed=seed, output=output,
        )  # fmt: skip
    from nasgraph.tracking import record_run

    facts = {"task": task.value, "kind": kind.value, "epochs": epochs, "steps": steps, "seed": seed, "sources": ", ".join(sources or ["the shipped population"])}  # fmt: skip
    files = [out / "config.json", out / "weights.safetensors"]
    run_id = record_run(
        tracking_uri,
        name=out.name,
        kind="metanetwork",
        facts=facts,
        metrics=metrics,
        series=series,
        files=files,
    )
    if not output.json_mode:
        output.facts({name: round(value, 4) for name, value in metrics.items()})
    output.message(f"Wrote '{out}'")
    output.result({"folder": str(out), "task": task.value, "run_id": run_id, **metrics})


def _predictor(
    sources: Sequence[str], out: Path, *, kind: Kind, epochs: int, learning_rate: float, seed: int, output: "Output"
) -> tuple[dict[str, float], dict[str, list[float]]]:  # fmt: skip
    """Train on the networks of a population's training split, and compare on those of all others."""
    import torch

    from nasgraph.meta.networks import (
        FitConfig,
        MetanetworkConfig,
        fit_predictor,
        predict_groups,
        save_metanetwork,
    )
    from nasgraph.meta.population import Population, load_sample_population
    from nasgraph.meta.views import agreement

    if len(sources) > 1:
        raise WrongUsageError(f"Expected one population (got {len(sources)})")
    population = Population.open(sources[0]) if sources else load_sample_population()
    train, val = _data(population, "train"), _data(population, "val")
    if train is None:
        raise WrongUsageError(f"'{population.folder}' has no networks to train on")
    losses: dict[str, list[float]] = {"loss": [], "val_loss": []}
    with output.progress(f"training on {sum(map(len, train[1])):,} networks", total=epochs) as bar:

        def on_epoch(epoch: "Epoch") -> None:
            losses["loss"].append(epoch.loss)
            losses["val_loss"].append(epoch.val_loss)
            bar.update(completed=epoch.number)

        shape = MetanetworkConfig(kind=kind.value)
        config = FitConfig(epochs=epochs, learning_rate=learning_rate, seed=seed)
        metanetwork = fit_predictor(train, val=val, shape=shape, config=config, folder=out, on_epoch=on_epoch)
    metrics: dict[str, float] = {}
    for split in sorted(set(population.table["split"].tolist()) - {"train", "val"}):
        held_out = _data(population, split)
        if held_out is not None and sum(map(len, held_out[1])) > 2:
            found = agreement(
                torch.cat(predict_groups(metanetwork, held_out[0]))[:, 0], torch.cat(list(held_out[1]))
            )
            metrics |= {f"{split}_{name}": value for name, value in found.items()}
    recipe: dict[str, Json] = {
        "population": population.recipe.name,
        "networks": sum(map(len, train[1])),
        "epochs": epochs,
        "seed": seed,
        "held_out": {name: round(value, 4) for name, value in metrics.items()},
    }
    save_metanetwork(metanetwork, out, recipe=recipe, targets=["test_accuracy"])
    return metrics, losses


def _data(population: "Population", split: str) -> "Data | None":
    """Groups of the networks of a split that did not diverge, with their test accuracy; None if there are none."""
    import numpy as np
    import torch

    accuracy = population.table["test_accuracy"].astype(float)
    chosen = np.flatnonzero((population.table["split"] == split) & np.isfinite(accuracy))
    if not len(chosen):
        return None
    groups = list(population.by_architecture(indices=chosen))
    targets = [torch.from_numpy(accuracy[group.indices]).float() for group in groups]
    return [(group.graph, group.state) for group in groups], targets


def _editor(
    sources: Sequence[str], out: Path, *, steps: int, learning_rate: float, data: str | None, input_shape: str | None, data_dir: Path | None,
    tracking_uri: str | None, seed: int, output: "Output",
) -> tuple[dict[str, float], dict[str, list[float]]]:  # fmt: skip
    """Train on networks of one data set."""
    from nasgraph.commands.meta_networks import data_for, open_network
    from nasgraph.meta.pruning import EditorConfig, save_editor, train_editor
    from nasgraph.modelzoo.store import Zoo

    if not sources:
        raise WrongUsageError("Name at least one NETWORK to learn from")
    zoo = Zoo(tracking_uri)
    networks = [open_network(zoo, text, input_shape=input_shape) for text in sources]
    prepared = [data_for(network, data, data_dir, required=True) for network in networks]
    if len({each[0].sha256 for each in prepared if each is not None}) > 1:
        raise WrongUsageError("The networks were trained on different data. Name those of one data set")
    assert prepared[0] is not None, "it is required"
    losses: dict[str, list[float]] = {"cross_entropy": [], "sparsity": []}
    config = EditorConfig(steps=steps, learning_rate=learning_rate, seed=seed)
    with output.progress("training", total=steps) as bar:

        def on_step(step: "EditorStep") -> None:
            losses["cross_entropy"].append(step.cross_entropy)
            losses["sparsity"].append(step.sparsity)
            bar.advance()

        pairs = [(network.graph, network.state) for network in networks]
        editor = train_editor(pairs, prepared[0][0].search.train, config=config, on_step=on_step)
    facts: dict[str, Json] = {
        "data": prepared[0][0].name,
        "networks": [network.reference or network.source for network in networks],
    }
    save_editor(editor, out, config=config, facts=facts)
    return {name: values[-1] for name, values in losses.items()}, losses
