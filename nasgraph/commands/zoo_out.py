"""`nasgraph zoo export`, `push-hub`, `measure`: models out of the zoo, and their numbers on this machine."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_args

import typer

from nasgraph.commands.options import (
    DataDirOption,
    JsonOption,
    NameArgument,
    TrackingUriOption,
    WrongUsageError,
)

ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


def export(
    name: NameArgument,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder (entry, source) or file (onnx, program) to write.")],
    form: Annotated[
        str,
        typer.Option(
            "--form",
            help="entry: what nasgraph and MLflow load; onnx; program: of torch.export; source: Python and safetensors that need torch only.",
        ),
    ] = "entry",
    force: ForceOption = False,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Write a model in another form. What is written was run, and held against the model."""
    from nasgraph.commands.output import Output
    from nasgraph.modelzoo.export import Form
    from nasgraph.modelzoo.export import export as export_entry
    from nasgraph.modelzoo.store import Zoo

    output = Output(json_mode=json)
    known: Form | None = next((each for each in get_args(Form) if each == form), None)
    if known is None:
        raise WrongUsageError(
            f"Expected '--form' to be one of {', '.join(get_args(Form))} (got '{form:.80}')"
        )
    with Zoo(tracking_uri).opened(name) as entry:
        report = export_entry(entry, target, form=known, force=force)
    output.message(
        f"Wrote '{name}' to '{target}': {report.num_bytes:,} bytes, checked with {report.checked_with}, "
        f"outputs differ by {report.difference:.2g} at most"
    )
    output.result(
        {
            "name": name,
            "form": form,
            "folder": str(target.absolute()),
            "files": list(report.files),
            "num_bytes": report.num_bytes,
            "checked_with": report.checked_with,
            "difference": report.difference,
            "weights_sha256": entry.card.weights_sha256,
        }
    )


def push_hub(
    name: NameArgument,
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="On the Hugging Face hub: USER/NAME.")],
    folder: Annotated[Path, typer.Option("--folder", metavar="FOLDER", help="Where the repository is written first.")],
    upload: Annotated[bool, typer.Option("--upload", help="Send it. Without this nothing leaves the machine.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    force: ForceOption = False,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Write a model as a repository of the Hugging Face hub, check it, and with --upload send it."""
    from nasgraph.commands.output import Output
    from nasgraph.modelzoo.hub import check_hub_folder, push_folder, write_hub_folder
    from nasgraph.modelzoo.store import Zoo

    output = Output(json_mode=json)
    with Zoo(tracking_uri).opened(name) as entry:
        write_hub_folder(entry, folder, repo_id=repository, force=force)
    checked = check_hub_folder(folder, repo_id=repository)
    output.message(
        f"Wrote '{folder}': {len(checked.files)} files, {checked.num_bytes:,} bytes, as the hub reads them"
    )
    address = push_folder(folder, repo_id=repository, private=not public) if upload else None
    output.message(
        f"Sent to {address}" if address else f"Nothing was sent; --upload sends it to '{repository}'"
    )
    output.result(
        {"name": name, "folder": str(folder.absolute()), "files": list(checked.files), "address": address}
    )


def measure(
    name: NameArgument,
    data_dir: DataDirOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:
    """Measure accuracy, calibration, robustness and latency on this machine, and register them as a new version."""
    from nasgraph.commands.output import Output
    from nasgraph.modelzoo import dataset_of, write_entry
    from nasgraph.modelzoo.entry import PICTURE
    from nasgraph.modelzoo.facts import measure_facts
    from nasgraph.modelzoo.store import Zoo
    from nasgraph.modelzoo.verify import check_data

    output, zoo = Output(json_mode=json), Zoo(tracking_uri)
    with zoo.opened(name) as entry:
        dataset = dataset_of(entry, data_dir)
        assert entry.card.data is not None
        check_data(entry.card.data, dataset)
        splits = {"validation": dataset.search.validation, "test": dataset.test}
        found = measure_facts(entry.graph, entry.state, splits)
        here = {(fact.hardware, fact.threads, fact.batch_size) for fact in found.latencies}
        elsewhere = [f for f in entry.card.latencies if (f.hardware, f.threads, f.batch_size) not in here]
        card = replace(
            entry.card, measurements=found.measurements, latencies=(*elsewhere, *found.latencies), weights_sha256=""
        )  # fmt: skip
        picture = (entry.path / PICTURE).read_bytes() if (entry.path / PICTURE).is_file() else None
        with tempfile.TemporaryDirectory(prefix="nasgraph-measure-") as temporary:
            written = write_entry(Path(temporary) / "entry", entry.graph, entry.state, card, picture=picture)
            reference = zoo.add(written.path, zoo.catalogue.row(name).name)
    if not json:
        output.table(
            ["split", "metric", "value"], [[m.split, m.metric, m.value] for m in found.measurements], title=str(reference)
        )  # fmt: skip
    output.message(f"Registered as '{reference}'")
    measured = [{"split": m.split, "metric": m.metric, "value": m.value} for m in found.measurements]
    latencies = [
        {"hardware": f.hardware, "threads": f.threads, "median_s": f.median_s} for f in found.latencies
    ]
    output.result({"reference": str(reference), "measurements": measured, "latencies": latencies})
