"""`nasgraph ghn eval`: predicted weights on architectures that were never trained on, in and out of distribution."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import DataDirOption, DeviceOption, JsonOption

if TYPE_CHECKING:
    from nasgraph.commands.output import Output
    from nasgraph.data import DataSet, Split
    from nasgraph.hyper import GraphHyperNetwork
    from nasgraph.spaces import Candidate

ALL_SPLITS = "all"


def evaluate(
    ghn: Annotated[str, typer.Argument(metavar="GHN", help="Shipped hypernetwork by name, or a folder.")],
    count: Annotated[
        int, typer.Option("--count", min=1, max=500, help="Architectures per space or split.")
    ] = 50,
    space: Annotated[
        list[str] | None,
        typer.Option(
            "--space",
            help="Search space, whose held-out architectures are measured.",
            show_default="those it was trained on",
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            help="Evaluation split instead of a space: id_val, id_test, wide, deep, dense, norm_free, predefined or "
            "all; repeat it for several.",
            show_default=False,
        ),
    ] = None,
    num_examples: Annotated[
        int | None,
        typer.Option(
            "--num-examples", min=2, help="Use the first so many validation examples.", show_default="all"
        ),
    ] = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure predicted weights on architectures never trained on, beside random weights, on validation data."""
    from nasgraph.commands.output import Output
    from nasgraph.data import load_dataset
    from nasgraph.errors import UnknownNameError
    from nasgraph.hyper import load_ghn
    from nasgraph.pipeline import pick_device, shipped_ghns

    shipped = shipped_ghns()
    folder = shipped.get(ghn, Path(ghn))
    if not folder.is_dir():
        raise UnknownNameError("graph hypernetwork", ghn, shipped, hint="A folder works, too.")
    network, recipe = load_ghn(folder, device=pick_device(device))
    dataset = load_dataset(
        str(recipe["data"]),
        data_dir=data_dir,
        image_size=_whole(recipe.get("image_size")),
        num_train=_whole(recipe.get("num_train")),
    )
    trained_on = recipe["spaces"]
    assert isinstance(trained_on, list)
    names = space or ([] if split else [str(name) for name in dict.fromkeys(map(str, trained_on))])
    wanted = {**held_out_of(names, dataset, count=count), **splits_of(split or [], dataset, count=count)}
    output = Output(json_mode=json)
    report = measure_candidates(network, wanted, dataset, output, num_examples=num_examples)
    if not json:
        print_evaluation(output, report, title=f"{ghn}: predicted weights on architectures never trained on")
    output.result({"ghn": ghn, "data": dataset.name, "count": count, "evaluation": report})


def held_out_of(names: Sequence[str], dataset: "DataSet", *, count: int) -> "dict[str, list[Candidate]]":
    """The first held-out architectures of each space, by its name."""
    from nasgraph.hyper import held_out_candidates
    from nasgraph.spaces import load_space

    return {
        name: held_out_candidates(
            [load_space(name, input_shape=dataset.input_shape, num_classes=dataset.num_classes)], count=count
        )
        for name in names
    }


def splits_of(names: Sequence[str], dataset: "DataSet", *, count: int) -> "dict[str, list[Candidate]]":
    """The first architectures of each evaluation split, by its name."""
    from nasgraph.hyper import split_list

    known = split_list()
    wanted = known.splits if ALL_SPLITS in names else dict.fromkeys(names)
    return {
        name: known.named(name).candidates(
            input_shape=dataset.input_shape, num_classes=dataset.num_classes, count=count
        )
        for name in wanted
    }


def measure_candidates(
    ghn: "GraphHyperNetwork",
    wanted: "Mapping[str, Sequence[Candidate]]",
    dataset: "DataSet",
    output: "Output",
    *,
    num_examples: int | None = None,
) -> dict[str, dict[str, float]]:
    """Mean, spread and best of the validation accuracy with predicted weights, and the mean with random ones."""
    from statistics import mean, pstdev

    import torch

    validation = dataset.search.validation.to(ghn.device)
    if num_examples is not None:
        validation = validation.pick(torch.arange(min(num_examples, len(validation))))
    report = {}
    with output.progress("Measuring", total=sum(map(len, wanted.values()))) as bar:
        for name, candidates in wanted.items():
            predicted, random = [], []
            for candidate in candidates:
                ours, theirs = _accuracies(ghn, candidate, validation)
                predicted.append(ours)
                random.append(theirs)
                bar.advance()
            report[name] = {
                "architectures": len(candidates),
                "predicted_weights": mean(predicted),
                "predicted_weights_std": pstdev(predicted),
                "predicted_weights_best": max(predicted),
                "random_weights": mean(random),
                "random_weights_std": pstdev(random),
            }
    return report


def _accuracies(ghn: "GraphHyperNetwork", candidate: "Candidate", validation: "Split") -> tuple[float, float]:
    """Accuracy with predicted and with random weights."""
    from nasgraph.evaluate import measure
    from nasgraph.modules import Program, initial_parameters

    program = Program(candidate.graph)
    own = initial_parameters(candidate.graph, seed=0)
    start = {name: tensor.to(ghn.device) for name, tensor in own.items()}
    (predicted,) = ghn.predict([candidate.graph])
    return tuple(measure(program, weights, validation, batch_size=256)[1] for weights in (predicted, start))  # type: ignore[return-value]  # two of them


def print_evaluation(output: "Output", report: Mapping[str, Mapping[str, float]], *, title: str) -> None:
    """One row per space or split."""
    columns = ["architectures of", "number", "predicted weights", "spread", "best", "random weights"]
    keys = (
        "architectures",
        "predicted_weights",
        "predicted_weights_std",
        "predicted_weights_best",
        "random_weights",
    )
    output.table(columns, [[name, *(row[key] for key in keys)] for name, row in report.items()], title=title)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
