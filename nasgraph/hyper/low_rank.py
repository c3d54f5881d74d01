"""From node states to parameter tensors of any width: products of two thin matrices.

Letters: T = tensors, D = state size, C = hidden channels, K = rows of the tables, R = rank, O, I = outputs and inputs,
Z, Y, X = depth, height and width of a kernel, Q = O Y, J = I X, L = length of a vector.
"""

from collections.abc import Sequence
from math import prod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.encode import ParameterSlot
from nasgraph.hyper.decoder import uniform
from nasgraph.hyper.layout import (
    EPS,
    MATRIX_KINDS,
    VECTOR_KINDS,
    WORKSPACE_BYTES,
    Size,
    activate,
    constant_norm,
    fitting,
    grouped,
    kind_of,
    size_of,
    target_rms,
    tile,
)

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")


class LowRankDecoder(nn.Module):
    """Predicts parameter tensors as products of two thin matrices, so that wide ones need no tiling.

    Zhou et al., "LoGAH: Predicting 774-Million-Parameter Transformers using Graph HyperNetworks with 1/100 Parameters",
    2024, section 3: a weight of O outputs, I inputs and a kernel of Y x X is, as a matrix of O Y x I X, a product
    A B of rank at most R. Here

        A[o y, r] = <left[o],  gelu(U_left[y, r]  state)>       B[r, i x] = <right[i], gelu(U_right[x, r] state)>

    with learnt tables `left` and `right` of K rows, shared by all kinds of tensors, which are told apart by a learnt shift
    of the state. Departures: the paper decodes all 2 K R numbers of every node and slices them afterwards; here
    only the O + I rows that a tensor has are computed (3 % of them for a ViT-S). And no axes are mixed: row o of A belongs
    to output o, whatever the width. Vectors are products with the same table: y[l] = <left[l], V state>. Tensors
    wider than K wrap around, kernels larger than `max_kernel` too, and a kernel with a depth repeats one slice along it.

    Magnitudes are those of `TensorDecoder`, by fan-in: sqrt(2 / fan_in) exp(g) y / rms(y) for weights, and so on. The root
    mean square of the product comes from the factors, since |A B|^2 = sum((A^T A) * (B B^T)) (Frobenius norm): no pass
    over the product is needed, and in inference it is written where it belongs by the product itself.

    Memory: the parameters are 2 K C + 2 `max_kernel` R C D numbers and a few small maps. Prediction needs R (O + I)
    numbers besides the tensor: 5 MiB for an embedding of 50,257 x 768 at rank 32.

    Args:
        dim: Size of a node state.
        hidden: Channels of the tables.
        rank: Largest rank of a predicted matrix.
        max_size: Rows of the tables.
        max_kernel: Height and width of a decoded kernel.
        mip: Use the magnitude-invariant input encoding, see `TensorDecoder`.
    """

    def __init__(
        self, dim: int, *, hidden: int, rank: int, max_size: int, max_kernel: int, mip: bool
    ) -> None:
        super().__init__()
        self.rank, self.max_size, self.max_kernel, self.mip = rank, max_size, max_kernel, mip
        self.mix = nn.Sequential(
            nn.Linear(2 * dim if mip else dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )
        self.gain = nn.Linear(dim, 1)
        nn.init.zeros_(self.gain.weight)
        nn.init.zeros_(self.gain.bias)
        self.kind_shift = nn.ParameterDict({kind: uniform(dim, fan_in=dim) for kind in ("head", "table")})
        self.spatial = nn.ParameterDict(
            {side: uniform(max_kernel, rank, hidden, dim, fan_in=dim) for side in SIDES}
        )
        self.spatial_bias = nn.ParameterDict(
            {side: uniform(max_kernel, rank, hidden, fan_in=dim) for side in SIDES}
        )
        self.table = nn.ParameterDict({side: uniform(max_size, hidden, fan_in=hidden) for side in SIDES})
        self.vector = nn.ParameterDict({kind: uniform(hidden, dim, fan_in=dim) for kind in VECTOR_KINDS})

    def forward(
        self, state_TD: Float[Tensor, "tensors dim"], slots: Sequence[ParameterSlot]
    ) -> tuple[Tensor, ...]:
        """Decode one tensor per row: each of exactly its slot's shape. See `TensorDecoder.forward`."""
        state_TD = self._read(state_TD)
        decoded: dict[int, Tensor] = {}
        rows = [row for row, slot in enumerate(slots) if kind_of(slot) in MATRIX_KINDS]
        for row, (left_QR, right_JR) in zip(rows, self._factors(state_TD, slots, rows), strict=True):
            size = size_of(slots[row])
            w_OIZYX = _unfold(left_QR @ right_JR.T, size)
            decoded[row] = w_OIZYX.expand(size)
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

        Args:
            state_TD: State of the node that owns each tensor.
            slots: What to predict.
            tensors: Where to: contiguous, of the slots' shapes.
            dtype: Precision of the products that give the factors. Those that give the tensors stay in that of
                the tensors: they take little longer than writing them.
            max_bytes: Memory for factors, and for kernels before their axes are exchanged. The factors of one tensor
                are always made whole.
        """
        state_TD = self._read(state_TD)
        rows = [row for row, slot in enumerate(slots) if kind_of(slot) in MATRIX_KINDS]
        bytes_each = [self._bytes_of(slots[row]) for row in rows]
        for some in fitting(rows, bytes_each, max_bytes):
            for row, (left_QR, right_JR) in zip(
                some, self._factors(state_TD, slots, some, dtype), strict=True
            ):
                _write_product(tensors[row], left_QR, right_JR, size_of(slots[row]), max_bytes)
        for kind in VECTOR_KINDS:
            for row, vector_L in self._vectors(kind, state_TD, slots).items():
                tensors[row].view(-1).copy_(vector_L)

    def _read(self, state_TD: Tensor) -> Tensor:
        mixed: Tensor = self.mix(constant_norm(state_TD) if self.mip else state_TD)
        return mixed

    def _bytes_of(self, slot: ParameterSlot) -> int:
        """Memory for the factors of a matrix and what they are made of."""
        outputs, inputs, _, height, width = size_of(slot)
        hidden: int = self.table["left"].shape[1]
        return 8 * self.rank * (outputs * height + inputs * width + hidden * (height + width))

    def _factors(
        self,
        state_TD: Tensor,
        slots: Sequence[ParameterSlot],
        rows: Sequence[int],
        dtype: torch.dtype = torch.float32,
    ) -> list[tuple[Tensor, Tensor]]:
        """A [Q, R] and B [J, R] of some matrices, A scaled so that their product has the right size."""
        if not rows:
            return []
        own_TD = state_TD[torch.tensor(rows, device=state_TD.device)]
        wanted_T = state_TD.new_tensor([target_rms(slots[row]) for row in rows])
        scale_T = self.gain(own_TD).flatten().clamp(-2, 2).exp() * wanted_T
        shift_KD = torch.stack([torch.zeros_like(self.kind_shift["head"]), *self.kind_shift.values()])
        kinds = ["weight", *self.kind_shift]
        shifted_TD = own_TD + shift_KD[[kinds.index(kind_of(slots[row])) for row in rows]]
        sizes = [size_of(slots[row]) for row in rows]
        left, right = (self._side(side, shifted_TD, sizes, dtype) for side in SIDES)
        factors = []
        for left_QR, right_JR, scale in zip(left, right, scale_T, strict=True):
            square = ((left_QR.T @ left_QR) * (right_JR.T @ right_JR)).sum() / (len(left_QR) * len(right_JR))
            factors.append((left_QR * (scale * torch.rsqrt(square + EPS)), right_JR))
        return factors

    def _side(self, side: Side, state_TD: Tensor, sizes: Sequence[Size], dtype: torch.dtype) -> list[Tensor]:
        """One factor of each matrix, not yet scaled: [outputs x height, R] on the left, [inputs x width, R] right."""
        axis = SIDES.index(side)
        hidden: dict[int, Tensor] = {}
        for kernel, places in grouped([min(size[3 + axis], self.max_kernel) for size in sizes]):
            start = (self.max_kernel - kernel) // 2
            spatial_YRCD = self.spatial[side][start : start + kernel]
            own_TD = state_TD[torch.tensor(places, device=state_TD.device)]
            y_TYRC = torch.einsum("td,yrcd->tyrc", own_TD, spatial_YRCD)
            hidden_TYRC = F.gelu(y_TYRC + self.spatial_bias[side][start : start + kernel])
            hidden.update(zip(places, hidden_TYRC.unbind(0), strict=True))
        factors: dict[int, Tensor] = {}
        for width, places in grouped([min(size[axis], self.max_size) for size in sizes]):
            joined = torch.cat([hidden[place].flatten(0, 1) for place in places])
            table_OC = self.table[side][:width]
            if dtype != torch.float32:
                joined, table_OC = joined.to(dtype), table_OC.to(dtype)
            product = (table_OC @ joined.T).to(state_TD.dtype)
            parts = product.split([len(hidden[place]) * self.rank for place in places], dim=1)
            for place, part in zip(places, parts, strict=True):
                part_OYR = part.unflatten(1, (-1, self.rank))
                whole = (sizes[place][axis], sizes[place][3 + axis], self.rank)
                factors[place] = tile(part_OYR, whole).flatten(0, 1)
        return [factors[place] for place in range(len(sizes))]

    def _vectors(self, kind: str, state_TD: Tensor, slots: Sequence[ParameterSlot]) -> dict[int, Tensor]:
        rows = [row for row, slot in enumerate(slots) if kind_of(slot) == kind]
        result: dict[int, Tensor] = {}
        for width, places in grouped([min(prod(slots[row].shape), self.max_size) for row in rows]):
            some = [rows[place] for place in places]
            own_TD = state_TD[torch.tensor(some, device=state_TD.device)]
            y_TL = (own_TD @ self.vector[kind].T) @ self.table["left"][:width].T
            for row, value_L in zip(some, activate(kind, y_TL).unbind(0), strict=True):
                result[row] = tile(value_L, (prod(slots[row].shape),))
        return result


def _unfold(w_QJ: Tensor, size: Size) -> Tensor:
    """The tensor [O, I, 1, Y, X] that a product of factors stands for."""
    _, inputs, _, height, width = size
    return w_QJ.view(-1, height, inputs, width).transpose(1, 2).unsqueeze(2)


def _write_product(out: Tensor, left_QR: Tensor, right_JR: Tensor, size: Size, max_bytes: int) -> None:
    outputs, inputs, depth, height, width = size
    if depth * height * width == 1:
        torch.mm(left_QR, right_JR.T, out=out.view(outputs, inputs))
        return
    out_OIZYX = out.view(size)
    bytes_each = height * inputs * width * out.element_size()
    step = max(1, max_bytes // bytes_each)
    for first in range(0, outputs, step):
        last = min(first + step, outputs)
        w_OIZYX = _unfold(left_QR[first * height : last * height] @ right_JR.T, size)
        out_OIZYX[first:last].copy_(w_OIZYX)
