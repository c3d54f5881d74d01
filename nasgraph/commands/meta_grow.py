"""`nasgraph meta grow`: a larger network that computes the same, trained on from there."""

from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.meta_networks import DataOption, NetworkArgument, OutOption, ShapeOption
from nasgraph.commands.options import (
    DataDirOption,
    JsonOption,
    SeedOption,
    TrackingUriOption,
    WrongUsageError,
)

if TYPE_CHECKING:
    from nasgraph.commands.output import Cell
    from nasgraph.edits import Edited
    from nasgraph.modelzoo.networks import Network
    from nasgraph.spaces import Choice


def grow(
    network: NetworkArgument,
    wider: Annotated[float | None, typer.Option("--wider", help="So many times the units in every layer.", show_default=False)] = None,
    deeper: Annotated[int, typer.Option("--deeper", min=0, help="Layers to put in, spread over the depth.")] = 0,
    widen: Annotated[
        list[str] | None, typer.Option("--widen", metavar="GROUP=SIZE", help="Units of one group, such as n3.weight/0=48. Repeatable.", show_default=False)
    ] = None,
    random: Annotated[int, typer.Option("--random", min=0, help="Random edits that keep the function.")] = 0,
    epochs: Annotated[int, typer.Option("--epochs", min=0, help="Passes over the training data afterwards.")] = 0,
    out: OutOption = None,
    data: DataOption = None,
    input_shape: ShapeOption = None,
    seed: SeedOption = 0,
    data_dir: DataDirOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Make a network wider or deeper without changing what it computes, and train it on from there.

    What was measured of the function before and after stands in the result. Edits are made in the order of the options here.
    """
    from nasgraph.commands.meta_networks import accuracy_on, data_for, keep, open_network
    from nasgraph.commands.output import Output
    from nasgraph.ir import cost_of
    from nasgraph.meta.pruning import FineTuneConfig, finetune
    from nasgraph.modelzoo.store import Zoo

    output, zoo = Output(json_mode=json), Zoo(tracking_uri)
    if wider is None and not deeper and not widen and not random:
        raise WrongUsageError("Say how to grow: --wider, --deeper, --widen or --random")
    opened = open_network(zoo, network, input_shape=input_shape)
    edited = _grown(opened, wider=wider, deeper=deeper, widen=widen or [], random=random, seed=seed)
    change = _change(opened, edited)
    prepared = data_for(opened, data, data_dir, required=epochs > 0)
    state, steps = edited.state, 0
    accuracies: dict[str, float] = {}
    if prepared is not None:
        accuracies["before"] = accuracy_on(opened.graph, opened.state, prepared[0])
        accuracies["grown"] = accuracy_on(edited.graph, state, prepared[0])
    if prepared is not None and epochs:
        train = prepared[0].search.train
        steps = epochs * max(1, len(train) // FineTuneConfig().batch_size)
        state = finetune(edited.graph, state, train, steps=steps, seed=seed)
        accuracies["trained"] = accuracy_on(edited.graph, state, prepared[0])
    before, after = cost_of(opened.graph), cost_of(edited.graph)
    reference = None
    if out is not None:
        settings: dict[str, Choice] = {
            "wider": wider or 1.0,
            "deeper": deeper,
            "random": random,
            "epochs": epochs,
        }
        notes = [edited.note, *([f"{steps} steps of training"] if steps else [])]
        metrics = {f"val_accuracy {name}": value for name, value in accuracies.items()} | {
            "output_change": change
        }
        reference = keep(
            zoo, out, [opened], edited.graph, state, kind="grow", notes=notes, settings=settings, metrics=metrics, data=prepared, seed=seed
        )  # fmt: skip
    if not output.json_mode:
        rows: list[list[Cell]] = [
            ["before", before.multiply_adds, before.num_parameters, accuracies.get("before")],
            ["grown", after.multiply_adds, after.num_parameters, accuracies.get("grown")],
        ]
        if steps:
            rows.append(["trained", after.multiply_adds, after.num_parameters, accuracies["trained"]])
        output.table(["network", "multiply-adds", "parameters", "validation accuracy"], rows)
    output.message(f"{edited.note}. Largest change of an output: {change:.1e} of its size")
    output.message(f"Added '{reference}'" if reference else "Not kept: name the result with --out")
    output.result(
        {
            "reference": reference,
            "note": edited.note,
            "output_change": change,
            "multiply_adds": {"before": before.multiply_adds, "grown": after.multiply_adds},
            "parameters": {"before": before.num_parameters, "grown": after.num_parameters},
            "validation_accuracy": accuracies or None,
        }
    )


def _grown(
    network: "Network", *, wider: float | None, deeper: int, widen: list[str], random: int, seed: int
) -> "Edited":
    from nasgraph import edits

    done = edits.Edited(network.graph, dict(network.state), "", True, tuple(range(len(network.graph))))
    if wider is not None:
        if not wider > 1:
            raise WrongUsageError(f"Expected '--wider' above 1 (got {wider:g})")
        done = edits.chained(done, edits.widen_all(done.graph, done.state, wider, seed=seed))
    if deeper:
        done = edits.chained(done, edits.deepen_all(done.graph, done.state, deeper, seed=seed))
    for text in widen:
        group, equals, size = text.rpartition("=")
        if not equals or not size.isdecimal():
            raise WrongUsageError(
                f"Expected '--widen' as GROUP=SIZE, such as n3.weight/0=48 (got '{text:.80}')"
            )
        done = edits.chained(done, edits.widen(done.graph, done.state, group, int(size), seed=seed))
    if random:
        done = edits.chained(done, edits.random_edits(done.graph, done.state, random, seed=seed))
    return done


def _change(network: "Network", edited: "Edited") -> float:
    """Largest difference of an output on random inputs, relative to the largest output."""
    import torch

    from nasgraph.modules import run_network

    rng = torch.Generator().manual_seed(0)
    graph = network.graph
    if any(graph.dtypes[index] != "float" for index in graph.inputs) or graph.reads_edges:
        inputs = [
            torch.zeros(
                8, *graph.shapes[index], dtype=None if graph.dtypes[index] == "float" else torch.int64
            )
            for index in graph.inputs
        ]
    else:
        inputs = [torch.randn(8, *graph.shapes[index], generator=rng) for index in graph.inputs]
    edges = torch.zeros(2, 0, dtype=torch.int64) if graph.reads_edges else None
    with torch.inference_mode():
        (before, *_) = run_network(graph, network.state, inputs, edges=edges)
        (after, *_) = run_network(edited.graph, edited.state, inputs, edges=edges)
    return float((before - after).abs().max() / before.abs().max().clamp(min=1e-12))
