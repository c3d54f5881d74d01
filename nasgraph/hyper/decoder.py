"""From node states to parameter tensors of any shape.

Letters: T = tensors of one group, D = state size, C = hidden channels, O, I = outputs and inputs of a weight,
S = spatial positions (kernel height x width), L = length of a vector.
"""

from collections.abc import Sequence
from math import pi, prod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.encode import ParameterSlot

MATRIX_KINDS = ("weight", "head", "table")
VECTOR_KINDS = ("bias", "scale", "shift", "head_bias")
EPS = 1e-8


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

    With `mip`, the decoder reads `[cos(pi/2 s), sin(pi/2 s)]` with s = sigmoid(state), whose norm is constant: the input
    encoding of "Magnitude Invariant Parametrizations Improve Hypernetwork Learning" (Ortiz et al. 2023, section 4).
    Its second part, output added to free parameters, has no counterpart where architectures vary.

    Args:
        dim: Size of a node state.
        hidden: Channels per spatial position.
        max_size: Outputs and inputs of a block; wider tensors are tiled.
        max_kernel: Height and width of a block.
        mip: Use the magnitude-invariant input encoding.
    """

    def __init__(self, dim: int, *, hidden: int, max_size: int, max_kernel: int, mip: bool) -> None:
        super().__init__()
        self.max_size, self.max_kernel, self.mip = max_size, max_kernel, mip
        read = 2 * dim if mip else dim
        self.mix = nn.Sequential(nn.Linear(read, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.gain = nn.Linear(dim, 1)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)
        self.spatial = nn.ParameterDict(
            {kind: _uniform(max_kernel**2, hidden, dim, fan_in=dim) for kind in MATRIX_KINDS}
        )
        self.spatial_bias = nn.ParameterDict(
            {kind: _uniform(max_kernel**2, hidden, fan_in=dim) for kind in MATRIX_KINDS}
        )
        self.block = nn.ParameterDict(
            {kind: _uniform(max_size, max_size, hidden, fan_in=hidden) for kind in MATRIX_KINDS}
        )
        self.vector = nn.ParameterDict({kind: _uniform(max_size, dim, fan_in=dim) for kind in VECTOR_KINDS})

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
        if self.mip:
            angle_TD = torch.sigmoid(state_TD) * (pi / 2)
            state_TD = torch.cat([angle_TD.cos(), angle_TD.sin()], dim=-1)
        state_TD = self.mix(state_TD)
        decoded: dict[int, Tensor] = {}
        for kind in MATRIX_KINDS:
            decoded.update(self._matrices(kind, state_TD, slots))
        for kind in VECTOR_KINDS:
            decoded.update(self._vectors(kind, state_TD, slots))
        return tuple(decoded[row].reshape(slot.shape) for row, slot in enumerate(slots))

    def _matrices(self, kind: str, state_TD: Tensor, slots: Sequence[ParameterSlot]) -> dict[int, Tensor]:
        by_kernel: dict[tuple[int, int], list[int]] = {}
        for row, slot in enumerate(slots):
            if _kind_of(slot) == kind:
                by_kernel.setdefault(self._kernel_of(slot), []).append(row)
        groups: dict[tuple[tuple[int, int], tuple[int, int]], tuple[list[int], Tensor, Tensor]] = {}
        for kernel, rows in by_kernel.items():
            group_TD = state_TD[torch.tensor(rows, device=state_TD.device)]
            hidden_TSC = self._hidden(kind, kernel, group_TD)
            scale_T = self.gain(group_TD).flatten().clamp(-2, 2).exp() * group_TD.new_tensor(
                [_target_rms(kind, slots[row]) for row in rows]
            )
            by_size: dict[tuple[int, int], list[int]] = {}
            for place, row in enumerate(rows):
                by_size.setdefault(self._size_of(slots[row]), []).append(place)
            for size, places in by_size.items():
                index = torch.tensor(places, device=state_TD.device)
                groups[kernel, size] = ([rows[place] for place in places], hidden_TSC[index], scale_T[index])
        if not groups:
            return {}
        blocks = _UnitBlocks.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self.block[kind],
            tuple(size for _, size in groups),
            *(hidden for _, hidden, _ in groups.values()),
            *(scale for _, _, scale in groups.values()),
        )
        result: dict[int, Tensor] = {}
        for (kernel, _), (rows, _, _), block_TOIS in zip(groups, groups.values(), blocks, strict=True):
            for row, w_OIHW in zip(rows, block_TOIS.unflatten(-1, kernel).unbind(0), strict=True):
                result[row] = _tile(w_OIHW, slots[row].shape)
        return result

    def _hidden(self, kind: str, kernel: tuple[int, int], state_TD: Tensor) -> Tensor:
        positions = self._centre(*kernel)
        spatial_SCD, bias_SC = self.spatial[kind][positions], self.spatial_bias[kind][positions]
        hidden_TSC: Tensor = F.gelu(torch.einsum("td,scd->tsc", state_TD, spatial_SCD) + bias_SC)
        return hidden_TSC

    def _kernel_of(self, slot: ParameterSlot) -> tuple[int, int]:
        height, width = (*slot.shape[2:4], 1, 1)[:2]
        return min(height, self.max_kernel), min(width, self.max_kernel)

    def _size_of(self, slot: ParameterSlot) -> tuple[int, int]:
        return min(slot.shape[0], self.max_size), min(slot.shape[1], self.max_size)

    def _vectors(self, kind: str, state_TD: Tensor, slots: Sequence[ParameterSlot]) -> dict[int, Tensor]:
        rows = [row for row, slot in enumerate(slots) if _kind_of(slot) == kind]
        if not rows:
            return {}
        y_TL = state_TD[torch.tensor(rows, device=state_TD.device)] @ self.vector[kind].T
        value_TL = 2 * torch.sigmoid(y_TL / 2) if kind == "scale" else torch.tanh(y_TL / 5)
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


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))


def _kind_of(slot: ParameterSlot) -> str:
    """Which output layer decodes a slot."""
    if len(slot.shape) > 1:
        return "table" if slot.role in ("embedding", "position") else "head" if slot.is_head else "weight"
    if slot.role == "position":
        return "shift"  # a free vector starts near zero, like a shift
    return "head_bias" if slot.is_head and slot.role == "bias" else slot.role


def _target_rms(kind: str, slot: ParameterSlot) -> float:
    rms: dict[str, float] = {
        "weight": (2 / slot.fan_in) ** 0.5,
        "head": (1 / slot.fan_in) ** 0.5,
        "table": 0.02,
    }
    return rms[kind]


def _tile(w_OIHW: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Repeat a block along the axes where it is too small, and crop it to `shape` (axes beyond four are folded)."""
    full = (*shape[:3], prod(shape[3:])) if len(shape) > 3 else (*shape, *(1,) * (4 - len(shape)))
    if tuple(w_OIHW.shape) == full:
        return w_OIHW
    repeats = [-(-size // have) for size, have in zip(full, w_OIHW.shape, strict=True)]
    return w_OIHW.repeat(repeats)[: full[0], : full[1], : full[2], : full[3]].contiguous()
