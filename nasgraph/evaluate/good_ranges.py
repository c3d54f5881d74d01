"""Which values of a choice or a cost the best networks have: the empirical bootstrap of design-space analysis.

After Radosavovic et al., "Designing Network Design Spaces", 2020, section 3.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from nasgraph.evaluate.design_space_models import COSTS, SampledModel
from nasgraph.spaces import Choice

Array = np.ndarray
FEWEST_FOR_RANGE = 8
"""Models that must have been asked a question before anything is said about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodRange:
    """Where the best value of a choice or a cost lies.

    Attributes:
        name: Of the choice or the cost. A choice may have the name of a cost.
        is_cost: Whether it is a cost.
        num_models: Models that it was asked of.
        low: Lower end of the range; the best models have a value in it with 95 % confidence. None for words.
        median: The most likely best value.
        high: Upper end.
        shares: For words and truth values: how often each was that of the best model, the most frequent first.
        explained: Share of the variance of the errors that lies between the values (eta squared; of a cost: between its
            quarters), from 0 to 1. Few models for many values make it large by chance.
    """

    name: str
    is_cost: bool
    num_models: int
    low: float | None
    median: float | None
    high: float | None
    shares: tuple[tuple[str, float], ...]
    explained: float


def good_ranges(
    models: Sequence[SampledModel], *, rng: np.random.Generator, resamples: int = 10_000, share: float = 0.25
) -> tuple[GoodRange, ...]:
    """The range of good values of every cost and choice, by the empirical bootstrap of 2020, section 3.1.

    Again and again a quarter of the models is drawn with replacement and the best of them taken: its values are those that
    are counted. Choices with one value only, or asked of fewer than eight models, are left out.

    Args:
        models: A population; models without an error are left out.
        rng: Draws.
        resamples: How often.
        share: Share of the models that is drawn.
    """
    measured = [model for model in models if model.error is not None]
    names = list(dict.fromkeys(name for model in measured for name, _ in model.choices))
    found = []
    for name, is_cost in (*((name, True) for name in COSTS), *((name, False) for name in names)):
        pairs = [
            (model.costs[name] if is_cost else dict(model.choices).get(name), model.error)
            for model in measured
        ]
        asked = [(value, error) for value, error in pairs if value is not None and error is not None]
        if len(asked) < FEWEST_FOR_RANGE or len({value for value, _ in asked}) < 2:
            continue
        values = [value for value, _ in asked]
        errors = np.array([error for _, error in asked])
        winners = _winners(errors, rng, resamples, share)
        found.append(_range_of(name, values, errors, winners, is_cost=is_cost))
    return tuple(found)


def _winners(
    errors: Float[Array, " models"], rng: np.random.Generator, resamples: int, share: float
) -> Int[Array, " resamples"]:
    """The best model of each draw. The least of `k` draws with replacement is that of the least rank."""
    size = max(1, round(share * len(errors)))
    order = np.argsort(errors, kind="stable")
    # The least of `size` uniform ranks, drawn at once: P(least >= r) = ((n - r) / n)^size.
    least = len(errors) * (1.0 - rng.random(resamples) ** (1.0 / size))
    winners: Array = order[np.minimum(least.astype(int), len(errors) - 1)]
    return winners


def _range_of(
    name: str,
    values: Sequence[Choice],
    errors: Float[Array, " models"],
    winners: Int[Array, " resamples"],
    *,
    is_cost: bool,
) -> GoodRange:
    if any(isinstance(value, bool | str) for value in values):
        texts = [str(value) for value in values]
        won, counts = np.unique(np.array(texts)[winners], return_counts=True)
        pairs = sorted(zip(won.tolist(), (counts / len(winners)).tolist(), strict=True), key=lambda p: -p[1])
        return GoodRange(
            name=name, is_cost=is_cost, num_models=len(values), low=None, median=None, high=None, shares=tuple(pairs),
            explained=_explained(np.unique(texts, return_inverse=True)[1], errors),
        )  # fmt: skip
    numbers = np.array([float(value) for value in values])
    low, median, high = np.quantile(numbers[winners], [0.025, 0.5, 0.975], method="nearest").tolist()
    groups = np.unique(numbers, return_inverse=True)[1]
    if is_cost:
        groups = np.searchsorted(np.quantile(numbers, [0.25, 0.5, 0.75]), numbers)
    return GoodRange(
        name=name, is_cost=is_cost, num_models=len(values), low=low, median=median, high=high, shares=(),
        explained=_explained(groups, errors),
    )  # fmt: skip


def _explained(groups: Int[Array, " models"], errors: Float[Array, " models"]) -> float:
    total = float(((errors - errors.mean()) ** 2).sum())
    if total == 0:
        return 0.0
    members: list[Bool[Array, " models"]] = [groups == group for group in np.unique(groups)]
    between = sum(mask.sum() * (errors[mask].mean() - errors.mean()) ** 2 for mask in members)
    return float(between / total)
