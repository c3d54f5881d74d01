"""A generative flow network that learns from the order of observations, for sets of good and different architectures."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from nasgraph.errors import ConfigError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.strategies._draws import Draws
from nasgraph.search.strategies._follow import Follower
from nasgraph.search.strategies._gains import WORST, gains_of
from nasgraph.search.strategies._policy import RecurrentPolicy, Trajectory, policy_draws
from nasgraph.seeding import generator
from nasgraph.spaces import Candidate, SearchSpace

Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class GFlowNetConfig:
    """Settings of a flow network.

    Attributes:
        num_initial: Observations before it learns; until then it draws uniformly.
        groups: Groups of observations that each step compares.
        group_size: Observations in a group; the best of each are made likely among its members. Larger groups concentrate on fewer
            architectures.
        hidden_dim: Size of the policy's state.
        learning_rate: Of Adam.
        explore: Chance of a uniform answer at each question, in [0, 1].
        max_draws: Draws from the policy until one is new; after them, changes of one choice of the last.

    Raises:
        ConfigError: If a number is out of its range.
    """

    num_initial: int = 20
    groups: int = 4
    group_size: int = 8
    hidden_dim: int = 24
    learning_rate: float = 0.03
    explore: float = 0.05
    max_draws: int = 8

    def __post_init__(self) -> None:
        if min(self.groups, self.hidden_dim, self.max_draws, self.num_initial) < 1 or self.group_size < 2:
            raise ConfigError(
                "Expected 'num_initial', 'groups', 'hidden_dim' and 'max_draws' of at least 1, and 'group_size' of at "
                f"least 2 (got {self.num_initial}, {self.groups}, {self.hidden_dim}, {self.max_draws} and "
                f"{self.group_size})"
            )
        if self.learning_rate <= 0 or not 0 <= self.explore <= 1:
            raise ConfigError(
                "Expected 'learning_rate' above 0 and 'explore' from 0 to 1 "
                f"(got {self.learning_rate} and {self.explore})"
            )


@dataclass(eq=False)
class _State:
    draws: Draws
    policy: RecurrentPolicy
    num_objectives: int
    trajectories: list[Trajectory] = field(default_factory=list)
    gains: list[tuple[float, ...]] = field(default_factory=list)


class OrderPreservingGFlowNet(ArchitectureSampler):
    """An order-preserving generative flow network (Chen and Mauch, "Order-Preserving GFlowNets", 2024, section 3).

    It draws an architecture x with a probability in proportion to a reward R(x) that is learnt such that its order is that of
    the objectives: in each of some groups drawn from the observations, the cross entropy between R, normalised in the group,
    and the uniform distribution over those that no member of the group dominates (so it takes several objectives as they are).

    The states are the answers so far. As questions are asked in order, each state is reached in one way: they form a tree,
    the backward policy is certain, and trajectory balance (Malkin et al. 2022) reads Z P(x) = R(x), with P(x) the product of
    the probabilities of the answers. So the learnt reward is parametrised by the policy itself, no second loss is needed, and Z
    cancels in the group. A graph that several architectures share is drawn with the sum of their probabilities.

    It samples in proportion to a learnt reward instead of climbing. On NAS-Bench-201 its best graphs were not more diverse than those of evolution.

    Args:
        space: What is searched.
        seed: Decides everything random, together with the number of the trial.
        config: Settings.
    """

    def __init__(self, space: SearchSpace, *, seed: int, config: GFlowNetConfig = GFlowNetConfig()) -> None:
        super().__init__(space, seed=seed)
        self.config = config
        self._follower = Follower(self._begin, self._learn)

    def propose(self, experience: Experience, *, number: int, attempt: int = 0) -> Candidate:
        """A draw from the policy whose graph is new."""
        state = self._follower.state(experience)
        rng = generator(self.seed, "gflownet", number, attempt)
        return state.draws.first_new(
            policy_draws(
                state.draws, state.policy, rng, max_draws=self.config.max_draws, explore=self.config.explore
            )
        )

    def _begin(self, experience: Experience) -> _State:
        policy = RecurrentPolicy(
            self.seed, hidden_dim=self.config.hidden_dim, learning_rate=self.config.learning_rate
        )
        return _State(Draws(self.space, experience), policy, experience.num_objectives)

    def _learn(self, state: _State, observation: Observation) -> None:
        questions = state.draws.questions(observation.candidate.architecture)
        state.trajectories.append(state.policy.trajectory(questions))
        state.gains.append(gains_of(observation, state.num_objectives))
        total = len(state.gains)
        if total < max(self.config.num_initial, self.config.group_size):
            return
        rng = generator(self.seed, "gflownet groups", total)
        places = rng.integers(total, size=(self.config.groups, self.config.group_size))
        places[0, 0] = total - 1  # the newest is looked at once at least
        gains = np.array([state.gains[place] for place in places.flat]).reshape(*places.shape, -1)
        trajectories = [state.trajectories[place] for place in places.flat]

        def weigh(log_likelihoods: Float[Array, " trajectories"]) -> Float[Array, " trajectories"]:
            return order_weights(gains, log_likelihoods.reshape(places.shape)).ravel() / len(places)

        state.policy.ascend(trajectories, weigh)


def order_weights(
    gains: Float[Array, "groups members objectives"], log_rewards: Float[Array, "groups members"]
) -> Float[Array, "groups members"]:
    """How the order-preserving loss falls with each logarithm of a reward: minus its gradient.

    The target of a group is uniform over the members that none of it dominates; a group without a finite gain has none.
    """
    no_worse = np.all(gains[:, :, None, :] >= gains[:, None, :, :], axis=3)
    is_dominated = np.any(no_worse & ~np.swapaxes(no_worse, 1, 2), axis=1)
    is_best = ~is_dominated & (gains > WORST).all(axis=2)
    num_best = is_best.sum(axis=1, keepdims=True)
    target = is_best / np.maximum(num_best, 1)
    share = np.exp(log_rewards - log_rewards.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    return np.asarray(np.where(num_best > 0, target - share, 0.0))
