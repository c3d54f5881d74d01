"""Populations of sub-networks at fixed multiply-adds: He et al. 2022, "Network pruning spaces".

Keep ratios are drawn at random, each sub-network is trained briefly, and what is looked at is the distribution of errors, as
in the study of design spaces (Radosavovic et al. 2020). The paper finds that good sub-networks share a ratio of
multiply-adds to parameters; `best_band` finds that range on one population, and another population, drawn within the band, is
compared with the first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nasgraph.data import SearchData
from nasgraph.edits import EditError
from nasgraph.errors import ConfigError
from nasgraph.evaluate import measure
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.pruning.costs import random_widths, width_cost
from nasgraph.meta.pruning.tuning import FineTuneConfig, finetune
from nasgraph.meta.pruning.width import cut_widths
from nasgraph.modules import Program, State, initial_buffers, initial_parameters
from nasgraph.seeding import derive_seed, generator


@dataclass(frozen=True, slots=True)
class SubNetwork:
    """A member of a pruning space.

    Attributes:
        widths: Units per group.
        multiply_adds: Of the sub-network.
        num_parameters: Of the sub-network.
        error: Share of validation examples that it gets wrong after its short training.
    """

    widths: dict[str, int]
    multiply_adds: int
    num_parameters: int
    error: float

    @property
    def intensity(self) -> float:
        """Multiply-adds per parameter."""
        return self.multiply_adds / self.num_parameters


def sample_pruning_space(
    graph: ComputationalGraph,
    data: SearchData,
    *,
    target_ratio: float,
    count: int,
    steps: int,
    seed: int,
    state: State | None = None,
    band: tuple[float, float] | None = None,
    tolerance: float = 0.01,
    tuning: FineTuneConfig | None = None,
    on_network: Callable[[SubNetwork], None] | None = None,
) -> list[SubNetwork]:
    """Draw and train sub-networks at one cost.

    Args:
        graph: The full network.
        data: Training and validation data.
        target_ratio: Multiply-adds as a share of the full network's.
        count: How many.
        steps: Of training, for each.
        seed: Of widths, initial weights and training.
        state: Weights from which sub-networks inherit their most important units; None: random weights for each.
        band: Only sub-networks whose multiply-adds per parameter are within.
        tolerance: Largest relative distance from the target.
        tuning: How to train.
        on_network: Called with each sub-network when it is done.

    Raises:
        EditError: If the target is out of reach, or a thousand draws bring none within the band.
    """
    cost = width_cost(graph)
    rng = generator(seed, "pruning space")
    start = state or {**initial_parameters(graph, seed=derive_seed(seed, "start")), **initial_buffers(graph)}
    networks = []
    for number in range(count):
        for _ in range(1000):
            widths = random_widths(cost, target_ratio * cost.dense, rng=rng, tolerance=tolerance)
            intensity = cost.multiply_adds(widths) / cost.num_parameters(widths)
            if band is None or band[0] <= intensity <= band[1]:
                break
        else:
            raise EditError(f"No sub-network within {band} multiply-adds per parameter in 1,000 draws")
        cut, inherited = cut_widths(graph, start, widths)
        if state is None:
            own = derive_seed(seed, "weights", number)
            inherited = {**inherited, **initial_parameters(cut, seed=own)}
        trained = finetune(
            cut, inherited, data.train, steps=steps, seed=derive_seed(seed, "train", number), config=tuning
        )
        _, accuracy = measure(Program(cut), trained, data.validation, batch_size=500)
        network = SubNetwork(widths, cost.multiply_adds(widths), cost.num_parameters(widths), 1 - accuracy)
        networks.append(network)
        if on_network is not None:
            on_network(network)
    return networks


def best_band(networks: Sequence[SubNetwork], *, bins: int = 3) -> tuple[float, float]:
    """The range of multiply-adds per parameter with the lowest mean error, among quantile bins.

    Args:
        networks: A population.
        bins: Number of ranges with as many sub-networks each.

    Raises:
        ConfigError: If there are fewer than two sub-networks per bin.
    """
    if bins < 1 or len(networks) < 2 * bins:
        raise ConfigError(f"Expected at least {2 * bins} sub-networks for {bins} bins (got {len(networks)})")
    ordered = sorted(networks, key=lambda network: network.intensity)
    parts = np.array_split(np.arange(len(ordered)), bins)
    means = [float(np.mean([ordered[i].error for i in part])) for part in parts]
    best = parts[int(np.argmin(means))]
    return ordered[best[0]].intensity, ordered[best[-1]].intensity


@dataclass(frozen=True, slots=True)
class Dominance:
    """Two distributions of errors compared.

    Attributes:
        statistic: Largest amount by which the second cumulative distribution is above the first.
        p_value: Of the one-sided Kolmogorov-Smirnov test that the second has lower errors.
        means: Mean errors of both.
    """

    statistic: float
    p_value: float
    means: tuple[float, float]


def compare_errors(first: Sequence[float], second: Sequence[float]) -> Dominance:
    """Whether the errors of the second population are lower than those of the first, in distribution."""
    from scipy.stats import ks_2samp  # slow to import

    found = ks_2samp(list(second), list(first), alternative="greater")
    means = (float(np.mean(first)), float(np.mean(second)))
    return Dominance(float(found.statistic), float(found.pvalue), means)


def error_distribution(errors: Sequence[float]) -> tuple[list[float], list[float]]:
    """Errors, ascending, and for each the share of the population that is no worse."""
    ordered = sorted(errors)
    return ordered, [(place + 1) / len(ordered) for place in range(len(ordered))]
