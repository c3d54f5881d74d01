"""Prediction as the docstrings of the decoders state it, one tensor at a time and without any trick.

Each tensor is decoded alone, at the full size of the decoder (of the low-rank decoder: all rows of both tables), then
sliced, repeated, cropped, multiplied and cloned, as the research code does it. Equal in mathematics to
`GraphHyperNetwork.predict`; slow on purpose.
"""

from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.encode import EncodedGraph, ParameterSlot, batch_graphs
from nasgraph.hyper import GraphHyperNetwork, Parameters
from nasgraph.hyper.decoder import TensorDecoder
from nasgraph.hyper.layout import EPS, activate, kind_of, size_of, target_rms
from nasgraph.hyper.low_rank import LowRankDecoder


@torch.no_grad()
def predict_naively(ghn: GraphHyperNetwork, graph: EncodedGraph) -> Parameters:
    """The parameters of one graph."""
    states: Tensor = ghn.encoder(batch_graphs([graph]))[0]
    decoder = ghn.decoder
    assert isinstance(decoder, TensorDecoder | LowRankDecoder)
    return {slot.name: _decode(decoder, decoder.mix(states[slot.node]), slot).clone() for slot in graph.slots}


def _decode(decoder: TensorDecoder | LowRankDecoder, mixed: Tensor, slot: ParameterSlot) -> Tensor:
    kind = kind_of(slot)
    if kind not in ("weight", "head", "table"):
        own = decoder.vector[kind] @ mixed
        y = decoder.table["left"] @ own if isinstance(decoder, LowRankDecoder) else own
        return _repeat(activate(kind, y), (prod(slot.shape),)).view(slot.shape)
    whole = (
        _low_rank(decoder, mixed, slot)
        if isinstance(decoder, LowRankDecoder)
        else _block(decoder, mixed, slot)
    )
    gain = decoder.gain(mixed).clamp(-2, 2).exp()
    scaled: Tensor = whole * (gain * target_rms(slot))
    return scaled.reshape(slot.shape)


def _block(decoder: TensorDecoder, mixed: Tensor, slot: ParameterSlot) -> Tensor:
    kind = kind_of(slot)
    name = "weight" if decoder.has_conv else kind
    outputs, inputs, _, height, width = size = size_of(slot)
    rows, columns = min(height, decoder.max_kernel), min(width, decoder.max_kernel)
    top, left = (decoder.max_kernel - rows) // 2, (decoder.max_kernel - columns) // 2
    grid = torch.arange(decoder.max_kernel**2).view(decoder.max_kernel, -1)
    places = grid[top : top + rows, left : left + columns].flatten()
    if decoder.has_conv and kind in decoder.kind_shift:
        mixed = mixed + decoder.kind_shift[kind]
    hidden = F.gelu(decoder.spatial[name][places] @ mixed + decoder.spatial_bias[name][places])
    if decoder.has_conv:
        hidden = F.gelu(decoder.conv(hidden))
    full = decoder.block[name].flatten(0, 1) @ hidden.T
    few = full.view(decoder.max_size, decoder.max_size, 1, rows, columns)[:outputs, :inputs]
    return _repeat(few / (few.square().mean() + EPS).sqrt(), size)


def _low_rank(decoder: LowRankDecoder, mixed: Tensor, slot: ParameterSlot) -> Tensor:
    kind = kind_of(slot)
    size = outputs, inputs, _, height, width = size_of(slot)
    if kind in decoder.kind_shift:
        mixed = mixed + decoder.kind_shift[kind]
    factors = []
    for side, count, kernel in (("left", outputs, height), ("right", inputs, width)):
        few = min(kernel, decoder.max_kernel)
        start = (decoder.max_kernel - few) // 2
        places = slice(start, start + few)
        hidden = F.gelu(decoder.spatial[side][places] @ mixed + decoder.spatial_bias[side][places])
        rows = decoder.table[side] @ hidden.flatten(0, 1).T  # all K rows, whatever the tensor needs
        factors.append(_repeat(rows.view(decoder.max_size, few, decoder.rank), (count, kernel, decoder.rank)))
    product = factors[0].flatten(0, 1) @ factors[1].flatten(0, 1).T
    product = product / (product.square().mean() + EPS).sqrt()
    return product.view(outputs, height, inputs, width).transpose(1, 2).unsqueeze(2).expand(size)


def _repeat(block: Tensor, size: tuple[int, ...]) -> Tensor:
    repeats = [-(-wanted // have) for wanted, have in zip(size, block.shape, strict=True)]
    return block.repeat(repeats)[tuple(slice(wanted) for wanted in size)]
