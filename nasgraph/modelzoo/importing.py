"""Entries of models from outside: a torch module, an ONNX file, or a graph with a safetensors checkpoint."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nasgraph.data import DataSet, Preparation
from nasgraph.draw import draw_svg
from nasgraph.errors import ZooError
from nasgraph.files import sha256_of
from nasgraph.ir import ComputationalGraph
from nasgraph.modelzoo.card import Lineage, data_facts, draft_card
from nasgraph.modelzoo.entry import ZooEntry, write_entry
from nasgraph.modelzoo.facts import measure_facts
from nasgraph.modelzoo.weights import read_weights
from nasgraph.modules import TracedGraph, build, trace
from nasgraph.modules.onnx import load_onnx, onnx_example_inputs
from nasgraph.modules.trace import ExampleInputs
from nasgraph.spaces import Architecture, Candidate

TOLERANCE = 1e-3
"""Largest difference of an output between a module and its graph, relative to the output's largest value."""
UNKNOWN_LICENCE = "other"


def import_module(
    folder: Path,
    name: str,
    module: nn.Module,
    example_inputs: ExampleInputs,
    *,
    source: str,
    licence: str = UNKNOWN_LICENCE,
    data: tuple[DataSet, Preparation] | None = None,
    space: str = "traced",
) -> ZooEntry:
    """Write a trained torch module as an entry: its graph, and its weights by the graph's names.

    The graph is held against the module on the example inputs before anything is written.

    Args:
        folder: Where; must not exist.
        name: Name of the entry.
        module: Any module that can be traced completely.
        example_inputs: See `nasgraph.modules.trace`.
        source: Where the module is from, for the lineage.
        licence: Licence of the weights, an SPDX identifier; `other` if it has none.
        data: Data that it classifies, and how that was prepared: its accuracy is measured. None: nothing is measured.
        space: What stands in the card for the search space.

    Raises:
        ZooError: If the module has operators that a graph cannot express, or the graph computes something else.
        TraceError: If it cannot be traced.
    """
    traced = traced_of(module, example_inputs)
    state = state_of(traced, module)
    _check_equal(traced, state, module, example_inputs)
    return _write(folder, name, traced.graph, state, source=source, licence=licence, data=data, space=space)


def import_onnx(
    folder: Path,
    name: str,
    path: Path,
    *,
    licence: str = UNKNOWN_LICENCE,
    data: tuple[DataSet, Preparation] | None = None,
) -> ZooEntry:
    """Write the network of an ONNX file as an entry. Nothing in the file is executed. See `import_module`."""
    source = f"{path.name}, sha256 {sha256_of(path)}"
    return import_module(
        folder, name, load_onnx(path), onnx_example_inputs(path), source=source, licence=licence, data=data, space="onnx"
    )  # fmt: skip


def import_checkpoint(
    folder: Path,
    name: str,
    architecture: Candidate | ComputationalGraph,
    weights: Path,
    *,
    licence: str = UNKNOWN_LICENCE,
    data: tuple[DataSet, Preparation] | None = None,
) -> ZooEntry:
    """Write a safetensors checkpoint and the architecture that it belongs to as an entry.

    Args:
        folder: Where; must not exist.
        name: Name of the entry.
        architecture: The architecture, whose built module has the names in the checkpoint.
        weights: The checkpoint.
        licence: Licence of the weights.
        data: See `import_module`.

    Raises:
        ZooError: If the checkpoint is damaged, a pickle, or does not fit.
    """
    if not weights.is_file():
        raise ZooError(f"There is no file '{weights}'")
    graph = architecture.graph if isinstance(architecture, Candidate) else architecture
    state = read_weights(weights, build(graph, device="meta"), sha256_expected=sha256_of(weights))
    source = f"{weights.name}, sha256 {sha256_of(weights)}"
    return _write(folder, name, architecture, state, source=source, licence=licence, data=data, space="graph")


def traced_of(module: nn.Module, example_inputs: ExampleInputs) -> TracedGraph:
    """The graph of a module that a graph can express completely.

    Raises:
        ZooError: If it has operators that a graph cannot express. The message names them.
        TraceError: If it cannot be traced.
    """
    traced = trace(module, example_inputs)
    if traced.opaque:
        listed = ", ".join(f"{op} ({traced.reasons.get(op, 'unknown')})" for op in sorted(traced.opaque))
        raise ZooError(f"The model cannot be an entry: a graph cannot express {listed:.400}")
    return traced


def state_of(traced: TracedGraph, module: nn.Module) -> dict[str, Tensor]:
    """Parameters, running statistics and constants by the names of the graph's module.

    Raises:
        ZooError: If the module has no tensor for one of them.
    """
    expected = build(traced.graph, device="meta").state_dict()
    known = {**traced.from_module(module), **traced.statistics, **traced.constants}
    missing = sorted(set(expected) - set(known))
    if missing:
        raise ZooError(f"The model's graph has '{missing[0]}', for which the model has no tensor")
    return {name: known[name].detach().cpu().contiguous().clone() for name in expected}


def _check_equal(
    traced: TracedGraph, state: Mapping[str, Tensor], module: nn.Module, example_inputs: ExampleInputs
) -> None:
    """Compare the graph with the module on the example inputs, where they are plain tensors."""
    inputs = [example_inputs] if isinstance(example_inputs, Tensor) else list(_tensors(example_inputs))
    if len(inputs) != len(traced.graph.inputs):
        return  # constants or keyword arguments among them: tracing has compared their shapes
    built = build(traced.graph, constants=traced.constants)
    built.load_state_dict(dict(state), strict=True)
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            ours, theirs = built.eval()(*inputs), module(*inputs)
    finally:
        module.train(was_training)
    found, expected = (value if isinstance(value, tuple | list) else (value,) for value in (ours, theirs))
    for mine, other in zip(found, expected, strict=False):
        if isinstance(other, Tensor) and other.numel() == mine.numel():
            error = float(
                (mine.reshape(other.shape) - other).abs().max() / other.abs().max().clamp(min=1e-12)
            )
            if not error <= TOLERANCE:
                raise ZooError(
                    f"The model's graph computes something else: outputs differ by {error:.2g} of their size"
                )


def _tensors(example_inputs: ExampleInputs) -> tuple[Tensor, ...]:
    values = example_inputs.values() if isinstance(example_inputs, Mapping) else example_inputs
    return tuple(value for value in values if isinstance(value, Tensor))


def _write(
    folder: Path,
    name: str,
    architecture: Candidate | ComputationalGraph,
    state: Mapping[str, Tensor],
    *,
    source: str,
    licence: str,
    data: tuple[DataSet, Preparation] | None,
    space: str,
) -> ZooEntry:
    candidate = (
        architecture
        if isinstance(architecture, Candidate)
        else Candidate(Architecture(space, ()), architecture)
    )
    facts = None if data is None else data_facts(*data)
    today = time.strftime("%Y-%m-%d")
    card = draft_card(name, candidate, facts, created=today, licence=licence, seed=0)
    card = replace(card, lineage=Lineage(origin="import", note=source))
    if data is not None:
        splits = {"validation": data[0].search.validation, "test": data[0].test}
        found = measure_facts(candidate.graph, state, splits)
        card = replace(card, measurements=found.measurements, latencies=found.latencies)
    picture = draw_svg(candidate.graph, title=name).encode()
    return write_entry(folder, candidate.graph, state, card, picture=picture)
