"""ONNX files as modules: whole networks equal to ONNX's own reference, and traced into graphs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nasgraph.errors import NasGraphError
from nasgraph.modules import trace
from nasgraph.modules.onnx import load_onnx, onnx_example_inputs
from tests.modules.onnx_files import (
    Array,
    Case,
    X,
    case_of,
    helper,
    image,
    ints,
    network,
    numpy_helper,
    outputs_of,
    real,
    reference,
    rng,
    save,
    weights,
)

# ---- whole networks


def assert_traced_computes_the_same(path: Path, given: Sequence[Array], *, route: Any = None) -> Any:
    module = load_onnx(path)
    inputs = tuple(torch.from_numpy(array) for array in given)
    traced = trace(module, inputs, route=route)
    assert traced.opaque == {}, traced.reasons
    with torch.no_grad():
        result = traced.build(module)(*traced.inputs_of(inputs))
        expected = traced.outputs_of(module(*inputs))
    results = result if isinstance(result, tuple) else (result,)
    for one, two in zip(results, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    return traced


def test_a_network_computes_what_the_reference_computes(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx")
    (found,) = outputs_of(load_onnx(path), [image(3)])
    np.testing.assert_allclose(found, reference(path, {"image": image(3)})[0], rtol=1e-5, atol=1e-5)


def test_its_graph_owns_every_weight_and_computes_the_same(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx")
    traced = assert_traced_computes_the_same(path, [image(2)])
    owners = {owner.name for owner in traced.owners.values()}
    assert owners == {
        "conv_weight", "conv_bias", "bn_weight", "bn_bias", "token", "positions", "ln_weight", "ln_bias",
        "linear_weight", "linear_bias", "fc_weight", "fc_bias",
    }  # fmt: skip
    assert traced.unused == ()
    ops = [node.op for node in traced.graph.nodes]
    for op in ("conv2d", "batch_norm", "relu6", "layer_norm", "gelu", "linear"):
        assert op in ops


def test_a_file_for_one_example_runs_with_any_batch(tmp_path: Path) -> None:
    path = network(tmp_path / "one.onnx", batch=1)
    module = load_onnx(path)
    assert module.fixed_batch == 1
    images = image(4)
    (found,) = outputs_of(module, [images])
    for place in range(4):
        (alone,) = reference(path, {"image": images[place : place + 1]})
        np.testing.assert_allclose(found[place : place + 1], alone, rtol=1e-5, atol=1e-5)
    assert_traced_computes_the_same(path, [images])


@pytest.mark.parametrize("batch", [1, 2])
def test_a_stored_token_is_repeated_for_any_batch(batch: int, tmp_path: Path) -> None:
    make = helper.make_node
    nodes = [
        make("Expand", ["token", "sizes"], ["tokens"]),
        make("Concat", ["tokens", "x"], ["all"], axis=1),
        make("Expand", ["token", "sizes"], ["shift"]),
        make("Add", ["all", "shift"], ["y"]),
    ]
    tensors = {"token": weights(1, 4), "sizes": ints(batch, 1, 4)}
    path = save(tmp_path / "t.onnx", nodes, inputs={"x": ((batch, 3, 4), 1)}, outputs=["y"], tensors=tensors)
    x = weights(6, 3, 4)
    (found,) = outputs_of(load_onnx(path), [x])
    for place in range(0, 6, batch):
        (some,) = reference(path, {"x": x[place : place + batch]})
        np.testing.assert_allclose(found[place : place + batch], some, rtol=1e-6)
    assert_traced_computes_the_same(path, [x])


def test_a_batch_that_cannot_be_changed_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"], name="fixed")
    path = save(
        tmp_path / "f.onnx", [node], inputs={"x": ((2, 3), 1)}, outputs=["y"], tensors={"w": weights(2, 3)}
    )
    with pytest.raises(NasGraphError, match=r"'Add' \(node 'fixed'\).*for a batch of 2, and this one has 5"):
        load_onnx(path)(torch.zeros(5, 3))


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_recurrent_network_is_traced_with_its_weights(op: str, direction: str, tmp_path: Path) -> None:
    gates, d = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if direction == "bidirectional" else 1
    make = helper.make_node
    settings = {"linear_before_reset": 1} if op == "GRU" else {}
    nodes = [
        make("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        make(op, ["steps", "w", "r", "b"], ["y"], hidden_size=5, direction=direction, **settings),
        make("Transpose", ["y"], ["z"], perm=[2, 0, 1, 3]),
        make("Reshape", ["z", "shape"], ["out"]),
    ]
    tensors = {
        "w": weights(d, gates * 5, 4), "r": weights(d, gates * 5, 5, seed=2), "b": weights(d, gates * 10, seed=3),
        "shape": ints(0, 6, d * 5),
    }  # fmt: skip
    path = save(tmp_path / "r.onnx", nodes, inputs={"x": (("n", 6, 4), 1)}, outputs=["out"], tensors=tensors)
    data = rng().normal(size=(3, 6, 4)).astype(np.float32)
    np.testing.assert_allclose(
        outputs_of(load_onnx(path), [data])[0], reference(path, {"x": data})[0], rtol=1e-5, atol=1e-5
    )
    traced = assert_traced_computes_the_same(path, [data])
    assert len(traced.owners) == 4 * d


def test_integers_look_up_rows_and_make_masks(tmp_path: Path) -> None:
    make = helper.make_node
    nodes = [
        make("Gather", ["table", "ids"], ["rows"]),
        make("Shape", ["ids"], ["shape"], start=1, end=2),
        make("Squeeze", ["shape"], ["length"]),
        make("Range", ["zero", "length", "one"], ["places"]),
        make(
            "ConstantOfShape",
            ["shape"],
            ["filler"],
            value=numpy_helper.from_array(np.array([2.0], np.float32)),
        ),
        make("Unsqueeze", ["filler", "last"], ["column"]),
        make("Mul", ["rows", "column"], ["doubled"]),
        make("Cast", ["places"], ["numbers"], to=1),
        make("Unsqueeze", ["numbers", "last"], ["steps"]),
        make("Add", ["doubled", "steps"], ["sum"]),
        make("Equal", ["ids", "zero"], ["is_padding"]),
        make("Unsqueeze", ["is_padding", "last"], ["mask"]),
        make("Where", ["mask", "nothing", "sum"], ["y"]),
    ]
    tensors = {
        "table": weights(9, 4), "zero": np.array(0), "one": np.array(1), "last": ints(-1), "nothing": real(0.0),
    }  # fmt: skip
    path = save(tmp_path / "t.onnx", nodes, inputs={"ids": (("n", 5), 7)}, outputs=["y"], tensors=tensors)
    ids = rng().integers(0, 9, size=(3, 5))
    ids[0, 0] = 0
    np.testing.assert_allclose(
        outputs_of(load_onnx(path), [ids])[0], reference(path, {"ids": ids})[0], rtol=1e-6
    )
    traced = assert_traced_computes_the_same(path, [ids])
    assert [owner.name for owner in traced.owners.values()] == ["table"]


def test_names_of_parameters_are_different_and_tell_where_they_come_from(tmp_path: Path) -> None:
    make = helper.make_node
    names = ("a.b", "a/b", "forward", "1", "_nodes")
    nodes = [make("Add", ["x" if i == 0 else f"y{i}", name], [f"y{i + 1}"]) for i, name in enumerate(names)]
    tensors = {name: weights(3, seed=i) for i, name in enumerate(names)}
    path = save(tmp_path / "n.onnx", nodes, inputs={"x": (("n", 3), 1)}, outputs=["y5"], tensors=tensors)
    module = load_onnx(path)
    assert list(dict(module.named_parameters())) == ["a_b", "a_b_2", "forward_2", "tensor_1", "nodes"]
    x = weights(2, 3)
    np.testing.assert_allclose(outputs_of(module, [x])[0], x + sum(tensors.values()), rtol=1e-5)


def test_dropout_drops_while_training_only(tmp_path: Path) -> None:
    path, _ = case_of(Case("Dropout", (X,), (real(0.5),)), tmp_path)
    module = load_onnx(path)
    x = torch.from_numpy(X)
    assert torch.equal(module(x), x)
    assert float((module.train()(x) == 0).float().mean()) == pytest.approx(0.5, abs=0.1)


# ---- torch's own exporter


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(nn.functional.relu(self.norm1(self.conv1(x))), 2)
        x = x + nn.functional.silu(self.norm2(self.conv2(x)))
        return torch.as_tensor(self.head(x.mean((2, 3))))


def patches() -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        12, 3, 24, batch_first=True, norm_first=True, activation="gelu", dropout=0.0
    )
    return nn.Sequential(nn.Conv2d(3, 12, 4, stride=4), nn.Flatten(2), _Swap(), layer, nn.LayerNorm(12))


class _Swap(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [Small, patches])
@pytest.mark.parametrize("batch", [None, 1, 2])
def test_a_network_that_torch_exports_comes_back_as_it_was(
    make: Callable[[], nn.Module], batch: int | None, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="torch.onnx.export needs the package 'onnxscript'")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make().eval()
    path = tmp_path / "exported.onnx"
    example = torch.from_numpy(image(batch or 2))
    shapes = ({0: torch.export.Dim("batch")},) if batch is None else None
    torch.onnx.export(module, (example,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    loaded = load_onnx(path)
    x = torch.from_numpy(image(5, seed=3))
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), module(x), rtol=1e-4, atol=1e-5)
    traced = assert_traced_computes_the_same(path, [image(2)])
    assert traced.unused == ()


# ---- example inputs


def test_example_inputs_have_the_declared_shapes_and_types(tmp_path: Path) -> None:
    node = helper.make_node("Gather", ["x", "ids"], ["y"], axis=1)
    inputs = {"x": ((1, "width", 4), 1), "ids": ((1,), 7)}
    path = save(tmp_path / "e.onnx", [node], inputs=inputs, outputs=["y"], tensors={})
    with pytest.raises(NasGraphError, match=r"sizes=\{'width': ...\}"):
        onnx_example_inputs(path)
    x, ids = onnx_example_inputs(path, batch_size=3, sizes={"width": 7})
    assert (tuple(x.shape), x.dtype) == ((3, 7, 4), torch.float32)
    assert (tuple(ids.shape), ids.dtype) == ((3,), torch.int64)


def test_example_inputs_are_enough_to_trace(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx")
    assert trace(load_onnx(path), onnx_example_inputs(path)).graph.shapes[-1] == (4,)
