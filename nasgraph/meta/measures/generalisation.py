"""Measures that are said to tell how well a network generalises, for many networks at once.

A measure ranks networks; it guarantees nothing. Gastpar, Nachum, Shafer and Weinberger, "Fantastic Generalization Measures are Nowhere to be
Found", 2024, prove that where networks can fit many more labellings than the data have, no bound that depends on the training data and the
network alone can be tight for all of them. So every measure here is a number to be tested on a population (`granulated_tau`,
`robust_sign_error`).

Those that stem from a bound are given as the logarithm of sqrt(measure / examples): smaller promises a smaller gap between training and test.

Shape letters: B = networks, L = layers, N = examples, K = classes.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nasgraph.data import Split
from nasgraph.errors import UnsupportedOpError
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.measures.layers import frobenius_norms, spectral_norms
from nasgraph.meta.measures.paths import path_norms
from nasgraph.meta.measures.sharpness import (
    logits_of_stack,
    rise_along_random_directions,
    sharpness_sigma,
)
from nasgraph.meta.views import check_stack
from nasgraph.modules import State, is_parameter

MIN_MARGIN = 1e-3
"""Margins below this count as this where a measure divides by them: such a network does not even fit its training data."""

MEASURES = (
    *(
        "parameter_norm",
        "distance_from_initial",
        "inverse_margin",
        "spectral_product",
        "spectral_product_margin",
    ),
    *(
        "frobenius_product",
        "frobenius_product_margin",
        "spectral_complexity",
        "path_norm",
        "path_norm_margin",
    ),
    *("sharpness", "sharpness_origin", "sharpness_initial", "sharpness_magnitude", "random_directions"),
)
"""Names of all measures."""


def margins(
    logits: Float[Tensor, "networks examples classes"],
    targets: Int64[Tensor, " examples"],
    *,
    share: float = 0.1,
) -> Float[Tensor, " networks"]:
    """The given quantile over examples of the margin: the output of the right class less the largest of the others."""
    right_BN = logits.gather(2, targets.expand(len(logits), -1).unsqueeze(2)).squeeze(2)
    others = logits.scatter(2, targets.expand(len(logits), -1).unsqueeze(2), float("-inf"))
    margin_BN = (right_BN - others.amax(2)).detach().cpu().numpy()
    return torch.from_numpy(np.quantile(margin_BN, share, axis=1)).to(logits)


def generalisation_measures(
    graph: ComputationalGraph,
    stacked: State,
    data: Split,
    *,
    initial: State | None = None,
    draws: int = 5,
    steps: int = 12,
    seed: int = 0,
) -> dict[str, Float[Tensor, " networks"]]:
    """All measures of `MEASURES` that this architecture has, each with a number per network.

    Jiang et al. 2020, appendix C. Norms of weights leave biases out, but `parameter_norm`, `distance_from_initial` and the path norm, which read
    all parameters. Neither test data nor labels of others than `data` are used.

    Args:
        graph: The architecture of all.
        stacked: Their states.
        data: What they were trained on, or a part of it.
        initial: The stack of their states before training. Without it, measures of the distance from there are left out.
        draws, steps: Of `sharpness_sigma`.
        seed: Decides noise and directions.

    Returns:
        By name. `path_norm` and `path_norm_margin` are left out where paths are not defined for an operator.

    Raises:
        StateError: If a stack does not fit the graph.
        UnsupportedOpError: If there is no linear layer or convolution.
    """
    count = check_stack(graph, stacked)
    if initial is not None and check_stack(graph, initial, owner="the initial networks") != count:
        raise ValueError("Expected one initial network for each network")
    fro_BL, spec_BL = (norms(graph, stacked).double() for norms in (frobenius_norms, spectral_norms))
    margin_B = margins(logits_of_stack(graph, stacked, data.inputs), data.targets).double()
    twice_B = 2 * margin_B.clamp(min=MIN_MARGIN).log()
    spectral_B, frobenius_B = 2 * spec_BL.log().sum(1), 2 * fro_BL.log().sum(1)
    origin_B = _squared_norm(graph, stacked, None)
    found = {
        "parameter_norm": origin_B.log(),
        "inverse_margin": -twice_B,
        "spectral_product": spectral_B,
        "spectral_product_margin": spectral_B - twice_B,
        "frobenius_product": frobenius_B,
        "frobenius_product_margin": frobenius_B - twice_B,
        "spectral_complexity": spectral_B - twice_B + (fro_BL / spec_BL).square().sum(1).log(),
    }
    try:
        path_B = 2 * path_norms(graph, stacked).double().log()
        found |= {"path_norm": path_B, "path_norm_margin": path_B - twice_B}
    except UnsupportedOpError:
        pass  # as promised in Returns
    sigma_B = sharpness_sigma(graph, stacked, data, draws=draws, steps=steps, seed=seed)
    relative_B = sharpness_sigma(graph, stacked, data, noise="magnitude", draws=draws, steps=steps, seed=seed)
    rest_B = (len(data) / sigma_B).log() + 10
    found |= {
        "sharpness": -2 * sigma_B.log(),
        "sharpness_origin": (origin_B / (4 * sigma_B**2) + rest_B).log(),
        "sharpness_magnitude": -2 * relative_B.log(),
    }
    if initial is not None:
        moved_B = _squared_norm(graph, stacked, initial)
        found["distance_from_initial"] = moved_B.log()
        found["sharpness_initial"] = (moved_B / (4 * sigma_B**2) + rest_B).log()
    scaled = {name: (value_B - math.log(len(data))) / 2 for name, value_B in found.items()}
    scaled["random_directions"] = rise_along_random_directions(graph, stacked, data, seed=seed)
    return {name: scaled[name] for name in MEASURES if name in scaled}


def _squared_norm(graph: ComputationalGraph, stacked: State, initial: State | None) -> Tensor:
    """Sum of squares of all parameters, or of their distances from the initial ones."""
    total = torch.zeros(len(next(iter(stacked.values()))), dtype=torch.float64)
    for name in graph.parameters:
        if is_parameter(name, stacked[name]):
            moved = stacked[name].double() - (0.0 if initial is None else initial[name].double())
            total += moved.flatten(1).square().sum(1)
    return total.clamp(min=torch.finfo(torch.float64).tiny)
