"""The operator table of `nasgraph.ir` and its torch twin, held against each other and against torch's own layers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasgraph.errors import InvalidGraphError
from nasgraph.ir import OPS, ComputationalGraph, GraphBuilder, cost_of
from nasgraph.modules import Program, RunContext, build, initial_parameters
from nasgraph.modules.functional import KERNELS
from tests.modules.operator_cases import ALL_CASES, CASES, Shape
from tests.modules.samples import (
    SPACES,
    random_constants,
    random_inputs,
    sampled_graphs,
    single_op_graph,
    wide_graph,
)

IMAGE = (4, 9, 7)
NO_KERNEL = {"input", "opaque"}
READS_EDGES = {op for op, entry in OPS.items() if entry.reads_edges}  # see test_message_passing


def test_both_tables_and_the_cases_of_these_tests_have_the_same_operators() -> None:
    assert set(KERNELS) == set(OPS) - NO_KERNEL
    assert set(CASES) == set(OPS) - NO_KERNEL - READS_EDGES


def assert_table_holds(graph: ComputationalGraph, *, device: str) -> None:
    """Shapes of all nodes, parameters and multiply-adds of the table are those of torch."""
    everything = ComputationalGraph(graph.nodes, tuple(range(len(graph))))
    module = build(everything, device=device, constants=random_constants(graph)).eval()
    outputs = module(*random_inputs(graph, batch_size=3, device=device))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert [tuple(value.shape) for value in outputs] == [(3, *shape) for shape in graph.shapes]
    assert {name: tuple(tensor.shape) for name, tensor in module.named_parameters()} == {
        name: spec.shape for name, spec in graph.parameters.items()
    }
    cost = cost_of(graph)
    assert sum(parameter.numel() for parameter in module.parameters()) == cost.num_parameters
    # Torch does not count the attention kernel that it has for the CPU, nor what it does for a bilinear map.
    if device == "meta" and all(node.op != "bilinear" for node in graph.nodes):
        with FlopCounterMode(display=False) as counter:
            module(*random_inputs(graph, batch_size=1, device=device))
        assert counter.get_total_flops() == 2 * cost.multiply_adds


PROJECTIONS_WARN = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@PROJECTIONS_WARN
@pytest.mark.parametrize(("op", "input_shapes", "attrs"), ALL_CASES)
def test_shapes_parameters_and_multiply_adds_are_those_of_torch(
    op: str, input_shapes: tuple[Shape, ...], attrs: dict[str, object]
) -> None:
    graph = single_op_graph(op, input_shapes, attrs)
    assert_table_holds(graph, device="cpu")
    assert_table_holds(graph, device="meta")


@PROJECTIONS_WARN
@pytest.mark.parametrize(("op", "input_shapes", "attrs"), ALL_CASES)
def test_whether_a_node_gives_real_numbers_or_integers_is_as_the_table_says(
    op: str, input_shapes: tuple[Shape, ...], attrs: dict[str, object]
) -> None:
    for dtype in ("float", "int"):
        g = GraphBuilder()
        reads = OPS[op].reads
        kinds = [reads[min(place, len(reads) - 1)] for place in range(len(input_shapes))]
        if dtype == "int" and (
            "any" not in kinds or op == "power"
        ):  # torch has no negative powers of integers
            continue
        sources = [
            g("input", shape=shape, dtype=dtype if kind == "any" else kind)
            for shape, kind in zip(input_shapes, kinds, strict=True)
        ]
        graph = g.finish(g(op, *(sources if OPS[op].num_inputs[1] else ()), **attrs))
        module = build(graph, constants=random_constants(graph)).eval()
        (*_, result) = (module(*random_inputs(graph, batch_size=2)),)
        assert result.dtype == (torch.float32 if graph.dtypes[-1] == "float" else torch.int64)
        doubled = module.double()(*random_inputs(graph, batch_size=2, dtype=torch.double))
        assert doubled.is_floating_point() == (graph.dtypes[-1] == "float")


@PROJECTIONS_WARN
@pytest.mark.parametrize(("op", "input_shapes", "attrs"), ALL_CASES)
def test_what_is_the_same_for_every_example_need_not_be_repeated(
    op: str, input_shapes: tuple[Shape, ...], attrs: dict[str, object]
) -> None:
    """Each set of inputs as constants gives what these constants give as inputs, repeated for each example."""
    whole = single_op_graph(op, input_shapes, attrs)
    if OPS[op].num_inputs[1] == 0:
        return
    parameters = {name: t.double() for name, t in initial_parameters(whole, seed=0).items()}
    own = {name.split(".")[1]: tensor for name, tensor in parameters.items()}
    values = random_inputs(whole, batch_size=3, dtype=torch.double)
    for fixed in [(place,) for place in range(len(values))] + [tuple(range(len(values)))]:
        repeated = [v[:1].expand_as(v) if place in fixed else v for place, v in enumerate(values)]
        (expected,) = Program(whole)(parameters, repeated, RunContext(batch_size=3))
        g = GraphBuilder()
        g("input", shape=(1,))  # a graph needs an input
        sources = [
            g("constant" if place in fixed else "input", shape=shape, dtype=whole.dtypes[place])
            for place, shape in enumerate(input_shapes)
        ]
        graph = g.finish(g(op, *sources, **attrs))
        constants = {sources[place]: values[place][0] for place in fixed}
        inputs = [torch.zeros(3, 1, dtype=torch.double)]
        inputs += [v for place, v in enumerate(values) if place not in fixed]
        named = {f"n{len(graph) - 1}.{name}": tensor for name, tensor in own.items()}
        (result,) = Program(graph)(named, inputs, RunContext(batch_size=3, constants=constants))
        torch.testing.assert_close(result, expected, equal_nan=True, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("space", SPACES)
def test_shapes_parameters_and_multiply_adds_of_sampled_networks_are_those_of_torch(space: str) -> None:
    for graph in sampled_graphs(space, 50):
        assert_table_holds(graph, device="meta")


def test_shapes_parameters_and_multiply_adds_of_a_network_with_two_inputs_are_those_of_torch() -> None:
    assert_table_holds(wide_graph(), device="cpu")


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@given(
    channels=st.integers(1, 6),
    size=pairs(1, 9),
    out_channels=st.integers(1, 6),
    kernel=pairs(1, 4),
    stride=pairs(1, 3),
    padding=pairs(0, 2),
    dilation=pairs(1, 3),
    groups=st.integers(1, 3),
    bias=st.booleans(),
)
def test_a_convolution_is_refused_exactly_where_torch_refuses_it(
    channels: int,
    size: tuple[int, int],
    out_channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    bias: bool,
) -> None:
    try:
        layer = nn.Conv2d(
            channels, out_channels, kernel, stride, padding, dilation, groups, bias, device="meta"
        )
        expected = tuple(layer(torch.empty(1, channels, *size, device="meta")).shape[1:])
    except (RuntimeError, ValueError):
        expected = None
    attrs: dict[str, object] = {
        "out_channels": out_channels, "kernel_size": kernel, "stride": stride, "padding": padding,
        "dilation": dilation, "groups": groups, "bias": bias,
    }  # fmt: skip
    try:
        graph = single_op_graph("conv2d", ((channels, *size),), attrs)
    except InvalidGraphError:
        assert expected is None
    else:
        assert graph.shapes[-1] == expected
        assert_table_holds(graph, device="meta")


@given(
    kind=st.sampled_from(["max", "avg"]),
    size=pairs(1, 9),
    kernel=pairs(1, 4),
    stride=pairs(1, 3),
    padding=pairs(0, 3),
    dilation=pairs(1, 3),
    ceil=st.booleans(),
)
def test_a_pooling_is_refused_exactly_where_torch_refuses_it(
    kind: str,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    ceil: bool,
) -> None:
    attrs: dict[str, object] = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "ceil_mode": ceil,
    }
    if kind == "max":
        attrs["dilation"] = dilation
        layer: nn.Module = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)
    else:
        layer = nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil)
    try:
        expected = tuple(layer(torch.empty(1, 2, *size)).shape[1:])
    except RuntimeError:
        expected = None
    try:
        graph = single_op_graph(f"{kind}_pool2d", ((2, *size),), attrs)
    except InvalidGraphError:
        assert expected is None
    else:
        assert graph.shapes[-1] == expected


# ---- values against torch's layers

LAYERS: dict[str, tuple[Callable[[], nn.Module], Shape, dict[str, object]]] = {
    "conv2d": (
        lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        IMAGE,
        {
            **{"out_channels": 6, "kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 2)},
            **{"dilation": (1, 2), "groups": 2, "bias": True},
        },
    ),
    "linear": (lambda: nn.Linear(5, 3), (2, 5), {"out_features": 3}),
    "embedding": (lambda: nn.Embedding(3, 4), (6,), {"num_embeddings": 3, "dim": 4}),
    "group_norm": (lambda: nn.GroupNorm(2, 4, eps=1e-3), IMAGE, {"groups": 2, "eps": 1e-3}),
    "layer_norm": (lambda: nn.LayerNorm(6, eps=1e-3), (3, 6), {"eps": 1e-3}),
    "max_pool2d": (
        lambda: nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0)),
        IMAGE,
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    ),
    "avg_pool2d": (
        lambda: nn.AvgPool2d((3, 2), stride=(2, 1), padding=(1, 0), count_include_pad=False),
        IMAGE,
        {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    ),
    "global_avg_pool2d": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), IMAGE, {}),
    "flatten": (nn.Flatten, IMAGE, {}),
    "reshape": (lambda: nn.Unflatten(1, (2, 2)), IMAGE, {"shape": (2, 2, 9, 7)}),
    "softmax": (lambda: nn.Softmax(dim=2), IMAGE, {"axis": 1}),
    "dropout": (lambda: nn.Dropout(0.5), IMAGE, {"p": 0.5}),
    "identity": (nn.Identity, IMAGE, {}),
    "relu": (nn.ReLU, IMAGE, {}),
    "leaky_relu": (nn.LeakyReLU, IMAGE, {}),
    "elu": (nn.ELU, IMAGE, {}),
    "gelu": (nn.GELU, IMAGE, {}),
    "silu": (nn.SiLU, IMAGE, {}),
    "hardswish": (nn.Hardswish, IMAGE, {}),
    "hardsigmoid": (nn.Hardsigmoid, IMAGE, {}),
    "sigmoid": (nn.Sigmoid, IMAGE, {}),
    "tanh": (nn.Tanh, IMAGE, {}),
}


def randomised(layer: nn.Module) -> nn.Module:
    """The layer with parameters that are neither one nor zero."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=rng)
    return layer


@pytest.mark.parametrize("op", LAYERS)
def test_an_operator_computes_what_the_layer_of_torch_computes(op: str) -> None:
    make_layer, shape, attrs = LAYERS[op]
    layer = randomised(make_layer()).eval()
    graph = single_op_graph(op, (shape,), attrs)
    module = build(graph).eval()
    node = f"n{len(graph) - 1}"
    module.load_state_dict({f"{node}.{name}": tensor for name, tensor in layer.state_dict().items()})
    inputs = random_inputs(graph, batch_size=3)
    assert torch.equal(module(*inputs), layer(*inputs))


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.BatchNorm2d(4, eps=1e-3), IMAGE), (nn.BatchNorm1d(6, eps=1e-3), (6,))]
)
def test_batch_norm_trains_and_infers_like_the_layer_of_torch(layer: nn.Module, shape: Shape) -> None:
    randomised(layer)
    module = build(single_op_graph("batch_norm", (shape,), {"eps": 1e-3}))
    own = {name: tensor for name, tensor in layer.state_dict().items() if name != "num_batches_tracked"}
    module.load_state_dict({f"n1.{name}": tensor for name, tensor in own.items()})
    for step in range(3):
        (x,) = random_inputs(module.graph, batch_size=5, seed=step)
        assert torch.equal(module(x), layer(x))
    state = module.state_dict()
    for name in ("running_mean", "running_var"):
        assert torch.equal(state[f"n1.{name}"], layer.state_dict()[name])
        assert state[f"n1.{name}"].std() > 0.01  # it has learnt something
    module.eval()
    layer.eval()
    assert torch.equal(module(x), layer(x))


def test_batch_norm_without_statistics_uses_those_of_the_batch_in_inference_too() -> None:
    graph = single_op_graph("batch_norm", (IMAGE,), {})
    (x,) = random_inputs(graph, batch_size=5)
    parameters = initial_parameters(graph, seed=0)
    (result,) = Program(graph)(parameters, [x], RunContext(batch_size=5))
    assert torch.equal(result, nn.BatchNorm2d(4, track_running_stats=False).eval()(x))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("num_heads", "num_queries"), [(1, 5), (2, 5), (4, 3)])
def test_attention_between_linear_maps_is_multi_head_attention(
    num_heads: int, num_queries: int, causal: bool
) -> None:
    g = GraphBuilder()
    query, tokens = g("input", shape=(num_queries, 8)), g("input", shape=(5, 8))
    q, k, v = (g("linear", x, out_features=8) for x in (query, tokens, tokens))
    graph = g.finish(g("linear", g("attention", q, k, v, num_heads=num_heads, causal=causal), out_features=8))

    layer = randomised(nn.MultiheadAttention(8, num_heads, batch_first=True))
    own = dict(layer.named_parameters())
    weights, biases = own["in_proj_weight"].chunk(3), own["in_proj_bias"].chunk(3)
    parameters = {f"n{2 + i}.weight": weights[i] for i in range(3)}
    parameters |= {f"n{2 + i}.bias": biases[i] for i in range(3)}
    parameters |= {"n6.weight": own["out_proj.weight"], "n6.bias": own["out_proj.bias"]}
    inputs = random_inputs(graph, batch_size=2)
    (result,) = Program(graph)(parameters, inputs, RunContext(batch_size=2))
    mask = torch.ones(num_queries, 5, dtype=torch.bool).triu(1) if causal else None
    expected, _ = layer(inputs[0], inputs[1], inputs[1], attn_mask=mask)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "expected"),
    [
        ("add", (IMAGE, IMAGE, IMAGE), {}, lambda x, y, z: x + y + z),
        ("mul", (IMAGE, (4, 1, 1)), {}, lambda x, y: x * y),
        ("concat", ((2, 3), (2, 4)), {"axis": 1}, lambda x, y: torch.cat([x, y], 2)),
        ("permute", (IMAGE,), {"order": (2, 0, 1)}, lambda x: torch.einsum("bijk->bkij", x)),
        ("mean", (IMAGE,), {"axis": 1}, lambda x: x.sum(2) / 9),
        ("zero", (IMAGE,), {}, lambda x: 0 * x),
    ],
)
def test_joining_and_rearranging_are_plain_tensor_functions(
    op: str, shapes: tuple[Shape, ...], attrs: dict[str, object], expected: Callable[..., Any]
) -> None:
    graph = single_op_graph(op, shapes, attrs)
    inputs = random_inputs(graph, batch_size=3)
    torch.testing.assert_close(build(graph)(*inputs), expected(*inputs))


def test_a_free_parameter_is_the_same_for_every_example() -> None:
    graph = single_op_graph("parameter", ((1,),), {"shape": (3, 4)})
    parameters = initial_parameters(graph, seed=0)
    (result,) = Program(graph)(parameters, random_inputs(graph, batch_size=5), RunContext(batch_size=5))
    assert torch.equal(result, parameters["n1.weight"].repeat(5, 1, 1))


# ---- dropout


def run_dropout(seed: int | None, *, training: bool = True, p: float = 0.25) -> torch.Tensor:
    graph = single_op_graph("dropout", ((1000,),), {"p": p})
    rng = None if seed is None else torch.Generator().manual_seed(seed)
    context = RunContext(batch_size=100, training=training, generator=rng)
    (result,) = Program(graph)({}, [torch.ones(100, 1000)], context)
    return result


def test_dropout_with_a_generator_is_reproducible_and_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    assert torch.equal(run_dropout(0), run_dropout(0))
    assert not torch.equal(run_dropout(0), run_dropout(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [0, None])
def test_dropout_zeroes_the_share_p_and_keeps_the_mean(seed: int | None) -> None:
    result = run_dropout(seed)
    assert sorted(set(result.flatten().tolist())) == pytest.approx([0.0, 1 / 0.75])
    assert float((result == 0).float().mean()) == pytest.approx(0.25, abs=0.01)  # 7 standard deviations
    assert float(result.mean()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("seed", [0, None])
def test_dropout_does_nothing_in_inference(seed: int | None) -> None:
    assert torch.equal(run_dropout(seed, training=False), torch.ones(100, 1000))
