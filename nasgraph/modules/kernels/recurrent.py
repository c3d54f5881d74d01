# ruff: noqa: ARG001  every kernel has the same signature, and most need only a part of it
"""Recurrent layers."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from nasgraph.modules.kernels.kernel import (
    Attrs,
    Kernel,
    KernelMaker,
    Parameters,
    RunContext,
    one_batch,
    whole,
)

_ORDER = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
_FUNCTIONS: Mapping[str, Callable[..., tuple[Tensor, ...]]] = {
    "lstm": torch.lstm,
    "gru": torch.gru,
    "tanh": torch.rnn_tanh,
    "relu": torch.rnn_relu,
}


def _recurrent(op: str) -> KernelMaker:
    def make(node: int, attrs: Attrs) -> Kernel:
        hidden, bias, reverse = whole(attrs, "hidden_size"), bool(attrs["bias"]), bool(attrs["reverse"])
        width = (whole(attrs, "proj_size") if op == "lstm" else 0) or hidden
        widths = (width, hidden) if op == "lstm" else (width,)
        function = _FUNCTIONS[str(attrs.get("nonlinearity", op))]

        def run(inputs: Sequence[Tensor], own: Parameters, context: RunContext) -> Tensor:
            data, *given = one_batch(inputs)
            states = [state.unsqueeze(0).contiguous() for state in given]
            states += [data.new_zeros(1, data.shape[0], size) for size in widths[len(states) :]]
            weights = [own[name] for name in _ORDER if name in own]
            result = function(
                data.flip(1) if reverse else data,
                states if op == "lstm" else states[0],
                weights,
                bias,
                1,  # layers
                0.0,  # dropout
                context.training,
                False,  # both directions
                True,  # batch first
            )[0]
            return result.flip(1) if reverse else result

        return run

    return make


RECURRENT: Mapping[str, KernelMaker] = {op: _recurrent(op) for op in ("lstm", "gru", "rnn")}
