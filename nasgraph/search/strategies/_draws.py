"""Drawing candidates whose graphs are new, with as few builds as possible: building a graph is what costs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nasgraph.errors import InvalidGraphError
from nasgraph.search.experience import Experience
from nasgraph.spaces import (
    Architecture,
    Candidate,
    Choice,
    Chooser,
    Question,
    ReplayChooser,
    SamplingChooser,
    SearchSpace,
    enumerate_candidates,
    realise,
)
from nasgraph.spaces.choosers import PreferringChooser
from nasgraph.spaces.space import index_of

MAX_ENUMERATED = 1024
"""When no draw gives a new graph: as many candidates of the space, from its first, are looked through."""
MAX_REMEMBERED = 50_000

_Choices = tuple[tuple[str, Choice], ...]


@dataclass(frozen=True, slots=True)
class Draw:
    """An architecture that was drawn.

    Attributes:
        architecture: What was drawn.
        candidate: The same with its graph; None if it was refused without a build.
        preferred: The answers that led here, if nothing was random.
    """

    architecture: Architecture
    candidate: Candidate | None
    preferred: _Choices | None = None


class Draws:
    """Draws candidates of one space for one study.

    What it remembers saves builds and changes no result: the options of a question, which a space always asks alike; and the
    fingerprints of architectures, so that one with a known graph is refused unbuilt.

    Args:
        space: What is searched.
        experience: Says which graphs are new. A graph that is not, never becomes so.
    """

    def __init__(self, space: SearchSpace, experience: Experience) -> None:
        self.space = space
        self._experience = experience
        self._options: dict[str, Sequence[Choice]] = {}
        self._remembered: dict[_Choices, tuple[Architecture, str]] = {}
        self._barred: set[str] = set()
        self._enumeration = enumerate_candidates(space)
        self._num_enumerated = 0
        self._enumerated: Candidate | None = None

    # ---- one candidate

    def questions(self, architecture: Architecture) -> tuple[Question, ...]:
        """The questions that an architecture answers."""
        if any(name not in self._options for name, _ in architecture.choices):
            self._build(ReplayChooser(dict(architecture.choices)))
        return tuple(Question(name, self._options[name], answer) for name, answer in architecture.choices)

    def realise(self, preferred: Mapping[str, Choice], rng: np.random.Generator) -> Draw | None:
        """The candidate with the preferred answers, and random ones where there is none; None if its graph is invalid."""
        key = tuple(sorted(preferred.items(), key=lambda item: item[0]))
        remembered = self._remembered.get(key)
        if remembered is not None and self._is_refused(remembered[1]):
            return Draw(remembered[0], None)
        draw = self.build(PreferringChooser(preferred, SamplingChooser(rng)))
        if draw is None or any(preferred.get(name) != answer for name, answer in draw.architecture.choices):
            return draw
        return Draw(draw.architecture, draw.candidate, key)

    def build(self, choose: Chooser) -> Draw | None:
        """The candidate of a chooser; None if its graph is invalid."""
        try:
            candidate = self._build(choose)
        except InvalidGraphError:
            return None
        return Draw(candidate.architecture, candidate)

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Draw | None:
        """Another answer to one question, drawn from those with several; unchanged if there is none."""
        preferred = dict(architecture.choices)
        open_questions = [q for q in self.questions(architecture) if len(q.options) > 1]
        if open_questions:
            question = open_questions[int(rng.integers(len(open_questions)))]
            preferred[question.name] = other_answer(question, rng)
        return self.realise(preferred, rng)

    # ---- streams of candidates

    def random(self, rng: np.random.Generator, *, tries: int) -> Iterator[Draw | None]:
        """Uniform draws."""
        for _ in range(tries):
            yield self.realise({}, rng)

    def walk(self, start: Draw | None, rng: np.random.Generator, *, steps: int) -> Iterator[Draw | None]:
        """A draw, and a walk from it that changes one choice at a time."""
        yield start
        here = start
        for _ in range(steps if start is not None else 0):
            assert here is not None
            step = self.mutate(here.architecture, rng)
            yield step
            here = step or here

    def first_new(self, draws: Iterable[Draw | None]) -> Candidate:
        """The first whose graph is new. If none is: one of the first candidates of the space; if these are known too, the
        last that was drawn.

        Raises:
            InvalidGraphError: If there is no valid graph at all.
        """
        last: Draw | None = None
        for draw in draws:
            if draw is not None and draw.candidate is not None:
                self._remember(draw, draw.candidate)
                if self._is_new(draw.candidate):
                    return draw.candidate
            last = draw or last
        found = self._next_enumerated()
        if found is not None:
            return found
        if last is None:
            raise InvalidGraphError(f"No draw from the space '{self.space.name}' gives a valid graph")
        return last.candidate or self._build(ReplayChooser(dict(last.architecture.choices)))

    def _next_enumerated(self) -> Candidate | None:
        while self._num_enumerated <= MAX_ENUMERATED:
            if self._enumerated is not None and self._is_new(self._enumerated):
                return self._enumerated
            self._num_enumerated += 1
            try:
                self._enumerated = next(self._enumeration, None)
            except InvalidGraphError:
                self._enumerated = None  # a generator that raised has ended
            if self._enumerated is None:
                self._num_enumerated = MAX_ENUMERATED + 1
        return None

    # ---- what is known

    def _build(self, choose: Chooser) -> Candidate:
        candidate, questions = realise(self.space, choose)
        for question in questions:
            self._options.setdefault(question.name, question.options)
        return candidate

    def _remember(self, draw: Draw, candidate: Candidate) -> None:
        if draw.preferred is not None:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[draw.preferred] = (draw.architecture, candidate.graph.fingerprint)

    def _is_refused(self, fingerprint: str) -> bool:
        return fingerprint in self._experience.known or fingerprint in self._barred

    def _is_new(self, candidate: Candidate) -> bool:
        if self._is_refused(candidate.graph.fingerprint):
            return False
        if not self._experience.admits(candidate.graph):
            self._barred.add(candidate.graph.fingerprint)
            return False
        return True


def other_answer(question: Question, rng: np.random.Generator) -> Choice:
    """An answer other than the one given, uniformly. There must be one."""
    place = index_of(question.options, question.answer)
    other = int(rng.integers(len(question.options) - 1))
    return question.options[other + (place is not None and other >= place)]
