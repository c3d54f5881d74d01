"""Strategies that search a table, by name: random, evolution, local search, Bayesian, RoBoT.

None of them knows more than a `SearchView` and the values of the rows that it asked for.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

import numpy as np
from jaxtyping import Float

from nasgraph.errors import ConfigError
from nasgraph.evaluate.table import TableError
from nasgraph.evaluate.table_bayesian import bayesian
from nasgraph.evaluate.table_strategy import (
    OpenRows,
    Places,
    SearchView,
    SeededStrategy,
    Strategy,
    StrategyFactory,
)
from nasgraph.plugins import load_callable, plugin_names
from nasgraph.predict.robot import robot_search
from nasgraph.seeding import generator

Array = np.ndarray
GROUP = "nasgraph.strategies"


# ---- random


@dataclass(eq=False)
class RandomStrategy:
    """Every row with the same chance, without replacement. `Strategy`.

    Attributes:
        order: All rows in the order in which they are asked for.
    """

    order: Places
    _asked: int = 0

    def ask(self) -> Sequence[int]:
        """The next row."""
        self._asked += 1
        return [int(self.order[self._asked - 1])]

    def tell(self, rows: Sequence[int], values: Sequence[float]) -> None:
        """Learn nothing."""


def random_rows(view: SearchView) -> SeededStrategy:
    """Random search, which every other strategy is compared with."""
    return lambda seed: RandomStrategy(generator(seed, "random search").permutation(len(view)))


# ---- neighbours


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolutionConfig:
    """Settings of an evolution.

    Attributes:
        population: Members at a time; the first are drawn at random.
        sample: Members that a parent is the best of.
        max_steps: Changes of one choice after which a child that is known already gives way to a random row.

    Raises:
        ConfigError: If a number is below 1, or the sample is larger than the population.
    """

    population: int = 10
    sample: int = 3
    max_steps: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.sample <= self.population or self.max_steps < 1:
            raise ConfigError(
                "Expected 'sample' from 1 to 'population' and 'max_steps' of at least 1 "
                f"(got {self.sample}, {self.population} and {self.max_steps})"
            )


@dataclass(eq=False)
class EvolutionStrategy:
    """Regularised evolution (Real et al., "Regularized Evolution for Image Classifier Architecture Search", 2019, Algorithm 1).

    A child is a neighbour of the best of some members; the oldest member dies. As rows are not queried twice, a child that is
    known is changed again, and again. `Strategy`.
    """

    view: SearchView
    config: EvolutionConfig
    rng: np.random.Generator
    _open: OpenRows = field(init=False)
    _members: deque[tuple[int, float]] = field(init=False)

    def __post_init__(self) -> None:
        self._open, self._members = OpenRows.all_of(self.view), deque(maxlen=self.config.population)

    def ask(self) -> Sequence[int]:
        """A random row while the population grows, then a child."""
        grown = len(self._members) == self.config.population
        return [self._open.take(self._child() if grown else self._open.draw(self.rng))]

    def tell(self, rows: Sequence[int], values: Sequence[float]) -> None:
        """The youngest members."""
        self._members.extend(zip(rows, values, strict=True))

    def _child(self) -> int:
        sampled = self.rng.choice(len(self._members), size=self.config.sample, replace=False)
        row, _ = max((self._members[int(place)] for place in sampled), key=lambda member: member[1])
        for _ in range(self.config.max_steps):
            near = self.view.neighbours(row)
            if not len(near):
                break
            row = int(self.rng.choice(near))
            if self._open.is_open[row]:
                return row
        return self._open.draw(self.rng)


def evolution(view: SearchView, *, config: EvolutionConfig = EvolutionConfig()) -> SeededStrategy:
    """Regularised evolution over the neighbours of a view."""
    _ = view.neighbours  # prepared here, once
    return lambda seed: EvolutionStrategy(view, config, generator(seed, "evolution"))


@dataclass(eq=False)
class LocalSearchStrategy:
    """Local search with restarts: query neighbours in random order, and move to the first that is better (White et al.,
    "Exploring the Loss Landscape in Neural Architecture Search", 2021, who look at all before they move). Where no
    neighbour is better, begin anew from a random row. `Strategy`.
    """

    view: SearchView
    rng: np.random.Generator
    _open: OpenRows = field(init=False)
    _best: float = -math.inf
    _waiting: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._open = OpenRows.all_of(self.view)

    def ask(self) -> Sequence[int]:
        """The next neighbour, or a random row."""
        if not self._waiting:
            self._best = -math.inf
            return [self._open.take(self._open.draw(self.rng))]
        return [self._open.take(self._waiting.pop())]

    def tell(self, rows: Sequence[int], values: Sequence[float]) -> None:
        """Move if it is better."""
        for row, value in zip(rows, values, strict=True):
            if value > self._best:
                self._best = value
                near = self._open.among(self.view.neighbours(row))
                self._waiting = self.rng.permutation(near).tolist()


def local_search(view: SearchView) -> SeededStrategy:
    """Local search over the neighbours of a view."""
    _ = view.neighbours
    return lambda seed: LocalSearchStrategy(view, generator(seed, "local search"))


# ---- searches that call back


@dataclass(eq=False)
class CalledBackStrategy:
    """A search that asks by calling a function, turned round: it runs in a thread that waits for each answer. `Strategy`.

    Each waits for the other, so the result is that of calling the search directly. An exception of the search is raised by `ask`.

    Attributes:
        search: Is given the function that returns the value of a row. Never asks for a row twice.
    """

    search: Callable[[Callable[[int], float]], object]
    _rows: SimpleQueue[int | BaseException] = field(default_factory=SimpleQueue, init=False)
    _answers: SimpleQueue[float] = field(default_factory=SimpleQueue, init=False)
    _is_running: bool = field(default=False, init=False)

    def ask(self) -> Sequence[int]:
        """The next row that the search wants to know.

        Raises:
            TableError: If the search has ended.
        """
        if not self._is_running:
            self._is_running = True
            threading.Thread(target=self._run, daemon=True).start()
        row = self._rows.get()
        if isinstance(row, BaseException):
            raise row
        return [row]

    def tell(self, rows: Sequence[int], values: Sequence[float]) -> None:
        """Answer, and let the search go on."""
        del rows
        for value in values:
            self._answers.put(value)

    def _query(self, row: int) -> float:
        self._rows.put(row)
        return self._answers.get()

    def _run(self) -> None:
        try:
            self.search(self._query)
        except BaseException as error:  # noqa: BLE001  raised again by whoever asks
            self._rows.put(error)
        else:
            self._rows.put(TableError("The search has ended before all queries were spent"))


def robot(view: SearchView) -> SeededStrategy:
    """RoBoT over the side columns of a view (`robot_search`), whatever end of them is better.

    Raises:
        TableError: If there are no side columns.
    """
    side = view.rows.side
    useful = [
        place for place in range(side.shape[1]) if len(np.unique(side[~np.isnan(side[:, place]), place])) > 1
    ]
    if not useful:
        raise TableError(
            "RoBoT weighs columns that are known without training, and it may see none that varies. Allow some, such as "
            "with '--side training-free'"
        )
    scores = side[:, useful]

    def begin(seed: int) -> Strategy:
        return CalledBackStrategy(
            partial(_robot_search, scores=scores, num_queries=view.num_queries, seed=seed)
        )

    return begin


def _robot_search(
    query: Callable[[int], float], *, scores: Float[Array, "rows columns"], num_queries: int, seed: int
) -> None:
    robot_search(scores, query, num_queries=num_queries, seed=seed)


# ---- names

STRATEGIES: Mapping[str, StrategyFactory] = {
    "random": random_rows,
    "evolution": evolution,
    "local_search": local_search,
    "bayesian": bayesian,
    "robot": robot,
}
"""Every strategy by its name. Plug-ins in the entry-point group `nasgraph.strategies` come beside these: each is a
`StrategyFactory`."""
DEFAULT_STRATEGY = "bayesian"


def strategy_names() -> tuple[str, ...]:
    """Names of all strategies, plug-ins among them, sorted."""
    return tuple(sorted({*STRATEGIES, *plugin_names(GROUP)}))


def load_strategy(name: str) -> StrategyFactory:
    """The strategy of a name.

    Raises:
        UnknownNameError: If there is none; the message offers close ones.
        NasGraphError: If a plug-in cannot be called.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    factory: StrategyFactory = load_callable(
        GROUP, name, kind="strategy", called_with="a view", shipped=STRATEGIES
    )
    return factory
