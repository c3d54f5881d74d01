"""Hard constraints on what a candidate costs, checked on its graph before anything is built.

    num_parameters<=1e6      multiply_adds < 200M      latency:pixel3<=5      depth>=4

Suffixes of numbers are decimal: k, M, G, T.
"""

import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from nasgraph.errors import ConfigError, InvalidGraphError, NasGraphError
from nasgraph.evaluate.costs import GRAPH_COSTS, GraphCosts
from nasgraph.ir import ComputationalGraph
from nasgraph.seeding import generator
from nasgraph.spaces import Candidate, SearchSpace, sample

RELATIONS: Mapping[str, Callable[[float, float], bool]] = MappingProxyType(
    {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
)
SUFFIXES: Mapping[str, float] = MappingProxyType({"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12})
MAX_DRAWS = 1000
"""Draws after which constraints that admitted nothing count as unsatisfiable."""
_TEXT = re.compile(
    r"(?P<metric>[^<>=\s]+)\s*(?P<relation><=|>=|<|>)\s*(?P<number>[^<>=\s]+?)\s*(?P<suffix>[kMGT]?)"
)


class UnsatisfiableError(NasGraphError, ValueError):
    """No candidate keeps the constraints. The text names the constraint that refused most, and how near one came."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """One bound on one cost.

    Attributes:
        metric: Name of a cost, see `nasgraph.evaluate.costs`.
        relation: One of `RELATIONS`.
        bound: The number to compare with.

    Raises:
        ConfigError: If the relation is unknown or the bound is not finite.
    """

    metric: str
    relation: str
    bound: float

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            raise ConfigError(f"Expected one of {', '.join(RELATIONS)} (got {self.relation!r})")
        if not math.isfinite(self.bound):
            raise ConfigError(f"Expected a finite bound on '{self.metric}' (got {self.bound})")

    def holds(self, value: float) -> bool:
        """Whether a value keeps the bound. NaN, a cost that is not known, does not."""
        return RELATIONS[self.relation](value, self.bound)

    @property
    def is_upper(self) -> bool:
        """Whether it bounds from above."""
        return self.relation.startswith("<")

    def nearer(self, first: float, second: float) -> float:
        """Of two values the one that is nearer to keeping the bound; NaN only if both are."""
        if math.isnan(first) or math.isnan(second):
            return second if math.isnan(first) else first
        return min(first, second) if self.is_upper else max(first, second)

    def __str__(self) -> str:
        """Text that `parse_constraint` reads back."""
        return f"{self.metric}{self.relation}{self.bound:.17g}"


@dataclass(frozen=True, slots=True)
class Violation:
    """A constraint that a graph breaks, and the value that breaks it. Its text is one clause for a user."""

    constraint: Constraint
    value: float

    def __str__(self) -> str:
        return f"{self.constraint.metric} is {self.value:.6g}, not {self.constraint.relation} {self.constraint.bound:.6g}"


def parse_constraint(text: str) -> Constraint:
    """Read `METRIC<=NUMBER`, with <=, <, >= or > and an optional suffix k, M, G or T.

    Raises:
        ConfigError: If the text is no such thing.
    """
    match = _TEXT.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        bound = float(match["number"]) * SUFFIXES[match["suffix"]]
    except ValueError:
        raise ConfigError(
            f"Expected a constraint such as 'num_parameters<=1e6' or 'multiply_adds<200M' (got '{text}')"
        ) from None
    return Constraint(match["metric"], match["relation"], bound)


@dataclass(frozen=True)
class Constraints:
    """Hard constraints on graphs. Called with a graph it says whether the graph keeps them: `Experience.admits`.

    What the graph alone decides is looked at first; a predictor, a table or a measurement is asked only for graphs that pass it.

    Attributes:
        constraints: The bounds, all of which must hold.
        costs: Knows the costs.

    Raises:
        UnknownNameError: If a cost is not known.
        ConfigError: If two bounds contradict each other.
    """

    constraints: tuple[Constraint, ...] = ()
    costs: GraphCosts = field(default_factory=GraphCosts)

    def __post_init__(self) -> None:
        self.costs.check([constraint.metric for constraint in self.constraints])
        for upper in self.constraints:
            for lower in self.constraints:
                if (
                    upper.metric == lower.metric
                    and upper.is_upper
                    and not lower.is_upper
                    and _exclude(upper, lower)
                ):
                    raise ConfigError(f"The constraints contradict each other: '{lower}' and '{upper}'")

    def __call__(self, graph: ComputationalGraph) -> bool:
        """Whether a graph keeps all constraints. Stops at the first that it breaks."""
        return all(
            constraint.holds(self.costs.of([graph], constraint.metric)[0]) for constraint in self._in_order
        )

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.constraints)

    def violations(self, graph: ComputationalGraph) -> tuple[Violation, ...]:
        """Every constraint that a graph breaks, with its value."""
        values = [(each, self.costs.of([graph], each.metric)[0]) for each in self.constraints]
        return tuple(
            Violation(constraint, value) for constraint, value in values if not constraint.holds(value)
        )

    def check(self, graph: ComputationalGraph) -> None:
        """Raise `UnsatisfiableError` that names all constraints that a graph breaks, if it breaks any."""
        found = self.violations(graph)
        if found:
            raise UnsatisfiableError(
                f"The candidate breaks {len(found)} constraints: {'; '.join(map(str, found))}"
            )

    @property
    def _in_order(self) -> tuple[Constraint, ...]:
        return tuple(sorted(self.constraints, key=lambda each: each.metric not in GRAPH_COSTS))


def parse_constraints(texts: str | Sequence[str], *, costs: GraphCosts | None = None) -> Constraints:
    """Read several constraints, separated by commas if they are one text. See `Constraints` for what is refused."""
    parts = [part for part in texts.split(",") if part.strip()] if isinstance(texts, str) else list(texts)
    return Constraints(tuple(parse_constraint(part) for part in parts), costs or GraphCosts())


class Refusals:
    """Counts what constraints refuse, for the message when they refuse everything.

    Args:
        constraints: The constraints.
    """

    def __init__(self, constraints: Constraints) -> None:
        self._constraints = constraints
        self._refused: Counter[Constraint] = Counter()
        self._nearest: dict[Constraint, float] = {}
        self.num_graphs = 0

    def admits(self, graph: ComputationalGraph) -> bool:
        """Whether a graph keeps the constraints; notes what it breaks."""
        found = self._constraints.violations(graph)
        self.num_graphs += 1
        for violation in found:
            self._refused[violation.constraint] += 1
            nearest = self._nearest.get(violation.constraint, math.nan)
            self._nearest[violation.constraint] = violation.constraint.nearer(nearest, violation.value)
        return not found

    def error(self, space: SearchSpace) -> UnsatisfiableError:
        """The error to raise if nothing was admitted."""
        if not self._refused:
            return UnsatisfiableError(f"The space '{space.name}' gave no graph to check the constraints on")
        constraint, times = self._refused.most_common(1)[0]
        nearest, word = self._nearest[constraint], "smallest" if constraint.is_upper else "largest"
        seen = (
            "its value was never known" if math.isnan(nearest) else f"the {word} value seen was {nearest:.6g}"
        )
        return UnsatisfiableError(
            f"None of {self.num_graphs} random candidates of the space '{space.name}' keeps the constraints. Most were refused by "
            f"'{constraint.metric} {constraint.relation} {constraint.bound:.6g}' ({times} of {self.num_graphs}); {seen}. "
            "Loosen it, or search another space"
        )


def sample_admitted(
    space: SearchSpace,
    constraints: Constraints,
    *,
    seed: int,
    labels: Sequence[str | int] = (),
    known: Container[str] = frozenset(),
    max_draws: int = MAX_DRAWS,
) -> Candidate | None:
    """A random candidate that keeps the constraints and is not known yet: the same for equal arguments.

    Args:
        space: What is sampled.
        constraints: What must hold.
        seed: Decides the draws, together with `labels`, such as the number of a trial.
        labels: See `seed`.
        known: Fingerprints that are not wanted.
        max_draws: Draws after which to give up.

    Returns:
        The candidate; None if candidates keep the constraints, but all that were drawn are known.

    Raises:
        UnsatisfiableError: If no draw keeps the constraints.
        NasGraphError: If no draw gives a valid graph.
    """
    refusals, reason = Refusals(constraints), ""
    any_admitted = False
    for draw in range(max_draws):
        try:
            candidate = sample(space, generator(seed, "admitted", *labels, draw))
        except InvalidGraphError as error:
            reason = str(error)
            continue
        if not refusals.admits(candidate.graph):
            continue
        any_admitted = True
        if candidate.graph.fingerprint not in known:
            return candidate
    if any_admitted:
        return None
    if refusals.num_graphs == 0:
        raise NasGraphError(f"The space '{space.name}' gives no valid graph: {reason}")
    raise refusals.error(space)


def _exclude(upper: Constraint, lower: Constraint) -> bool:
    """Whether no number keeps both an upper and a lower bound."""
    strict = upper.relation == "<" or lower.relation == ">"
    return upper.bound < lower.bound or (strict and upper.bound == lower.bound)
