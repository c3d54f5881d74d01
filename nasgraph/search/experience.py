"""What a search has seen so far: all that a proposal may depend on, beside the seed and the number of the trial."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

from nasgraph.ir import ComputationalGraph
from nasgraph.search.records import TrialState
from nasgraph.spaces import Candidate, SearchSpace

Admits = Callable[[ComputationalGraph], bool]
"""Whether a graph keeps the hard constraints, which are known before anything is built."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One finished trial that evaluated a graph of its own.

    Attributes:
        number: Number of the Optuna trial.
        candidate: What was evaluated.
        state: How it ended.
        gains: One number per objective, turned so that higher is better; empty unless the trial is complete, for nobody
            knows what a failed one is worth, and what a pruned one reached is no final value.
        last_report: For a pruned trial, the objective when it was stopped; None otherwise.
    """

    number: int
    candidate: Candidate
    state: TrialState
    gains: tuple[float, ...]
    last_report: float | None = None

    @property
    def gain(self) -> float:
        """The first objective, higher is better; minus infinity unless the trial is complete."""
        return self.gains[0] if self.gains else float("-inf")


@dataclass(eq=False)
class Experience:
    """The finished trials that a proposal may know, and those that are underway.

    In a search with several workers, a proposal does not see the trials right before it, whose end depends on the
    machine; see `SearchConfig.ahead`.

    Attributes:
        space: What is searched.
        num_objectives: Length of `Observation.gains`.
        observations: What was seen. It only grows: what was at a place once stays there, so that a sampler may remember
            how far it has read. By rising number in a search with one driver.
        pending: Candidates whose trials are underway, or whose results may not be seen yet.
        known: Fingerprints of all graphs that were proposed; one of these is not evaluated again.
        admits: Whether a graph keeps the hard constraints.
    """

    space: SearchSpace
    num_objectives: int = 1
    observations: Sequence[Observation] = field(default_factory=list)
    pending: Sequence[Candidate] = ()
    known: Container[str] = frozenset()
    admits: Admits = lambda graph: True  # noqa: ARG005

    def is_new(self, graph: ComputationalGraph) -> bool:
        """Whether a graph was not proposed before, and keeps the constraints."""
        return graph.fingerprint not in self.known and self.admits(graph)
