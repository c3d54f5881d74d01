"""Priors over choices: what somebody believes, or other searches have shown, to be good answers."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from nasgraph.errors import ConfigError, InvalidGraphError
from nasgraph.search.architecture_sampler import ArchitectureSampler
from nasgraph.search.experience import Experience, Observation
from nasgraph.seeding import generator
from nasgraph.spaces import Candidate, Choice, realise
from nasgraph.spaces.space import C


@dataclass(frozen=True, slots=True)
class ChoicePriors:
    """How much more likely than others some answers are, by the names of questions.

    An answer has the weight that is given for it, or 1; the chance of an answer is its share of the weights of all options
    of its question. So a question without weights is answered uniformly, an answer of weight 3 is three times as likely
    as one that is not named, and one of weight 0 is never drawn.

    Attributes:
        weights: For each question, or pattern of questions such as `stage*.kind`, the weights of answers by their texts: `relu`,
            `16`, `0.5`, `true`. An exact name goes before patterns, an earlier pattern before a later one.

    Raises:
        ConfigError: If a weight is negative, infinite or not a number, or a name occurs twice.
    """

    weights: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.weights]
        if len(set(names)) < len(names):
            raise ConfigError("Expected every question to have its prior once")
        for name, answers in self.weights:
            for answer, weight in answers:
                if not (math.isfinite(weight) and weight >= 0):
                    raise ConfigError(
                        f"Expected the weight of '{answer}' for '{name}' to be a number of at least 0 (got {weight})"
                    )

    def probabilities(self, name: str, options: Sequence[Choice]) -> np.ndarray:
        """Of each option of a question.

        Raises:
            ConfigError: If all options have weight 0.
        """
        weights = self._weights_of(name)
        p = np.array([weights.get(_text(option), 1.0) for option in options])
        if p.sum() <= 0:
            raise ConfigError(f"The prior for '{name}' leaves no answer: all weights are 0")
        return np.asarray(p / p.sum())

    def _weights_of(self, name: str) -> dict[str, float]:
        for exact in (True, False):
            for pattern, answers in self.weights:
                if name == pattern if exact else fnmatchcase(name, pattern):
                    return dict(answers)
        return {}


def priors_from_mapping(weights: Mapping[str, Mapping[Choice, float]]) -> ChoicePriors:
    """Priors from weights by question and answer.

    Raises:
        ConfigError: If it is no such mapping, or a weight cannot be one.
    """
    pairs = []
    for name, answers in weights.items():
        if not isinstance(answers, Mapping):
            raise ConfigError(f"Expected the prior for '{name}' as a table of weights (got {answers!r:.100})")
        for answer, weight in answers.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise ConfigError(
                    f"Expected the weight of '{answer}' for '{name}' to be a number (got {weight!r:.100})"
                )
        pairs.append((name, tuple((_text(answer), float(weight)) for answer, weight in answers.items())))
    return ChoicePriors(tuple(pairs))


def read_priors(path: Path) -> ChoicePriors:
    """Priors from a TOML file with one table for each question, such as

        ["stage*.kind"]
        deep = 3
        none = 0

    Raises:
        ConfigError: If the file is no such file.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"Cannot read the priors '{path}': {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The priors '{path}' are not TOML: {error}") from error
    return priors_from_mapping(content)


def learn_priors(
    searches: Sequence[Sequence[Observation]],
    *,
    similarities: Sequence[float] | None = None,
    top_share: float = 0.1,
    smoothing: float = 1.0,
) -> ChoicePriors:
    """Priors from the best observations of other searches of the same space.

    As in AutoTransfer (Cao et al. 2023), what was good on other tasks is counted in proportion to how similar these are. An
    answer's weight is 1 + its similarity-weighted mean count per search / `smoothing`, so that an answer that no good
    architecture gave keeps a chance. Each search is compared with itself alone: their objectives may differ.

    Args:
        searches: The observations of each search. By the first objective.
        similarities: How much each search counts; all alike if not given.
        top_share: Share of the complete observations of a search that count as good, in (0, 1]; at least one does.
        smoothing: Above 0; the smaller, the more is believed.

    Raises:
        ConfigError: If a number is out of its range, or no search has a complete observation.
    """
    weights = [1.0] * len(searches) if similarities is None else list(similarities)
    if len(weights) != len(searches) or not all(math.isfinite(w) and w >= 0 for w in weights):
        raise ConfigError("Expected one similarity of at least 0 for each search")
    if sum(weights) <= 0:
        raise ConfigError("Expected at least one search that counts")
    if not 0 < top_share <= 1 or not 0 < smoothing < math.inf:
        raise ConfigError(
            f"Expected 'top_share' above 0, up to 1, and 'smoothing' above 0 (got {top_share} and {smoothing})"
        )
    counts: dict[str, dict[str, float]] = {}
    for search, weight in zip(searches, weights, strict=True):
        complete = [seen for seen in search if math.isfinite(seen.gain)]
        best = sorted(complete, key=lambda seen: -seen.gain)[: max(1, round(top_share * len(complete)))]
        for seen in best:
            for name, answer in seen.candidate.architecture.choices:
                of_name = counts.setdefault(name, {})
                of_name[_text(answer)] = of_name.get(_text(answer), 0.0) + weight / sum(weights)
    if not counts:
        raise ConfigError("Expected searches with complete observations to learn priors from")
    return ChoicePriors(
        tuple(
            (name, tuple((answer, 1.0 + count / smoothing) for answer, count in sorted(answers.items())))
            for name, answers in sorted(counts.items())
        )
    )


def _text(answer: Choice) -> str:
    return str(answer).lower() if isinstance(answer, bool) else str(answer)


@dataclass(eq=False)
class PriorChooser:
    """Draws every answer from priors.

    Attributes:
        priors: Where the probabilities come from.
        rng: Draws.
    """

    priors: ChoicePriors
    rng: np.random.Generator

    def categorical(self, name: str, options: Sequence[C]) -> C:
        return options[int(self.rng.choice(len(options), p=self.priors.probabilities(name, options)))]

    def integer(self, name: str, low: int, high: int) -> int:
        options = range(low, high + 1)
        return low + int(self.rng.choice(len(options), p=self.priors.probabilities(name, options)))


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorsConfig:
    """How long priors are listened to.

    Attributes:
        share: Share of the trials that draw from the priors at first, in [0, 1].
        half_life: Observations after which the share is half of what it was.
        max_draws: Draws from the priors until one is new; after them the inner sampler is asked.

    Raises:
        ConfigError: If a number is out of its range.
    """

    share: float = 0.75
    half_life: int = 25
    max_draws: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or min(self.half_life, self.max_draws) < 1:
            raise ConfigError(
                "Expected 'share' from 0 to 1, and 'half_life' and 'max_draws' of at least 1 "
                f"(got {self.share}, {self.half_life} and {self.max_draws})"
            )


class WithPriors(ArchitectureSampler):
    """Any sampler with priors over choices: some trials, fewer and fewer, are drawn from the priors.

    After PriorBand (Mallik et al., "PriorBand: Practical Hyperparameter Optimization in the Age of Deep Learning", 2023), which
    mixes draws from a prior with uniform ones and ones near the incumbent; the last two are the inner sampler's work here. A wrong
    prior costs a bounded number of trials: `share` times `half_life` / ln 2 in the mean, 27 with the defaults.

    Args:
        inner: The sampler that makes the other proposals, and learns from all observations.
        priors: What to draw from.
        config: How long they are listened to.
    """

    def __init__(
        self, inner: ArchitectureSampler, priors: ChoicePriors, *, config: PriorsConfig = PriorsConfig()
    ) -> None:
        super().__init__(inner.space, seed=inner.seed)
        self.inner = inner
        self.priors = priors
        self.config = config

    def propose(self, experience: Experience, *, number: int, attempt: int = 0) -> Candidate:
        """A draw from the priors whose graph is new, or the inner sampler's proposal."""
        rng = generator(self.seed, "priors", number, attempt)
        share = self.config.share * 0.5 ** (len(experience.observations) / self.config.half_life)
        if rng.random() < share:
            for _ in range(self.config.max_draws):
                try:
                    candidate, _ = realise(self.space, PriorChooser(self.priors, rng))
                except InvalidGraphError:
                    continue
                if experience.is_new(candidate.graph):
                    return candidate
        return self.inner.propose(experience, number=number, attempt=attempt)
