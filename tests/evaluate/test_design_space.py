"""The analysis of design spaces, against scipy, numpy and populations whose answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from nasgraph.draw.report import to_html, to_markdown
from nasgraph.errors import CandidateError, ConfigError, NasGraphError
from nasgraph.evaluate import Evaluation, KeepGoing, Metric, Table, TableInfo, make_table
from nasgraph.evaluate.design_space import (
    analyse_design_spaces,
    equal_cost_weights,
    error_distribution,
    ks_statistic,
)
from nasgraph.evaluate.design_space_models import SampledModel, model_from_json, model_of
from nasgraph.evaluate.design_space_report import design_space_report
from nasgraph.evaluate.design_space_sampling import (
    ModelRecord,
    SampleConfig,
    draw_candidates,
    table_population,
    train_candidates,
)
from nasgraph.evaluate.good_ranges import good_ranges
from nasgraph.files import parse_json
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.spaces import Choice, SearchSpace
from search_spaces.mlp import MLP


@pytest.fixture
def space() -> SearchSpace:
    return MLP(input_shape=(1, 4, 4), num_classes=3)


def model(index: int, error: float | None, cost: int = 100, **choices: Choice) -> SampledModel:
    costs = {"num_parameters": cost, "multiply_adds": cost, "depth": 3}
    pairs = tuple(choices.items())
    return SampledModel(
        population="made", index=index, fingerprint=f"{index:016x}", choices=pairs, costs=costs, error=error
    )


# ---- distributions


@pytest.mark.parametrize("seed", range(5))
def test_the_ks_statistic_is_that_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=40).round(1), rng.normal(0.3, 1.5, size=25).round(1)  # with ties
    ours = ks_statistic(error_distribution(first), error_distribution(second))
    assert ours == pytest.approx(float(ks_2samp(first, second).statistic))


@pytest.mark.parametrize("seed", range(3))
def test_a_distribution_counts_what_is_not_above(seed: int) -> None:
    errors = np.random.default_rng(seed).random(30).round(1)
    found = error_distribution(errors)
    points = np.linspace(-0.1, 1.1, 13)
    assert found.share_up_to(points) == pytest.approx([(errors <= point).mean() for point in points])
    assert (found.min, found.mean) == pytest.approx((errors.min(), errors.mean()))
    assert found.quantile(0.5) == pytest.approx(np.quantile(errors, 0.5, method="inverted_cdf"))


def test_whole_weights_are_repetitions() -> None:
    errors, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 4.0, 2.0])
    weighted, repeated = (
        error_distribution(errors, weights),
        error_distribution(np.repeat(errors, weights.astype(int))),
    )
    points = np.array([0.5, 1.0, 2.5, 3.0])
    assert weighted.share_up_to(points) == pytest.approx(repeated.share_up_to(points))
    assert weighted.mean == pytest.approx(repeated.mean)
    for share in (0.1, 0.57, 0.58, 0.9, 1.0):
        assert weighted.quantile(share) == repeated.quantile(share)


def test_weights_of_equal_cost_give_both_one_distribution_of_costs() -> None:
    rng = np.random.default_rng(0)
    first, second = (10 ** rng.uniform(3, 6, 400)).astype(int), (10 ** rng.uniform(4, 7, 300)).astype(int)
    weights = equal_cost_weights(first.tolist(), second.tolist(), num_bins=8)
    assert weights is not None
    low, high = np.log(second.min()), np.log(first.max())
    histograms = [
        np.histogram(np.log(costs), bins=np.linspace(low, high, 9), weights=weight)[0]
        for costs, weight in zip((first, second), weights, strict=True)
    ]
    assert histograms[0] == pytest.approx(np.ones(8))
    assert histograms[1] == pytest.approx(np.ones(8))


def test_a_difference_that_only_costs_explain_vanishes_at_equal_cost() -> None:
    """Errors fall with the cost alone; one space has the cheaper networks."""
    rng = np.random.default_rng(0)
    cheap, dear = 10 ** rng.beta(1, 3, 600) * 1e5, 10 ** rng.beta(3, 1, 600) * 1e5
    populations = {
        name: [model(i, 7 - np.log10(cost), int(cost)) for i, cost in enumerate(costs)]
        for name, costs in (("cheap", cheap), ("dear", dear))
    }
    (found,) = analyse_design_spaces(populations, resamples=100).comparisons
    assert found.ks > 0.6
    assert found.ks_at_equal_cost is not None
    assert found.ks_at_equal_cost < 0.12
    assert found.p_value < 1e-6


def test_spaces_without_a_common_cost_are_not_compared_at_equal_cost() -> None:
    assert equal_cost_weights([1, 2], [10, 20]) is None
    assert equal_cost_weights([5, 5], [5]) is not None


# ---- good ranges


def test_the_winners_are_those_of_drawing_with_replacement() -> None:
    errors = [0.4, 0.1, 0.3, 0.2, 0.5, 0.6, 0.9, 0.8]
    models = [model(i, error, word="abcdefgh"[i]) for i, error in enumerate(errors)]
    (found,) = good_ranges(models, rng=np.random.default_rng(0), resamples=40_000, share=0.25)
    rng = np.random.default_rng(1)
    drawn = rng.integers(8, size=(40_000, 2))
    winners = drawn[np.arange(40_000), np.array(errors)[drawn].argmin(axis=1)]
    for place, letter in enumerate("abcdefgh"):
        assert dict(found.shares).get(letter, 0.0) == pytest.approx((winners == place).mean(), abs=0.015)


def test_the_best_value_of_a_choice_lies_in_its_good_range() -> None:
    rng = np.random.default_rng(0)
    models = [
        model(i, abs(width - 32) / 100 + 0.02 * rng.random(), width=int(width), noise=int(rng.integers(5)))
        for i, width in enumerate(rng.choice([8, 16, 32, 64, 128], 200))
    ]
    found = {each.name: each for each in good_ranges(models, rng=np.random.default_rng(0))}
    assert found["width"].low == found["width"].median == found["width"].high == 32
    assert found["width"].explained > 0.9
    assert found["noise"].low is not None
    assert found["noise"].high is not None
    assert found["noise"].high - found["noise"].low >= 3
    assert found["noise"].explained < 0.1


def test_a_choice_with_the_name_of_a_cost_is_not_taken_for_it() -> None:
    models = [model(i, i / 10, 100 + i, depth=i % 2) for i in range(10)]
    found = good_ranges(models, rng=np.random.default_rng(0), resamples=50)
    assert [(each.name, each.is_cost) for each in found] == [
        ("num_parameters", True),
        ("multiply_adds", True),
        ("depth", False),
    ]
    assert found[2].high is not None
    assert found[2].high <= 1


def test_what_cannot_be_judged_is_left_out() -> None:
    models = [model(i, 0.1 * i, same=1, rare=i) if i < 3 else model(i, 0.1 * i, same=1) for i in range(10)]
    models.append(model(10, None, same=1))
    found = good_ranges(models, rng=np.random.default_rng(0), resamples=10)
    assert found == ()  # one value only, or asked of three models


def test_no_error_at_all_cannot_be_analysed() -> None:
    with pytest.raises(NasGraphError, match="No model of 'made' has an error"):
        analyse_design_spaces({"made": [model(0, None)]})
    with pytest.raises(NasGraphError, match="at least one error, all of them finite"):
        error_distribution([float("nan")])


# ---- sampling


def test_samples_differ_keep_to_the_limits_and_do_not_depend_on_how_many_are_wanted(
    space: SearchSpace,
) -> None:
    limits = {"num_parameters": (200, 3000)}
    few, many = (draw_candidates(space, SampleConfig(num_models=n, limits=limits)) for n in (5, 12))
    assert many[:5] == few
    assert len({candidate.graph.fingerprint for candidate in many}) == 12
    assert all(200 <= cost_of(candidate.graph).num_parameters <= 3000 for candidate in many)
    assert few != draw_candidates(space, SampleConfig(num_models=5, seed=1, limits=limits))


def test_limits_that_nothing_keeps_to_are_reported(space: SearchSpace) -> None:
    config = SampleConfig(num_models=2, limits={"multiply_adds": (1, 2)})
    with pytest.raises(NasGraphError, match=r"Found 0 of 2 .*'mlp' with multiply_adds 1 to 2 in 400 draws"):
        draw_candidates(space, config)
    with pytest.raises(ConfigError, match="Expected limits of"):
        SampleConfig(limits={"latency": (1, 2)})


class Pretender:
    """Measures nothing; fails for deep graphs. An `Evaluator`."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        assert keep_going(0, 0.5)
        self.seeds.append(seed)
        if cost_of(graph).depth > 12:
            raise CandidateError("too deep")
        return Evaluation("val_accuracy", {"val_accuracy": 1 / cost_of(graph).depth}, (), seed)


def test_models_keep_their_errors_and_failures_are_recorded(space: SearchSpace) -> None:
    candidates = draw_candidates(space, SampleConfig(num_models=20))
    evaluate = Pretender()
    models = train_candidates(candidates, evaluate, seed=3)
    assert len(set(evaluate.seeds)) == 20
    for found, candidate in zip(models, candidates, strict=True):
        depth = cost_of(candidate.graph).depth
        if depth > 12:
            assert found.error is None
            assert found.reason == "CandidateError: too deep"
        else:
            assert found.error == pytest.approx(1 - 1 / depth)


def test_an_analysis_that_was_killed_goes_on_from_what_is_written_down(
    space: SearchSpace, tmp_path: Path
) -> None:
    candidates = draw_candidates(space, SampleConfig(num_models=6))
    record = ModelRecord(tmp_path, {"epochs": 3})
    whole = train_candidates(candidates, Pretender(), seed=0, on_model=record.add)
    path = tmp_path / "mlp.rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:20])  # cut off in the middle of the fourth
    again, evaluate = ModelRecord(tmp_path, {"epochs": 3}), Pretender()
    known = again.known("mlp")
    assert sorted(known) == [0, 1, 2]
    assert train_candidates(candidates, evaluate, seed=0, known=known, on_model=again.add) == whole
    assert len(evaluate.seeds) == 3
    assert again.known("mlp") == {found.index: found for found in whole}
    with pytest.raises(ConfigError, match="holds an analysis with other settings"):
        ModelRecord(tmp_path, {"epochs": 4})


def test_a_known_model_of_another_graph_is_refused(space: SearchSpace) -> None:
    first, second = draw_candidates(space, SampleConfig(num_models=2))
    with pytest.raises(NasGraphError, match="Model 0 of 'mlp' was measured with another graph"):
        train_candidates([first], Pretender(), seed=0, known={0: model_of(second, index=0, error=0.5)})


def test_models_come_back_from_json_equal(space: SearchSpace) -> None:
    for index, candidate in enumerate(draw_candidates(space, SampleConfig(num_models=5))):
        found = model_of(candidate, index=index, error=0.25 if index else None, reason="" if index else "why")
        assert model_from_json(parse_json(json.dumps(found.to_json()))) == found


def small_table(space: SearchSpace) -> Table:
    graphs = [each.graph for each in draw_candidates(space, SampleConfig(num_models=9))]
    values = np.linspace(50, 98, 9)
    values[4] = np.nan
    info = TableInfo(name="small", metrics=(Metric(name="accuracy", higher_is_better=True),))
    return make_table(graphs, {"accuracy": values}, info)


def test_rows_of_a_table_are_a_population(space: SearchSpace) -> None:
    table = small_table(space)
    found = table_population(table, metric="accuracy", config=SampleConfig(num_models=100))
    assert sorted(each.index for each in found) == [0, 1, 2, 3, 5, 6, 7, 8]  # one has no value
    assert {each.index: each.error for each in found}[8] == pytest.approx(2.0)
    assert len(table_population(table, metric="accuracy", config=SampleConfig(num_models=3))) == 3


# ---- the report


def test_the_report_holds_the_numbers_and_draws_every_space() -> None:
    rng = np.random.default_rng(0)
    populations = {
        name: [
            model(i, shift + float(rng.random()), 100 * (i + 1), width=int(rng.integers(4)), act="ab"[i % 2])
            for i in range(40)
        ]
        for name, shift in (("one", 0.0), ("other", 0.5))
    }
    analysis = analyse_design_spaces(populations, resamples=200)
    report = design_space_report(analysis, populations, command="nasgraph x", facts={"seed": "0"})
    html, markdown = to_html(report), to_markdown(report, lambda figure: f"{figure.name}.svg")
    for summary in analysis.populations:
        assert f"{summary.distribution.mean:.4g}" in html
        assert f"{summary.distribution.mean:.4g}" in markdown
    assert f"{analysis.comparisons[0].ks:.3f}" in html
    assert "errors.svg" in markdown
    assert "one-width.svg" in markdown
    assert html.count("<svg") == 4
    facts = analysis.to_json()
    assert parse_json(json.dumps(facts)) is not None
