"""ONNX files as torch modules, which `nasgraph.modules.trace` turns into graphs.

`OnnxModule` runs the nodes of a file with torch's functions. It needs the extra `onnx`: `pip install 'nasgraph[onnx]'`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nasgraph.errors import NasGraphError, UnsupportedOpError
from nasgraph.modules.onnx_batch import layouts_after
from nasgraph.modules.onnx_file import OnnxFile, OnnxInput, OnnxNode, read_onnx
from nasgraph.modules.onnx_layers import LAYERS
from nasgraph.modules.onnx_ops import OPERATORS
from nasgraph.modules.onnx_recurrent import RECURRENT, recurrent_layer
from nasgraph.modules.onnx_step import Layout, Rule, Step
from nasgraph.modules.onnx_structure import STRUCTURE, constant

RULES: Mapping[str, Rule] = {**OPERATORS, **STRUCTURE, **LAYERS, **RECURRENT}
"""How each known ONNX operator runs, but for `Constant`."""

_SETTINGS: Mapping[str, frozenset[int]] = {
    "BatchNormalization": frozenset((3, 4)),
    **{name: frozenset(range(1, 8)) for name in ("Clip", "Pad", "Resize", "Dropout", "OneHot", "TopK")},
    **{name: frozenset(range(8)) for name in ("Range", "ConstantOfShape")},
    **{name: frozenset((5, 6)) for name in RECURRENT},
    **{name: frozenset((0, 1)) for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")},
}
"""Inputs that say how an operator works rather than what is learnt."""
_WEIGHTS: Mapping[str, frozenset[int]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), frozenset((1, 2))),
    **dict.fromkeys(
        (
            *("BatchNormalization", "InstanceNormalization", "GroupNormalization"),
            *("LayerNormalization", "RMSNormalization"),
        ),
        frozenset((1, 2)),
    ),
    "PRelu": frozenset((1,)),
    "MatMul": frozenset((0, 1)),
}
"""Inputs that are weights even if they have one element, or stand in a `Constant` node."""


class OnnxModule(nn.Module):
    """An ONNX file as a module: its weights are parameters, its operators run as torch functions.

    Real-valued initializers with more than one element are parameters, if they are no settings of an operator (a resize's
    scales, a clip's bounds, the running statistics of a norm); all others, and what stands in `Constant` nodes, are buffers,
    but for what a convolution, a norm or a product of matrices has as its weight. Names are those of the file with
    everything but letters and digits as `_`. Weights of recurrent layers are in a child `lstm1`, `gru1` or `rnn1`, in torch's
    order. ONNX does not say what was trained; a table of fixed positions is a parameter here.

    The module takes the file's inputs in their order and gives its output, or a tuple if there are several. It runs with any
    batch size, where axis 0 of the first input is the batch, although the file may name one: the literal shapes of reshapes,
    resizes to a literal size, concatenations and expansions of a stored token, and first states of recurrent layers are adapted. Not
    adapted are other literal batch sizes (of a `Slice`), sums and products with stored tensors of a batch larger
    than one, and a batch axis that is not the first of the input.

    Raises:
        UnsupportedOpError: If it has an operator that nasgraph does not know; the message names it and the node.
    """

    def __init__(self, file: OnnxFile) -> None:
        super().__init__()
        unknown = [node for node in file.nodes if node.op not in RULES and node.op != "Constant"]
        if unknown:
            raise UnsupportedOpError(f"'{file.path}': nasgraph does not know the ONNX operator {unknown[0]}")
        self.inputs = file.inputs
        self.fixed_batch = file.fixed_batch
        self._path, self._opset, self._outputs = file.path, file.opset, file.outputs
        tensors = dict(file.tensors)
        for node in file.nodes:
            if node.op == "Constant":
                tensors[node.outputs[0]] = _constant(file.path, node)
        self._nodes = tuple(node for node in file.nodes if node.op != "Constant")
        self._layers = self._add_layers(tensors)
        self._names = self._add_tensors(tensors, stored=set(file.tensors))
        self._follows, self._literal = _provenance(file.inputs, self._nodes, tensors)
        self._ends = _last_uses(self._nodes, file.outputs)

    def _add_layers(self, tensors: Mapping[str, Tensor]) -> dict[int, str]:
        names: dict[int, str] = {}
        for place, node in enumerate(self._nodes):
            if node.op in RECURRENT:
                weights = [tensors.get(name) if name else None for name in (*node.inputs[1:4], "")[:3]]
                if any(name and name not in tensors for name in node.inputs[1:4]):
                    raise UnsupportedOpError(f"Cannot run {node}: its weights are computed")
                names[place] = f"{node.op.lower()}{len(names) + 1}"
                self.add_module(names[place], recurrent_layer(node, weights))
        return names

    def _add_tensors(self, tensors: Mapping[str, Tensor], *, stored: set[str]) -> dict[str, str]:
        """Register what the nodes read; the module's name for each name in the file."""
        reads = _reads(self._nodes)
        reads |= {name: reads.get(name, []) for name in self._outputs if name in tensors}
        names: dict[str, str] = {}
        for name, uses in reads.items():
            if name not in tensors:
                continue
            names[name] = self._free_name(name)
            tensor = tensors[name].clone()
            if _is_parameter(tensor, uses, is_initializer=name in stored):
                self.register_parameter(names[name], nn.Parameter(tensor))
            else:
                self.register_buffer(names[name], tensor)
        return names

    def _free_name(self, name: str) -> str:
        base = re.sub(r"\W", "_", name).lstrip("_") or "tensor"
        base = base if base.isidentifier() else f"tensor_{base}"
        number, found = 1, base
        while (
            found in self._parameters
            or found in self._buffers
            or found in _RESERVED
            or found in self._modules
        ):
            number += 1
            found = f"{base}_{number}"
        return found

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the file's nodes in order.

        Raises:
            UnsupportedOpError: If an operator is used in a way that nasgraph does not know.
            NasGraphError: If an operator fails; the message names its node.
        """
        if len(inputs) != len(self.inputs):
            raise NasGraphError(f"Expected {len(self.inputs)} inputs (got {len(inputs)})")
        values: dict[str, Tensor] = {own.name: given for own, given in zip(self.inputs, inputs, strict=True)}
        for name, own_name in self._names.items():
            values[name] = getattr(self, own_name)
        size = next((given.shape[0] for given in inputs if given.dim()), 1)
        layouts: dict[str, Layout] = {}
        if self.fixed_batch not in (None, size):
            first = [
                own.name for own, given in zip(self.inputs, inputs, strict=True) if size in given.shape[:1]
            ]
            layouts = dict.fromkeys(first, (0, 1))
        for place, node in enumerate(self._nodes):
            step = self._step(place, node, values, layouts, size)
            results = self._run(step)
            found = layouts_after(step, layouts, results) if layouts else [None] * len(results)
            for name, result, layout in zip(node.outputs, results, found, strict=False):
                values[name] = result
                if layout is not None:
                    layouts[name] = layout
            for name in self._ends[place]:
                values.pop(name, None)
        outputs = tuple(values[name] for name in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _step(
        self,
        place: int,
        node: OnnxNode,
        values: Mapping[str, Tensor],
        layouts: Mapping[str, Layout],
        size: int,
    ) -> Step:
        layer = self._layers.get(place)
        return Step(
            node=node,
            opset=self._opset,
            operands=[values.get(name) if name else None for name in node.inputs],
            follows=[name in self._follows for name in node.inputs],
            literal=[name in self._literal for name in node.inputs],
            fixed_batch=self.fixed_batch,
            batch_size=size,
            layout=layouts.get(node.inputs[0]) if node.inputs else None,
            training=self.training,
            layer=None if layer is None else self.get_submodule(layer),
        )

    def _run(self, step: Step) -> Sequence[Tensor]:
        try:
            result = RULES[step.node.op](step)
        except NasGraphError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError, KeyError) as error:
            shapes = [None if operand is None else tuple(operand.shape) for operand in step.operands]
            hint = ""
            if self.fixed_batch not in (None, step.batch_size):
                hint = f". The file is for a batch of {self.fixed_batch}, and this one has {step.batch_size}"
            raise NasGraphError(f"{step.node} of '{self._path}' fails on {shapes}: {error}{hint}") from error
        results = result if isinstance(result, tuple) else (result,)
        return [tensor for tensor in results if tensor is not None]

    def extra_repr(self) -> str:
        return f"{self._path.name}, nodes={len(self._nodes)}, opset={self._opset}"


_RESERVED = frozenset(dir(nn.Module())) | {"inputs", "fixed_batch"}


def _constant(path: Path, node: OnnxNode) -> Tensor:
    found = constant(node)
    if found is None:
        raise UnsupportedOpError(f"'{path}': {node} holds no numbers")
    return found


def _reads(nodes: Sequence[OnnxNode]) -> dict[str, list[tuple[str, int]]]:
    """For each name the operators that read it, and as which input. Weights of recurrent layers are read at loading."""
    reads: dict[str, list[tuple[str, int]]] = {}
    for node in nodes:
        for place, name in enumerate(node.inputs):
            if name and not (node.op in RECURRENT and place in (1, 2, 3)):
                reads.setdefault(name, []).append((node.op, place))
    return reads


def _is_parameter(tensor: Tensor, uses: Sequence[tuple[str, int]], *, is_initializer: bool) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return False
    if any(place in _SETTINGS.get(op, frozenset()) for op, place in uses):
        return False
    if any(place in _WEIGHTS.get(op, frozenset()) for op, place in uses):
        return True
    return is_initializer and tensor.numel() > 1


def _provenance(
    inputs: Sequence[OnnxInput], nodes: Sequence[OnnxNode], tensors: Mapping[str, Tensor]
) -> tuple[set[str], set[str]]:
    """Names whose content follows from the inputs, and those that the file alone determines. A shape is neither."""
    follows = {given.name for given in inputs}
    literal = set(tensors)
    for node in nodes:
        read = [name for name in node.inputs if name]
        if any(name in follows for name in read):
            if node.op not in ("Shape", "Size"):
                follows.update(node.outputs)
        elif all(name in literal for name in read):
            literal.update(node.outputs)
    return follows, literal


def _last_uses(nodes: Sequence[OnnxNode], outputs: Sequence[str]) -> list[list[str]]:
    """For each node the names that nothing reads after it."""
    last: dict[str, int] = {}
    for place, node in enumerate(nodes):
        last.update({name: place for name in (*node.inputs, *node.outputs) if name and name not in outputs})
    ends: list[list[str]] = [[] for _ in nodes]
    for name, place in last.items():
        ends[place].append(name)
    return ends


def load_onnx(path: str | Path) -> OnnxModule:
    """Read an ONNX file as a torch module in evaluation mode, for `trace`, for training or for prediction.

    Nothing in the file is executed. Tensors that it keeps in other files are read only if these lie in its folder.

    Args:
        path: A file with operators of version 9 or later (13 to 21 are tested).

    Raises:
        NasGraphError: If the package `onnx` is missing, or the file is missing, damaged or too large.
        UnsupportedOpError: If it has an operator that nasgraph does not know; the message names it and the node.
    """
    return OnnxModule(read_onnx(Path(path))).eval()


def onnx_example_inputs(
    path: str | Path, *, batch_size: int = 2, sizes: Mapping[str, int] | None = None
) -> tuple[Tensor, ...]:
    """Zeros in the shapes that an ONNX file declares for its inputs.

    Args:
        path: The file.
        batch_size: Length of axis 0, also where the file names a number for it.
        sizes: Lengths of other axes without a number, by the file's name of the axis, or by `<input>.<axis>` where it has
            none.

    Raises:
        NasGraphError: If an axis has no number and none is given, or as for `load_onnx`.
    """
    file = read_onnx(Path(path))
    return tuple(_zeros(given, file, batch_size, sizes or {}) for given in file.inputs)


def _zeros(given: OnnxInput, file: OnnxFile, batch_size: int, sizes: Mapping[str, int]) -> Tensor:
    shape: list[int] = []
    first = next(other.dims[0] for other in file.inputs if other.dims) if given.dims else None
    for axis, dim in enumerate(given.dims):
        name = dim if isinstance(dim, str) else f"{given.name}.{axis}"
        if axis == 0 and (dim == first or not isinstance(dim, int)):
            shape.append(batch_size)
        elif isinstance(dim, int):
            shape.append(dim)
        elif name in sizes:
            shape.append(sizes[name])
        elif isinstance(first, str) and dim == first:
            shape.append(batch_size)
        else:
            raise NasGraphError(
                f"Axis {axis} of the input '{given.name}' of '{file.path}' has no fixed length: pass sizes={{'{name}': ...}}"
            )
    return torch.zeros(shape, dtype=given.dtype)


__all__ = ["OnnxModule", "load_onnx", "onnx_example_inputs"]
