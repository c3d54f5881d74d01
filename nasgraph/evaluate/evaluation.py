"""What a measurement of one candidate is, and what it returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from nasgraph.ir import ComputationalGraph

KeepGoing = Callable[[int, float], bool]
"""Asked after each step of a measurement with the step and the value of the objective so far. False: stop."""


@dataclass(frozen=True)
class Evaluation:
    """Result of measuring one candidate.

    Attributes:
        objective: Name of the metric in `metrics` that a search optimises. Higher is better.
        metrics: Final numbers by name, such as `val_accuracy` in [0, 1], `val_loss`, `train_seconds`.
        curve: The objective after each step, in order; empty if there is one step only.
        seed: Seed that the measurement was made with.
        stopped_early: Whether `keep_going` ended the measurement before its full length.
        state: Trained parameters and buffers by name, as the built module's `state_dict` has them; empty for
            measurements that train nothing.
    """

    objective: str
    metrics: Mapping[str, float]
    curve: tuple[float, ...]
    seed: int
    stopped_early: bool = False
    state: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def value(self) -> float:
        """The objective's final value."""
        return self.metrics[self.objective]


@runtime_checkable  # so that the type checker of the tests can look
class Evaluator(Protocol):
    """Measures one candidate. Called once per trial, by one thread at a time; must not change the graph.

    A candidate that cannot be measured raises: `CandidateError` with a reason, or any other exception. The search
    records the reason as that trial's failure and goes on.
    """

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        """Measure `graph`. Equal arguments give an equal result on one machine."""


@runtime_checkable
class InheritingEvaluator(Protocol):
    """An evaluator that keeps what a candidate learnt, and can start another candidate from it."""

    def from_parent(self, parent: str) -> Evaluator:
        """The evaluator that starts from what the graph with the fingerprint `parent` learnt; from random weights if that is
        gone, with a warning. Whether it was there is part of its result: `inherited_share`."""


def never_stop(step: int, value: float) -> bool:  # noqa: ARG001  the signature of KeepGoing
    """A `keep_going` that lets every measurement run to its end."""
    return True
