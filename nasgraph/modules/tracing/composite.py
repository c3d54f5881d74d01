# ruff: noqa: SIM905  lists of names read better as text
"""Rules for functions that stand for many: attention and recurrent layers."""

from collections.abc import Mapping, Sequence

import torch

from nasgraph.modules.tracing.arguments import optional
from nasgraph.modules.tracing.elementwise import value_at
from nasgraph.modules.tracing.layers import apply_weight
from nasgraph.modules.tracing.lowering import Batch, Dims, Lowering, Rule, UntranslatableError
from nasgraph.modules.tracing.recording import Call, Value


def scaled_dot_product_attention(lower: Lowering, call: Call) -> None:
    """`scaled_dot_product_attention(query, key, value, mask)`; heads are a leading axis."""
    query, key, value = (value_at(call, i, n) for i, n in enumerate(("query", "key", "value")))
    mask = optional(call, 3, "attn_mask")
    causal, scale = bool(call.argument(5, "is_causal", False)), call.argument(6, "scale")
    out = call.outputs[0]
    batch = lower.layout(query)
    if batch is not None and batch.axis >= len(query.shape) - 2:
        raise UntranslatableError("attends across examples")
    nodes = [lower.operand(x, len(query.shape), batch) for x in (query, key, value)]
    if key.shape[-3] != query.shape[-3]:
        nodes[1:] = [_repeat_heads(lower, node, query.shape[-3] // key.shape[-3]) for node in nodes[1:]]
    shapes = [lower.g.shape(node) for node in nodes]
    if len(shapes[0]) < 2:
        raise UntranslatableError("has no axis of tokens")
    if mask is not None:
        scores = (*query.shape[:-1], key.shape[-2])
        node = _mask(lower, mask, len(scores), batch)
        nodes.append(node)
    settings: dict[str, object] = {} if scale is None else {"scale": lower.scalar(scale)}
    lower.set(out, lower.emit("attention", *nodes, num_heads=1, causal=causal, **settings), batch)


def _repeat_heads(lower: Lowering, node: int, times: int) -> int:
    *lead, heads, tokens, dim = lower.g.shape(node)
    node = lower.fit(node, (*lead, heads, 1, tokens, dim))
    node = lower.emit("expand", node, shape=(*lead, heads, times, tokens, dim))
    return lower.fit(node, (*lead, heads * times, tokens, dim))


def _mask(lower: Lowering, mask: Value, rank: int, batch: Batch | None) -> int:
    """A mask over scores of `rank` full axes: a float is added, an integer says who attends."""
    if mask.tensor is not None and mask.dtype == "float":
        finite = torch.finfo(torch.float32).min
        mask = Value(mask.shape, mask.dtype, tensor=mask.tensor.float().clamp(min=finite))
    return lower.operand(mask, rank, batch)


MHA = (
    "query key value embed_dim_to_check num_heads in_proj_weight in_proj_bias bias_k bias_v add_zero_attn dropout_p "
    "out_proj_weight out_proj_bias training key_padding_mask need_weights attn_mask use_separate_proj_weight "
    "q_proj_weight k_proj_weight v_proj_weight static_k static_v average_attn_weights is_causal"
).split()


def multi_head_attention(lower: Lowering, call: Call) -> None:
    """`multi_head_attention_forward`: projections, attention and output map, each a node of its own.

    Inputs are (tokens, examples, width), in torch's order.
    """
    given = {name: call.argument(i, name) for i, name in enumerate(MHA)}
    if any(given[name] is not None for name in ("bias_k", "bias_v", "static_k", "static_v")):
        raise UntranslatableError("appends learnt keys")
    if given["add_zero_attn"]:
        raise UntranslatableError("appends a zero")
    query, key, value = (value_at(call, i, n) for i, n in enumerate(("query", "key", "value")))
    batch = lower.layout(query)
    nodes = _projections(lower, given, (query, key, value))
    heads = given["num_heads"]
    causal = bool(given["is_causal"]) and given["key_padding_mask"] is None and not given["need_weights"]
    mask = None if causal else _torch_mask(lower, given, lower.g.shape(nodes[1]))
    attended = lower.emit(
        "attention", *nodes, *([] if mask is None else [mask]), num_heads=heads, causal=causal
    )
    middle = Value(query.shape, query.dtype)
    lower.set(middle, attended, batch)
    weight, bias = given["out_proj_weight"], given["out_proj_bias"]
    assert isinstance(weight, Value)
    assert bias is None or isinstance(bias, Value)
    lower.set(call.outputs[0], apply_weight(lower, middle, weight, bias), batch)


def _projections(lower: Lowering, given: Mapping[str, object], inputs: Sequence[Value]) -> list[int]:
    query, key, value = inputs
    packed, bias = given["in_proj_weight"], given["in_proj_bias"]
    assert bias is None or isinstance(bias, Value)
    width = query.shape[-1]
    if given["use_separate_proj_weight"]:
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        weights = [given[name] for name in names]
    elif query is key is value:
        assert isinstance(packed, Value)
        node = apply_weight(lower, query, packed, bias)
        axis = len(lower.g.shape(node)) - 1
        return [
            lower.emit("slice", node, axis=axis, start=i * width, stop=(i + 1) * width, step=1)
            for i in range(3)
        ]
    else:
        assert isinstance(packed, Value)
        weights = [_rows(lower, packed, i * width, (i + 1) * width) for i in range(3)]
    nodes = []
    for i, (x, weight) in enumerate(zip(inputs, weights, strict=True)):
        assert isinstance(weight, Value)
        part = None if bias is None else _rows(lower, bias, i * width, (i + 1) * width)
        nodes.append(apply_weight(lower, x, weight, part))
    return nodes


def _rows(lower: Lowering, value: Value, start: int, stop: int) -> Value:
    """Some rows of a fixed matrix or vector."""
    out = Value((stop - start, *value.shape[1:]), value.dtype)
    lower.set(out, lower.emit("slice", lower.node(value), axis=0, start=start, stop=stop, step=1), None)
    return out


def _torch_mask(lower: Lowering, given: Mapping[str, object], key: Dims) -> int | None:
    """Torch's two masks as one node over (query tokens, key tokens); True means "keep out" in torch's masks."""
    padding, mask = given["key_padding_mask"], given["attn_mask"]
    nodes = []
    if isinstance(mask, Value) and mask.tensor is not None and len(mask.shape) == 2:
        nodes.append(lower.constant(_added(mask.tensor), "float"))
    elif (
        isinstance(mask, Value)
        and mask.dtype == "float"
        and len(mask.shape) == 3
        and lower.layout(mask) is not None
    ):
        if padding is not None:
            raise UntranslatableError("has two masks of different kinds")
        return lower.node(mask)  # (heads, query tokens, key tokens), merged with the examples
    elif mask is not None:
        raise UntranslatableError("has an unusual mask")
    if isinstance(padding, Value):
        node = lower.fit(lower.node(padding), (1, key[-2]))
        if padding.dtype == "bool":
            node = lower.emit("affine", lower.emit("cast", node, dtype="float"), scale=-1e30, shift=0.0)
        nodes.append(node)
    if len(nodes) == 2:
        return lower.emit("add", *nodes)
    return nodes[0] if nodes else None


def _added(mask: torch.Tensor) -> torch.Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape).masked_fill(mask, -1e30)
    return mask.float().clamp(min=-1e30)


# ---- recurrent layers


def recurrent(op: str) -> Rule:
    """`lstm`, `gru`, `rnn_tanh`, `rnn_relu` over whole sequences: one node for each layer and direction."""

    def rule(lower: Lowering, call: Call) -> None:
        if len(call.args) != 9 or not isinstance(call.args[3], bool):
            raise UntranslatableError("reads a packed sequence")
        x, states, weights = call.args[0], call.args[1], call.args[2]
        has_bias, num_layers, _, _, bidirectional, batch_first = call.args[3:]
        assert isinstance(x, Value)
        assert isinstance(weights, list)
        assert isinstance(num_layers, int)
        batch = lower.layout(x)
        if batch is None or batch.rest != 1 or len(x.shape) != 3 or batch.axis != (0 if batch_first else 1):
            raise UntranslatableError("reads no batch of sequences")
        per_cell = len(weights) // (num_layers * (2 if bidirectional else 1))
        starts = states if isinstance(states, list) else [states]
        cells = _Cells(lower, op, weights, per_cell, bool(has_bias), _starts(starts))
        node, lasts = lower.node(x), []
        cell = 0
        for _ in range(num_layers):
            ways = []
            for reverse in (False, True)[: 2 if bidirectional else 1]:
                ways.append(cells.run(cell, node, reverse=reverse))
                lasts.append((ways[-1], reverse))
                cell += 1
            node = ways[0] if len(ways) == 1 else lower.emit("concat", *ways, axis=1)
        lower.set(call.outputs[0], node, batch)
        _last_states(lower, call, lasts)

    return rule


def _starts(states: Sequence[object]) -> list[Value]:
    """Initial states that are not plain zeros."""
    values = [value for value in states if isinstance(value, Value)]
    zero = all(value.tensor is not None and not value.tensor.any() for value in values)
    return [] if zero else values


class _Cells:
    """The cells of a recurrent layer, each as a node that owns its parameters."""

    def __init__(
        self,
        lower: Lowering,
        op: str,
        weights: Sequence[object],
        per_cell: int,
        has_bias: bool,
        starts: Sequence[Value],
    ) -> None:
        self._lower, self._op, self._per_cell, self._has_bias, self._starts = (
            lower,
            op,
            per_cell,
            has_bias,
            starts,
        )
        self._weights = [weight for weight in weights if isinstance(weight, Value)]
        if not all(lower.owned(weight) for weight in self._weights):
            raise UntranslatableError("shares its parameters")

    def run(self, cell: int, node: int, *, reverse: bool) -> int:
        """One layer in one direction over a sequence (tokens, features)."""
        own = self._weights[cell * self._per_cell : (cell + 1) * self._per_cell]
        names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if self._has_bias else [])]
        if len(own) > len(names):
            names.append("weight_hr")
        gates = {"lstm": 4, "gru": 3}.get(self._op, 1)
        settings: dict[str, object] = {
            "hidden_size": own[0].shape[0] // gates,
            "bias": self._has_bias,
            "reverse": reverse,
        }
        if self._op == "lstm":
            settings["proj_size"] = own[-1].shape[0] if names[-1] == "weight_hr" else 0
        elif self._op != "gru":
            settings["nonlinearity"] = self._op.removeprefix("rnn_")
        states = [self._start(value, cell) for value in self._starts]
        made = self._lower.emit("rnn" if self._op.startswith("rnn") else self._op, node, *states, **settings)
        for name, weight in zip(names, own, strict=True):
            self._lower.own(made, name, weight)
        return made

    def _start(self, value: Value, cell: int) -> int:
        node = self._lower.node(value)
        shape = self._lower.g.shape(node)  # (cells, hidden)
        if len(shape) == 3 and shape[1] == 1:
            node, shape = self._lower.fit(node, (shape[0], shape[2])), (shape[0], shape[2])
        if shape[0] > 1:
            node = self._lower.emit("slice", node, axis=0, start=cell, stop=cell + 1, step=1)
        return self._lower.fit(node, shape[1:])


def _last_states(lower: Lowering, call: Call, lasts: Sequence[tuple[int, bool]]) -> None:
    """The states at the end of each sequence, (cells, examples, hidden). Those of LSTM's memory are left opaque."""
    parts = []
    for node, reverse in lasts:
        tokens = lower.g.shape(node)[0]
        at = 0 if reverse else tokens - 1
        if tokens > 1:
            node = lower.emit("slice", node, axis=0, start=at, stop=at + 1, step=1)
        parts.append(node)
    stacked = lower.emit("concat", *parts, axis=0) if len(parts) > 1 else parts[0]
    lower.set(call.outputs[1], stacked, Batch(1))


def recurrent_cell(op: str) -> Rule:
    """`lstm_cell`, `gru_cell`, `rnn_tanh_cell`, `rnn_relu_cell`, spelt out in linear maps and gates."""

    def rule(lower: Lowering, call: Call) -> None:
        x, state = value_at(call, 0), call.args[1]
        states = [s for s in (state if isinstance(state, list) else [state]) if isinstance(s, Value)]
        weights = [optional(call, i, "") for i in range(2, 6)]
        batch = lower.layout(x)
        if batch is None or batch.axis != 0 or len(x.shape) != 2:
            raise UntranslatableError("reads no batch of vectors")
        w_ih, w_hh, b_ih, b_hh = weights
        assert w_ih is not None
        assert w_hh is not None
        from_input = apply_weight(lower, x, w_ih, b_ih)
        from_state = apply_weight(lower, states[0], w_hh, b_hh)
        size = w_hh.shape[1]
        nodes: Sequence[int]
        if op == "lstm":
            nodes = _lstm_gates(lower, from_input, from_state, lower.node(states[1]), size)
        elif op == "gru":
            nodes = (_gru_gates(lower, from_input, from_state, lower.node(states[0]), size),)
        else:
            nodes = (lower.emit(op.removeprefix("rnn_"), lower.emit("add", from_input, from_state)),)
        for out, node in zip(call.outputs, nodes, strict=True):
            lower.set(out, node, batch)

    return rule


def _parts(lower: Lowering, node: int, size: int, count: int) -> list[int]:
    return [
        lower.emit("slice", node, axis=0, start=i * size, stop=(i + 1) * size, step=1) for i in range(count)
    ]


def _lstm_gates(lower: Lowering, from_input: int, from_state: int, memory: int, size: int) -> tuple[int, int]:
    gates = _parts(lower, lower.emit("add", from_input, from_state), size, 4)
    write, forget, show = (lower.emit("sigmoid", gates[i]) for i in (0, 1, 3))
    kept, new = lower.emit("mul", forget, memory), lower.emit("mul", write, lower.emit("tanh", gates[2]))
    memory = lower.emit("add", kept, new)
    return lower.emit("mul", show, lower.emit("tanh", memory)), memory


def _gru_gates(lower: Lowering, from_input: int, from_state: int, state: int, size: int) -> int:
    i, h = _parts(lower, from_input, size, 3), _parts(lower, from_state, size, 3)
    reset, update = (lower.emit("sigmoid", lower.emit("add", i[k], h[k])) for k in (0, 1))
    new = lower.emit("tanh", lower.emit("add", i[2], lower.emit("mul", reset, h[2])))
    return lower.emit("add", new, lower.emit("mul", update, lower.emit("sub", state, new)))


RULES: Mapping[str, Rule] = {
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "multi_head_attention_forward": multi_head_attention,
    **{op: recurrent(op) for op in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    **{f"{op}_cell": recurrent_cell(op) for op in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
}
