"""Networks as a folder that needs nothing of nasgraph: Python source, safetensors and a script that checks itself."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from safetensors.torch import save
from torch import Tensor, nn

from nasgraph.ir import ComputationalGraph, Shape, graph_to_json
from nasgraph.modelzoo.card import ModelCard, card_to_json
from nasgraph.modelzoo.entry import ZooEntry
from nasgraph.modules.source import graph_to_source, source_parameters

CLASS_NAME = "Network"
SCHEMA = "nasgraph/source/1"
REQUIREMENTS = "torch\nsafetensors\n"
EXAMPLE_SIZE = 3

LOADER = '''\
"""Loads the network of this folder. `python load.py` runs it on stored inputs and compares what comes out.

It needs torch and safetensors, and nothing of nasgraph, which wrote it.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from model import Network

FOLDER = Path(__file__).resolve().parent
CONFIG = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))


def load() -> Network:
    """The trained network, in inference mode."""
    network = Network()
    network.load_state_dict(load_file(FOLDER / "model.safetensors"), strict=True)
    return network.eval()


def normalise(raw: Tensor) -> Tensor:
    """Inputs of the network from raw ones of the published range, such as pixels from 0 to 255."""
    constants = CONFIG["normalisation"]
    if constants is None:
        return raw
    shape = (-1,) + (1,) * (raw.dim() - 2)
    mean, std = (raw.new_tensor(constants[name]).reshape(shape) for name in ("mean", "std"))
    return (raw * constants["scale"] - mean) / std


def main() -> int:
    """Compare the outputs for stored inputs with stored outputs."""
    example = load_file(FOLDER / "example.safetensors")
    inputs = [example[name] for name in sorted(example) if name.startswith("input")]
    with torch.inference_mode():
        found = load()(*inputs)
    found = found if isinstance(found, tuple) else (found,)
    stored = [example[name] for name in sorted(example) if name.startswith("output")]
    difference = max(float((a - b).abs().max()) for a, b in zip(found, stored, strict=True))
    scale = max(1.0, *(float(tensor.abs().max()) for tensor in stored))
    print(f"largest difference {difference:.3g}")
    return 0 if difference <= 1e-4 * scale else 1


if __name__ == "__main__":
    sys.exit(main())
'''
"""The script in the folder. Everything that differs between networks stands in `config.json`."""


def source_module(graph: ComputationalGraph, state: Mapping[str, Tensor]) -> nn.Module:
    """The class of the written source with the weights of a graph, in inference mode.

    The source is run here. It follows from a checked graph, whose settings are numbers and known words.

    Raises:
        UnsupportedOpError: If an operator cannot be written in plain torch; the message names it.
    """
    names: dict[str, object] = {"__name__": "network_source"}
    exec(compile(graph_to_source(graph, name=CLASS_NAME), "model.py", "exec"), names)
    made = names[CLASS_NAME]
    assert isinstance(made, type)
    with torch.device("meta"):  # layers would draw their first weights from the global generator
        module = made()
    assert isinstance(module, nn.Module)
    module.load_state_dict(renamed(graph, state), strict=True, assign=True)
    return module.eval()


def renamed(graph: ComputationalGraph, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state by the names of the written source. Tensors share no memory."""
    names = source_parameters(graph)
    counted = _counters(graph, names)
    found = {names[name]: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    return {**found, **counted}


def _counters(graph: ComputationalGraph, names: Mapping[str, str]) -> dict[str, Tensor]:
    """What torch's batch norms count and graphs do not: the batches that their statistics were gathered from."""
    means = [f"n{index}.running_mean" for index, node in enumerate(graph.nodes) if node.op == "batch_norm"]
    layers = [names[mean].removesuffix("running_mean") for mean in means]
    return {f"{layer}num_batches_tracked": torch.tensor(0) for layer in layers}


def example_inputs(graph: ComputationalGraph, *, batch_size: int, seed: int = 0) -> list[Tensor]:
    """Inputs to try a network with: normal numbers, or integers that every look-up table it reads has rows for."""
    rng = torch.Generator().manual_seed(seed)
    inputs = []
    for index in graph.inputs:
        shape = (batch_size, *graph.shapes[index])
        if graph.dtypes[index] == "int":
            inputs.append(torch.randint(0, _rows(graph, index), shape, generator=rng))
        else:
            inputs.append(torch.randn(shape, generator=rng))
    return inputs


def _rows(graph: ComputationalGraph, source: int) -> int:
    rows = [
        graph.shapes[node.inputs[1]][0]
        if node.op == "apply_embedding"
        else int(str(node.attr("num_embeddings")))
        for node in graph.nodes
        if node.op in ("embedding", "apply_embedding") and node.inputs[0] == source
    ]
    return min(rows, default=2)


def run(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The outputs of a module, without gradients."""
    with torch.inference_mode():
        found = module(*inputs)
    return found if isinstance(found, tuple) else (found,)


def source_contents(entry: ZooEntry, *, readme: str) -> dict[str, bytes]:
    """The files of a folder with an entry as source, by name.

    model.py             the network as one class in plain torch
    model.safetensors    its weights
    load.py              how to load and try it
    config.json          shapes, classes and normalisation, for `load.py` and for readers
    example.safetensors  inputs, and the outputs of the entry for them
    requirements.txt     what it needs
    graph.json, card.json, README.md

    Equal entries give equal bytes.

    Raises:
        UnsupportedOpError: If an operator cannot be written in plain torch; the message names it.
    """
    graph, card = entry.graph, entry.card
    inputs = example_inputs(graph, batch_size=EXAMPLE_SIZE)
    example = {f"input{place:03}": tensor for place, tensor in enumerate(inputs)}
    for place, tensor in enumerate(run(entry.module(), inputs)):
        example[f"output{place:03}"] = tensor.contiguous().clone()
    metadata = {"format": "pt"}  # safetensors writes several facts in random order
    return {
        "model.py": graph_to_source(graph, name=CLASS_NAME).encode(),
        "model.safetensors": save(renamed(graph, entry.state), metadata=metadata),
        "load.py": LOADER.encode(),
        "config.json": config_text(graph, card).encode(),
        "example.safetensors": save(example, metadata=metadata),
        "requirements.txt": REQUIREMENTS.encode(),
        "graph.json": graph_to_json(graph).encode(),
        "card.json": card_to_json(card).encode(),
        "README.md": readme.encode(),
    }


def config_text(graph: ComputationalGraph, card: ModelCard) -> str:
    """What `load.py` and readers need to know, as JSON. No settings of the class, which takes none."""
    data = card.data
    shapes: list[Shape] = [graph.shapes[index] for index in graph.inputs]
    config = {
        "schema": SCHEMA,
        "name": card.name,
        "task": card.task,
        "architectures": [CLASS_NAME],
        "input_shapes": shapes,
        "output_shapes": [graph.shapes[index] for index in graph.outputs],
        "class_names": None if data is None else data.class_names,
        "normalisation": None if data is None else asdict(data.normalisation),
        "fingerprint": graph.fingerprint,
        "num_parameters": card.num_parameters,
        "multiply_adds": card.multiply_adds,
    }
    return json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n"


__all__ = ["CLASS_NAME", "example_inputs", "renamed", "run", "source_contents", "source_module"]
