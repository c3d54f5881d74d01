"""More layers, with the function as it is."""

from collections import Counter
from typing import Literal

import torch
from torch import Tensor

from nasgraph.edits.edited import Edited, EditError
from nasgraph.edits.rewrite import Writer, check_node, insert_after, reads_data
from nasgraph.ir import ComputationalGraph
from nasgraph.modules.state import State, check_state

Kind = Literal["auto", "identity", "residual"]
ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "leaky_relu", "elu", "hardswish", "relu6", "mish", "selu")
_NOT_NEGATIVE = ("relu", "relu6", "sigmoid", "hardsigmoid", "softplus", "softmax", "abs", "exp", "square")
_STAYS = (
    *("max_pool2d", "avg_pool2d", "max_pool3d", "avg_pool3d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
    *("global_avg_pool2d", "flatten", "reshape", "permute", "concat", "add", "mul", "maximum", "dropout"),
    *("mean", "reduce_mean", "reduce_sum", "reduce_max", "slice", "identity", "drop_path", "pixel_shuffle"),
)


def deepen(
    graph: ComputationalGraph,
    state: State,
    node: int,
    *,
    kind: Kind = "auto",
    norm: bool = False,
    seed: int = 0,
) -> Edited:
    """Put a layer behind a node that leaves the function as it is.

    - "identity" (Net2DeeperNet: Chen et al. 2016, section 2.3): a linear map or convolution that is the identity, and ReLU (ReLU6
      behind a ReLU6). That is exact where the value is never negative, since then the activation changes nothing: behind a ReLU,
      and behind pools, sums and the like of such values.
    - "residual": the value plus two maps with an activation between them, the last of which is zero; exact anywhere.
    - "auto": identity where that is exact, else residual.

    Images of a convolutional network get 3 x 3 convolutions, all else linear maps of the last axis. Convolutions have a bias where
    no norm follows.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        node: Behind which node.
        kind: What kind of layer.
        norm: Put a batch norm behind the first map. In an identity layer it has mean 0 and variance 1 with a gain that undoes its
            epsilon: it is the identity in inference mode only, until training has measured the true statistics.
        seed: Decides the first map of a residual layer.

    Raises:
        EditError: If the node's value is integers or follows from no input, or an identity could change the function.
        StateError: If the state does not belong to the graph.
    """
    check_state(graph, state)
    _check_place(graph, node)
    may_be_identity = is_not_negative(graph, node)
    if kind == "identity" and not may_be_identity:
        raise EditError(
            f"Node {node} ({graph.nodes[node].op}) may be negative, so that an activation behind it changes the "
            "function: use kind='residual'"
        )
    if norm and graph.shapes[node] and len(graph.shapes[node]) == 2 and not is_image(graph, node):
        raise EditError(f"Node {node} ({graph.nodes[node].op}) gives tokens, which a batch norm would mix up")
    is_identity = kind == "identity" or (kind == "auto" and may_be_identity)
    convolve = is_image(graph, node)

    def write(writer: Writer, x: int) -> int:
        if is_identity:
            y = _identity(writer, x, convolve=convolve, norm=norm)
            return writer("relu6" if graph.nodes[node].op == "relu6" else "relu", y)
        y = _fresh(writer, x, convolve=convolve, bias=not norm)
        y = writer(common_activation(graph), writer("batch_norm", y) if norm else y)
        return writer("add", x, zero_map(writer, y, convolve=convolve))

    kind_name = "an identity" if is_identity else "a residual layer"
    return insert_after(
        graph, state, node, write, note=f"put {kind_name} behind n{node} ({graph.nodes[node].op})", seed=seed
    )


def deepen_all(graph: ComputationalGraph, state: State, count: int, *, seed: int = 0) -> Edited:
    """Put `count` layers into a network, at places spread evenly over its depth.

    Args:
        graph: The architecture.
        state: Its state; not changed.
        count: How many.
        seed: As in `deepen`.

    Raises:
        EditError: If `count` is below one, or there is no place for a layer.
        StateError: If the state does not belong to the graph.
    """
    if count < 1:
        raise EditError(f"Expected a count of at least 1 (got {count})")
    places = deepenable(graph)
    if not places:
        raise EditError("The network has no place for another layer: none of its values follows from a layer")
    chosen = [places[(2 * i + 1) * len(places) // (2 * count) % len(places)] for i in range(count)]
    edited = Edited(graph, dict(state), "", True, tuple(range(len(graph))))
    for number, place in enumerate(
        sorted(chosen, reverse=True)
    ):  # from behind: places before stay where they are
        edited = chained(edited, deepen(edited.graph, edited.state, place, seed=seed + number))
    return Edited(
        edited.graph, edited.state, f"put in {count} layer{'s' if count > 1 else ''}", True, edited.nodes
    )


def deepenable(graph: ComputationalGraph) -> list[int]:
    """Nodes behind which `deepen` makes sense: activations and sums that something reads, best where an identity is exact."""
    outputs = set(graph.outputs)
    depends = reads_data(graph)
    candidates = [
        index
        for index, node in enumerate(graph.nodes)
        if (node.op in ACTIVATIONS or node.op in ("add", "concat"))
        and depends[index]
        and index not in outputs
        and graph.dtypes[index] == "float"
    ]
    identities = [index for index in candidates if is_not_negative(graph, index)]
    return identities or candidates


def chained(first: Edited, second: Edited) -> Edited:
    """Two edits, one after the other, as one."""
    nodes = tuple(first.nodes[node] if node >= 0 else -1 for node in second.nodes)
    note = "; ".join(each for each in (first.note, second.note) if each)
    keeps = first.preserves_function and second.preserves_function
    return Edited(second.graph, second.state, note, keeps, nodes)


# ---- what stands around a place


def is_not_negative(graph: ComputationalGraph, node: int) -> bool:
    """Whether a node's value is known to be never negative."""
    known: list[bool] = []
    for each in graph.nodes[: node + 1]:
        known.append(
            each.op in _NOT_NEGATIVE
            or (each.op in _STAYS and bool(each.inputs) and all(known[source] for source in each.inputs))
        )
    return known[node]


def is_image(graph: ComputationalGraph, node: int) -> bool:
    """Whether a node's value is channels over two axes of space, in a network that convolves or pools them."""
    if len(graph.shapes[node]) != 3:
        return False
    related = {node}
    for index in range(node, -1, -1):  # what it follows from, through operators that keep the shape
        if index in related:
            if "2d" in graph.nodes[index].op:
                return True
            related |= {
                source
                for source in graph.nodes[index].inputs
                if len(graph.shapes[source]) == 3 and graph.nodes[index].op != "permute"
            }
    return any("2d" in each.op and node in each.inputs[:1] for each in graph.nodes)


def common_activation(graph: ComputationalGraph) -> str:
    """The activation that the network uses most; ReLU if it has none."""
    counts = Counter(node.op for node in graph.nodes if node.op in ACTIVATIONS)
    return min(counts, key=lambda op: (-counts[op], op)) if counts else "relu"


def _check_place(graph: ComputationalGraph, node: int) -> None:
    check_node(graph, node)
    if graph.dtypes[node] != "float":
        raise EditError(f"Node {node} ({graph.nodes[node].op}) gives integers; a layer needs real numbers")
    if not reads_data(graph)[node]:
        raise EditError(
            f"Node {node} ({graph.nodes[node].op}) follows from no input, so a layer would learn nothing"
        )


# ---- maps


def identity_tensor(size: int, *, convolve: bool, dtype: torch.dtype) -> Tensor:
    """Weight of the linear map or 3 x 3 convolution that changes nothing."""
    eye = torch.eye(size, dtype=dtype)
    if not convolve:
        return eye
    weight = torch.zeros(size, size, 3, 3, dtype=dtype)
    weight[:, :, 1, 1] = eye
    return weight


def _identity(writer: Writer, x: int, *, convolve: bool, norm: bool) -> int:
    size = writer.shape(x)[0 if convolve else -1]
    weight = identity_tensor(size, convolve=convolve, dtype=writer.dtype)
    tensors = {"weight": weight}
    if not norm:
        tensors["bias"] = torch.zeros(size, dtype=writer.dtype)
    y = _map(writer, x, convolve=convolve, bias=not norm, tensors=tensors)
    if not norm:
        return y
    eps = 1e-5
    ones, zeros = torch.ones(size, dtype=writer.dtype), torch.zeros(size, dtype=writer.dtype)
    unit = {
        "weight": (ones + eps).sqrt(),
        "bias": zeros,
        "running_mean": zeros.clone(),
        "running_var": ones.clone(),
    }
    return writer("batch_norm", y, tensors=unit, eps=eps)


def _fresh(writer: Writer, x: int, *, convolve: bool, bias: bool) -> int:
    return _map(writer, x, convolve=convolve, bias=bias, tensors=None)


def zero_map(writer: Writer, x: int, *, convolve: bool = False, size: int | None = None) -> int:
    """A map that gives zeros, of as many units as it reads or `size`."""
    before = writer.shape(x)[0 if convolve else -1]
    made = before if size is None else size
    shape = (made, before, 3, 3) if convolve else (made, before)
    tensors = {
        "weight": torch.zeros(shape, dtype=writer.dtype),
        "bias": torch.zeros(made, dtype=writer.dtype),
    }
    return _map(writer, x, convolve=convolve, bias=True, tensors=tensors, size=made)


def _map(
    writer: Writer,
    x: int,
    *,
    convolve: bool,
    bias: bool,
    tensors: dict[str, Tensor] | None,
    size: int | None = None,
) -> int:
    made = writer.shape(x)[0 if convolve else -1] if size is None else size
    if convolve:
        return writer("conv2d", x, tensors=tensors, out_channels=made, kernel_size=3, padding=1, bias=bias)
    return writer("linear", x, tensors=tensors, out_features=made, bias=bias)
