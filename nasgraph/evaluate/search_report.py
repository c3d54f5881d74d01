"""What `run_search_protocol` found, as a report with plots and the checklist of Lindauer and Hutter (2020)."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nasgraph.draw.chart import Chart, Line, draw_chart
from nasgraph.draw.report import Code, Figure, Grid, Report, Section, spread_text
from nasgraph.evaluate.checklist import Answer, filled_checklist
from nasgraph.evaluate.table import Table
from nasgraph.evaluate.table_search import (
    SearchProtocolConfig,
    SearchProtocolResult,
    SearchRun,
    SearchSummary,
)
from nasgraph.evaluate.table_strategies import STRATEGIES
from nasgraph.spaces import space_names

RANDOM = "random search"


def search_report(
    strategy: str,
    result: SearchProtocolResult,
    *,
    table: Table,
    config: SearchProtocolConfig,
    command: str,
    facts: Mapping[str, str],
) -> Report:
    """Say how well a strategy searched a table, with random search beside it.

    Best so far at every query as mean and spread over the seeds, queries to the best row, the relative improvement over the
    average row (Yang et al. 2020, eq. 1), cost, what it was measured with, and the filled-in checklist.

    Args:
        strategy: Its name.
        result: What the protocol gave.
        table: What was searched.
        config: What was asked of the protocol.
        command: Command line that repeats it.
        facts: Hardware, versions and date by name.
    """
    mine, plain = result.summary, result.random_summary
    return Report(
        title=f"Searching {table.info.name} with {strategy}",
        lead=_lead(strategy, result, table),
        tiles=(
            (f"best {result.query_metric} after {config.num_queries:,} queries", _spread(mine.best_so_far, mine.best_so_far_std)),
            (f"its {result.report_metric}", _spread(mine.report, mine.report_std)),
            ("queries to the best row, median over seeds", _count(mine.queries_to_best.median)),
            ("relative improvement over the average row", _improvement(mine)),
            ("better than random search, share of seeds (ties half)", f"{result.share_better_than_random:.0%}"),
            ("CPU seconds of the strategy per query", f"{mine.cpu_seconds_per_query:.3g}"),
        ),
        sections=(
            Section(title="Best so far", blocks=(*_figures(strategy, result), _milestones(strategy, result))),
            Section(title="Against random search", blocks=(_comparison(strategy, mine, plain), *_notes(result))),
            Section(title="Seeds", blocks=(_per_seed(result),)),
            Section(title="Set-up", blocks=(Code(text=command), _setup(strategy, result, table, config, facts))),
            Section(title="Checklist", blocks=(filled_checklist(_answers(strategy, result, table, config)),)),
        ),
    )  # fmt: skip


# ---- in words


def _lead(strategy: str, result: SearchProtocolResult, table: Table) -> tuple[str, ...]:
    count, queries = len(result.runs), len(result.runs[0].rows)
    mine, plain = result.summary.queries_to_best, result.random_summary.queries_to_best
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    found = (
        f"It found the best of all {result.population:,} rows with {mine.share:.0%} of the seeds "
        f"(random search: {plain.share:.0%}), after a median of {_count(mine.median)} queries."
    )
    return (
        f"'{strategy}' queried {queries:,} rows of the table '{table.info.name}' for their {result.query_metric}, "
        f"with {seeds}. {found}",
        f"Reported is the best {result.query_metric} so far and the {result.report_metric} of that same row, which played no "
        f"part in choosing it. Random search had the same seeds and as many queries.",
    )


def _notes(result: SearchProtocolResult) -> list[str]:
    end = "higher" if result.higher_is_better[0] else "lower"
    notes = [
        f"Best of all rows: {result.best:.6g} {result.query_metric} ({end} is better), its {result.report_metric} "
        f"{result.report_at_best:.6g}. Best {result.report_metric} of all rows: {result.best_report:.6g}; average of all rows: "
        f"{result.average_report:.6g}, from which the relative improvement is counted (Yang et al. 2020, eq. 1).",
        "A table answers at once, so the cost of training what is queried is in none of these numbers.",
    ]
    if result.num_missing:
        notes.append(f"{result.num_missing:,} rows are left out because a metric is missing.")
    if len(result.runs) == 1:
        notes.append("One seed has no spread: take more for any claim.")
    return notes


def _spread(means: Sequence[float], stds: Sequence[float]) -> str:
    return spread_text(means[-1], stds[-1])


def _improvement(summary: SearchSummary) -> str:
    return f"{spread_text(summary.relative_improvement, summary.relative_improvement_std)} %"


def _count(count: int | float | None) -> str:
    return "not found" if count is None else f"{count:,g}"


# ---- figures


def _figures(strategy: str, result: SearchProtocolResult) -> list[Figure]:
    mine, plain = result.summary, result.random_summary
    queries = tuple(float(n) for n in range(1, len(mine.best_so_far) + 1))
    sign, report_sign = (1.0 if higher else -1.0 for higher in result.higher_is_better)
    spread = "" if len(result.runs) == 1 else " (mean ± std)"
    plainly = ((strategy, mine, result.runs), (RANDOM, plain, result.random_runs))
    named = tuple((f"{name}{spread}", summary) for name, summary, _ in plainly)
    best = Chart(
        title="Best so far",
        x_label="queries",
        y_label=result.query_metric,
        lines=tuple(_banded(name, queries, s.best_so_far, s.best_so_far_std) for name, s in named),
        levels=(("best of all rows", result.best),),
        y_range=_window([mine.best_so_far, plain.best_so_far], result.best, sign),
    )
    report = Chart(
        title=f"{result.report_metric} of that row",
        x_label="queries",
        y_label=result.report_metric,
        lines=tuple(_banded(name, queries, s.report, s.report_std) for name, s in named),
        levels=(("of the best row", result.report_at_best),),
        y_range=_window([mine.report, plain.report], result.best_report, report_sign),
    )
    far = Chart(
        title="Distance to the best row",
        x_label="queries",
        y_label="mean distance",
        lines=tuple(_distance(name, queries, s.best_so_far, result.best) for name, s, _ in plainly),
        log_y=True,
    )
    found = Chart(
        title="Seeds that found the best row",
        x_label="queries",
        y_label="share of the seeds",
        lines=tuple(_found(name, queries, runs) for name, _, runs in plainly),
        y_range=(0.0, 1.0),
    )
    return [
        Figure(name="best", svg=draw_chart(best), caption=_BEST),
        Figure(name="report", svg=draw_chart(report), caption=_REPORT),
        Figure(name="distance", svg=draw_chart(far), caption=_DISTANCE),
        Figure(name="found", svg=draw_chart(found), caption=_FOUND),
    ]


_BEST = "Best query metric up to each query. What lies far from the end is cut off, mostly the first queries."
_REPORT = "Report metric of the row with the best query metric so far; it may fall when a better row by query is found."
_DISTANCE = "How far the mean of the best so far is from the best of all rows; a line ends where every seed has found it."
_FOUND = "Share of the seeds that have queried the best of all rows."


def _banded(name: str, x: tuple[float, ...], mean: Sequence[float], std: Sequence[float]) -> Line:
    low = tuple(m - s for m, s in zip(mean, std, strict=True))
    high = tuple(m + s for m, s in zip(mean, std, strict=True))
    has_band = any(math.isfinite(value) for value in std)
    return Line(label=name, x=x, y=tuple(mean), low=low if has_band else (), high=high if has_band else ())


def _distance(name: str, x: tuple[float, ...], best_so_far: Sequence[float], best: float) -> Line:
    # Means of equal numbers differ from them in the last digits.
    gaps = (abs(best - value) for value in best_so_far)
    return Line(
        label=name, x=x, y=tuple(gap if gap > 1e-9 * max(1.0, abs(best)) else math.nan for gap in gaps)
    )


def _found(name: str, x: tuple[float, ...], runs: Sequence[SearchRun]) -> Line:
    counts = [run.queries_to_best for run in runs if run.queries_to_best is not None]
    shares = tuple(sum(count <= place for count in counts) / len(runs) for place in x)
    return Line(label=name, x=x, y=shares, is_step=True)


def _window(curves: Sequence[Sequence[float]], best: float, sign: float) -> tuple[float | None, float | None]:
    """The part of the y-axis where something is to be seen: without the plunge of the first queries."""
    start = max(1, len(curves[0]) // 20)
    gaps = [sign * (best - value) for curve in curves for value in curve[start:]] or [0.0]
    reach = max(3.0 * float(np.median(gaps)), 1.2 * max(_end_gap(curve, best, sign) for curve in curves))
    if reach <= 0:
        return (None, None)
    worst = best - sign * reach
    return (worst, best + 0.12 * reach) if sign > 0 else (best - 0.12 * reach, worst)


def _end_gap(curve: Sequence[float], best: float, sign: float) -> float:
    """How far the end of a curve is from the best value, zero or more."""
    return max(0.0, sign * (best - curve[-1]))


# ---- tables

MILESTONES = (1, 2, 5, 10, 20, 25, 32, 50, 64, 100, 150, 200, 300, 500, 1000, 2000, 5000)
"""Numbers of queries that a table for people shows, besides the last."""


def _milestones(strategy: str, result: SearchProtocolResult) -> Grid:
    mine, plain = result.summary, result.random_summary
    last = len(mine.best_so_far)
    rows = []
    for count in [*(count for count in MILESTONES if count < last), last]:
        cells = [f"{count:,}"]
        for summary in (mine, plain):
            cells.append(spread_text(summary.best_so_far[count - 1], summary.best_so_far_std[count - 1]))
            cells.append(spread_text(summary.report[count - 1], summary.report_std[count - 1]))
        rows.append(tuple(cells))
    return Grid(
        columns=("queries", f"{strategy}: {result.query_metric}", f"its {result.report_metric}", f"{RANDOM}: best", "its report"),
        rows=tuple(rows),
        caption=f"Mean ± standard deviation (n - 1) over {len(result.runs)} seeds",
    )  # fmt: skip


def _comparison(strategy: str, mine: SearchSummary, plain: SearchSummary) -> Grid:
    one, other = mine.queries_to_best, plain.queries_to_best
    return Grid(
        columns=("", strategy, RANDOM),
        rows=(
            ("found the best row, share of seeds", f"{one.share:.0%}", f"{other.share:.0%}"),
            ("queries to the best row, median", _count(one.median), _count(other.median)),
            ("queries to the best row, slowest seed", _count(one.max), _count(other.max)),
            ("relative improvement over the average row", _improvement(mine), _improvement(plain)),
            (
                "CPU seconds per query",
                f"{mine.cpu_seconds_per_query:.3g}",
                f"{plain.cpu_seconds_per_query:.3g}",
            ),
        ),
    )


def _per_seed(result: SearchProtocolResult) -> Grid:
    rows = [
        (
            str(run.seed),
            f"{run.best_so_far[-1]:.6g}",
            f"{run.report[-1]:.6g}",
            _count(run.queries_to_best),
            f"{run.cpu_seconds:.3g}",
            f"{other.best_so_far[-1]:.6g}",
            _count(other.queries_to_best),
        )
        for run, other in zip(result.runs, result.random_runs, strict=True)
    ]
    return Grid(
        columns=("seed", f"best {result.query_metric}", f"its {result.report_metric}", "queries to the best row",
                 "CPU seconds", f"{RANDOM}: best", f"{RANDOM}: queries"),
        rows=tuple(rows),
    )  # fmt: skip


def _setup(
    strategy: str,
    result: SearchProtocolResult,
    table: Table,
    config: SearchProtocolConfig,
    facts: Mapping[str, str],
) -> Grid:
    cpu = sum(run.cpu_seconds for run in result.runs) + result.prepare_cpu_seconds
    rows = {
        "table": f"{table.info.name}, {len(table):,} rows, sha256 {table.sha256}",
        "where the table is from": table.info.source or "not stated",
        "rows that could be queried": f"{result.population:,} ({config.pool or 'all rows'})",
        "query metric": _metric_text(table, result.query_metric, higher=result.higher_is_better[0]),
        "report metric": _metric_text(table, result.report_metric, higher=result.higher_is_better[1]),
        "strategy": f"{strategy} ({_origin(strategy)})",
        "columns it saw in every row": ", ".join(result.side_columns) or "none",
        "queries per seed": f"{config.num_queries:,}",
        "seeds": _seeds_text(config.seeds),
        "CPU seconds of the strategy, all seeds": f"{cpu:.4g} (of these {result.prepare_cpu_seconds:.3g} to prepare, once)",
        **facts,
    }
    return Grid(columns=("", ""), rows=tuple(rows.items()))


def _metric_text(table: Table, name: str, *, higher: bool) -> str:
    metric = table.metric(name)
    stated = "" if metric.higher_is_better is not None else ", which the table does not say"
    said = [text for text in (metric.unit, metric.split, metric.protocol) if text]
    return "; ".join([f"{name} ({'higher' if higher else 'lower'} is better{stated})", *said])


def _seeds_text(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _origin(strategy: str) -> str:
    return "built in" if strategy in STRATEGIES else "a plug-in"


# ---- the checklist


def _answers(
    strategy: str, result: SearchProtocolResult, table: Table, config: SearchProtocolConfig
) -> dict[str, Answer]:
    built_in = strategy in STRATEGIES
    source = f"'{table.info.name}' is from: {table.info.source}" if table.info.source else ""
    foreign = "the table holds results of training; this run trained nothing"
    many = len(config.seeds) > 1
    has_space = table.info.name in space_names()
    return {
        "training_code": Answer(yes=False, where=f"{foreign}. {source}".strip()),
        "space_code": Answer(
            yes=has_space, where=f"the search space '{table.info.name}' in nasgraph of the version in Set-up" if has_space
            else "the table lists graphs, not the rule that they follow"
        ),
        "training_settings": Answer(yes=False, where=_training_settings(table, result)),
        "method_code": Answer(
            yes=built_in, where="nasgraph of the version in Set-up" if built_in else f"'{strategy}' is a plug-in: its authors say"
        ),
        "method_settings": Answer(
            yes=built_in,
            where="the defaults of that version; seeds in Set-up" if built_in else "seeds in Set-up; its settings are the plug-in's",
        ),
        "same_benchmark": Answer(yes=True, where="both searches read the same rows of the same table (sha256 in Set-up)"),
        "confounders": Answer(
            yes=True, where="both searches ran in one process, seed by seed in turn; CPU seconds of each under Against random search"
        ),
        "ablations": Answer(yes=False, where="one strategy and random search; none of its parts was left out"),
        "same_protocol": Answer(yes=True, where="queries, seeds and the rule for what is reported are the same for both"),
        "over_time": Answer(yes=True, where="Best so far: every query; a query costs the same for all, up to the strategy's CPU time"),
        "random_search": Answer(yes=True, where="beside the strategy in every figure and table"),
        "several_runs": Answer(
            yes=many, where=f"{len(config.seeds)} seeds: {_seeds_text(config.seeds)}, each under Seeds" if many else "one seed"
        ),
        "tabular": Answer(yes=True, where=f"the table '{table.info.name}'"),
        "tuning": Answer(yes=False, where="this run used given settings and does not know how they were chosen"),
        "end_to_end": Answer(yes=False, where="the strategy's CPU time is here; that of the trainings behind the table is not"),
        "setup": Answer(yes=True, where="Set-up: command, table, metrics, seeds, hardware and versions"),
    }  # fmt: skip


def _training_settings(table: Table, result: SearchProtocolResult) -> str:
    said = [table.metric(name).protocol for name in (result.query_metric, result.report_metric)]
    known = "; ".join(dict.fromkeys(text for text in said if text))
    return f"the table says: {known}" if known else "the table does not say how its values were measured"
