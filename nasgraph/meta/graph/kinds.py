"""The kinds of nodes and edges of a parameter graph, as integers for embedding tables."""

from nasgraph.ir import OPS

NUM_SLOTS = 9
"""Numbers on one edge: a kernel of up to 3 x 3, centre-padded. Larger kernels take several parallel edges."""

NODE_COLUMNS = (
    *("bias", "hidden_bias", "scale", "shift", "running_mean", "running_var"),
    *("value", "source", "target"),
)
"""What the columns of `node_values` hold. `hidden_bias`: the second bias of a recurrent layer; `value`: a free parameter;
`source` and `target`: the attention vectors of a graph attention layer."""

SITES = (
    *("input", "place", "parameter", "entry", "unit", "norm", "join", "activated"),
    *("gate_0", "gate_1", "gate_2", "gate_3", "state", "block", "score", "attention"),
    *("operand", "merged", "split", "pooled", "pair", "padding"),
)
"""What a node stands for: a place of an input; a place along another axis whose order has a meaning; a place along an axis of
a free parameter; an entry of a look-up table; a unit of a layer; of a norm; of a sum or a product; after an activation that not all
readers see; a gate or the state of a recurrent cell; a block of channels (head, group); a pair of query and key channels; a
channel that attention gives; what matrix products sum over; axes made of others; and so on."""

ACTIVATIONS = (
    "none",
    *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish"),
    *("hardsigmoid", "sigmoid", "log_sigmoid", "tanh", "softsign", "softplus", "softmax", "log_softmax"),
    *("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "abs", "sign", "reciprocal"),
    *("floor", "round", "sin", "cos", "tan", "atan", "erf", "power_scalar", "clamp", "compare_scalar"),
    "prelu",
)
"""The function that follows a unit."""

EDGE_KINDS = (
    *("linear", "kernel", "transposed_kernel", "root", "recurrent", "table", "position", "norm", "bilinear"),
    *("flow", "add", "subtract", "multiply", "divide", "argument_0", "argument_1", "argument_2"),
    *("gate", "query", "key", "value", "block", "operand", "split", "pool"),
)
"""What an edge is. Those from `flow` on carry no parameter: they say where values flow, and have the value 1."""

NUM_PARAMETER_EDGE_KINDS = EDGE_KINDS.index("flow")
NUM_EDGE_KINDS = len(EDGE_KINDS)
NUM_NODE_KINDS = len(SITES) * len(ACTIVATIONS)
"""Node kinds are `SITES.index(site) * len(ACTIVATIONS) + ACTIVATIONS.index(activation)`."""

SCALINGS = ("none", "positive", "sign")
"""By which factors a unit may be rescaled: the meaning of `node_scaling`."""

assert set(ACTIVATIONS) - {"none"} <= set(OPS)
