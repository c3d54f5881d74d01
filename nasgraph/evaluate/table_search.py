"""How well does a strategy search a table? Best so far at every query, over seeds, with random search beside it.

For every seed a strategy asks for rows and is told their query metric, and nothing else. Reported is the *query metric* of the
best row so far, and the *report metric* of that same row, which played no part in choosing it.

Follows "Best Practices for Scientific Research on Neural Architecture Search" (Lindauer and Hutter 2020): several seeds with their
spread, performance at every moment, random search under the same budget, the cost of the strategy itself.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from nasgraph.errors import ConfigError
from nasgraph.evaluate.protocol import TRAINING_FREE
from nasgraph.evaluate.table import Table, TableError
from nasgraph.evaluate.table_predictors import view_of
from nasgraph.evaluate.table_strategies import random_rows
from nasgraph.evaluate.table_strategy import SearchView, SeededStrategy, StrategyFactory

Array = np.ndarray
Places = Int[Array, " rows"]
Values = Float[Array, " rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchProtocolConfig:
    """What is queried, reported and repeated.

    Attributes:
        query_metric: Column that a strategy is told for the rows that it asks for; that which the table's predictors learn from
            if not given.
        report_metric: Column in which its choice is reported; that which the table's predictors are judged by if not given, or
            the query metric, where another one than the table's is named.
        num_queries: Rows that are queried per seed.
        seeds: One search each.
        pool: Use only rows in which this column is 1; all rows if not given.
        side_columns: Columns that a strategy sees in every row; `training-free` stands for all that are known without training.

    Raises:
        ConfigError: If there is not at least one query and one seed, or a seed is repeated.
    """

    query_metric: str = ""
    report_metric: str = ""
    num_queries: int = 100
    seeds: tuple[int, ...] = tuple(range(20))
    pool: str = ""
    side_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num_queries < 1 or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(
                f"Expected at least one query and one seed, seeds all different (got {self.num_queries} and {self.seeds!s:.80})"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRun:
    """One search.

    Attributes:
        seed: Its seed.
        rows: Rows of the table in the order in which they were queried, each once.
        values: Query metric of each.
        best_so_far: Best query metric up to each query.
        report: Report metric of the row that has it; the earlier of equals.
        queries_to_best: Queries until the best query metric of all rows was found; None if it was not.
        cpu_seconds: CPU time of the process that the strategy needed in all, without its preparation.
    """

    seed: int
    rows: tuple[int, ...]
    values: tuple[float, ...]
    best_so_far: tuple[float, ...]
    report: tuple[float, ...]
    queries_to_best: int | None
    cpu_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueriesToBest:
    """How soon the best row was found.

    Attributes:
        median: Median over the seeds, where one that did not find it counts as infinite; None if it is infinite.
        max: Of the slowest seed; None if one did not find it.
        share: Share of the seeds that found it.
    """

    median: float | None
    max: int | None
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSummary:
    """What all searches of one strategy gave: mean and standard deviation (n - 1; NaN for a single seed) at every query.

    Attributes:
        best_so_far: Mean of the best query metric so far.
        best_so_far_std: Its spread over the seeds.
        report: Mean report metric of the row that has it.
        report_std: Its spread.
        queries_to_best: How soon the best row was found.
        relative_improvement: Mean over the seeds of by how many per cent the last report metric is better than that of the average
            row (Yang et al., "NAS Evaluation Is Frustratingly Hard", 2020, eq. 1); NaN if the average is 0.
        relative_improvement_std: Its spread.
        cpu_seconds_per_query: Mean CPU time of the strategy per query.
    """

    best_so_far: tuple[float, ...]
    best_so_far_std: tuple[float, ...]
    report: tuple[float, ...]
    report_std: tuple[float, ...]
    queries_to_best: QueriesToBest
    relative_improvement: float
    relative_improvement_std: float
    cpu_seconds_per_query: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchProtocolResult:
    """What a strategy, and random search beside it, gave.

    Attributes:
        query_metric: What strategies were told.
        report_metric: What their choice is reported in.
        population: Rows that could be queried.
        num_missing: Rows of the pool left out because a metric is missing.
        side_columns: Columns that the strategy saw.
        best: Best query metric of all rows.
        report_at_best: Report metric of the row that has it; the best of these if several rows do.
        best_report: Best report metric of all rows.
        average_report: Mean report metric of all rows: what one row drawn at random gives.
        prepare_cpu_seconds: CPU time of what the strategy prepared once, such as features.
        runs: The searches of the strategy.
        random_runs: Those of random search, with the same seeds.
        higher_is_better: Of the query metric and of the report metric.
    """

    query_metric: str
    report_metric: str
    population: int
    num_missing: int
    side_columns: tuple[str, ...]
    best: float
    report_at_best: float
    best_report: float
    average_report: float
    prepare_cpu_seconds: float
    runs: tuple[SearchRun, ...]
    random_runs: tuple[SearchRun, ...]
    higher_is_better: tuple[bool, bool]

    @property
    def summary(self) -> SearchSummary:
        """Of the strategy."""
        return self._summary(self.runs)

    @property
    def random_summary(self) -> SearchSummary:
        """Of random search."""
        return self._summary(self.random_runs)

    @property
    def share_better_than_random(self) -> float:
        """Share of the seeds in which the strategy ends with a better query metric than random search; ties count half."""
        sign = 1.0 if self.higher_is_better[0] else -1.0
        ends = [
            sign * np.sign(one.best_so_far[-1] - other.best_so_far[-1])
            for one, other in zip(self.runs, self.random_runs, strict=True)
        ]
        return float(np.mean(ends) / 2 + 0.5)

    def _summary(self, runs: Sequence[SearchRun]) -> SearchSummary:
        sign = 1.0 if self.higher_is_better[1] else -1.0
        gains = np.array([sign * (run.report[-1] - self.average_report) for run in runs])
        relative = (
            100 * gains / abs(self.average_report) if self.average_report else np.full(len(runs), np.nan)
        )
        best, best_std = _mean_and_std([run.best_so_far for run in runs])
        report, report_std = _mean_and_std([run.report for run in runs])
        improvement, improvement_std = _mean_and_std([(value,) for value in relative.tolist()])
        return SearchSummary(
            best_so_far=best,
            best_so_far_std=best_std,
            report=report,
            report_std=report_std,
            queries_to_best=queries_to_best([run.queries_to_best for run in runs]),
            relative_improvement=improvement[0],
            relative_improvement_std=improvement_std[0],
            cpu_seconds_per_query=sum(run.cpu_seconds for run in runs) / sum(len(run.rows) for run in runs),
        )


def queries_to_best(counts: Sequence[int | None]) -> QueriesToBest:
    """Median, largest, and share of those that found it, of at least one search."""
    found = [count for count in counts if count is not None]
    median = float(np.median([np.inf if count is None else count for count in counts]))
    return QueriesToBest(
        median=median if np.isfinite(median) else None,
        max=max(found) if len(found) == len(counts) else None,
        share=len(found) / len(counts),
    )


def run_search_protocol(
    table: Table,
    factory: StrategyFactory,
    config: SearchProtocolConfig,
    *,
    on_run: Callable[[SearchRun], None] | None = None,
) -> SearchProtocolResult:
    """Judge a strategy on a table, and random search beside it.

    Args:
        table: Graphs and metrics.
        factory: Makes the strategies. It sees graphs, keys and side columns, never a label.
        config: What is queried, reported and repeated.
        on_run: Is told of every search of the strategy when it is done.

    Raises:
        UnknownNameError: If the table has no metric of a name.
        TableError: If no metric is named and the table names none; if the pool is empty, the query metric is the same in all
            rows, or there are fewer rows than queries; if the strategy asks for no row, an unknown row, or one row twice.
    """
    task = _task(table, config)
    view = _view(table, task, config.num_queries)
    started = time.process_time()
    seeded = factory(view)
    prepared = time.process_time() - started
    plain = random_rows(view)
    runs, random_runs = [], []
    for seed in config.seeds:
        random_runs.append(_run(task, plain, config.num_queries, seed))
        runs.append(_run(task, seeded, config.num_queries, seed))
        if on_run is not None:
            on_run(runs[-1])
    gain = task.query_sign * task.query
    at_best = task.report[gain == gain.max()]
    return SearchProtocolResult(
        query_metric=task.query_metric,
        report_metric=task.report_metric,
        population=len(task.rows),
        num_missing=task.num_missing,
        side_columns=task.side_columns,
        best=float(task.query_sign * gain.max()),
        report_at_best=float(task.report_sign * (task.report_sign * at_best).max()),
        best_report=float(task.report_sign * (task.report_sign * task.report).max()),
        average_report=float(task.report.mean()),
        prepare_cpu_seconds=prepared,
        runs=tuple(runs),
        random_runs=tuple(random_runs),
        higher_is_better=(task.query_sign > 0, task.report_sign > 0),
    )


# ---- what is asked


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Task:
    """The rows that count and their labels. Signs turn "lower is better" round."""

    query_metric: str
    report_metric: str
    rows: Places
    query: Values
    report: Values
    query_sign: float
    report_sign: float
    num_missing: int
    side_columns: tuple[str, ...]


def _task(table: Table, config: SearchProtocolConfig) -> _Task:
    query_metric, report_metric = _metrics(table, config)
    query, report = (table.column(name).astype(np.float64) for name in (query_metric, report_metric))
    pool = np.ones(len(table), dtype=bool) if not config.pool else table.column(config.pool) == 1
    if not pool.any():
        raise TableError(f"No row of the table '{table.info.name}' has '{config.pool}' of 1")
    rows = np.flatnonzero(pool & ~np.isnan(query) & ~np.isnan(report))
    if config.num_queries > len(rows):
        raise TableError(
            f"Expected at least as many rows as queries (got {len(rows):,} rows with '{query_metric}' and '{report_metric}' "
            f"in the table '{table.info.name}', and {config.num_queries:,} queries)"
        )
    query, report = query[rows], report[rows]
    if (query == query[0]).all():
        raise TableError(
            f"'{query_metric}' of the table '{table.info.name}' is {query[0]:g} in all rows: there is nothing to search for"
        )
    return _Task(
        query_metric=query_metric,
        report_metric=report_metric,
        rows=rows,
        query=query,
        report=report,
        query_sign=_sign(table, query_metric),
        report_sign=_sign(table, report_metric),
        num_missing=int(pool.sum()) - len(rows),
        side_columns=_side_columns(table, config.side_columns, (query_metric, report_metric)),
    )


def _sign(table: Table, metric: str) -> float:
    return -1.0 if table.metric(metric).higher_is_better is False else 1.0


def _metrics(table: Table, config: SearchProtocolConfig) -> tuple[str, str]:
    """The table's own pair of metrics is a pair: another query metric is reported itself unless told otherwise."""
    info = table.info
    query = config.query_metric or info.train_metric or info.test_metric
    if not query:
        trained = [metric.name for metric in info.metrics if not metric.training_free]
        if len(trained) != 1:
            names = ", ".join(metric.name for metric in info.metrics)
            raise TableError(f"Name the metric to be queried: the table '{info.name}' has {names:.600}")
        query = trained[0]
    is_pair = query == info.train_metric and info.test_metric
    return query, config.report_metric or (info.test_metric if is_pair else query)


def _side_columns(table: Table, names: Sequence[str], hidden: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for name in names:
        if name == TRAINING_FREE:
            found += [m.name for m in table.info.metrics if m.training_free and m.name not in hidden]
        elif table.metric(name).name in hidden:
            raise TableError(f"'{name}' is queried or reported, so it cannot be a side column")
        else:
            found.append(name)
    return tuple(dict.fromkeys(found))


def _view(table: Table, task: _Task, num_queries: int) -> SearchView:
    return SearchView(
        rows=view_of(table, task.rows, side_columns=task.side_columns),
        num_queries=num_queries,
        side_higher=tuple(table.metric(name).higher_is_better for name in task.side_columns),
        keys=None if table.keys is None else [table.key(row) for row in task.rows.tolist()],
    )


# ---- one search


def _run(task: _Task, seeded: SeededStrategy, num_queries: int, seed: int) -> SearchRun:
    """Ask and tell until all queries are spent. The strategy gets values of what it asked for, and nothing else."""
    places: list[int] = []
    known: set[int] = set()
    started = time.process_time()
    strategy = seeded(seed)
    while len(places) < num_queries:
        asked = [int(place) for place in strategy.ask()][: num_queries - len(places)]
        _check_asked(asked, known, len(task.rows))
        known.update(asked)
        places += asked
        strategy.tell(asked, (task.query_sign * task.query[asked]).tolist())
    cpu_seconds = time.process_time() - started
    return _run_of(task, np.array(places), seed, cpu_seconds)


def _check_asked(asked: Sequence[int], known: set[int], population: int) -> None:
    if not asked:
        raise TableError("A strategy must ask for at least one row at a time (got none)")
    for place in asked:
        if not 0 <= place < population:
            raise TableError(f"A strategy asked for row {place} of {population:,}")
    if len(set(asked)) < len(asked) or known.intersection(asked):
        raise TableError("A strategy asked for one row twice")


def _run_of(task: _Task, places: Places, seed: int, cpu_seconds: float) -> SearchRun:
    gain = task.query_sign * task.query[places]
    best = np.maximum.accumulate(gain)
    first = np.maximum.accumulate(np.where(gain > np.r_[-np.inf, best[:-1]], np.arange(len(gain)), 0))
    (hits,) = np.nonzero(gain == (task.query_sign * task.query).max())
    return SearchRun(
        seed=seed,
        rows=tuple(task.rows[places].tolist()),
        values=tuple(task.query[places].tolist()),
        best_so_far=tuple((task.query_sign * best).tolist()),
        report=tuple(task.report[places[first]].tolist()),
        queries_to_best=int(hits[0]) + 1 if len(hits) else None,
        cpu_seconds=cpu_seconds,
    )


def _mean_and_std(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    values = np.array(rows)
    std = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
    return tuple(values.mean(axis=0).tolist()), tuple(std.tolist())
