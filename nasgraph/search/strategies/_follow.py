"""A state that follows the observations of a study."""

from collections.abc import Callable
from typing import Generic, TypeVar

from nasgraph.search.experience import Experience, Observation

S = TypeVar("S")


class Follower(Generic[S]):
    """Keeps what a strategy has computed from the observations of one study, and shows it each new one once, in order.

    A new object that is given the whole experience at once ends in the same state, as long as `learn` depends on the
    state and the observation alone. Another study, told by another last observation or other known graphs, begins anew.

    Args:
        begin: Makes the state of a study without observations.
        learn: Changes the state by one observation.
    """

    def __init__(self, begin: Callable[[Experience], S], learn: Callable[[S, Observation], None]) -> None:
        self._begin = begin
        self._learn = learn
        self._state: S | None = None
        self._num_seen = 0
        self._last: Observation | None = None
        self._known: object = None

    def state(self, experience: Experience) -> S:
        """The state after all observations of an experience."""
        if self._state is None or not self._is_same_study(experience):
            self._state, self._num_seen, self._last = self._begin(experience), 0, None
            self._known = experience.known
        for place in range(self._num_seen, len(experience.observations)):
            self._last = experience.observations[place]
            self._learn(self._state, self._last)
        self._num_seen = len(experience.observations)
        return self._state

    def _is_same_study(self, experience: Experience) -> bool:
        if experience.known is not self._known or len(experience.observations) < self._num_seen:
            return False
        return self._num_seen == 0 or experience.observations[self._num_seen - 1] is self._last
