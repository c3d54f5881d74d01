"""Which architectures a hypernetwork is trained on, and which it is evaluated on: fixed lists, by seed.

As DeepNets-1M (Knyazev et al., "Parameter Prediction for Unseen Deep Architectures", 2021, section 3.1): about a million
training architectures, and splits of 500 for evaluation, some drawn as in training, some wider, deeper, denser, without
norms, or designed by hand. Here a split is a pure function of a seed, written down in `split_lists/*.json`:
search space, its settings, which answers it may give to which questions, how many architectures, and what came out
(checksums of fingerprints) at one shape of data. So it exists for every shape, and takes no room.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from nasgraph.errors import ConfigError, NasGraphError, UnknownNameError
from nasgraph.files import Json, read_json
from nasgraph.plugins import load_plugin
from nasgraph.seeding import generator
from nasgraph.spaces import (
    Candidate,
    Choice,
    SamplingChooser,
    SearchSpace,
    enumerate_candidates,
    load_space,
    realise,
    sample,
)
from nasgraph.spaces.registry import GROUP
from nasgraph.spaces.space import C

SPLIT_SEED = 2026
TRAINING_SIZE = 2**20
"""Training architectures of each space: 1,048,576."""
SCHEMA = "nasgraph/splits/1"
FOLDER = Path(__file__).parent / "split_lists"
DIGITS = 8
"""Hexadecimal digits that are kept of a fingerprint in the lists."""


def training_candidate(space: SearchSpace, index: int) -> Candidate:
    """Number `index` of the training architectures of a space. Two numbers may give the same one.

    `nasgraph ghn train` draws numbers below `TRAINING_SIZE`, and draws again if the fingerprint is held out.
    """
    return sample(space, generator(SPLIT_SEED, "training", space.name, index))


def held_out_candidates(spaces: Sequence[SearchSpace], *, count: int) -> list[Candidate]:
    """The first `count` (at most 500 are reserved) held-out architectures of each space.

    Always the same for one space and shape of data. `nasgraph ghn train` keeps them out of training, so that
    benchmarks can measure what a hypernetwork makes of architectures that it has never seen. Those of
    `convnet` are its split `id_val`.
    """
    return [_drawn(space, "held-out", i, {}) for space in spaces for i in range(count)]


@dataclass(frozen=True, kw_only=True)
class EvaluationSplit:
    """One list of architectures to evaluate on.

    Attributes:
        name: Its name.
        summary: What is in it, in one sentence.
        space: Search space that they are taken from.
        settings: Settings of that space beyond shape and classes.
        answers: For patterns of question names (`stage*_blocks`) the answers that may be given: a list of options, or
            `[low, high]` for an integer. Other questions are free. At most one pattern may fit a question.
        label: Names the stream of random numbers.
        count: Number of architectures; None: all of the space, in the order of enumeration.
        in_distribution: Whether the training space can give these architectures. Only then need they be held out.
        fingerprints: First eight digits of the fingerprint of each, at the list's reference shape.
        sha256: Of all whole fingerprints at that shape, joined by spaces.
    """

    name: str
    summary: str
    space: str
    settings: Mapping[str, Any]
    answers: Mapping[str, Sequence[Choice]]
    label: str
    count: int | None
    in_distribution: bool
    fingerprints: tuple[str, ...]
    sha256: str

    def candidates(
        self, *, input_shape: tuple[int, ...], num_classes: int, count: int | None = None
    ) -> list[Candidate]:
        """The first `count` architectures (all if not given) for a shape of data, always the same.

        Raises:
            NasGraphError: If the space cannot serve this shape.
        """
        space = self._load(input_shape=input_shape, num_classes=num_classes)
        if self.count is None:
            return list(islice(enumerate_candidates(space), count))
        wanted = self.count if count is None else min(count, self.count)
        return [_drawn(space, self.label, i, self.answers) for i in range(wanted)]

    def _load(self, *, input_shape: tuple[int, ...], num_classes: int) -> SearchSpace:
        if not self.settings:
            return load_space(self.space, input_shape=input_shape, num_classes=num_classes)
        factory = load_plugin(GROUP, self.space, kind="search space")
        assert isinstance(factory, type)
        assert issubclass(factory, SearchSpace)
        settings = {
            name: tuple(value) if isinstance(value, list) else value for name, value in self.settings.items()
        }
        space: SearchSpace = factory(input_shape=input_shape, num_classes=num_classes, **settings)
        return space


@dataclass(frozen=True, kw_only=True)
class SplitList:
    """All evaluation splits that go with training on one space.

    Attributes:
        space: Name of the space that is trained on.
        version: Number of the list. A list never changes under one number.
        input_shape: Shape of data at which the fingerprints were taken.
        num_classes: Classes at which they were taken.
        splits: By name, in the order of reports.
    """

    space: str
    version: int
    input_shape: tuple[int, ...]
    num_classes: int
    splits: Mapping[str, EvaluationSplit]

    def named(self, name: str) -> EvaluationSplit:
        """The split of that name. Raises `UnknownNameError` if there is none."""
        if name not in self.splits:
            raise UnknownNameError("evaluation split", name, self.splits)
        return self.splits[name]


@cache
def split_list(space: str = "convnet") -> SplitList:
    """The newest list of a space.

    Raises:
        UnknownNameError: If there is no list for this space.
    """
    paths = sorted(FOLDER.glob(f"{space}-*.json"), key=lambda path: int(path.stem.rpartition("-")[2]))
    if not paths:
        known = {path.stem.rpartition("-")[0] for path in FOLDER.glob("*.json")}
        raise UnknownNameError("list of evaluation splits for the space", space, known)
    document: Any = read_json(paths[-1])
    assert document["schema"] == SCHEMA
    reference = document["reference"]
    return SplitList(
        space=document["space"],
        version=document["version"],
        input_shape=tuple(reference["input_shape"]),
        num_classes=reference["num_classes"],
        splits={item["name"]: _split(item) for item in document["splits"]},
    )


def held_out_fingerprints(
    spaces: Sequence[SearchSpace], *, input_shape: tuple[int, ...], num_classes: int
) -> frozenset[str]:
    """Fingerprints of everything that must not be trained on: 100 held-out architectures of each space, and of the spaces
    with a list those of its splits that training could draw. The other splits it cannot draw."""
    graphs = [candidate.graph for candidate in held_out_candidates(spaces, count=100)]
    listed = {path.stem.rpartition("-")[0] for path in FOLDER.glob("*.json")}
    for name in sorted({space.name for space in spaces} & listed):
        for split in split_list(name).splits.values():
            if split.in_distribution:
                found = split.candidates(input_shape=input_shape, num_classes=num_classes)
                graphs += [candidate.graph for candidate in found]
    return frozenset(graph.fingerprint for graph in graphs)


def checksums(candidates: Sequence[Candidate]) -> dict[str, Json]:
    """What a list keeps of the architectures of a split."""
    fingerprints = [candidate.graph.fingerprint for candidate in candidates]
    return {
        "fingerprints": "".join(fingerprint[:DIGITS] for fingerprint in fingerprints),
        "sha256": hashlib.sha256(" ".join(fingerprints).encode()).hexdigest(),
    }


def _split(item: Any) -> EvaluationSplit:
    text = item["fingerprints"]
    fingerprints = tuple(text[start : start + DIGITS] for start in range(0, len(text), DIGITS))
    return EvaluationSplit(**{**item, "fingerprints": fingerprints})


def _drawn(space: SearchSpace, label: str, index: int, answers: Mapping[str, Sequence[Choice]]) -> Candidate:
    rng = generator(SPLIT_SEED, label, space.name, index)
    return realise(space, RestrictedChooser(SamplingChooser(rng), answers))[0]


class RestrictedChooser:
    """Lets another chooser decide, among fewer answers.

    Args:
        inner: Decides.
        answers: As in `EvaluationSplit.answers`.
    """

    def __init__(self, inner: SamplingChooser, answers: Mapping[str, Sequence[Choice]]) -> None:
        self._inner = inner
        self._answers = answers

    def categorical(self, name: str, options: Sequence[C]) -> C:
        allowed = self._allowed(name)
        if allowed is None:
            return self._inner.categorical(name, options)
        kept = [option for option in options if option in allowed]
        if not kept:
            raise ConfigError(f"No answer to '{name}' is allowed: {list(options)} and {list(allowed)}")
        return self._inner.categorical(name, kept)

    def integer(self, name: str, low: int, high: int) -> int:
        allowed = self._allowed(name)
        if allowed is None:
            return self._inner.integer(name, low, high)
        lowest, highest = allowed
        assert isinstance(lowest, int)
        assert isinstance(highest, int)
        if max(low, lowest) > min(high, highest):
            raise NasGraphError(f"No answer to '{name}' is allowed: {low} to {high} and {list(allowed)}")
        return self._inner.integer(name, max(low, lowest), min(high, highest))

    def _allowed(self, name: str) -> Sequence[Choice] | None:
        fitting = (answers for pattern, answers in self._answers.items() if fnmatchcase(name, pattern))
        return next(fitting, None)
