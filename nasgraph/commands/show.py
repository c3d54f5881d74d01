"""`nasgraph show`: what an architecture is, as a table or as a picture."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import (
    DEFAULT_CLASSES,
    DEFAULT_INPUT_SHAPE,
    ClassesOption,
    InputShapeOption,
    JsonOption,
    SpaceOption,
    WrongUsageError,
    parse_shape,
)

if TYPE_CHECKING:
    from nasgraph.commands.output import Cell, Output
    from nasgraph.ir import ComputationalGraph
    from nasgraph.spaces import Architecture


def show(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="graph.json, architecture.json, an architecture as JSON, a NAS-Bench-201 string, space:seed, "
            "model.py:factory or model.onnx.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            help="Write a picture (.svg), the graph (.json) or plain torch code (.py); - for SVG on stdout.",
        ),
    ] = None,
    title: Annotated[
        str, typer.Option("--title", help="Heading of the picture.", show_default="TARGET")
    ] = "",
    fold: Annotated[
        bool, typer.Option("--fold/--no-fold", help="Draw chains and repeated blocks as one box.")
    ] = True,
    space: SpaceOption = None,
    input_shape: InputShapeOption = DEFAULT_INPUT_SHAPE,
    classes: ClassesOption = DEFAULT_CLASSES,
    json: JsonOption = False,
) -> None:
    """Show an architecture: its size and costs, or with -o a picture of it."""
    from nasgraph.commands.output import Output
    from nasgraph.commands.targets import load_target
    from nasgraph.spaces import Candidate

    if out == "-" and json:
        raise WrongUsageError("'-o -' and '--json' would both write to stdout; choose one")
    loaded = load_target(target, space=space, input_shape=parse_shape(input_shape), num_classes=classes)
    graph, architecture = (
        (loaded.graph, loaded.architecture) if isinstance(loaded, Candidate) else (loaded, None)
    )
    output = Output(json_mode=json)
    if out is not None:
        _write(graph, out, title=title or _short(target), fold=fold)
        if out != "-":
            output.message(f"Wrote {out}")
    if out is None and not json:
        _print_tables(output, graph, architecture, title=title or _short(target))
    output.result({"target": target, **_facts(graph, architecture), "written": out})


def _short(target: str) -> str:
    return target if len(target) <= 80 else f"{target[:77]}..."


def _write(graph: "ComputationalGraph", out: str, *, title: str, fold: bool) -> None:
    from nasgraph.draw import draw_svg
    from nasgraph.files import write_text
    from nasgraph.ir import graph_to_json

    if out == "-":
        typer.echo(draw_svg(graph, title=title, fold=fold), nl=False)
    elif out.lower().endswith(".svg"):
        write_text(Path(out), draw_svg(graph, title=title, fold=fold))
    elif out.lower().endswith(".json"):
        write_text(Path(out), graph_to_json(graph) + "\n")
    elif out.lower().endswith(".py"):
        from nasgraph.modules import graph_to_source  # torch: only here

        write_text(Path(out), graph_to_source(graph))
    else:
        raise WrongUsageError(f"Expected '-o' to end with .svg, .json or .py, or to be - (got '{out:.200}')")


def _facts(graph: "ComputationalGraph", architecture: "Architecture | None") -> dict[str, object]:
    from nasgraph.ir import cost_of

    cost = cost_of(graph)
    return {
        "space": architecture.space if architecture else None,
        "choices": dict(architecture.choices) if architecture else None,
        "fingerprint": graph.fingerprint,
        "num_nodes": len(graph),
        "depth": cost.depth,
        "num_parameters": cost.num_parameters,
        "multiply_adds": cost.multiply_adds,
        "activation_bytes": cost.activation_bytes,
        "input_shapes": [graph.shapes[index] for index in graph.inputs],
        "output_shapes": [graph.shapes[index] for index in graph.outputs],
    }


def _print_tables(
    output: "Output", graph: "ComputationalGraph", architecture: "Architecture | None", *, title: str
) -> None:
    from nasgraph.ir import cost_of

    cost = cost_of(graph)
    cells: dict[str, Cell] = {
        "fingerprint": graph.fingerprint,
        "input": ", ".join("x".join(map(str, graph.shapes[index])) for index in graph.inputs),
        "output": ", ".join("x".join(map(str, graph.shapes[index])) for index in graph.outputs),
        "nodes": len(graph),
        "depth": cost.depth,
        "parameters": cost.num_parameters,
        "multiply-adds": cost.multiply_adds,
        "activation bytes": cost.activation_bytes,
    }
    output.facts(cells, title=title)
    if architecture is not None:
        choices = {name: str(choice) for name, choice in architecture.choices}
        output.facts(choices, title=f"choices in '{architecture.space}'")
    operators = Counter(node.op for node in graph.nodes)
    rows = sorted(operators.items(), key=lambda item: (-item[1], item[0]))
    output.table(["operator", "nodes"], rows)
