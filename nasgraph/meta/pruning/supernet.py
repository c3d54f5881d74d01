"""A network whose groups of units run at two widths at once, after Dong and Yang 2019, "Network pruning via transformable
architecture search".

Shape letters: B = examples, C = places on a channel axis, G = groups, R = width ratios.

The first c units of each group make the candidate of width c. A layer that makes units is run once at full width; its output
at both sampled widths is brought to the larger one by channel-wise interpolation (section 3.1 of the paper) and summed with
the probabilities of the candidates. Layers read only the places that the larger width has, by masked weights, so that the
network computes what the cut network of one width computes. Layer norms take their mean over the places that are there.
Whatever else mixes units, such as a mean over them, sees zeros or leftovers in the places that the cut network lacks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.ir import ComputationalGraph
from nasgraph.modules import RunContext
from nasgraph.modules.functional import KERNELS
from nasgraph.symmetry import AxisRef, UnitGroup

MAKERS = {
    **{f"conv{dims}d": 1 for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": 1 for dims in (1, 2, 3)},
    **{"linear": -1, "embedding": -1, "bilinear": -1},
}
"""Operators with a weight that makes units, and the axis of their values (with a batch axis) on which the units stand."""
_MADE_AXIS = {**{f"conv_transpose{dims}d": 1 for dims in (1, 2, 3)}, "embedding": 1}  # of the weight; else 0


@dataclass(frozen=True, slots=True)
class Sampled:
    """Two widths of one group in a forward pass, the larger first, and their weights in the sum.

    Attributes:
        widths: In units; equal where a single width runs.
        ratios: Their numbers among the candidates: which affine parameters of batch norms they use.
        weights: Two numbers that sum to one `[2]`.
    """

    widths: tuple[int, int]
    ratios: tuple[int, int]
    weights: Tensor


@lru_cache(maxsize=4096)
def interpolation_matrix(size: int, to: int) -> Tensor:
    """Channel-wise interpolation as a matrix `[to, size]`: adaptive average pooling along the channels.

    Output channel k is the mean of the channels from floor(k size / to) to before ceil((k + 1) size / to). With equal sizes it
    is the identity.
    """
    return F.adaptive_avg_pool1d(torch.eye(size).unsqueeze(0), to)[0].T.contiguous()


@dataclass(frozen=True, slots=True)
class _Mixing:
    """A node after which the two widths become one value.

    Attributes:
        axis: Of the node's value (with a batch axis) on which the units stand.
        size: Places on that axis.
        members: Number of the group, and where its units stand on the axis.
        is_norm: Whether the node is a batch norm whose affine parameters each width has for itself.
    """

    axis: int
    size: int
    members: tuple[tuple[int, AxisRef], ...]
    is_norm: bool


class MixedNetwork:
    """Runs a graph at two widths per group. Pure: parameters are passed to each call, nothing is kept.

    Batch norms always use the statistics of the batch, which each width has for itself.

    Args:
        graph: The network, at full width.
        groups: Groups whose widths are searched: none shares a place with another.
        num_ratios: Number of candidate widths per group.
    """

    def __init__(self, graph: ComputationalGraph, groups: Sequence[UnitGroup], *, num_ratios: int) -> None:
        self._graph, self._num_ratios = graph, num_ratios
        self._masked = _masked_axes(graph, groups)
        self._mixing = _mixing_points(graph, groups)
        self._layer_norms = _layer_norms(graph, groups)
        self._kernels = {
            index: KERNELS[node.op](index, dict(node.attrs))
            for index, node in enumerate(graph.nodes)
            if node.op != "input"
        }
        self._own: dict[int, dict[str, str]] = {index: {} for index in self._kernels}
        for name in graph.parameters:
            node, short = name[1:].split(".")
            self._own[int(node)][short] = name
        self.norms = tuple(sorted(index for index, point in self._mixing.items() if point.is_norm))

    def initial(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Parameters to train: those of a state; the affine ones of batch norms once per ratio, `[ratios, channels]`."""
        result = {name: state[name].detach().clone() for name in self._graph.parameters}
        for index in self.norms:
            for short in self._own[index]:
                name = f"n{index}.{short}"
                result[name] = result[name].repeat(self._num_ratios, 1)
        return result

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        sampled: Sequence[Sampled],
        context: RunContext,
        *,
        stages: Mapping[int, tuple[tuple[int, Tensor], ...]] | None = None,
    ) -> Tensor:
        """Run the graph.

        Args:
            parameters: As `initial` names and shapes them.
            inputs: One tensor per input node.
            sampled: Two widths for each group, in the order of the groups.
            context: Without running statistics.
            stages: For nodes that end a residual stage: the nodes that take their place, each with its weight in the sum.

        Returns:
            The first output of the network.
        """
        parameters = self._cut(parameters, sampled)
        values: list[Tensor] = [torch.empty(0)] * len(self._graph)
        for index, value in zip(self._graph.inputs, inputs, strict=True):
            values[index] = value
        for index, kernel in self._kernels.items():
            node = self._graph.nodes[index]
            own = {short: parameters[name] for short, name in self._own[index].items()}
            read = [values[source] for source in node.inputs]
            point = self._mixing.get(index)
            if index in self._layer_norms:
                there = _there(self._layer_norms[index], sampled, read[0])
                eps = float(str(node.attr("eps")))
                values[index] = _masked_norm(read[0], own, there, eps=eps, centred=node.op == "layer_norm")
            elif point is None:
                values[index] = kernel(read, own, context)
            elif point.is_norm:
                eps = float(str(node.attr("eps")))
                values[index] = _mixed_norm(point, read[0], own, sampled, eps=eps)
            else:
                values[index] = _mixed(point, kernel(read, own, context), sampled)
            if stages and index in stages:
                values[index] = sum(
                    (weight * values[source] for source, weight in stages[index]), torch.zeros(())
                )
        output = values[self._graph.outputs[0]]
        return output if len(output) == context.batch_size else output.expand(context.batch_size, -1)

    def _cut(self, parameters: Mapping[str, Tensor], sampled: Sequence[Sampled]) -> dict[str, Tensor]:
        """Weights with zeros at the places that the larger width of each group lacks."""
        result = dict(parameters)
        for (name, axis), members in self._masked.items():
            tensor = result[name]
            mask = torch.ones(tensor.shape[axis], dtype=tensor.dtype, device=tensor.device)
            for group, member in members:
                mask[member.places()[sampled[group].widths[0] :].flatten()] = 0
            shape = [1] * tensor.dim()
            shape[axis] = -1
            result[name] = tensor * mask.view(shape)
        return result


def _masked_axes(
    graph: ComputationalGraph, groups: Sequence[UnitGroup]
) -> dict[tuple[str, int], list[tuple[int, AxisRef]]]:
    """The axes of weights and free parameters on which groups stand."""
    found: dict[tuple[str, int], list[tuple[int, AxisRef]]] = {}
    for number, group in enumerate(groups):
        for member in group.members:
            spec = graph.parameters.get(member.parameter)
            if spec is not None and len(spec.shape) > 1:
                found.setdefault((member.parameter, member.axis), []).append((number, member))
    return found


def _layer_norms(
    graph: ComputationalGraph, groups: Sequence[UnitGroup]
) -> dict[int, list[tuple[int, AxisRef]]]:
    """The norms over the last axis, and which groups stand on it."""
    found: dict[int, list[tuple[int, AxisRef]]] = {}
    for number, group in enumerate(groups):
        for member in group.members:
            index = int(member.parameter[1:].split(".")[0])
            node = graph.nodes[index]
            if (
                node.op in ("layer_norm", "rms_norm")
                and member.parameter.endswith(".weight")
                and node.attr("axes") == 1
            ):
                found.setdefault(index, []).append((number, member))
    return found


def _there(members: Sequence[tuple[int, AxisRef]], sampled: Sequence[Sampled], value: Tensor) -> Tensor:
    """Ones at the places of the last axis that the larger widths have."""
    mask = torch.ones(value.shape[-1], dtype=value.dtype, device=value.device)
    for group, member in members:
        mask[member.places()[sampled[group].widths[0] :].flatten()] = 0
    return mask


def _masked_norm(
    value: Tensor, own: Mapping[str, Tensor], there: Tensor, *, eps: float, centred: bool
) -> Tensor:
    """A layer norm (or, without centring, one by the root mean square) of the places that are there."""
    count = there.sum()
    if centred:
        value = value - (value * there).sum(-1, keepdim=True) / count
    value = value * there
    value = value * (value.square().sum(-1, keepdim=True) / count + eps).rsqrt()
    if "weight" in own:
        value = value * own["weight"]
    return value + own["bias"] if "bias" in own else value


def _mixing_points(graph: ComputationalGraph, groups: Sequence[UnitGroup]) -> dict[int, _Mixing]:
    """After each layer that makes units of a group out of others: its batch norm if that alone reads it, else itself."""
    readers: dict[int, list[int]] = {index: [] for index in range(len(graph))}
    for index, node in enumerate(graph.nodes):
        for source in node.inputs:
            readers[source].append(index)
    points: dict[int, _Mixing] = {}
    for index, node in enumerate(graph.nodes):
        if node.op not in MAKERS or _is_depthwise(graph, index):
            continue
        made = _MADE_AXIS.get(node.op, 0)
        members = tuple(
            (number, member)
            for number, group in enumerate(groups)
            for member in group.members
            if member.parameter == f"n{index}.weight" and member.axis == made
        )
        if not members:
            continue
        size = graph.parameters[f"n{index}.weight"].shape[made]
        after = readers[index]
        is_norm = len(after) == 1 and graph.nodes[after[0]].op == "batch_norm" and index not in graph.outputs
        points[after[0] if is_norm else index] = _Mixing(MAKERS[node.op], size, members, is_norm)
    return points


def _is_depthwise(graph: ComputationalGraph, index: int) -> bool:
    """Whether a convolution works in groups, and so hands units on rather than makes them."""
    return dict(graph.nodes[index].attrs).get("groups", 1) != 1


def _mixed_norm(
    point: _Mixing, value: Tensor, own: Mapping[str, Tensor], sampled: Sequence[Sampled], *, eps: float
) -> Tensor:
    """Normalise by the batch, scale and shift for each width by its own, and mix."""
    normal = F.batch_norm(value, None, None, None, None, True, 0.0, eps)
    places = torch.arange(point.size)
    rows = torch.zeros(2, point.size, dtype=torch.long)
    for group, member in point.members:
        rows[:, member.places().flatten()] = torch.tensor(sampled[group].ratios).unsqueeze(1)
    kept, spread = _mixture(point, sampled, value.dtype)
    matrix, shift = kept.diag() + spread, None
    if "weight" in own:
        larger, smaller = (own["weight"][row, places] for row in rows)
        matrix = (kept * larger).diag() + spread * smaller
    if "bias" in own:
        larger, smaller = (own["bias"][row, places] for row in rows)
        shift = kept * larger + spread @ smaller
    return _applied(matrix, normal, shift, axis=point.axis)


def _mixed(point: _Mixing, value: Tensor, sampled: Sequence[Sampled]) -> Tensor:
    """The sum of the value at the larger width and of that at the smaller width, interpolated; zero beyond."""
    kept, spread = _mixture(point, sampled, value.dtype)
    return _applied(kept.diag() + spread, value, None, axis=point.axis)


def _mixture(point: _Mixing, sampled: Sequence[Sampled], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What each place takes of its own at the larger width `[C]`, and of all places at the smaller width `[C, C]`."""
    kept = torch.ones(point.size, dtype=dtype)  # places of no group pass as they are
    spread = torch.zeros(point.size, point.size, dtype=dtype)
    for group, member in point.members:
        choice = sampled[group]
        large, small = choice.widths
        places = member.places()
        there = torch.zeros(places.shape, dtype=dtype)
        there[:large] = 1
        kept = kept.index_put((places.flatten(),), there.flatten() * choice.weights[0].to(dtype))
        matrix = choice.weights[1].to(dtype) * interpolation_matrix(small, large).to(dtype)
        for block in places.T:
            spread = spread.index_put((block[:large, None], block[None, :small]), matrix)
    return kept, spread


def _applied(matrix: Tensor, value: Tensor, shift: Tensor | None, *, axis: int) -> Tensor:
    """A linear map along one axis of a value."""
    if axis == -1:
        return F.linear(value, matrix, shift)
    kernel = matrix.view(*matrix.shape, *[1] * (value.dim() - 2))
    convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}.get(value.dim())
    return F.linear(value, matrix, shift) if convolve is None else convolve(value, kernel, shift)
