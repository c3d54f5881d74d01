"""Shape rule, parameters and attributes of every operator."""

from dataclasses import dataclass, field

import pytest

from nasgraph.errors import InvalidGraphError
from nasgraph.ir import OPS, ComputationalGraph, GraphBuilder, ParameterSpec, Shape, make_node

IMAGE = (6, 9, 8)


@dataclass(frozen=True)
class Case:
    """One use of an operator, and what comes out."""

    op: str
    inputs: tuple[Shape, ...]
    shape: Shape
    attrs: dict[str, object] = field(default_factory=dict)
    parameters: dict[str, tuple[Shape, str]] = field(default_factory=dict)


SAME_SHAPE = (
    *("relu", "leaky_relu", "elu", "gelu", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh"),
    *("relu6", "celu", "selu", "mish", "log_sigmoid", "softsign", "softplus", "clamp", "affine"),
    *("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "abs", "neg", "sign", "reciprocal"),
    *("floor", "round", "sin", "cos", "tan", "atan", "erf", "dropout", "drop_path", "identity", "zero"),
)
SPACE = {1: (6, 8), 2: (6, 8, 8), 3: (6, 8, 8, 8)}
CASES = [
    *(Case(op, (shape,), shape) for op in SAME_SHAPE for shape in ((5,), IMAGE)),
    Case("input", (), (2, 3), {"shape": (2, 3)}),
    Case("parameter", (), (2, 3), {"shape": [2, 3]}, {"weight": ((2, 3), "position")}),
    Case(
        "conv2d",
        (IMAGE,),
        (4, 7, 6),
        {"out_channels": 4, "kernel_size": 3},
        {"weight": ((4, 6, 3, 3), "weight")},
    ),
    Case(
        "conv2d",
        (IMAGE,),
        (4, 5, 3),
        {"out_channels": 4, "kernel_size": (3, 1), "stride": (2, 3), "padding": (1, 0), "bias": True},
        {"weight": ((4, 6, 3, 1), "weight"), "bias": ((4,), "bias")},
    ),
    Case(
        "conv2d",
        (IMAGE,),
        (12, 9, 8),
        {"out_channels": 12, "kernel_size": 5, "padding": 4, "dilation": 2, "groups": 6},
        {"weight": ((12, 1, 5, 5), "weight")},
    ),
    Case(
        "linear", ((7,),), (3,), {"out_features": 3}, {"weight": ((3, 7), "weight"), "bias": ((3,), "bias")}
    ),
    Case("linear", ((5, 7),), (5, 3), {"out_features": 3, "bias": False}, {"weight": ((3, 7), "weight")}),
    Case(
        "embedding", ((11,),), (11, 4), {"num_embeddings": 50, "dim": 4}, {"weight": ((50, 4), "embedding")}
    ),
    Case("attention", ((5, 8), (7, 8), (7, 8)), (5, 8), {"num_heads": 2}),
    Case("batch_norm", (IMAGE,), IMAGE, {}, {"weight": ((6,), "scale"), "bias": ((6,), "shift")}),
    Case("batch_norm", ((5,),), (5,), {}, {"weight": ((5,), "scale"), "bias": ((5,), "shift")}),
    Case("group_norm", (IMAGE,), IMAGE, {"groups": 3}, {"weight": ((6,), "scale"), "bias": ((6,), "shift")}),
    Case("layer_norm", ((5, 7),), (5, 7), {}, {"weight": ((7,), "scale"), "bias": ((7,), "shift")}),
    Case("max_pool2d", (IMAGE,), (6, 4, 4), {"kernel_size": 2, "stride": 2}),
    Case("avg_pool2d", (IMAGE,), IMAGE, {"kernel_size": 3, "stride": 1, "padding": 1}),
    Case("global_avg_pool2d", (IMAGE,), (6,)),
    Case("mean", ((5, 7),), (7,), {"axis": 0}),
    Case("mean", ((5, 7, 2),), (5, 2), {"axis": 1}),
    Case("add", ((5,), (5,), (5,)), (5,)),
    Case("mul", (IMAGE, (6, 1, 1)), IMAGE),
    Case("mul", ((1, 4), (3, 1)), (3, 4)),
    Case("concat", ((2, 5), (3, 5)), (5, 5)),
    Case("concat", ((2, 5), (2, 1), (2, 3)), (2, 9), {"axis": 1}),
    Case("reshape", (IMAGE,), (2, 216), {"shape": (2, 216)}),
    Case("flatten", (IMAGE,), (432,)),
    Case("permute", (IMAGE,), (8, 6, 9), {"order": (2, 0, 1)}),
    Case("softmax", ((5, 7),), (5, 7), {"axis": 1}),
    Case("log_softmax", ((5, 7),), (5, 7), {"axis": 0}),
    Case("cumsum", ((5, 7),), (5, 7), {"axis": 0}),
    Case("parameter", (), (5, 2), {"shape": (5, 2), "role": "weight"}, {"weight": ((5, 2), "weight")}),
    Case("constant", (), (2, 3), {"shape": (2, 3), "dtype": "int"}),
    Case("opaque", ((5, 7), (2,)), (3,), {"name": "aten.topk.default [0]", "shape": (3,)}),
    *(
        Case(
            f"conv{dims}d",
            (SPACE[dims],),
            (4, *(3,) * dims),
            {"out_channels": 4, "kernel_size": 3, "stride": 2, "groups": 2, "bias": True},
            {"weight": ((4, 3, *(3,) * dims), "weight"), "bias": ((4,), "bias")},
        )
        for dims in SPACE
    ),
    *(
        Case(
            f"conv_transpose{dims}d",
            (SPACE[dims],),
            (4, *(18,) * dims),  # 7 * 2 - 2 * 1 + 2 * 2 + 1 + 1
            {
                **{"out_channels": 4, "kernel_size": 3, "stride": 2, "groups": 2, "bias": True},
                **{"padding": 1, "output_padding": 1, "dilation": 2},
            },
            {"weight": ((6, 2, *(3,) * dims), "weight"), "bias": ((4,), "bias")},
        )
        for dims in SPACE
    ),
    *(
        Case(
            f"apply_conv{dims}d", (SPACE[dims], (4, 3, *(3,) * dims), (4,)), (4, *(6,) * dims), {"groups": 2}
        )
        for dims in SPACE
    ),
    *(
        Case(f"apply_conv_transpose{dims}d", (SPACE[dims], (6, 4, *(3,) * dims)), (4, *(10,) * dims))
        for dims in SPACE
    ),
    Case("apply_linear", ((5, 7), (3, 7), (3,)), (5, 3)),
    Case("apply_embedding", ((11,), (50, 4)), (11, 4)),
    Case("apply_layer_norm", ((5, 7), (7,), (7,)), (5, 7)),
    Case(
        "bilinear",
        ((5, 7), (5, 2)),
        (5, 3),
        {"out_features": 3},
        {"weight": ((3, 7, 2), "weight"), "bias": ((3,), "bias")},
    ),
    Case("matmul", ((2, 1, 5, 7), (1, 3, 7, 4)), (2, 3, 5, 4)),
    Case("einsum", ((5, 7), (7, 4)), (4, 5), {"equation": "ij,jk->ki"}),
    Case(
        "lstm",
        ((5, 7), (2,), (3,)),
        (5, 2),
        {"hidden_size": 3, "proj_size": 2},
        {
            **{"weight_ih": ((12, 7), "weight"), "weight_hh": ((12, 2), "weight")},
            **{"bias_ih": ((12,), "bias"), "bias_hh": ((12,), "bias"), "weight_hr": ((2, 3), "weight")},
        },
    ),
    Case(
        "gru",
        ((5, 7),),
        (5, 3),
        {"hidden_size": 3, "bias": False},
        {"weight_ih": ((9, 7), "weight"), "weight_hh": ((9, 3), "weight")},
    ),
    Case(
        "rnn",
        ((5, 7), (3,)),
        (5, 3),
        {"hidden_size": 3, "bias": False, "reverse": True},
        {"weight_ih": ((3, 7), "weight"), "weight_hh": ((3, 3), "weight")},
    ),
    Case("attention", ((2, 5, 8), (2, 7, 8), (2, 7, 4), (2, 4, 1, 7)), (2, 5, 4), {"num_heads": 4}),
    Case(
        "gcn_conv",
        ((7,),),
        (6,),
        {"out_features": 6},
        {"weight": ((6, 7), "weight"), "bias": ((6,), "bias")},
    ),
    Case(
        "gat_conv",
        ((7,),),
        (6,),
        {"out_features": 6, "num_heads": 3, "bias": False},
        {"weight": ((6, 7), "weight"), "source": ((3, 2), "weight"), "target": ((3, 2), "weight")},
    ),
    Case(
        "gin_conv",
        ((7,),),
        (6,),
        {"out_features": 6, "bias": False, "eps": 0.5, "aggregation": "max"},
        {"weight": ((6, 7), "weight")},
    ),
    *(
        Case(
            op,
            ((7,),),
            (6,),
            {"out_features": 6},
            {"weight": ((6, 7), "weight"), "bias": ((6,), "bias"), "root": ((6, 7), "weight")},
        )
        for op in ("sage_conv", "graph_conv")
    ),
    Case(
        "cheb_conv",
        ((7,),),
        (6,),
        {"out_features": 6, "num_terms": 3, "bias": False},
        {"weight": ((6, 21), "weight")},
    ),
    Case(
        "arma_conv",
        ((7,),),
        (6,),
        {"out_features": 6, "num_stacks": 2},
        {"weight": ((12, 7), "weight"), "bias": ((12,), "bias"), "root": ((12, 7), "weight")},
    ),
    Case("batch_norm", ((6, 5, 5, 5),), (6, 5, 5, 5), {"affine": False}),
    Case("layer_norm", (IMAGE,), IMAGE, {"axes": 2, "bias": False}, {"weight": ((9, 8), "scale")}),
    Case("rms_norm", ((5, 7),), (5, 7), {}, {"weight": ((7,), "scale")}),
    Case("max_pool2d", (IMAGE,), (6, 5, 4), {"kernel_size": 2, "stride": 2, "ceil_mode": True}),
    Case("max_pool2d", (IMAGE,), (6, 3, 2), {"kernel_size": 3, "dilation": 3}),
    Case("max_pool3d", (SPACE[3],), (6, 4, 4, 4), {"kernel_size": 2, "stride": 2}),
    Case("avg_pool3d", (SPACE[3],), (6, 9, 8, 7), {"kernel_size": (2, 1, 2), "padding": (1, 0, 0)}),
    Case("adaptive_avg_pool2d", (IMAGE,), (6, 3, 3), {"size": 3}),
    Case("adaptive_max_pool2d", (IMAGE,), (6, 3, 1), {"size": (3, 1)}),
    Case("upsample", (IMAGE,), (6, 18, 3), {"size": (18, 3)}),
    Case("pixel_shuffle", ((12, 5, 4),), (3, 10, 8), {"factor": 2}),
    Case("reduce_sum", (IMAGE,), (9,), {"axes": (2, 0)}),
    Case("reduce_mean", (IMAGE,), (1, 9, 1), {"axes": (0, 2), "keepdims": True}),
    Case("reduce_max", (IMAGE,), (6, 9), {"axes": [2]}),
    Case("reduce_min", ((5,),), (1,), {"axes": (0,), "keepdims": True}),
    Case("reduce_var", ((5, 7),), (5,), {"axes": (1,), "correction": 0}),
    Case("mean", ((5,),), (1,), {"axis": 0, "keepdims": True}),
    Case("add", ((5, 1), (1, 7), (1, 1)), (5, 7)),
    *(Case(op, ((5, 1), (1, 7)), (5, 7)) for op in ("sub", "div", "maximum", "minimum", "power")),
    Case("where", ((5, 1), (1, 7), (1, 1)), (5, 7)),
    Case("compare", ((5, 1), (1, 7)), (5, 7), {"kind": "le"}),
    Case("compare_scalar", ((5, 7),), (5, 7), {"kind": "ne", "value": -1.5}),
    Case("power_scalar", ((5, 7),), (5, 7), {"exponent": -0.5}),
    Case("cast", ((5, 7),), (5, 7), {"dtype": "int"}),
    Case("prelu", (IMAGE, (6,)), IMAGE),
    Case("slice", ((5, 7),), (5, 2), {"axis": 1, "start": 2, "stop": 7, "step": 3}),
    Case("expand", ((5, 1, 2),), (5, 7, 2), {"shape": (5, 7, 2)}),
    Case("pad", ((5, 7),), (8, 7), {"amounts": (1, 2, 0, 0)}),
    Case("roll", ((5, 7),), (5, 7), {"axis": 1, "shift": -3}),
    Case("flip", ((5, 7),), (5, 7), {"axis": 1}),
    Case("take", ((5, 7, 2), (9,)), (5, 9, 2), {"axis": 1}),
    Case("gather", ((5, 7), (5, 9)), (5, 9), {"axis": 1}),
]


def applied(case: Case) -> ComputationalGraph:
    graph = GraphBuilder()
    reads = OPS[case.op].reads
    sources = [
        graph("input", shape=shape, dtype="int" if reads[min(place, len(reads) - 1)] == "int" else "float")
        for place, shape in enumerate(case.inputs)
    ]
    if case.op in ("parameter", "constant"):
        graph("input", shape=(1,))
    return graph.finish(graph(case.op, *sources, **case.attrs))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}{case.inputs}")
def test_shape_and_parameters_follow_the_rule(case: Case) -> None:
    graph = applied(case)
    assert graph.shapes[-1] == case.shape
    found = {name.split(".")[1]: (spec.shape, spec.role) for name, spec in graph.parameters.items()}
    assert found == case.parameters
    assert all(name.startswith(f"n{len(graph) - 1}.") for name in graph.parameters)


def test_every_operator_has_a_case() -> None:
    assert {case.op for case in CASES} == set(OPS)


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "message"),
    [
        ("conv2d", ((5, 5),), {"out_channels": 4, "kernel_size": 1}, r"\(channels, height, width\)"),
        (
            "conv2d",
            (IMAGE,),
            {"out_channels": 4, "kernel_size": 1, "groups": 4},
            "divide the input channels .got 4 and 6",
        ),
        (
            "conv2d",
            (IMAGE,),
            {"out_channels": 4, "kernel_size": 1, "groups": 3},
            "divide the output channels .got 3 and 4",
        ),
        ("conv2d", (IMAGE,), {"out_channels": 4, "kernel_size": 10}, "window of 10 does not fit into 9"),
        (
            "conv2d",
            (IMAGE,),
            {"out_channels": 4, "kernel_size": 3, "dilation": 5},
            "window of 11 does not fit into 9",
        ),
        ("max_pool2d", ((5,),), {"kernel_size": 2}, r"\(channels, height, width\)"),
        ("max_pool2d", (IMAGE,), {"kernel_size": 3, "padding": 2}, "at most half the kernel"),
        ("avg_pool2d", (IMAGE,), {"kernel_size": (1, 9)}, "window of 9 does not fit into 8"),
        ("batch_norm", ((5, 7, 1, 1, 1),), {}, "channels and at most three axes of space"),
        ("group_norm", (IMAGE,), {"groups": 4}, "'groups' to divide the channels .got 4 and 6"),
        ("global_avg_pool2d", ((5,),), {}, r"\(channels, height, width\)"),
        ("mean", ((5, 7),), {"axis": 2}, "an axis below 2"),
        ("mean", ((5,),), {"axis": 0}, "one must remain"),
        ("softmax", ((5,),), {"axis": 1}, "an axis below 1"),
        ("add", ((5,), (6,)), {}, r"broadcast axis by axis .got \(5,\), \(6,\)"),
        ("add", ((5, 1), (5, 2), (5,)), {}, "broadcast axis by axis"),
        ("mul", ((5,), (6,)), {}, "broadcast axis by axis"),
        ("mul", ((5,), (5, 1)), {}, "broadcast axis by axis"),
        ("concat", ((5, 2), (5, 3)), {}, "differ on axis 0 only"),
        ("concat", ((5,), (5, 3)), {}, "differ on axis 0 only"),
        ("concat", ((5,), (5,)), {"axis": 1}, "an axis below 1"),
        ("reshape", ((5,),), {"shape": (2, 3)}, "as many elements as"),
        ("permute", ((5, 2),), {"order": (0, 0)}, "an order of the axes"),
        ("permute", ((5, 2),), {"order": (0, 1, 2)}, "an order of the axes"),
        ("attention", ((5, 8), (5, 8), (6, 8)), {"num_heads": 2}, "key like value"),
        ("attention", ((5, 8), (5, 6), (5, 6)), {"num_heads": 2}, "of one width"),
        ("attention", ((8,), (8,), (8,)), {"num_heads": 2}, r"\(tokens, dim\)"),
        (
            "attention",
            ((5, 8), (5, 8), (5, 8)),
            {"num_heads": 3},
            "'num_heads' to divide the width .got 3 and 8",
        ),
        ("attention", ((2, 5, 8), (3, 5, 8), (3, 5, 8)), {"num_heads": 1}, "key like value"),
        ("attention", ((5, 8), (5, 8), (5, 6)), {"num_heads": 4}, "divide the width .got 4 and 6"),
        ("attention", ((5, 8), (7, 8), (7, 8), (7, 5)), {"num_heads": 2}, r"scores \(2, 5, 7\)"),
        ("attention", ((5, 8), (7, 8), (7, 8), (1, 5, 7)), {"num_heads": 1}, r"scores \(5, 7\)"),
        ("conv1d", (IMAGE,), {"out_channels": 4, "kernel_size": 1}, r"\(channels, length\)"),
        (
            "conv_transpose1d",
            ((4, 1),),
            {"out_channels": 4, "kernel_size": 2, "padding": 1},
            "nothing remains",
        ),
        (
            "conv_transpose1d",
            ((4, 5),),
            {"out_channels": 4, "kernel_size": 2, "output_padding": 1},
            "output padding below stride or dilation .got 1, 1, 1",
        ),
        ("apply_conv2d", (IMAGE, (4, 5, 1, 1)), {}, r"a weight for 6 channels in 1 groups"),
        ("apply_conv2d", (IMAGE, (4, 6, 1, 1), (5,)), {}, r"a bias of shape \(4,\)"),
        ("apply_linear", ((5, 7), (3, 6)), {}, r"a weight of shape \(out, 7\)"),
        ("apply_linear", ((5, 7), (3, 7), (7,)), {}, r"a bias of shape \(3,\)"),
        ("apply_layer_norm", ((5, 7), (5,)), {}, "scale and shift of the last axes"),
        ("bilinear", ((5, 7), (6, 7)), {"out_features": 3}, "differ on the last axis only"),
        ("matmul", ((5, 7), (5, 7)), {}, r"shapes \(..., T, D\) and \(..., D, S\)"),
        ("matmul", ((2, 5, 7), (3, 7, 5)), {}, "broadcast axis by axis"),
        ("einsum", ((5, 7),), {"equation": "ij"}, "an equation such as"),
        ("einsum", ((5, 7),), {"equation": "ij->"}, "an equation such as"),
        ("einsum", ((5, 7),), {"equation": "...j->j"}, "an equation such as"),
        ("einsum", ((5, 7),), {"equation": "ijk->k"}, "one letter per axis"),
        ("einsum", ((5, 7),), {"equation": "ii->i"}, "one size for 'i' in 'ii->i' .got 5 and 7"),
        ("einsum", ((5, 7),), {"equation": "ij->ii"}, "a result of different letters"),
        ("einsum", ((5, 7),), {"equation": "ij->k"}, "a result of different letters"),
        ("lstm", ((5,),), {"hidden_size": 3}, r"\(steps, features\)"),
        ("lstm", ((5, 7), (2,)), {"hidden_size": 3}, r"a state of shape \(3,\)"),
        ("lstm", ((5, 7),), {"hidden_size": 3, "proj_size": 3}, "'proj_size' below 'hidden_size'"),
        ("layer_norm", ((5,),), {"axes": 2}, "at least 2 axes"),
        ("upsample", ((5, 7),), {"size": (3, 3)}, "channels and 2 axes of space"),
        ("upsample", ((5, 7),), {"size": (3,), "mode": "bicubic"}, "'bicubic' is for 2 axes"),
        ("upsample", ((5, 7),), {"size": (3,), "align_corners": True}, "'nearest' cannot align"),
        ("pixel_shuffle", (IMAGE,), {"factor": 2}, r"channels that 2\^2 divides"),
        ("reduce_sum", ((5, 7),), {"axes": (0, 1)}, "one must remain"),
        ("reduce_sum", ((5, 7),), {"axes": (0, 2)}, "axes below 2"),
        ("clamp", ((5,),), {"low": 1.0, "high": 0.0}, "'low' up to 'high'"),
        ("prelu", (IMAGE, (5,)), {}, r"slopes of shape \(1,\) or \(6,\)"),
        ("slice", ((5,),), {"axis": 0, "start": 2, "stop": 2}, "'start' below 'stop' up to 5"),
        ("slice", ((5,),), {"axis": 0, "start": 2, "stop": 6}, "'start' below 'stop' up to 5"),
        ("expand", ((5, 2),), {"shape": (5, 4)}, "axes of size one"),
        ("pad", ((5, 2),), {"amounts": (1, 2)}, "two amounts for each axis"),
        ("pad", ((5,),), {"amounts": (1, 5), "mode": "reflect"}, "amounts up to 4 for 5"),
        ("pad", ((5,),), {"amounts": (6, 0), "mode": "circular"}, "amounts up to 5 for 5"),
    ],
)
def test_what_cannot_run_is_refused_where_it_is_added(
    op: str, inputs: tuple[Shape, ...], attrs: dict[str, object], message: str
) -> None:
    graph = GraphBuilder()
    reads = OPS[op].reads
    sources = [
        graph("input", shape=shape, dtype="int" if reads[min(place, len(reads) - 1)] == "int" else "float")
        for place, shape in enumerate(inputs)
    ]
    with pytest.raises(InvalidGraphError, match=rf"Node {len(inputs)} \({op}\): .*{message}"):
        graph(op, *sources, **attrs)


@pytest.mark.parametrize(
    ("op", "attrs", "message"),
    [
        ("conv9d", {}, "No operator named 'conv9d'. Close: conv[123]d, "),
        ("?", {}, "No operator named '.'. All are in 'nasgraph.ir.OPS'"),
        ("relu", {"slope": 1}, "'relu' has no attribute 'slope'. It has: none"),
        ("conv2d", {"out_channels": 4, "kernel": 3}, "no attribute 'kernel'. It has: bias, dilation, groups"),
        (
            "conv2d",
            {"out_channels": 4},
            "'conv2d' needs the attribute 'kernel_size': an integer or two integers",
        ),
        (
            "linear",
            {"out_features": 0},
            "'out_features' of 'linear': expected an integer between 1 and .* .got 0.",
        ),
        ("linear", {"out_features": 2**20 + 1}, "expected an integer between 1 and"),
        ("linear", {"out_features": 4.0}, "expected an integer .*got 4.0"),
        ("linear", {"out_features": True}, "expected an integer .*got True"),
        ("linear", {"out_features": None}, "expected an integer .*got None"),
        ("linear", {"out_features": 4, "bias": 1}, "'bias' of 'linear': expected true or false .got 1."),
        ("conv2d", {"out_channels": 4, "kernel_size": (3, 3, 3)}, "expected an integer or two integers"),
        ("conv2d", {"out_channels": 4, "kernel_size": (3, 0)}, "expected an integer or two integers"),
        ("conv2d", {"out_channels": 4, "kernel_size": "33"}, "expected an integer or two integers"),
        ("input", {"shape": ()}, "expected 1 to 8 integers"),
        ("input", {"shape": (1,) * 9}, "expected 1 to 8 integers"),
        ("input", {"shape": (4,), "dtype": "double"}, "'dtype' of 'input': expected one of float, int"),
        ("dropout", {"p": 1.1}, "'p' of 'dropout': expected a number between 0 and 1.0"),
        ("affine", {"scale": float("inf")}, "expected a number between -3.5e.38 and 3.5e.38"),
        ("affine", {"scale": 10**400}, "expected a number"),
        ("opaque", {"name": "a'b", "shape": (1,)}, "expected 1 to 120 letters, digits, spaces or any of"),
        ("opaque", {"name": "", "shape": (1,)}, "expected 1 to 120 letters"),
        ("opaque", {"name": "x" * 121, "shape": (1,)}, "expected 1 to 120 letters"),
        ("reduce_sum", {"axes": (1, 1)}, "expected 1 to 8 different integers"),
        ("reduce_sum", {"axes": ()}, "expected 1 to 8 different integers"),
        ("conv1d", {"out_channels": 4, "kernel_size": (3, 3)}, "expected an integer between 1 and 1,024"),
        ("conv3d", {"out_channels": 4, "kernel_size": (3, 3)}, "expected an integer or three integers"),
        ("pad", {"amounts": (-1, 0)}, "expected 2 to 16 integers between 0"),
        ("dropout", {"p": float("nan")}, "expected a number"),
        ("dropout", {"p": True}, "expected a number"),
        ("layer_norm", {"eps": 0.0}, "expected a number"),
        ("linear", {"out_features": "9" * 500}, r"got '9+\.\.\."),
    ],
)
def test_wrong_attributes_are_refused_in_words(op: str, attrs: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidGraphError, match=message):
        make_node(op, (0,), **attrs)


def test_attributes_come_in_normal_form() -> None:
    node = make_node("conv2d", [0], kernel_size=3, out_channels=4, stride=[2, 1])
    assert node.inputs == (0,)
    assert [name for name, _ in node.attrs] == sorted(OPS["conv2d"].attrs)
    assert node.attr("kernel_size") == (3, 3)
    assert node.attr("stride") == (2, 1)
    assert node.attr("bias") is False
    with pytest.raises(KeyError):
        node.attr("eps")


def test_equal_values_of_another_type_are_told_apart_whatever_came_before() -> None:
    for good, bad in ((True, 1), (False, 0)):
        make_node("linear", (0,), out_features=4, bias=good)
        with pytest.raises(InvalidGraphError, match="expected true or false"):
            make_node("linear", (0,), out_features=4, bias=bad)
    make_node("max_pool2d", (0,), kernel_size=(1, 1))
    for wrong in ((1.0, 1), (True, 1)):
        with pytest.raises(InvalidGraphError, match="expected an integer or two integers"):
            make_node("max_pool2d", (0,), kernel_size=wrong)


def test_axes_are_stored_in_order() -> None:
    assert make_node("reduce_sum", (0,), axes=[2, 0]) == make_node("reduce_sum", (0,), axes=(0, 2))


def test_equal_numbers_are_written_alike() -> None:
    zero, minus_zero, integer = (make_node("dropout", (0,), p=p).attr("p") for p in (0.0, -0.0, 0))
    assert str(zero) == str(minus_zero) == str(integer) == "0.0"


@pytest.mark.parametrize("op", sorted(OPS))
def test_the_table_is_sound(op: str) -> None:
    entry = OPS[op]
    fewest, most = entry.num_inputs
    assert 0 <= fewest <= most
    assert entry.summary
    assert not entry.commutative or fewest > 1
    for attr in entry.attrs.values():
        assert attr.describe()
        if attr.default is not None:
            normal = attr.normalise(attr.default)
            assert (normal, type(normal)) == (attr.default, type(attr.default))


def test_fan_in_is_what_one_output_sums_over() -> None:
    assert ParameterSpec((8, 4, 3, 3), "weight").fan_in == 36
    assert ParameterSpec((8,), "bias").fan_in == 1
    assert ParameterSpec((8, 4), "weight", 7).fan_in == 7
    graph = GraphBuilder()
    x = graph("input", shape=(6, 8, 8))
    x = graph("conv_transpose2d", x, out_channels=4, kernel_size=(3, 5), groups=2)
    own = graph("parameter", shape=(4, 1, 1), role="weight", fan_in=9)
    specs = list(graph.finish(graph("mul", x, own)).parameters.values())
    assert [spec.fan_in for spec in specs] == [45, 9]
