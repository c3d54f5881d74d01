"""The predictor protocol: what it measures, and what it must never hand out."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, spearmanr
from torch import Tensor

from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.evaluate.protocol import ProtocolConfig, ProtocolResult, labelled_rows, run_predictor_protocol
from nasgraph.evaluate.table import Metric, Table, TableError, TableInfo, make_table, open_table
from nasgraph.evaluate.table_predictors import (
    PREDICTORS,
    FixedScorePredictor,
    RememberedFeatures,
    RowPredictorFactory,
    Seeded,
    SideFeatures,
    TableView,
    load_predictor,
    on_features,
    on_graphs,
    view_of,
)
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.predict import FeaturePredictor, Prediction, Predictor

Array = np.ndarray
CONFIG = ProtocolConfig(num_train=20, seeds=(0, 1, 2))


def mlp(widths: Sequence[int]) -> ComputationalGraph:
    g = GraphBuilder()
    x = g("input", shape=(8,))
    for width in widths:
        x = g("relu", g("linear", x, out_features=width))
    return g.finish(x)


def table_of(count: int, *, higher: bool | None = True, noise: float = 0.3) -> Table:
    """Perceptrons whose accuracy rises with the logarithm of their widths."""
    rng = np.random.default_rng(0)
    widths = [rng.integers(4, 200, size=rng.integers(1, 4)).tolist() for _ in range(count)]
    truth = np.array([sum(np.log(width) for width in each) for each in widths])
    columns = {
        "valid": truth + noise * rng.standard_normal(count),
        "test": truth + noise * rng.standard_normal(count),
        "hint": truth,
        "even": (np.arange(count) % 2 == 0).astype(np.float64),
        "constant": np.ones(count),
    }
    metrics = (
        Metric(name="valid", higher_is_better=higher),
        Metric(name="test", higher_is_better=higher),
        Metric(name="hint", training_free=True),
        Metric(name="even", training_free=True),
        Metric(name="constant"),
    )
    info = TableInfo(name="perceptrons", metrics=metrics, train_metric="valid", test_metric="test")
    return make_table([mlp(each) for each in widths], columns, info)


@pytest.fixture(scope="module")
def table() -> Table:
    return table_of(200)


def fixed(scores: Array, std: Array | None = None) -> RowPredictorFactory:
    """Predicts what it is told, row by row of the view."""

    class Fixed:
        def fit(self, rows: Array, targets: Tensor) -> None: ...

        def predict(self, rows: Array) -> Prediction:
            spread = None if std is None else torch.from_numpy(std[rows])
            return Prediction(torch.from_numpy(scores[rows]), spread)

    return lambda _view: lambda _seed: Fixed()


# ---- what is measured


def test_correlations_are_those_of_scipy_over_all_other_rows(table: Table) -> None:
    scores = np.random.default_rng(1).standard_normal(200).round(1)
    result = run_predictor_protocol(table, fixed(scores), CONFIG)
    for each in result.seeds:
        rest = np.setdiff1d(np.arange(200), labelled_rows(np.arange(200), 20, seed=each.seed))
        assert each.num_test == len(rest) == 180
        truth = table.column("test")[rest]
        assert each.kendall_tau == pytest.approx(kendalltau(scores[rest], truth).statistic)
        assert each.spearman == pytest.approx(spearmanr(scores[rest], truth).statistic)


def test_a_predictor_that_knows_the_truth_is_perfect(table: Table) -> None:
    result = run_predictor_protocol(table, fixed(table.column("test").astype(np.float64)), CONFIG)
    for each in result.seeds:
        rest = np.setdiff1d(np.arange(200), labelled_rows(np.arange(200), 20, seed=each.seed))
        assert each.kendall_tau == pytest.approx(1)
        assert each.precision_at_1_percent == 1
        assert each.top1 == each.top10 == table.column("test")[rest].max()
    assert result.best == table.column("test").max()


def test_lower_is_better_turns_everything_round() -> None:
    """Mirrored metrics and directions give the same result but for the sign of the metrics."""
    up, down = table_of(200), table_of(200, higher=False)
    columns = {**down.columns, "valid": -down.column("valid"), "test": -down.column("test")}
    mirrored = make_table(down.graphs(), columns, down.info)
    one, other = (run_predictor_protocol(each, PREDICTORS["ridge"], CONFIG) for each in (up, mirrored))
    for a, b in zip(one.seeds, other.seeds, strict=True):
        assert a.kendall_tau == pytest.approx(b.kendall_tau)
        assert a.precision_at_1_percent == b.precision_at_1_percent
        assert a.coverage_90 == pytest.approx(b.coverage_90)
        assert [a.top1, a.top10] == pytest.approx([-b.top1, -b.top10])
    assert one.best == -other.best
    assert one.ceiling is not None
    assert other.ceiling is not None
    assert one.ceiling.kendall_tau == pytest.approx(other.ceiling.kendall_tau)


def test_the_interval_of_a_calibrated_predictor_covers_nine_tenths() -> None:
    """Truth is the prediction plus noise of the stated spread."""
    table = table_of(4000)
    rng = np.random.default_rng(3)
    std = rng.uniform(0.5, 2.0, size=4000)
    calibrated = replace(
        table, columns={**table.columns, "valid": table.column("hint") + std * rng.standard_normal(4000)}
    )
    result = run_predictor_protocol(calibrated, fixed(table.column("hint").copy(), std), CONFIG)
    for each in result.seeds:
        assert each.coverage_90 == pytest.approx(0.9, abs=0.015)
        assert each.interval_width_90 == pytest.approx(2 * 1.6449 * 1.25, rel=0.03)


def test_equal_predictions_have_no_rank_correlation_and_no_interval(table: Table) -> None:
    result = run_predictor_protocol(table, fixed(np.ones(200)), CONFIG)
    for each in result.seeds:
        assert np.isnan([each.kendall_tau, each.spearman, each.coverage_90, each.interval_width_90]).all()
    assert (
        len({each.top1 for each in result.seeds}) > 1
    )  # ties are broken by the seed, not by the order of rows


def test_ties_with_the_last_of_the_true_best_count_as_best() -> None:
    made = table_of(201)
    test = np.r_[np.ones(100), np.zeros(101)]
    tied = replace(made, columns={**made.columns, "test": test})
    result = run_predictor_protocol(tied, fixed(test.copy()), replace(CONFIG, num_train=1))
    assert all(each.precision_at_1_percent == 1 for each in result.seeds)


def test_the_ceiling_is_how_the_reference_ranks_the_test_metric(table: Table) -> None:
    result = run_predictor_protocol(table, fixed(np.arange(200.0)), CONFIG)
    assert result.ceiling is not None
    assert result.ceiling.column == "valid"
    assert result.ceiling.kendall_tau == pytest.approx(
        kendalltau(table.column("valid"), table.column("test")).statistic
    )
    other = run_predictor_protocol(table, fixed(np.arange(200.0)), replace(CONFIG, reference="hint"))
    assert other.ceiling is not None
    assert other.ceiling.column == "hint"
    same = run_predictor_protocol(table, fixed(np.arange(200.0)), replace(CONFIG, train_metric="test"))
    assert same.ceiling is None


def test_the_published_ceiling_of_nas_bench_201() -> None:
    """Mean validation accuracy ranks mean test accuracy with tau .891 (shared/reference/predictors.md, section 0)."""
    table = open_table("nasbench201")
    result = run_predictor_protocol(table, fixed(np.arange(15_625.0)), ProtocolConfig(seeds=(0,)))
    assert result.population == 15_625
    assert result.ceiling is not None
    assert result.ceiling.kendall_tau == pytest.approx(0.891, abs=5e-4)
    alive = run_predictor_protocol(
        table, fixed(np.arange(15_625.0)), ProtocolConfig(seeds=(0,), pool="no_unreachable_ops")
    )
    assert alive.population == 9_445


# ---- draws


def test_draws_depend_on_the_seed_only_and_grow_with_the_number() -> None:
    candidates = np.arange(100, 600)
    few, many = (labelled_rows(candidates, n, seed=4) for n in (10, 200))
    assert np.array_equal(few, many[:10])
    assert np.array_equal(many, labelled_rows(candidates, 200, seed=4))
    assert len(set(many.tolist())) == 200
    assert set(many.tolist()) <= set(candidates.tolist())
    assert not np.array_equal(few, labelled_rows(candidates, 10, seed=5))


class Spy:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.views: list[TableView] = []
        self.fits: list[tuple[tuple[int, ...], tuple[float, ...]]] = []
        self.asked: list[tuple[int, ...]] = []

    def fit(self, rows: Array, targets: Tensor) -> None:
        self.fits.append((tuple(rows.tolist()), tuple(targets.tolist())))

    def predict(self, rows: Array) -> Prediction:
        self.asked.append(tuple(rows.tolist()))
        return Prediction(torch.from_numpy(rows.astype(np.float64)))


def spied(table: Table, config: ProtocolConfig) -> tuple[Spy, ProtocolResult]:
    spy = Spy()

    def factory(view: TableView) -> Seeded:
        spy.views.append(view)
        return lambda _seed: spy

    return spy, run_predictor_protocol(table, factory, config)


def test_a_predictor_gets_the_labels_of_its_rows_and_no_others(table: Table) -> None:
    spy, _ = spied(table, replace(CONFIG, side_columns=("hint",)))
    for rows, targets in spy.fits:
        assert len(rows) == 20
        assert targets == tuple(table.column("valid")[list(rows)])
    (view,) = spy.views
    assert view.side_names == ("hint",)
    assert np.array_equal(view.side[:, 0], table.column("hint"))
    assert set(vars(view)) == {"graphs", "side", "side_names"}
    for (rows, _), asked in zip(spy.fits, spy.asked, strict=True):
        assert sorted(rows + asked) == list(range(200))


def test_two_predictors_see_the_same_rows(table: Table) -> None:
    assert spied(table, CONFIG)[0].fits == spied(table, CONFIG)[0].fits
    assert spied(table, CONFIG)[0].fits != spied(table, replace(CONFIG, seeds=(3, 4, 5)))[0].fits


def test_halves_are_by_place_in_the_table() -> None:
    spy, result = spied(table_of(201), replace(CONFIG, halves=True))
    for (rows, _), asked in zip(spy.fits, spy.asked, strict=True):
        assert max(rows) <= 100
        assert asked == tuple(range(101, 201))
    assert result.population == 201


def test_rows_outside_the_pool_or_without_a_metric_are_left_out(table: Table) -> None:
    test = table.column("test").copy()
    test[[0, 1, 4]] = np.nan
    gaps = replace(table, columns={**table.columns, "test": test})
    spy, result = spied(gaps, replace(CONFIG, pool="even"))
    assert (result.population, result.num_missing) == (98, 2)
    (view,) = spy.views
    kept = [row for row in range(0, 200, 2) if row not in (0, 4)]
    assert list(view.graphs) == gaps.graphs(kept)


def test_training_free_stands_for_all_such_columns(table: Table) -> None:
    assert run_predictor_protocol(
        table, fixed(np.arange(200.0)), replace(CONFIG, side_columns=("training-free",))
    ).side_columns == (
        "hint",
        "even",
    )


def test_training_free_never_stands_for_what_is_predicted(table: Table) -> None:
    config = replace(CONFIG, test_metric="hint", side_columns=("training-free",))
    assert run_predictor_protocol(table, fixed(np.arange(200.0)), config).side_columns == ("even",)


# ---- predictors


def test_every_listed_predictor_beats_chance(table: Table) -> None:
    for name in PREDICTORS:
        result = run_predictor_protocol(table, load_predictor(name), replace(CONFIG, num_train=40))
        assert result.summary()["kendall_tau"]["mean"] > 0.4, name


def test_side_columns_help_where_they_tell_the_truth(table: Table) -> None:
    plain, helped = (
        run_predictor_protocol(table, PREDICTORS["ridge"], replace(CONFIG, side_columns=side))
        for side in ((), ("hint",))
    )
    assert helped.summary()["kendall_tau"]["mean"] > plain.summary()["kendall_tau"]["mean"] + 0.02


def test_a_predictor_of_graphs_gives_the_same_through_every_adapter(table: Table) -> None:
    """Features computed anew for every call, or once per table, do not change what is predicted."""

    def widths(graphs: Sequence[ComputationalGraph]) -> Array:
        return np.array(
            [[len(graph), max(shape[0] for shape in graph.shapes)] for graph in graphs], dtype=float
        )

    def make(features: object, seed: int) -> Predictor:
        return FeaturePredictor(features, regressor="ridge", seed=seed)  # type: ignore[arg-type]

    direct = run_predictor_protocol(table, on_graphs(lambda seed: make(widths, seed)), CONFIG)
    once = run_predictor_protocol(table, on_features(make, lambda _graphs: widths), CONFIG)
    assert [each.kendall_tau for each in direct.seeds] == [each.kendall_tau for each in once.seeds]
    assert [each.coverage_90 for each in direct.seeds] == [each.coverage_90 for each in once.seeds]


def test_remembered_features_are_computed_once_per_graph() -> None:
    seen: list[int] = []

    def count(graphs: Sequence[ComputationalGraph]) -> Array:
        seen.extend(map(id, graphs))
        return np.array([[float(len(graph))] for graph in graphs]).reshape(-1, 1)

    graphs = [mlp([4] * depth) for depth in (1, 2, 3)]
    twin = mlp([4, 4, 4])
    features = RememberedFeatures(count)
    assert features(graphs[:2]).tolist() == [[3.0], [5.0]]
    assert features([twin, *graphs[::-1], graphs[0]]).tolist() == [[7.0], [7.0], [5.0], [3.0], [3.0]]
    assert seen == list(map(id, [*graphs[:2], twin]))
    assert features([]).shape == (0, 1)


def test_side_features_tell_equal_graphs_of_two_rows_apart() -> None:
    info = TableInfo(name="twins", metrics=(Metric(name="hint", training_free=True),))
    twins = make_table([mlp([4])] * 2, {"hint": np.array([1.0, 2.0])}, info)
    view = view_of(twins, np.arange(2), side_columns=("hint",))
    assert view.graphs[0] == view.graphs[1]
    assert SideFeatures(view)(list(view.graphs)[::-1]).tolist() == [[2.0], [1.0]]
    with pytest.raises(KeyError):
        SideFeatures(view)([mlp([4])])


# ---- bad input


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_train": 200}, "Expected enough rows for 200 labels .*got 200 rows"),
        ({"num_train": 5000}, "Expected enough rows for 5,000 labels"),
        ({"num_train": 101, "halves": True}, "got 100 rows .* in the first half"),
        ({"num_train": 1}, "cannot be fitted to 1 rows .*at least 8"),
        ({"test_metric": "constant"}, "'constant' .* is 1 in all rows"),
        ({"side_columns": ("test",)}, "cannot be a side column"),
        ({"side_columns": ("valid",)}, "cannot be a side column"),
        ({"pool": "valid"}, "'valid' of 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_reason(
    table: Table, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(TableError, match=reason):
        run_predictor_protocol(table, PREDICTORS["ridge"], replace(CONFIG, **change))  # type: ignore[arg-type]  # one field each


def test_unknown_names_are_refused(table: Table) -> None:
    for change in (
        {"train_metric": "vaild"},
        {"test_metric": "tset"},
        {"side_columns": ("hnt",)},
        {"pool": "evn"},
    ):
        with pytest.raises(UnknownNameError, match="Close"):
            run_predictor_protocol(table, PREDICTORS["ridge"], replace(CONFIG, **change))
    with pytest.raises(UnknownNameError, match="Close: 'ridge'"):
        load_predictor("rigde")


def test_settings_that_mean_nothing_are_refused() -> None:
    for bad in ({"num_train": 0}, {"seeds": ()}, {"seeds": (1, 1)}):
        with pytest.raises(ConfigError):
            ProtocolConfig(**bad)


def test_predictions_that_are_not_finite_are_refused(table: Table) -> None:
    with pytest.raises(TableError, match="180 of them not finite"):
        run_predictor_protocol(table, fixed(np.full(200, np.nan)), CONFIG)
    with pytest.raises(TableError, match="180 finite spreads"):
        run_predictor_protocol(table, fixed(np.arange(200.0), np.full(200, np.inf)), CONFIG)


def test_a_table_that_names_no_metric_asks_for_one(table: Table) -> None:
    unnamed = replace(table, info=replace(table.info, train_metric="", test_metric=""))
    with pytest.raises(TableError, match="Name the metric to be predicted"):
        run_predictor_protocol(unnamed, PREDICTORS["ridge"], CONFIG)
    result = run_predictor_protocol(unnamed, PREDICTORS["ridge"], replace(CONFIG, test_metric="test"))
    assert (result.train_metric, result.test_metric) == ("test", "test")


def test_another_test_metric_is_learnt_unless_told_otherwise(table: Table) -> None:
    result = run_predictor_protocol(table, PREDICTORS["ridge"], replace(CONFIG, test_metric="hint"))
    assert (result.train_metric, result.test_metric) == ("hint", "hint")


def test_fixed_scores_do_not_learn() -> None:
    predictor = FixedScorePredictor(np.array([3.0, 1.0, 2.0]))
    predictor.fit(np.array([0]), torch.zeros(1))
    assert predictor.predict(np.array([2, 0])).mean.tolist() == [2.0, 3.0]
