"""The candidates that a model-based sampler chooses from: a whole small space, or some of a large one, renewed as it goes on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from jaxtyping import Float

from nasgraph.errors import InvalidGraphError
from nasgraph.search.experience import Admits
from nasgraph.search.strategies.bayesian_columns import CandidateColumns
from nasgraph.seeding import generator
from nasgraph.spaces import (
    Candidate,
    Choice,
    ReplayChooser,
    SamplingChooser,
    SearchSpace,
    enumerate_candidates,
    realise,
    sample,
)
from nasgraph.spaces.choosers import PreferringChooser
from nasgraph.spaces.space import index_of

Array = np.ndarray
PROBES = 16
"""Random candidates that the size of a space is estimated from."""
SHARE_TWO = 0.25
"""Share of the mutations that change two choices rather than one."""
DRAWS_PER_ROW = 4
"""Random draws per row of a pool at most, where draws repeat each other or break a constraint."""


@dataclass(eq=False)
class CandidatePool:
    """Candidates with different graphs, and their descriptions.

    Attributes:
        space: Where they come from.
        candidates: One per row.
        is_whole: Whether these are all candidates of the space.
        columns: Describes candidates.
        place: Row of a graph by its fingerprint.
    """

    space: SearchSpace
    candidates: list[Candidate]
    is_whole: bool
    columns: CandidateColumns
    place: dict[str, int]
    _options: dict[str, Sequence[Choice]] = field(default_factory=dict, init=False)

    @staticmethod
    def of(
        space: SearchSpace, *, seed: int, size: int, enumerate_limit: int, admits: Admits
    ) -> "CandidatePool":
        """All candidates of a space that has at most `enumerate_limit`; otherwise `size` random ones.

        Candidates that `admits` refuses are left out, but columns are scaled by them too.
        """
        rng = generator(seed, "pool")
        found: dict[str, Candidate] = {}
        is_whole = _estimated_size(space, rng) <= 2 * enumerate_limit
        if is_whole:
            every = list(islice(enumerate_candidates(space), enumerate_limit + 1))
            is_whole = len(every) <= enumerate_limit
            found = (
                {candidate.graph.fingerprint: candidate for candidate in reversed(every)} if is_whole else {}
            )
        if not is_whole:
            found = _drawn(space, rng, size)
        good = [candidate for candidate in found.values() if admits(candidate.graph)]
        if not is_whole and len(good) < len(found):
            more = _drawn(space, rng, DRAWS_PER_ROW * size, so_far=found)
            good += [c for c in islice(more.values(), len(found), None) if admits(c.graph)][
                : size - len(good)
            ]
        columns = CandidateColumns.of(space, list(found.values()))
        place = {candidate.graph.fingerprint: row for row, candidate in enumerate(good)}
        return CandidatePool(space, good, is_whole, columns, place)

    def __len__(self) -> int:
        return len(self.candidates)

    def describe(self, candidates: Sequence[Candidate]) -> Float[Array, "candidates columns"]:
        """Their descriptions."""
        return self.columns(candidates)

    def add(self, candidates: Sequence[Candidate]) -> Float[Array, "candidates columns"]:
        """Add candidates with graphs that are not there yet. Returns their descriptions."""
        for candidate in candidates:
            self.place[candidate.graph.fingerprint] = len(self.candidates)
            self.candidates.append(candidate)
        return self.describe(candidates)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these, which take the places 0, 1, ..."""
        self.candidates = [self.candidates[row] for row in rows]
        self.place = {candidate.graph.fingerprint: row for row, candidate in enumerate(self.candidates)}

    def fresh(
        self,
        parents: Sequence[Candidate | None],
        rng: np.random.Generator,
        is_wanted: Callable[[Candidate], bool],
    ) -> list[Candidate]:
        """A mutation of every parent, one or two choices away, and a random candidate for every None; without those whose graph
        is in the pool, that are not wanted, or that cannot be built."""
        found: dict[str, Candidate] = {}
        for parent in parents:
            try:
                candidate = sample(self.space, rng) if parent is None else self._child(parent, rng)
            except InvalidGraphError:
                continue
            if candidate.graph.fingerprint not in self.place and is_wanted(candidate):
                found.setdefault(candidate.graph.fingerprint, candidate)
        return list(found.values())

    def _child(self, parent: Candidate, rng: np.random.Generator) -> Candidate:
        """As `nasgraph.spaces.mutate`, which builds the parent every time to learn what it was asked."""
        answers = dict(parent.architecture.choices)
        options = self._options_of(parent)
        count = min(len(options), 2 if rng.random() < SHARE_TWO else 1)
        for name in (
            [list(options)[i] for i in rng.choice(len(options), count, replace=False)] if options else ()
        ):
            others = [o for i, o in enumerate(options[name]) if i != index_of(options[name], answers[name])]
            answers[name] = others[int(rng.integers(len(others)))]
        return realise(self.space, PreferringChooser(answers, SamplingChooser(rng)))[0]

    def _options_of(self, candidate: Candidate) -> dict[str, Sequence[Choice]]:
        """What could be answered at each of its choices."""
        names = tuple(name for name, _ in candidate.architecture.choices)
        if any(name not in self._options for name in names):
            _, questions = realise(self.space, ReplayChooser(dict(candidate.architecture.choices)))
            self._options.update({question.name: question.options for question in questions})
        return {name: self._options[name] for name in names if len(self._options[name]) > 1}


def _estimated_size(space: SearchSpace, rng: np.random.Generator) -> float:
    """Number of architectures: the mean of one over the chance of random ones, which is right on average (Knuth 1975)."""
    sizes = []
    for _ in range(PROBES):
        _, questions = realise(space, SamplingChooser(rng))
        sizes.append(float(np.prod([float(len(question.options)) for question in questions])))
    return float(np.mean(sizes))


def _drawn(
    space: SearchSpace, rng: np.random.Generator, size: int, so_far: dict[str, Candidate] | None = None
) -> dict[str, Candidate]:
    """Up to so many random candidates with different graphs; `so_far` come first."""
    found = dict(so_far or {})
    for candidate in _random(space, rng, DRAWS_PER_ROW * size):
        if len(found) >= size:
            break
        found.setdefault(candidate.graph.fingerprint, candidate)
    return found


def _random(space: SearchSpace, rng: np.random.Generator, count: int) -> Iterator[Candidate]:
    for _ in range(count):
        try:
            yield sample(space, rng)
        except InvalidGraphError:
            continue
