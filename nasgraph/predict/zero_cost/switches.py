"""Proxies from how a batch switches rectifiers."""

import numpy as np
import torch

from nasgraph.predict.zero_cost.measure import measured
from nasgraph.predict.zero_cost.probes import Probes
from nasgraph.predict.zero_cost.records import UndefinedScoreError
from nasgraph.predict.zero_cost.watching import Watch

SINGULAR = 1e-13


@measured(Watch(codes=True))
def nwot(probes: Probes) -> float:
    """How differently examples switch the rectifiers of an untrained network (Mellor et al. 2021, eq. 2).

    log |det K|, where K counts for each pair of examples the units that are switched alike. Every activation in
    `RECTIFIERS` counts, by the sign of its input. Batch norms use the statistics of the batch. Higher is better. The common
    code answers minus infinity, or what rounding leaves, where K is singular; here there is no score.
    """
    alike_BB = probes.data().seen.alike_BB
    if alike_BB is None:
        raise UndefinedScoreError("the network has no rectifier")
    values = torch.linalg.eigvalsh(alike_BB)
    if values[0] <= SINGULAR * len(values) * values[-1]:
        raise UndefinedScoreError("the rectifiers cannot tell all examples apart")
    return float(values.log().sum())


@measured(Watch(patterns=True))
def swap(probes: Probes) -> float:
    """Distinct sample-wise patterns of switches (SWAP, Peng et al. 2024, eq. 3): over all rectified units, the different ways
    in which a unit is on for some examples and off for others.

    At most the first 64 examples count (the authors use 32). Batch norms use the statistics of the batch. Higher is
    better. See `regularised_swap` for the form that prefers a size.
    """
    patterns = probes.data().seen.patterns
    if not patterns:
        raise UndefinedScoreError("the network has no rectifier")
    return float(len(np.unique(np.concatenate(patterns))))


def regularised_swap(score: float, num_parameters: float, *, mean: float, width: float) -> float:
    """`swap` times exp(-(P - mean)^2 / width), which prefers networks of about `mean` parameters (Peng et al. 2024, eq. 6).

    The prior is knowledge about the space, not about the network; so it is no proxy of its own.
    """
    return score * float(np.exp(-((num_parameters - mean) ** 2) / width))
