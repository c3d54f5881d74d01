"""A network as a weighted graph in the sense of complex network theory: link weights, node strength, layer fluctuation.

La Malfa, La Malfa, Nicosia and Latora, "Characterizing Learning Dynamics of Deep Neural Networks via Complex Networks", 2021, and "Deep Neural
Networks via Complex Network Theory: a Perspective", 2024. Links are the weights of linear layers and convolutions (summed over the places of a kernel); nodes are units.
Biases and norms are not links.

Shape letters: B = networks, U = units, N = examples.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.ir import ComputationalGraph
from nasgraph.meta.measures.layers import LinearMap, linear_maps
from nasgraph.meta.views import check_stack, run_stack
from nasgraph.modules import RunContext, State
from nasgraph.modules.functional import KERNELS
from nasgraph.symmetry import AxisRef, symmetry_table

_PLACES = ("first", "hidden", "last")
_STRENGTH = ("mean", "variance", "fluctuation")
NETWORK_THEORY_COLUMNS: tuple[str, ...] = (
    *(f"{place}/link_{each}" for place in _PLACES for each in ("mean", "variance")),
    *(f"{place}/strength_{each}" for place in _PLACES for each in _STRENGTH),
    *(f"{place}/neuron_strength_{each}" for place in _PLACES for each in _STRENGTH),
)
"""Names of the columns of `network_theory_of_stack`. The last nine need data."""


def node_strengths(graph: ComputationalGraph, stacked: State) -> dict[str, Float[Tensor, "networks units"]]:
    """Sum of the weights of all links of every hidden unit, those that enter and those that leave, by group of units.

    Groups are those of `nasgraph.symmetry.symmetry_table`, without groups of blocks. For a perceptron this is the weighted degree of the unit.

    Raises:
        StateError: If the stack does not fit the graph.
        UnsupportedOpError: If there is no linear layer or convolution.
    """
    check_stack(graph, stacked)
    layers = {layer.weight: layer for layer in linear_maps(graph)}
    found: dict[str, Tensor] = {}
    for group in symmetry_table(graph).groups:
        ends = [ref for ref in group.members if ref.parameter in layers]
        if ends:
            found[group.name] = sum((_summed(stacked[ref.parameter], ref) for ref in ends), torch.zeros(1))
    return found


def neuron_strengths(
    graph: ComputationalGraph, stacked: State, inputs: Float[Tensor, "examples *shape"]
) -> dict[str, Float[Tensor, "networks examples units"]]:
    """Node strength in which every weight is multiplied by what its source says for an example (La Malfa et al. 2024).

    Places in space are summed over: a link of a convolution is used at each of them.

    Raises:
        StateError: If the stack does not fit the graph.
        UnsupportedOpError: If there is no linear layer or convolution.
    """
    check_stack(graph, stacked)
    layers = linear_maps(graph)
    wanted = sorted({index for layer in layers for index in (layer.node, graph.nodes[layer.node].inputs[0])})
    tapped = ComputationalGraph(graph.nodes, tuple(wanted))
    with torch.no_grad():
        values = dict(zip(wanted, run_stack(tapped, stacked, [inputs]), strict=True))
    found: dict[str, Tensor] = {}
    by_weight = {layer.weight: layer for layer in layers}
    for group in symmetry_table(graph).groups:
        parts = [
            _used(graph, stacked, values, by_weight[ref.parameter], ref)
            for ref in group.members
            if ref.parameter in by_weight
        ]
        if parts:
            found[group.name] = sum(parts, torch.zeros(1))
    return found


def network_theory_of_stack(
    graph: ComputationalGraph, stacked: State, inputs: Float[Tensor, "examples *shape"] | None = None
) -> Float[Tensor, "networks columns"]:
    """The columns `NETWORK_THEORY_COLUMNS`: of the first layer (or group of units), the mean over those between, and of the last.

    The fluctuation is the standard deviation of strength within a group. Without `inputs` the columns of neurons are left out.
    Computed in double precision; what is too large for the weights' type becomes the largest number of it.
    """
    count = check_stack(graph, stacked)
    real = stacked[next(iter(graph.parameters))].dtype
    stacked = {name: t.double() if t.is_floating_point() else t for name, t in stacked.items()}
    links = [
        torch.stack([weight.mean(1), weight.var(1, correction=0)], dim=1)
        for weight in (stacked[layer.weight].detach().flatten(1) for layer in linear_maps(graph))
    ]
    strengths = [_moments(strength) for strength in node_strengths(graph, stacked).values()]
    blocks = [_three(links, links[0]), _three(strengths, links[0].new_zeros(count, 3))]
    if inputs is not None:
        strengths_BNU = neuron_strengths(graph, stacked, inputs.double()).values()
        neurons = [_moments(each.mean(1)) for each in strengths_BNU]
        blocks.append(_three(neurons, links[0].new_zeros(count, 3)))
    limit = torch.finfo(real).max
    return torch.cat(blocks, dim=1).clamp(-limit, limit).to(real)


def network_theory(
    graph: ComputationalGraph, state: State, inputs: Float[Tensor, "examples *shape"] | None = None
) -> Float[Tensor, " columns"]:
    """The row of one network in `network_theory_of_stack`."""
    alone: Mapping[str, Tensor] = {name: tensor.unsqueeze(0) for name, tensor in state.items()}
    return network_theory_of_stack(graph, alone, inputs)[0]


def _moments(strength_BU: Tensor) -> Tensor:
    variance_B = strength_BU.var(1, correction=0)
    return torch.stack([strength_BU.mean(1), variance_B, variance_B.sqrt()], dim=1).detach()


def _three(found: list[Tensor], like: Tensor) -> Tensor:
    """First, mean of those between, last; the only one is all three. Zeros if there is none."""
    if not found:
        return torch.cat([torch.zeros_like(like)] * 3, dim=1)
    between = torch.stack(found[1:-1] if len(found) > 2 else found).mean(0)
    return torch.cat([found[0], between, found[-1]], dim=1)


def _summed(weight_B: Tensor, ref: AxisRef) -> Tensor:
    """Sum of a weight over all axes but that of the units, and over the places of each unit. `[networks, units]`."""
    axis = ref.axis + 1
    others = [other for other in range(1, weight_B.dim()) if other != axis]
    line_B = weight_B.detach().sum(others) if others else weight_B.detach()
    return line_B[:, ref.places()].sum(2)


def _used(
    graph: ComputationalGraph, stacked: State, values: Mapping[int, Tensor], layer: LinearMap, ref: AxisRef
) -> Tensor:
    """The part of one axis of one weight in the strength of the units on it. `[networks, examples, units]`."""
    transposed = "transpose" in layer.op
    enters = (ref.axis == 0) != transposed
    if enters:  # what the layer gives, less its bias
        y = _by_channel(values[layer.node], layer)
        bias = stacked.get(f"n{layer.node}.bias")
        if bias is not None:
            spots = values[layer.node][0, 0].numel() // y.shape[2]
            y = y - spots * bias.detach().unsqueeze(1)
        return y[:, :, ref.places()].sum(3)
    x = values[graph.nodes[layer.node].inputs[0]]
    used = x * _pull(graph, layer, stacked[layer.weight].detach()).unsqueeze(1)
    return _by_channel(used, layer)[:, :, ref.places()].sum(3)


def _pull(graph: ComputationalGraph, layer: LinearMap, weight_B: Tensor) -> Tensor:
    """For every place of a layer's input the sum of the weights of all links that leave it. `[networks, *input_shape]`."""
    kernel = KERNELS[layer.op](layer.node, dict(graph.nodes[layer.node].attrs))

    def total(x: Tensor, weight: Tensor) -> Tensor:
        return kernel([x.unsqueeze(0)], {"weight": weight}, RunContext(batch_size=1)).sum()

    zeros = weight_B.new_zeros(layer.input_shape)
    pull: Tensor = torch.vmap(torch.func.grad(total), in_dims=(None, 0))(zeros, weight_B)
    return pull


def _by_channel(value: Tensor, layer: LinearMap) -> Tensor:
    """Sum over places: `[networks, examples, channels]`. Linear layers have channels last, convolutions first."""
    inner = range(2, value.dim() - 1) if layer.op == "linear" else range(3, value.dim())
    axes = list(inner)
    return value.sum(axes) if axes else value
