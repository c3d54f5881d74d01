"""The model by which children are compared."""

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from nasgraph.search.strategies._additive import AdditiveModel
from nasgraph.search.strategies.multi_objective import GraphNSGA, NSGAConfig
from nasgraph.seeding import generator
from nasgraph.spaces import Choice, sample
from tests.search.strategies.contract import Blocks, Search
from tests.search.toys import Chain, quality


def some_choices(number: int) -> list[dict[str, Choice]]:
    space = Blocks(input_shape=(4,), num_classes=3)
    return [dict(sample(space, generator(0, place)).architecture.choices) for place in range(number)]


def test_it_is_a_ridge_regression_on_normal_scores() -> None:
    choices = some_choices(60)
    gains = generator(1).integers(8, size=(60, 2)).astype(float)
    model = AdditiveModel(window=40, ridge=2.0)
    for chosen, gain in zip(choices, gains, strict=True):
        model.learn(chosen, tuple(gain))
    answers = sorted({f"{name}={answer}" for chosen in choices for name, answer in chosen.items()})
    design = np.array(
        [[a in {f"{n}={v}" for n, v in chosen.items()} for a in answers] for chosen in choices[-40:]]
    )
    target = norm.ppf((rankdata(gains[-40:], axis=0) - 0.5) / 40)
    centred = design - design.mean(axis=0)
    stacked = np.vstack([centred, np.sqrt(2.0) * np.eye(len(answers))])
    padded = np.vstack([target - target.mean(axis=0), np.zeros((len(answers), 2))])
    coefficients = np.linalg.lstsq(stacked, padded, rcond=None)[0]
    expected = target.max(axis=0) - (target.mean(axis=0) + centred[:5] @ coefficients)
    np.testing.assert_allclose(model.shortfalls(choices[20:25]), expected, atol=1e-9)


def test_only_the_order_of_the_gains_matters_and_unknown_answers_count_nothing() -> None:
    choices, gains = some_choices(30), generator(2).normal(size=30)
    plain, bent = AdditiveModel(window=50), AdditiveModel(window=50)
    for chosen, gain in zip(choices, gains, strict=True):
        plain.learn(chosen, (gain,))
        bent.learn(chosen, (np.exp(9 * gain),))
    children = some_choices(40)
    np.testing.assert_array_equal(plain.shortfalls(children), bent.shortfalls(children))
    strange = [{**child, "what": "ever"} for child in children]
    np.testing.assert_array_equal(plain.shortfalls(children), plain.shortfalls(strange))


@pytest.mark.parametrize("num_seen", [7, 163])
def test_when_it_is_asked_does_not_matter(num_seen: int) -> None:
    asked, not_asked = AdditiveModel(window=50), AdditiveModel(window=50)
    rng = generator(3)
    choices = some_choices(num_seen)
    for chosen in choices:
        gains = (rng.normal(), rng.normal())
        for model in (asked, not_asked):
            model.learn(chosen, gains)
        asked.shortfalls(choices[:3])
    np.testing.assert_array_equal(asked.shortfalls(choices), not_asked.shortfalls(choices))


def test_the_model_helps() -> None:
    space = Chain(num_layers=6)
    means = []
    for screen in (1, 16):
        searches = [
            Search(GraphNSGA(space, seed=seed, config=NSGAConfig(screen=screen)), num_objectives=2)
            for seed in range(4)
        ]
        for search in searches:
            search.run(60)
        means.append(np.mean([max(quality(c.graph) for c in search.candidates) for search in searches]))
    assert means[1] > means[0]
