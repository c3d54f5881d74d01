"""ONNX files as plain data: nodes, tensors and declared inputs, checked, without code of the file's own.

An ONNX file is a protocol buffer; reading it runs nothing. Tensors in files beside it are read only if they lie in its folder.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nasgraph.errors import NasGraphError, UnsupportedOpError

MAX_FILE_BYTES = 2 * 2**30
"""Largest model file; also the most that a protocol buffer can hold."""
MAX_EXTERNAL_BYTES = 16 * 2**30
"""Most that the files beside a model may hold together."""
MAX_NODES = 100_000
OLDEST_OPSET = 9
INSTALL = "Reading ONNX files needs another package: pip install 'nasgraph[onnx]'"

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Tensor
Dim = int | str | None
_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One operator of an ONNX graph.

    Attributes:
        op: Its type, such as `Conv`.
        name: Its name in the file, or its place.
        inputs: Names of what it reads; empty where an optional input is left out.
        outputs: Names of what it gives; empty where an optional output is left out.
        attrs: Its attributes by name, those that are given.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attribute] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"'{self.op}' (node '{self.name}')"

    def whole(self, name: str, default: int) -> int:
        """An attribute that is an integer."""
        value = self.attrs.get(name, default)
        return value if isinstance(value, int) else default

    def number(self, name: str, default: float) -> float:
        """An attribute that is a number."""
        value = self.attrs.get(name, default)
        return float(value) if isinstance(value, int | float) else default

    def text(self, name: str, default: str = "") -> str:
        """An attribute that is a text."""
        value = self.attrs.get(name, default)
        return value if isinstance(value, str) else default

    def wholes(self, name: str) -> tuple[int, ...] | None:
        """An attribute that is a list of integers, if it is given."""
        value = self.attrs.get(name)
        return tuple(int(item) for item in value) if isinstance(value, tuple) else None


@dataclass(frozen=True, slots=True)
class OnnxInput:
    """A declared input: its name, the length, name or nothing that is known of each axis, and its type."""

    name: str
    dims: tuple[Dim, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class OnnxFile:
    """What an ONNX file says.

    Attributes:
        path: The file.
        opset: Version of the operators.
        inputs: Inputs that a caller has to give, in order.
        outputs: Names of the results.
        nodes: Operators; each stands after those that it reads.
        tensors: Content of the initializers by name.
    """

    path: Path
    opset: int
    inputs: tuple[OnnxInput, ...]
    outputs: tuple[str, ...]
    nodes: tuple[OnnxNode, ...]
    tensors: Mapping[str, Tensor]

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the file was written for, if it names a number."""
        first = next((given.dims for given in self.inputs if given.dims), ())
        return first[0] if first and isinstance(first[0], int) else None


def read_onnx(path: Path) -> OnnxFile:
    """Read and check an ONNX file.

    Raises:
        NasGraphError: If the package `onnx` is missing, or the file is missing, damaged or too large, or refers to a file
            outside its folder.
        UnsupportedOpError: If it holds control flow, sparse tensors or other operators than those of ONNX itself.
    """
    model = _parse(path)
    opset = max((entry.version for entry in model.opset_import if entry.domain in _DOMAINS), default=0)
    if opset < OLDEST_OPSET:
        raise NasGraphError(
            f"Expected '{path}' to use operators of version {OLDEST_OPSET} or later (got {opset})"
        )
    graph = model.graph
    if len(graph.sparse_initializer):
        raise UnsupportedOpError(f"'{path}' holds sparse tensors, which nasgraph does not read")
    _load_external(path, graph)
    nodes = tuple(_node(path, place, proto) for place, proto in enumerate(graph.node))
    tensors = {_text(proto.name): _tensor(path, proto) for proto in graph.initializer}
    inputs = tuple(_input(path, proto) for proto in graph.input if _text(proto.name) not in tensors)
    result = OnnxFile(path, opset, inputs, tuple(_text(proto.name) for proto in graph.output), nodes, tensors)
    _check_names(result)
    return result


def _parse(path: Path) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no stubs
        from onnx import inliner
    except ImportError as error:
        raise NasGraphError(INSTALL) from error
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise NasGraphError(f"'{path}' is too large: {size:,} bytes (at most {MAX_FILE_BYTES:,})")
        data = path.read_bytes()
    except OSError as error:
        raise NasGraphError(f"Cannot read '{path}': {error.strerror or error}") from error
    try:
        model = onnx.load_model_from_string(data)
        if len(model.functions):
            model = inliner.inline_local_functions(model)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise NasGraphError(f"'{path}' is no ONNX file, or it is damaged: {error}") from error
    if not model.graph.node or not model.graph.output:
        raise NasGraphError(f"'{path}' is no ONNX file, or it is damaged: it has no graph")
    if len(model.graph.node) > MAX_NODES:
        raise NasGraphError(f"'{path}' has {len(model.graph.node):,} nodes (at most {MAX_NODES:,})")
    return model


def _load_external(path: Path, graph: Any) -> None:
    """Read tensors that lie in files beside the model into it."""
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    folder = path.resolve().parent
    tensors = [proto for proto in _tensor_protos(graph) if uses_external_data(proto)]
    files = set()
    for proto in tensors:
        location = next((entry.value for entry in proto.external_data if entry.key == "location"), "")
        file = (folder / location).resolve()
        if not location or not file.is_relative_to(folder) or file == folder:
            raise NasGraphError(
                f"'{path}' refers to '{location}', which is not in its folder: such files are not read"
            )
        if not file.is_file():
            raise NasGraphError(f"'{path}' needs the file '{location}' beside it, which is missing")
        files.add(file)
    total = sum(file.stat().st_size for file in files)
    if total > MAX_EXTERNAL_BYTES:
        raise NasGraphError(
            f"The files of '{path}' are too large: {total:,} bytes (at most {MAX_EXTERNAL_BYTES:,})"
        )
    for proto in tensors:
        try:
            load_external_data_for_tensor(proto, str(folder))
        except Exception as error:  # onnx raises many kinds here, among them those of its checker
            raise NasGraphError(
                f"'{path}' is damaged: cannot read the tensor '{proto.name}': {error}"
            ) from error


def _text(value: str | bytes) -> str:
    """A text of a protocol buffer, which is bytes where the file is damaged."""
    return value if isinstance(value, str) else value.decode(errors="replace")


def _tensor_protos(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def _tensor(path: Path, proto: Any) -> Tensor:
    import numpy as np
    from onnx import TensorProto, numpy_helper

    narrow = {TensorProto.BFLOAT16: torch.bfloat16, TensorProto.FLOAT16: torch.float16}
    known = (
        TensorProto.FLOAT,
        TensorProto.DOUBLE,
        TensorProto.BOOL,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
    )
    if proto.data_type not in (*known, *narrow, TensorProto.INT64, TensorProto.UINT8):
        kind = TensorProto.DataType.Name(proto.data_type) if proto.data_type else "without a type"
        raise UnsupportedOpError(
            f"'{path}': the tensor '{proto.name}' is of type {kind}, which nasgraph does not read"
        )
    try:
        array = numpy_helper.to_array(proto)
    except (ValueError, TypeError, RuntimeError) as error:
        raise NasGraphError(f"'{path}' is damaged: the tensor '{proto.name}': {error}") from error
    if proto.data_type in narrow:
        return torch.from_numpy(array.astype(np.float32)).to(narrow[proto.data_type])
    return torch.from_numpy(np.array(array, order="C"))


def _node(path: Path, place: int, proto: Any) -> OnnxNode:
    name, op = _text(proto.name) or f"number {place}", _text(proto.op_type)
    if proto.domain not in _DOMAINS:
        raise UnsupportedOpError(
            f"'{path}': nasgraph does not know '{_text(proto.domain)}.{op}' (node '{name}')"
        )
    attrs: dict[str, Attribute] = {}
    for attribute in proto.attribute:
        value = _attribute(path, attribute)
        if value is None:
            raise UnsupportedOpError(f"'{path}': nasgraph does not know '{op}' (node '{name}')")
        attrs[_text(attribute.name)] = value
    return OnnxNode(op, name, tuple(map(_text, proto.input)), tuple(map(_text, proto.output)), attrs)


def _attribute(path: Path, proto: Any) -> Attribute | None:
    from onnx import AttributeProto as Kind

    match proto.type:
        case Kind.INT:
            return int(proto.i)
        case Kind.FLOAT:
            return float(proto.f)
        case Kind.STRING:
            return str(proto.s.decode(errors="replace"))
        case Kind.INTS:
            return tuple(proto.ints)
        case Kind.FLOATS:
            return tuple(proto.floats)
        case Kind.STRINGS:
            return tuple(item.decode(errors="replace") for item in proto.strings)
        case Kind.TENSOR:
            return _tensor(path, proto.t)
    return None


def _input(path: Path, proto: Any) -> OnnxInput:
    from onnx import TensorProto

    types = {
        TensorProto.FLOAT: torch.float32, TensorProto.DOUBLE: torch.float64, TensorProto.FLOAT16: torch.float16,
        TensorProto.BFLOAT16: torch.bfloat16, TensorProto.INT64: torch.int64, TensorProto.INT32: torch.int32,
        TensorProto.INT16: torch.int16, TensorProto.INT8: torch.int8, TensorProto.UINT8: torch.uint8,
        TensorProto.BOOL: torch.bool,
    }  # fmt: skip
    if not proto.type.HasField("tensor_type") or proto.type.tensor_type.elem_type not in types:
        raise UnsupportedOpError(f"'{path}': the input '{proto.name}' is no tensor of numbers")
    tensor = proto.type.tensor_type
    dims: list[Dim] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value"):
            dims.append(int(dim.dim_value))
        else:
            dims.append(_text(dim.dim_param) or None)
    return OnnxInput(_text(proto.name), tuple(dims), types[tensor.elem_type])


def _check_names(file: OnnxFile) -> None:
    known = {*file.tensors, *(given.name for given in file.inputs)}
    for node in file.nodes:
        missing = [name for name in node.inputs if name and name not in known]
        if missing:
            raise NasGraphError(
                f"'{file.path}' is damaged: {node} reads '{missing[0]}', which nothing before it gives"
            )
        known.update(name for name in node.outputs if name)
    missing = [name for name in file.outputs if name not in known]
    if missing:
        raise NasGraphError(f"'{file.path}' is damaged: nothing gives the result '{missing[0]}'")
