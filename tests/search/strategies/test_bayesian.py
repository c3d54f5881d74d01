"""Bayesian optimisation over graphs."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from nasgraph.errors import ConfigError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.predict.columns import ColumnScale
from nasgraph.predict.growing_process import GrowingProcess
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.records import TrialState
from nasgraph.search.strategies.bayesian import BayesianConfig, BayesianSampler, thompson
from nasgraph.search.strategies.bayesian_columns import CandidateColumns, ChoiceFeatures, _Knots
from nasgraph.search.strategies.bayesian_pool import CandidatePool, _estimated_size
from nasgraph.search.strategies.bayesian_search import PoolConfig, PoolSearch, chebyshev
from nasgraph.spaces import (
    Candidate,
    Chooser,
    SamplingChooser,
    SearchSpace,
    enumerate_candidates,
    realise,
    sample,
)
from tests.search.strategies.contract import (
    SPACES,
    Make,
    OptunaContract,
    SamplerContract,
    Search,
    as_it_was,
    in_turn,
)
from tests.search.toys import Chain, Conditional, quality

QUICK = PoolConfig(pool_size=100, enumerate_limit=0)
SMALL = PoolConfig(num_initial=4, pool_size=24, enumerate_limit=0, max_labelled=16)


def maker(config: BayesianConfig) -> Make:
    def make(space: SearchSpace, *, seed: int) -> ArchitectureSampler:
        return BayesianSampler(space, seed=seed, config=config)

    return make


class Contract(SamplerContract):
    """Functions of `nasgraph.predict` are checked at run time in tests, and that draws from `random`; nothing else may."""

    def test_global_generators_are_left_alone(self, make: Make) -> None:
        before = np.random.get_state(), torch.get_rng_state()
        Search(make(SPACES[0], seed=0)).run(self.num_trials)
        assert str(np.random.get_state()) == str(before[0])
        assert torch.equal(torch.get_rng_state(), before[1])


class TestBayesian(Contract, OptunaContract):
    """With a pool that is renewed and cut back, and labels that are forgotten."""

    @pytest.fixture
    def make(self) -> Make:
        return maker(BayesianConfig(pool=SMALL))


class TestBayesianOnWholeSpaces(Contract):
    @pytest.fixture
    def make(self) -> Make:
        return maker(BayesianConfig(num_draws=2, pool=PoolConfig(pool_size=48, enumerate_limit=500)))


class TestThompson(Contract):
    @pytest.fixture
    def make(self) -> Make:
        return maker(BayesianConfig(acquisition="thompson", pool=SMALL))


class Widths(SearchSpace):
    """The same operators in the same places, whatever is chosen."""

    @property
    def name(self) -> str:
        return "widths"

    def build(self, choose: Chooser) -> ComputationalGraph:
        graph = GraphBuilder()
        node = graph("input", shape=self.input_shape)
        for layer in range(5):
            node = graph("linear", node, out_features=choose.integer(f"width{layer}", 2, 9))
        return graph.finish(graph("linear", node, out_features=self.num_classes))


WIDTHS = Widths(input_shape=(4,), num_classes=3)


def score_of_widths(candidate: Candidate) -> float:
    """Wants some layers narrow and others wide: neither parameters nor multiply-adds tell."""
    widths = [int(answer) for _, answer in candidate.architecture.choices]
    return -float(abs(widths[0] - 9) + abs(widths[1] - 3) + abs(widths[2] - 7) + abs(widths[3] - 4))


def search_widths(sampler: ArchitectureSampler, num_trials: int) -> float:
    observations: list[Observation] = []
    known: set[str] = set()
    experience = Experience(WIDTHS, observations=observations, known=known)
    for number in range(num_trials):
        candidate = sampler.propose(experience, number=number)
        known.add(candidate.graph.fingerprint)
        gains = (score_of_widths(candidate),)
        observations.append(Observation(number, candidate, TrialState.COMPLETE, gains))
    return max(observation.gain for observation in observations)


# ---- what is found


def test_widths_are_told_apart_by_the_choices() -> None:
    """32,768 architectures, one pattern of operators; by chance the best of 60 loses about 5.6."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        by_chance = max(score_of_widths(sample(WIDTHS, rng)) for _ in range(60))
        found = search_widths(BayesianSampler(WIDTHS, seed=seed, config=BayesianConfig(pool=QUICK)), 60)
        assert found >= -1 > by_chance


def test_it_finds_the_best_of_a_space_long_before_chance_would() -> None:
    space = Chain()
    best = max(quality(candidate.graph) for candidate in enumerate_candidates(space))
    search = Search(BayesianSampler(space, seed=0, config=BayesianConfig(pool=QUICK)))
    search.run(60)  # of 4,096 architectures
    assert max(o.gain for o in search.observations) > best - 0.05


def test_a_batch_is_spread_out() -> None:
    """A candidate that is underway takes from what is expected of others, and most from those that are most like it."""
    sampler = BayesianSampler(WIDTHS, seed=0, config=BayesianConfig(pool=QUICK))
    experience = Experience(WIDTHS)
    candidates = [sample(WIDTHS, np.random.default_rng(number)) for number in range(20)]
    experience.observations = [
        Observation(number, candidate, TrialState.COMPLETE, (score_of_widths(candidate),))
        for number, candidate in enumerate(candidates)
    ]
    first = sampler.propose(experience, number=20)
    search, rng = sampler._searches[experience], np.random.default_rng(0)
    alone = sampler._scores(search, rng, 21)
    experience.pending = (first,)
    assert sampler.propose(experience, number=21) != first  # though nothing else says that it is known
    change = sampler._scores(search, rng, 21) - alone
    answers = np.array([[int(a) for _, a in c.architecture.choices] for c in search.pool.candidates])
    away = np.abs(answers - answers[search.pool.place[first.graph.fingerprint]]).sum(axis=1)
    order = np.argsort(away, kind="stable")
    assert (change <= 1e-9).all()
    assert change[order[:10]].mean() < change[order[-50:]].mean() - 0.01


def test_several_objectives_are_traded_off() -> None:
    """Few nodes against quality: the front of 40 trials has both ends and something between."""
    search = Search(BayesianSampler(Chain(), seed=0, config=BayesianConfig(pool=QUICK)), num_objectives=2)
    search.run(40)
    gains = np.array([o.gains for o in search.observations])
    front = [g for g in gains if not ((gains >= g).all(axis=1) & (gains > g).any(axis=1)).any()]
    assert len({tuple(g) for g in front}) >= 3
    assert max(g[1] for g in gains) >= -3  # the smallest graph there is has two nodes


# ---- the state


@pytest.mark.parametrize(
    "config", [BayesianConfig(pool=SMALL), BayesianConfig(acquisition="thompson", pool=QUICK)]
)
def test_replaying_all_observations_at_once_ends_in_the_same_state(config: BayesianConfig) -> None:
    """Also with candidates underway, which leave no trace in what is replayed."""
    space = WIDTHS
    search = Search(BayesianSampler(space, seed=2, config=config), ends=in_turn)
    for number in range(50):
        search.experience.pending = tuple(search.candidates[-3:]) if number % 3 else ()
        search.run(1)
    experience = as_it_was(search, 50)
    experience.pending = search.experience.pending = tuple(search.candidates[-2:])
    fresh = BayesianSampler(space, seed=2, config=config)
    for number in (50, 51):
        again = fresh.propose(experience, number=number)
        assert again == search.sampler.propose(search.experience, number=number)


def test_what_the_process_knows_is_bounded() -> None:
    sampler = BayesianSampler(WIDTHS, seed=0, config=BayesianConfig(pool=SMALL))
    search = Search(sampler)
    search.run(120)
    sampler.propose(search.experience, number=120)
    state = sampler._searches[search.experience]
    assert state.num_labels == 120
    assert len(state.belief.labelled) <= SMALL.max_labelled
    assert len(state.pool) <= 1.25 * SMALL.pool_size + SMALL.max_labelled + 2 * SMALL.renewals
    best = max(search.observations, key=lambda o: o.gain)
    assert best.candidate.graph.fingerprint in state.pool.place


def test_failures_are_no_labels_and_pruned_trials_are() -> None:
    sampler = BayesianSampler(WIDTHS, seed=0, config=BayesianConfig(pool=SMALL))
    search = Search(sampler, ends=in_turn)
    search.run(41)
    sampler.propose(search.experience, number=41)
    ends = Counter(o.state for o in search.observations)
    state = sampler._searches[search.experience]
    assert state.num_labels == ends[TrialState.COMPLETE] + ends[TrialState.PRUNED]


@pytest.mark.parametrize("seed", range(5))
def test_every_trade_off_is_the_best_for_some_weights(seed: int) -> None:
    """And only those are: the augmented Chebyshev function is strictly monotone (Miettinen 1999, theorems 3.4.5 and 3.4.6)."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((12, 2))
    front = {
        row
        for row, one in enumerate(values)
        if not ((values >= one).all(axis=1) & (values > one).any(axis=1)).any()
    }
    weights = np.linspace(0, 1, 2001)
    found = {int(chebyshev(values, np.array([w, 1 - w])).argmax()) for w in weights[1:-1]}
    assert found <= front
    assert len(found) >= len(front) - 1  # the sum hides a trade-off that hardly bends


def test_joint_samples_have_the_covariance_of_the_posterior() -> None:
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((6, 3))
    process, targets = GrowingProcess(pool), np.array([1.0, -1.0])
    process.add_all([0, 1])
    draws = np.array([thompson(process, targets, rng) for _ in range(4000)])
    np.testing.assert_allclose(draws.mean(axis=0), process.posterior(targets)[0], atol=0.06)
    np.testing.assert_allclose(np.cov(draws.T), process.covariances(range(6))[0], atol=0.07)


# ---- columns and pools


def test_choices_have_columns_that_tell_all_answers_apart() -> None:
    space = Conditional(input_shape=(4,), num_classes=3)
    rng = np.random.default_rng(0)
    realised = [realise(space, SamplingChooser(rng)) for _ in range(200)]
    features = ChoiceFeatures.of([questions for _, questions in realised])
    architectures = [candidate.architecture for candidate, _ in realised]
    rows = features(architectures)
    assert rows.shape == (200, features.width)
    by_row: dict[bytes, set[object]] = {}
    for row, architecture in zip(rows, architectures, strict=True):
        by_row.setdefault(row.tobytes(), set()).add(architecture)
    assert all(len(found) == 1 for found in by_row.values())


def test_scaled_columns_are_those_of_the_exact_scale_up_to_lines_between_knots() -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(0, 5, 300), rng.exponential(size=300) ** 2, rng.integers(0, 2, 300)])
    exact, lines = ColumnScale.of(rows)(rows), _Knots.of(rows)(rows)
    np.testing.assert_allclose(lines[:, [0, 2]], exact[:, [0, 2]], atol=1e-9)
    assert np.abs(lines[:, 1] - exact[:, 1]).mean() < 0.05
    assert np.corrcoef(lines[:, 1], exact[:, 1])[0, 1] > 0.995
    order = np.argsort(rows[:, 1])
    assert (np.diff(lines[order, 1]) >= 0).all()


def test_rows_beyond_the_known_ones_go_on_for_a_margin() -> None:
    scale = _Knots.of(np.arange(10.0)[:, None])
    beyond = scale(np.array([[-1e9], [-1.0], [0.0], [9.0], [10.0], [1e9]]))[:, 0]
    assert (np.diff(beyond) > 0).all()
    assert np.isfinite(beyond).all()


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_the_size_of_a_space_is_estimated(space: SearchSpace) -> None:
    count = sum(1 for _ in enumerate_candidates(space))
    rng = np.random.default_rng(0)
    estimates = [_estimated_size(space, rng) for _ in range(100)]
    assert np.mean(estimates) == pytest.approx(count, rel=0.15)


@pytest.mark.parametrize("limit", [0, 1000])
def test_a_pool_holds_every_graph_once(limit: int) -> None:
    space = Chain(num_layers=2)
    pool = CandidatePool.of(space, seed=0, size=50, enumerate_limit=limit, admits=lambda graph: True)  # noqa: ARG005
    names = [candidate.graph.fingerprint for candidate in pool.candidates]
    assert len(set(names)) == len(names)
    assert pool.is_whole == (limit > 0)
    if pool.is_whole:
        assert set(names) == {candidate.graph.fingerprint for candidate in enumerate_candidates(space)}
    assert np.isfinite(pool.describe(pool.candidates)).all()


def test_a_pool_keeps_the_constraints_and_is_filled_up() -> None:
    pool = CandidatePool.of(Chain(), seed=0, size=50, enumerate_limit=0, admits=lambda graph: len(graph) <= 6)
    assert len(pool) == 50
    assert all(len(candidate.graph) <= 6 for candidate in pool.candidates)


def test_a_space_of_one_candidate_has_a_column() -> None:
    space = Chain(num_layers=0)
    [candidate] = enumerate_candidates(space)
    assert CandidateColumns.of(space, [candidate])([candidate]).shape == (1, 1)


def test_candidates_that_no_pool_holds_are_learnt_from() -> None:
    """Such as those that a person enqueued."""
    experience = Experience(WIDTHS)
    search = PoolSearch(WIDTHS, seed=0, config=SMALL, make_belief=GrowingProcess, experience=experience)
    outside = [
        candidate
        for candidate in islice(enumerate_candidates(WIDTHS), 50)
        if candidate.graph.fingerprint not in search.pool.place
    ][:9]
    experience.observations = [
        Observation(number, candidate, TrialState.COMPLETE, (score_of_widths(candidate),))
        for number, candidate in enumerate(outside)
    ]
    search.learn(experience)
    assert search.num_labels == len(search.belief.labelled) == 9


# ---- settings


@pytest.mark.parametrize(
    "settings", [{"num_initial": 0}, {"pool_size": 0}, {"fit_growth": 0.5}, {"max_labelled": 4}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        PoolConfig(**settings)  # type: ignore[arg-type]  # wrong on purpose


def test_an_unknown_acquisition_is_refused() -> None:
    with pytest.raises(ConfigError, match="'thompson'"):
        BayesianConfig(acquisition="luck")  # type: ignore[arg-type]  # wrong on purpose
