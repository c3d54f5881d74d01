"""Graphs as Python source that people read and edit: one class in plain torch, without nasgraph."""

import re
from collections.abc import Iterator
from keyword import iskeyword

from nasgraph.errors import UnsupportedOpError
from nasgraph.ir import OPS, ComputationalGraph, Shape
from nasgraph.modules.source_format import LINE_LENGTH, Call, call, signature, statement
from nasgraph.modules.source_helpers import HELPERS
from nasgraph.modules.source_layers import LAYERS, attribute_names, free_parameter, state_names
from nasgraph.modules.source_ops import EXPRESSIONS, gives_its_input
from nasgraph.modules.source_use import Operand, Use

_TAKEN = frozenset(("torch", "Tensor", "nn", "F", "batch_size", "real", "self", *HELPERS))
_VARIABLES = ("x", "y", "z", "u", "v", "w")
_ATTENTION = ("query", "key", "value", "mask")


def graph_to_source(graph: ComputationalGraph, *, name: str = "Network") -> str:
    """Write a graph as a Python file with one `torch.nn.Module`.

    Nodes with parameters become layers of `torch.nn`, all others one statement each, in the order of the graph and with
    the batch axis in front. The file imports torch only. It computes what `build(graph)` computes once it has the same
    weights; see `source_parameters`. Equal graphs give equal text, laid out as `ruff format` does at 110 columns.

    Args:
        graph: A checked graph.
        name: Name of the class.

    Raises:
        UnsupportedOpError: If a node is `opaque` or passes messages; the message names it.
        ValueError: If `name` cannot be the name of the class.

    Example:
        >>> from nasgraph.ir import GraphBuilder
        >>> g = GraphBuilder()
        >>> x = g("relu", g("linear", g("input", shape=(4,)), out_features=8))
        >>> print(graph_to_source(g.finish(g("linear", x, out_features=2))).partition("super().__init__()")[2].strip())
        self.linear1 = nn.Linear(4, 8)
                self.linear2 = nn.Linear(8, 2)
        <BLANKLINE>
            def forward(self, x: Tensor) -> Tensor:
                x = self.linear1(x)
                x = F.relu(x)
                x = self.linear2(x)
                return x
    """
    if not name.isidentifier() or iskeyword(name) or name in _TAKEN:
        raise ValueError(f"Expected the name of a class (got {name!r})")
    for index, node in enumerate(graph.nodes):
        if node.op == "opaque":
            raise UnsupportedOpError(
                f"Cannot write '{node.attr('name')}' (node {index}): it is not part of the graph language"
            )
        if OPS[node.op].reads_edges:
            raise UnsupportedOpError(
                f"Cannot write '{node.op}' (node {index}) in plain torch: it passes messages along the edges of a data "
                "graph. Use 'build(graph)' and 'module(x, edges=...)'"
            )
    forward = _Forward(graph)
    body = [
        f"class {name}(nn.Module):",
        *_class_docstring(graph, forward),
        "",
        *_annotations(graph),
        "    def __init__(self) -> None:",
        "        super().__init__()",
        *_layers(graph),
        "",
        *forward.lines,
        "",
    ]
    parts = [HELPERS[helper] for helper in HELPERS if helper in forward.needs] + ["\n".join(body)]
    code = "\n\n".join(parts)
    return f"{_docstring(graph)}\n\n{_imports(code)}\n\n\n{code}"


def source_parameters(graph: ComputationalGraph) -> dict[str, str]:
    """What the class of `graph_to_source` calls each parameter, running statistic and constant of `build(graph)`.

    With it weights carry over exactly:
    `module.load_state_dict({names[name]: tensor for name, tensor in built.state_dict().items()})`.

    Returns:
        Names in the source by names in the graph: all of `graph.parameters`, then the rest.
    """
    return state_names(graph)


def _docstring(graph: ComputationalGraph) -> str:
    lines = ['"""A network in plain torch, written from a computational graph.', ""]
    if any(node.op == "constant" for node in graph.nodes):
        lines += ["Constants are buffers of zeros until `load_state_dict` fills them with their content.", ""]
    lines += [
        "Parameters start at random, as torch's own layers do. `nasgraph.modules.source_parameters` gives the names under",
        "which the weights of the graph are loaded.",
        '"""',
    ]
    return "\n".join(lines)


def _imports(code: str) -> str:
    lines = []
    if "Callable" in code:
        lines += ["from collections.abc import Callable", ""]
    if re.search(r"\btorch\.", code):
        lines += ["import torch"]
    lines += ["from torch import Tensor, nn"]
    if re.search(r"\bF\.", code):
        lines += ["from torch.nn import functional as F"]
    return "\n".join(lines)


def _class_docstring(graph: ComputationalGraph, forward: "_Forward") -> list[str]:
    lines = ["Tensors in and out have the batch as their first axis.", ""]
    for index, name in zip(graph.inputs, forward.inputs, strict=True):
        kind = "integers" if graph.dtypes[index] == "int" else "real numbers"
        lines.append(f"{name}: {kind} of shape {_batched(graph.shapes[index])}")
    lines += [f"returns: a tensor of shape {_batched(graph.shapes[index])}" for index in graph.outputs]
    first, *rest = lines
    return [f'    """{first}', *(f"    {line}" if line else "" for line in rest), '    """']


def _batched(shape: Shape) -> str:
    return f"(batch, {', '.join(map(str, shape))})"


def _annotations(graph: ComputationalGraph) -> Iterator[str]:
    """Torch finds buffers by name only, so a reader is told that they are tensors."""
    names = attribute_names(graph)
    found = [f"    {names[i]}: Tensor" for i, node in enumerate(graph.nodes) if node.op == "constant"]
    yield from found
    if found:
        yield ""


def _layers(graph: ComputationalGraph) -> Iterator[str]:
    names = attribute_names(graph)
    for index, node in enumerate(graph.nodes):
        if node.op in LAYERS:
            made = LAYERS[node.op].make(dict(node.attrs), graph.input_shapes(index))
            yield from statement(f"self.{names[index]} = ", made, indent=8)
        elif node.op == "parameter":
            made = free_parameter(graph.parameters[f"n{index}.weight"])
            yield from statement(f"self.{names[index]} = ", made, indent=8)
        elif node.op == "constant":
            dtype = ", dtype=torch.long" if graph.dtypes[index] == "int" else ""
            zeros = f"torch.zeros({', '.join(map(str, graph.shapes[index]))}{dtype})"
            yield from statement("", call("self.register_buffer", f'"{names[index]}"', zeros), indent=8)


class _Forward:
    """The forward pass as lines.

    A variable is written over by the node that reads it last, so that a chain of layers is a chain of `x = ...(x)`.

    Attributes:
        inputs: Names of the inputs.
        needs: Helpers that the lines use.
        lines: The whole method.
    """

    def __init__(self, graph: ComputationalGraph) -> None:
        self.needs: set[str] = set()
        self._graph = graph
        self._names = attribute_names(graph)
        self._origins = _origins(graph)
        self._ends = self._last_uses()
        self._operands: dict[int, Operand] = {}
        self._live: dict[int, str] = {}
        self.inputs = self._name_inputs()
        lines = [line for index in range(len(graph)) for line in self._node(index)]
        lines += self._return()
        self.lines = [*self._head(), *lines]

    def _name_inputs(self) -> list[str]:
        counts: dict[str, int] = {}
        names = []
        for index in self._graph.inputs:
            base = "tokens" if self._graph.dtypes[index] == "int" else "x"
            counts[base] = counts.get(base, 0) + 1
            name = base if counts[base] == 1 else f"{base}{counts[base]}"
            names.append(name)
            self._live[index] = name
            self._operands[index] = self._operand(index, name, is_batched=True)
        return names

    def _operand(self, index: int, name: str, *, is_batched: bool, is_bare: bool = False) -> Operand:
        return Operand(name, self._graph.shapes[index], self._graph.dtypes[index], is_batched, is_bare)

    def _last_uses(self) -> dict[int, int]:
        """For each value the node that reads it last; none for what is returned."""
        last = {
            self._origins[source]: index
            for index, node in enumerate(self._graph.nodes)
            if self._origins[index] == index
            for source in node.inputs
        }
        for output in self._graph.outputs:
            last.pop(self._origins[output], None)
        return last

    def _node(self, index: int) -> list[str]:
        node = self._graph.nodes[index]
        if node.op == "input" or self._origins[index] != index:
            return []
        if node.op in ("parameter", "constant"):
            name = f"self.{self._names[index]}"
            self._operands[index] = self._operand(index, name, is_batched=False, is_bare=True)
            return []
        sources = [self._origins[source] for source in node.inputs]
        use = Use(
            dict(node.attrs),
            tuple(self._operands[s] for s in sources),
            self._names.get(index, ""),
            self.needs,
        )
        expression = EXPRESSIONS[node.op](use)
        free = [s for s in dict.fromkeys(sources) if self._ends.get(s) == index and s in self._live]
        reused = self._live[free[0]] if free else None
        for source in free:
            del self._live[source]
        variable = reused or self._fresh(index)
        self._live[index] = variable
        is_batched = use.is_batched or node.op == "batch_norm"
        self._operands[index] = self._operand(index, variable, is_batched=is_batched)
        return statement(f"{variable} = ", expression, indent=8)

    def _fresh(self, index: int) -> str:
        taken = set(self._live.values())
        reader = self._ends.get(index)
        if reader is not None and self._graph.nodes[reader].op == "attention":
            sources = [self._origins[source] for source in self._graph.nodes[reader].inputs]
            wanted = _ATTENTION[sources.index(index)]
            if wanted not in taken:
                return wanted
        number = 1
        while True:
            for name in _VARIABLES:
                candidate = name if number == 1 else f"{name}{number}"
                if candidate not in taken:
                    return candidate
            number += 1

    def _head(self) -> list[str]:
        graph = self._graph
        returns = "Tensor" if len(graph.outputs) == 1 else "tuple[Tensor, ...]"
        lines = signature(
            "forward", ["self", *(f"{name}: Tensor" for name in self.inputs)], returns, indent=4
        )
        if "batch_size" in self.needs:
            lines.append(f"        batch_size = {self.inputs[0]}.shape[0]")
        if "real" in self.needs:
            lines.append(f"        real = {self._real()}  # what integers become")
        for index, name in zip(graph.inputs, self.inputs, strict=True):
            readers = [node.op for node in graph.nodes if index in node.inputs]
            if graph.dtypes[index] == "int" and any(op != "embedding" for op in readers):
                lines.append(f"        {name} = {name}.long()")
        return lines

    def _real(self) -> str:
        for index, name in zip(self._graph.inputs, self.inputs, strict=True):
            if self._graph.dtypes[index] == "float":
                return f"{name}.dtype"
        for name in self._graph.parameters:
            return f"self.{state_names(self._graph)[name]}.dtype"
        return "torch.get_default_dtype()"

    def _return(self) -> list[str]:
        operands = tuple(self._operands[self._origins[output]] for output in self._graph.outputs)
        use = Use({}, operands, "", self.needs)
        results = [use.repeated(place) for place in range(len(operands))]
        whole = f"        return {', '.join(results)}"
        if len(whole) <= LINE_LENGTH:
            return [whole]
        return statement("return ", Call("(", tuple(results)), indent=8)


def _origins(graph: ComputationalGraph) -> list[int]:
    """For each node the one whose value it has: itself, or an earlier one that it leaves as it is."""
    origins: list[int] = []
    for index, node in enumerate(graph.nodes):
        reads = [graph.dtypes[source] for source in node.inputs]
        if node.inputs and gives_its_input(node.op, dict(node.attrs), reads, graph.dtypes[index]):
            origins.append(origins[node.inputs[0]])
        else:
            origins.append(index)
    return origins


__all__ = ["graph_to_source", "source_parameters"]
