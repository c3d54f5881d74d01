"""ONNX files as modules: equal to ONNX's own reference, traced into graphs, and refused in words where they cannot be read."""

import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nasgraph.errors import NasGraphError, UnsupportedOpError
from nasgraph.modules import trace
from nasgraph.modules.onnx import RULES, load_onnx, onnx_example_inputs

onnx = pytest.importorskip("onnx", reason="needs the extra 'onnx'")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

Array = np.ndarray[Any, Any]
Sizes = tuple[int | str | None, ...]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def weights(*shape: int, seed: int = 1) -> Array:
    return rng(seed).normal(size=shape).astype(np.float32) * 0.5


def save(
    path: Path,
    nodes: Sequence[Any],
    *,
    inputs: Mapping[str, tuple[Sizes, int]],
    outputs: Sequence[str],
    tensors: Mapping[str, Array],
    opset: int = 18,
) -> Path:
    """Write a model to a file."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, kind, sizes) for name, (sizes, kind) in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, str(path))
    return path


def reference(path: Path, given: Mapping[str, Array]) -> list[Array]:
    from onnx.reference import ReferenceEvaluator

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list(ReferenceEvaluator(str(path)).run(None, dict(given)))


def outputs_of(module: nn.Module, given: Sequence[Array]) -> tuple[Tensor, ...]:
    with torch.no_grad():
        result = module(*(torch.from_numpy(array) for array in given))
    return result if isinstance(result, tuple) else (result,)


# ---- one operator


@dataclass(frozen=True)
class Case:
    """One use of an operator: data, stored inputs after it (None: left out), attributes."""

    op: str
    data: tuple[Array, ...]
    stored: tuple[Array | None, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1

    def __str__(self) -> str:
        return f"{self.op}-{self.opset}-" + "-".join(f"{k}={v}"[:30] for k, v in self.attrs.items())


X = rng().normal(size=(3, 4, 7, 6)).astype(np.float32)
LINE = X[:, :, :, 0]
BLOCK = rng().normal(size=(2, 4, 5, 4, 6)).astype(np.float32)
ROWS = X[:, :, 0, 0]
POSITIVE = np.abs(X) + 0.1
WHOLE = rng().integers(-4, 5, size=(3, 4, 5))
TRUE = WHOLE > 0


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def real(value: float) -> Array:
    return np.array(value, dtype=np.float32)


UNARY = (
    *(
        "Relu",
        "Sigmoid",
        "Tanh",
        "HardSwish",
        "Softplus",
        "Softsign",
        "Erf",
        "Exp",
        "Abs",
        "Neg",
        "Sign",
        "Sin",
        "Cos",
    ),
    *("Tan", "Atan", "Sinh", "Cosh", "Floor", "Ceil", "Round", "Mish", "Identity", "IsNaN", "IsInf"),
    *("LeakyRelu", "Elu", "Celu", "Selu", "HardSigmoid", "ThresholdedRelu", "Shape", "Size"),
)
PAIRS = (
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Max",
    "Min",
    "Sum",
    "Mean",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
)
W2, B8 = weights(8, 2, 3, 3), weights(8)
CASES: list[Case] = [
    *(Case(op, (X,)) for op in UNARY),
    *(Case(op, (POSITIVE,)) for op in ("Log", "Sqrt", "Reciprocal")),
    *(Case(op, (np.tanh(X),)) for op in ("Asin", "Acos")),
    *(Case(op, (X, X[:, ::-1].copy())) for op in PAIRS),
    *(Case(op, (X,), (weights(4, 1, 1),)) for op in PAIRS[:4]),
    *(Case(op, (TRUE, TRUE[:, ::-1].copy())) for op in ("And", "Or", "Xor")),
    Case("Div", (WHOLE,), (ints(3),)),
    Case("Mod", (WHOLE,), (ints(3),)),
    Case("Mod", (X,), (real(0.7),), {"fmod": 1}),
    Case("Pow", (POSITIVE,), (real(2.5),)),
    Case("Pow", (X,), (ints(3),)),
    Case("Not", (TRUE,)),
    Case("Where", (TRUE, WHOLE, -2 * WHOLE)),
    Case("LeakyRelu", (X,), attrs={"alpha": 0.3}),
    Case("Elu", (X,), attrs={"alpha": 0.3}),
    Case("Selu", (X,), attrs={"alpha": 0.3, "gamma": 1.5}),
    Case("HardSigmoid", (X,), attrs={"alpha": 1 / 6, "beta": 0.5}),
    Case("PRelu", (X,), (weights(4, 1, 1),)),
    Case("PRelu", (X,), (weights(1),)),
    Case("PRelu", (X,), (weights(4, 7, 6),)),
    *(Case("Gelu", (X,), attrs={"approximate": how}, opset=20) for how in ("none", "tanh")),
    *(Case("Swish", (X,), attrs={"alpha": alpha}, opset=24) for alpha in (1.0, 1.7)),
    *(Case(op, (X,), attrs={"axis": axis}) for op in ("Softmax", "LogSoftmax") for axis in (-1, 1)),
    Case("Clip", (X,), (real(-0.3), real(0.4))),
    Case("Clip", (X,), (None, real(0.4))),
    Case("Clip", (X,), (real(0.0),)),
    Case("Clip", (X,), attrs={"min": -0.2, "max": 6.0}, opset=9),
    Case("Dropout", (X,), (real(0.4),)),
    Case("Dropout", (X,), attrs={"ratio": 0.4}, opset=11),
    *(
        Case(f"Reduce{name}", (POSITIVE,), (ints(2, 3),), {"keepdims": keep})
        for name in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
        for keep in (0, 1)
    ),
    Case("ReduceMean", (X,), attrs={"axes": [-1, 1], "keepdims": 0}, opset=13),
    Case("ReduceSum", (X,), attrs={"axes": [1]}, opset=11),
    Case("ReduceSum", (X,), attrs={"noop_with_empty_axes": 1}),
    Case("ReduceMax", (X,)),
    *(Case(op, (X,), attrs={"axis": 2, "keepdims": keep}) for op in ("ArgMax", "ArgMin") for keep in (0, 1)),
    Case("ArgMax", (WHOLE.astype(np.float32),), attrs={"axis": 2, "select_last_index": 1}),
    Case("TopK", (X,), (ints(3),), {"axis": 2}, outputs=2),
    Case("TopK", (X,), (ints(2),), {"largest": 0}, outputs=2),
    *(
        Case("CumSum", (X,), (np.array(2, dtype=np.int64),), {"reverse": r, "exclusive": e})
        for r in (0, 1)
        for e in (0, 1)
    ),
    Case("Gemm", (ROWS,), (weights(4, 5), weights(5))),
    Case("Gemm", (ROWS,), (weights(5, 4), weights(5)), {"transB": 1}),
    Case("Gemm", (ROWS,), (weights(5, 4),), {"transB": 1}),
    Case("Gemm", (ROWS,), (weights(5, 4), weights(1)), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", (ROWS,), (weights(3, 5),), {"transA": 1}),
    Case("MatMul", (X,), (weights(6, 5),)),
    Case("MatMul", (X, np.swapaxes(X, 2, 3).copy())),
    Case("Einsum", (X, X), attrs={"equation": "bchw, bcdw -> bchd"}),
    Case("Einsum", (X,), (weights(6, 2),), {"equation": "...w,wk->...k"}),
    # structure
    Case("Reshape", (X,), (ints(0, 2, -1),)),
    Case("Reshape", (X,), (ints(3, -1),), {"allowzero": 1}),
    *(Case("Flatten", (X,), attrs={"axis": axis}) for axis in (0, 1, 2, -1, 4)),
    Case("Transpose", (X,)),
    Case("Transpose", (X,), attrs={"perm": [0, 2, 3, 1]}),
    Case("Squeeze", (X[:, :1, :, :1],), (ints(1, -1),)),
    Case("Squeeze", (X[:, :1, :, :1],)),
    Case("Squeeze", (X[:, :1],), attrs={"axes": [1]}, opset=11),
    Case("Unsqueeze", (X,), (ints(1, -1),)),
    Case("Unsqueeze", (X,), attrs={"axes": [0, 3]}, opset=11),
    Case("Concat", (X, X[:, :2].copy()), attrs={"axis": 1}),
    Case("Split", (X,), (ints(1, 3),), {"axis": 1}, outputs=2),
    Case("Split", (X,), attrs={"axis": 2, "num_outputs": 3}, outputs=3),
    Case("Split", (X,), attrs={"axis": 1, "split": [1, 3]}, opset=11, outputs=2),
    Case("Split", (X,), attrs={"axis": 1}, opset=13, outputs=2),
    Case("Slice", (X,), (ints(1, -3), ints(2**62, -1), ints(1, 2))),
    Case("Slice", (X,), (ints(5, -1), ints(0, -(2**62)), ints(2, 3), ints(-2, -1))),
    Case("Slice", (X,), (ints(0, 0), ints(2, 3))),
    Case("Slice", (X,), attrs={"axes": [2], "starts": [1], "ends": [-1]}, opset=9),
    Case("Gather", (X,), (ints(2, 0, -1),), {"axis": 1}),
    Case("Gather", (X,), (np.array(-2, dtype=np.int64),), {"axis": 2}),
    Case("Gather", (X,), (ints(0, 1, 2, 3).reshape(2, 2),), {"axis": 3}),
    Case("GatherElements", (X,), (rng().integers(-4, 4, size=(3, 5, 7, 6)),), {"axis": 1}),
    Case("Expand", (X[:, :, :1],), (ints(1, 4, 5, 1),)),
    Case("Tile", (X,), (ints(1, 2, 1, 3),)),
    *(Case("Pad", (X,), (ints(0, 0, 2, 1, 0, 0, 3, 0),), {"mode": mode}) for mode in ("constant", "reflect", "edge")),
    *(Case("Pad", (X,), (ints(0, 2, 2, 1, 0, 1, 3, 0),), {"mode": mode}) for mode in ("reflect", "edge", "wrap")),
    Case("Pad", (X,), (ints(1, 0, 0, 2), real(0.7), ints(1, 3))),
    Case("Pad", (X,), attrs={"pads": [0, 0, 1, 0, 0, 0, 0, 2], "value": 1.5}, opset=9),
    *(Case("Trilu", (X,), (np.array(k, dtype=np.int64),), {"upper": k % 2}) for k in (-1, 0, 1)),
    Case("Cast", (X * 3,), attrs={"to": 7}),
    Case("Cast", (WHOLE,), attrs={"to": 1}),
    Case("CastLike", (WHOLE, X)),
    Case("Shape", (X,), attrs={"start": 1, "end": -1}),
    Case("OneHot", (np.abs(WHOLE),), (np.array(6, dtype=np.int64), weights(2)), {"axis": 1}),
    *(Case("DepthToSpace", (X,), attrs={"blocksize": 2, "mode": mode}) for mode in ("DCR", "CRD")),
    Case("SpaceToDepth", (X[:, :, :6],), attrs={"blocksize": 2}),
    # convolutions
    Case("Conv", (X,), (weights(8, 4, 3, 3), B8), {"pads": [1, 1, 1, 1], "strides": [2, 1]}),
    Case("Conv", (X,), (W2,), {"group": 2, "dilations": [2, 1], "pads": [0, 2, 1, 0]}),
    *(
        Case("Conv", (X,), (weights(8, 4, 3, 2),), {"auto_pad": how, "strides": [2, 3]})
        for how in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case("Conv", (LINE,), (weights(8, 4, 3), B8), {"pads": [1, 1]}),
    Case("Conv", (BLOCK,), (weights(8, 4, 3, 2, 1), B8), {"pads": [1, 0, 0, 1, 0, 0]}),
    Case("ConvTranspose", (X,), (weights(4, 5, 3, 3), weights(5)), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    Case("ConvTranspose", (X,), (weights(4, 3, 3, 2),), {"strides": [2, 1], "pads": [1, 0, 0, 1]}),
    *(Case("ConvTranspose", (X,), (weights(4, 3, 3, 3),), {"strides": [2, 2], "auto_pad": how}) for how in ("SAME_UPPER", "SAME_LOWER")),
    Case("ConvTranspose", (LINE,), (weights(4, 3, 3),), {"strides": [2]}),
    # pooling
    *(
        Case(op, (X,), attrs={"kernel_shape": [3, 2], **attrs})
        for op in ("MaxPool", "AveragePool")
        for attrs in (
            {},
            {"strides": [2, 2], "pads": [1, 1, 1, 1]},
            {"strides": [2, 1], "pads": [0, 1, 1, 0]},
            {"strides": [2, 2], "ceil_mode": 1},
        )
    ),
    Case("MaxPool", (X,), attrs={"kernel_shape": [2, 2], "dilations": [2, 2]}),
    Case("MaxPool", (LINE,), attrs={"kernel_shape": [3], "strides": [2]}),
    Case("MaxPool", (BLOCK,), attrs={"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
    Case("AveragePool", (X,), attrs={"kernel_shape": [3, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    Case("AveragePool", (X,), attrs={"kernel_shape": [3, 2], "pads": [0, 1, 1, 0], "count_include_pad": 1}),
    Case("AveragePool", (BLOCK,), attrs={"kernel_shape": [2, 2, 2]}),
    *(Case(op, (data,)) for op, data in (("GlobalAveragePool", X), ("GlobalAveragePool", LINE), ("GlobalAveragePool", BLOCK), ("GlobalMaxPool", X))),
    # norms
    *(
        Case("BatchNormalization", (data,), (weights(4), weights(4, seed=2), weights(4, seed=3), np.abs(weights(4, seed=4))))
        for data in (X, LINE, ROWS, BLOCK)
    ),
    Case("LayerNormalization", (X,), (weights(6), weights(6, seed=2)), {"epsilon": 1e-3}),
    Case("LayerNormalization", (X,), (weights(7, 6),), {"axis": -2}),
    Case("LayerNormalization", (X,), (weights(6),), {"axis": 2}),
    Case("RMSNormalization", (X,), (weights(6),), opset=23),
    Case("InstanceNormalization", (X,), (weights(4), weights(4, seed=2))),
    Case("GroupNormalization", (X,), (weights(2), weights(2, seed=2)), {"num_groups": 2}, opset=18),
    Case("GroupNormalization", (X,), (weights(4), weights(4, seed=2)), {"num_groups": 2}, opset=21),
    *(Case("LpNormalization", (POSITIVE,), attrs={"p": p, "axis": 1}) for p in (1, 2)),
    Case("LRN", (np.concatenate((X, X[:1])),), attrs={"size": 3, "alpha": 0.1}),
    # resizing
    *(
        Case("Resize", (X,), (None, None, ints(3, 4, *size)), {"mode": "nearest", "coordinate_transformation_mode": how, "nearest_mode": rounding})
        for size in ((14, 12), (5, 9))
        for how in ("half_pixel", "asymmetric", "align_corners")
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    Case("Resize", (X,), (None, np.array([1, 1, 2, 2], dtype=np.float32)), {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    *(
        Case("Resize", (X,), (None, None, ints(3, 4, 11, 9)), {"mode": mode, "coordinate_transformation_mode": how})
        for mode in ("linear", "cubic")
        for how in ("half_pixel", "align_corners", "pytorch_half_pixel")
    ),
    Case("Resize", (X,), (None, np.array([1, 1, 1.3, 2], dtype=np.float32)), {"mode": "linear"}),
    # recurrent
    *(
        Case("LSTM", (LINE,), (weights(d, 20, 4), weights(d, 20, 5, seed=2), weights(d, 40, seed=3)), {"hidden_size": 5, "direction": way}, outputs=3)
        for way, d in (("forward", 1), ("bidirectional", 2), ("reverse", 1))
    ),
    Case("LSTM", (np.swapaxes(LINE, 1, 2).copy(),), (weights(1, 20, 4), weights(1, 20, 5)), {"hidden_size": 5}),
    Case("LSTM", (np.swapaxes(LINE, 1, 2).copy(),), (weights(1, 20, 4), weights(1, 20, 5), weights(1, 40), None, weights(1, 7, 5), weights(1, 7, 5)), {"hidden_size": 5}),
    *(
        Case("GRU", (np.swapaxes(LINE, 1, 2).copy(),), (weights(d, 15, 4), weights(d, 15, 5, seed=2), weights(d, 30, seed=3)), {"hidden_size": 5, "linear_before_reset": 1, "direction": way}, outputs=2)
        for way, d in (("forward", 1), ("bidirectional", 2))
    ),
    Case("RNN", (np.swapaxes(LINE, 1, 2).copy(),), (weights(1, 5, 4), weights(1, 5, 5, seed=2), weights(1, 10, seed=3)), {"hidden_size": 5}, outputs=2),
]  # fmt: skip
KINDS = {np.dtype(np.float32): 1, np.dtype(np.int64): 7, np.dtype(np.bool_): 9}


def case_of(case: Case, path: Path) -> tuple[Path, list[Array]]:
    data = [array[:, :, :4] if case.op == "LSTM" and len(case.stored) == 3 else array for array in case.data]
    data = [np.ascontiguousarray(array) for array in data]
    names = [f"x{i}" for i in range(len(data))]
    stored = {f"w{i}": array for i, array in enumerate(case.stored) if array is not None}
    reads = [*names, *("" if array is None else f"w{i}" for i, array in enumerate(case.stored))]
    outputs = [f"y{i}" for i in range(case.outputs)]
    node = helper.make_node(case.op, reads, outputs, name="the_node", **case.attrs)
    inputs = {
        name: (("batch", *array.shape[1:]), KINDS[array.dtype])
        for name, array in zip(names, data, strict=True)
    }
    return save(
        path / "case.onnx", [node], inputs=inputs, outputs=outputs, tensors=stored, opset=case.opset
    ), data


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_operator_computes_what_the_reference_computes(case: Case, tmp_path: Path) -> None:
    path, data = case_of(case, tmp_path)
    expected = reference(path, {f"x{i}": array for i, array in enumerate(data)})
    found = outputs_of(load_onnx(path), data)
    for one, two in zip(expected, found, strict=True):
        assert tuple(one.shape) == tuple(two.shape)
        if one.dtype == np.bool_:
            assert np.array_equal(one, two.numpy())
        else:
            np.testing.assert_allclose(two.numpy(), one, rtol=2e-5, atol=2e-5)
            assert two.numpy().dtype == one.dtype


def test_every_known_operator_has_a_case() -> None:
    elsewhere = {"ConstantOfShape", "Range"}
    assert set(RULES) - {case.op for case in CASES} == elsewhere


# ---- where ONNX's reference is wrong or silent


def node_module(op: str, path: Path, data: Array, stored: Sequence[Array] = (), **attrs: Any) -> Tensor:
    case = Case(op, (data,), tuple(stored), attrs)
    return outputs_of(load_onnx(case_of(case, path)[0]), [data])[0]


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "Conv"])
@pytest.mark.parametrize(
    ("how", "pads"), [("SAME_UPPER", [1, 0, 2, 1]), ("SAME_LOWER", [2, 1, 1, 0]), ("VALID", [0, 0, 0, 0])]
)
def test_automatic_padding_is_the_padding_that_the_standard_defines(
    op: str, how: str, pads: list[int], tmp_path: Path
) -> None:
    """ONNX's own reference gives other shapes than the standard here; with the padding written out it is right."""
    attrs: dict[str, Any] = {"kernel_shape": [4, 3], "strides": [2, 2]}
    stored = (weights(2, 4, 4, 3),) if op == "Conv" else ()
    found = node_module(op, tmp_path, X, stored, auto_pad=how, **attrs)
    path, _ = case_of(Case(op, (X,), stored, {"pads": pads, **attrs}), tmp_path)
    np.testing.assert_allclose(found, reference(path, {"x0": X})[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("data", [LINE, BLOCK])
def test_a_global_maximum_is_over_all_of_space(data: Array, tmp_path: Path) -> None:
    expected = data.max(tuple(range(2, data.ndim)), keepdims=True)
    assert np.array_equal(node_module("GlobalMaxPool", tmp_path, data), expected)


def test_negative_padding_cuts(tmp_path: Path) -> None:
    found = node_module("Pad", tmp_path, X, (ints(0, 0, -1, 0, 0, 0, -2, 0),))
    assert np.array_equal(found, X[:, :, 1:-2])


def test_a_grouped_transposed_convolution_is_that_of_torch_cut_by_its_padding(tmp_path: Path) -> None:
    weight = weights(4, 3, 3, 2)
    found = node_module("ConvTranspose", tmp_path, X, (weight,), strides=[2, 1], pads=[1, 0, 0, 1], group=2)
    full = nn.functional.conv_transpose2d(
        torch.from_numpy(X), torch.from_numpy(weight), stride=(2, 1), groups=2
    )
    torch.testing.assert_close(found, full[:, :, 1:, :-1])


def test_an_output_shape_tells_what_a_transposed_convolution_cuts(tmp_path: Path) -> None:
    weight = weights(4, 3, 3, 3)
    found = node_module("ConvTranspose", tmp_path, X, (weight,), strides=[2, 2], output_shape=[14, 13])
    full = nn.functional.conv_transpose2d(torch.from_numpy(X), torch.from_numpy(weight), stride=2)
    torch.testing.assert_close(found, full[:, :, 1:])


# ---- whole networks


def network(path: Path, *, batch: int | str = "batch") -> Path:
    """A convolutional network with a class token, a reshape and arithmetic on shapes, as exporters write it."""
    make = helper.make_node
    nodes = [
        make("Conv", ["image", "conv.weight", "conv.bias"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        make("BatchNormalization", ["a", "bn/weight", "bn/bias", "bn/mean", "bn/var"], ["b"]),
        make("Clip", ["b", "zero", "six"], ["c"]),
        make("Shape", ["c"], ["c_shape"]),
        make("Constant", [], ["first"], value_ints=[0]),
        make("Gather", ["c_shape", "first"], ["size"]),
        make("Concat", ["size", "eight_and_rest"], ["wanted"], axis=0),
        make("Reshape", ["c", "wanted"], ["d"]),
        make("Transpose", ["d"], ["e"], perm=[0, 2, 1]),
        make("Expand", ["token", "token_shape"], ["tokens"]) if batch == "batch" else make("Identity", ["token"], ["tokens"]),
        make("Concat", ["tokens", "e"], ["f"], axis=1),
        make("Add", ["f", "positions"], ["g"]),
        make("LayerNormalization", ["g", "ln.weight", "ln.bias"], ["h"]),
        make("MatMul", ["h", "linear.weight"], ["i"]),
        make("Add", ["i", "linear.bias"], ["j"]),
        make("Gelu", ["j"], ["k"]),
        make("Slice", ["k", "zero_1", "one_1", "one_1"], ["l"]),
        make("Reshape", ["l", "flat"], ["m"]),
        make("Gemm", ["m", "fc.weight", "fc.bias"], ["logits"], transB=1),
    ]  # fmt: skip
    if batch == "batch":
        nodes.insert(9, make("Concat", ["size", "one_1", "eight"], ["token_shape"], axis=0))
    tensors = {
        "conv.weight": weights(8, 3, 3, 3), "conv.bias": weights(8), "bn/weight": weights(8), "bn/bias": weights(8, seed=2),
        "bn/mean": weights(8, seed=3), "bn/var": np.abs(weights(8, seed=4)) + 0.1, "zero": real(0.0), "six": real(6.0),
        "eight_and_rest": ints(8, -1), "token": weights(1, 1, 8), "positions": weights(1, 17, 8),
        "ln.weight": weights(8), "ln.bias": weights(8, seed=5), "linear.weight": weights(8, 6), "linear.bias": weights(6),
        "zero_1": ints(0), "one_1": ints(1), "eight": ints(8), "flat": ints(1 if batch == 1 else -1, 6), "fc.weight": weights(4, 6), "fc.bias": weights(4),
    }  # fmt: skip
    return save(
        path, nodes, inputs={"image": ((batch, 3, 8, 8), 1)}, outputs=["logits"], tensors=tensors, opset=20
    )


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


def image(size: int, *, seed: int = 0) -> Array:
    return rng(seed).normal(size=(size, 3, 8, 8)).astype(np.float32)


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


# ---- files that are not as they should be


def test_an_unknown_operator_is_named_with_its_node(tmp_path: Path) -> None:
    node = helper.make_node("NonZero", ["x"], ["y"], name="finder")
    path = save(tmp_path / "u.onnx", [node], inputs={"x": (("n", 3), 1)}, outputs=["y"], tensors={})
    with pytest.raises(UnsupportedOpError, match=r"'NonZero' \(node 'finder'\)"):
        load_onnx(path)
    node = helper.make_node("FusedConv", ["x"], ["y"], name="fused", domain="com.microsoft")
    path = save(tmp_path / "v.onnx", [node], inputs={"x": (("n", 3), 1)}, outputs=["y"], tensors={})
    with pytest.raises(UnsupportedOpError, match=r"com.microsoft.FusedConv.*'fused'"):
        load_onnx(path)


@pytest.mark.parametrize(
    ("op", "attrs", "why"),
    [
        ("GRU", {"linear_before_reset": 0}, "linear_before_reset"),
        ("LSTM", {"clip": 1.0}, "clips"),
        ("LSTM", {"activations": ["Relu", "Tanh", "Tanh"]}, "activations"),
    ],
)
def test_a_recurrent_layer_that_torch_does_not_have_is_refused(
    op: str, attrs: dict[str, Any], why: str, tmp_path: Path
) -> None:
    gates = 4 if op == "LSTM" else 3
    case = Case(
        op, (np.zeros((2, 3, 4), np.float32),), (weights(1, gates * 5, 4), weights(1, gates * 5, 5)), attrs
    )
    with pytest.raises(UnsupportedOpError, match=why):
        load_onnx(case_of(case, tmp_path)[0])


def test_what_is_no_onnx_file_is_refused_with_its_path(tmp_path: Path) -> None:
    whole = network(tmp_path / "net.onnx").read_bytes()
    contents = {
        "empty": b"", "text": b"not a model at all", "cut": whole[: len(whole) // 2], "zeros": bytes(1000),
    }  # fmt: skip
    for name, content in contents.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(NasGraphError, match=f"{name}.onnx"):
            load_onnx(path)
    with pytest.raises(NasGraphError, match=r"Cannot read '.*missing.onnx'"):
        load_onnx(tmp_path / "missing.onnx")


def test_flipped_bytes_give_a_module_or_an_error_of_ours(tmp_path: Path) -> None:
    whole = bytearray(network(tmp_path / "net.onnx").read_bytes())
    positions = rng(7).integers(0, len(whole), size=150)
    path = tmp_path / "flipped.onnx"
    for position in positions:
        damaged = bytearray(whole)
        damaged[int(position)] ^= 0xFF
        path.write_bytes(bytes(damaged))
        try:
            module = load_onnx(path)
            with torch.no_grad():
                module(torch.from_numpy(image(2)))
        except NasGraphError:
            pass


def test_a_tensor_with_less_content_than_its_shape_says_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(network(tmp_path / "net.onnx")))
    model.graph.initializer[0].dims[0] = 2**40
    (tmp_path / "big.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(NasGraphError, match=r"big\.onnx"):
        load_onnx(tmp_path / "big.onnx")


def test_a_file_does_not_make_the_reader_fill_its_memory(tmp_path: Path) -> None:
    node = helper.make_node("ConstantOfShape", ["shape"], ["y"], name="huge")
    add = helper.make_node("Add", ["x", "y"], ["z"])
    path = save(
        tmp_path / "h.onnx",
        [node, add],
        inputs={"x": (("n", 1), 1)},
        outputs=["z"],
        tensors={"shape": ints(2**31, 2**10)},
    )
    with pytest.raises(UnsupportedOpError, match=r"'huge'.*elements"):
        load_onnx(path)(torch.zeros(2, 1))


def with_external(tmp_path: Path, location: str) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    model = onnx.load(str(network(tmp_path / "net.onnx")))
    tensor = next(t for t in model.graph.initializer if t.name == "conv.weight")
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "4"), ("length", str(len(content)))):
        tensor.external_data.add(key=key, value=value)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    for place in (folder / "weights.bin", tmp_path / "outside.bin"):
        place.write_bytes(b"....".replace(b".", b"\0") + content)
    return folder / "net.onnx"


def test_tensors_in_a_file_beside_the_model_are_read(tmp_path: Path) -> None:
    module = load_onnx(with_external(tmp_path, "weights.bin"))
    assert torch.equal(module.get_parameter("conv_weight").detach(), torch.from_numpy(weights(8, 3, 3, 3)))


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "link.bin", ""])
def test_tensors_outside_the_folder_of_the_model_are_not_read(location: str, tmp_path: Path) -> None:
    path = with_external(tmp_path, location)
    (path.parent / "link.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(NasGraphError, match="not in its folder"):
        load_onnx(path)


def test_a_missing_file_beside_the_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(NasGraphError, match=r"needs the file 'other\.bin'"):
        load_onnx(with_external(tmp_path, "other.bin"))


def test_without_the_package_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = network(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(NasGraphError, match=r"pip install 'nasgraph\[onnx\]'"):
        load_onnx(path)


def test_importing_the_modules_does_not_import_onnx() -> None:
    code = "import sys, nasgraph.modules.onnx; assert 'onnx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


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
