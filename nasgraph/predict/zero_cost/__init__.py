"""Zero-cost proxies: scores of a network that need no training, from one mini-batch and random weights at most.

Higher is better for each (but see `plain`). They are scores, not accuracies: their scales mean nothing, only their order does, and how
well they order the networks of a space is measured in `benchmarks/results`. Each takes any torch module or a
computational graph; nothing is mutated, and no global generator is drawn from. A score that is not defined is NaN, and
`proxy_scores` and `module_scores` tell the reason.
"""

from nasgraph.predict.zero_cost.az_nas import az_nas, expressivity, progressivity, trainability
from nasgraph.predict.zero_cost.gradients import fisher, grad_norm, grasp, plain, snip, synflow, zico
from nasgraph.predict.zero_cost.jacobians import epe_nas, jacov, ntk
from nasgraph.predict.zero_cost.measure import Measure
from nasgraph.predict.zero_cost.noise import meco, zen
from nasgraph.predict.zero_cost.probes import task_loss
from nasgraph.predict.zero_cost.records import (
    Batch,
    Examples,
    Network,
    Proxy,
    ProxyScores,
    UndefinedScoreError,
)
from nasgraph.predict.zero_cost.scoring import PROXIES, load_proxy, module_scores, proxy_names, proxy_scores
from nasgraph.predict.zero_cost.sizes import l2_norm, multiply_adds, num_parameters, num_weight_layers
from nasgraph.predict.zero_cost.switches import nwot, regularised_swap, swap

__all__ = [
    "PROXIES",
    "Batch",
    "Examples",
    "Measure",
    "Network",
    "Proxy",
    "ProxyScores",
    "UndefinedScoreError",
    "az_nas",
    "epe_nas",
    "expressivity",
    "fisher",
    "grad_norm",
    "grasp",
    "jacov",
    "l2_norm",
    "load_proxy",
    "meco",
    "module_scores",
    "multiply_adds",
    "ntk",
    "num_parameters",
    "num_weight_layers",
    "nwot",
    "plain",
    "progressivity",
    "proxy_names",
    "proxy_scores",
    "regularised_swap",
    "snip",
    "swap",
    "synflow",
    "task_loss",
    "trainability",
    "zen",
    "zico",
]
