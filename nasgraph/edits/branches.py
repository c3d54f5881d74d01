"""One layer becomes several branches, with the function as it is (path-level transformation: Cai et al. 2018)."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from nasgraph.edits.edited import Edited, EditError
from nasgraph.edits.rewrite import Replace, Writer, check_node, reads_data, replace_node
from nasgraph.ir import OPS, ComputationalGraph, Node
from nasgraph.modules.state import State, check_state
from nasgraph.seeding import derive_seed

_LINEAR = ("linear", "conv1d", "conv2d", "conv3d")
_CHANNEL_WISE = ("batch_norm",)
_POOLS = (
    *("max_pool2d", "avg_pool2d", "max_pool3d", "avg_pool3d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
    "global_avg_pool2d",
)


def replicate_add(
    graph: ComputationalGraph,
    state: State,
    node: int,
    *,
    branches: int = 2,
    spread: float = 0.0,
    seed: int = 0,
) -> Edited:
    """Replace a layer by the mean of copies of it (Cai et al., "Path-Level Network Transformation for Efficient Architecture
    Search", 2018, section 3.1, replication and add).

    Copies that are equal stay equal for ever. For linear maps and convolutions `spread` sets them apart exactly: what is added to
    one copy is subtracted from another.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        node: The layer: any node with one or more inputs and real numbers as its value.
        branches: Copies, at least two.
        spread: Standard deviation of the difference, as a share of the weight's own; only for linear maps and convolutions.
        seed: Decides the difference.

    Raises:
        EditError: If the node is no layer, or `branches` is below two.
        StateError: If the state does not belong to the graph.
    """
    check_state(graph, state)
    old = _layer(graph, node, branches)

    def write(writer: Writer, inputs: tuple[int, ...], tensors: Mapping[str, Tensor]) -> int:
        each = _apart(tensors, branches, spread if old.op in _LINEAR else 0.0, derive_seed(seed, "branches"))
        copies = [writer(old.op, *inputs, tensors=own, source=node, **dict(old.attrs)) for own in each]
        return writer("affine", writer("add", *copies), scale=1 / branches)

    note = f"replace n{node} ({old.op}) by the mean of {branches} copies"
    return replace_node(graph, state, node, write, note=note, seed=seed)


def split_concat(
    graph: ComputationalGraph, state: State, node: int, *, branches: int = 2, seed: int = 0
) -> Edited:
    """Replace a layer by branches that each make a part of its output, side by side (Cai et al. 2018, section 3.1, split and
    concatenation).

    Linear maps and convolutions are cut along what they give, and every branch reads everything. Batch norms, pools, depthwise
    convolutions and what works on each number alone are cut along their channels, and each branch reads its own.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        node: The layer.
        branches: How many, at least two and at most as many as the layer has output channels. Their sizes differ by one at most.
        seed: Without effect; every edit has one.

    Raises:
        EditError: If the node cannot be cut.
        StateError: If the state does not belong to the graph.
    """
    check_state(graph, state)
    old = _layer(graph, node, branches)
    axis = len(graph.shapes[node]) - 1 if old.op == "linear" else 0
    size = graph.shapes[node][axis]
    if size < branches:
        raise EditError(f"Node {node} ({old.op}) has {size} channels, too few for {branches} branches")
    cuts = [round(i * size / branches) for i in range(branches + 1)]
    parts = list(pairwise(cuts))
    note = f"cut n{node} ({old.op}) into {branches} branches"
    groups = dict(old.attrs).get("groups", 1)
    if old.op in _LINEAR and groups == 1:
        write = _cut_outputs(node, old.op, dict(old.attrs), parts, axis)
    elif _is_channel_wise(graph, node):
        write = _cut_channels(node, old.op, dict(old.attrs), parts)
    else:
        raise EditError(
            f"Node {node} ({old.op}) cannot be cut into branches: its channels depend on each other"
        )
    return replace_node(graph, state, node, write, note=note, seed=seed)


def can_split(graph: ComputationalGraph, node: int) -> bool:
    """Whether `split_concat` can cut a node into two."""
    old = graph.nodes[node]
    if not _is_layer(graph, node):
        return False
    axis = len(graph.shapes[node]) - 1 if old.op == "linear" else 0
    is_linear = old.op in _LINEAR and dict(old.attrs).get("groups", 1) == 1
    return graph.shapes[node][axis] >= 2 and (is_linear or _is_channel_wise(graph, node))


def _is_layer(graph: ComputationalGraph, node: int) -> bool:
    op = graph.nodes[node].op
    return (
        bool(graph.nodes[node].inputs)
        and op not in ("opaque", "add", "concat", "affine")
        and graph.dtypes[node] == "float"
        and reads_data(graph)[node]
    )


def _layer(graph: ComputationalGraph, node: int, branches: int) -> Node:
    check_node(graph, node)
    if branches < 2:
        raise EditError(f"Expected at least 2 branches (got {branches})")
    if not _is_layer(graph, node):
        raise EditError(
            f"Node {node} ({graph.nodes[node].op}) is no layer that could be replaced by branches"
        )
    return graph.nodes[node]


def _is_channel_wise(graph: ComputationalGraph, node: int) -> bool:
    """Whether each channel of what a node gives follows from the same channel of its only input."""
    old, shape = graph.nodes[node], graph.shapes[node]
    if len(old.inputs) != 1:
        return False
    before = graph.shapes[old.inputs[0]]
    if old.op in _CHANNEL_WISE or old.op in _POOLS:
        return True
    if old.op in _LINEAR:
        return old.op != "linear" and dict(old.attrs)["groups"] == before[0] == shape[0]
    is_elementwise = before == shape and not OPS[old.op].attrs.keys() & {"axis", "axes", "shape", "order"}
    return is_elementwise and old.op in _ELEMENTWISE


_ELEMENTWISE = (
    *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish", "tanh"),
    *("hardsigmoid", "sigmoid", "log_sigmoid", "softsign", "softplus", "square", "abs", "identity"),
)


def _cut_outputs(
    node: int, op: str, attrs: Mapping[str, object], parts: list[tuple[int, int]], axis: int
) -> Replace:
    name = "out_features" if op == "linear" else "out_channels"

    def write(writer: Writer, inputs: tuple[int, ...], tensors: Mapping[str, Tensor]) -> int:
        pieces = [
            writer(
                op,
                *inputs,
                tensors={short: tensor[start:stop] for short, tensor in tensors.items()},
                source=node,
                **{**attrs, name: stop - start},
            )
            for start, stop in parts
        ]
        return writer("concat", *pieces, axis=axis)

    return write


def _cut_channels(node: int, op: str, attrs: Mapping[str, object], parts: list[tuple[int, int]]) -> Replace:
    def write(writer: Writer, inputs: tuple[int, ...], tensors: Mapping[str, Tensor]) -> int:
        pieces = []
        for start, stop in parts:
            own = dict(attrs)
            if "groups" in own and op in _LINEAR:
                own |= {"groups": stop - start, "out_channels": stop - start}
            x = writer("slice", inputs[0], axis=0, start=start, stop=stop)
            cut = {short: tensor[start:stop] for short, tensor in tensors.items()}
            pieces.append(writer(op, x, tensors=cut, source=node, **own))
        return writer("concat", *pieces, axis=0)

    return write


def _apart(tensors: Mapping[str, Tensor], branches: int, spread: float, seed: int) -> list[dict[str, Tensor]]:
    """Copies of tensors whose mean is the original."""
    copies: list[dict[str, Tensor]] = [{} for _ in range(branches)]
    for name, tensor in tensors.items():
        if not spread:
            for copy in copies:
                copy[name] = tensor
            continue
        rng = torch.Generator().manual_seed(derive_seed(seed, name))
        draws = torch.randn((branches, *tensor.shape), generator=rng, dtype=torch.float64)
        draws = (draws - draws.mean(dim=0)).to(tensor) * spread * tensor.detach().std(correction=0)
        for copy, draw in zip(copies, draws, strict=True):
            copy[name] = tensor + draw
    return copies
