"""Each family of rules: a small module is traced, built from its graph, and gives the same outputs."""

from collections.abc import Sequence
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nasgraph.modules import build, trace
from nasgraph.modules.tracing.recording import Call as RecordedCall
from nasgraph.modules.tracing.shapes import SHAPES
from tests.modules.samples import random_inputs, sampled_graphs
from tests.modules.trace_cases import (
    IMAGE,
    IN_PLACE,
    LAYERS,
    MOVED,
    PRODUCTS,
    REDUCED,
    UNARY,
    Call,
    Shape,
    randomised,
)

FUNCTIONS = {**UNARY, **REDUCED, **MOVED, **IN_PLACE}


def examples(shapes: Sequence[Shape], *, batch_size: int = 3, seed: int = 0) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch_size, *shape, generator=rng) for shape in shapes)


def assert_reproduced(module: nn.Module, inputs: tuple[Tensor, ...], *, tolerance: float = 1e-5) -> None:
    """The graph has no opaque node, owns each parameter once, and gives the module's outputs, for another batch size too."""
    traced = trace(module, inputs)
    assert traced.opaque == {}, traced.reasons
    assert traced.unused == ()
    assert sorted(owner.name for owner in traced.owners.values()) == sorted(dict(module.named_parameters()))
    built = traced.build(module)
    for given in (inputs, tuple(torch.cat([x, x.flip(0) * 0.5]) for x in inputs)):
        with torch.no_grad():
            expected = traced.outputs_of(module(*given))
            found = built(*traced.inputs_of(given))
        for one, other in zip([found] if isinstance(found, Tensor) else found, expected, strict=True):
            torch.testing.assert_close(one.to(other.dtype), other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_an_image_is_reproduced(name: str) -> None:
    assert_reproduced(Call(FUNCTIONS[name]), examples([IMAGE]))


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_function_with_parameters_is_reproduced(name: str) -> None:
    function, inputs, weights = PRODUCTS[name]
    assert_reproduced(randomised(Call(function, *weights), seed=1), examples(inputs))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_reproduced(name: str) -> None:
    make, shape = LAYERS[name]
    assert_reproduced(randomised(make(), seed=2), examples([shape]))


@pytest.mark.parametrize("name", ["conv2d", "x @ W.t() + b", "layer norm", "masked attention", "einsum"])
def test_in_double_precision_the_outputs_agree_to_a_billionth(name: str) -> None:
    function, shapes, weights = PRODUCTS[name]
    module = randomised(Call(function, *weights), seed=1).double()
    inputs = tuple(x.double() for x in examples(shapes))
    traced = trace(module, inputs)
    built = traced.build(module).double()
    built.load_state_dict(built.state_dict() | {n: t.double() for n, t in traced.from_module(module).items()})
    with torch.no_grad():
        torch.testing.assert_close(built(*inputs), module(*inputs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("space", ["convnet", "mlp", "nasbench201", "vit"])
def test_graph_to_module_to_graph_keeps_parameters_and_outputs(space: str) -> None:
    """For `convnet` and `mlp` the graph comes back equal. Sums of many (`nasbench201`) come back as sums of two, and attention
    with its heads spelt out (`vit`)."""
    for graph in sampled_graphs(space, 5, seed=3, input_shape=(3, 8, 8)):
        module = randomised(build(graph), seed=4)
        inputs = tuple(random_inputs(graph, batch_size=2))
        traced = trace(module, inputs)
        assert traced.opaque == {}, traced.reasons
        assert {o.name for o in traced.owners.values()} == set(graph.parameters)
        with torch.no_grad():
            torch.testing.assert_close(traced.build(module)(*inputs), module(*inputs), rtol=1e-5, atol=1e-5)
        sizes = [sum(prod(spec.shape) for spec in each.parameters.values()) for each in (traced.graph, graph)]
        assert sizes[0] == sizes[1]
        assert space not in ("convnet", "mlp") or traced.graph.fingerprint == graph.fingerprint


# ---- shape rules

X = torch.empty(3, 4, 9, 7, device="meta")
W = torch.empty(6, 2, 3, 3, device="meta")
TOKENS = torch.empty(3, 5, 4, device="meta")
SHAPE_CALLS: dict[str, list[tuple[object, ...]]] = {
    "dropout1d": [(TOKENS,)],
    "dropout3d": [(X.unsqueeze(1),)],
    "conv2d": [
        (X, W, None, (1, 1), (0, 0), (1, 1), 2),
        (X, W, torch.empty(6, device="meta"), (2, 3), (2, 1), (2, 1), 2),
    ],
    "linear": [
        (TOKENS, torch.empty(7, 4, device="meta")),
        (TOKENS[:, 0], torch.empty(7, 4, device="meta"), None),
    ],
    "softmax": [(TOKENS, -1), (X.transpose(1, 2), 1)],
    "scaled_dot_product_attention": [(X, X, X), (X, X[:, :, :2], X[:, :, :2, :3])],
    "layer_norm": [(TOKENS, (4,))],
    "group_norm": [(X, 2)],
    "rms_norm": [(TOKENS, (4,))],
    "batch_norm": [(X, torch.empty(4, device="meta"), torch.empty(4, device="meta"))],
    "instance_norm": [(X,)],
    **{name: [(X, X), (X, 2.0), (X.transpose(1, 3), 3)] for name in ("add", "sub", "mul", "div", "pow")},
    "addmm": [
        (TOKENS[0, 0], X[0, 0], torch.empty(7, 4, device="meta")),
        (X[0, 0, :1, :1], X[0, 0], X[0, 0].mT),
    ],
    "adaptive_avg_pool2d": [(X, 1), (X, (3, 2))],
    "cat": [
        ([X, X[:, :1].contiguous()], 1),
        ([TOKENS[:1, :1].expand(3, 1, 4), TOKENS], 1),
        ([TOKENS.mT] * 2,),
        ((TOKENS, TOKENS, TOKENS), -1),
        ([X],),
    ],
    "max_pool2d": [(X, 3), (X, (2, 3), (2, 1), 1), (X, 3, 2, 1, 1, False), (X, 2, 1, 0, (2, 3))],
}


@pytest.mark.parametrize(
    "name", sorted(SHAPES.keys() - {"histc", "grouped_mm", "_grouped_mm", "multi_head_attention_forward"})
)
def test_a_shape_rule_agrees_with_torchs_meta_kernel(name: str) -> None:
    function = (
        getattr(torch, name) if name == "feature_dropout" else getattr(F, name, None) or getattr(torch, name)
    )
    for args in SHAPE_CALLS.get(name, [(X,), (X.transpose(1, 2),)]):
        keywords: dict[str, object] = {"training": False} if "dropout" in name else {}
        keywords = {"p": 0.5, "train": False} if name == "feature_dropout" else keywords
        found = SHAPES[name](args, keywords)
        expected = function(*args, **keywords)
        assert isinstance(found, Tensor)
        assert (found.shape, found.dtype, found.device) == (expected.shape, expected.dtype, expected.device)
        if name not in (
            "layer_norm",
            "group_norm",
            "instance_norm",
            "scaled_dot_product_attention",
            "softmax",
        ):
            assert found.stride() == expected.stride()


def test_the_shape_of_a_histogram_is_that_of_real_tensors() -> None:
    for bins in (7, 100):
        found, expected = SHAPES["histc"]((TOKENS,), {"bins": bins}), torch.histc(torch.zeros(5), bins=bins)
        assert isinstance(found, Tensor)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow"])
@pytest.mark.parametrize("shape", [(3, 4, 1, 1), (4, 1, 7), (7,), (1,), ()])
def test_the_shape_rule_of_a_broadcast_operand_agrees_with_torchs_meta_kernel(
    name: str, shape: Shape
) -> None:
    small = torch.empty(shape, device="meta")
    found, expected = SHAPES[name]((X, small), {}), getattr(torch, name)(X, small)
    assert isinstance(found, Tensor)
    assert (found.shape, found.dtype, found.stride()) == (expected.shape, expected.dtype, expected.stride())
    assert SHAPES[name]((small, X), {}) is None


@pytest.mark.parametrize("layer", [nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2, kdim=6, vdim=5)])
def test_the_shape_rule_of_packed_attention_agrees_with_torchs_meta_kernel(
    layer: nn.MultiheadAttention,
) -> None:
    layer.to("meta")
    inputs = [
        torch.empty(length, 3, width, device="meta")
        for length, width in ((5, 8), (7, layer.kdim), (7, layer.vdim))
    ]
    calls: list[tuple[Sequence[object], dict[str, object]]] = []

    class Spy(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__name__", "") == "multi_head_attention_forward":
                calls.append((args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    with Spy():
        expected = layer(*inputs, need_weights=False)[0]
    found = SHAPES["multi_head_attention_forward"](*calls[0])
    assert isinstance(found, tuple)
    assert (found[0].shape, found[0].dtype) == (expected.shape, expected.dtype)
    assert found[1] is None


def test_the_shape_of_a_product_in_groups_is_that_of_real_tensors() -> None:
    x, weight, ends = torch.zeros(8, 16), torch.zeros(2, 16, 32), torch.tensor([3, 8], dtype=torch.int32)
    found = SHAPES["_grouped_mm"]((x.to("meta"), weight.to("meta")), {"offs": ends})
    assert isinstance(found, Tensor)
    assert found.shape == torch._grouped_mm(x, weight, offs=ends).shape


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("linear", (TOKENS, torch.empty(7, 5, device="meta"))),
        ("conv2d", (X, torch.empty(6, 3, 3, 3, device="meta"), None, (1, 1), (0, 0), (1, 1), 1)),
        ("conv2d", (X, torch.empty(6, 4, 30, 3, device="meta"), None, (1, 1), (0, 0), (1, 1), 1)),
        ("add", (X, TOKENS)),
        ("cat", ([X, TOKENS],)),
        ("cat", ([X, X[:, :1]], 2)),
        ("cat", ([X, torch.empty(0, device="meta")], 1)),
        ("max_pool2d", (X, 3, 2, 1, 1, True)),
        ("max_pool2d", (X, 3, 2, 2)),
        ("max_pool2d", (X[0], 2)),
        ("mul", (X.to(torch.int64), 2)),
        ("scaled_dot_product_attention", (X, TOKENS, TOKENS)),
    ],
)
def test_a_shape_rule_that_is_not_sure_says_nothing(name: str, args: tuple[Tensor, ...]) -> None:
    assert SHAPES[name](args, {}) is None


def test_a_recorded_call_gives_its_values_in_order() -> None:
    from nasgraph.modules.tracing.recording import Value

    a, b, c = (Value((2,), "float") for _ in range(3))
    call = RecordedCall("f", (a, [b, {"x": c}]), {"y": a, "z": 3}, ())
    assert list(call.inputs()) == [a, b, c, a]
    assert call.argument(0, "first") is a
    assert call.argument(5, "z") == 3
