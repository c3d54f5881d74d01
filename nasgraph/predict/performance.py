"""How well any network would do, before it is trained: `performance`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nasgraph.errors import CandidateError
from nasgraph.ir import ComputationalGraph, Cost, cost_of
from nasgraph.modules import trace
from nasgraph.modules.trace import ExampleInputs
from nasgraph.predict.ensemble import EnsembleConfig
from nasgraph.predict.known import (
    FittedPerformance,
    KnownPerformance,
    Neighbour,
    Outside,
    PerformanceMetric,
    describe,
)

MAX_NAMED = 4
"""Columns outside of the known range that a warning names."""
MUCH = 2
"""Factor beyond the known sizes from which a network is too large or too small for the interval to mean anything."""
_SIZES = ("log parameters", "log multiply-adds")
_PASSIVE = frozenset({"input", "constant", "parameter"})
_GRAPH_WIDE = {
    "log parameters": "parameters",
    "log multiply-adds": "multiply-adds",
    "log activations": "numbers in all activations",
    "log paths": "paths from input to output",
    "mean log width": "mean size of an activation",
    "least log width": "smallest activation",
    "largest log width": "largest activation",
}
"""Columns that hold log(1 + x), and what x is."""
_LOGARITHMS = ("multiply-adds of", "parameters of")
_PLAIN = ("nodes", "edges", "longest path", "merges", "values merged", "most inputs", "most readers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """What is predicted of one network.

    Attributes:
        metric: What is predicted, and how it would be measured.
        mean: The prediction.
        low: Lower end of the interval.
        high: Its upper end.
        level: Share of networks, drawn as the known ones were, whose measured value lies in such an interval.
        is_trusted: Whether the network is like the known ones, so that the interval means what `level` says.
        warnings: What to know before the prediction is believed, one sentence each.
        distance: Distance to the nearest known architecture, as a multiple of what 99 in 100 of these have to theirs.
        outside: Columns in which it has more or less than any known architecture, the farthest first.
        nearest: The nearest known architectures and what was measured of them, the nearest first.
        measured: What was measured of this very graph; None if it is not known.
        cost: Parameters, multiply-adds, activation bytes and depth. Without what opaque operators cost.
        num_opaque: Operators that the graph language cannot express.
        fingerprint: Fingerprint of its graph.
    """

    metric: PerformanceMetric
    mean: float
    low: float
    high: float
    level: float
    is_trusted: bool
    warnings: tuple[str, ...]
    distance: float
    outside: tuple[Outside, ...]
    nearest: tuple[Neighbour, ...]
    measured: float | None
    cost: Cost
    num_opaque: int
    fingerprint: str


def performance(
    network: nn.Module | ComputationalGraph,
    *,
    known: KnownPerformance | Path,
    input_shape: Sequence[int] | None = None,
    example_inputs: ExampleInputs | None = None,
    level: float = 0.9,
    num_nearest: int = 3,
) -> Performance:
    """Predict how well a network would do after training, with an interval and a warning where it means little.

    A module counts for its structure alone: it is traced, its weights play no part, and it is not changed. Its prediction is
    that of its graph. The first call per level fits the predictor, which takes seconds; load `known` once for several calls.

    Args:
        network: A module in any mode, or a graph.
        known: What was measured of other architectures, or the folder of it, such as a zoo entry of kind "performance".
        input_shape: Shape of one example, for a module with one real-valued input. If neither this nor `example_inputs` is
            given: that of the known architectures. A graph has its own, and it must be this one if it is given.
        example_inputs: What the module is called with, see `nasgraph.modules.trace`.
        level: Share of the truth that the interval shall hold, from 0.5 to below 1.
        num_nearest: How many known architectures to name.

    Raises:
        TraceError: If the module cannot run on such inputs.
        UnsupportedOpError: If an operator that nasgraph does not know reads a parameter.
        CandidateError: If the network computes nothing.
        CheckpointError: If the folder cannot be read.
        ConfigError: If `level` is out of its range.
        ValueError: If a graph has another shape than is given, or a module gets both or neither of shape and inputs.
    """
    config = EnsembleConfig(level=level)
    source = KnownPerformance.load(known) if isinstance(known, Path) else known
    if isinstance(network, nn.Module):
        graph = graph_of(
            network,
            input_shape=source.input_shape if input_shape is None and example_inputs is None else input_shape,
            example_inputs=example_inputs,
        )
    else:
        graph = network
        own = [graph.shapes[index] for index in graph.inputs]
        if example_inputs is not None:
            raise ValueError("Expected no 'example_inputs' for a graph: it knows its inputs")
        if input_shape is not None and own != [tuple(input_shape)]:
            raise ValueError(
                f"Expected 'input_shape' to be that of the graph, {own} (got {tuple(input_shape)})"
            )
    return performance_of_graph(graph, source, config, num_nearest=num_nearest)


def graph_of(
    module: nn.Module,
    *,
    input_shape: Sequence[int] | None = None,
    example_inputs: ExampleInputs | None = None,
) -> ComputationalGraph:
    """The graph of a module, by one forward pass without data. See `performance` for the arguments and errors."""
    if (input_shape is None) == (example_inputs is None):
        raise ValueError("Expected 'input_shape' or 'example_inputs' for a module, and not both")
    if example_inputs is None:
        assert input_shape is not None
        if not input_shape or any(side < 1 for side in input_shape):
            raise ValueError(f"Expected sides of at least 1 in 'input_shape' (got {tuple(input_shape)})")
        rng = torch.Generator().manual_seed(0)
        example_inputs = torch.randn(2, *input_shape, generator=rng)
    return trace(module, example_inputs).graph


def performance_of_graph(
    graph: ComputationalGraph, known: KnownPerformance, config: EnsembleConfig, *, num_nearest: int = 3
) -> Performance:
    """What `performance` says of a graph. Does not depend on the order of its nodes.

    Raises:
        CandidateError: If the graph computes nothing.
    """
    if all(node.op in _PASSIVE for node in graph.nodes):
        raise CandidateError(
            f"The graph computes nothing: all of its nodes ({len(graph)}) are inputs or constants. There is nothing to predict"
        )
    fitted = known.predictor(config)
    row = describe(known.features, [graph])
    prediction = fitted.predict_rows(row)
    low, high = prediction.interval()
    (outside,) = fitted.outside(row)
    distance = float(fitted.distances(row).min())
    doubts = _doubts(graph, fitted, distance, outside)
    opaque = [str(node.attr("name")) for node in graph.nodes if node.op == "opaque"]
    remarks = [*doubts, *_opaque_remarks(opaque, known), *(_range_remarks(outside) if doubts else ())]
    return Performance(
        metric=known.metric,
        mean=float(prediction.mean[0]),
        low=float(low[0]),
        high=float(high[0]),
        level=config.level,
        is_trusted=not doubts,
        warnings=tuple(remarks),
        distance=distance,
        outside=outside,
        nearest=fitted.nearest(row, count=num_nearest)[0],
        measured=known.value_of(graph.fingerprint),
        cost=cost_of(graph),
        num_opaque=len(opaque),
        fingerprint=graph.fingerprint,
    )


def _doubts(
    graph: ComputationalGraph, fitted: FittedPerformance, distance: float, outside: Sequence[Outside]
) -> list[str]:
    """Reasons why the interval promises nothing."""
    known, found = fitted.known, []
    if distance > 1:
        found.append(
            f"It is unlike all {len(known)} known architectures ({distance:.3g} times as far from the nearest as 99 in 100 of them "
            "are from theirs): the interval promises nothing"
        )
    if len(outside) > fitted.most_outside:
        found.append(
            f"In {len(outside)} of {len(known.features.names)} columns it leaves the known range (a known architecture that of the "
            f"others in {fitted.most_outside} at most): the interval promises nothing"
        )
    new = [
        column.column.removeprefix("number of ")
        for column in outside
        if column.column.startswith("number of ") and column.low == column.high == 0
    ]
    if any(column.column == "other kinds" and column.high == 0 for column in outside):
        new.append("operators of other kinds")
    if new:
        found.append(
            f"No known architecture has what it has: {', '.join(new)}. The interval promises nothing"
        )
    if any(column.column in _SIZES and _excess(column) > math.log(MUCH) for column in outside):
        found.append(
            f"It is more than {MUCH} times as large or as small as every known architecture: the interval promises nothing"
        )
    inputs = [graph.shapes[index] for index in graph.inputs]
    if known.input_shape is not None and inputs != [known.input_shape]:
        found.append(
            f"Known architectures read {_times(known.input_shape)}, this one reads {', '.join(map(_times, inputs)) or 'nothing'}"
        )
    outputs = [graph.shapes[index] for index in graph.outputs]
    if known.num_classes is not None and outputs != [(known.num_classes,)]:
        found.append(
            f"Known architectures give {known.num_classes} logits, this one gives {', '.join(map(_times, outputs))}"
        )
    return found


def _excess(column: Outside) -> float:
    return max(column.low - column.value, column.value - column.high)


def _opaque_remarks(names: Sequence[str], known: KnownPerformance) -> list[str]:
    """What to say of opaque operators: nothing where the known architectures consist of them."""
    strange = sorted(set(names) - set(known.features.kinds))
    if not strange:
        return []
    return [
        f"nasgraph cannot read {len(names)} of its operators ({', '.join(strange):.200}): what they cost is not counted"
    ]


def _range_remarks(outside: Sequence[Outside]) -> list[str]:
    """Columns in words: those that people understand if there are any."""
    words = [text for text in map(in_words, outside) if text]
    words = words or [f"'{each.column}' {each.value:.4g}" for each in outside]
    if not words:
        return []
    more = f", and {len(words) - MAX_NAMED} more" if len(words) > MAX_NAMED else ""
    return [f"Outside of what known architectures have: {'; '.join(words[:MAX_NAMED])}{more}"]


def in_words(column: Outside) -> str:
    """`parameters 1.2e+08 (known: 7.2e+04 to 1.5e+06)`, for the columns that need no explanation; else nothing."""
    name = column.column
    if name in _GRAPH_WIDE:
        name = _GRAPH_WIDE[name]
    elif not name.startswith(("number of ", "multiply-adds of ", "parameters of ")) and name not in _PLAIN:
        return ""
    is_log = column.column in _GRAPH_WIDE or column.column.startswith(_LOGARITHMS)
    value, low, high = (_number(x, is_log=is_log) for x in (column.value, column.low, column.high))
    return f"{name} {value} (known: {low if low == high else f'{low} to {high}'})"


def _number(value: float, *, is_log: bool) -> str:
    if is_log:
        return f"{math.expm1(max(value, 0.0)):.3g}"
    return f"{value:.4g}"


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
