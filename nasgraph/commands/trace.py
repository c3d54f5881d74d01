"""`nasgraph trace`: a user's own model as a graph."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import JsonOption, WrongUsageError

if TYPE_CHECKING:
    from nasgraph.commands.output import Output
    from nasgraph.modules import TracedGraph

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="model.py:factory or package.module:factory; the factory is a function without arguments, a class or a "
        "torch.nn.Module. Its code is run.",
    ),
]
ShapesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="INT,..",
        help="Shape of one example of a real-valued input, such as 3,32,32; repeat it for several inputs.",
        show_default="example_inputs() of the file",
    ),
]
TokensOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tokens",
        metavar="LENGTH:VOCABULARY",
        help="An integer input, such as 128:50257; it follows the real-valued ones.",
        show_default=False,
    ),
]


def trace(
    model: ModelArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Write the graph here (.json), its constants beside it (.safetensors); or a picture (.svg).",
        ),
    ] = None,
    input_shape: ShapesOption = None,
    tokens: TokensOption = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Make unknown operators with parameters opaque.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write any torch model as a graph, and say what in it the graph language cannot express.

    The model runs once on the meta device: without data, and without memory for its activations.
    """
    from nasgraph.commands.factories import example_inputs, load_factory
    from nasgraph.commands.output import Output
    from nasgraph.modules import trace as trace_module

    output = Output(json_mode=json)
    module, python = load_factory(model)
    traced = trace_module(
        module, example_inputs(python, input_shape or (), tokens or ()), allow_unknown=allow_unknown
    )
    written = [] if out is None else _write(traced, out, title=model)
    if not json:
        print_traced(output, traced, title=model)
        for path in written:
            output.message(f"Wrote {path}")
    output.result({"model": model, **facts_of(traced), "written": [str(path) for path in written]})


def facts_of(traced: "TracedGraph") -> dict[str, object]:
    """What a traced graph is, for JSON."""
    from nasgraph.ir import cost_of

    graph = traced.graph
    cost = cost_of(graph)
    return {
        "fingerprint": graph.fingerprint,
        "num_nodes": len(graph),
        "num_parameters": cost.num_parameters,
        "multiply_adds": cost.multiply_adds,
        "input_shapes": [graph.shapes[index] for index in graph.inputs],
        "output_shapes": [graph.shapes[index] for index in graph.outputs],
        "unused_parameters": list(traced.unused),
        "opaque": {
            name: {"nodes": n, "reason": traced.reasons.get(name, "")} for name, n in traced.opaque.items()
        },
        "is_executable": graph.is_executable,
        "specialised": list(traced.specialised),
        "route": traced.route,
    }


def print_traced(output: "Output", traced: "TracedGraph", *, title: str) -> None:
    """Tables for people: size, and all that a graph does not hold of the model."""
    facts = facts_of(traced)
    output.facts(
        {
            "fingerprint": str(facts["fingerprint"]),
            "input": ", ".join("x".join(map(str, traced.graph.shapes[i])) for i in traced.graph.inputs),
            "output": ", ".join("x".join(map(str, traced.graph.shapes[i])) for i in traced.graph.outputs),
            "nodes": len(traced.graph),
            "parameters": sum(owner_size for owner_size in _sizes(traced)),
            "unused parameters": ", ".join(traced.unused) or "none",
            "can be built from the graph": "yes" if traced.graph.is_executable else "no",
            "recorded by": traced.route,
        },
        title=title,
    )
    if traced.opaque:
        rows = [
            (name, number, traced.reasons.get(name, "")) for name, number in sorted(traced.opaque.items())
        ]
        output.table(["opaque operator", "nodes", "reason"], rows)
    for question in traced.specialised:
        output.message(
            f"The model asked for content: {question}. The graph holds where the answer is the same."
        )


def _sizes(traced: "TracedGraph") -> list[int]:
    from math import prod

    return [prod(owner.shape) for owner in traced.owners.values()]


def _write(traced: "TracedGraph", out: Path, *, title: str) -> list[Path]:
    from nasgraph.draw import draw_svg
    from nasgraph.files import write_text
    from nasgraph.hyper.checkpoint import save_tensors
    from nasgraph.ir import graph_to_json

    if out.suffix.lower() == ".svg":
        write_text(out, draw_svg(traced.graph, title=title))
        return [out]
    if out.suffix.lower() != ".json":
        raise WrongUsageError(f"Expected '-o' to end with .json or .svg (got {str(out)[:200]!r})")
    written = [out]
    if traced.constants:
        save_tensors(out.with_suffix(".safetensors"), traced.constants)
        written.append(out.with_suffix(".safetensors"))
    write_text(out, graph_to_json(traced.graph) + "\n")
    return written
