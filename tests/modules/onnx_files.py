"""Small ONNX files for the tests, and ONNX's own reference."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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


def image(size: int, *, seed: int = 0) -> Array:
    return rng(seed).normal(size=(size, 3, 8, 8)).astype(np.float32)


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


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def real(value: float) -> Array:
    return np.array(value, dtype=np.float32)


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
