"""A network as a sequence of tokens, one per output unit.

Schuerholt, Mahoney and Borth, "Towards Scalable and Versatile Weight Space Learning" (SANE), 2024, section 3: the weights that lead to one
unit, with its bias, are one token, padded or cut to one length; three numbers say where in the network it stands. The sequence is
not invariant: two networks that differ by a permutation of units have their tokens in another order and other orders within tokens. Align
(`nasgraph.merge`) or augment (`nasgraph.symmetry.permute_units`) before learning from it.

Shape letters: B = networks, N = tokens, D = length of a token, U = units, R = row of a unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nasgraph.ir import ComputationalGraph
from nasgraph.meta.views.stack import check_stack
from nasgraph.modules import State, is_statistic


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens of networks of one architecture.

    Attributes:
        values: `[networks, tokens, token_dim]`, zero where padded.
        mask: `[tokens, token_dim]`, True where a value is a parameter or a running statistic.
        positions: `[tokens, 3]`: place in the sequence, number of the layer, place within the layer.
        rows: Per layer, in order: name of the node, units, and values per unit before padding or cutting.
    """

    values: Float[Tensor, "networks tokens token_dim"]
    mask: Bool[Tensor, "tokens token_dim"]
    positions: Int[Tensor, "tokens 3"]
    rows: tuple[tuple[str, int, int], ...]
    _layout: tuple[tuple[tuple[str, tuple[int, ...]], ...], ...]

    def to_states(self) -> dict[str, Tensor]:
        """The stack that these tokens are: bit-equal to the one that they were made of. Differentiable.

        Constants of the graph are not in tokens and not in the result.
        """
        dim, start, stack = self.values.shape[2], 0, {}
        for (_, units, length), tensors in zip(self.rows, self._layout, strict=True):
            pieces = -(-length // dim)
            part = self.values[:, start : start + units * pieces]
            rows_BUR = part.reshape(len(part), units, pieces * dim)[:, :, :length]
            start += units * pieces
            offset = 0
            for name, shape in tensors:
                width = torch.Size(shape).numel() // units
                stack[name] = rows_BUR[:, :, offset : offset + width].reshape(len(part), *shape)
                offset += width
        return stack


def tokens_of_stack(graph: ComputationalGraph, stacked: State, *, token_dim: int | None = None) -> Tokens:
    """Tokens of every network of a stack. Differentiable; `Tokens.to_states` is the inverse.

    A layer is a node with parameters: its tensors with as many rows as the first has are put side by side, row by row (weight, bias, running
    statistics); a tensor of another length is a layer of its own. A unit with more than `token_dim` values has several tokens.

    Args:
        graph: The architecture of all.
        stacked: Their states.
        token_dim: Length of a token; as long as the longest unit if None.

    Raises:
        StateError: If the stack does not fit the graph, or the network has no parameters.
        ValueError: If `token_dim` is below 1.
    """
    count = check_stack(graph, stacked)
    layers = _layers(graph, stacked)
    lengths = [sum(tensor[0].numel() for tensor in group.values()) // units for _, units, group in layers]
    dim = max(lengths) if token_dim is None else token_dim
    if dim < 1:
        raise ValueError(f"Expected 'token_dim' of at least 1 (got {token_dim})")
    values, masks, positions, rows = [], [], [], []
    for number, ((node, units, group), length) in enumerate(zip(layers, lengths, strict=True)):
        rows_BUR = torch.cat([tensor.reshape(count, units, -1) for tensor in group.values()], dim=2)
        pieces = -(-length // dim)
        padded = torch.nn.functional.pad(rows_BUR, (0, pieces * dim - length))
        values.append(padded.reshape(count, units * pieces, dim))
        real = torch.arange(pieces * dim) < length
        masks.append(real.reshape(pieces, dim).repeat(units, 1))
        within = torch.arange(units * pieces)
        positions.append(torch.stack([torch.full_like(within, number), within], dim=1))
        rows.append((node, units, length))
    place = torch.cat(positions)
    return Tokens(
        torch.cat(values, dim=1),
        torch.cat(masks),
        torch.cat([torch.arange(len(place)).unsqueeze(1), place], dim=1),
        tuple(rows),
        tuple(tuple((name, tuple(t.shape[1:])) for name, t in group.items()) for _, _, group in layers),
    )


def tokens(graph: ComputationalGraph, state: State, *, token_dim: int | None = None) -> Tokens:
    """Tokens of one network: a stack of one."""
    return tokens_of_stack(
        graph, {name: tensor.unsqueeze(0) for name, tensor in state.items()}, token_dim=token_dim
    )


def _layers(graph: ComputationalGraph, stacked: State) -> list[tuple[str, int, Mapping[str, Tensor]]]:
    """Name, number of units and tensors of every layer, in the order of the nodes."""
    names = [*graph.parameters, *(name for name in stacked if is_statistic(name))]
    by_node: dict[int, list[str]] = {}
    for name in names:
        by_node.setdefault(int(name[1:].split(".")[0]), []).append(name)
    layers: list[tuple[str, int, Mapping[str, Tensor]]] = []
    for node in sorted(by_node):
        by_units: dict[int, dict[str, Tensor]] = {}
        for name in by_node[node]:
            tensor = stacked[name]
            units = tensor.shape[1] if tensor.dim() > 1 else 1
            by_units.setdefault(units, {})[name] = tensor
        layers.extend((f"n{node}", units, group) for units, group in by_units.items())
    return layers
