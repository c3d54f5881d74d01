"""The usual stages of a cascade."""

import math
from pathlib import Path

import numpy as np
import optuna
import pytest
from scipy.stats import kendalltau

from nasgraph.data import SearchData, Split, load_dataset
from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.evaluate import PredictedWeightsConfig, PredictedWeightsScorer
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.predict import EnsembleConfig, proxy_scores
from nasgraph.search.cascade import Cascade
from nasgraph.search.cascade_records import CascadeConfig, Labelled, Stage
from nasgraph.search.cascade_rounds import rounds_of
from nasgraph.search.cascade_stages import (
    LearnFromTrials,
    cost_stage,
    ghn_stage,
    predictor_stage,
    proxy_stage,
    screen_stage,
    usual_cascade,
)
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.history import SCORES, History
from nasgraph.search.records import SearchConfig, TrialState
from nasgraph.search.screening import screen_candidates
from nasgraph.seeding import generator
from nasgraph.spaces import load_space, sample
from tests.hyper.toy import tiny_config
from tests.search.toys import Chain, quality, screen

FEW = EnsembleConfig(members=("gaussian_process",))


@pytest.fixture(scope="module")
def few_digits() -> SearchData:
    return load_dataset("digits").search.subset(100, 50, seed=0)


def convnets(count: int) -> list[ComputationalGraph]:
    space = load_space("convnet", input_shape=(1, 8, 8), num_classes=10)
    return [sample(space, generator(0, "stages", number)).graph for number in range(count)]


def said(stage: Stage, graphs: list[ComputationalGraph]) -> list[dict[str, float]]:
    assert stage.score is not None
    return [dict(each) for each in stage.score(graphs)]


def test_costs_come_in_both_directions_and_in_logarithms() -> None:
    graphs = convnets(3)
    for graph, row in zip(graphs, said(cost_stage(keep=0.5), graphs), strict=True):
        cost = cost_of(graph)
        assert row["num_parameters"] == cost.num_parameters
        assert row["minus_log_multiply_adds"] == pytest.approx(-math.log(cost.multiply_adds))
        assert row["log_depth"] == pytest.approx(math.log(cost.depth))
    with pytest.raises(UnknownNameError):
        cost_stage(keep=0.5, names=("watts",))


def test_proxies_are_those_of_the_batch(few_digits: SearchData) -> None:
    graphs = convnets(3)
    batch = Split(few_digits.train.inputs[:16], few_digits.train.targets[:16])
    stage = proxy_stage(batch, keep=0.5, names=("nwot", "num_parameters"), rank_by=("nwot",))
    expected = [dict(each) for each in proxy_scores(graphs, batch, names=("nwot", "num_parameters"))]
    assert said(stage, graphs) == expected
    assert stage.judged_by == ("proxies.nwot", True)
    with pytest.raises(UnknownNameError):
        proxy_stage(batch, keep=0.5, names=("no such proxy",))


def test_the_ghn_stage_says_what_the_scorer_says_under_short_names(few_digits: SearchData) -> None:
    scorer = PredictedWeightsScorer(
        GraphHyperNetwork(tiny_config(), seed=0), few_digits, PredictedWeightsConfig(num_examples=32)
    )
    stage, graphs = ghn_stage(scorer, keep=0.5), convnets(2)
    assert said(stage, graphs) == scorer(graphs)
    assert stage.full_name("ghn_accuracy") == "ghn.accuracy"
    assert stage.judged_by == ("ghn.rank", False)


# ---- the stage that learns


def labelled(count: int, *, with_scores: bool = True) -> list[Labelled]:
    space = Chain(num_layers=4)
    trials: dict[str, Labelled] = {}
    draw = 0
    while len(trials) < count:
        graph = sample(space, generator(1, "labelled", draw)).graph
        said = {"hint.score": quality(graph), "hint.rank": 0.5} if with_scores else {}
        trials[graph.fingerprint] = Labelled(graph, quality(graph), said)
        draw += 1
    return list(trials.values())


def test_too_few_trials_or_too_equal_ones_teach_nothing() -> None:
    learn = LearnFromTrials(min_trials=10, config=FEW)
    assert learn(labelled(9)) is None
    assert learn([Labelled(each.graph, 0.5, {}) for each in labelled(12)]) is None
    with pytest.raises(ConfigError, match="at least 8"):
        LearnFromTrials(min_trials=7)


@pytest.mark.parametrize("with_scores", [False, True])
def test_what_is_learnt_ranks_graphs_that_were_never_tried(with_scores: bool) -> None:
    trials = labelled(70, with_scores=with_scores)
    screen = LearnFromTrials(config=FEW, optimism=1.0)(trials[:40])
    assert screen is not None
    rows = screen([each.graph for each in trials[40:]], [each.scores for each in trials[40:]])
    tau = kendalltau([row["mean"] for row in rows], [each.gain for each in trials[40:]]).statistic
    assert tau > (0.8 if with_scores else 0.4)
    assert all(row["optimistic"] == pytest.approx(row["mean"] + row["std"]) for row in rows)


def test_scores_that_some_trials_lack_and_ranks_are_not_looked_at() -> None:
    trials = labelled(20)
    learn = LearnFromTrials(config=FEW)
    assert learn._columns(trials) == ("hint.score",)
    assert learn._columns([*trials, Labelled(trials[0].graph, 1.0, {})]) == ()
    assert LearnFromTrials(config=FEW, with_scores=False)._columns(trials) == ()


def test_equal_trials_teach_the_same() -> None:
    trials = labelled(30)
    graphs, scores = [each.graph for each in trials[20:]], [each.scores for each in trials[20:]]
    screens = [LearnFromTrials()(trials[:20]) for _ in range(2)]
    first, second = (screen(graphs, scores) if screen is not None else None for screen in screens)
    assert first is not None
    assert first == second


# ---- together


def test_a_cascade_of_all_stages_searches_real_networks(few_digits: SearchData) -> None:
    space = load_space("convnet", input_shape=(1, 8, 8), num_classes=10)
    scorer = PredictedWeightsScorer(
        GraphHyperNetwork(tiny_config(), seed=0), few_digits, PredictedWeightsConfig(num_examples=32)
    )
    batch = Split(few_digits.train.inputs[:16], few_digits.train.targets[:16])
    names = [stage.name for stage in usual_cascade(few_digits, CascadeConfig(), scorer=scorer).stages]
    assert names == ["proxies", "ghn", "predictor"]
    names = [stage.name for stage in usual_cascade(few_digits, CascadeConfig(), proxies=()).stages]
    assert names == ["predictor"]
    stages = [
        cost_stage(keep=0.8),
        proxy_stage(batch, keep=0.6, names=("nwot",)),
        ghn_stage(scorer, keep=0.6),
        predictor_stage(keep=0.5, learn=LearnFromTrials(min_trials=8, config=FEW)),
    ]
    cascade = Cascade(stages, CascadeConfig(num_candidates=20, num_kept=4, random_share=0.25))
    study = optuna.create_study(direction="maximize")
    observations: list[Observation] = []
    known: set[str] = set()
    experience = Experience(space, observations=observations, known=known)
    for _ in range(3):
        found = cascade.step(study, experience, num_trials=len(study.get_trials(deepcopy=False)))
        assert found is not None
        for item in found.screened[:4]:
            trial = study.ask()
            gain = float(cost_of(item.candidate.graph).depth) + float(np.sin(trial.number))
            study.tell(trial, gain)
            known.add(item.candidate.graph.fingerprint)
            observations.append(Observation(trial.number, item.candidate, TrialState.COMPLETE, (gain,)))
    states = [[stage.state for stage in each.stages] for each in rounds_of(study)]
    assert states == [["active"] * 3 + ["not ready"]] * 2 + [["active"] * 4]
    assert [stage.num_passed for stage in rounds_of(study)[2].stages][:3] == [16, 10, 6]
    scores = study.get_trials(deepcopy=False)[-1].user_attrs[SCORES]
    assert {"cost.log_depth", "proxies.nwot", "ghn.accuracy", "predictor.mean"} <= set(scores)
    assert len(known) == 12


def test_one_stage_without_chance_keeps_what_screening_keeps() -> None:
    space, own = Chain(), optuna.create_study(direction="maximize")
    config = SearchConfig(num_trials=6, num_screened=50, num_kept=6, seed=4)
    screened = screen_candidates(space, screen, History(own), config, listeners=(), out_of_time=lambda: False)
    cascade = Cascade(
        [screen_stage(screen, keep=0.2, rank_by=("screen_score",))],
        CascadeConfig(num_candidates=50, num_kept=6, random_share=0.0, max_rounds=1),
    )
    found = cascade.step(
        optuna.create_study(direction="maximize"),
        Experience(space),
        num_trials=0,
        propose=lambda experience, draw: sample(experience.space, generator(4, "screen", draw)),
    )
    assert found is not None
    assert [each.candidate for each in found.screened[:6]] == [each.candidate for each in screened[:6]]
    assert {each.candidate for each in found.screened} == {each.candidate for each in screened}


def test_a_cascade_survives_the_journal(tmp_path: Path) -> None:
    from nasgraph.search.storage import open_storage

    stages = [screen_stage(screen, keep=0.2, rank_by=("screen_score",))]
    config = CascadeConfig(num_candidates=30, num_kept=4)
    first = optuna.create_study(
        storage=open_storage(tmp_path / "journal"), study_name="s", direction="maximize"
    )
    decided = Cascade(stages, config).step(first, Experience(Chain()), num_trials=0)
    again = optuna.load_study(storage=open_storage(tmp_path / "journal"), study_name="s")
    assert decided is not None
    assert [each.num_kept for each in rounds_of(again)] == [4]
    assert rounds_of(again)[0].stages == decided.stages
    assert Cascade(stages, config).step(again, Experience(Chain()), num_trials=0) is None
    assert len(again.get_trials(deepcopy=False)) == 4
