"""Families of architectures: a base design and controlled edits of it, from any search space and around any graph.

Two graphs belong together if they come from one base. That is the truth that retrieval is measured against (and that the encoder
is trained with, on other bases). Edits are made through the choices of the space itself, or through those of the
space around the base's graph (`nasgraph.spaces.AroundGraph`): widths, kernels, kinds of convolution, activations, pooling, depth, residual branches.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nasgraph.errors import NasGraphError, UnknownNameError
from nasgraph.ir import ComputationalGraph
from nasgraph.seeding import generator
from nasgraph.spaces import (
    AroundGraph,
    Candidate,
    Choice,
    Question,
    ReplayChooser,
    SearchSpace,
    load_space,
    realise,
    sample,
)
from nasgraph.spaces.choosers import PreferringChooser, SamplingChooser
from nasgraph.spaces.space import index_of

logger = logging.getLogger(__name__)

DATA_SHAPES: tuple[tuple[tuple[int, ...], int], ...] = (
    ((3, 32, 32), 10), ((1, 28, 28), 10), ((3, 48, 48), 100), ((3, 64, 64), 200), ((64,), 10), ((256,), 96), ((1433,), 7),
)  # fmt: skip
"""Shapes of an example and numbers of classes: a design is the same whatever data it is made for."""
ATTEMPTS = 12
FEWEST_CHOICES = 3
"""A space with fewer choices has no edits of its own: to change one is to take another design."""


@dataclass(frozen=True)
class FamilySettings:
    """How families are made.

    Attributes:
        size: Members, the base included; a family may have fewer where edits repeat.
        max_edits: Changed choices of a member at most; how many is uniform.
        around_share: Chance that a member is edited through the space around the base's graph.
        other_data_share: Chance that a member that is edited through its space is made for data of another shape.
        kept_share: Share of the base's choices that an edit leaves as they are, at least.
    """

    size: int = 10
    max_edits: int = 4
    around_share: float = 0.4
    other_data_share: float = 0.4
    kept_share: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 2 or self.max_edits < 1:
            raise ValueError(
                f"Expected 'size' of at least 2 and 'max_edits' of at least 1 (got {self.size} and {self.max_edits})"
            )


@dataclass(frozen=True)
class Family:
    """A base design and edits of it. All graphs differ.

    Attributes:
        name: Unique in a corpus.
        group: Where the base comes from: a search space, or a kind of module.
        graphs: The base first.
        edits: For each graph the number of choices that were changed; 0 for the base.
    """

    name: str
    group: str
    graphs: tuple[ComputationalGraph, ...]
    edits: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.graphs)


def space_versions(name: str) -> tuple[SearchSpace, ...]:
    """A search space for every shape in `DATA_SHAPES` that it can serve; the first one is the usual.

    Raises:
        UnknownNameError: If there is no such space.
        NasGraphError: If it can serve none of them.
    """
    versions, reason = [], None
    for shape, num_classes in DATA_SHAPES:
        try:
            versions.append(load_space(name, input_shape=shape, num_classes=num_classes))
        except UnknownNameError:
            raise
        except NasGraphError as error:
            reason = error
    if not versions:
        raise NasGraphError(
            f"The space '{name}' serves none of the shapes of the corpus: {reason}"
        ) from reason
    images = [version for version in versions if len(version.input_shape) > 1]
    return tuple(images or versions)


def sample_family(
    versions: Sequence[SearchSpace], *, name: str, seed: int, settings: FamilySettings | None = None
) -> Family:
    """A random base of a space and edits of it.

    Args:
        versions: The space for data of different shapes, see `space_versions`.
        name: Name of the family; with the seed it decides everything.
        seed: Seed of the corpus.
        settings: How edits are made.
    """
    settings = FamilySettings() if settings is None else settings
    rng = generator(seed, "family", name)
    version = versions[int(rng.integers(len(versions)))]
    return _family(sample(version, rng), versions, name=name, group=version.name, rng=rng, settings=settings)


def family_around(
    graph: ComputationalGraph,
    *,
    name: str,
    group: str,
    seed: int,
    settings: FamilySettings | None = None,
) -> Family:
    """Edits of a given graph, such as a traced module. If nothing in it can be varied the family has one member."""
    settings = FamilySettings() if settings is None else settings
    return _collect(
        graph, _around_edits(graph, generator(seed, "family", name), settings), name, group, settings
    )


def _family(
    base: Candidate,
    versions: Sequence[SearchSpace],
    *,
    name: str,
    group: str,
    rng: np.random.Generator,
    settings: FamilySettings,
) -> Family:
    around = _around_edits(base.graph, rng, settings)
    if len(base.architecture.choices) < FEWEST_CHOICES:
        return _collect(base.graph, around, name, group, settings)
    own = _own_edits(base, versions, rng, settings)
    edits = _mixed(around, own, rng, settings.around_share)
    return _collect(base.graph, edits, name, group, settings)


def _mixed(
    first: Iterator[tuple[ComputationalGraph, int]],
    second: Iterator[tuple[ComputationalGraph, int]],
    rng: np.random.Generator,
    share: float,
) -> Iterator[tuple[ComputationalGraph, int]]:
    """From the first with some chance, from the second otherwise or where the first has none."""
    while True:
        edit = next(first, None) if rng.random() < share else None
        edit = next(second, None) if edit is None else edit
        if edit is None:
            return
        yield edit


def _collect(
    base: ComputationalGraph,
    edits: Iterator[tuple[ComputationalGraph, int]],
    name: str,
    group: str,
    settings: FamilySettings,
) -> Family:
    """The base and the first edits that differ from all before."""
    members, seen = [(base, 0)], {base.fingerprint}
    for _ in range(ATTEMPTS * settings.size):
        if len(members) == settings.size:
            break
        edit = next(edits, None)
        if edit is None:
            break
        if edit[0].fingerprint not in seen:
            seen.add(edit[0].fingerprint)
            members.append(edit)
    return Family(name, group, tuple(graph for graph, _ in members), tuple(number for _, number in members))


def _own_edits(
    base: Candidate, versions: Sequence[SearchSpace], rng: np.random.Generator, settings: FamilySettings
) -> Iterator[tuple[ComputationalGraph, int]]:
    """Edits through the choices of the space, without end unless all that are tried change too much."""
    own = set(base.architecture.choices)
    shape = base.graph.shapes[base.graph.inputs[0]]
    home = next(version for version in versions if version.input_shape == shape)
    _, questions = realise(home, ReplayChooser(dict(base.architecture.choices)))
    refused = 0
    while refused < ATTEMPTS:
        is_other = rng.random() < settings.other_data_share
        space = versions[int(rng.integers(len(versions)))] if is_other else home
        answers, number = _changed(questions, rng, settings.max_edits)
        edited, _ = realise(space, PreferringChooser(answers, SamplingChooser(rng)))
        if len(own & set(edited.architecture.choices)) < settings.kept_share * len(own):
            refused += 1
            continue
        refused = 0
        yield edited.graph, number


def _around_edits(
    base: ComputationalGraph, rng: np.random.Generator, settings: FamilySettings
) -> Iterator[tuple[ComputationalGraph, int]]:
    """Edits through the space around a graph, without end; none if nothing in it can be varied."""
    try:
        space = AroundGraph(base, name="around")
    except NasGraphError as error:
        logger.debug("No edits around a graph of %d nodes: %s", len(base), error)
        return
    _, questions = realise(space, ReplayChooser(dict(space.original.choices)))
    while True:
        answers, number = _changed(questions, rng, settings.max_edits)
        edited, _ = realise(space, PreferringChooser(answers, SamplingChooser(rng)))
        yield edited.graph, number


def _changed(
    questions: Sequence[Question], rng: np.random.Generator, most: int
) -> tuple[dict[str, Choice], int]:
    """The recorded answers with 1 to `most` of them exchanged for others, and how many were."""
    answers = {question.name: question.answer for question in questions}
    free = [question for question in questions if len(question.options) > 1]
    number = min(1 + int(rng.integers(most)), len(free))
    for place in rng.permutation(len(free))[:number]:
        question = free[int(place)]
        now = index_of(question.options, question.answer)
        assert now is not None
        other = (now + 1 + int(rng.integers(len(question.options) - 1))) % len(question.options)
        answers[question.name] = question.options[other]
    return answers, number


def without_repeated(
    families: Iterable[Family], *, seen: set[str] | None = None, fewest: int = 2
) -> tuple[Family, ...]:
    """The families without graphs that an earlier family, or `seen`, has already; those that keep fewer than `fewest` graphs,
    or lose their base, are left out.

    Args:
        families: Any.
        seen: Fingerprints; those of the result are added.
        fewest: Least size of a family.
    """
    seen = set() if seen is None else seen
    result = []
    for family in families:
        kept = [place for place, graph in enumerate(family.graphs) if graph.fingerprint not in seen]
        if len(kept) < fewest or kept[0] != 0:
            continue
        graphs = tuple(family.graphs[place] for place in kept)
        seen.update(graph.fingerprint for graph in graphs)
        result.append(Family(family.name, family.group, graphs, tuple(family.edits[place] for place in kept)))
    return tuple(result)
