"""`nasgraph zoo soup`: one model of several of one architecture."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import DataDirOption, JsonOption, SeedOption, TrackingUriOption

if TYPE_CHECKING:
    from nasgraph.commands.output import Cell, Output
    from nasgraph.modelzoo.merging import MergedEntry


def soup(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Two models or more, of one architecture and data set.")],
    out: Annotated[str, typer.Option("-o", "--out", metavar="NAME", help="Name of the result in the zoo.")],
    method: Annotated[str, typer.Option("--method", help="uniform, greedy or learned.")] = "greedy",
    align: Annotated[bool, typer.Option("--align/--no-align", help="Reorder units to match first.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Merge also what does not lie in one basin.")] = False,
    seed: SeedOption = 0,
    data_dir: DataDirOption = None,
    tracking_uri: TrackingUriOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Average the weights of several models into one that costs no more than one of them.

    Chosen on validation data, measured on test data, registered with its lineage. A greedy soup is never worse than the best model on
    the validation data.
    """
    from nasgraph.commands.output import Output
    from nasgraph.modelzoo import dataset_of
    from nasgraph.modelzoo.merging import merge_into_entry
    from nasgraph.modelzoo.names import check_name
    from nasgraph.modelzoo.store import Zoo

    output, zoo = Output(json_mode=json), Zoo(tracking_uri)
    check_name(out)
    references = [zoo.catalogue.row(name).reference for name in names]
    entries = [(reference, zoo.load(reference)) for reference in references]
    dataset = dataset_of(entries[0][1], data_dir, download=True)
    with tempfile.TemporaryDirectory(prefix="nasgraph-soup-") as temporary:
        done = merge_into_entry(
            Path(temporary) / "entry", out, entries, dataset, method=method, align=align, force=force, seed=seed
        )  # fmt: skip
        reference = zoo.add(done.entry.path, out)
    _report(output, str(reference), done)


def _report(output: "Output", reference: str, done: "MergedEntry") -> None:
    merged, test = done.merged, done.entry.card.measured("test")
    before = dict(merged.held_out.before)
    if not output.json_mode:
        rows: list[list[Cell]] = [[name, share, before[name]] for name, share in merged.weights]
        rows.append([reference, None, merged.held_out.after])
        output.table(["model", "share", "validation accuracy"], rows)
        for note in merged.notes:
            output.message(note)
    output.message(f"Added '{reference}', made of {len(merged.ingredients)} of {len(merged.weights)} models")
    output.result(
        {
            "reference": reference,
            "method": merged.method,
            "shares": dict(merged.weights),
            "validation_accuracy": {**before, reference: merged.held_out.after},
            "test_accuracy": None if test is None else test.value,
            "notes": list(merged.notes),
        }
    )
