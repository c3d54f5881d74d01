"""Search spaces: pure functions from named choices to a computational graph."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from nasgraph.errors import InvalidChoiceError
from nasgraph.files import Json, canonical_json
from nasgraph.ir import ComputationalGraph

Choice = bool | int | float | str
C = TypeVar("C", bound=Choice)


@runtime_checkable  # so that the type checker of the tests can look
class Chooser(Protocol):
    """Decides. The same `SearchSpace.build` samples, replays, mutates or enumerates, as the chooser has it."""

    def categorical(self, name: str, options: Sequence[C]) -> C:
        """One of `options`."""

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""


class SearchSpace(ABC):
    """A set of architectures, written as one function that asks a chooser.

    Plug-in authors subclass this and register the class under the entry-point group `nasgraph.search_spaces`.
    nasgraph calls the class with the keyword arguments `input_shape` and `num_classes` of the data; further
    settings need defaults. The contract, tested by `nasgraph.testing.SearchSpaceContract`:

    - `build` is pure: the same answers give the same graph; nothing else is read, nothing is written.
    - Each name is asked at most once in one call. A name always comes with the same options or bounds, but
      whether it is asked may depend on earlier answers.
    - Every combination of answers gives a graph that passes `check_graph`, reads one input of `input_shape`
      and has one output of shape `(num_classes,)`.

    Attributes:
        input_shape: Shape of one example, such as `(1, 8, 8)`.
        num_classes: Length of the output.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_classes: int) -> None:
        self.input_shape = tuple(input_shape)
        self.num_classes = num_classes

    @property
    @abstractmethod
    def name(self) -> str:
        """Name under which the space is registered."""

    @abstractmethod
    def build(self, choose: Chooser) -> ComputationalGraph:
        """Ask `choose` for every decision and return the graph. Called for each candidate, maybe thousands
        of times, from several processes; should take a few milliseconds."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """All choices of one candidate, in the order in which its space asked for them."""

    space: str
    choices: tuple[tuple[str, Choice], ...]

    def to_json(self) -> str:
        """Canonical JSON text; `architecture_from_json` reads it back equal."""
        return canonical_json(
            {"space": self.space, "choices": [[name, choice] for name, choice in self.choices]}
        )


def architecture_from_json(value: Json) -> Architecture:
    """The architecture that a parsed JSON value describes.

    Raises:
        InvalidChoiceError: If it has another form.
    """
    if not isinstance(value, dict) or set(value) != {"space", "choices"}:
        raise InvalidChoiceError("Expected an architecture as an object with 'space' and 'choices'")
    space, choices = value["space"], value["choices"]
    if not isinstance(space, str) or not isinstance(choices, list):
        raise InvalidChoiceError("Expected 'space' to be text and 'choices' a list of pairs")
    pairs: list[tuple[str, Choice]] = []
    for pair in choices:
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise InvalidChoiceError("Expected each choice to be a pair of a name and a value")
        name, choice = pair
        assert isinstance(name, str)
        if not isinstance(choice, bool | int | float | str):
            raise InvalidChoiceError(f"Expected the choice '{name}' to be text, a number or a truth value")
        pairs.append((name, choice))
    return Architecture(space, tuple(pairs))


@dataclass(frozen=True, slots=True)
class Question:
    """One decision as it was asked: its name, the answers it allows, the answer it got."""

    name: str
    options: Sequence[Choice]
    answer: Choice


class RecordingChooser:
    """Passes questions on to another chooser and remembers them. Checks that no name is asked twice."""

    def __init__(self, inner: Chooser) -> None:
        self._inner = inner
        self.questions: list[Question] = []

    def categorical(self, name: str, options: Sequence[C]) -> C:
        self._refuse_repeated(name)
        answer = self._inner.categorical(name, options)
        self.questions.append(Question(name, options, answer))
        return answer

    def integer(self, name: str, low: int, high: int) -> int:
        self._refuse_repeated(name)
        answer = self._inner.integer(name, low, high)
        self.questions.append(Question(name, range(low, high + 1), answer))
        return answer

    def _refuse_repeated(self, name: str) -> None:
        if any(question.name == name for question in self.questions):
            raise InvalidChoiceError(f"The search space asks for '{name}' twice")

    def architecture(self, space: SearchSpace) -> Architecture:
        """What was chosen so far."""
        return Architecture(space.name, tuple((q.name, q.answer) for q in self.questions))


@dataclass(frozen=True, slots=True)
class Candidate:
    """An architecture together with its graph: what travels through a search."""

    architecture: Architecture
    graph: ComputationalGraph


def realise(space: SearchSpace, choose: Chooser) -> tuple[Candidate, tuple[Question, ...]]:
    """Build one candidate and return it with the questions that were asked."""
    recorder = RecordingChooser(choose)
    graph = space.build(recorder)
    return Candidate(recorder.architecture(space), graph), tuple(recorder.questions)


def index_of(options: Iterable[Choice], answer: Choice) -> int | None:
    """Place of an answer among options, or None. `True` and `1` are different answers."""
    for index, option in enumerate(options):
        if option == answer and isinstance(option, bool) == isinstance(answer, bool):
            return index
    return None
