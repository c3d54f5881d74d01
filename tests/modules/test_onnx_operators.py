"""Operators of ONNX files: equal to ONNX's own reference, or to the standard where that is wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nasgraph.modules.onnx import RULES, load_onnx
from tests.modules.onnx_files import (
    Array,
    Case,
    X,
    case_of,
    ints,
    outputs_of,
    real,
    reference,
    rng,
    weights,
)

# ---- one operator


LINE = X[:, :, :, 0]
BLOCK = rng().normal(size=(2, 4, 5, 4, 6)).astype(np.float32)
ROWS = X[:, :, 0, 0]
POSITIVE = np.abs(X) + 0.1
WHOLE = rng().integers(-4, 5, size=(3, 4, 5))
TRUE = WHOLE > 0


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
