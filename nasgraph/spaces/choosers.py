"""Choosers: sample, replay, change and enumerate the answers that a search space asks for."""
# ruff: noqa: ARG002 -- a chooser is told the name even where it does not need it

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nasgraph.errors import InvalidChoiceError
from nasgraph.spaces.space import Architecture, C, Candidate, Choice, Question, SearchSpace, index_of, realise


class SamplingChooser:
    """Draws every answer uniformly from its options."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def categorical(self, name: str, options: Sequence[C]) -> C:
        return options[int(self._rng.integers(len(options)))]

    def integer(self, name: str, low: int, high: int) -> int:
        return int(self._rng.integers(low, high + 1))


class PreferringChooser:
    """Gives the preferred answer where there is one that fits, and asks a second chooser for the rest."""

    def __init__(self, preferred: Mapping[str, Choice], rest: SamplingChooser) -> None:
        self._preferred = preferred
        self._rest = rest

    def categorical(self, name: str, options: Sequence[C]) -> C:
        place = index_of(options, self._preferred[name]) if name in self._preferred else None
        return self._rest.categorical(name, options) if place is None else options[place]

    def integer(self, name: str, low: int, high: int) -> int:
        answer = self._preferred.get(name)
        if isinstance(answer, int) and low <= answer <= high:
            return int(answer)
        return self._rest.integer(name, low, high)


class ReplayChooser:
    """Gives the recorded answers and nothing else."""

    def __init__(self, choices: Mapping[str, Choice]) -> None:
        self._choices = choices

    def categorical(self, name: str, options: Sequence[C]) -> C:
        place = index_of(options, self._recorded(name))
        if place is None:
            allowed = ", ".join(map(repr, options))
            raise InvalidChoiceError(
                f"The choice '{name}' cannot be {self._choices[name]!r}. Allowed: {allowed}"
            )
        return options[place]

    def integer(self, name: str, low: int, high: int) -> int:
        answer = self._recorded(name)
        if not isinstance(answer, int) or isinstance(answer, bool) or not low <= answer <= high:
            raise InvalidChoiceError(f"The choice '{name}' cannot be {answer!r}. Allowed: {low} to {high}")
        return answer

    def _recorded(self, name: str) -> Choice:
        if name not in self._choices:
            raise InvalidChoiceError(f"The architecture lacks the choice '{name}'")
        return self._choices[name]


def sample(space: SearchSpace, rng: np.random.Generator) -> Candidate:
    """Draw a candidate: every choice uniform given the earlier ones."""
    return realise(space, SamplingChooser(rng))[0]


def replay(space: SearchSpace, architecture: Architecture) -> Candidate:
    """The candidate that an architecture describes. Guaranteed: the same graph as when it was recorded.

    Raises:
        InvalidChoiceError: If the architecture belongs to another space, lacks a choice, has one too many, or
            has one that the space does not allow.
    """
    if architecture.space != space.name:
        raise InvalidChoiceError(
            f"Expected an architecture of '{space.name}' (got one of '{architecture.space}')"
        )
    recorded = dict(architecture.choices)
    if len(recorded) != len(architecture.choices):
        raise InvalidChoiceError("The architecture names a choice twice")
    candidate, _ = realise(space, ReplayChooser(recorded))
    unused = sorted(set(recorded) - set(dict(candidate.architecture.choices)))
    if unused:
        raise InvalidChoiceError(f"The space '{space.name}' does not ask for '{unused[0]}' here")
    return candidate


def mutate(space: SearchSpace, architecture: Architecture, rng: np.random.Generator) -> Candidate:
    """Change one choice, drawn uniformly among those with another option, to another value.

    Choices that become newly necessary are sampled; choices that are no longer asked for vanish. The result
    differs from `architecture` unless the space has a single element, which comes back unchanged.
    """
    _, questions = realise(space, ReplayChooser(dict(architecture.choices)))
    open_questions = [question for question in questions if len(question.options) > 1]
    if not open_questions:
        return replay(space, architecture)
    question = open_questions[int(rng.integers(len(open_questions)))]
    others = _other_answers(question)
    answer = others[int(rng.integers(len(others)))]
    return _with_answer(space, architecture, question.name, answer, rng)


def crossover(
    space: SearchSpace, first: Architecture, second: Architecture, rng: np.random.Generator
) -> Candidate:
    """Take each choice from one parent or the other with equal chance; sample what neither knows."""
    mixed = dict(second.choices)
    own = dict(first.choices)
    for name in sorted({*own, *mixed}):
        if name in own and (name not in mixed or rng.random() < 0.5):
            mixed[name] = own[name]
    return realise(space, PreferringChooser(mixed, SamplingChooser(rng)))[0]


def neighbours(
    space: SearchSpace, architecture: Architecture, rng: np.random.Generator
) -> Iterator[Candidate]:
    """Every candidate that differs in one choice, in the order of questions and options.

    Where changing a choice makes new choices necessary, these are sampled.
    """
    _, questions = realise(space, ReplayChooser(dict(architecture.choices)))
    for question in questions:
        for answer in _other_answers(question):
            yield _with_answer(space, architecture, question.name, answer, rng)


def enumerate_candidates(space: SearchSpace) -> Iterator[Candidate]:
    """Every candidate of the space exactly once, in the order of its questions and options.

    Lazy: the next candidate is built when it is asked for, so that large spaces can be entered too.
    """
    prefix: list[Question] = []
    while True:
        candidate, questions = realise(space, _FirstChooser({q.name: q.answer for q in prefix}))
        yield candidate
        prefix = list(questions)
        while prefix and _next_answer(prefix[-1]) is None:
            prefix.pop()
        if not prefix:
            return
        last = prefix.pop()
        answer = _next_answer(last)
        assert answer is not None
        prefix.append(Question(last.name, last.options, answer))


class _FirstChooser:
    """Gives the answers it knows, and the first option otherwise."""

    def __init__(self, known: Mapping[str, Choice]) -> None:
        self._known = ReplayChooser(known)
        self._names = set(known)

    def categorical(self, name: str, options: Sequence[C]) -> C:
        return self._known.categorical(name, options) if name in self._names else options[0]

    def integer(self, name: str, low: int, high: int) -> int:
        return self._known.integer(name, low, high) if name in self._names else low


def _next_answer(question: Question) -> Choice | None:
    place = index_of(question.options, question.answer)
    assert place is not None
    return question.options[place + 1] if place + 1 < len(question.options) else None


def _other_answers(question: Question) -> list[Choice]:
    place = index_of(question.options, question.answer)
    return [option for index, option in enumerate(question.options) if index != place]


def _with_answer(
    space: SearchSpace, architecture: Architecture, name: str, answer: Choice, rng: np.random.Generator
) -> Candidate:
    preferred = {**dict(architecture.choices), name: answer}
    return realise(space, PreferringChooser(preferred, SamplingChooser(rng)))[0]
