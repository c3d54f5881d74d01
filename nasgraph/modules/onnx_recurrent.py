"""ONNX's recurrent operators as torch layers, with the gates in torch's order.

Shape letters: T = steps, B = batch, D = directions, H = size of the state.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nasgraph.errors import UnsupportedOpError
from nasgraph.modules.onnx_file import OnnxNode
from nasgraph.modules.onnx_step import Result, Rule, Step

_GATES: Mapping[str, tuple[int, ...]] = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""For each gate in torch's order its place in ONNX's: i o f c to i f c o, and z r h to r z h."""
_ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}


def recurrent_layer(node: OnnxNode, weights: Sequence[Tensor | None]) -> nn.Module:
    """The torch layer of a recurrent node, from its weights W, R and B.

    Raises:
        UnsupportedOpError: If torch has no such layer.
    """
    forward, hidden, bias = weights
    if forward is None or hidden is None:
        raise UnsupportedOpError(f"Cannot run {node}: its weights are computed")
    directions = 2 if node.text("direction", "forward") == "bidirectional" else 1
    nonlinearity = _check(node, directions)
    size = hidden.shape[-1]
    settings: dict[str, object] = {"bias": bias is not None, "bidirectional": directions == 2}
    layer: nn.LSTM | nn.GRU | nn.RNN
    with torch.random.fork_rng(devices=[]):  # its random weights are replaced
        if node.op == "RNN":
            layer = nn.RNN(forward.shape[-1], size, nonlinearity=nonlinearity, **settings)
        else:
            made = nn.LSTM if node.op == "LSTM" else nn.GRU
            layer = made(forward.shape[-1], size, **settings)
    state = {}
    for direction in range(directions):
        end = "l0_reverse" if direction else "l0"
        state[f"weight_ih_{end}"] = _reordered(node.op, forward[direction])
        state[f"weight_hh_{end}"] = _reordered(node.op, hidden[direction])
        if bias is not None:
            first, second = bias[direction].chunk(2)
            state[f"bias_ih_{end}"], state[f"bias_hh_{end}"] = (
                _reordered(node.op, b) for b in (first, second)
            )
    layer.to(forward.dtype).load_state_dict(state)
    return layer


def _reordered(op: str, tensor: Tensor) -> Tensor:
    gates = tensor.chunk(len(_GATES[op]))
    return torch.cat([gates[place] for place in _GATES[op]])


def _check(node: OnnxNode, directions: int) -> str:
    """Refuse what torch's layers do not do; the nonlinearity of a plain recurrent layer."""
    given = node.attrs.get("activations") or _ACTIVATIONS[node.op] * directions
    activations = tuple(str(name) for name in given) if isinstance(given, tuple) else ()
    plain = activations == ("Relu",) * directions if node.op == "RNN" else False
    problems = {
        "it has other activations than torch": not plain
        and activations != _ACTIVATIONS[node.op] * directions,
        "it clips": "clip" in node.attrs,
        "it couples gates": bool(node.whole("input_forget", 0)),
        "it resets before the linear map ('linear_before_reset' is 0), which torch does not": (
            node.op == "GRU" and not node.whole("linear_before_reset", 0)
        ),
        "it has sequence lengths": len(node.inputs) > 4 and bool(node.inputs[4]),
        "it has peepholes": len(node.inputs) > 7 and bool(node.inputs[7]),
    }
    for problem, found in problems.items():
        if found:
            raise UnsupportedOpError(f"Cannot run {node}: {problem}")
    return "relu" if plain else "tanh"


def _recurrent(step: Step) -> Result:
    layer = step.layer
    assert isinstance(layer, nn.LSTM | nn.GRU | nn.RNN)
    x_TBF = step.tensor()
    batch_first = bool(step.node.whole("layout", 0))
    x_TBF = x_TBF.transpose(0, 1) if batch_first else x_TBF
    is_reverse = step.node.text("direction", "forward") == "reverse"
    x_TBF = x_TBF.flip(0) if is_reverse else x_TBF
    states = [_start(step, place, x_TBF.shape[1], batch_first=batch_first) for place in (5, 6)]
    y, last = layer(x_TBF, _given(states, step.node.op, layer, x_TBF))
    directions = 2 if layer.bidirectional else 1
    y_TDBH = y.reshape(*y.shape[:2], directions, -1).transpose(1, 2)
    y_TDBH = y_TDBH.flip(0) if is_reverse else y_TDBH
    lasts = last if isinstance(last, tuple) else (last,)
    if batch_first:
        return (y_TDBH.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in lasts))
    return (y_TDBH, *lasts)


def _start(step: Step, place: int, size: int, *, batch_first: bool) -> Tensor | None:
    state = step.optional(place)
    if state is None:
        return None
    state = state.transpose(0, 1) if batch_first else state
    if state.shape[1] == 1 != size:
        state = state.expand(state.shape[0], size, state.shape[2])
    return state.contiguous()


def _given(
    states: Sequence[Tensor | None], op: str, layer: nn.LSTM | nn.GRU | nn.RNN, x: Tensor
) -> Tensor | tuple[Tensor, Tensor] | None:
    first, second = states
    if op != "LSTM":
        return first
    if first is None and second is None:
        return None
    shape = (2 if layer.bidirectional else 1, x.shape[1], layer.hidden_size)
    zeros = torch.zeros(shape, dtype=x.dtype, device=x.device)
    return (zeros if first is None else first, zeros if second is None else second)


RECURRENT: Mapping[str, Rule] = dict.fromkeys(_GATES, _recurrent)
