"""How good is a predictor on a table? The protocol of the literature, without its traps.

For every seed: draw n rows, fit to their training metric, predict all the other rows, compare with their test metric. The
predictor gets graphs, n labels and nothing else. Draws depend on the seed alone, so two predictors see the same rows, and a
smaller n sees a part of the rows of a larger one.

Shape letters: R = rows.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import kendalltau, rankdata

from nasgraph.errors import ConfigError
from nasgraph.evaluate.table import Table, TableError
from nasgraph.evaluate.table_predictors import RowPredictorFactory, Seeded, view_of
from nasgraph.predict import Prediction
from nasgraph.seeding import generator

Array = np.ndarray
Values = Float[Array, " rows"]
Places = Int[Array, " rows"]
TRAINING_FREE = "training-free"
"""Stands for all columns of a table that are known without training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolConfig:
    """What is learnt from, judged by and repeated.

    Attributes:
        train_metric: Column of the labels that a predictor gets; that which the table names if not given.
        test_metric: Column that its ranking is judged by; that which the table names if not given.
        num_train: Labelled rows per seed.
        seeds: One repetition each.
        pool: Use only rows in which this column is 1; all rows if not given.
        halves: Draw labelled rows from the first half of the table and judge on the whole second half, as TA-GATES does (Ning
            et al. 2022), rather than draw from all rows and judge on all others.
        side_columns: Columns that the predictor sees in every row; `training-free` stands for all that are known without training.
        reference: Column whose own agreement with the test metric is reported: a ceiling. If not given, the training metric,
            where it is not the test metric.

    Raises:
        ConfigError: If there is not at least one labelled row and one seed, or a seed is repeated.
    """

    train_metric: str = ""
    test_metric: str = ""
    num_train: int = 78
    seeds: tuple[int, ...] = tuple(range(20))
    pool: str = ""
    halves: bool = False
    side_columns: tuple[str, ...] = ()
    reference: str = ""

    def __post_init__(self) -> None:
        if self.num_train < 1 or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(
                f"Expected at least one labelled row and one seed, seeds all different (got {self.num_train} and {self.seeds!s:.80})"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """What one repetition gave. NaN where something has no meaning: a rank correlation with equal predictions, the coverage of
    a predictor without spread.

    Attributes:
        seed: Seed of the draw.
        kendall_tau: Kendall's tau-b between predictions and test metric, over all rows that were predicted.
        spearman: Spearman's rank correlation of the same.
        precision_at_1_percent: Share of the predicted best 1 % (at least one row) that are as good as the true best 1 %.
        top1: Test metric of the row predicted best.
        top10: Best test metric among the ten rows predicted best.
        coverage_90: Share of predicted rows whose training metric lies within the 90 % interval.
        interval_width_90: Mean width of that interval, in the unit of the training metric.
        fit_seconds: Wall time of the fit.
        predict_seconds: Wall time of predicting all rows.
        num_test: Rows predicted.
    """

    seed: int
    kendall_tau: float
    spearman: float
    precision_at_1_percent: float
    top1: float
    top10: float
    coverage_90: float
    interval_width_90: float
    fit_seconds: float
    predict_seconds: float
    num_test: int


MEASURED = tuple(field.name for field in fields(SeedResult) if field.name not in ("seed", "num_test"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """How well a measured column itself ranks the rows by the test metric.

    Attributes:
        column: Its name.
        rows: Rows in which it is known.
        kendall_tau: Kendall's tau-b over these rows.
        spearman: Spearman's rank correlation.
    """

    column: str
    rows: int
    kendall_tau: float
    spearman: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolResult:
    """What all repetitions gave.

    Attributes:
        train_metric: What predictors learnt from.
        test_metric: What they were judged by.
        population: Rows that could be drawn or judged.
        num_missing: Rows of the pool left out because a metric is missing.
        side_columns: Columns that the predictor saw.
        best: The best test metric of all rows.
        ceiling: The reference column over the population; None without one.
        prepare_seconds: Wall time of what was prepared once, such as features.
        seeds: The repetitions.
    """

    train_metric: str
    test_metric: str
    population: int
    num_missing: int
    side_columns: tuple[str, ...]
    best: float
    ceiling: Reference | None
    prepare_seconds: float
    seeds: tuple[SeedResult, ...]

    def summary(self) -> dict[str, dict[str, float]]:
        """Mean and standard deviation over the seeds of everything that is measured (n - 1; NaN for a single seed)."""
        table = {name: np.array([getattr(seed, name) for seed in self.seeds]) for name in MEASURED}
        return {
            name: {
                "mean": float(values.mean()),
                "std": float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
            }
            for name, values in table.items()
        }


def run_predictor_protocol(
    table: Table,
    factory: RowPredictorFactory,
    config: ProtocolConfig,
    *,
    on_seed: Callable[[SeedResult], None] | None = None,
) -> ProtocolResult:
    """Judge a predictor on a table.

    Args:
        table: Graphs and metrics.
        factory: Makes the predictors. It sees graphs and side columns, never a label.
        config: What is learnt from, judged by and repeated.
        on_seed: Is told of every repetition when it is done.

    Raises:
        UnknownNameError: If the table has no metric of a name.
        TableError: If no metric is named and the table names none; if the pool is empty, a metric is the same in all rows, or
            there are not enough rows; if the predictor cannot be fitted or predicts something that is not finite.
    """
    task = _task(table, config)
    view = view_of(table, task.rows, side_columns=task.side_columns)
    started = time.perf_counter()
    seeded = factory(view)
    prepared = time.perf_counter() - started
    results = []
    for seed in config.seeds:
        results.append(_repetition(task, seeded, seed))
        if on_seed is not None:
            on_seed(results[-1])
    return ProtocolResult(
        train_metric=task.train_metric,
        test_metric=task.test_metric,
        population=len(task.rows),
        num_missing=task.num_missing,
        side_columns=task.side_columns,
        best=float(task.test_sign * (task.test_sign * task.test).max()),
        ceiling=_ceiling(table, task, config.reference),
        prepare_seconds=prepared,
        seeds=tuple(results),
    )


def labelled_rows(candidates: Places, num_train: int, *, seed: int) -> Int[Array, " labelled"]:
    """The rows that a seed labels: it depends on the candidates, the number and the seed only. A smaller number gives a part."""
    return candidates[generator(seed, "labelled rows").permutation(len(candidates))[:num_train]]


# ---- what is asked


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Task:
    """The rows that count and their labels. Signs turn "lower is better" round; places are places in `rows`."""

    train_metric: str
    test_metric: str
    rows: Places
    train: Values
    test: Values
    train_sign: float
    test_sign: float
    num_missing: int
    side_columns: tuple[str, ...]
    candidates: Int[Array, " candidates"]
    num_train: int
    judged: Int[Array, " judged"]


def _task(table: Table, config: ProtocolConfig) -> _Task:
    test_metric = config.test_metric or table.info.test_metric or config.train_metric or _only_metric(table)
    train_metric = config.train_metric or _default_train_metric(table, test_metric, config)
    signs = [
        -1.0 if table.metric(name).higher_is_better is False else 1.0 for name in (train_metric, test_metric)
    ]
    train, test = (table.column(name).astype(np.float64) for name in (train_metric, test_metric))
    pool = np.ones(len(table), dtype=bool) if not config.pool else table.column(config.pool) == 1
    if not pool.any():
        raise TableError(f"No row of the table '{table.info.name}' has '{config.pool}' of 1")
    rows = np.flatnonzero(pool & ~np.isnan(train) & ~np.isnan(test))
    places = np.arange(len(rows))
    middle = (len(table) + 1) // 2
    candidates = places[rows < middle] if config.halves else places
    judged = places[rows >= middle] if config.halves else places
    _check_counts(table, config, len(candidates), len(judged) - (0 if config.halves else config.num_train))
    for name, values in ((train_metric, train[rows]), (test_metric, test[rows])):
        if (values == values[0]).all():
            raise TableError(
                f"'{name}' of the table '{table.info.name}' is {values[0]:g} in all rows: there is nothing to predict"
            )
    return _Task(
        train_metric=train_metric,
        test_metric=test_metric,
        rows=rows,
        train=train[rows],
        test=test[rows],
        train_sign=signs[0],
        test_sign=signs[1],
        num_missing=int(pool.sum()) - len(rows),
        side_columns=_side_columns(table, config, (train_metric, test_metric)),
        candidates=candidates,
        num_train=config.num_train,
        judged=judged,
    )


def _only_metric(table: Table) -> str:
    trained = [metric.name for metric in table.info.metrics if not metric.training_free]
    if len(trained) == 1:
        return trained[0]
    names = ", ".join(metric.name for metric in table.info.metrics)
    raise TableError(f"Name the metric to be predicted: the table '{table.info.name}' has {names:.600}")


def _default_train_metric(table: Table, test_metric: str, config: ProtocolConfig) -> str:
    """The table's own pair of metrics is a pair: with another test metric, that is learnt, too."""
    if config.test_metric and config.test_metric != table.info.test_metric:
        return test_metric
    return table.info.train_metric or test_metric


def _check_counts(table: Table, config: ProtocolConfig, num_candidates: int, num_judged: int) -> None:
    if config.num_train > num_candidates or num_judged < 2:
        where = (
            f"the first half of the table '{table.info.name}'"
            if config.halves
            else f"the table '{table.info.name}'"
        )
        raise TableError(
            f"Expected enough rows for {config.num_train:,} labels and at least 2 rows to be judged "
            f"(got {num_candidates:,} rows with both metrics in {where})"
        )


def _side_columns(table: Table, config: ProtocolConfig, judged: Sequence[str]) -> tuple[str, ...]:
    names: list[str] = []
    for name in config.side_columns:
        if name == TRAINING_FREE:
            names += [m.name for m in table.info.metrics if m.training_free and m.name not in judged]
        elif table.metric(name).name in judged:
            raise TableError(f"'{name}' is to be predicted, so it cannot be a side column")
        else:
            names.append(name)
    return tuple(dict.fromkeys(names))


# ---- one repetition


def _repetition(task: _Task, seeded: Seeded, seed: int) -> SeedResult:
    chosen = labelled_rows(task.candidates, task.num_train, seed=seed)
    others = np.setdiff1d(task.judged, chosen)
    predictor = seeded(seed)
    started = time.perf_counter()
    try:
        predictor.fit(chosen, torch.from_numpy(task.train_sign * task.train[chosen]))
    except ValueError as error:
        raise TableError(
            f"The predictor cannot be fitted to {len(chosen)} rows (seed {seed}): {error}"
        ) from error
    fitted = time.perf_counter()
    prediction = predictor.predict(others)
    ended = time.perf_counter()
    mean = prediction.mean.detach().double().cpu().numpy()
    for what, values in (("predictions", prediction.mean), ("spreads", prediction.std)):
        if values is not None and (len(values) != len(others) or not bool(values.isfinite().all())):
            raise TableError(
                f"Expected {len(others)} finite {what} (got {len(values)}, {int((~values.isfinite()).sum())} of them "
                f"not finite; seed {seed})"
            )
    coverage, width = _interval(prediction, task.train_sign * task.train[others])
    return SeedResult(
        seed=seed,
        **_agreement(mean, task.test_sign * task.test[others]),
        **_best_predicted(mean, task.test[others], task.test_sign, seed),
        coverage_90=coverage,
        interval_width_90=width,
        fit_seconds=fitted - started,
        predict_seconds=ended - fitted,
        num_test=len(others),
    )


def _agreement(predicted: Values, truth: Values) -> dict[str, float]:
    """Rank correlations; NaN if all predictions, or all truths, are equal."""
    if np.ptp(predicted) == 0 or np.ptp(truth) == 0:
        return {"kendall_tau": float("nan"), "spearman": float("nan")}
    ranks = np.corrcoef(rankdata(predicted), rankdata(truth))
    return {"kendall_tau": float(kendalltau(predicted, truth).statistic), "spearman": float(ranks[0, 1])}


def _best_predicted(predicted: Values, truth: Values, sign: float, seed: int) -> dict[str, float]:
    """How good the rows are that are predicted best. Ties of the prediction are broken at random, by the seed."""
    ties = generator(seed, "ties").permutation(len(predicted))
    order = np.lexsort((ties, -predicted))
    gain = sign * truth
    count = max(1, round(len(truth) / 100))
    threshold = np.partition(gain, len(gain) - count)[len(gain) - count]
    return {
        "precision_at_1_percent": float((gain[order[:count]] >= threshold).mean()),
        "top1": float(truth[order[0]]),
        "top10": float(sign * gain[order[:10]].max()),
    }


def _interval(prediction: Prediction, truth: Values) -> tuple[float, float]:
    """Share of truths in the 90 % interval, and its mean width; NaN if there is no spread."""
    if prediction.std is None:
        return float("nan"), float("nan")
    low, high = (end.detach().double().cpu().numpy() for end in prediction.interval())
    return float(((low <= truth) & (truth <= high)).mean()), float((high - low).mean())


def _ceiling(table: Table, task: _Task, reference: str) -> Reference | None:
    """Agreement of a measured column with the test metric over the whole population."""
    name = reference or (task.train_metric if task.train_metric != task.test_metric else "")
    if not name:
        return None
    sign = -1.0 if table.metric(name).higher_is_better is False else 1.0
    values = sign * table.column(name)[task.rows].astype(np.float64)
    known = ~np.isnan(values)
    if known.sum() < 2:
        raise TableError(f"The reference '{name}' is missing in all rows")
    agreement = _agreement(values[known], task.test_sign * task.test[known])
    return Reference(column=name, rows=int(known.sum()), **agreement)
