"""`nasgraph bench`: tabular benchmarks: convert tables, judge predictors and searches on them."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands import bench_search
from nasgraph.commands.options import (
    DEFAULT_CLASSES,
    ClassesOption,
    InputShapeOption,
    JsonOption,
    SeedOption,
    SpaceOption,
    WrongUsageError,
    parse_shape,
)
from nasgraph.commands.table_option import TableOption, open_for_command

if TYPE_CHECKING:
    from nasgraph.commands.output import Output
    from nasgraph.evaluate.protocol import ProtocolConfig, ProtocolResult
    from nasgraph.evaluate.table import Conversion, Table

app = typer.Typer(help="Tabular benchmarks: convert tables, judge predictors and searches on them.")

DIRECTIONS = {"higher": True, "lower": False, "neither": None}


@app.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help=".csv or .jsonl, also packed as .gz.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write: .safetensors.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            metavar="NAME:higher|lower",
            help="Keep this column; say which end is better. Repeat for more. All columns of numbers if not given.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the table; that of the file if not given.")
    ] = None,
    description: Annotated[str, typer.Option("--description", help="What the rows are.")] = "",
    space: SpaceOption = None,
    input_shape: InputShapeOption = "3,32,32",
    classes: ClassesOption = DEFAULT_CLASSES,
    json: JsonOption = False,
) -> None:
    """Convert rows of a graph and metrics to the table format.

    The column 'graph' holds graph JSON or a labelled DAG {"nodes": [...], "edges": [[0, 1], ...]}. With --space a column
    'architecture' will do.
    """
    from nasgraph.commands.output import Output
    from nasgraph.evaluate.table import convert as convert_file
    from nasgraph.evaluate.table import write_table
    from nasgraph.files import sha256_of
    from nasgraph.spaces import load_space

    if output.suffix != ".safetensors":
        raise WrongUsageError(f"Expected '--output' to end in .safetensors (got '{output}')")
    loaded = load_space(space, input_shape=parse_shape(input_shape), num_classes=classes) if space else None
    out = Output(json_mode=json)
    found = convert_file(
        source, name=name, description=description, directions=_directions(metric), space=loaded
    )
    for warning in found.warnings():
        out.message(f"note: {warning}")
    write_table(output, found.table)
    facts = _facts_of(found)
    if not json:
        _print_columns(out, found.table)
    out.message(f"Wrote {len(found.table):,} rows to '{output}'")
    out.result({**facts, "file": str(output), "bytes": output.stat().st_size, "sha256": sha256_of(output)})


@app.command("predictors")
def predictors(
    table: TableOption = "nasbench201",
    train: Annotated[int, typer.Option("--train", min=1, help="Labelled rows per repetition.")] = 78,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Repetitions.")] = 20,
    seed: SeedOption = 0,
    predictor: Annotated[
        str | None, typer.Option("--predictor", help="Name of a predictor.", show_default="the best there is")
    ] = None,
    train_metric: Annotated[
        str, typer.Option("--train-metric", help="Learn from this column.", show_default="as the table says")
    ] = "",
    test_metric: Annotated[
        str, typer.Option("--test-metric", help="Judge by this column.", show_default="as the table says")
    ] = "",
    pool: Annotated[
        str, typer.Option("--pool", help="Use only rows in which this column is 1.", show_default="all rows")
    ] = "",
    halves: Annotated[
        bool, typer.Option("--halves", help="Draw from the first half of the table, judge on the second.")
    ] = False,
    side: Annotated[
        list[str] | None,
        typer.Option(
            "--side-column",
            help="Let the predictor see this column in every row; 'training-free': all that need no training.",
        ),
    ] = None,
    reference: Annotated[
        str,
        typer.Option(
            "--reference",
            help="Report how well this column ranks, as a ceiling.",
            show_default="the training metric",
        ),
    ] = "",
    json: JsonOption = False,
) -> None:
    """Judge a predictor: fit to a few rows, rank all others; Kendall's tau and more, over many seeds."""
    from nasgraph.commands.output import Output
    from nasgraph.evaluate.protocol import ProtocolConfig, run_predictor_protocol
    from nasgraph.evaluate.table_predictors import DEFAULT_PREDICTOR, load_predictor

    out = Output(json_mode=json)
    opened = open_for_command(out, table)
    config = ProtocolConfig(
        train_metric=train_metric,
        test_metric=test_metric,
        num_train=train,
        seeds=tuple(range(seed, seed + seeds)),
        pool=pool,
        halves=halves,
        side_columns=tuple(side or ()),
        reference=reference,
    )
    name = predictor or DEFAULT_PREDICTOR
    factory = load_predictor(name)
    with out.progress(f"Judging '{name}'", total=seeds) as bar:
        result = run_predictor_protocol(opened, factory, config, on_seed=lambda _: bar.advance())
    _print_notes(out, opened, result)
    if not json:
        _print_result(out, opened, result, name, train)
    out.result(_result_as_json(opened, config, result, name))


app.command("search")(bench_search.search)


def _directions(metrics: list[str] | None) -> dict[str, bool | None] | None:
    """What `--metric` says."""
    if not metrics:
        return None
    found: dict[str, bool | None] = {}
    for text in metrics:
        name, _, direction = text.rpartition(":")
        if not name or direction not in DIRECTIONS:
            raise WrongUsageError(
                f"Expected '--metric' as NAME:higher, NAME:lower or NAME:neither (got '{text:.120}')"
            )
        found[name] = DIRECTIONS[direction]
    return found


def _facts_of(found: "Conversion") -> dict[str, object]:
    import numpy as np

    columns = {}
    for metric in found.table.info.metrics:
        values = found.table.column(metric.name)
        present = values[~np.isnan(values)]
        columns[metric.name] = {
            "higher_is_better": metric.higher_is_better,
            "missing": int(np.isnan(values).sum()),
            "constant": bool(len(present)) and bool((present == present[0]).all()),
            "min": float(present.min()) if len(present) else None,
            "max": float(present.max()) if len(present) else None,
        }
    return {
        "name": found.table.info.name,
        "rows": len(found.table),
        "graphs": found.num_distinct,
        "repeated_rows": found.num_repeated,
        "conflicting_graphs": found.num_conflicting,
        "has_keys": found.table.keys is not None,
        "metrics": columns,
        "ignored_columns": list(found.ignored),
        "warnings": found.warnings(),
    }


def _print_columns(out: "Output", table: "Table") -> None:
    import numpy as np

    words = {value: word for word, value in DIRECTIONS.items()}
    rows = []
    for metric in table.info.metrics:
        values = table.column(metric.name)
        missing = int(np.isnan(values).sum())
        low, high = (
            (None, None) if missing == len(values) else (float(np.nanmin(values)), float(np.nanmax(values)))
        )
        direction = words[metric.higher_is_better] if metric.higher_is_better is not None else "not stated"
        rows.append((metric.name, direction, missing, low, high))
    out.table(
        ["metric", "better", "missing", "lowest", "highest"],
        rows,
        title=f"{table.info.name}: {len(table):,} rows",
    )


def _print_notes(out: "Output", table: "Table", result: "ProtocolResult") -> None:
    for name in dict.fromkeys((result.train_metric, result.test_metric)):
        if table.metric(name).higher_is_better is None:
            out.message(
                f"note: the table does not say which end of '{name}' is better; higher is taken to be"
            )
    if result.num_missing:
        out.message(f"note: {result.num_missing:,} rows are left out because a metric is missing")


def _print_result(out: "Output", table: "Table", result: "ProtocolResult", name: str, train: int) -> None:
    pair = f"{result.train_metric} -> {result.test_metric}"
    out.message(f"{name} on {table.info.name}: {train:,} of {result.population:,} rows; {pair}")
    rows = [(key, value["mean"], value["std"]) for key, value in result.summary().items()]
    out.table(["", "mean", f"std over {len(result.seeds)} seeds"], rows)
    if result.ceiling is not None:
        out.message(
            f"'{result.ceiling.column}' itself: tau {result.ceiling.kendall_tau:.3f}, Spearman {result.ceiling.spearman:.3f}"
        )


def _result_as_json(
    table: "Table", config: "ProtocolConfig", result: "ProtocolResult", name: str
) -> dict[str, object]:
    return {
        "table": table.info.name,
        "table_sha256": table.sha256,
        "predictor": name,
        "train_metric": result.train_metric,
        "test_metric": result.test_metric,
        "higher_is_better": table.metric(result.test_metric).higher_is_better is not False,
        "direction_stated": table.metric(result.test_metric).higher_is_better is not None,
        "train": config.num_train,
        "seeds": list(config.seeds),
        "population": result.population,
        "num_missing": result.num_missing,
        "num_test": result.seeds[0].num_test,
        "pool": config.pool or "all",
        "halves": config.halves,
        "side_columns": list(result.side_columns),
        **result.summary(),
        "best": result.best,
        "ceiling": None if result.ceiling is None else dataclasses.asdict(result.ceiling),
        "prepare_seconds": result.prepare_seconds,
        "per_seed": [dataclasses.asdict(each) for each in result.seeds],
    }
