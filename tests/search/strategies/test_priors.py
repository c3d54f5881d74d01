"""Priors over choices."""

from pathlib import Path

import numpy as np
import pytest

from nasgraph.errors import ConfigError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.strategies.evolution import EvolutionConfig, RegularisedEvolution
from nasgraph.search.strategies.priors import (
    ChoicePriors,
    PriorChooser,
    PriorsConfig,
    WithPriors,
    learn_priors,
    priors_from_mapping,
    read_priors,
)
from nasgraph.seeding import generator
from nasgraph.spaces import SearchSpace, realise
from tests.search.strategies.contract import Make, OptunaContract, SamplerContract, Search, in_turn
from tests.search.toys import Chain, quality

RELU = priors_from_mapping({"activation*": {"relu": 20.0}})


def evolution(space: SearchSpace, seed: int) -> ArchitectureSampler:
    return RegularisedEvolution(space, seed=seed, config=EvolutionConfig(population=8, sample=4))


class TestWithPriors(SamplerContract, OptunaContract):
    @pytest.fixture
    def make(self) -> Make:
        def make(space: SearchSpace, *, seed: int) -> ArchitectureSampler:
            return WithPriors(evolution(space, seed), RELU)

        return make


def test_draws_have_the_probabilities_of_the_priors() -> None:
    priors = priors_from_mapping({"activation0": {"relu": 3, "identity": 0}, "width*": {2: 5.0}})
    options = ("identity", "relu", "gelu", "sigmoid")
    np.testing.assert_allclose(priors.probabilities("activation0", options), [0, 0.6, 0.2, 0.2])
    np.testing.assert_allclose(priors.probabilities("activation1", options), 0.25)
    space, counts = Chain(num_layers=1), np.zeros(5)
    for draw in range(800):
        candidate, _ = realise(space, PriorChooser(priors, generator(0, draw)))
        choices = dict(candidate.architecture.choices)
        counts[int(choices["width0"])] += 1
        assert choices["activation0"] != "identity"
    np.testing.assert_allclose(counts[1:] / 800, priors.probabilities("width0", range(1, 5)), atol=0.05)


def test_an_exact_name_goes_before_a_pattern_and_truth_values_are_not_numbers() -> None:
    priors = priors_from_mapping({"a*": {True: 3.0}, "ab": {1: 3.0}})
    np.testing.assert_allclose(priors.probabilities("ac", (False, True)), [0.25, 0.75])
    np.testing.assert_allclose(priors.probabilities("ac", (0, 1)), [0.5, 0.5])
    np.testing.assert_allclose(priors.probabilities("ab", (0, 1)), [0.25, 0.75])


def test_priors_are_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "priors.toml"
    path.write_text('["activation*"]\nrelu = 20\n')
    assert read_priors(path) == RELU


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 3", "as a table"),
        ("[a]\nb = -1", "at least 0"),
        ("[a]\nb = inf", "at least 0"),
        ('[a]\nb = "much"', "to be a number"),
        ("[a]\nb = true", "to be a number"),
        ("[a", "not TOML"),
    ],
)
def test_files_that_hold_no_priors_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "priors.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_priors(path)


def test_a_missing_file_and_a_prior_without_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read"):
        read_priors(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="leaves no answer"):
        priors_from_mapping({"a": {"x": 0}}).probabilities("a", ("x",))
    with pytest.raises(ConfigError, match="once"):
        ChoicePriors((("a", ()), ("a", ())))


def test_good_priors_help_from_the_first_trials() -> None:
    space = Chain(num_layers=6)
    means = []
    for priors in (RELU, ChoicePriors(())):
        searches = [Search(WithPriors(evolution(space, seed), priors)) for seed in range(6)]
        for search in searches:
            search.run(10)
        means.append(np.mean([quality(c.graph) for search in searches for c in search.candidates]))
    assert means[0] > means[1] + 0.1


def test_priors_are_listened_to_less_and_less() -> None:
    space = Chain(num_layers=4)
    config = PriorsConfig(share=1.0, half_life=5)
    never = priors_from_mapping({"activation*": {"relu": 0}})
    search = Search(WithPriors(RegularisedEvolution(space, seed=0), never, config=config))
    search.run(100)
    has_relu = ["relu" in {a for _, a in c.architecture.choices} for c in search.candidates]
    assert sum(has_relu[:3]) <= 1
    assert sum(has_relu[-30:]) > 20


def test_learnt_priors_are_the_shares_among_the_best_of_each_search() -> None:
    space = Chain(num_layers=3)
    searches = []
    for seed in range(2):
        search = Search(evolution(space, seed), ends=in_turn)
        search.run(60)
        searches.append(search.observations)
    priors = learn_priors(searches, similarities=[3.0, 1.0], top_share=0.2, smoothing=0.5)
    options = ("identity", "relu", "gelu", "sigmoid")
    weights = np.ones(4)
    for observations, similarity in zip(searches, (0.75, 0.25), strict=True):
        complete = [seen for seen in observations if seen.gains]
        for seen in sorted(complete, key=lambda seen: -seen.gain)[: len(complete) // 5]:
            answer = dict(seen.candidate.architecture.choices)["activation1"]
            weights[options.index(str(answer))] += similarity / 0.5
    np.testing.assert_allclose(priors.probabilities("activation1", options), weights / weights.sum())
    assert priors.probabilities("activation1", options)[1] > 0.4


def test_what_cannot_be_learnt_from_is_refused() -> None:
    with pytest.raises(ConfigError, match="complete observations"):
        learn_priors([[]])
    with pytest.raises(ConfigError, match="one similarity"):
        learn_priors([[]], similarities=[1.0, 2.0])
    with pytest.raises(ConfigError, match="counts"):
        learn_priors([[]], similarities=[0.0])
    with pytest.raises(ConfigError, match="top_share"):
        learn_priors([[]], top_share=0.0)


@pytest.mark.parametrize("settings", [{"share": 1.5}, {"half_life": 0}, {"max_draws": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        PriorsConfig(**settings)  # type: ignore[arg-type]  # what a user might write
