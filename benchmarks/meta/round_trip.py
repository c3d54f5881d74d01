"""Parameters to parameter graph and back, bit by bit: traced models, all networks of the shipped zoo that can be written as graphs,
search spaces, and ResNet-18.

    python -m benchmarks.meta.round_trip

Writes `benchmarks/results/meta_round_trip.json`. Times are CPU seconds of one thread: of the layout, which is made once for an architecture,
and of one graph and of one way back when the layout is known.
"""

from collections.abc import Callable, Iterator, Mapping
from time import process_time
from typing import TypeVar

import torch
from torch import Tensor, nn

from benchmarks.common import save
from benchmarks.meta.models import traced_models
from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.graph import ParameterGraph, graph_layout, layer_graph, parameter_graph
from nasgraph.meta.population import load_sample_population
from nasgraph.modelzoo.builtin import BuiltinEntry, builtin_entries
from nasgraph.modules import initial_buffers, initial_parameters, trace
from nasgraph.predict.curves.checkpoint import load_curve_network
from nasgraph.predict.curves.network import CurveNetwork
from nasgraph.predict.prior_fitted.checkpoint import load_prior_fitted
from nasgraph.seeding import generator
from nasgraph.spaces import load_space, sample

T = TypeVar("T")
Network = tuple[str, ComputationalGraph, dict[str, Tensor]]
SPACES = ("convnet", "mlp", "vit", "darts", "nasbench201", "regnet", "efficientnet", "gpt", "gnn")
SHAPES: Mapping[str, tuple[int, ...]] = {"gpt": (8,), "gnn": (6,)}


class _Plain(nn.Module):
    """A network that gives a tuple of tensors, not a record of them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = self.module(*inputs)
        return (given,) if isinstance(given, Tensor) else tuple(vars(given).values())


class _Curves(nn.Module):
    """The network for learning curves behind the features of points and queries, which it makes without parameters (with a running
    maximum, which is no operator of the graph language)."""

    def __init__(self, network: CurveNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, points_BLF: Tensor, queries_BLQF: Tensor) -> Tensor:
        x_BLD = self.network.embed(points_BLF)
        for block in self.network.blocks:
            x_BLD = block(x_BLD)
        state_BL1H = self.network.state_in(self.network.norm(x_BLD)).unsqueeze(2)
        bars: Tensor = self.network.out(self.network.head(state_BL1H + self.network.query_in(queries_BLQF)))
        return bars


def main() -> None:
    """Check everything and write the results."""
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for source, networks in (("traced", _traced()), ("zoo", _zoo()), ("space", _sampled())):
        for name, graph, state in networks:
            rows.append({"source": source, **_checked(name, graph, state)})
            print(rows[-1], flush=True)
    left_out = [
        {
            "name": entry.name,
            "kind": entry.kind,
            "why": "reads architectures, not tensors: no graph of operators",
        }
        for entry in builtin_entries().values()
        if entry.kind in ("ghn", "architecture-encoder")
    ]
    equal = sum(bool(row["bit_equal"]) for row in rows)
    summary = {
        "networks": len(rows),
        "bit_equal": equal,
        "traced_models": sum(row["source"] == "traced" for row in rows),
        "zoo_networks": sum(row["source"] == "zoo" for row in rows),
    }
    print(summary)
    save("meta_round_trip", {"summary": summary, "rows": rows, "left_out": left_out})


def _traced() -> Iterator[Network]:
    models = traced_models()
    for name in models:
        yield name, models[name].graph, models[name].state


def _zoo() -> Iterator[Network]:
    for entry in builtin_entries().values():
        yield from _of_entry(entry)


def _of_entry(entry: BuiltinEntry) -> Iterator[Network]:
    rng = torch.Generator().manual_seed(0)
    if entry.kind == "population":
        population = load_sample_population()
        for number in range(len(population)):
            member = population.member(number)
            yield f"{entry.name}/{number}", member.graph, dict(member.state)
    elif entry.kind == "prior-fitted":
        network = load_prior_fitted(entry.path)
        columns = _columns(network)
        inputs = [torch.randn(2, *shape, generator=rng) for shape in ((5, columns), (5,), (3, columns))]
        yield _from_trace(entry.name, network, inputs)
    elif entry.kind == "curves":
        curves = load_curve_network(entry.path)
        features = [_columns(part) for part in (curves.embed, curves.query_in)]
        inputs = [
            torch.randn(2, 5, features[0], generator=rng),
            torch.randn(2, 5, 3, features[1], generator=rng),
        ]
        yield _from_trace(entry.name, _Curves(curves), inputs)


def _columns(network: nn.Module) -> int:
    return next(layer.in_features for layer in network.modules() if isinstance(layer, nn.Linear))


def _from_trace(name: str, module: nn.Module, inputs: list[Tensor]) -> Network:
    plain = _Plain(module).eval()
    traced = trace(plain, tuple(inputs))
    state = {**traced.from_module(plain), **traced.statistics, **traced.constants}
    return name, traced.graph, {own: tensor.detach().clone() for own, tensor in state.items()}


def _sampled() -> Iterator[Network]:
    for space in SPACES:
        built = load_space(space, input_shape=SHAPES.get(space, (3, 8, 8)), num_classes=5)
        graph = sample(built, generator(0, "round trip", space)).graph
        yield space, graph, {**initial_parameters(graph, seed=0), **initial_buffers(graph)}


def _checked(name: str, graph: ComputationalGraph, state: Mapping[str, Tensor]) -> dict[str, object]:
    graph_layout.cache_clear()
    try:
        _, layout_s = _timed(lambda: graph_layout(graph))
        made, graph_s = _timed(lambda: parameter_graph(graph, state))
        (back,), back_s = _timed(made.to_states)
        _, layers_s = _timed(lambda: layer_graph(graph, state))
    except NasGraphError as error:
        return {"name": name, "bit_equal": False, "error": str(error)}
    return {
        "name": name,
        "bit_equal": _same_bits(state, back),
        **_sizes(made, graph, state),
        "layout_seconds": round(layout_s, 4),
        "graph_seconds": round(graph_s, 5),
        "back_seconds": round(back_s, 5),
        "layer_graph_seconds": round(layers_s, 4),
    }


def _sizes(made: ParameterGraph, graph: ComputationalGraph, state: Mapping[str, Tensor]) -> dict[str, object]:
    return {
        "operators": len(graph),
        "numbers": sum(tensor.numel() for tensor in state.values()),
        "nodes": made.num_nodes,
        "edges": made.num_edges,
    }


def _same_bits(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and first[name].contiguous().numpy().tobytes() == second[name].contiguous().numpy().tobytes()
        for name in first
    )


def _timed(function: Callable[[], T]) -> tuple[T, float]:
    started = process_time()
    result = function()
    return result, process_time() - started


if __name__ == "__main__":
    main()
