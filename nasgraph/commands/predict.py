"""`nasgraph predict`: what can be said of an architecture before it is trained."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import (
    DataDirOption,
    DeviceOption,
    JsonOption,
    SeedOption,
    SpaceOption,
    WrongUsageError,
)

if TYPE_CHECKING:
    from nasgraph.evaluate import PredictedWeightsScorer
    from nasgraph.spaces import SearchSpace

_BATCH = 16


def predict(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="graph.json, architecture.json, an architecture as JSON, a NAS-Bench-201 string, space:seed, "
            "model.py:factory or model.onnx.",
        ),
    ],
    data: Annotated[
        str, typer.Option("--data", help="Data set, or path of .npz, .csv or image folder.")
    ] = "digits",
    ghn: Annotated[str, typer.Option("--ghn", help="auto, a shipped one by name, or a folder.")] = "auto",
    tune_steps: Annotated[
        int, typer.Option("--tune-steps", min=0, max=100_000, help="Optimiser steps before the second score.")
    ] = 16,
    compare: Annotated[
        int, typer.Option("--compare", min=0, max=10_000, help="Random candidates to compare it with.")
    ] = 64,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Resize images to this size.")
    ] = None,
    space: SpaceOption = None,
    seed: SeedOption = 0,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Score an architecture with weights that a graph hypernetwork predicts, and compare it with random candidates.

    The score is the accuracy with predicted weights on validation data. It is no forecast of the accuracy after
    training: it ranks architectures, and its place among random candidates of the space says more than its value.
    """
    from nasgraph.commands.output import Output
    from nasgraph.commands.targets import load_target
    from nasgraph.data import load_dataset
    from nasgraph.evaluate import PredictedWeightsConfig, PredictedWeightsScorer
    from nasgraph.ir import cost_of
    from nasgraph.pipeline import find_ghn, open_ghn, pick_device
    from nasgraph.spaces import Candidate, load_space

    output = Output(json_mode=json)
    dataset = load_dataset(data, data_dir=data_dir, image_size=image_size)
    shape, classes = dataset.input_shape, dataset.num_classes
    loaded = load_target(target, space=space, input_shape=shape, num_classes=classes)
    graph, space_name = (
        (loaded.graph, loaded.architecture.space)
        if isinstance(loaded, Candidate)
        else (loaded, space or "convnet")
    )
    if [graph.shapes[i] for i in graph.inputs] != [shape] or [graph.shapes[i] for i in graph.outputs] != [
        (classes,)
    ]:
        raise WrongUsageError(
            f"The architecture reads {[graph.shapes[i] for i in graph.inputs]} and gives "
            f"{[graph.shapes[i] for i in graph.outputs]}; '{dataset.name}' has inputs {shape} and {classes} classes"
        )
    folder = find_ghn(ghn, dataset.search, space_name)
    if folder is None:
        raise WrongUsageError(
            f"No shipped hypernetwork fits '{dataset.name}' and '{space_name}'. Train one with 'nasgraph ghn train' "
            "and name its folder with --ghn"
        )
    picked = pick_device(device)
    search_data, network = dataset.search.to(picked), open_ghn(folder, device=picked)
    tuned = PredictedWeightsScorer(
        network, search_data, PredictedWeightsConfig(tune_steps=tune_steps, seed=seed)
    )
    (scores,) = tuned([graph])
    raw = PredictedWeightsScorer(network, search_data, PredictedWeightsConfig(seed=seed))
    with output.progress("Scoring random candidates", total=compare) as bar:
        others = _reference(
            load_space(space_name, input_shape=shape, num_classes=classes),
            raw,
            compare,
            seed=seed,
            advance=bar.advance,
        )
    cost = cost_of(graph)
    share = sum(value < scores["ghn_accuracy"] for value in others) / len(others) if others else None
    result = {
        "target": target,
        "fingerprint": graph.fingerprint,
        "data": dataset.name,
        "ghn": folder.name,
        "scores": scores,
        "better_than_share_of_random": share,
        "compared_with": len(others),
        "num_parameters": cost.num_parameters,
        "multiply_adds": cost.multiply_adds,
        "activation_bytes": cost.activation_bytes,
    }
    if not json:
        output.facts(
            {
                "fingerprint": graph.fingerprint,
                "accuracy with predicted weights": f"{scores['ghn_accuracy']:.4f}",
                f"after {tune_steps} steps from them": f"{scores['tuned_accuracy']:.4f}"
                if tune_steps
                else None,
                f"better than, of {len(others)} random candidates": f"{share:.0%}"
                if share is not None
                else None,
                "parameters": cost.num_parameters,
                "multiply-adds": cost.multiply_adds,
            },
            title=f"{target} on {dataset.name}, by {folder.name}",
        )
        output.message("These are scores that rank architectures, not the accuracy after training.")
    output.result(result)


def _reference(
    space: "SearchSpace",
    scorer: "PredictedWeightsScorer",
    count: int,
    *,
    seed: int,
    advance: "Callable[[int], None]",
) -> list[float]:
    """GHN accuracies of random candidates of a space."""
    from nasgraph.seeding import generator
    from nasgraph.spaces import sample

    graphs = [sample(space, generator(seed, "reference", i)).graph for i in range(count)]
    values: list[float] = []
    for start in range(0, count, _BATCH):
        values += [scores["ghn_accuracy"] for scores in scorer(graphs[start : start + _BATCH])]
        advance(len(graphs[start : start + _BATCH]))
    return values
