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
    *("dropout", "identity", "zero"),
)
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
]


def applied(case: Case) -> ComputationalGraph:
    graph = GraphBuilder()
    dtype = "int" if case.op == "embedding" else "float"
    sources = [graph("input", shape=shape, dtype=dtype) for shape in case.inputs]
    if case.op == "parameter":
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
        ("batch_norm", ((5, 7),), {}, "expected .channels, height, width. or .features"),
        ("group_norm", (IMAGE,), {"groups": 4}, "'groups' to divide the channels .got 4 and 6"),
        ("global_avg_pool2d", ((5,),), {}, r"\(channels, height, width\)"),
        ("mean", ((5, 7),), {"axis": 2}, "an axis below 2"),
        ("mean", ((5,),), {"axis": 0}, "one must remain"),
        ("softmax", ((5,),), {"axis": 1}, "an axis below 1"),
        ("add", ((5,), (6,)), {}, r"equal shapes .got \(5,\), \(6,\)"),
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
    ],
)
def test_what_cannot_run_is_refused_where_it_is_added(
    op: str, inputs: tuple[Shape, ...], attrs: dict[str, object], message: str
) -> None:
    graph = GraphBuilder()
    sources = [graph("input", shape=shape) for shape in inputs]
    with pytest.raises(InvalidGraphError, match=rf"Node {len(inputs)} \({op}\): .*{message}"):
        graph(op, *sources, **attrs)


@pytest.mark.parametrize(
    ("op", "attrs", "message"),
    [
        ("conv3d", {}, "No operator named 'conv3d'. Known: .*conv2d"),
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
        ("dropout", {"p": 1.0}, "'p' of 'dropout': expected a number between 0 and 0.99"),
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
