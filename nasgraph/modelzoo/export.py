"""Entries for other programs: ONNX, a `torch.export` program, plain Python source, or a copy of the entry.

What is written was run before, on example inputs, and gave what the entry's own network gives. Nothing is left behind when it did not.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from nasgraph.errors import UnsupportedOpError, ZooError
from nasgraph.files import write_bytes
from nasgraph.ir import OPS, ComputationalGraph
from nasgraph.modelzoo.card import card_to_json
from nasgraph.modelzoo.entry import ZooEntry, entry_contents, load_entry, write_folder
from nasgraph.modelzoo.export_onnx import onnx_model, run_onnx, runtime_version
from nasgraph.modelzoo.export_source import example_inputs, run, source_contents, source_module
from nasgraph.modelzoo.readme import SOURCE_USAGE, card_markdown

Form = Literal["entry", "onnx", "program", "source"]
FORMS: tuple[Form, ...] = get_args(Form)
BATCH_SIZES = (1, 5)
SUFFIXES = {"onnx": ".onnx", "program": ".pt2"}

_Run = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written, and how it was checked.

    Attributes:
        form: In which form.
        path: The file or folder.
        files: Names of the files.
        num_bytes: Bytes of all files.
        checked_with: What ran it, with its version.
        batch_sizes: Examples in each run.
        difference: Largest absolute difference of an output from the entry's own.
        tolerance: The most that was allowed.
    """

    form: Form
    path: Path
    files: tuple[str, ...]
    num_bytes: int
    checked_with: str
    batch_sizes: tuple[int, ...]
    difference: float
    tolerance: float


class _Export(Protocol):
    def __call__(self, entry: ZooEntry, target: Path, /, *, force: bool = False) -> ExportReport: ...


def export(entry: ZooEntry, target: Path, *, form: Form, force: bool = False) -> ExportReport:
    """Write an entry in another form, complete or not at all.

    Args:
        entry: A checked entry.
        target: The file (`onnx`: `.onnx`, `program`: `.pt2`) or the folder (`entry`, `source`) to write.
        form: `entry`: the folder that `load_entry` and MLflow read. `onnx`: one file, any batch size. `program`: what
            `torch.export.load` reads, any batch size; such a file is for those who trust its writer. `source`: Python source and
            safetensors that need torch only.
        force: Whether what is there may be replaced: a file, or a folder with a `card.json`.

    Raises:
        ZooError: If `form` is unknown, the target exists or has another suffix, a package is missing, or what was made computes
            something else.
        UnsupportedOpError: If an operator cannot be said in that form; the message names it.
        NasGraphError: If it cannot be written.
    """
    writers = {
        "entry": _export_entry,
        "onnx": export_onnx,
        "program": export_program,
        "source": export_source,
    }
    if form not in writers:
        raise ZooError(f"Expected 'form' to be one of {', '.join(FORMS)} (got {form!r:.80})")
    return writers[form](entry, target, force=force)


def export_onnx(entry: ZooEntry, path: Path, *, force: bool = False) -> ExportReport:
    """Write an entry as an ONNX file, after onnxruntime has run it. The batch size is free.

    Inputs are expected normalised, as the entry's own network takes them. The card, the class names and the normalisation are
    metadata of the file.

    Raises:
        ZooError, UnsupportedOpError: As `export`.
    """
    _check_file(path, "onnx", force=force)
    card = entry.card
    metadata = {"card": card_to_json(card), "licence": card.licence}
    if card.data is not None:
        metadata["class_names"] = json.dumps(card.data.class_names)
        metadata["normalisation"] = json.dumps(asdict(card.data.normalisation))
    model = onnx_model(entry.graph, entry.state, name=card.name, metadata=metadata).SerializeToString()
    checked_with = runtime_version()
    difference, tolerance = _compared(
        entry, lambda inputs: run_onnx(model, inputs), relative=1e-4, with_what=checked_with
    )
    write_bytes(path, model)
    return _file_report("onnx", path, checked_with, difference, tolerance)


def export_program(entry: ZooEntry, path: Path, *, force: bool = False) -> ExportReport:
    """Write an entry as a program of `torch.export`, after it was read back and run. The batch size is free.

    Only write such files: reading one of a stranger is not safe, so no part of nasgraph does.

    Raises:
        ZooError, UnsupportedOpError: As `export`.
    """
    _check_file(path, "program", force=force)
    _refuse_message_passing(entry.graph, "a program")
    inputs = tuple(example_inputs(entry.graph, batch_size=2))  # one example would fix the batch size at one
    batch = torch.export.Dim("batch")
    module = source_module(entry.graph, entry.state)  # for its readable names
    with torch.no_grad():
        program = torch.export.export(module, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))
    written = io.BytesIO()
    torch.export.save(program, written, extra_files={"card.json": card_to_json(entry.card)})
    again = torch.export.load(io.BytesIO(written.getvalue())).module()
    checked_with = f"torch {torch.__version__}"
    difference, tolerance = _compared(
        entry, lambda given: run(again, given), relative=1e-5, with_what=checked_with
    )
    write_bytes(path, written.getvalue())
    return _file_report("program", path, checked_with, difference, tolerance)


def export_source(entry: ZooEntry, folder: Path, *, force: bool = False) -> ExportReport:
    """Write an entry as Python source with safetensors, after the source was run. See `source_contents` for the files.

    Raises:
        ZooError, UnsupportedOpError: As `export`.
    """
    difference, tolerance = check_source(entry)
    contents = source_contents(entry, readme=card_markdown(entry.card, usage=SOURCE_USAGE))
    write_folder(folder, contents, force=force)
    checked_with = f"torch {torch.__version__}"
    return _report("source", folder, tuple(sorted(contents)), checked_with, difference, tolerance)


def check_source(entry: ZooEntry) -> tuple[float, float]:
    """Run the written source of an entry beside its own network.

    Returns:
        The largest difference of an output, and the most that is allowed.

    Raises:
        ZooError: If it is more.
        UnsupportedOpError: If an operator cannot be written in plain torch; the message names it.
    """
    module = source_module(entry.graph, entry.state)
    return _compared(
        entry,
        lambda inputs: run(module, inputs),
        relative=1e-5,
        with_what=f"source under torch {torch.__version__}",
    )


def _export_entry(entry: ZooEntry, folder: Path, *, force: bool = False) -> ExportReport:
    """A copy of the files, byte by byte, which the card's hash is of."""
    if not entry.path.is_dir():
        raise ZooError(
            f"The files of '{entry.card.name}' are not there any more. Copy an entry of the zoo by 'Zoo.export'"
        )
    contents = entry_contents(entry.path)
    write_folder(folder, contents, force=force)
    again = load_entry(folder).module()
    checked_with = f"torch {torch.__version__}"
    difference, tolerance = _compared(
        entry, lambda inputs: run(again, inputs), relative=0.0, with_what=checked_with
    )
    return _report("entry", folder, tuple(sorted(contents)), checked_with, difference, tolerance)


def _compared(entry: ZooEntry, other: _Run, *, relative: float, with_what: str) -> tuple[float, float]:
    """The largest difference over all outputs and batch sizes, and the tolerance: relative to the largest output, or to 1."""
    module, difference, scale = entry.module(), 0.0, 1.0
    for size in BATCH_SIZES:
        inputs = example_inputs(entry.graph, batch_size=size, seed=size)
        for own, found in zip(run(module, inputs), other(inputs), strict=True):
            if own.shape != found.shape:
                raise ZooError(
                    f"{with_what} gives outputs of shape {list(found.shape)}, not {list(own.shape)}"
                )
            if not torch.isfinite(own).all():
                raise ZooError(
                    f"The network '{entry.card.name}' gives infinite numbers: there is nothing to compare"
                )
            difference = max(difference, float((own.double() - found.double()).abs().max()))
            scale = max(scale, float(own.abs().max()))
    if not difference <= relative * scale:
        raise ZooError(
            f"The outputs of '{entry.card.name}' in {with_what} differ by {difference:.3g} from its own "
            f"(at most {relative * scale:.3g}). Nothing was written"
        )
    return difference, relative * scale


def _refuse_message_passing(graph: ComputationalGraph, what: str) -> None:
    for index, node in enumerate(graph.nodes):
        if OPS[node.op].reads_edges:
            raise UnsupportedOpError(
                f"Cannot write '{node.op}' (node {index}) as {what}: it passes messages along a data graph"
            )


def _check_file(path: Path, form: Form, *, force: bool) -> None:
    if path.suffix != SUFFIXES[form]:
        raise ZooError(f"Expected the name of a file that ends in '{SUFFIXES[form]}' (got '{path.name:.80}')")
    if path.is_dir() or (path.exists() and not force):
        hint = "it is a folder" if path.is_dir() else "use --force to replace it"
        raise ZooError(f"'{path}' exists, and is not replaced: {hint}")


def _file_report(
    form: Form, path: Path, checked_with: str, difference: float, tolerance: float
) -> ExportReport:
    return _report(form, path, (path.name,), checked_with, difference, tolerance)


def _report(
    form: Form, path: Path, files: tuple[str, ...], checked_with: str, difference: float, tolerance: float
) -> ExportReport:
    folder = path if path.is_dir() else path.parent
    return ExportReport(
        form=form,
        path=path,
        files=files,
        num_bytes=sum((folder / name).stat().st_size for name in files),
        checked_with=checked_with,
        batch_sizes=BATCH_SIZES,
        difference=difference,
        tolerance=tolerance,
    )


__all__ = [
    "FORMS",
    "ExportReport",
    "Form",
    "check_source",
    "export",
    "export_onnx",
    "export_program",
    "export_source",
]
