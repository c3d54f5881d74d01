"""Values of operators against torch's layers and functions; weights that are inputs; constants; what cannot be run."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.errors import UnsupportedOpError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.modules import Program, RunContext, build, initial_parameters
from tests.modules.operator_cases import FUNCTIONS, IMAGE, SIGNAL, VOLUME, Shape
from tests.modules.samples import random_inputs, single_op_graph

Attrs = dict[str, object]


def randomised(layer: nn.Module) -> nn.Module:
    """The layer in double precision, with parameters that are neither one nor zero."""
    rng = torch.Generator().manual_seed(1)
    layer = layer.double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=rng)
    return layer


def run(
    graph: ComputationalGraph,
    inputs: list[Tensor],
    parameters: Mapping[str, Tensor] | None = None,
    *,
    constants: dict[int, Tensor] | None = None,
) -> Tensor:
    """Output of a graph with one output."""
    context = RunContext(batch_size=len(inputs[0]), constants=constants or {})
    (result,) = Program(graph)(parameters or {}, inputs, context)
    return result


LAYERS: dict[str, tuple[str, Callable[[], nn.Module], tuple[Shape, ...], Attrs]] = {
    "conv1d": (
        "conv1d",
        lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2),
        (SIGNAL,),
        {"out_channels": 6, "kernel_size": 3, "stride": 2, "padding": 1, "groups": 2, "bias": True},
    ),
    "conv3d": (
        "conv3d",
        lambda: nn.Conv3d(4, 6, (3, 2, 1), dilation=(1, 2, 1), bias=False),
        (VOLUME,),
        {"out_channels": 6, "kernel_size": (3, 2, 1), "dilation": (1, 2, 1)},
    ),
    **{
        f"conv_transpose{dims}d": (
            f"conv_transpose{dims}d",
            partial(layer, 4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
            (shape,),
            {
                **{"out_channels": 6, "kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
                **{"groups": 2, "bias": True},
            },
        )
        for dims, layer, shape in (
            (1, nn.ConvTranspose1d, SIGNAL),
            (2, nn.ConvTranspose2d, IMAGE),
            (3, nn.ConvTranspose3d, VOLUME),
        )
    },
    "bilinear": ("bilinear", lambda: nn.Bilinear(5, 4, 3), ((2, 5), (2, 4)), {"out_features": 3}),
    "group norm without parameters": (
        "group_norm",
        lambda: nn.GroupNorm(2, 4, affine=False),
        (IMAGE,),
        {"groups": 2, "affine": False},
    ),
    "instance norm": (
        "group_norm",
        lambda: nn.InstanceNorm2d(4, affine=True),
        (IMAGE,),
        {"groups": 4},
    ),
    "layer norm of two axes": ("layer_norm", lambda: nn.LayerNorm((9, 7)), (IMAGE,), {"axes": 2}),
    "layer norm without shift": (
        "layer_norm",
        lambda: nn.LayerNorm(7, bias=False),
        (IMAGE,),
        {"bias": False},
    ),
    "rms norm": ("rms_norm", lambda: nn.RMSNorm((9, 7), eps=1e-6), (IMAGE,), {"axes": 2, "eps": 1e-6}),
    "max pool": (
        "max_pool2d",
        lambda: nn.MaxPool2d(3, 2, 1, dilation=2, ceil_mode=True),
        (IMAGE,),
        {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True},
    ),
    "avg pool": (
        "avg_pool2d",
        lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        (IMAGE,),
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": True},
    ),
    "max pool 3d": (
        "max_pool3d",
        lambda: nn.MaxPool3d(2, 2, 1),
        (VOLUME,),
        {"kernel_size": 2, "stride": 2, "padding": 1},
    ),
    "avg pool 3d": (
        "avg_pool3d",
        lambda: nn.AvgPool3d(2, 2, 1, count_include_pad=False),
        (VOLUME,),
        {"kernel_size": 2, "stride": 2, "padding": 1},
    ),
    "adaptive avg pool": (
        "adaptive_avg_pool2d",
        lambda: nn.AdaptiveAvgPool2d((4, 2)),
        (IMAGE,),
        {"size": (4, 2)},
    ),
    "adaptive max pool": (
        "adaptive_max_pool2d",
        lambda: nn.AdaptiveMaxPool2d((4, 2)),
        (IMAGE,),
        {"size": (4, 2)},
    ),
    "upsample": (
        "upsample",
        lambda: nn.Upsample((12, 5), mode="bilinear", align_corners=True),
        (IMAGE,),
        {"size": (12, 5), "mode": "bilinear", "align_corners": True},
    ),
    "upsample nearest": ("upsample", lambda: nn.Upsample((12, 5)), (IMAGE,), {"size": (12, 5)}),
    "pixel shuffle": ("pixel_shuffle", lambda: nn.PixelShuffle(2), (IMAGE,), {"factor": 2}),
    "reflection pad": (
        "pad",
        lambda: nn.ReflectionPad2d((1, 2, 3, 0)),
        (IMAGE,),
        {"amounts": (0, 0, 3, 0, 1, 2), "mode": "reflect"},
    ),
    "replication pad": (
        "pad",
        lambda: nn.ReplicationPad2d((1, 2, 3, 0)),
        (IMAGE,),
        {"amounts": (0, 0, 3, 0, 1, 2), "mode": "replicate"},
    ),
    "circular pad": (
        "pad",
        lambda: nn.CircularPad2d((1, 2, 3, 0)),
        (IMAGE,),
        {"amounts": (0, 0, 3, 0, 1, 2), "mode": "circular"},
    ),
    "constant pad": (
        "pad",
        lambda: nn.ConstantPad2d((1, 2, 3, 0), 0.5),
        (IMAGE,),
        {"amounts": (0, 0, 3, 0, 1, 2), "value": 0.5},
    ),
    "leaky relu": ("leaky_relu", lambda: nn.LeakyReLU(0.3), (IMAGE,), {"slope": 0.3}),
    "elu": ("elu", lambda: nn.ELU(0.3), (IMAGE,), {"alpha": 0.3}),
    "celu": ("celu", lambda: nn.CELU(0.3), (IMAGE,), {"alpha": 0.3}),
    "gelu": ("gelu", lambda: nn.GELU("tanh"), (IMAGE,), {"approximate": "tanh"}),
    "softplus": ("softplus", lambda: nn.Softplus(2.0, 1.0), (IMAGE,), {"beta": 2.0, "threshold": 1.0}),
    "relu6": ("relu6", nn.ReLU6, (IMAGE,), {}),
    "selu": ("selu", nn.SELU, (IMAGE,), {}),
    "mish": ("mish", nn.Mish, (IMAGE,), {}),
    "log sigmoid": ("log_sigmoid", nn.LogSigmoid, (IMAGE,), {}),
    "softsign": ("softsign", nn.Softsign, (IMAGE,), {}),
    "log softmax": ("log_softmax", lambda: nn.LogSoftmax(2), (IMAGE,), {"axis": 1}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_an_operator_computes_what_the_layer_of_torch_computes(name: str) -> None:
    op, make_layer, shapes, attrs = LAYERS[name]
    layer = randomised(make_layer())
    graph = single_op_graph(op, shapes, attrs)
    parameters = {f"n{len(graph) - 1}.{own}": tensor for own, tensor in layer.named_parameters()}
    assert {own: tuple(tensor.shape) for own, tensor in parameters.items()} == {
        own: spec.shape for own, spec in graph.parameters.items()
    }
    inputs = random_inputs(graph, batch_size=3, dtype=torch.double)
    torch.testing.assert_close(run(graph, inputs, parameters), layer(*inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) & set(dir(torch))))
def test_a_function_of_one_number_is_that_of_torch(name: str) -> None:
    graph = single_op_graph(name, (IMAGE,), {})
    (x,) = random_inputs(graph, batch_size=2, dtype=torch.double)
    torch.testing.assert_close(run(graph, [x]), getattr(torch, name)(x), equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "expected"),
    [
        ("sub", (IMAGE, (4, 1, 1)), {}, lambda x, y: x - y),
        ("div", (IMAGE, (4, 1, 1)), {}, lambda x, y: x / y),
        ("maximum", ((3,), (3,)), {}, lambda x, y: torch.stack([x, y]).amax(0)),
        ("minimum", ((3,), (3,)), {}, lambda x, y: torch.stack([x, y]).amin(0)),
        ("power", ((3,), (1,)), {}, lambda x, y: x**y),
        ("where", ((2, 1), (2, 3), (1, 3)), {}, lambda c, x, y: (c > 0) * x + (c == 0) * y),
        ("compare", ((3,), (3,)), {"kind": "lt"}, lambda x, y: (y > x).long()),
        ("compare_scalar", ((3,),), {"kind": "ge", "value": 0.1}, lambda x: 1 - (x < 0.1).long()),
        ("cast", ((3,),), {"dtype": "int"}, lambda x: x.trunc().long()),
        ("affine", ((3,),), {"scale": 3.0, "shift": -1.0}, lambda x: 3 * x - 1),
        ("power_scalar", ((3,),), {"exponent": 3.0}, lambda x: x * x * x),
        ("clamp", ((3,),), {"low": -0.2, "high": 0.3}, lambda x: x.where(x > -0.2, -0.2).where(x < 0.3, 0.3)),
        ("prelu", (IMAGE, (4,)), {}, lambda x, s: x.relu() - s[:, :, None, None] * (-x).relu()),
        ("mean", (IMAGE,), {"axis": 1, "keepdims": True}, lambda x: x.mean(2, True)),
        ("reduce_sum", (IMAGE,), {"axes": (0, 2)}, lambda x: torch.einsum("bchw->bh", x)),
        ("reduce_max", (IMAGE,), {"axes": (0, 2)}, lambda x: x.amax((1, 3))),
        ("reduce_min", (IMAGE,), {"axes": (2, 0), "keepdims": True}, lambda x: x.amin((1, 3), True)),
        ("reduce_var", ((5, 2),), {"axes": (0,)}, lambda x: (x - x.mean(1, True)).square().sum(1) / 4),
        ("reduce_var", ((5, 2),), {"axes": (0,), "correction": 0}, lambda x: x.var(1, correction=0)),
        ("cumsum", ((5, 2),), {"axis": 0}, lambda x: torch.ones(5, 5).double().tril() @ x),
        ("slice", (IMAGE,), {"axis": 1, "start": 1, "stop": 6, "step": 2}, lambda x: x[:, :, [1, 3, 5]]),
        ("expand", ((4, 1),), {"shape": (4, 3)}, lambda x: torch.cat([x] * 3, 2)),
        ("roll", ((5,),), {"axis": 0, "shift": 2}, lambda x: x[:, [3, 4, 0, 1, 2]]),
        ("flip", ((3,),), {"axis": 0}, lambda x: x[:, [2, 1, 0]]),
        (
            "gather",
            ((3, 2), (3, 4)),
            {"axis": 0},
            lambda x, i: torch.stack([x[b].gather(0, i[b][:, :2]) for b in range(3)]),
        ),
        ("take", ((5, 3), (4,)), {"axis": 0}, lambda x, i: torch.stack([x[b][i[b]] for b in range(3)])),
        ("matmul", ((2, 3), (3, 4)), {}, lambda x, y: torch.stack([x[b] @ y[b] for b in range(3)])),
        ("einsum", ((2, 3), (3, 2)), {"equation": "ij,ji->i"}, lambda x, y: (x * y.mT).sum(2)),
        ("apply_embedding", ((4,), (3, 2)), {}, lambda i, t: torch.stack([t[b][i[b]] for b in range(3)])),
    ],
)
def test_an_operator_is_a_plain_tensor_function(
    op: str, shapes: tuple[Shape, ...], attrs: Attrs, expected: Callable[..., Any]
) -> None:
    if op == "gather":
        shapes = (shapes[0], (3, 2))
    graph = single_op_graph(op, shapes, attrs)
    inputs = random_inputs(graph, batch_size=3, dtype=torch.double)
    torch.testing.assert_close(run(graph, inputs), expected(*inputs), equal_nan=True, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize(
    ("op", "make_layer", "attrs"),
    [
        ("lstm", lambda **more: nn.LSTM(3, 4, **more), {}),
        ("lstm", lambda **more: nn.LSTM(3, 4, proj_size=2, **more), {"proj_size": 2}),
        ("lstm", lambda **more: nn.LSTM(3, 4, bias=False, **more), {"bias": False}),
        ("gru", lambda **more: nn.GRU(3, 4, **more), {}),
        ("rnn", lambda **more: nn.RNN(3, 4, **more), {}),
        ("rnn", lambda **more: nn.RNN(3, 4, nonlinearity="relu", **more), {"nonlinearity": "relu"}),
    ],
)
def test_a_recurrent_operator_is_one_layer_of_torch_in_one_direction(
    op: str, make_layer: Callable[..., nn.Module], attrs: Attrs, with_states: bool, reverse: bool
) -> None:
    layer = randomised(make_layer(batch_first=True, bidirectional=True))
    width = int(str(attrs.get("proj_size", 4)))
    states: tuple[Shape, ...] = ((width,), (4,))[: 2 if op == "lstm" else 1] if with_states else ()
    graph = single_op_graph(op, ((5, 3), *states), {"hidden_size": 4, "reverse": reverse, **attrs})
    suffix = "_l0_reverse" if reverse else "_l0"
    own = dict(layer.named_parameters())
    parameters = {name: own[name.split(".")[1] + suffix] for name in graph.parameters}
    inputs = random_inputs(graph, batch_size=2, dtype=torch.double)
    x, *given = inputs
    both = [torch.stack([state, state]) for state in given]
    hidden = (tuple(both) if op == "lstm" else both[0]) if given else None
    expected = layer(x, hidden)[0][..., width:] if reverse else layer(x, hidden)[0][..., :width]
    torch.testing.assert_close(run(graph, inputs, parameters), expected, rtol=1e-12, atol=1e-12)


# ---- weights that are inputs


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "function"),
    [
        ("apply_linear", ((2, 5), (3, 5), (3,)), {}, F.linear),
        ("apply_conv1d", (SIGNAL, (6, 4, 3), (6,)), {}, F.conv1d),
        ("apply_conv2d", (IMAGE, (6, 4, 3, 3), (6,)), {}, F.conv2d),
        ("apply_conv3d", (VOLUME, (6, 4, 2, 2, 2), (6,)), {}, F.conv3d),
        ("apply_conv_transpose1d", (SIGNAL, (4, 6, 3), (6,)), {}, F.conv_transpose1d),
        ("apply_conv_transpose2d", (IMAGE, (4, 6, 3, 3), (6,)), {}, F.conv_transpose2d),
        ("apply_conv_transpose3d", (VOLUME, (4, 6, 2, 2, 2), (6,)), {}, F.conv_transpose3d),
        ("apply_layer_norm", (IMAGE, (9, 7), (9, 7)), {}, lambda x, w, b: F.layer_norm(x, (9, 7), w, b)),
    ],
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_weights_computed_from_the_data_are_applied_to_each_example(
    op: str, shapes: tuple[Shape, ...], attrs: Attrs, function: Callable[..., Tensor], with_bias: bool
) -> None:
    graph = single_op_graph(op, shapes if with_bias else shapes[:2], attrs)
    inputs = random_inputs(graph, batch_size=3, dtype=torch.double)
    expected = [
        function(x[None], *given, *(() if with_bias else (None,))) for x, *given in zip(*inputs, strict=True)
    ]
    torch.testing.assert_close(run(graph, inputs), torch.cat(expected), rtol=1e-12, atol=1e-12)


def test_a_shared_parameter_is_one_tensor_with_gradients_from_every_use() -> None:
    g = GraphBuilder()
    ids = g("input", shape=(5,), dtype="int")
    table = g("parameter", shape=(3, 4), role="embedding")
    x = g("apply_embedding", ids, table)
    graph = g.finish(g("apply_linear", g("tanh", x), table))
    assert [(n, s.shape, s.role) for n, s in graph.parameters.items()] == [("n1.weight", (3, 4), "embedding")]
    module = build(graph)
    (tokens,) = random_inputs(graph, batch_size=2)
    weight = dict(module.named_parameters())["n1.weight"]
    torch.testing.assert_close(module(tokens), weight[tokens].tanh() @ weight.T)
    module(tokens).sum().backward()
    assert weight.grad is not None


# ---- attention


def tensors(*shapes: Shape) -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=rng, dtype=torch.double) for shape in shapes]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["float", "int"])
@pytest.mark.parametrize("mask_shape", [(4, 5), (1, 5), (2, 4, 5), (2, 1, 5), (1, 4, 1)])
def test_a_mask_is_added_or_tells_what_is_attended(mask_shape: Shape, kind: str, causal: bool) -> None:
    shapes = ((4, 6), (5, 6), (5, 8))
    query, key, value, mask = tensors(*((3, *shape) for shape in (*shapes, mask_shape)))
    if kind == "int":
        mask = (mask > -1).long()
        mask[..., 0] = 1
    g = GraphBuilder()
    sources = [g("input", shape=shape) for shape in shapes]
    sources.append(g("input", shape=mask_shape, dtype=kind))
    graph = g.finish(g("attention", *sources, num_heads=2, causal=causal, scale=0.7))
    result = run(graph, [query, key, value, mask])

    q, k, v = (x.unflatten(-1, (2, -1)).movedim(-2, 1) for x in (query, key, value))  # type: ignore[no-untyped-call]
    scores = 0.7 * q @ k.mT
    mask = mask if mask.dim() == 4 else mask[:, None]
    scores = scores + mask if kind == "float" else scores.masked_fill(mask == 0, -torch.inf)
    if causal:
        scores = scores.masked_fill(torch.ones(4, 5).triu(1) == 1, -torch.inf)
    expected = (scores.softmax(-1) @ v).movedim(1, -2).flatten(-2)
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)


def test_a_mask_of_each_example_may_act_on_what_is_the_same_for_all() -> None:
    (tokens,) = tensors((4, 6))
    g = GraphBuilder()
    mask = g("input", shape=(4, 4), dtype="int")
    shared = g("parameter", shape=(4, 6))
    graph = g.finish(g("attention", shared, shared, shared, mask, num_heads=2))
    masks = torch.stack([torch.ones(4, 4).tril(), torch.eye(4), torch.ones(4, 4)]).long()
    state = dict.fromkeys(graph.parameters, tokens)
    together = Program(graph)(state, [masks], RunContext(batch_size=3))[0]
    for place, one in enumerate(masks):
        alone = Program(graph)(state, [one[None]], RunContext(batch_size=1))[0]
        torch.testing.assert_close(together[place], alone[0])


@pytest.mark.parametrize("heads", [1, 2])
def test_further_axes_of_attention_are_like_a_batch(heads: int) -> None:
    query, key, value = tensors((2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 8))
    shapes = tuple(tuple(x.shape[1:]) for x in (query, key, value))
    inner = tuple(tuple(x.shape[2:]) for x in (query, key, value))
    result = run(single_op_graph("attention", shapes, {"num_heads": heads}), [query, key, value])
    flat = run(
        single_op_graph("attention", inner, {"num_heads": heads}),
        [x.flatten(0, 1) for x in (query, key, value)],
    )
    torch.testing.assert_close(result.flatten(0, 1), flat, rtol=1e-12, atol=1e-12)


# ---- integers


def test_integers_stay_integers_and_become_real_numbers_of_the_modules_precision() -> None:
    g = GraphBuilder()
    ids = g("input", shape=(3,), dtype="int")
    shifted = g("affine", ids, scale=2.0, shift=1.0)
    half = g("affine", shifted, scale=0.5)
    low = g("clamp", shifted, low=2.0, high=4.0)
    graph = g.finish(shifted, half, low, g("linear", half, out_features=1))
    assert graph.dtypes == ("int", "int", "float", "int", "float")
    module = build(graph).double()
    values = torch.tensor([[0, 1, 2]])
    first, second, third, _ = module(values)
    assert first.tolist() == [[1, 3, 5]]
    assert third.tolist() == [[2, 3, 4]]
    torch.testing.assert_close(second, torch.tensor([[0.5, 1.5, 2.5]], dtype=torch.double))


def test_truth_values_are_the_integers_zero_and_one() -> None:
    graph = single_op_graph("compare_scalar", ((2,),), {"kind": "eq", "value": 0.0})
    g = GraphBuilder()
    mask = g("input", shape=(2,), dtype="int")
    opposite = g("affine", mask, scale=-1.0, shift=1.0)
    graph = g.finish(g("add", opposite, opposite))
    assert run(graph, [torch.tensor([[True, False]])]).tolist() == [[0, 2]]


# ---- constants and what cannot be run


def with_constants() -> ComputationalGraph:
    g = GraphBuilder()
    x = g("input", shape=(2,))
    offset = g("constant", shape=(2,))
    order = g("constant", shape=(2,), dtype="int")
    return g.finish(g("take", g("add", x, offset), order, axis=0))


CONSTANTS = {"n1.value": torch.tensor([10.0, 20.0]), "n2.value": torch.tensor([1, 0])}


def test_constants_are_part_of_the_state_and_not_of_the_parameters() -> None:
    module = build(with_constants(), constants=CONSTANTS)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert module(x).tolist() == [[22.0, 11.0], [24.0, 13.0]]
    assert list(module.parameters()) == []
    assert set(module.state_dict()) == set(CONSTANTS)
    other = build(with_constants(), constants={name: 0 * value for name, value in CONSTANTS.items()})
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x), module(x))
    assert build(with_constants(), device="meta")(x.to("meta")).shape == (2, 2)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({}, r"The constant 'n1.value' of shape \(2,\) is missing: pass it in 'constants'"),
        ({**CONSTANTS, "n1.value": torch.zeros(3)}, r"'n1.value' to have shape \(2,\) \(got \(3,\)\)"),
        (
            {**CONSTANTS, "n2.value": torch.zeros(2)},
            r"'n2.value' to consist of integers \(got torch.float32\)",
        ),
        ({**CONSTANTS, "n1.value": torch.tensor([1, 2])}, r"'n1.value' to consist of real numbers"),
        ({**CONSTANTS, "n3.value": torch.zeros(2)}, "The graph has no constant named 'n3.value'"),
    ],
)
def test_wrong_constants_are_refused_in_words(constants: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(with_constants(), constants=constants)


def test_a_program_without_its_constants_says_which() -> None:
    with pytest.raises(ValueError, match=r"Node 1 \(constant\) has no value: pass 'n1.value'"):
        run(with_constants(), [torch.zeros(1, 2)])


def test_what_is_not_part_of_the_language_is_named_and_not_run() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(4,)), out_features=4)
    graph = g.finish(g("relu", g("opaque", x, name="aten.fft_fft.default", shape=(4,))))
    assert not graph.is_executable
    for make in (Program, build):
        with pytest.raises(UnsupportedOpError, match=r"Cannot run 'aten.fft_fft.default' \(node 2\)"):
            make(graph)
    assert build(with_constants(), constants=CONSTANTS).graph.is_executable


# ---- first weights


def test_a_free_bias_starts_at_zero_unless_it_says_how_many_inputs_it_follows() -> None:
    g = GraphBuilder()
    g("input", shape=(1,))
    free = g("parameter", shape=(1000,), role="bias")
    known = g("parameter", shape=(1000,), role="bias", fan_in=100)
    weight = g("parameter", shape=(1000,), role="weight", fan_in=25)
    first = initial_parameters(g.finish(free, known, weight), seed=0)
    assert not first["n1.weight"].any()
    assert float(first["n2.weight"].abs().max()) == pytest.approx(0.1, rel=0.05)
    assert float(first["n3.weight"].abs().max()) == pytest.approx(0.2, rel=0.05)
