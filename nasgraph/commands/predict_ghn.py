"""The part of `nasgraph predict` that a graph hypernetwork says: scores, and a place among random candidates."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nasgraph.errors import UnsupportedOpError

if TYPE_CHECKING:
    from nasgraph.commands.output import Output
    from nasgraph.commands.predict_target import Subject
    from nasgraph.data import DataSet
    from nasgraph.evaluate import PredictedWeightsScorer
    from nasgraph.ir import ComputationalGraph
    from nasgraph.spaces import SearchSpace

_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class GhnOptions:
    """What the command line says about scores.

    Attributes:
        ghn: auto, none, a name or a folder.
        tune_steps: Optimiser steps before the second score.
        compare: Random candidates.
        space: Space of the candidates where the architecture's own is not known.
        seed: Decides everything random.
        device: Where to compute.
    """

    ghn: str
    tune_steps: int
    compare: int
    space: str | None
    seed: int
    device: str


class SkippedError(Exception):
    """There are no scores, and its text is the reason."""


def ghn_scores(
    subject: "Subject", dataset: "DataSet", options: GhnOptions, *, output: "Output"
) -> dict[str, object]:
    """Scores of a subject with weights that a hypernetwork predicts.

    An architecture is built for the data; anything else must read its examples and give its classes.

    Returns:
        The keys `data`, `ghn`, `ghn_fingerprint`, `scores`, `better_than_share_of_random` and `compared_with`.

    Raises:
        SkippedError: If no hypernetwork was asked for or none fits, or the graph does not suit the data.
        UnknownNameError: If a hypernetwork is named that there is not.
        CheckpointError: If the named one does not fit the data, or cannot be read.
    """
    from nasgraph.evaluate import PredictedWeightsConfig, PredictedWeightsScorer
    from nasgraph.pipeline import find_ghn, open_ghn, pick_device
    from nasgraph.spaces import load_space

    shape, classes = dataset.input_shape, dataset.num_classes
    space_name = subject.architecture.space if subject.architecture else options.space or "convnet"
    if options.ghn == "none":
        raise SkippedError("'--ghn none' was asked for")
    folder = find_ghn(options.ghn, dataset.search, space_name)
    if folder is None:
        raise SkippedError(
            f"no shipped hypernetwork fits '{dataset.name}' and '{space_name}'. Train one with 'nasgraph ghn train' and "
            "name its folder with --ghn"
        )
    graph = _graph_for(subject, dataset)
    picked = pick_device(options.device)
    search_data, network = dataset.search.to(picked), open_ghn(folder, device=picked)
    tuned = PredictedWeightsScorer(
        network, search_data, PredictedWeightsConfig(tune_steps=options.tune_steps, seed=options.seed)
    )
    try:
        (scores,) = tuned([graph])
    except UnsupportedOpError as error:
        raise SkippedError(f"the graph cannot be built: {error}") from error
    raw = PredictedWeightsScorer(network, search_data, PredictedWeightsConfig(seed=options.seed))
    with output.progress("Scoring random candidates", total=options.compare) as bar:
        others = _reference(
            load_space(space_name, input_shape=shape, num_classes=classes),
            raw,
            options.compare,
            seed=options.seed,
            advance=bar.advance,
        )
    return {
        "data": dataset.name,
        "ghn": folder.name,
        "ghn_fingerprint": graph.fingerprint,
        "scores": scores,
        "better_than_share_of_random": sum(value < scores["ghn_accuracy"] for value in others) / len(others)
        if others
        else None,
        "compared_with": len(others),
    }


def _graph_for(subject: "Subject", dataset: "DataSet") -> "ComputationalGraph":
    """The graph on the shapes of the data."""
    from nasgraph.spaces import load_space, replay

    shape, classes, graph = dataset.input_shape, dataset.num_classes, subject.graph
    reads, gives = [graph.shapes[i] for i in graph.inputs], [graph.shapes[i] for i in graph.outputs]
    if reads == [shape] and gives == [(classes,)]:
        return graph
    if subject.architecture is None:
        raise SkippedError(
            f"the architecture reads {reads} and gives {gives}; '{dataset.name}' has inputs {shape} and {classes} classes"
        )
    try:
        space = load_space(subject.architecture.space, input_shape=shape, num_classes=classes)
        return replay(space, subject.architecture).graph
    except (
        ValueError
    ) as error:  # a shape that the space does not take, or choices that it does not offer there
        raise SkippedError(
            f"the architecture cannot be built for '{dataset.name}': {error}. With '--data {dataset.name}' TARGET is taken to be "
            "for these data"
        ) from error


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
