"""Samplers: Optuna's own contract, and that a proposal depends on seed, trial and history alone."""

import random
from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler, TPESampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase

from nasgraph.errors import UnknownNameError
from nasgraph.search import ReproducibleSampler, TrialChooser, make_sampler, sampler_names
from nasgraph.search.samplers import MAX_HISTORY, NUM_BEST, _BestOfGrowingList
from nasgraph.spaces import SearchSpace, realise
from tests.search.toys import Chain, Conditional, quality

QUICK = ["nsgaii", "random", "tpe"]


class TestOptunasContract(BasicSamplerTestCase):
    @pytest.fixture(params=QUICK)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: make_sampler(request.param, seed=0)


class TestOptunasContractForTPE(RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        def make(seed: int) -> BaseSampler:
            return TPESampler(seed=seed, n_startup_trials=0, multivariate=True)

        return lambda: ReproducibleSampler(make, seed=0, max_history=MAX_HISTORY)


def test_names() -> None:
    assert {"gp", "nsgaii", "random", "tpe", "bayesian", "evolution", "local-search"} <= set(sampler_names())
    assert list(sampler_names()) == sorted(sampler_names())
    with pytest.raises(UnknownNameError, match=r"No sampler named 'tpa'. Close: 'tpe'"):
        make_sampler("tpa", seed=0)


def new_study(sampler: BaseSampler) -> optuna.Study:
    return optuna.create_study(sampler=sampler, direction="maximize")


def run(study: optuna.Study, space: SearchSpace, num_trials: int) -> None:
    for _ in range(num_trials):
        trial = study.ask()
        candidate, _ = realise(space, TrialChooser(trial))
        study.tell(trial, quality(candidate.graph))


def proposals(study: optuna.Study) -> list[dict[str, object]]:
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize(
    "space", [Chain(), Conditional(input_shape=(4,), num_classes=3)], ids=lambda s: s.name
)
def test_a_fresh_sampler_continues_like_the_first(name: str, space: SearchSpace) -> None:
    whole, parts = new_study(make_sampler(name, seed=7)), new_study(make_sampler(name, seed=7))
    run(whole, space, 50)
    for num_trials in (1, 4, 20, 25):
        parts.sampler = make_sampler(name, seed=7)
        run(parts, space, num_trials)
    assert proposals(whole) == proposals(parts)


@pytest.mark.parametrize("finished", [0, 20, 30, 40, 60])
@pytest.mark.parametrize("name", QUICK)
def test_a_trial_cut_off_between_choices_is_completed_as_it_would_have_been(name: str, finished: int) -> None:
    space = Chain()
    whole, cut = new_study(make_sampler(name, seed=1)), new_study(make_sampler(name, seed=1))
    run(whole, space, finished + 1)
    run(cut, space, finished)
    trial = cut.ask()
    trial.suggest_int("width0", 1, 4)
    trial.suggest_categorical("activation0", ("identity", "relu", "gelu", "sigmoid"))
    cut.sampler = make_sampler(name, seed=1)
    realise(space, TrialChooser(optuna.Trial(cut, trial._trial_id)))
    assert proposals(whole) == proposals(cut)


@pytest.mark.parametrize("name", QUICK)
def test_other_seeds_give_other_proposals(name: str) -> None:
    studies = [new_study(make_sampler(name, seed=seed)) for seed in (0, 1, 2**32)]
    for study in studies:
        run(study, Chain(), 12)
    first, second, third = (proposals(study) for study in studies)
    assert first != second != third != first


def test_random_proposals_are_uniform() -> None:
    study = new_study(make_sampler("random", seed=0))
    widths = [study.ask().suggest_int("width", 1, 4) for _ in range(1500)]
    assert [widths.count(width) / 1500 for width in range(1, 5)] == pytest.approx([0.25] * 4, abs=0.04)


def test_gp_proposes() -> None:
    study = new_study(make_sampler("gp", seed=0))
    run(study, Chain(num_layers=1), 12)
    assert len(study.trials) == 12


def test_tpe_sees_the_latest_trials_and_the_best_of_the_others() -> None:
    seen: list[list[int]] = []

    class Watching(TPESampler):
        def sample_relative(self, study, trial, search_space):  # type: ignore[no-untyped-def]
            seen.append(
                [
                    t.number
                    for t in study._get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
                ]
            )
            return super().sample_relative(study, trial, search_space)

    study = new_study(ReproducibleSampler(lambda seed: Watching(seed=seed), seed=0, max_history=MAX_HISTORY))
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        "x": optuna.distributions.IntDistribution(0, 1000)
    }
    for number in range(MAX_HISTORY + 100):
        study.add_trial(
            optuna.create_trial(
                value=float(-abs(number - 50)), params={"x": number}, distributions=distributions
            )
        )
    study.ask().suggest_int("x", 0, 1000)
    first_best = 50 - NUM_BEST // 2
    assert seen == [[*range(first_best, first_best + NUM_BEST), *range(100, MAX_HISTORY + 100)]]


@pytest.mark.parametrize("maximize", [True, False])
def test_the_best_of_a_growing_list_are_the_best_of_the_whole(maximize: bool) -> None:
    rng = random.Random(0)
    states = [optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED]
    trials = [
        optuna.create_trial(value=float(rng.randrange(9)), state=rng.choice(states)) for _ in range(400)
    ]
    growing = _BestOfGrowingList()
    for end in (1, 30, 31, 200, 150, 400):
        complete = [trial for trial in trials[:end] if trial.state == states[0]]
        expected = sorted(complete, key=lambda trial: trial.value or 0.0, reverse=maximize)[:NUM_BEST]
        assert [id(t) for t in growing.update(trials[:end], maximize=maximize)] == [id(t) for t in expected]
