"""Growing a search space while a study runs: more options, more choices, the same name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, overload

from nasgraph.errors import InvalidChoiceError, InvalidGraphError, NasGraphError, UnknownNameError
from nasgraph.ir import ComputationalGraph, check_graph
from nasgraph.seeding import generator
from nasgraph.spaces.choosers import PreferringChooser, SamplingChooser
from nasgraph.spaces.space import C, Choice, Chooser, Question, SearchSpace, index_of, realise

TRIES = 200
"""Random architectures that are looked at for a choice that is asked for in some only."""
CHECKS = 3
"""Random architectures in which each new option is tried."""


@dataclass(frozen=True, slots=True)
class GrownOptions(Sequence[C], Generic[C]):
    """Options of a choice together with their history: those that it had first, then what each growth added."""

    generations: tuple[tuple[C, ...], ...]

    @overload
    def __getitem__(self, place: int) -> C: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[C, ...]: ...
    def __getitem__(self, place: int | slice) -> C | tuple[C, ...]:
        return self._all[place]

    def __iter__(self) -> Iterator[C]:
        return iter(self._all)

    def __len__(self) -> int:
        return sum(map(len, self.generations))

    @property
    def _all(self) -> tuple[C, ...]:
        return tuple(option for generation in self.generations for option in generation)

    @property
    def stages(self) -> tuple[tuple[C, ...], ...]:
        """The options that there were at first, after the first growth, and so on."""
        return tuple(self._all[:end] for end in accumulate(map(len, self.generations)))


class GrownSpace(SearchSpace):
    """A space with more options or choices than an earlier one of the same name. `grow` makes it.

    Guaranteed: every architecture of the earlier space is one of this space and gives the same graph.

    Args:
        inner: The space that is grown.
        more: New options, or new bounds as a `range`, by the name of the choice.
        defaults: The answers that architectures without these choices stand for.
    """

    def __init__(
        self,
        inner: SearchSpace,
        *,
        more: Mapping[str, Sequence[Choice]],
        defaults: Mapping[str, Choice],
    ) -> None:
        super().__init__(input_shape=inner.input_shape, num_classes=inner.num_classes)
        self.inner = inner
        self.more = {
            name: options if isinstance(options, range) else tuple(options) for name, options in more.items()
        }
        self.defaults = dict(defaults)

    @property
    def name(self) -> str:
        return self.inner.name

    def build(self, choose: Chooser) -> ComputationalGraph:
        return self.inner.build(_GrowingChooser(choose, self.more, self.defaults))


def growth_of(space: SearchSpace) -> dict[str, list[list[Choice]]]:
    """What was added to each choice, growth by growth; a range as its bounds. Empty for a space that has not grown."""
    steps: list[GrownSpace] = []
    while isinstance(space, GrownSpace):
        steps.append(space)
        space = space.inner
    growth: dict[str, list[list[Choice]]] = {}
    for step in reversed(steps):
        for name, more in step.more.items():
            added: list[Choice] = [more[0], more[-1]] if isinstance(more, range) else list(more)
            growth.setdefault(name, []).append(added)
        for name, default in step.defaults.items():
            growth.setdefault(name, []).append([default])
    return growth


class _GrowingChooser:
    """Passes questions on with the options that were added. A recorded architecture may lack answers that have a default."""

    def __init__(
        self, inner: Chooser, more: Mapping[str, Sequence[Choice]], defaults: Mapping[str, Choice]
    ) -> None:
        self._inner = inner
        self._more = more
        self._defaults = defaults

    def categorical(self, name: str, options: Sequence[C]) -> C:
        if name in self._more:
            options = _grown(name, options, self._more[name])
        if name not in self._defaults:
            return self._inner.categorical(name, options)
        place = index_of(options, self._defaults[name])
        if place is None:
            raise NasGraphError(
                f"The default of '{name}' is {self._defaults[name]!r}, which is no option of it"
            )
        try:
            return self._inner.categorical(name, options)
        except InvalidChoiceError:  # where there is a wrong answer, `replay` refuses it as one too many
            return options[place]

    def integer(self, name: str, low: int, high: int) -> int:
        if name in self._more:
            bounds = self._more[name]
            if not isinstance(bounds, range) or not bounds or bounds[0] > low or bounds[-1] < high:
                raise NasGraphError(
                    f"Expected a range that holds {low} to {high} for '{name}' (got {bounds})"
                )
            low, high = bounds[0], bounds[-1]
        try:
            return self._inner.integer(name, low, high)
        except InvalidChoiceError:
            if name not in self._defaults:
                raise
            return int(self._defaults[name])


def _grown(name: str, options: Sequence[C], more: Sequence[Choice]) -> GrownOptions[C]:
    if isinstance(more, range):
        raise NasGraphError(
            f"Expected options for '{name}' as a list (got {more}): it is no range of integers"
        )
    known = options.generations if isinstance(options, GrownOptions) else (tuple(options),)
    new: list[C] = []
    for option in more:
        if option in options or option in new:
            raise NasGraphError(f"'{name}' has the option {option!r} already, or one equal to it")
        new.append(option)  # type: ignore[arg-type]  # the space's function gets what its caller added
    return GrownOptions((*known, tuple(new)))


def grow(
    space: SearchSpace,
    more: Mapping[str, Sequence[Choice]] | None = None,
    *,
    defaults: Mapping[str, Choice] | None = None,
) -> GrownSpace:
    """The space with more options, so that a study of it can go on and keep its trials.

    Old architectures remain what they were: they replay to the same graphs, and samplers learn from them. The space keeps its
    name. Grow a space in the same steps wherever the study is continued; a grown space can be grown again.

    Args:
        space: The space of the study; or a newer version of its class that asks for more, with `defaults`.
        more: By the name of a choice: options to append; or the new bounds of an integer as a `range` that holds the old ones.
        defaults: By the name of a choice that the study's architectures do not have: the answer that they stand for, which has
            to give what the earlier version gave.

    Raises:
        UnknownNameError: If the space does not ask for such a choice.
        NasGraphError: If an option is there already, a range does not hold the old one, or the space cannot do anything
            with an option: each is tried.
    """
    grown = GrownSpace(space, more=more or {}, defaults=defaults or {})
    wanted = {*grown.more, *grown.defaults}
    asked = _questions(space, wanted)
    for name in sorted(wanted):
        if name not in asked:
            raise UnknownNameError("choice", name, asked)
    for name, options in grown.more.items():
        known = list(asked[name].options)
        for option in options:
            if index_of(known, option) is None:
                _try_option(grown, name, option)
        if all(index_of(known, option) is not None for option in options):
            _try_option(grown, name, known[0])  # says what is wrong with it
    return grown


def _questions(space: SearchSpace, wanted: set[str]) -> dict[str, Question]:
    """Questions of the space by name: all that are wanted, if it asks for them, and others."""
    found: dict[str, Question] = {}
    for draw in range(TRIES):
        if wanted <= set(found):
            break
        _, questions = realise(space, SamplingChooser(generator(0, "grow", draw)))
        for question in questions:
            found.setdefault(question.name, question)
    return found


def _try_option(space: GrownSpace, name: str, option: Choice) -> None:
    """Check some architectures with this answer."""
    checked = 0
    for draw in range(TRIES):
        choose = PreferringChooser({name: option}, SamplingChooser(generator(0, "grow", draw)))
        try:
            candidate, _ = realise(space, choose)
            if name not in dict(candidate.architecture.choices):
                continue
            check_graph(candidate.graph)
        except (InvalidGraphError, InvalidChoiceError, LookupError, TypeError, ValueError) as error:
            raise NasGraphError(
                f"The space '{space.name}' cannot do anything with {option!r} for '{name}': {error}"
            ) from error
        _check_ends(space, candidate.graph, f"{option!r} for '{name}'")
        checked += 1
        if checked == CHECKS:
            return


def _check_ends(space: GrownSpace, graph: ComputationalGraph, what: str) -> None:
    if graph.shapes[graph.outputs[0]][-1] != space.num_classes:
        raise NasGraphError(f"The space '{space.name}' gives another number of classes with {what}")
