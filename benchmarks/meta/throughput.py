"""Parameter graphs per second and training steps per second beside the authors' code of graph metanetworks and of neural graphs.

    git clone https://github.com/cptq/graph_metanetworks /tmp/gmn && git -C /tmp/gmn checkout 295da2d
    git clone https://github.com/mkofinas/neural-graphs /tmp/ng && git -C /tmp/ng checkout 1f2b671
    pip install --no-deps --target /tmp/site hydra-core omegaconf antlr4-python3-runtime==4.9.3 random-fourier-features-pytorch \
        opt_einsum einops
    python -m benchmarks.meta.throughput --graph-metanetworks /tmp/gmn --neural-graphs /tmp/ng --site /tmp/site

All three read the same networks in the same process, in turns, at one thread; times are CPU seconds, medians over turns. Width 32 and four
rounds for all; ours is measured with edge states of 32 too, and with its usual 16. A training step of ours includes making the graphs from
the stacked parameters, as one of neural graphs does; graph metanetworks gets its graphs ready made and only joins them. Their code is run as
it is; the two names that newer versions of PyTorch Geometric moved (`torch_scatter.scatter` and `trim_to_layer`) are pointed to where
they are today. Writes `benchmarks/results/meta_throughput.json`.
"""

import argparse
import importlib
import os
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.common import save
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.graph import collate, graph_layout, parameter_graph, stack_parameter_graphs
from nasgraph.meta.networks import Metanetwork, MetanetworkConfig
from nasgraph.modules import trace

WIDTH, ROUNDS = 32, 4
Run = Callable[[], object]


@dataclass(frozen=True)
class Networks:
    """The same networks in the forms that the three read.

    Attributes:
        modules: Ordinary torch modules.
        graph: Their architecture.
        states: Their parameters.
        stacked: The same, stacked.
        layout: Units of each layer.
        weights: For each layer `[networks, in, out, kernel]`.
        biases: For each layer `[networks, out, 1]`.
        targets: What to predict.
    """

    modules: list[nn.Sequential]
    graph: ComputationalGraph
    states: list[dict[str, Tensor]]
    stacked: dict[str, Tensor]
    layout: list[int]
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    targets: Tensor


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--graph-metanetworks", type=Path, required=True)
    parser.add_argument("--neural-graphs", type=Path, required=True)
    parser.add_argument("--site", type=Path, help="Folder with what neural graphs needs")
    parser.add_argument("--networks", type=int, default=32, help="Networks of a training step")
    parser.add_argument("--graphs", type=int, default=64, help="Networks whose graphs are made at once")
    parser.add_argument("--graph-turns", type=int, default=15)
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    _find_others(arguments.graph_metanetworks, arguments.neural_graphs, arguments.site)
    compared = {
        name: Compared(_networks(make, shape, arguments.networks), _networks(make, shape, arguments.graphs))
        for name, make, shape in (("mlp", _mlp, (64,)), ("cnn", _cnn, (1, 14, 14)))
    }
    for each in compared.values():
        for _ in range(arguments.graph_turns + 1):
            each.turn("graphs")
        each.drop_first("graphs")
    for turn in range(arguments.turns + 1):
        for each in compared.values():
            each.turn("steps")
        if not turn:
            for each in compared.values():
                each.drop_first("steps")
        else:
            facts = {
                **{"networks_of_a_step": arguments.networks, "turns": turn},
                **{"graphs_at_once": arguments.graphs, "graph_turns": arguments.graph_turns},
                **{"threads": 1, "load": os.getloadavg()},
            }
            save("meta_throughput", {**facts, **{name: each.result() for name, each in compared.items()}})
            sys.stderr.write(f"{turn} of {arguments.turns} turns\n")


def _find_others(metanetworks: Path, neural_graphs: Path, site: Path | None) -> None:
    """Make the authors' packages importable."""
    from torch_geometric.utils import _trim_to_layer, scatter

    stand_in = types.ModuleType("torch_scatter")
    stand_in.__dict__.update(
        scatter=scatter, scatter_add=scatter, scatter_max=scatter
    )  # the last two: not run
    sys.modules["torch_scatter"] = stand_in
    sys.modules["torch_geometric.utils.trim_to_layer"] = _trim_to_layer
    sys.modules["rff.dataloader"] = types.ModuleType("rff.dataloader")  # wants torchvision; not used here
    sys.path[:0] = [str(path) for path in (metanetworks, neural_graphs, site) if path is not None]


# ---- the networks


def _mlp() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()), nn.Linear(32, 10))


def _cnn() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()),
        nn.Linear(32, 10),
    )


def _networks(make: Callable[[], nn.Sequential], shape: tuple[int, ...], count: int) -> Networks:
    with torch.random.fork_rng(devices=[]):  # torch's layers draw from the global generator
        torch.manual_seed(0)
        modules = [make() for _ in range(count)]
    first = trace(modules[0], torch.zeros(2, *shape))
    states = [
        {name: tensor.detach().clone() for name, tensor in first.from_module(module).items()}
        for module in modules
    ]
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    layers = [[layer for layer in module if isinstance(layer, nn.Linear | nn.Conv2d)] for module in modules]
    depth = len(layers[0])
    weights = [torch.stack([_kernels(own[place]) for own in layers]) for place in range(depth)]
    size = max(weight.shape[-1] for weight in weights)
    padded = tuple(F.pad(weight, ((size - weight.shape[-1]) // 2,) * 2) for weight in weights)
    biases = tuple(torch.stack([_bias(own[place]) for own in layers]) for place in range(depth))
    return Networks(
        modules=modules,
        graph=first.graph,
        states=states,
        stacked=stacked,
        layout=[weights[0].shape[1], *(weight.shape[2] for weight in weights)],
        weights=padded,
        biases=biases,
        targets=torch.rand(count, 1, generator=torch.Generator().manual_seed(0)),
    )


def _kernels(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """The weight as `[in, out, kernel]`."""
    return layer.weight.detach().reshape(*layer.weight.shape[:2], -1).transpose(0, 1).contiguous()


def _bias(layer: nn.Linear | nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias.detach().unsqueeze(1)


# ---- the three


def _graphs_of_theirs(networks: Networks) -> tuple[Run, list[object]]:
    from torch_geometric.data import Batch, Data

    construct = importlib.import_module("gmn.graph_construct.model_arch_graph")

    def one(module: nn.Module) -> object:
        x, edge_index, edge_attr = construct.arch_to_graph(construct.sequential_to_arch(module))
        return Data(x=x.float(), edge_index=edge_index, edge_attr=edge_attr.detach())

    def run() -> object:
        return Batch.from_data_list([one(module) for module in networks.modules])

    return run, [one(module) for module in networks.modules]


def _graph_metanetworks(networks: Networks) -> tuple[Run, Run, nn.Module]:
    from torch_geometric.data import Batch

    construct, ready = _graphs_of_theirs(networks)
    extractor = importlib.import_module("gmn.feature_extractor_gmn")
    network: nn.Module = extractor.GraphPredGen("empnn_dit", WIDTH, num_gnn_layers=ROUNDS, out_dim=1)

    def forward() -> Tensor:
        batch = Batch.from_data_list(ready)
        share: Tensor = network(batch.x, batch.edge_index, batch.edge_attr, batch.batch)
        return torch.logit(share.clamp(1e-6, 1 - 1e-6))

    return construct, _step(network, forward, networks.targets), network


def _neural_graphs(networks: Networks) -> tuple[Run, Run, nn.Module]:
    constructor = importlib.import_module("nn.graph_constructor")
    gnn = importlib.import_module("nn.gnn")
    inputs = (networks.weights, networks.biases)
    size = networks.weights[0].shape[-1]
    network: nn.Module = gnn.GNNForClassification(
        d_hid=WIDTH,
        d_out=1,
        graph_constructor={
            **{"_target_": "nn.graph_constructor.GraphConstructor", "_recursive_": False, "_convert_": "all"},
            **{"d_in": 1, "d_edge_in": size, "sin_emb": True, "sin_emb_dim": 128, "inp_factor": 3},
        },
        gnn_backbone={
            **{"_target_": "nn.gnn.PNA", "_convert_": "all", "deg": None, "edge_dim": WIDTH, "dropout": 0.0},
            **{"in_channels": WIDTH, "hidden_channels": WIDTH, "out_channels": WIDTH, "num_layers": ROUNDS},
            **{"aggregators": ["mean", "min", "max", "std"], "scalers": ["identity", "amplification"]},
            **{"norm": "layernorm", "act": "silu", "update_edge_attr": True, "modulate_edges": True},
            **{"gating_edges": False, "final_edge_update": False},
        },
        layer_layout=networks.layout,
        rev_edge_features=False,
        pooling_method="cat",
        pooling_layer_idx="last",
    )

    def construct() -> object:
        nodes, edges = constructor.batch_to_graphs(*inputs)
        return gnn.to_pyg_batch(nodes, edges, network.edge_index)

    return construct, _step(network, lambda: network(inputs), networks.targets), network


def _ours(networks: Networks, *, edge_dim: int) -> tuple[Run, Run, nn.Module]:
    config = MetanetworkConfig(layers=ROUNDS, node_dim=WIDTH, edge_dim=edge_dim, graph_dim=WIDTH)
    network = Metanetwork(config)

    def construct() -> object:
        return stack_parameter_graphs(networks.graph, networks.stacked)

    def forward() -> Tensor:
        return network.raw(stack_parameter_graphs(networks.graph, networks.stacked))

    return construct, _step(network, forward, networks.targets), network


def _step(network: nn.Module, forward: Callable[[], Tensor], targets: Tensor) -> Run:
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def run() -> object:
        optimiser.zero_grad()
        loss = F.binary_cross_entropy_with_logits(forward(), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return loss

    return run


# ---- measuring


class Compared:
    """Everything that is measured on one set of networks, and the seconds so far."""

    def __init__(self, networks: Networks, more: Networks) -> None:
        self.more = more
        makers: Mapping[str, tuple[Run, Run, nn.Module]] = {
            "graph_metanetworks": _graph_metanetworks(networks),
            "neural_graphs": _neural_graphs(networks),
            "nasgraph": _ours(networks, edge_dim=WIDTH),
            "nasgraph_thin_edges": _ours(networks, edge_dim=16),
        }
        self.parameters = {
            name: sum(p.numel() for p in network.parameters()) for name, (_, _, network) in makers.items()
        }
        self.runs: dict[str, dict[str, Run]] = {
            "graphs": {
                "graph_metanetworks": _graphs_of_theirs(more)[0],
                "neural_graphs": _neural_graphs(more)[0],
                "nasgraph": _ours(more, edge_dim=16)[0],
                "nasgraph_one_by_one": self._one_by_one,
            },
            "steps": {name: step for name, (_, step, _) in makers.items()},
        }
        self.seconds: dict[str, dict[str, list[float]]] = {
            what: {name: [] for name in runs} for what, runs in self.runs.items()
        }

    def _one_by_one(self) -> object:
        return collate([parameter_graph(self.more.graph, state) for state in self.more.states])

    def turn(self, what: str) -> None:
        """Run everything once."""
        for name, run in self.runs[what].items():
            started = process_time()
            run()
            self.seconds[what][name].append(process_time() - started)

    def drop_first(self, what: str) -> None:
        """Forget the turn that was to warm up."""
        for each in self.seconds[what].values():
            each.pop(0)

    def result(self) -> dict[str, object]:
        """Medians over the turns."""
        middle = {
            what: {name: median(each) for name, each in runs.items()} for what, runs in self.seconds.items()
        }
        count = len(self.more.modules)
        layout = graph_layout(self.more.graph)
        return {
            "nodes": layout.num_nodes,
            "edges": layout.num_edges,
            "parameters_of_metanetworks": self.parameters,
            "graphs_per_second": _rounded({name: count / each for name, each in middle["graphs"].items()}),
            "steps_per_second": _rounded({name: 1 / each for name, each in middle["steps"].items()}),
            **{
                f"{what}_times_as_fast_as": _rounded(
                    {name: each / runs["nasgraph"] for name, each in runs.items() if name != "nasgraph"}
                )
                for what, runs in middle.items()
            },
            "seconds": {
                what: {name: [round(second, 5) for second in each] for name, each in runs.items()}
                for what, runs in self.seconds.items()
            },
        }


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}


if __name__ == "__main__":
    main()
