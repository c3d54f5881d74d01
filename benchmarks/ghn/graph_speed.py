"""CPU seconds from a module to its graph with all distances, beside ghn3's graph. One thread, warm, interleaved.

    python -m benchmarks.ghn.graph_speed [--peers FOLDER] [--repeats 7] [--only NAME ...]

`FOLDER` holds checkouts of `ghn3` and `ppuda` (see `ghn3_peer.py`); without it only ours is measured, and the anchors printed are
those of shared/reference/ghn.md, not measured in this run. Ours is `trace` on the meta device and `signed_distances`; theirs is
`Graph(module, ve_cutoff=50, dense=True)`, which runs the forward pass on a real image of 224 x 224. The networks are those of
`torch_networks.py`; their numbers of parameters are checked against the published ones. Extra memory is what the largest resident
set of a process of its own grows by during our call, after a small network was traced.

For ResNet-18, ResNet-50 and DenseNet-201 the graphs are compared too: ours with the nodes contracted to ghn3's primitives
(convolution, norm, sum, concatenation, pools; `linear` counts as a convolution, its bias as a node, everything else is passed
through), by nodes, edges, and pairs at a distance of 2 to 50.
"""

import argparse
import resource
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.common import save
from benchmarks.ghn import torch_networks
from benchmarks.ghn.ghn3_peer import load_ghn3
from nasgraph.encode import signed_distances
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import trace
from nasgraph.modules.trace import ExampleInputs

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (torch_networks.resnet18, 11_689_512),
    "resnet50": (torch_networks.resnet50, 25_557_032),
    "densenet201": (torch_networks.densenet201, 20_013_928),
    "vit_b16": (torch_networks.vit_b16, 86_567_656),
    "efficientnet_v2_l": (torch_networks.efficientnet_v2_l, 118_515_272),
    "gpt2_small": (torch_networks.gpt2_small, 124_439_808),
}
ANCHORS = {
    "resnet18": 0.156,
    "resnet50": 0.41,
    "densenet201": 1.36,
    "vit_b16": 1.15,
    "efficientnet_v2_l": 3.4,
    "gpt2_small": 0.23,
}
"""CPU seconds of ghn3 on this kind of machine, from shared/reference/ghn.md."""
PUBLISHED = {"resnet18": (53, 60), "resnet50": (127, 142), "densenet201": (507, 2309)}
"""Nodes and edges of ghn3's graphs."""
PRIMITIVES = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear"), "conv"), "batch_norm": "bn", "layer_norm": "ln", "add": "sum",
    "concat": "concat", "max_pool2d": "max_pool", "avg_pool2d": "avg_pool", "global_avg_pool2d": "glob_avg", "input": "input",
}  # fmt: skip
CUTOFF = 50


def contracted(graph: ComputationalGraph) -> tuple[list[str], set[tuple[int, int]]]:
    """The graph in ghn3's primitives: names of its nodes, and its edges."""
    names: list[str] = []
    edges: set[tuple[int, int]] = set()
    seen_as: list[tuple[int, ...]] = []  # the new nodes that a node's value comes from
    for node in graph.nodes:
        sources = tuple(dict.fromkeys(new for source in node.inputs for new in seen_as[source]))
        primitive = PRIMITIVES.get(node.op)
        if primitive is None:
            seen_as.append(sources)
            continue
        has_bias = node.op != "layer_norm" and "bias" in dict(node.attrs) and node.attr("bias")
        for name in (primitive, "bias") if has_bias else (primitive,):
            names.append(name)
            edges.update((source, len(names) - 1) for source in sources)
            sources = (len(names) - 1,)
        seen_as.append(sources)
    return names, edges


def virtual_edges(num_nodes: int, edges: set[tuple[int, int]]) -> int:
    """Pairs of nodes at a distance of 2 to the cutoff, by a breadth-first search from every node."""
    following: list[list[int]] = [[] for _ in range(num_nodes)]
    for source, target in edges:
        following[source].append(target)
    found = 0
    for start in range(num_nodes):
        distance, queue = {start: 0}, deque([start])
        while queue:
            node = queue.popleft()
            if distance[node] == CUTOFF:
                continue
            for target in following[node]:
                if target not in distance:
                    distance[target] = distance[node] + 1
                    queue.append(target)
        found += sum(value > 1 for value in distance.values())
    return found


def example(name: str) -> ExampleInputs:
    if name == "gpt2_small":
        return {"input_ids": torch.arange(12).reshape(2, 6)}
    return torch.zeros(2, 3, 224, 224)


def ours(module: nn.Module, inputs: ExampleInputs) -> ComputationalGraph:
    """From a module to its graph and all distances."""
    graph = trace(module, inputs).graph
    signed_distances(graph)
    return graph


def seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 5), "min": round(min(values), 5), "max": round(max(values), 5)}


def extra_memory(name: str) -> float:
    """MiB by which the largest resident set grows, to be asked of a fresh process."""
    torch.set_num_threads(1)
    module, inputs = NETWORKS[name][0]().eval(), example(name)
    ours(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), torch.zeros(2, 3, 8, 8))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours(module, inputs)
    return round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, 1)


def in_a_fresh_process(function: Callable[[str], float], name: str) -> float:
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, name).result()


def measure(
    name: str, peer: Callable[[nn.Module], object] | None, repeats: int, *, extra_mib: float
) -> dict[str, object]:
    """One network: seconds of both, interleaved, memory of ours, and counts of the contracted graphs."""
    make, num_parameters = NETWORKS[name]
    module = make().eval()
    assert sum(parameter.numel() for parameter in module.parameters()) == num_parameters
    inputs = example(name)
    graph = ours(module, inputs)
    row: dict[str, object] = {
        "parameters": num_parameters,
        "nodes": len(graph),
        "opaque": sum(node.op == "opaque" for node in graph.nodes),
        "extra_mib": extra_mib,
    }
    if name in PUBLISHED:
        names, edges = contracted(graph)
        row["contracted"] = [len(names), len(edges), virtual_edges(len(names), edges)]
        row["primitives"] = dict(Counter(names))
        row["published"] = PUBLISHED[name]
    if isinstance(inputs, dict):
        setattr(module, "get_var", lambda: module(**inputs))  # noqa: B010  how ghn3 is told of inputs that are no image
    theirs = _counts(peer, module) if peer is not None else None
    if isinstance(theirs, str):
        row["peer_fails"] = theirs
        peer = None
    elif theirs is not None:
        row["peer_counts"] = theirs
    own_seconds, peer_seconds = [], []
    for _ in range(repeats):
        own_seconds.append(seconds(lambda: ours(module, inputs)))
        if peer is not None:
            peer_seconds.append(seconds(lambda: peer(module)))
    row["seconds"] = spread(own_seconds)
    row["anchor_seconds_not_measured_here"] = ANCHORS[name]
    if peer_seconds:
        row["peer_seconds"] = spread(peer_seconds)
        row["times_faster"] = round(median(peer_seconds) / median(own_seconds), 1)
    return row


def _counts(peer: Callable[[nn.Module], object], module: nn.Module) -> list[int] | str:
    """Nodes, edges and virtual edges of the peer's graph, or why it has none."""
    try:
        graph = peer(module)
    except Exception as error:  # noqa: BLE001  the peer's failure is a result
        return f"{type(error).__name__}: {error}"
    adjacency: Tensor = graph._Adj  # type: ignore[attr-defined]  # a peer's attribute
    return [len(adjacency), int((adjacency == 1).sum()), int((adjacency > 1).sum())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, help="folder with checkouts of ghn3 and ppuda")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS), help="nothing is written then")
    choice = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    names = choice.only or list(NETWORKS)
    memory = {name: in_a_fresh_process(extra_memory, name) for name in names}
    if "gpt2_small" in names:
        torch_networks.gpt2_small()  # imports transformers before there are stand-ins, which it would look at
    graph_class = None if choice.peers is None else load_ghn3(choice.peers)

    def peer(module: nn.Module) -> object:
        assert graph_class is not None
        return graph_class(module, ve_cutoff=CUTOFF, dense=True)

    rows = {}
    for name in names:
        rows[name] = measure(
            name, None if graph_class is None else peer, choice.repeats, extra_mib=memory[name]
        )
        print(name, rows[name], flush=True)
    if not choice.only:
        save("graph_speed", {"repeats": choice.repeats, "networks": rows})


if __name__ == "__main__":
    main()
