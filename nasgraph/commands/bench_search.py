"""`nasgraph bench search`: judge a search strategy on a table, with random search beside it."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasgraph.commands.options import JsonOption, SeedOption
from nasgraph.commands.table_option import TableOption, open_for_command

if TYPE_CHECKING:
    from nasgraph.commands.output import Output
    from nasgraph.evaluate.table import Table
    from nasgraph.evaluate.table_search import SearchProtocolConfig, SearchProtocolResult, SearchSummary

NO_SIDE_COLUMNS = "none"


def search(
    table: TableOption = "nasbench201",
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="Name of a strategy.", show_default="the best there is")
    ] = None,
    queries: Annotated[
        int, typer.Option("--queries", min=1, help="Rows that are queried per repetition.")
    ] = 100,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Repetitions.")] = 20,
    seed: SeedOption = 0,
    query_metric: Annotated[
        str,
        typer.Option(
            "--query-metric", help="Search is told this column.", show_default="as predictors are trained on"
        ),
    ] = "",
    report_metric: Annotated[
        str,
        typer.Option(
            "--report-metric",
            help="Report this column of the best row.",
            show_default="as predictors are judged by",
        ),
    ] = "",
    pool: Annotated[
        str, typer.Option("--pool", help="Use only rows in which this column is 1.", show_default="all rows")
    ] = "",
    side: Annotated[
        list[str] | None,
        typer.Option(
            "--side",
            help="Let the strategy see this column in every row; 'training-free': all that need no training; 'none'.",
            show_default=NO_SIDE_COLUMNS,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write a report with plots and checklist: .html (one file) or .md.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Judge a search: best so far at every query over many seeds, random search beside it."""
    from nasgraph.commands.output import Output
    from nasgraph.draw.report import check_report_path
    from nasgraph.evaluate.table_search import SearchProtocolConfig, run_search_protocol
    from nasgraph.evaluate.table_strategies import DEFAULT_STRATEGY, load_strategy

    if report is not None:
        check_report_path(report)
    out = Output(json_mode=json)
    name = sampler or DEFAULT_STRATEGY
    factory = load_strategy(name)
    config = SearchProtocolConfig(
        query_metric=query_metric,
        report_metric=report_metric,
        num_queries=queries,
        seeds=tuple(range(seed, seed + seeds)),
        pool=pool,
        side_columns=tuple(column for column in side or () if column != NO_SIDE_COLUMNS),
    )
    opened = open_for_command(out, table)
    with out.progress(f"Searching with '{name}'", total=seeds) as bar:
        result = run_search_protocol(opened, factory, config, on_run=lambda _: bar.advance())
    _print_notes(out, opened, result)
    if not json:
        _print_result(out, opened, result, name)
    if report is not None:
        _write_report(report, opened, config, result, name)
        out.message(f"Wrote the report '{report}'")
    facts = _result_as_json(opened, config, result, name)
    out.result(facts if report is None else {**facts, "report_file": str(report)})


def _write_report(
    path: Path,
    table: "Table",
    config: "SearchProtocolConfig",
    result: "SearchProtocolResult",
    name: str,
) -> None:
    from nasgraph.commands.machine import command_line, machine_facts
    from nasgraph.draw.report import write_report
    from nasgraph.evaluate.search_report import search_report

    report = search_report(
        name, result, table=table, config=config, command=command_line(), facts=machine_facts()
    )
    write_report(report, path)


def _print_notes(out: "Output", table: "Table", result: "SearchProtocolResult") -> None:
    for name in dict.fromkeys((result.query_metric, result.report_metric)):
        if table.metric(name).higher_is_better is None:
            out.message(
                f"note: the table does not say which end of '{name}' is better; higher is taken to be"
            )
    if result.num_missing:
        out.message(f"note: {result.num_missing:,} rows are left out because a metric is missing")


def _print_result(out: "Output", table: "Table", result: "SearchProtocolResult", name: str) -> None:
    from nasgraph.evaluate.search_report import MILESTONES

    mine, plain, seeds = result.summary, result.random_summary, len(result.runs)
    out.message(
        f"{name} on {table.info.name}: {len(mine.best_so_far):,} of {result.population:,} rows queried, {seeds} seeds; "
        f"{result.query_metric} -> {result.report_metric}"
    )
    last = len(mine.best_so_far)
    shown = [count for count in MILESTONES if count < last] + [last]
    out.table(
        [
            "queries",
            f"best {result.query_metric}",
            "std",
            f"its {result.report_metric}",
            "std",
            "random",
            "its",
            "std",
        ],
        [
            (
                count,
                mine.best_so_far[count - 1],
                mine.best_so_far_std[count - 1],
                mine.report[count - 1],
                mine.report_std[count - 1],
                plain.best_so_far[count - 1],
                plain.report[count - 1],
                plain.report_std[count - 1],
            )
            for count in shown
        ],
    )
    out.table(["", name, "random"], _facts(mine, plain))
    out.message(
        f"best of all rows: {result.best:.4f}, its {result.report_metric} {result.report_at_best:.4f}; "
        f"better than random search in {result.share_better_than_random:.0%} of the seeds"
    )


def _facts(mine: "SearchSummary", plain: "SearchSummary") -> list[tuple[str, float | None, float | None]]:
    return [
        ("found the best row (share of seeds)", mine.queries_to_best.share, plain.queries_to_best.share),
        ("after so many queries (median)", mine.queries_to_best.median, plain.queries_to_best.median),
        ("after so many queries (slowest seed)", mine.queries_to_best.max, plain.queries_to_best.max),
        ("better than the average row by (%)", mine.relative_improvement, plain.relative_improvement),
        ("std of that", mine.relative_improvement_std, plain.relative_improvement_std),
        ("CPU seconds per query", mine.cpu_seconds_per_query, plain.cpu_seconds_per_query),
    ]


def _result_as_json(
    table: "Table", config: "SearchProtocolConfig", result: "SearchProtocolResult", name: str
) -> dict[str, object]:
    return {
        "table": table.info.name,
        "table_sha256": table.sha256,
        "sampler": name,
        "query_metric": result.query_metric,
        "report_metric": result.report_metric,
        "query_higher_is_better": result.higher_is_better[0],
        "report_higher_is_better": result.higher_is_better[1],
        "queries": config.num_queries,
        "seeds": list(config.seeds),
        "population": result.population,
        "num_missing": result.num_missing,
        "pool": config.pool or "all",
        "side_columns": list(result.side_columns),
        **_summary_as_json(result.summary),
        "random": _summary_as_json(result.random_summary),
        "share_better_than_random": result.share_better_than_random,
        "best": result.best,
        "report_at_best": result.report_at_best,
        "best_report": result.best_report,
        "average_report": result.average_report,
        "prepare_cpu_seconds": result.prepare_cpu_seconds,
        "per_seed": [dataclasses.asdict(run) for run in result.runs],
    }


def _summary_as_json(summary: "SearchSummary") -> dict[str, object]:
    plain = dataclasses.asdict(summary)
    improvement = {
        "mean": plain.pop("relative_improvement"),
        "std": plain.pop("relative_improvement_std"),
    }
    return {**plain, "relative_improvement_percent": improvement}
