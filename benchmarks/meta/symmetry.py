"""Symmetries: how exactly networks stay the same under permuted and rescaled units, and how much they change if one axis is left out.

    python -m benchmarks.meta.symmetry [--only NAME ...] [--seeds 5] [--rows FILE]

All traced models of `benchmarks.meta.models` (with those of `transformers`, where it is installed) and two architectures of every search
space. Errors are relative to the largest deviation of the outputs from their mean. Rows are kept in a file as they come; a second run
goes on where the first stopped. The result is `benchmarks/results/meta_symmetry.json`.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import save
from benchmarks.meta.models import TracedModel, traced_models
from nasgraph.edits import permute, removable, rescale
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.modules import initial_buffers, initial_parameters, run_network
from nasgraph.seeding import derive_seed, generator
from nasgraph.spaces import load_space, sample
from nasgraph.symmetry import UnitGroup, symmetry_table

SPACES = (
    *("anynet", "autoformer", "convnet", "darts", "efficientnet", "gnn", "gpt", "grammar", "handmade"),
    *("mlp", "mobilenetv3", "nasbench-graph", "nasbench201", "nasnet", "regnet", "vit"),
)
INPUT_SHAPES = {"gpt": (8,), "gnn": (6,), "nasbench-graph": (6,)}
PER_SPACE = 2
Networks = Mapping[str, Callable[[], TracedModel]]


def networks() -> dict[str, Callable[[], TracedModel]]:
    """All networks by name, made when asked for."""
    traced = traced_models(transformers=find_spec("transformers") is not None)
    made: dict[str, Callable[[], TracedModel]] = {
        f"traced/{name}": lambda name=name: traced[name]
        for name in traced  # type: ignore[misc]  # bound
    }
    for space in SPACES:
        for index in range(PER_SPACE):
            made[f"space/{space}/{index}"] = lambda space=space, index=index: _sampled(space, index)  # type: ignore[misc]  # bound
    return made


def _sampled(space: str, index: int) -> TracedModel:
    built = load_space(space, input_shape=INPUT_SHAPES.get(space, (3, 8, 8)), num_classes=5)
    graph = sample(built, generator(index, "symmetry", space)).graph
    rng = torch.Generator().manual_seed(derive_seed(index, "symmetry", space))
    state = {}
    for name, tensor in initial_parameters(graph, seed=index).items():
        state[name] = tensor + 0.1 * torch.randn(tensor.shape, generator=rng)
    for name, tensor in initial_buffers(graph).items():
        noise = torch.rand(tensor.shape, generator=rng)
        state[name] = 0.5 + noise if name.endswith("var") else noise - 0.5
    return TracedModel(graph, state, tuple(_inputs(graph, rng)))


def _inputs(graph: ComputationalGraph, rng: torch.Generator) -> Iterator[Tensor]:
    for node in graph.inputs:
        shape = (3, *graph.shapes[node])
        is_integer = graph.dtypes[node] == "int"
        yield torch.randint(5, shape, generator=rng) if is_integer else torch.randn(shape, generator=rng)


def _outputs(model: TracedModel, state: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    ring = torch.arange(len(model.inputs[0]))
    edges = torch.stack([ring, ring.roll(1)]) if model.graph.reads_edges else None
    with torch.no_grad():
        return run_network(model.graph, state, model.inputs, edges=edges)


def _difference(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> float:
    return max(
        float((a - b).abs().max()) / (float((a - a.mean()).abs().max()) or 1.0)
        for a, b in zip(first, second, strict=True)
    )


def _one_axis_only(model: TracedModel, group: UnitGroup) -> dict[str, Tensor]:
    """The state with the units of a group moved on by one place on its first axis, and nowhere else."""
    first, result = group.members[0], dict(model.state)
    for member in group.members:
        if (member.parameter, member.axis) == (first.parameter, first.axis):
            tensor, rows = result[first.parameter], member.places()
            places = torch.arange(tensor.shape[first.axis])
            places[rows.flatten()] = rows.roll(1, dims=0).flatten()
            result[first.parameter] = tensor.index_select(first.axis, places)
    return result


def measured(name: str, make: Callable[[], TracedModel], *, seeds: int) -> dict[str, object]:
    """One row of the table."""
    single = make()
    symmetry_table.cache_clear()
    start = time.process_time()
    table = symmetry_table(single.graph)
    seconds = time.process_time() - start
    row: dict[str, object] = {
        "network": name,
        "parameters": cost_of(single.graph).num_parameters,
        "nodes": len(single.graph),
        "groups": len(table.groups),
        "units": sum(group.size for group in table.groups),
        "scaling": dict(sorted(Counter(group.scaling for group in table.groups).items())),
        "removable": len(removable(single.graph)),
        "table_cpu_s": seconds,
    }
    for precision, model in (("single", single), ("double", single.double())):
        before = _outputs(model, model.state)
        permuted, rescaled = [], []
        for seed in range(seeds):
            state = permute(model.graph, model.state, seed=seed).state
            permuted.append(_difference(before, _outputs(model, state)))
            rescaled.append(
                _difference(before, _outputs(model, rescale(model.graph, state, seed=seed).state))
            )
        row[f"permuted_{precision}"], row[f"rescaled_{precision}"] = max(permuted), max(rescaled)
    invalid = [
        _difference(before, _outputs(model, _one_axis_only(model, group)))
        for group in table.groups
        if len({(member.parameter, member.axis) for member in group.members}) > 1
    ]
    row["least_change_if_invalid"] = min(invalid, default=None)
    row["median_change_if_invalid"] = sorted(invalid)[len(invalid) // 2] if invalid else None
    return row


def main() -> None:
    """Measure what is missing, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=Path, default=Path("/tmp/nasgraph-meta-symmetry.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    if options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    for name, make in networks().items():
        if any(row["network"] == name for row in rows) or (options.only and name not in options.only):
            continue
        row = measured(name, make, seeds=options.seeds)
        with options.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        rows.append(row)
        print(name, *(f"{key} {value}" for key, value in row.items() if key != "network"), sep="  ")
    print(save("meta_symmetry", {"seeds": options.seeds, "load": _LOAD, "rows": rows}))


_LOAD = "one thread, low priority, beside other jobs; times are processor time"

if __name__ == "__main__":
    main()
