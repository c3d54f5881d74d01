"""The search protocol: what strategies see, what is reported, and that strategies search."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.evaluate.table import Metric, Table, TableError, TableInfo, make_table
from nasgraph.evaluate.table_bayesian import BayesianConfig, log_expected_improvement
from nasgraph.evaluate.table_predictors import view_of
from nasgraph.evaluate.table_search import (
    SearchProtocolConfig,
    SearchProtocolResult,
    queries_to_best,
    run_search_protocol,
)
from nasgraph.evaluate.table_strategies import (
    STRATEGIES,
    CalledBackStrategy,
    EvolutionConfig,
    load_strategy,
    random_rows,
)
from nasgraph.evaluate.table_strategy import NearestRows, SearchView, SeededStrategy, StrategyFactory
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.predict.robot import robot_search

Array = np.ndarray
WIDTHS = (4, 8, 16, 32, 64, 128)
CONFIG = SearchProtocolConfig(num_queries=12, seeds=(0, 1, 2))


def mlp(widths: Sequence[int]) -> ComputationalGraph:
    g = GraphBuilder()
    x = g("input", shape=(8,))
    for width in widths:
        x = g("relu", g("linear", x, out_features=width))
    return g.finish(x)


def table_of(*, higher: bool | None = True, depth: int = 3) -> Table:
    """All perceptrons of some layers; accuracy is smooth in the logarithms of the widths, and best inside."""
    choices = list(product(WIDTHS, repeat=depth))
    logs = np.log2(np.array(choices, dtype=float))
    truth = -((logs - np.array([6.0, 5.0, 4.0])[:depth]) ** 2 * np.array([1.0, 0.7, 0.4])[:depth]).sum(axis=1)
    rng = np.random.default_rng(0)
    count = len(choices)
    columns = {
        "valid": 50 + truth,
        "test": 50 + truth + 0.01 * rng.standard_normal(count),
        "hint": truth + 0.5 * rng.standard_normal(count),
        "noise": rng.standard_normal(count),
        "even": (np.arange(count) % 2 == 0).astype(np.float64),
        "constant": np.ones(count),
    }
    metrics = (
        Metric(name="valid", higher_is_better=higher),
        Metric(name="test", higher_is_better=higher),
        Metric(name="hint", higher_is_better=True, training_free=True),
        Metric(name="noise", higher_is_better=True, training_free=True),
        Metric(name="even", training_free=True),
        Metric(name="constant"),
    )
    info = TableInfo(name="perceptrons", metrics=metrics, train_metric="valid", test_metric="test")
    keys = [json.dumps({"choices": list(each)}) for each in choices]
    return make_table([mlp(each) for each in choices], columns, info, keys=keys)


@pytest.fixture(scope="module")
def table() -> Table:
    return table_of()


WORTH = {"wide": 0.8, "middle": 1.0, "point": 0.3, "pool": 0.0}


def chain(names: Sequence[str]) -> ComputationalGraph:
    g = GraphBuilder()
    x = g("input", shape=(4, 8, 8))
    for name in names:
        if name == "pool":
            x = g("max_pool2d", x, kernel_size=3, stride=1, padding=1)
        else:
            kernel = {"wide": 5, "middle": 3, "point": 1}[name]
            x = g("relu", g("conv2d", x, out_channels=4, kernel_size=kernel, padding=kernel // 2))
    return g.finish(x)


@pytest.fixture(scope="module")
def chains() -> Table:
    """All chains of four operators. Each is worth something, more so the earlier it stands: smooth in the structure."""
    choices = list(product(WORTH, repeat=4))
    weights = (1.0, 0.8, 0.6, 0.4)
    worth = [sum(w * WORTH[name] for w, name in zip(weights, each, strict=True)) for each in choices]
    info = TableInfo(name="chains", metrics=(Metric(name="worth", higher_is_better=True),))
    return make_table([chain(each) for each in choices], {"worth": np.array(worth)}, info)


def view(table: Table, side: tuple[str, ...] = (), *, keys: bool = True, num_queries: int = 12) -> SearchView:
    rows = np.arange(len(table))
    return SearchView(
        rows=view_of(table, rows, side_columns=side),
        num_queries=num_queries,
        side_higher=tuple(table.metric(name).higher_is_better for name in side),
        keys=[table.key(row) for row in range(len(table))] if keys else None,
    )


class Scripted:
    """Asks for what it is told to ask for, and notes what it hears."""

    def __init__(self, asks: Sequence[Sequence[int]]) -> None:
        self.asks, self.heard = list(asks), list[tuple[tuple[int, ...], tuple[float, ...]]]()

    def ask(self) -> Sequence[int]:
        return self.asks.pop(0)

    def tell(self, rows: Sequence[int], values: Sequence[float]) -> None:
        self.heard.append((tuple(rows), tuple(values)))


def scripted(asks: Sequence[Sequence[int]]) -> tuple[StrategyFactory, list[Scripted], list[SearchView]]:
    made, views = list[Scripted](), list[SearchView]()

    def begin(_: int) -> Scripted:
        made.append(Scripted(asks))
        return made[-1]

    def factory(seen: SearchView) -> SeededStrategy:
        views.append(seen)
        return begin

    return factory, made, views


# ---- what a strategy sees


def test_a_strategy_hears_the_values_of_what_it_asked_for_and_sees_no_other_label(table: Table) -> None:
    factory, made, views = scripted([[5, 2], [7], [1, 3, 4]])
    config = replace(CONFIG, num_queries=5, side_columns=("hint",), seeds=(0,))
    result = run_search_protocol(table, factory, config)
    valid = table.column("valid")
    assert made[0].heard == [
        ((5, 2), (valid[5], valid[2])),
        ((7,), (valid[7],)),
        ((1, 3), (valid[1], valid[3])),
    ]
    (seen,) = views
    assert set(vars(seen)) == {"rows", "num_queries", "side_higher", "keys"}
    assert set(vars(seen.rows)) == {"graphs", "side", "side_names"}
    assert seen.rows.side_names == ("hint",)
    assert result.runs[0].rows == (5, 2, 7, 1, 3)


@pytest.mark.parametrize("name", STRATEGIES)
def test_labels_that_were_not_asked_for_change_nothing(table: Table, name: str) -> None:
    """The same search comes out if all other labels are replaced by noise."""
    config = replace(CONFIG, side_columns=("hint", "noise"), seeds=(3,))
    first = run_search_protocol(table, STRATEGIES[name], config).runs[0]
    asked = np.zeros(len(table), dtype=bool)
    asked[list(first.rows)] = True
    noise = 45 + np.random.default_rng(5).standard_normal(len(table))
    columns = {key: np.where(asked, table.column(key), noise) for key in ("valid", "test")}
    other = run_search_protocol(
        replace(table, columns={**table.columns, **columns}), STRATEGIES[name], config
    ).runs[0]
    assert (other.rows, other.best_so_far, other.report) == (first.rows, first.best_so_far, first.report)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_row_is_asked_for_once_until_there_is_none_left(name: str) -> None:
    small = table_of(depth=2)
    config = SearchProtocolConfig(num_queries=len(small), seeds=(0, 1), side_columns=("hint", "noise"))
    result = run_search_protocol(small, STRATEGIES[name], config)
    for run in result.runs:
        assert sorted(run.rows) == list(range(len(small)))
        assert run.best_so_far[-1] == result.best == small.column("valid").max()
    assert result.summary.queries_to_best.share == 1


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_seed_gives_the_same_search(table: Table, name: str) -> None:
    config = replace(CONFIG, side_columns=("hint", "noise"))
    one, other = (run_search_protocol(table, STRATEGIES[name], config) for _ in range(2))
    assert [run.rows for run in one.runs] == [run.rows for run in other.runs]
    assert len({run.rows for run in one.runs}) == len(config.seeds)
    alone = run_search_protocol(table, STRATEGIES[name], replace(config, seeds=(2,)))
    assert alone.runs[0].rows == one.runs[2].rows


# ---- what is reported


def test_random_search_is_as_good_as_theory_says(table: Table) -> None:
    """The best of n draws without replacement from N is the k-th worst with chance C(k - 1, n - 1) / C(N, n)."""
    n, N = 10, len(table)
    config = SearchProtocolConfig(num_queries=n, seeds=tuple(range(1500)))
    runs = run_search_protocol(table, random_rows, config).random_runs
    rising = np.sort(table.column("valid"))
    chance = np.array([comb(k, n - 1) / comb(N, n) for k in range(N)])
    expected = float(rising @ chance)
    spread = float(np.sqrt((rising - expected) ** 2 @ chance / len(runs)))
    assert np.mean([run.best_so_far[-1] for run in runs]) == pytest.approx(expected, abs=4 * spread)
    found = np.mean([run.queries_to_best is not None for run in runs])
    assert found == pytest.approx(n / N, abs=4 * np.sqrt(n / N / len(runs)))


def test_the_report_is_that_of_the_best_row_by_query_not_of_the_best_row(table: Table) -> None:
    test = -table.column("valid")
    turned = replace(table, columns={**table.columns, "test": test})
    result = run_search_protocol(turned, random_rows, CONFIG)
    for run in result.runs:
        values = table.column("valid")[list(run.rows)]
        assert run.values == tuple(values)
        assert run.best_so_far == tuple(np.maximum.accumulate(values))
        assert run.report == tuple(-np.maximum.accumulate(values))
    assert result.report_at_best == -table.column("valid").max()
    assert result.best_report == -table.column("valid").min()


def test_of_equal_rows_the_first_is_reported(table: Table) -> None:
    columns = {**table.columns, "valid": np.where(np.arange(len(table)) < 9, 1.0, 0.0)}
    factory, _, _ = scripted([[20], [4], [3], [2]])
    result = run_search_protocol(
        replace(table, columns=columns), factory, replace(CONFIG, num_queries=4, seeds=(0,))
    )
    test = table.column("test")
    assert result.runs[0].report == (test[20], test[4], test[4], test[4])
    assert result.runs[0].queries_to_best == 2


def test_random_search_stands_beside_with_the_same_seeds(table: Table) -> None:
    result = run_search_protocol(table, STRATEGIES["random"], CONFIG)
    assert [run.rows for run in result.runs] == [run.rows for run in result.random_runs]
    assert result.share_better_than_random == 0.5


def test_lower_is_better_turns_everything_round() -> None:
    up, down = table_of(), table_of(higher=False)
    columns = {**down.columns, "valid": -down.column("valid"), "test": -down.column("test")}
    mirrored = replace(down, columns=columns)
    one, other = (run_search_protocol(each, STRATEGIES["bayesian"], CONFIG) for each in (up, mirrored))
    assert [run.rows for run in one.runs] == [run.rows for run in other.runs]
    assert one.summary.best_so_far == pytest.approx([-value for value in other.summary.best_so_far])
    assert one.summary.relative_improvement == pytest.approx(other.summary.relative_improvement)
    assert one.share_better_than_random == other.share_better_than_random
    assert (one.best, one.report_at_best) == pytest.approx((-other.best, -other.report_at_best))


def test_relative_improvement_is_that_of_yang_and_others(table: Table) -> None:
    result = run_search_protocol(table, random_rows, CONFIG)
    average = table.column("test").mean()
    expected = [100 * (run.report[-1] - average) / average for run in result.runs]
    assert result.average_report == pytest.approx(average)
    assert result.summary.relative_improvement == pytest.approx(np.mean(expected))
    assert result.summary.relative_improvement_std == pytest.approx(np.std(expected, ddof=1))


def test_searches_that_do_not_find_the_best_count_as_infinite() -> None:
    assert (queries_to_best([3, None, 5]).median, queries_to_best([3, None, 5]).max) == (5, None)
    assert queries_to_best([None, None, 5]).median is None
    assert (queries_to_best([3, 9]).median, queries_to_best([3, 9]).max, queries_to_best([3, 9]).share) == (
        6,
        9,
        1,
    )


def test_rows_without_a_metric_or_outside_the_pool_are_left_out_and_counted(table: Table) -> None:
    valid = table.column("valid").copy()
    valid[[0, 1, 4]] = np.nan
    gaps = replace(table, columns={**table.columns, "valid": valid})
    result = run_search_protocol(gaps, random_rows, replace(CONFIG, pool="even", num_queries=100))
    assert (result.population, result.num_missing) == (len(table) // 2 - 2, 2)
    for run in result.runs:
        assert all(row % 2 == 0 and row not in (0, 4) for row in run.rows)


# ---- searching


def finals(result: SearchProtocolResult) -> tuple[Array, Array]:
    return tuple(
        np.array([run.best_so_far[-1] for run in runs]) for runs in (result.runs, result.random_runs)
    )  # type: ignore[return-value]  # two of them


@pytest.mark.parametrize(
    ("name", "num_queries", "side"),
    [
        ("evolution", 60, ()),
        ("local_search", 60, ()),
        ("robot", 20, ("hint", "noise")),
    ],
)
def test_strategies_beat_random_search_on_a_smooth_table(
    table: Table, name: str, num_queries: int, side: tuple[str, ...]
) -> None:
    """A sign test over seeds."""
    config = SearchProtocolConfig(num_queries=num_queries, seeds=tuple(range(24)), side_columns=side)
    mine, plain = finals(run_search_protocol(table, STRATEGIES[name], config))
    wins, losses = int((mine > plain).sum()), int((mine < plain).sum())
    assert binomtest(wins, wins + losses, alternative="greater").pvalue < 0.01, (wins, losses)


def test_a_bayesian_search_beats_random_search_where_worth_is_smooth_in_the_structure(chains: Table) -> None:
    """A sign test over seeds, and it needs fewer queries to the best row."""
    config = SearchProtocolConfig(num_queries=25, seeds=tuple(range(20)))
    result = run_search_protocol(chains, STRATEGIES["bayesian"], config)
    mine, plain = finals(result)
    wins, losses = int((mine > plain).sum()), int((mine < plain).sum())
    assert binomtest(wins, wins + losses, alternative="greater").pvalue < 0.01, (wins, losses)
    assert result.summary.queries_to_best.share > 3 * result.random_summary.queries_to_best.share


def test_signals_make_the_first_rows_of_a_bayesian_search_better(table: Table) -> None:
    """Half of the first six rows come from side columns that higher is stated to be better of."""
    config = SearchProtocolConfig(num_queries=3, seeds=tuple(range(20)), side_columns=("hint",))
    mine, plain = finals(run_search_protocol(table, STRATEGIES["bayesian"], config))
    assert mine.mean() > plain.mean()
    assert view(table, ("hint", "even")).signals.shape[1] == 1


def test_the_expected_improvement_is_right_and_never_underflows() -> None:
    mean, std = np.linspace(-6, 3, 50), np.linspace(0.5, 2, 50)
    u = (mean - 0.5) / std
    expected = std * (u * norm.cdf(u) + norm.pdf(u))
    np.testing.assert_allclose(np.exp(log_expected_improvement(mean, std, 0.5)), expected, rtol=1e-8)
    far = log_expected_improvement(np.array([-1e5, -2e3, -900.0, -50.0, -30.0]), np.ones(5), 0.0)
    assert np.isfinite(far).all()
    assert (np.diff(far) > 0).all()


def test_a_search_that_calls_back_is_the_same_turned_round(table: Table) -> None:
    side = ("hint", "noise")
    config = replace(CONFIG, num_queries=20, side_columns=side, seeds=(4,))
    run = run_search_protocol(table, STRATEGIES["robot"], config).runs[0]
    scores = np.column_stack([table.column(name) for name in side])
    direct = robot_search(scores, lambda row: float(table.column("valid")[row]), num_queries=20, seed=4)
    assert run.rows == direct.queried


def test_an_exception_of_a_search_that_calls_back_reaches_the_caller() -> None:
    def broken(query: object) -> None:
        raise RuntimeError("broken search")

    with pytest.raises(RuntimeError, match="broken search"):
        CalledBackStrategy(broken).ask()
    with pytest.raises(TableError, match="has ended"):
        CalledBackStrategy(lambda _: None).ask()


# ---- neighbours


def test_neighbours_of_spelt_out_choices_differ_in_one(table: Table) -> None:
    near = view(table).neighbours
    choices = [json.loads(table.key(row))["choices"] for row in range(len(table))]
    for row in (0, 77, 215):
        expected = [
            other
            for other in range(len(table))
            if sum(a != b for a, b in zip(choices[row], choices[other], strict=True)) == 1
        ]
        assert near(row).tolist() == expected
        assert len(expected) == 3 * (len(WIDTHS) - 1)


@pytest.mark.parametrize("text", ["net{}", "net {}", "{} of 216"])
def test_names_are_no_choices(table: Table, text: str) -> None:
    named = replace(view(table), keys=[text.format(row) for row in range(len(table))])
    assert isinstance(named.neighbours, NearestRows)


def test_without_choices_the_nearest_graphs_are_neighbours(table: Table) -> None:
    seen = view(table, keys=False)
    numbers = seen.description.numbers[seen.description.place]
    near = seen.neighbours(100)
    assert 100 not in near
    assert len(near) == 24
    blocks = seen.description.blocks
    away = sum(((numbers[:, a:b] - numbers[100, a:b]) ** 2).mean(axis=1) for a, b in blocks)
    rest = np.setdiff1d(np.arange(len(table)), [*near, 100])
    assert np.asarray(away)[near].max() <= np.asarray(away)[rest].min()


def test_rows_with_equal_graphs_share_a_description_unless_side_columns_differ() -> None:
    info = TableInfo(name="twins", metrics=(Metric(name="hint", training_free=True), Metric(name="a")))
    graphs = [mlp([4]), mlp([8]), mlp([4]), mlp([16, 4])]
    twins = make_table(graphs, {"hint": np.array([1.0, 2.0, 3.0, 4.0]), "a": np.arange(4.0)}, info)
    plain, with_side = (
        SearchView(rows=view_of(twins, np.arange(4), side_columns=side), num_queries=1)
        for side in ((), ("hint",))
    )
    assert len(plain.description.numbers) == 3
    assert plain.description.place[0] == plain.description.place[2]
    assert plain.description.members(int(plain.description.place[0])).tolist() == [0, 2]
    assert 0 not in plain.neighbours(2)
    assert len(with_side.description.numbers) == 4


# ---- bad input


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_queries": 217}, "at least as many rows as queries .*216 rows .* 217 queries"),
        ({"query_metric": "constant"}, "'constant' .* is 1 in all rows"),
        ({"side_columns": ("valid",)}, "cannot be a side column"),
        ({"pool": "valid"}, "'valid' of 1"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_the_reason(
    table: Table, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(TableError, match=reason):
        run_search_protocol(table, random_rows, replace(CONFIG, **change))  # type: ignore[arg-type]  # one field each


@pytest.mark.parametrize(
    ("asks", "reason"),
    [
        ([[]], "none"),
        ([[1, 1]], "twice"),
        ([[1], [2, 1]], "twice"),
        ([[216]], "row 216 of 216"),
        ([[-1]], "row -1"),
    ],
)
def test_a_strategy_that_breaks_the_rules_is_refused(
    table: Table, asks: list[list[int]], reason: str
) -> None:
    factory, _, _ = scripted(asks)
    with pytest.raises(TableError, match=reason):
        run_search_protocol(table, factory, CONFIG)


def test_robot_needs_side_columns_that_vary(table: Table) -> None:
    with pytest.raises(TableError, match="--side training-free"):
        run_search_protocol(table, STRATEGIES["robot"], CONFIG)
    with pytest.raises(TableError, match="none that varies"):
        run_search_protocol(table, STRATEGIES["robot"], replace(CONFIG, side_columns=("constant",)))


def test_unknown_names_are_refused(table: Table) -> None:
    for change in ({"query_metric": "vaild"}, {"report_metric": "tset"}, {"side_columns": ("hnt",)}):
        with pytest.raises(UnknownNameError, match="Close"):
            run_search_protocol(table, random_rows, replace(CONFIG, **change))
    with pytest.raises(UnknownNameError, match="Close: 'bayesian'"):
        load_strategy("baysian")


def test_settings_that_mean_nothing_are_refused() -> None:
    for bad in ({"num_queries": 0}, {"seeds": ()}, {"seeds": (1, 1)}):
        with pytest.raises(ConfigError):
            SearchProtocolConfig(**bad)
    with pytest.raises(ConfigError):
        EvolutionConfig(population=3, sample=4)
    with pytest.raises(ConfigError):
        BayesianConfig(num_initial=2, num_guided=3)


def test_rows_that_all_look_the_same_are_refused_by_strategies_that_look() -> None:
    info = TableInfo(name="twins", metrics=(Metric(name="a"),))
    twins = make_table([mlp([4])] * 5, {"a": np.arange(5.0)}, info)
    with pytest.raises(TableError, match="look the same"):
        run_search_protocol(twins, STRATEGIES["bayesian"], replace(CONFIG, num_queries=2))
    assert run_search_protocol(twins, random_rows, replace(CONFIG, num_queries=2)).population == 5


def test_metrics_follow_the_table_unless_told_otherwise(table: Table) -> None:
    for given, expected in (
        ({}, ("valid", "test")),
        ({"query_metric": "hint"}, ("hint", "hint")),
        ({"query_metric": "hint", "report_metric": "test"}, ("hint", "test")),
    ):
        result = run_search_protocol(table, random_rows, replace(CONFIG, **given))  # type: ignore[arg-type]  # names of metrics
        assert (result.query_metric, result.report_metric) == expected
    unnamed = replace(table, info=replace(table.info, train_metric="", test_metric=""))
    with pytest.raises(TableError, match="Name the metric to be queried"):
        run_search_protocol(unnamed, random_rows, CONFIG)
