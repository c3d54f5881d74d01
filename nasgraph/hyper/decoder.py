"""From node states to parameter tensors of any shape: blocks that are cropped or tiled.

Letters: T = tensors of one group, D = state size, C = hidden channels, O, I = outputs and inputs of a weight,
S = spatial positions (kernel height x width), X = positions of several tensors, P = pairs of an output and an input,
Z, Y, X in comments = depth, height and width of a kernel, L = length of a vector.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import prod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.encode import ParameterSlot
from nasgraph.hyper.layout import (
    EPS,
    MATRIX_KINDS,
    VECTOR_KINDS,
    WORKSPACE_BYTES,
    Group,
    activate,
    constant_norm,
    fitting,
    group_matrices,
    grouped,
    kind_of,
    repeat_block,
    size_of,
    split,
    split_axes,
    target_rms,
    tile,
)

STRIP = 512
"""Pairs of an output and an input that are decoded at a time: the fastest in a sweep from 256 to 8,192."""
FEW_CHANNELS = 256


class _UnitBlocks(torch.autograd.Function):
    """Products of hidden vectors with corners of one block, each tensor scaled to a given root mean square.

    For group k: y = einsum("tsc,oic->tois", hidden_k, block[:O_k, :I_k]) and out = scale * y * rsqrt(mean(y^2) + eps).
    Written by hand because autograd would allocate a full-size gradient of `block` for every group; here
    all groups add into one.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]  # `ctx` has no public type
        ctx, block_OIC: Tensor, sizes: tuple[tuple[int, int], ...], *hidden_and_scale: Tensor
    ) -> tuple[Tensor, ...]:
        hidden, scales = hidden_and_scale[: len(sizes)], hidden_and_scale[len(sizes) :]
        units, inverses, results = [], [], []
        for (outputs, inputs), hidden_TSC, scale_T in zip(sizes, hidden, scales, strict=True):
            y_TOIS = torch.einsum("tsc,oic->tois", hidden_TSC, block_OIC[:outputs, :inputs])
            inverse_T = torch.rsqrt(y_TOIS.square().mean(dim=(1, 2, 3)) + EPS)
            unit_TOIS = y_TOIS * inverse_T.view(-1, 1, 1, 1)
            results.append(unit_TOIS * scale_T.view(-1, 1, 1, 1))
            units.append(unit_TOIS)
            inverses.append(inverse_T)
        ctx.sizes = sizes
        ctx.save_for_backward(block_OIC, *hidden, *scales, *units, *inverses)
        return tuple(results)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        block_OIC, *saved = ctx.saved_tensors
        hidden, scales, units, inverses = (
            saved[i : i + len(grads)] for i in range(0, len(saved), len(grads))
        )
        grad_block_OIC = torch.zeros_like(block_OIC)
        grad_hidden, grad_scales = [], []
        for k, (outputs, inputs) in enumerate(ctx.sizes):
            agreement_T = (grads[k] * units[k]).sum(dim=(1, 2, 3))
            grad_scales.append(agreement_T)
            mean_T = agreement_T / units[k][0].numel()
            factor_T = (scales[k] * inverses[k]).view(-1, 1, 1, 1)
            grad_y_TOIS = (grads[k] - units[k] * mean_T.view(-1, 1, 1, 1)) * factor_T
            corner_OIC = block_OIC[:outputs, :inputs]
            grad_hidden.append(torch.einsum("tois,oic->tsc", grad_y_TOIS, corner_OIC))
            grad_block_OIC[:outputs, :inputs] += torch.einsum("tois,tsc->oic", grad_y_TOIS, hidden[k])
        return grad_block_OIC, None, *grad_hidden, *grad_scales


class TensorDecoder(nn.Module):
    """Predicts parameter tensors from node states: one block per tensor, cropped or tiled to its shape.

    As in GHN-2 and GHN-3 (Knyazev et al. 2021, section 3; 2023, section 3) a state becomes a vector for each spatial
    position and each vector a block of outputs x inputs. Only what a tensor uses is computed: rows of both maps are
    sliced before the products. Departures: an output layer of its own decodes the head of the network
    and one decodes tables (embeddings, positional parameters); and magnitudes are fixed by construction:

        weight = sqrt(2 / fan_in) * exp(g) * y / rms(y)      (fan-in normalisation, He et al. 2015, equation 10)
        head   = sqrt(1 / fan_in) * exp(g) * y / rms(y)
        table  = 0.02 * exp(g) * y / rms(y)
        scale  = 2 sigmoid(y / 2);  bias, shift, head bias = tanh(y / 5)   (Knyazev et al. 2021, appendix)

    with y the decoded tensor and g in [-2, 2] a learnt function of the state, at first about 0. So a predicted
    network neither explodes nor dies, however deep it is and whether it has norms or not.

    Tensors of every rank are laid out as `nasgraph.hyper.layout` says: biases, scales and shifts of more than one axis
    are decoded as vectors, stacks of matrices as one tall matrix, and a kernel with a depth repeats one slice along it
    (Carreira and Zisserman, "Quo Vadis, Action Recognition?", 2017, section 2.4.1; the fan-in counts the depth).

    With `has_conv`, one more layer, shared by all spatial positions, stands between the two, and one stack serves weights,
    heads and tables, told apart by a learnt shift of the state: the decoder of GHN-2 and GHN-3.

    With `mip`, the decoder reads `[cos(pi/2 s), sin(pi/2 s)]` with s = sigmoid(state), whose norm is constant: the input
    encoding of "Magnitude Invariant Parametrizations Improve Hypernetwork Learning" (Ortiz et al. 2023, section 4).
    Its second part, output added to free parameters, has no counterpart where architectures vary.

    Args:
        dim: Size of a node state.
        hidden: Channels per spatial position.
        max_size: Outputs and inputs of a block; wider tensors are tiled.
        max_kernel: Height and width of a block.
        mip: Use the magnitude-invariant input encoding.
        has_conv: Put a layer of twice the channels between.
    """

    def __init__(
        self, dim: int, *, hidden: int, max_size: int, max_kernel: int, mip: bool, has_conv: bool = False
    ) -> None:
        super().__init__()
        self.max_size, self.max_kernel, self.mip, self.has_conv = max_size, max_kernel, mip, has_conv
        read = 2 * dim if mip else dim
        channels = 2 * hidden if has_conv else hidden
        stacks = ("weight",) if has_conv else MATRIX_KINDS
        self.mix = nn.Sequential(nn.Linear(read, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.gain = nn.Linear(dim, 1)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)
        self.spatial = nn.ParameterDict(
            {kind: uniform(max_kernel**2, hidden, dim, fan_in=dim) for kind in stacks}
        )
        self.spatial_bias = nn.ParameterDict(
            {kind: uniform(max_kernel**2, hidden, fan_in=dim) for kind in stacks}
        )
        self.block = nn.ParameterDict(
            {kind: uniform(max_size, max_size, channels, fan_in=channels) for kind in stacks}
        )
        self.vector = nn.ParameterDict({kind: uniform(max_size, dim, fan_in=dim) for kind in VECTOR_KINDS})
        if has_conv:
            self.conv = nn.Linear(hidden, channels)
            self.kind_shift = nn.ParameterDict({kind: uniform(dim, fan_in=dim) for kind in ("head", "table")})

    def forward(
        self, state_TD: Float[Tensor, "tensors dim"], slots: Sequence[ParameterSlot]
    ) -> tuple[Tensor, ...]:
        """Decode one tensor per row.

        Args:
            state_TD: State of the node that owns each tensor.
            slots: What to predict; row t of the states belongs to `slots[t]`.

        Returns:
            One tensor per slot, each of exactly the slot's shape.
        """
        state_TD = self._read(state_TD)
        decoded: dict[int, Tensor] = {}
        for kind in MATRIX_KINDS:
            decoded.update(self._matrices(kind, state_TD, slots))
        for kind in VECTOR_KINDS:
            decoded.update(self._vectors(kind, state_TD, slots))
        return tuple(decoded[row].reshape(slot.shape) for row, slot in enumerate(slots))

    @torch.no_grad()
    def write(
        self,
        state_TD: Float[Tensor, "tensors dim"],
        slots: Sequence[ParameterSlot],
        tensors: Sequence[Tensor],
        *,
        dtype: torch.dtype = torch.float32,
        max_bytes: int = WORKSPACE_BYTES,
    ) -> None:
        """Decode into tensors that exist, without gradients.

        Each block is written where it belongs, scaled there, and then tiled; nothing of a tensor's full size is
        allocated.

        Args:
            state_TD: State of the node that owns each tensor.
            slots: What to predict.
            tensors: Where to: contiguous, of the slots' shapes.
            dtype: Precision of the products.
            max_bytes: Memory for hidden vectors and products.
        """
        state_TD = self._read(state_TD)
        groups = group_matrices(slots, MATRIX_KINDS, max_size=self.max_size, max_kernel=self.max_kernel)
        for name, block_OIC in self.block.items():
            own = {row: group for group in groups for row in group.rows if self._stack_of(group.kind) == name}
            is_wide = block_OIC.shape[2] > FEW_CHANNELS  # then one pass over the block serves all kernels
            bytes_each = [
                prod(group.kernel) * (block_OIC.shape[2] + STRIP) * block_OIC.element_size()
                for group in own.values()
            ]
            for rows in fitting(list(own), bytes_each, max_bytes):
                hidden = self._hidden_of(rows, own, state_TD)
                scale_T = self._scale(state_TD[_index(rows, state_TD)], [slots[row] for row in rows])
                scales = dict(zip(rows, scale_T.unbind(), strict=True))
                keys = [(own[row].size, own[row].kernel == (1, 1) or is_wide) for row in rows]
                for (size, _), some in grouped(keys):
                    picked = [rows[place] for place in some]
                    _write_blocks(
                        block_OIC[: size[0], : size[1]],
                        [hidden[row] for row in picked],
                        [scales[row] for row in picked],
                        [own[row].kernel for row in picked],
                        [tensors[row].view(size_of(slots[row])) for row in picked],
                        dtype,
                    )
        for kind in VECTOR_KINDS:
            rows = [row for row, slot in enumerate(slots) if kind_of(slot) == kind]
            for length, places in grouped([prod(slots[row].shape) for row in rows]):
                same = [rows[place] for place in places]
                for some in fitting(same, [length * state_TD.element_size()] * len(same), max_bytes):
                    value_TL = activate(kind, state_TD[_index(some, state_TD)] @ self.vector[kind].T)
                    for row, value_L in zip(some, tile(value_TL, (len(some), length)), strict=True):
                        tensors[row].view(-1).copy_(value_L)

    def _read(self, state_TD: Tensor) -> Tensor:
        mixed: Tensor = self.mix(constant_norm(state_TD) if self.mip else state_TD)
        return mixed

    def _stack_of(self, kind: str) -> str:
        """The name of the maps that decode a kind."""
        return "weight" if self.has_conv else kind

    def _stack(self, kind: str, kernel: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Weights and biases of the first map for a centred window of the block's spatial grid."""
        name = self._stack_of(kind)
        if kernel == (self.max_kernel, self.max_kernel):
            return self.spatial[name], self.spatial_bias[name]
        positions = self._centre(*kernel)
        return self.spatial[name][positions], self.spatial_bias[name][positions]

    def _hidden(self, kind: str, stack: tuple[Tensor, Tensor], state_TD: Tensor) -> Tensor:
        spatial_SCD, bias_SC = stack
        if self.has_conv and kind in self.kind_shift:
            state_TD = state_TD + self.kind_shift[kind]
        hidden_TSC: Tensor = F.gelu(torch.einsum("td,scd->tsc", state_TD, spatial_SCD) + bias_SC)
        if self.has_conv:
            deeper_TSC: Tensor = F.gelu(self.conv(hidden_TSC))
            return deeper_TSC
        return hidden_TSC

    def _scale(self, state_TD: Tensor, slots: Sequence[ParameterSlot]) -> Tensor:
        """Root mean square that each matrix shall have."""
        wanted_T = state_TD.new_tensor([target_rms(slot) for slot in slots])
        scale_T: Tensor = self.gain(state_TD).flatten().clamp(-2, 2).exp() * wanted_T
        return scale_T

    def _matrices(self, kind: str, state_TD: Tensor, slots: Sequence[ParameterSlot]) -> dict[int, Tensor]:
        groups = group_matrices(slots, [kind], max_size=self.max_size, max_kernel=self.max_kernel)
        if not groups:
            return {}
        hidden: list[Tensor] = []
        scales: list[Tensor] = []
        for kernel, run in groupby(groups, key=lambda group: group.kernel):
            counts, rows = zip(*((len(group.rows), group.rows) for group in run), strict=True)
            of_kernel = [row for rows_of_group in rows for row in rows_of_group]
            own_TD = state_TD[_index(of_kernel, state_TD)]
            hidden += split(self._hidden(kind, self._stack(kind, kernel), own_TD), counts)
            scales += split(self._scale(own_TD, [slots[row] for row in of_kernel]), counts)
        blocks = _UnitBlocks.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self.block[self._stack_of(kind)],
            tuple(group.size for group in groups),
            *hidden,
            *scales,
        )
        result: dict[int, Tensor] = {}
        for group, block_TOIS in zip(groups, blocks, strict=True):
            for row, w_OIHW in zip(
                group.rows, block_TOIS.view(*block_TOIS.shape[:3], 1, *group.kernel).unbind(0), strict=True
            ):
                result[row] = tile(w_OIHW, size_of(slots[row]))
        return result

    def _hidden_of(
        self, rows: Sequence[int], groups: Mapping[int, Group], state_TD: Tensor
    ) -> dict[int, Tensor]:
        """The hidden vectors [positions, channels] of some matrices."""
        hidden: dict[int, Tensor] = {}
        for (kind, kernel), places in grouped([(groups[row].kind, groups[row].kernel) for row in rows]):
            own = [rows[place] for place in places]
            hidden_TSC = self._hidden(kind, self._stack(kind, kernel), state_TD[_index(own, state_TD)])
            hidden.update(zip(own, hidden_TSC.unbind(), strict=True))
        return hidden

    def _vectors(self, kind: str, state_TD: Tensor, slots: Sequence[ParameterSlot]) -> dict[int, Tensor]:
        rows = [row for row, slot in enumerate(slots) if kind_of(slot) == kind]
        if not rows:
            return {}
        value_TL = activate(kind, state_TD[_index(rows, state_TD)] @ self.vector[kind].T)
        lengths = [prod(slots[row].shape) for row in rows]
        index = np.concatenate(
            [t * self.max_size + np.arange(n) % self.max_size for t, n in enumerate(lengths)]
        )
        flat = value_TL.flatten()[torch.from_numpy(index).to(state_TD.device)]
        return dict(zip(rows, torch.split(flat, lengths), strict=True))

    def _centre(self, height: int, width: int) -> Tensor:
        """Positions of a centred window of this size in the block's spatial grid."""
        top, left = (self.max_kernel - height) // 2, (self.max_kernel - width) // 2
        grid = torch.arange(self.max_kernel**2, device=self.gain.weight.device).view(self.max_kernel, -1)
        return grid[top : top + height, left : left + width].flatten()


def _write_blocks(
    corner_OIC: Tensor,
    hidden: Sequence[Tensor],
    scales: Sequence[Tensor],
    kernels: Sequence[tuple[int, int]],
    outs: Sequence[Tensor],
    dtype: torch.dtype,
) -> None:
    """Decode tensors whose blocks have one size: `hidden[t]` [S, C] to `outs[t]` [outputs, inputs, Z, Y, X].

    The corner is read once, in strips that stay in the cache with their products: large blocks would otherwise be
    copied where they are sliced or converted. Products go where they belong, and are scaled when their size is known.
    """
    outputs, inputs, C = corner_OIC.shape
    counts = [len(hidden_SC) for hidden_SC in hidden]
    joined_XC = torch.cat(list(hidden))
    reduced_XC = joined_XC if dtype == torch.float32 else joined_XC.to(dtype)
    regions = [
        out[:outputs, :inputs, 0, :height, :width] for out, (height, width) in zip(outs, kernels, strict=True)
    ]
    squares_X = joined_XC.new_zeros(len(joined_XC))
    step = max(1, max(STRIP, min(2**20 // len(joined_XC), 2**20 // C)) // inputs)
    # With few channels the products are quick, and kernels are better made in the order in which they are written.
    by_pair = C <= FEW_CHANNELS and max(counts) > 1
    is_whole = step >= outputs
    for first in range(0, outputs, step):
        strip_PC = corner_OIC[first : first + step].reshape(-1, C).to(reduced_XC.dtype)
        product = strip_PC @ reduced_XC.T if by_pair else reduced_XC @ strip_PC.T
        y_XP = (product.T if by_pair else product).to(joined_XC.dtype)
        squares_X += torch.linalg.vector_norm(y_XP, dim=1).square()
        if is_whole:
            factors = _factors(squares_X, scales, counts, outputs * inputs)
        for t, (y_SP, kernel) in enumerate(zip(split(y_XP, counts), kernels, strict=True)):
            y_OIYX = split_axes(split_axes(y_SP, 1, (-1, inputs)), 0, kernel).permute(2, 3, 0, 1)
            if is_whole:
                torch.mul(y_OIYX, factors[t], out=regions[t])
            else:
                regions[t][first : first + step].copy_(y_OIYX)
    if not is_whole:
        for region, factor in zip(
            regions, _factors(squares_X, scales, counts, outputs * inputs), strict=True
        ):
            region.mul_(factor)
    for out, region in zip(outs, regions, strict=True):
        repeat_block(out, (*region.shape[:2], 1, *region.shape[2:]))


def _factors(
    squares_X: Tensor, scales: Sequence[Tensor], counts: Sequence[int], num_pairs: int
) -> list[Tensor]:
    """What makes each tensor's root mean square what it shall be, from sums of squares at each position."""
    return [
        scale * torch.rsqrt(squares_S.sum() / (len(squares_S) * num_pairs) + EPS)
        for scale, squares_S in zip(scales, split(squares_X, counts), strict=True)
    ]


def uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """First values of a map: uniform in +-1 / sqrt(fan_in)."""
    return nn.Parameter(torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))


def _index(rows: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(rows, device=like.device)
