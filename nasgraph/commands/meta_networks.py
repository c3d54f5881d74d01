"""What NETWORK on the command line stands for, and where a changed network goes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import DEFAULT_INPUT_SHAPE, WrongUsageError, parse_shape

if TYPE_CHECKING:
    from torch import Tensor

    from nasgraph.data import DataSet, Preparation
    from nasgraph.ir import ComputationalGraph
    from nasgraph.modelzoo import ZooEntry
    from nasgraph.modelzoo.card import DataFacts
    from nasgraph.modelzoo.networks import Network
    from nasgraph.modelzoo.store import Zoo
    from nasgraph.spaces import Choice

_FORMS = "a model of the zoo (NAME, NAME/VERSION, NAME@ALIAS), run:ID, or SOURCE+FILE.safetensors with SOURCE model.py:factory or a graph"
NetworkArgument = Annotated[
    str,
    typer.Argument(
        metavar="NETWORK",
        help="Model of the zoo (NAME, NAME/VERSION or NAME@ALIAS), run:ID of MLflow, or model.py:factory+weights.safetensors "
        "(the file is executed) or graph.json+weights.safetensors.",
    ),
]
NetworksArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="NETWORK...",
        help="Models of the zoo, run:ID, or SOURCE+weights.safetensors; see 'nasgraph meta prune --help'.",
    ),
]
ShapeOption = Annotated[
    str | None,
    typer.Option("--input-shape", metavar="INT,..", help="Shape of one example, for a model.py.", show_default="of the file"),
]  # fmt: skip
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="Data set, or path of one.", show_default="that of the model's card"),
]
SpeedUpOption = Annotated[float, typer.Option("--speed-up", help="How many times fewer multiply-adds.")]
OutOption = Annotated[
    str | None,
    typer.Option(
        "-o", "--out", metavar="NAME", help="Name in the zoo of the result.", show_default="not kept"
    ),
]


def open_network(zoo: "Zoo", text: str, *, input_shape: str | None = None) -> "Network":
    """The network that a NETWORK names.

    Args:
        zoo: The zoo.
        text: A reference, `run:ID`, or `SOURCE+FILE.safetensors`.
        input_shape: Shape of one example for a `model.py:factory` without `example_inputs()`.

    Raises:
        WrongUsageError: If the text has none of the forms.
        NasGraphError: If the network cannot be read.
    """
    from nasgraph.modelzoo.networks import network_of_entry, network_of_run

    if text.endswith(".safetensors"):
        source, plus, weights = text.rpartition("+")
        if not plus or not source:
            raise WrongUsageError(f"'{text:.200}' are weights without a model. A NETWORK is {_FORMS}")
        return _from_files(source, Path(weights), input_shape)
    if text.startswith("run:"):
        return network_of_run(zoo, text.removeprefix("run:"))
    if re.search(r"\.(py:\w+|json|onnx)$", text):
        raise WrongUsageError(
            f"'{text:.200}' has no weights: write {text:.200}+weights.safetensors. A NETWORK is {_FORMS}"
        )
    return network_of_entry(zoo, text)


def _from_files(source: str, weights: Path, input_shape: str | None) -> "Network":
    from nasgraph.commands.factories import EXAMPLES, example_inputs, is_factory, load_factory
    from nasgraph.commands.targets import load_target
    from nasgraph.modelzoo.networks import network_of_graph, network_of_module
    from nasgraph.spaces import Candidate

    if is_factory(source):
        module, python = load_factory(source)
        if input_shape is None and not hasattr(python, EXAMPLES):
            raise WrongUsageError(
                f"Describe the input of '{source}' with --input-shape, or write a function '{EXAMPLES}()' into the file"
            )
        inputs = example_inputs(python, () if input_shape is None else (input_shape,), ())
        return network_of_module(module, weights, inputs, source=source)
    shape = parse_shape(input_shape or DEFAULT_INPUT_SHAPE)
    target = load_target(source, input_shape=shape, num_classes=10)
    graph = target.graph if isinstance(target, Candidate) else target
    return network_of_graph(graph, weights, source=source)


def data_for(
    network: "Network", data: str | None, data_dir: Path | None, *, required: bool
) -> "tuple[DataSet, Preparation] | None":
    """The data set to train and to measure on: the one that is named, else that of the model's card.

    Raises:
        WrongUsageError: If there is none although it is required, or it does not fit the network.
    """
    from nasgraph.data import Preparation, dataset_names, load_dataset

    entry = network.entry
    facts = None if entry is None else entry.card.data
    if entry is not None and facts is not None and data in (None, facts.name):
        loaded = _of_card(entry, facts, data_dir)
    elif data is not None:
        where = data if data in dataset_names() else Path(data)
        loaded = (load_dataset(where, data_dir=data_dir), Preparation())
    elif required:
        raise WrongUsageError(f"'{network.name}' comes without data. Name some with --data")
    else:
        return None
    expected = tuple(network.graph.shapes[network.graph.inputs[0]])
    if loaded[0].input_shape != expected:
        raise WrongUsageError(
            f"'{network.name}' takes examples of shape {expected}, those of '{loaded[0].name}' have {loaded[0].input_shape}"
        )
    return loaded


def _of_card(entry: "ZooEntry", data: "DataFacts", data_dir: Path | None) -> "tuple[DataSet, Preparation]":
    from nasgraph.data import Preparation
    from nasgraph.modelzoo import dataset_of

    preparation = Preparation(image_size=data.image_size, num_train=data.num_train)
    return dataset_of(entry, data_dir), preparation


def keep(
    zoo: "Zoo",
    name: str,
    parents: "Sequence[Network]",
    graph: "ComputationalGraph",
    state: "Mapping[str, Tensor]",
    *,
    kind: str,
    notes: Sequence[str],
    settings: "Mapping[str, Choice]",
    metrics: Mapping[str, float],
    data: "tuple[DataSet, Preparation] | None",
    series: Mapping[str, Sequence[float]] | None = None,
    seed: int = 0,
) -> str:
    """Record what was done as a run in MLflow, and register the result as the next version of a model.

    Returns:
        Reference of the new version, such as `name/3`.
    """
    import tempfile

    from nasgraph.modelzoo.derived import write_derived
    from nasgraph.tracking import record_run

    with tempfile.TemporaryDirectory(prefix="nasgraph-meta-") as temporary:
        entry = write_derived(
            Path(temporary) / "entry", name, parents, graph, state, notes=notes, training={"edit": kind, **settings}, data=data, seed=seed
        )  # fmt: skip
        facts = {**settings, "parents": ", ".join(parent.reference or parent.source for parent in parents)}
        run_id = record_run(
            zoo.uri, name=f"{kind} {name}", kind=kind, facts=facts, metrics=metrics, series=series
        )
        return str(zoo.add(entry.path, name, run_id=run_id))


def accuracy_on(graph: "ComputationalGraph", state: "Mapping[str, Tensor]", dataset: "DataSet") -> float:
    """Accuracy on the validation split."""
    from nasgraph.evaluate.measure import measure
    from nasgraph.modules import Program

    return measure(Program(graph), state, dataset.search.validation, batch_size=256)[1]
