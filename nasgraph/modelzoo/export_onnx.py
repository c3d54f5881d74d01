"""Graphs as ONNX files, written operator by operator from the graph: nothing is traced, and the batch size stays free.

What does not depend on the inputs (free parameters, constants, and what follows from them alone) is computed here and stored. Needs
the extra `onnx`: `pip install 'nasgraph[onnx]'`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nasgraph.errors import UnsupportedOpError, ZooError
from nasgraph.ir import OPS, ComputationalGraph, Scalar, Shape
from nasgraph.modules.functional import KERNELS, RunContext

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

OPSET = 20
"""Operators of ONNX 1.15 (2023), which every runtime of the last years reads."""
IR_VERSION = 9
BATCH = "batch"
MAX_BYTES = 2**31 - 1  # what one protocol buffer holds


@dataclass(frozen=True, slots=True)
class Value:
    """What a node gives.

    Attributes:
        shape: Its shape per example.
        is_int: Whether it consists of integers rather than real numbers.
        name: Name in the file; empty if it is fixed.
        fixed: Content with a batch axis of size one, if it is the same for each example; None otherwise.
    """

    shape: Shape
    is_int: bool
    name: str = ""
    fixed: Tensor | None = None


@dataclass(slots=True)
class Writer:
    """An ONNX graph that grows.

    Attributes:
        nodes, tensors: What has been written.
        batch_source: A named value, the first axis of which is the batch.
    """

    batch_source: str
    nodes: "list[NodeProto]" = field(default_factory=list)
    tensors: "list[TensorProto]" = field(default_factory=list)
    _stored: dict[tuple[object, ...], str] = field(default_factory=dict)
    _batch: str = ""

    def node(self, op: str, *inputs: str, **attrs: object) -> str:
        """Append a node with one output; the name of the output. An empty input is one that is left out."""
        from onnx import helper

        name = f"{op.lower()}_{len(self.nodes)}"
        node = helper.make_node(op, list(inputs), [name], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attrs.items()))
        self.nodes.append(node)
        return name

    def tensor(self, tensor: Tensor, hint: str = "tensor") -> str:
        """Store a tensor; its name. Equal settings are stored once."""
        from onnx import numpy_helper

        array = tensor.detach().cpu().contiguous().numpy()
        key = (
            (array.dtype.str, array.shape, array.tobytes()) if array.size <= 64 else (len(self.tensors), hint)
        )
        if key not in self._stored:
            name = f"{hint}_{len(self.tensors)}"
            self.tensors.append(numpy_helper.from_array(array, name))
            self._stored[key] = name
        return self._stored[key]

    def weight(self, tensor: Tensor, name: str) -> str:
        """Store a parameter under a name of its own."""
        from onnx import numpy_helper

        if ("weight", name) not in self._stored:
            self.tensors.append(numpy_helper.from_array(tensor.detach().cpu().contiguous().numpy(), name))
            self._stored["weight", name] = name
        return name

    def ints(self, numbers: Sequence[int]) -> str:
        """Store a list of integers: a shape, axes, bounds."""
        return self.tensor(torch.tensor(list(numbers), dtype=torch.int64), "ints")

    def number(self, value: float, *, is_int: bool = False) -> str:
        """Store one number."""
        return self.tensor(
            torch.tensor(int(value) if is_int else value, dtype=torch.int64 if is_int else torch.float32)
        )

    def name(self, value: Value) -> str:
        """The name of a value; a fixed one is stored with a batch axis of size one."""
        return value.name if value.fixed is None else self.tensor(value.fixed, "fixed")

    def bare(self, value: Value) -> str:
        """The name of a fixed value without its batch axis."""
        assert value.fixed is not None
        return self.tensor(value.fixed[0], "fixed")

    def real(self, value: Value) -> str:
        """The name of a value as real numbers."""
        if value.fixed is not None:
            return self.tensor(value.fixed.float(), "fixed")
        return self.node("Cast", value.name, to=1) if value.is_int else value.name

    def batched(self, value: Value) -> str:
        """The name of a value with as many entries as the batch has examples."""
        if value.fixed is None:
            return value.name
        if not self._batch:
            shape = self.node("Shape", self.batch_source, start=0, end=1)
            self._batch = shape
        sizes = self.node("Concat", self._batch, self.ints([1] * len(value.shape)), axis=0)
        return self.node("Expand", self.name(value), sizes)


@dataclass(frozen=True, slots=True)
class Use:
    """One node about to be written.

    Attributes:
        attrs: Its attributes.
        inputs: What it reads; at least one of them differs from example to example.
        shape, is_int: What it gives.
        own: Its parameters and running statistics by their short names.
        label: How the node is called in the state, such as `n3`.
    """

    attrs: Mapping[str, Scalar]
    inputs: tuple[Value, ...]
    shape: Shape
    is_int: bool
    own: Mapping[str, Tensor]
    label: str

    def whole(self, name: str) -> int:
        """An attribute that is an integer."""
        value = self.attrs[name]
        assert isinstance(value, int)
        return value

    def number(self, name: str) -> float:
        """An attribute that is a number."""
        value = self.attrs[name]
        assert isinstance(value, float)
        return value

    def wholes(self, name: str) -> tuple[int, ...]:
        """An attribute that is a tuple of integers."""
        value = self.attrs[name]
        assert isinstance(value, tuple)
        return value

    @property
    def axis(self) -> int:
        """The attribute `axis`, counted with the batch."""
        return self.whole("axis") + 1


def onnx_model(
    graph: ComputationalGraph,
    state: Mapping[str, Tensor],
    *,
    name: str = "network",
    metadata: Mapping[str, str] | None = None,
) -> "ModelProto":
    """Write a graph with its weights as an ONNX model, in inference mode.

    Inputs are called `input`, `input2` and so on, outputs `output`, `output2`; their first axis is `batch`, of any length.

    Args:
        graph: A checked graph.
        state: Parameters, running statistics and constants by name, single precision.
        name: Name of the model.
        metadata: Facts to keep in the file.

    Raises:
        UnsupportedOpError: If ONNX cannot say an operator, or this writer does not; the message names it.
        ZooError: If `onnx` is missing, a weight is missing or is not in single precision, or the file would be over 2 GiB.
    """
    require_onnx()
    import onnx
    from onnx import helper

    for index, node in enumerate(graph.nodes):
        if node.op == "opaque" or OPS[node.op].reads_edges:
            what = (
                "is not part of the graph language"
                if node.op == "opaque"
                else "passes messages along a data graph"
            )
            raise UnsupportedOpError(f"Cannot write '{node.op}' (node {index}) as ONNX: it {what}")
    _check_state(graph, state)
    inputs = _names("input", len(graph.inputs))
    writer = Writer(inputs[0])
    values = _write_nodes(graph, state, writer, inputs)
    outputs = _names("output", len(graph.outputs))
    for index, output in zip(graph.outputs, outputs, strict=True):
        source = writer.batched(values[index])
        writer.nodes.append(helper.make_node("Identity", [source], [output], name=output))
    onnx_graph = helper.make_graph(
        writer.nodes,
        name,
        [_info(graph, index, own) for index, own in zip(graph.inputs, inputs, strict=True)],
        [_info(graph, index, own) for index, own in zip(graph.outputs, outputs, strict=True)],
        writer.tensors,
    )
    model = helper.make_model(
        onnx_graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="nasgraph",
    )
    helper.set_model_props(model, {"fingerprint": graph.fingerprint, **(metadata or {})})
    if model.ByteSize() > MAX_BYTES:
        raise ZooError(f"Expected an ONNX file of at most {MAX_BYTES:,} bytes (got {model.ByteSize():,})")
    onnx.checker.check_model(model, full_check=True)
    return model


def _names(base: str, count: int) -> list[str]:
    return [base if place == 0 else f"{base}{place + 1}" for place in range(count)]


def _info(graph: ComputationalGraph, index: int, name: str) -> "ValueInfoProto":
    from onnx import TensorProto, helper

    kind = TensorProto.INT64 if graph.dtypes[index] == "int" else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, [BATCH, *graph.shapes[index]])


def _check_state(graph: ComputationalGraph, state: Mapping[str, Tensor]) -> None:
    wanted = [*graph.parameters]
    for index, node in enumerate(graph.nodes):
        if node.op == "constant":
            wanted.append(f"n{index}.value")
        if node.op == "batch_norm":
            wanted += [f"n{index}.running_mean", f"n{index}.running_var"]
    for name in wanted:
        if name not in state:
            raise ZooError(f"Cannot write the graph as ONNX: its state lacks '{name}'")
        if state[name].is_floating_point() and state[name].dtype != torch.float32:
            raise ZooError(
                f"Expected '{name}' in single precision to write it as ONNX (got {state[name].dtype})"
            )


def _write_nodes(
    graph: ComputationalGraph, state: Mapping[str, Tensor], writer: Writer, inputs: Sequence[str]
) -> list[Value]:
    from nasgraph.modelzoo.export_onnx_ops import WRITERS

    names = dict(zip(graph.inputs, inputs, strict=True))
    by_node: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        owner, short = name[1:].split(".", 1)
        by_node.setdefault(int(owner), {})[short] = tensor
    constants = {index: own["value"] for index, own in by_node.items() if "value" in own}
    context = RunContext(batch_size=1, constants=constants, real=torch.float32)
    values: list[Value] = []
    for index, node in enumerate(graph.nodes):
        shape, is_int = graph.shapes[index], graph.dtypes[index] == "int"
        own = by_node.get(index, {})
        read = tuple(values[source] for source in node.inputs)
        if node.op == "input":
            values.append(Value(shape, is_int, names[index]))
            continue
        if all(value.fixed is not None for value in read) and node.op != "batch_norm":
            kernel = KERNELS[node.op](index, dict(node.attrs))
            with torch.inference_mode():
                made = kernel([value.fixed for value in read if value.fixed is not None], own, context)
            values.append(Value(shape, is_int, fixed=made.contiguous()))
            continue
        use = Use(dict(node.attrs), read, shape, is_int, own, f"n{index}")
        if node.op not in WRITERS:
            raise UnsupportedOpError(f"Cannot write '{node.op}' (node {index}) as ONNX")
        try:
            values.append(Value(shape, is_int, WRITERS[node.op](writer, use)))
        except UnsupportedOpError as error:
            raise UnsupportedOpError(f"Cannot write '{node.op}' (node {index}) as ONNX: {error}") from error
    return values


def runtime_version() -> str:
    """What runs ONNX here, with its version."""
    return f"onnxruntime {version('onnxruntime')}"


def require_onnx() -> None:
    """Check that `onnx` and `onnxruntime` are installed. Raises `ZooError` with the install command."""
    from importlib.util import find_spec

    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            raise ZooError(f"Writing ONNX needs '{package}': pip install 'nasgraph[onnx]'")


def run_onnx(model: bytes, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Run an ONNX model in onnxruntime, on the CPU and in one thread.

    Raises:
        ZooError: If onnxruntime is missing or refuses the model.
    """
    require_onnx()
    import onnxruntime  # type: ignore[import-untyped]  # it has no types

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]
        feed = {name: tensor.cpu().numpy() for name, tensor in zip(names, inputs, strict=True)}
        found = session.run(None, feed)
    except (
        Exception
    ) as error:  # onnxruntime has a class of its own for each status, all directly below Exception
        raise ZooError(f"{runtime_version()} refuses the model: {error}") from error
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in found)


__all__ = [
    "IR_VERSION",
    "OPSET",
    "Use",
    "Value",
    "Writer",
    "onnx_model",
    "require_onnx",
    "run_onnx",
    "runtime_version",
]
