"""What `nasgraph predict` computes on request: zero-cost proxies, and the latency on this machine."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from nasgraph.commands.predict_target import tensors_of
from nasgraph.errors import CandidateError, NasGraphError

if TYPE_CHECKING:
    from torch import Tensor

    from nasgraph.commands.predict_target import Subject
    from nasgraph.data import DataSet
    from nasgraph.predict.zero_cost import ProxyScores

BATCH = 32
"""Examples that proxies look at."""


def proxies_of(subject: "Subject", wanted: str, *, dataset: "DataSet | None", seed: int) -> dict[str, object]:
    """Proxies of a subject: of the module as it is, else of the graph with random weights.

    Args:
        subject: What to score.
        wanted: "all", or names with commas between.
        dataset: Its first training examples are looked at if they fit; else noise with random classes.
        seed: Seed of weights, noise and classes.

    Returns:
        `scores` by name, `reasons` for those that are undefined, and `examples`: what was looked at.

    Raises:
        UnknownNameError: If there is no proxy of a name.
        CandidateError: If the graph has opaque operators, so that it cannot run.
    """
    from nasgraph.predict.zero_cost import PROXIES, Examples, module_scores, proxy_names, proxy_scores

    scores: ProxyScores
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if subject.module is not None:
        inputs, targets, said = _module_examples(subject, dataset, seed)
        chosen = tuple(PROXIES) if names == ["all"] else names
        scores = module_scores(subject.module, inputs, targets, names=chosen, seed=seed)
    else:
        if not subject.graph.is_executable:
            raise CandidateError("The graph has operators that nasgraph cannot run, so it has no proxies")
        given, targets, said = _graph_examples(subject, dataset, seed)
        chosen = proxy_names() if names == ["all"] else names
        (scores,) = proxy_scores([subject.graph], Examples(given, targets), names=chosen, seed=seed)
    return {"scores": dict(scores), "reasons": dict(scores.reasons), "examples": said}


def latency_of(subject: "Subject", *, device: str) -> dict[str, object]:
    """Latency of one forward pass of one example, by measurement: of the module as it is, else of the graph.

    Raises:
        NasGraphError: If it cannot run.
    """
    from nasgraph.evaluate.latency import LatencyConfig, measure_latency
    from nasgraph.pipeline import pick_device

    picked = str(pick_device(device))
    config = LatencyConfig(device=picked)
    if subject.module is None:
        return asdict(measure_latency(subject.graph, config=config))
    assert subject.inputs is not None
    one = [tensor[:1] for tensor in tensors_of(subject.inputs)]
    return asdict(measure_latency(subject.module.to(picked), example_inputs=one, config=config))


def _classes(subject: "Subject") -> int | None:
    """Classes, if the subject looks like a classifier."""
    shapes = [subject.graph.shapes[index] for index in subject.graph.outputs]
    return shapes[0][0] if len(shapes) == 1 and len(shapes[0]) == 1 and shapes[0][0] > 1 else None


def _real_examples(subject: "Subject", dataset: "DataSet | None") -> "tuple[Tensor, Tensor, str] | None":
    reads = [subject.graph.shapes[index] for index in subject.graph.inputs]
    if dataset is None or reads != [dataset.input_shape] or _classes(subject) != dataset.num_classes:
        return None
    train = dataset.search.train
    return (
        train.inputs[:BATCH],
        train.targets[:BATCH],
        f"{min(BATCH, len(train))} training examples of '{dataset.name}'",
    )


def _random_targets(subject: "Subject", count: int, seed: int) -> "Tensor | None":
    import torch

    classes = _classes(subject)
    if classes is None:
        return None
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed + 1))


def _graph_examples(
    subject: "Subject", dataset: "DataSet | None", seed: int
) -> "tuple[tuple[Tensor, ...], Tensor | None, str]":
    import torch

    if real := _real_examples(subject, dataset):
        return (real[0],), real[1], real[2]
    graph, rng = subject.graph, torch.Generator().manual_seed(seed)
    if any(graph.dtypes[index] == "int" for index in graph.inputs):
        raise NasGraphError("Proxies of a graph with integer inputs need its module: name model.py:factory")
    inputs = tuple(torch.randn(BATCH, *graph.shapes[index], generator=rng) for index in graph.inputs)
    return inputs, _random_targets(subject, BATCH, seed), f"{BATCH} examples of noise with random classes"


def _module_examples(
    subject: "Subject", dataset: "DataSet | None", seed: int
) -> "tuple[tuple[Tensor, ...], Tensor | None, str]":
    import torch

    if real := _real_examples(subject, dataset):
        return (real[0],), real[1], real[2]
    assert subject.inputs is not None
    own = tensors_of(subject.inputs)
    rng = torch.Generator().manual_seed(seed)
    inputs = tuple(
        torch.randn(BATCH, *tensor.shape[1:], generator=rng) if tensor.is_floating_point() else tensor
        for tensor in own
    )
    if any(not tensor.is_floating_point() for tensor in own):
        inputs = own
    return (
        inputs,
        _random_targets(subject, len(inputs[0]), seed),
        f"{len(inputs[0])} examples of {'noise' if inputs is not own else 'the file'} with random classes",
    )
