"""What TARGET on the command line stands for: a graph, an architecture, or a sample of a search space."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nasgraph.commands.factories import EXAMPLES, example_inputs, is_factory, load_factory
from nasgraph.commands.options import WrongUsageError

if TYPE_CHECKING:
    from nasgraph.files import Json
    from nasgraph.ir import ComputationalGraph
    from nasgraph.spaces import Architecture, Candidate, SearchSpace

FORMS = (
    "a file with a graph or an architecture, an architecture as JSON, a NAS-Bench-201 string (|op~0|+...), "
    "space:seed such as convnet:7, a torch model as model.py:factory, or a model.onnx"
)


def load_target(
    text: str, *, space: str | None = None, input_shape: tuple[int, ...], num_classes: int
) -> "Candidate | ComputationalGraph":
    """Find out what a TARGET is, and load it.

    Args:
        text: One of the `FORMS`. With `space` given, a seed alone will do.
        space: Name of the search space for a seed alone. An architecture must belong to it, if it is given.
        input_shape: Shape of one example. A graph file has its own, and this is not looked at.
        num_classes: Length of the output. A graph file has its own, and this is not looked at.

    Returns:
        A candidate where the choices are known, a graph otherwise.

    Raises:
        WrongUsageError: If the text has none of the forms, or names no file.
        UnknownNameError: If there is no such search space.
        NasGraphError: If a file cannot be read, or holds no valid graph or architecture, or a model cannot be traced.
    """
    from nasgraph.files import parse_json, read_json
    from nasgraph.spaces import load_space, replay

    def load(name: str) -> "SearchSpace":
        return load_space(name, input_shape=input_shape, num_classes=num_classes)

    def load_architecture(architecture: "Architecture") -> "Candidate":
        if space is not None and architecture.space != space:
            raise WrongUsageError(
                f"Expected an architecture of '{space}' (got one of '{architecture.space}')"
            )
        return replay(load(architecture.space), architecture)

    text = text.strip()
    if text.startswith("{"):
        return _from_json(parse_json(text, source="TARGET"), "TARGET", load_architecture)
    if text.startswith("|"):
        return load_architecture(_nasbench201(text))
    if sampled := _space_and_seed(text, space):
        return sample_of(load(sampled[0]), seed=sampled[1])
    if is_factory(text):
        return _from_factory(text, input_shape)
    path = Path(text)
    if path.suffix.lower() == ".onnx" and path.is_file():
        return _from_onnx(path)
    if not path.is_file():
        raise WrongUsageError(
            f"There is no file '{text:.200}', and it is no architecture. A TARGET is {FORMS}"
        )
    return _from_json(read_json(path), f"'{path}'", load_architecture)


def _from_factory(text: str, input_shape: tuple[int, ...]) -> "ComputationalGraph":
    from nasgraph.modules import trace

    module, python = load_factory(text)
    shapes = () if hasattr(python, EXAMPLES) else (",".join(map(str, input_shape)),)
    return trace(module, example_inputs(python, shapes, ())).graph


def _from_onnx(path: Path) -> "ComputationalGraph":
    from nasgraph.modules import trace
    from nasgraph.modules.onnx import load_onnx, onnx_example_inputs

    return trace(load_onnx(path), onnx_example_inputs(path)).graph


def sample_of(space: "SearchSpace", *, seed: int) -> "Candidate":
    """The candidate that `space:seed` names. The same on every machine."""
    from nasgraph.seeding import generator
    from nasgraph.spaces import sample

    return sample(space, generator(seed, "target", space.name))


def _space_and_seed(text: str, space: str | None) -> tuple[str, int] | None:
    if space is not None and text.isdecimal():
        return space, int(text)
    found = re.fullmatch(r"([A-Za-z0-9_.-]+):(\d+)", text)
    return (found[1], int(found[2])) if found and not Path(text).exists() else None


def _from_json(
    value: "Json", source: str, load_architecture: "Callable[[Architecture], Candidate]"
) -> "Candidate | ComputationalGraph":
    from nasgraph.files import canonical_json
    from nasgraph.ir import graph_from_json
    from nasgraph.spaces import architecture_from_json

    if isinstance(value, dict) and "choices" in value:
        choices = value["choices"]
        if isinstance(choices, dict):  # the form that people write
            value = {**value, "choices": [[name, choice] for name, choice in choices.items()]}
        return load_architecture(architecture_from_json(value))
    return graph_from_json(canonical_json(value), source=source)


def _nasbench201(text: str) -> "Architecture":
    """The architecture of the benchmark's own text: `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
    from nasgraph.spaces import Architecture

    if not re.fullmatch(
        r"\|[^|~+]+~0\|\+\|[^|~+]+~0\|[^|~+]+~1\|\+\|[^|~+]+~0\|[^|~+]+~1\|[^|~+]+~2\|", text
    ):
        raise WrongUsageError(
            f"Expected a NAS-Bench-201 string '|op~0|+|op~0|op~1|+|op~0|op~1|op~2|' (got '{text:.200}')"
        )
    operations = re.findall(r"[^|~+]+(?=~)", text)
    edges = [(source, target) for target in range(1, 4) for source in range(target)]
    choices = (
        (f"edge_{source}_{target}", op) for (source, target), op in zip(edges, operations, strict=True)
    )
    return Architecture("nasbench201", tuple(choices))
