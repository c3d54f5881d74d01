"""`nasgraph zoo add`, `alias`: models from outside enter the zoo, and versions get names."""

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import (
    DEFAULT_INPUT_SHAPE,
    DataDirOption,
    JsonOption,
    TrackingUriOption,
    WrongUsageError,
    parse_shape,
)

if TYPE_CHECKING:
    from nasgraph.data import DataSet, Preparation
    from nasgraph.modelzoo import ZooEntry

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Folder of an entry, model.py:factory (which is executed), model.onnx, or with --weights an architecture: graph.json, "
        "architecture.json, or JSON.",
    ),
]
AliasesOption = Annotated[
    list[str] | None, typer.Option("--alias", help="Alias of the new version, such as champion. Repeatable.")
]


def add(
    source: SourceArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name in the zoo, new or known.")],
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="Weights of the architecture, as .safetensors.", show_default=False),
    ] = None,
    input_shape: Annotated[
        list[str] | None,
        typer.Option("--input-shape", metavar="INT,..", help="Shape of one example. Repeatable.", show_default="of the file"),
    ] = None,
    tokens: Annotated[
        list[str] | None,
        typer.Option("--tokens", metavar="LENGTH:VOCABULARY", help="An integer input of a model.py.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Data set, or path of one, that it classifies: what it does there is measured.", show_default=False),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=1, help="Resize images of --data to this.", show_default="as they are")
    ] = None,
    split_seed: Annotated[int, typer.Option("--split-seed", min=0, help="Split of --data it was trained with.")] = 0,
    licence: Annotated[str, typer.Option("--licence", help="Licence of the weights, an SPDX identifier.")] = "other",
    aliases: AliasesOption = None,
    packed: Annotated[bool, typer.Option("--pack", help="Compress the weights without loss.")] = False,
    data_dir: DataDirOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Add a model to the zoo: an entry's folder, or a model from outside.

    A model from outside is written as a graph, and held against the original on example inputs. Only a model.py is executed.
    """
    from nasgraph.commands.output import Output
    from nasgraph.modelzoo import load_entry
    from nasgraph.modelzoo.names import check_alias, check_name
    from nasgraph.modelzoo.store import Zoo

    output, zoo = Output(json_mode=json), Zoo(tracking_uri)
    check_name(name)
    for alias in aliases or ():
        check_alias(alias)
    prepared = (
        None if data is None else _prepared(data, data_dir, image_size=image_size, split_seed=split_seed)
    )
    with tempfile.TemporaryDirectory(prefix="nasgraph-add-") as temporary:
        if weights is None and Path(source).is_dir():
            if prepared is not None:
                raise WrongUsageError("An entry brings its own card: leave --data out")
            entry = load_entry(Path(source))
        else:
            shapes = tuple(input_shape or ())
            folder = Path(temporary) / "entry"
            entry = _imported(
                folder, name, source, weights, shapes, tuple(tokens or ()), prepared, licence=licence
            )
        reference = zoo.add(entry.path, name, aliases=aliases or (), packed=packed)
    output.message(f"Added '{reference}': {entry.card.num_parameters:,} parameters")
    measured = [{"split": m.split, "metric": m.metric, "value": m.value} for m in entry.card.measurements]
    output.result(
        {"reference": str(reference), "fingerprint": entry.card.fingerprint, "measurements": measured}
    )


def alias(
    reference: Annotated[
        str, typer.Argument(metavar="NAME", help="Model: NAME, NAME/VERSION or NAME@ALIAS.")
    ],
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as champion or fastest.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the alias away.")] = False,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:
    """Let an alias point at a version of a model."""
    from nasgraph.commands.output import Output
    from nasgraph.modelzoo.names import parse_reference
    from nasgraph.modelzoo.store import Zoo

    output, zoo = Output(json_mode=json), Zoo(tracking_uri)
    model = parse_reference(reference).name
    if remove:
        zoo.remove_alias(model, name)
        output.message(f"'{model}@{name}' is no more")
    else:
        zoo.set_alias(reference, name)
        output.message(f"'{model}@{name}' is now '{reference}'")
    output.result({"name": model, "alias": name, "removed": remove})


def _prepared(
    data: str, data_dir: Path | None, *, image_size: int | None, split_seed: int
) -> "tuple[DataSet, Preparation]":
    from nasgraph.data import Preparation, dataset_names, load_dataset

    where = data if data in dataset_names() else Path(data)
    preparation = Preparation(image_size=image_size)
    loaded = load_dataset(where, data_dir=data_dir, split_seed=split_seed, image_size=image_size)
    return loaded, preparation


def _imported(
    folder: Path,
    name: str,
    source: str,
    weights: Path | None,
    shapes: tuple[str, ...],
    tokens: tuple[str, ...],
    data: "tuple[DataSet, Preparation] | None",
    *,
    licence: str,
) -> "ZooEntry":
    from nasgraph.commands.factories import EXAMPLES, example_inputs, is_factory, load_factory
    from nasgraph.commands.targets import load_target
    from nasgraph.modelzoo.importing import import_checkpoint, import_module, import_onnx

    if weights is not None:
        shape = parse_shape(shapes[0]) if shapes else None if data is None else data[0].input_shape
        classes = 10 if data is None else len(data[0].class_names)
        target = load_target(
            source, input_shape=shape or parse_shape(DEFAULT_INPUT_SHAPE), num_classes=classes
        )
        return import_checkpoint(folder, name, target, weights, licence=licence, data=data)
    if re.search(r"\.onnx$", source, re.IGNORECASE):
        return import_onnx(folder, name, Path(source), licence=licence, data=data)
    if is_factory(source):
        module, python = load_factory(source)
        if not shapes and not tokens and data is not None and not hasattr(python, EXAMPLES):
            shapes = (",".join(map(str, data[0].input_shape)),)
        inputs = example_inputs(python, shapes, tokens)
        return import_module(folder, name, module, inputs, source=source, licence=licence, data=data)
    raise WrongUsageError(
        f"Expected SOURCE as the folder of an entry, model.py:factory, model.onnx, or an architecture with --weights "
        f"(got '{source:.200}')"
    )
