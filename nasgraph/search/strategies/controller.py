"""A controller that learns by policy gradient which choices to make."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from nasgraph.errors import ConfigError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience, Observation
from nasgraph.search.strategies._draws import Draws
from nasgraph.search.strategies._follow import Follower
from nasgraph.search.strategies._gains import WORST, draw_weights, gains_of, scalar_gains
from nasgraph.search.strategies._policy import RecurrentPolicy, Trajectory, policy_draws
from nasgraph.seeding import generator
from nasgraph.spaces import Candidate, SearchSpace

Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerConfig:
    """Settings of a controller.

    Attributes:
        batch: Observations from which one step is made.
        window: Latest observations among which those of a batch are ranked.
        hidden_dim: Size of the policy's state.
        learning_rate: Of Adam.
        entropy: Weight of the entropy bonus.
        baseline_decay: Share of the moving baseline that a batch leaves, in [0, 1).
        max_draws: Draws from the policy until one is new; after them, changes of one choice of the last.

    Raises:
        ConfigError: If a number is out of its range.
    """

    batch: int = 8
    window: int = 200
    hidden_dim: int = 24
    learning_rate: float = 0.1
    entropy: float = 0.03
    baseline_decay: float = 0.8
    max_draws: int = 8

    def __post_init__(self) -> None:
        if min(self.batch, self.hidden_dim, self.max_draws) < 1 or self.window < self.batch:
            raise ConfigError(
                "Expected 'batch', 'hidden_dim' and 'max_draws' of at least 1, and 'window' of at least 'batch' "
                f"(got {self.batch}, {self.hidden_dim}, {self.max_draws} and {self.window})"
            )
        if self.learning_rate <= 0 or self.entropy < 0 or not 0 <= self.baseline_decay < 1:
            raise ConfigError(
                "Expected 'learning_rate' above 0, 'entropy' of at least 0 and 'baseline_decay' from 0 to below 1 "
                f"(got {self.learning_rate}, {self.entropy} and {self.baseline_decay})"
            )


@dataclass(eq=False)
class _State:
    draws: Draws
    policy: RecurrentPolicy
    num_objectives: int
    window: deque[tuple[float, ...]]
    batch: list[Trajectory] = field(default_factory=list)
    baseline: float = 0.5
    num_steps: int = 0


class Controller(ArchitectureSampler):
    """REINFORCE (Williams 1992) on a recurrent policy that answers the questions of the space, as in Zoph and Le, "Neural
    Architecture Search with Reinforcement Learning", 2017, section 3.2, with the entropy bonus of ENAS (Pham et al. 2018).

    The reward of an observation is the share of the latest ones that it is better than, so that neither the unit nor the
    spread of the objective matters; what failed or was pruned has none. Several objectives are ranked by a scalar with weights
    drawn for each batch. Batches are made in the order of the observations, whoever proposed them: as graphs are not
    evaluated twice, and other trials may be enqueued, they are not exactly draws from the policy, which the
    gradient ignores.

    Meant as the baseline that it is in the literature; `RegularisedEvolution` and `LocalSearch` need fewer trials.

    Args:
        space: What is searched.
        seed: Decides everything random, together with the number of the trial.
        config: Settings.
    """

    def __init__(
        self, space: SearchSpace, *, seed: int, config: ControllerConfig = ControllerConfig()
    ) -> None:
        super().__init__(space, seed=seed)
        self.config = config
        self._follower = Follower(self._begin, self._learn)

    def propose(self, experience: Experience, *, number: int, attempt: int = 0) -> Candidate:
        """A draw from the policy whose graph is new."""
        state = self._follower.state(experience)
        rng = generator(self.seed, "controller", number, attempt)
        return state.draws.first_new(
            policy_draws(state.draws, state.policy, rng, max_draws=self.config.max_draws)
        )

    def _begin(self, experience: Experience) -> _State:
        policy = RecurrentPolicy(
            self.seed, hidden_dim=self.config.hidden_dim, learning_rate=self.config.learning_rate
        )
        window: deque[tuple[float, ...]] = deque(maxlen=self.config.window)
        return _State(Draws(self.space, experience), policy, experience.num_objectives, window)

    def _learn(self, state: _State, observation: Observation) -> None:
        questions = state.draws.questions(observation.candidate.architecture)
        state.batch.append(state.policy.trajectory(questions))
        state.window.append(gains_of(observation, state.num_objectives))
        if len(state.batch) < self.config.batch:
            return
        weights = draw_weights(
            state.num_objectives, generator(self.seed, "controller weights", state.num_steps)
        )
        rewards = _rewards(scalar_gains(np.array(state.window), weights))[-len(state.batch) :]
        advantages = (rewards - state.baseline) / len(rewards)
        state.policy.ascend(state.batch, lambda _: advantages, entropy=self.config.entropy)
        decay = self.config.baseline_decay
        state.baseline = decay * state.baseline + (1 - decay) * float(rewards.mean())
        state.num_steps += 1
        state.batch = []


def _rewards(scalar: Float[Array, " observations"]) -> Float[Array, " observations"]:
    """The share of the others that each is better than; half of those that it equals."""
    order = np.sort(scalar)
    below = np.searchsorted(order, scalar, side="left")
    not_above = np.searchsorted(order, scalar, side="right")
    rewards = (below + not_above - 1) / 2 / max(len(scalar) - 1, 1)
    return np.where(scalar == WORST, 0.0, rewards)
