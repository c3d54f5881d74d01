"""`nasgraph zoo similar`, `compare`, `for-data`: questions about several models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import (
    DEFAULT_CLASSES,
    DEFAULT_INPUT_SHAPE,
    ClassesOption,
    DataDirOption,
    InputShapeOption,
    JsonOption,
    TrackingUriOption,
    parse_shape,
)

if TYPE_CHECKING:
    from nasgraph.commands.output import Cell
    from nasgraph.ir import ComputationalGraph
    from nasgraph.modelzoo.store import Zoo

MostOption = Annotated[int, typer.Option("-n", "--most", min=1, max=1000, help="Length of the answer.")]


def similar(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A model of the zoo, or any architecture: graph.json, model.py:factory (which is executed), model.onnx, space:seed.",
        ),
    ],
    most: MostOption = 10,
    text: Annotated[str, typer.Option("--text", help="Only models whose card has all these words.")] = "",
    data: Annotated[str | None, typer.Option("--data", help="Only models of this data set.", show_default=False)] = None,
    space: Annotated[str | None, typer.Option("--space", help="Only models of this search space.", show_default=False)] = None,
    max_parameters: Annotated[
        int | None, typer.Option("--max-parameters", min=1, help="Only models with so many parameters at most.", show_default=False)
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say which parts both have in common.")] = False,
    input_shape: InputShapeOption = DEFAULT_INPUT_SHAPE,
    classes: ClassesOption = DEFAULT_CLASSES,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Find the models whose architecture is most like another."""
    from nasgraph.commands.output import Output
    from nasgraph.modelzoo.store import Zoo

    output, zoo = Output(json_mode=json), Zoo(tracking_uri)
    asked = _architecture(zoo, target, input_shape=input_shape, classes=classes)
    found = zoo.similar(asked, most=most, text=text, data=data, space=space, max_parameters=max_parameters)
    reasons = [_reason(zoo, asked, one.row.reference) if explain else "" for one in found]
    if not json:
        columns = ["name", "similarity", "data", "space", "test accuracy", "parameters"] + [
            "in common"
        ] * explain
        rows: list[list[Cell]] = [
            [one.row.reference, one.score, one.row.data, one.row.space, one.row.accuracy, one.row.num_parameters, *([why] * explain)]
            for one, why in zip(found, reasons, strict=True)
        ]  # fmt: skip
        output.table(columns, rows)
        if not found:
            output.message("No model of the zoo fulfils the conditions")
    output.result(
        {
            "target": target,
            "similar": [
                {"reference": one.row.reference, "similarity": one.score, "in_common": why or None}
                for one, why in zip(found, reasons, strict=True)
            ],
        }
    )


def compare(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Two to eight models of the zoo.")],
    all_facts: Annotated[bool, typer.Option("--all", help="Show also what is the same for all.")] = False,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:
    """Show models side by side: facts, measurements and choices."""
    from nasgraph.commands.output import Output
    from nasgraph.modelzoo.store import Zoo

    output = Output(json_mode=json)
    comparison = Zoo(tracking_uri).compare(*names)
    if not json:
        shown = [(name, values) for name, values in comparison.facts if all_facts or comparison.differs(name)]
        output.table(["fact", *comparison.names], [[name, *values] for name, values in shown])
        if not shown:
            output.message("They are the same in every fact")
    output.result({"names": list(comparison.names), "facts": {name: list(v) for name, v in comparison.facts}})


def for_data(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A data set, or path of .npz, .csv or image folder.")],
    most: MostOption = 10,
    per_class: Annotated[int, typer.Option("--per-class", min=2, help="Training examples per class that are used.")] = 20,
    method: Annotated[str, typer.Option("--method", help="linear-probe, logme or leep.")] = "linear-probe",
    max_parameters: Annotated[
        int | None, typer.Option("--max-parameters", min=1, help="Only models with so many parameters at most.", show_default=False)
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option("--max-latency", min=0, help="Only models measured to answer within so many ms.", show_default=False)
    ] = None,
    data_dir: DataDirOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Find the models that promise to fit a data set best after fine-tuning, without training any."""
    from nasgraph.commands.output import Output
    from nasgraph.data import dataset_names, load_dataset
    from nasgraph.modelzoo.store import Zoo

    output = Output(json_mode=json)
    dataset = load_dataset(data if data in dataset_names() else Path(data), data_dir=data_dir)
    found = Zoo(tracking_uri).for_dataset(
        dataset, most=most, per_class=per_class, method=method, max_parameters=max_parameters, max_latency_ms=max_latency
    )  # fmt: skip
    if not json:
        rows: list[list[Cell]] = [[one.reference, one.score, one.seconds, one.reason] for one in found]
        output.table(["name", "score", "seconds", "why"], rows)
        if not found:
            output.message("No model of the zoo fulfils the conditions")
    output.result(
        {
            "data": data,
            "method": method,
            "models": [
                {"reference": one.reference, "score": one.score, "seconds": one.seconds, "reason": one.reason}
                for one in found
            ],
        }
    )


def _architecture(zoo: "Zoo", target: str, *, input_shape: str, classes: int) -> "str | ComputationalGraph":
    """A model of the zoo if the text names one, else the graph that it stands for."""
    from nasgraph.commands.targets import load_target
    from nasgraph.errors import UnknownNameError, ZooError
    from nasgraph.spaces import Candidate

    try:
        return zoo.catalogue.row(target).reference
    except UnknownNameError as error:
        unknown: Exception = error
    except ZooError:
        unknown = ZooError(target)
    looks_like_a_name = isinstance(unknown, UnknownNameError) and not any(mark in target for mark in ":.{|")
    if looks_like_a_name:
        raise unknown
    found = load_target(target, input_shape=parse_shape(input_shape), num_classes=classes)
    return found.graph if isinstance(found, Candidate) else found


def _reason(zoo: "Zoo", asked: "str | ComputationalGraph", reference: str) -> str:
    from nasgraph.retrieve.explain import explain_match

    own = zoo.graph(asked) if isinstance(asked, str) else asked
    match = explain_match(own, zoo.graph(reference))
    return f"{match.share_a:.0%} of it: {', '.join(match.blocks)}"
