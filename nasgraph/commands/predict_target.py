"""What `nasgraph predict` speaks of: the graph of a TARGET, and the module and the inputs where there are any."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nasgraph.commands.factories import EXAMPLES, example_inputs, is_factory, load_factory
from nasgraph.commands.options import WrongUsageError
from nasgraph.commands.targets import load_target
from nasgraph.errors import NasGraphError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nasgraph.commands.output import Output
    from nasgraph.evaluate.table import Table
    from nasgraph.files import Json
    from nasgraph.ir import ComputationalGraph
    from nasgraph.modules.trace import ExampleInputs
    from nasgraph.spaces import Architecture


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A TARGET, loaded.

    Attributes:
        kind: "architecture", "graph", "module", "onnx" or "row", a row of a table.
        graph: Its graph.
        architecture: Its choices, where they are known.
        module: The user's module, or that of the ONNX file.
        inputs: What the module is called with.
    """

    kind: str
    graph: "ComputationalGraph"
    architecture: "Architecture | None" = None
    module: "nn.Module | None" = None
    inputs: "ExampleInputs | None" = None


def load_subject(
    text: str,
    *,
    space: str | None,
    input_shape: tuple[int, ...],
    num_classes: int,
    shapes: Sequence[str],
    tokens: Sequence[str],
    output: "Output",
    table: "Table | None" = None,
) -> Subject:
    """Load a TARGET. Only `file.py:factory` runs code of the user's, and says so on stderr.

    Args:
        text: What `load_target` takes, a labelled DAG as JSON, or the key of a row of `table`.
        space: Search space of a seed alone.
        input_shape: Shape of one example, for an architecture, and for a module without `shapes`.
        num_classes: Classes, for an architecture.
        shapes: Shapes of the module's real-valued inputs as the command line gives them; go before those of its file.
        tokens: Its integer inputs.
        output: Where to say that code is run.
        table: Rows that may be named by their keys.

    Raises:
        WrongUsageError: If shapes are given that the target does not have, or as for `load_target`.
        NasGraphError: As for `load_target`.
    """
    text = text.strip()
    if table is not None and table.keys is not None and text.encode() in table.keys.row_of:
        return Subject(kind="row", graph=table.graph(table.row_of(text)))
    if is_factory(text):
        output.message(f"Running the Python code of '{text}'")
        return _from_factory(text, input_shape, shapes, tokens)
    path = Path(text)
    if path.suffix.lower() == ".onnx" and path.is_file():
        return _checked(_from_onnx(path), shapes)
    labelled = _labelled_dag(text)
    if labelled is not None:
        return _checked(Subject(kind="graph", graph=labelled), shapes)
    loaded = load_target(text, space=space, input_shape=input_shape, num_classes=num_classes)
    from nasgraph.spaces import Candidate

    if isinstance(loaded, Candidate):
        return Subject(kind="architecture", graph=loaded.graph, architecture=loaded.architecture)
    return _checked(Subject(kind="graph", graph=loaded), shapes)


def _from_factory(
    text: str, input_shape: tuple[int, ...], shapes: Sequence[str], tokens: Sequence[str]
) -> Subject:
    from nasgraph.modules import trace

    module, python = load_factory(text)
    if not shapes and not tokens and not hasattr(python, EXAMPLES):
        shapes = (",".join(map(str, input_shape)),)
    inputs = example_inputs(python, shapes, tokens)
    return Subject(kind="module", graph=trace(module, inputs).graph, module=module, inputs=inputs)


def _from_onnx(path: Path) -> Subject:
    from nasgraph.modules import trace
    from nasgraph.modules.onnx import load_onnx, onnx_example_inputs

    module, inputs = load_onnx(path), onnx_example_inputs(path)
    return Subject(kind="onnx", graph=trace(module, inputs).graph, module=module, inputs=inputs)


def _checked(subject: Subject, shapes: Sequence[str]) -> Subject:
    """The subject, if it reads what the command line says."""
    from nasgraph.commands.options import parse_shape

    own = [subject.graph.shapes[index] for index in subject.graph.inputs]
    if shapes and own != [parse_shape(text) for text in shapes]:
        raise WrongUsageError(
            f"Expected '--input-shape' to be that of the graph, {own} (got {', '.join(shapes)})"
        )
    return subject


def _labelled_dag(text: str) -> "ComputationalGraph | None":
    """The graph of a labelled DAG as tables hold them: JSON with nodes, edges and no schema."""
    from nasgraph.evaluate.table import graph_of_labelled_dag

    value = _json(text)
    if isinstance(value, dict) and set(value) == {"nodes", "edges"}:
        return graph_of_labelled_dag(value)
    return None


def _json(text: str) -> "Json":
    """The JSON that is written out or stands in a file; None if there is none. What is wrong is said by `load_target`."""
    from nasgraph.files import parse_json, read_json

    try:
        if text.startswith("{"):
            return parse_json(text)
        return read_json(Path(text)) if text.endswith(".json") and Path(text).is_file() else None
    except NasGraphError:
        return None


def tensors_of(inputs: "ExampleInputs") -> "tuple[Tensor, ...]":
    """The inputs as a tuple of tensors.

    Raises:
        NasGraphError: If there are other things among them, or they go by name.
    """
    from torch import Tensor

    if isinstance(inputs, Tensor):
        return (inputs,)
    found = [value for value in inputs if isinstance(value, Tensor)]
    if len(found) != len(inputs):
        raise NasGraphError("Expected example inputs that are tensors, by their order")
    return tuple(found)
