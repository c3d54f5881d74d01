"""`nasgraph meta prune`: the same network with fewer units in every layer, fine-tuned and registered."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.meta_networks import (
    DataOption,
    NetworkArgument,
    OutOption,
    ShapeOption,
    SpeedUpOption,
)
from nasgraph.commands.options import (
    DataDirOption,
    JsonOption,
    SeedOption,
    TrackingUriOption,
    WrongUsageError,
)

if TYPE_CHECKING:
    from nasgraph.commands.output import Cell
    from nasgraph.spaces import Choice


class Method(StrEnum):
    """How the units that stay are chosen."""

    L2 = "l2"
    L1 = "l1"
    BN_SCALE = "bn_scale"
    TAYLOR = "taylor"
    RANDOM = "random"
    UNIFORM = "uniform"
    WIDTH = "width"
    META = "meta"


def prune(
    network: NetworkArgument,
    speed_up: SpeedUpOption = 2.0,
    method: Annotated[
        Method,
        typer.Option("--method", help="Rank units by a criterion; uniform: one ratio everywhere; width: search widths by gradients (TAS); meta: a metanetwork rewrites the weights first."),
    ] = Method.L2,
    epochs: Annotated[int, typer.Option("--epochs", min=0, help="Passes over the training data after the cut.")] = 10,
    distil: Annotated[bool, typer.Option("--distil/--no-distil", help="Follow the outputs of the full network too.")] = True,
    metanetwork: Annotated[
        Path | None, typer.Option("--metanetwork", metavar="FOLDER", help="For meta: from 'nasgraph meta train --task prune'.", show_default=False)
    ] = None,
    out: OutOption = None,
    data: DataOption = None,
    input_shape: ShapeOption = None,
    seed: SeedOption = 0,
    data_dir: DataDirOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Remove units from a network until it has fewer multiply-adds, train what is left, and measure it beside the full one."""
    from nasgraph.commands.meta_networks import data_for, keep, open_network
    from nasgraph.commands.output import Output
    from nasgraph.ir import cost_of
    from nasgraph.meta.pruning import ShrinkConfig, WidthConfig, load_editor, shrink
    from nasgraph.modelzoo.store import Zoo

    output, zoo = Output(json_mode=json), Zoo(tracking_uri)
    if (metanetwork is None) == (method is Method.META):
        raise WrongUsageError(
            "'meta' needs --metanetwork, from 'nasgraph meta train --task prune'"
            if metanetwork is None
            else f"'{method}' has no use for --metanetwork"
        )
    opened = open_network(zoo, network, input_shape=input_shape)
    prepared = data_for(opened, data, data_dir, required=True)
    assert prepared is not None, "it is required"
    search = prepared[0].search
    config = ShrinkConfig(
        way="meta" if method is Method.META else "width" if method is Method.WIDTH else "group",
        criterion="l2" if method in (Method.META, Method.WIDTH) else method.value,
        speed_up=speed_up,
        teach=distil,
        seed=seed,
        width=WidthConfig(seed=seed),
    )
    config = replace(config, steps=epochs * max(1, len(search.train) // config.tuning.batch_size))
    output.message(f"cutting '{opened.name}', then {config.steps:,} steps of training")
    editor = None if metanetwork is None else load_editor(metanetwork)
    small = shrink(opened.graph, opened.state, search, config=config, editor=editor)
    accuracies = {
        "full": small.val_accuracy_full,
        "after the cut": small.val_accuracy_before,
        "after training": small.val_accuracy,
    }
    before = cost_of(opened.graph)
    reference = None
    if out is not None:
        settings: dict[str, Choice] = {"method": method.value, "speed_up": speed_up, "epochs": epochs, "distil": distil}  # fmt: skip
        metrics = {f"val_accuracy {name}": value for name, value in accuracies.items()} | {
            "multiply_adds_before": before.multiply_adds, "multiply_adds": small.multiply_adds
        }  # fmt: skip
        reference = keep(
            zoo, out, [opened], small.graph, small.state, kind="prune", notes=[small.note],
            settings=settings, metrics=metrics, data=prepared, seed=seed,
        )  # fmt: skip
    if not output.json_mode:
        rows: list[list[Cell]] = [
            [name, *((before.multiply_adds, before.num_parameters) if name == "full" else (small.multiply_adds, small.num_parameters)), value]
            for name, value in accuracies.items()
        ]  # fmt: skip
        output.table(["network", "multiply-adds", "parameters", "validation accuracy"], rows)
    output.message(f"Added '{reference}'" if reference else "Not kept: name the result with --out")
    output.result(
        {
            "reference": reference,
            "method": method.value,
            "multiply_adds": {"full": before.multiply_adds, "pruned": small.multiply_adds},
            "parameters": {"full": before.num_parameters, "pruned": small.num_parameters},
            "validation_accuracy": accuracies,
            "note": small.note,
        }
    )
