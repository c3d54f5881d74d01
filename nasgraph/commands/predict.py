"""`nasgraph predict`: what can be said of an architecture before it is trained."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import (
    DEFAULT_INPUT_SHAPE,
    DataDirOption,
    DeviceOption,
    JsonOption,
    SeedOption,
    SpaceOption,
    WrongUsageError,
    parse_shape,
)
from nasgraph.commands.predict_known import SHIPPED
from nasgraph.errors import NasGraphError, UnknownNameError

if TYPE_CHECKING:
    from nasgraph.commands.output import Output
    from nasgraph.commands.predict_ghn import GhnOptions
    from nasgraph.commands.predict_known import Labels
    from nasgraph.commands.predict_target import Subject
    from nasgraph.data import DataSet
    from nasgraph.predict import EnsembleConfig

DEFAULT_DATA = "digits"


def predict(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="graph.json, architecture.json, an architecture as JSON, a NAS-Bench-201 string, space:seed, "
            "model.py:factory (its code is run), model.onnx, or with --labels a key of the table.",
        ),
    ],
    known: Annotated[
        str, typer.Option("--known", help="What to learn from: a shipped one by name, a folder, or none.")
    ] = SHIPPED,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="TABLE[:METRIC]",
            help="Learn from a table instead: a name or a file.",
            show_default=False,
        ),
    ] = None,
    max_labels: Annotated[
        int, typer.Option("--max-labels", min=8, max=5000, help="Rows of the table to learn from, at most.")
    ] = 300,
    level: Annotated[
        float, typer.Option("--level", help="Share of the truth that the interval shall hold.")
    ] = 0.9,
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            "--input-shape",
            metavar="INT,..",
            help="Shape of one example, such as 3,32,32; repeat it for a model with several inputs.",
            show_default="of --data, else of what is known",
        ),
    ] = None,
    tokens: Annotated[
        list[str] | None,
        typer.Option(
            "--tokens", metavar="LENGTH:VOCABULARY", help="An integer input of a model.", show_default=False
        ),
    ] = None,
    proxies: Annotated[
        str | None,
        typer.Option(
            "--proxies", metavar="all|NAME,..", help="Zero-cost proxies to compute.", show_default=False
        ),
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure one forward pass on this machine.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Data set of the scores, or path of .npz, .csv or image folder.",
            show_default=DEFAULT_DATA,
        ),
    ] = None,
    ghn: Annotated[
        str, typer.Option("--ghn", help="auto, none, a shipped one by name, or a folder.")
    ] = "auto",
    tune_steps: Annotated[
        int, typer.Option("--tune-steps", min=0, max=100_000, help="Optimiser steps before the second score.")
    ] = 16,
    compare: Annotated[
        int, typer.Option("--compare", min=0, max=10_000, help="Random candidates to compare scores with.")
    ] = 64,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Resize images to this size.")
    ] = None,
    space: SpaceOption = None,
    seed: SeedOption = 0,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Predict how well an architecture does after training, with an interval, its costs and its nearest known relatives.

    The prediction is learnt from measured architectures: those of NAS-Bench-201 on CIFAR-10, or any table. What is
    unlike them gets a warning. Scores with weights that a graph hypernetwork predicts are shown beside random candidates;
    they rank architectures and are no forecast.
    """
    from nasgraph.commands.output import Output
    from nasgraph.commands.predict_ghn import GhnOptions
    from nasgraph.commands.predict_report import print_subject, subject_facts
    from nasgraph.predict import EnsembleConfig

    output = Output(json_mode=json)
    config = EnsembleConfig(level=level)
    learnt = _labels(known, labels, max_labels=max_labels, seed=seed, is_known_given=known != SHIPPED)
    for text in input_shape or ():
        parse_shape(text)
    dataset = _dataset(data, ghn=ghn, data_dir=data_dir, image_size=image_size)
    subject = _subject(
        target,
        learnt,
        dataset if data else None,
        space=space,
        shapes=input_shape or (),
        tokens=tokens or (),
        output=output,
    )
    facts = subject_facts(target, subject)
    result: dict[str, object] = {**facts, "prediction": None, "data": None, "ghn": None, "scores": None}
    result |= {"better_than_share_of_random": None, "compared_with": 0}
    skipped: dict[str, str] = {}
    print_subject(output, facts)
    parts = _Parts(output, subject, result, skipped)
    parts.prediction(learnt, config)
    if proxies is not None:
        parts.proxies(proxies, dataset if data else None, seed=seed)
    if latency:
        parts.latency(device)
    parts.scores(
        dataset,
        GhnOptions(ghn=ghn, tune_steps=tune_steps, compare=compare, space=space, seed=seed, device=device),
    )
    for name, reason in skipped.items():
        output.message(f"no {name}: {reason}")
    output.result({**result, "skipped": skipped})


def _labels(
    known: str, labels: str | None, *, max_labels: int, seed: int, is_known_given: bool
) -> "Labels | None":
    from nasgraph.commands.predict_known import find_known, labels_of_table

    if labels is None:
        return find_known(known)
    if is_known_given:
        raise WrongUsageError("'--labels' and '--known' both say what to learn from; choose one")
    return labels_of_table(labels, max_labels=max_labels, seed=seed)


def _dataset(data: str | None, *, ghn: str, data_dir: object, image_size: int | None) -> "DataSet | None":
    """The data of the scores; None if nothing needs any."""
    from pathlib import Path

    from nasgraph.data import load_dataset

    if data is None and ghn == "none":
        return None
    assert data_dir is None or isinstance(data_dir, Path)
    return load_dataset(data or DEFAULT_DATA, data_dir=data_dir, image_size=image_size)


def _subject(
    target: str,
    learnt: "Labels | None",
    dataset: "DataSet | None",
    *,
    space: str | None,
    shapes: "list[str] | tuple[str, ...]",
    tokens: "list[str] | tuple[str, ...]",
    output: "Output",
) -> "Subject":
    """The target, with the shape that the command line names, else that of the data, else that of what is known."""
    from nasgraph.commands.predict_target import load_subject

    known = learnt.known if learnt else None
    shape, classes = parse_shape(DEFAULT_INPUT_SHAPE), 10
    if known is not None and known.input_shape is not None:
        shape, classes = known.input_shape, known.num_classes or classes
    if dataset is not None:
        shape, classes = dataset.input_shape, dataset.num_classes
    if shapes:
        shape = parse_shape(shapes[0])
    return load_subject(
        target,
        space=space,
        input_shape=shape,
        num_classes=classes,
        shapes=shapes,
        tokens=tokens,
        output=output,
        table=learnt.table if learnt else None,
    )


@dataclass(frozen=True, eq=False)
class _Parts:
    """What is said of a subject, part by part: each prints itself, and fills the result or says why it is left out."""

    output: "Output"
    subject: "Subject"
    result: dict[str, object]
    skipped: dict[str, str]

    def prediction(self, learnt: "Labels | None", config: "EnsembleConfig") -> None:
        from nasgraph.commands.predict_report import prediction_facts, print_prediction
        from nasgraph.predict.performance import performance_of_graph

        if learnt is None:
            self.skipped["prediction"] = "'--known none' was asked for"
            return
        found = performance_of_graph(self.subject.graph, learnt.known, config)
        self.result["prediction"] = prediction_facts(found, learnt)
        print_prediction(self.output, found, learnt)

    def proxies(self, wanted: str, dataset: "DataSet | None", *, seed: int) -> None:
        from nasgraph.commands.predict_measured import proxies_of
        from nasgraph.commands.predict_report import print_proxies

        try:
            found = proxies_of(self.subject, wanted, dataset=dataset, seed=seed)
        except UnknownNameError:
            raise
        except NasGraphError as error:
            self.skipped["proxies"] = str(error)
            return
        self.result["proxies"] = found
        print_proxies(self.output, found)

    def latency(self, device: str) -> None:
        from nasgraph.commands.predict_measured import latency_of
        from nasgraph.commands.predict_report import print_latency

        try:
            found = latency_of(self.subject, device=device)
        except NasGraphError as error:
            self.skipped["latency"] = str(error)
            return
        self.result["latency"] = found
        print_latency(self.output, found)

    def scores(self, dataset: "DataSet | None", options: "GhnOptions") -> None:
        from nasgraph.commands.predict_ghn import SkippedError, ghn_scores
        from nasgraph.commands.predict_report import print_scores

        if dataset is None:
            self.skipped["scores"] = "'--ghn none' was asked for"
            return
        try:
            found = ghn_scores(self.subject, dataset, options, output=self.output)
        except SkippedError as reason:
            self.skipped["scores"] = str(reason)
            return
        self.result.update(found)
        print_scores(self.output, found, tune_steps=options.tune_steps)
