"""Full training of the best trials."""

import math
from collections.abc import Callable

import optuna
import pytest
import torch

from nasgraph.errors import CandidateError, NasGraphError
from nasgraph.evaluate.evaluation import Evaluation, KeepGoing
from nasgraph.ir import ComputationalGraph
from nasgraph.search.cascade_finals import train_finalists
from nasgraph.search.experience import Observation
from nasgraph.search.records import TrialState
from nasgraph.seeding import generator
from nasgraph.spaces import sample
from tests.search.toys import Chain, quality


def observations(count: int = 8) -> list[Observation]:
    space = Chain(num_layers=4)
    candidates = [sample(space, generator(5, number)) for number in range(count)]
    return [
        Observation(number, candidate, TrialState.COMPLETE, (float(number % 5),))
        for number, candidate in enumerate(candidates)
    ]


class Full:
    """Trains in full, and remembers what."""

    def __init__(self, value: Callable[[ComputationalGraph], float] = quality) -> None:
        self.value = value
        self.seeds: dict[str, list[int]] = {}

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        self.seeds.setdefault(graph.fingerprint, []).append(seed)
        value = self.value(graph)
        if math.isnan(value):
            raise CandidateError("broke down")
        return Evaluation(
            "val_accuracy", {"val_accuracy": value}, (), seed, state={"w": torch.tensor([value])}
        )


def study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def test_the_best_trials_are_trained_and_the_best_of_them_wins() -> None:
    full, own = Full(), study()
    finals = train_finalists(own, observations(), full, count=3, seed=1)
    assert {each.number for each in finals.finalists} == {
        4,
        3,
        2,
    }  # gains 4, 3, and of two with 2 the earlier
    values = [quality(each.candidate.graph) for each in finals.finalists]
    assert [each.full for each in finals.finalists] == values == sorted(values, reverse=True)
    assert finals.evaluation.value == values[0]
    assert float(finals.evaluation.state["w"]) == pytest.approx(values[0])
    assert len(own.get_trials()) == 0


def test_what_is_done_is_not_done_again_but_for_the_weights_of_the_winner() -> None:
    own, first, second = study(), Full(), Full()
    before = train_finalists(own, observations(), first, count=2, seed=1)
    after = train_finalists(own, observations(), second, count=4, seed=1)
    assert len(first.seeds) == 2
    winner = after.finalists[0]
    new = {each.candidate.graph.fingerprint for each in after.finalists} - set(first.seeds)
    assert set(second.seeds) == new | {winner.candidate.graph.fingerprint}
    assert all(len(seeds) == 1 for seeds in second.seeds.values())
    for name in set(first.seeds) & set(second.seeds):
        assert first.seeds[name] == second.seeds[name]
    known = {each.number: each for each in after.finalists}
    assert all(known[each.number].full == each.full for each in before.finalists)
    assert after.evaluation.value == winner.full


def test_a_finalist_that_fails_stands_last() -> None:
    worst = observations()[4].candidate.graph.fingerprint
    full = Full(lambda graph: math.nan if graph.fingerprint == worst else quality(graph))
    finals = train_finalists(study(), observations(), full, count=3, seed=1)
    assert finals.finalists[-1].number == 4
    assert finals.finalists[-1].reason == "broke down"
    assert math.isnan(finals.finalists[-1].full)


def test_with_nothing_to_train_or_nothing_that_trains_the_search_says_so() -> None:
    with pytest.raises(NasGraphError, match="is complete: there is nothing to train"):
        train_finalists(study(), [], Full(), count=3, seed=1)
    with pytest.raises(NasGraphError, match="failed for every finalist, the best with: broke down"):
        train_finalists(study(), observations(), Full(lambda _: math.nan), count=3, seed=1)


def test_the_finals_end_when_the_time_is_up_but_one_is_trained() -> None:
    full = Full()
    finals = train_finalists(study(), observations(), full, count=5, seed=1, out_of_time=lambda: True)
    assert [each.number for each in finals.finalists] == [4]
    assert not finals.agreement.is_known


def test_short_and_full_training_are_compared() -> None:
    own = observations(5)
    by_name = {each.candidate.graph.fingerprint: each.gain for each in own}
    finals = train_finalists(study(), own, Full(lambda graph: by_name[graph.fingerprint]), count=5, seed=1)
    assert finals.agreement.tau == 1
