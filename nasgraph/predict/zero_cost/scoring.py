"""Many proxies of many networks, with the runs that they share."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import cast

from torch import Tensor, nn

from nasgraph.data import Split
from nasgraph.errors import UnknownNameError
from nasgraph.ir import ComputationalGraph
from nasgraph.plugins import load_plugin, plugin_names
from nasgraph.predict.zero_cost.az_nas import expressivity, progressivity, trainability
from nasgraph.predict.zero_cost.gradients import fisher, grad_norm, grasp, plain, snip, synflow, zico
from nasgraph.predict.zero_cost.jacobians import epe_nas, jacov, ntk
from nasgraph.predict.zero_cost.measure import Measure, joined, outcome
from nasgraph.predict.zero_cost.noise import meco, zen
from nasgraph.predict.zero_cost.probes import Probes, task_loss
from nasgraph.predict.zero_cost.records import (
    Batch,
    Examples,
    Loss,
    Network,
    Proxy,
    ProxyScores,
    UndefinedScoreError,
    as_examples,
)
from nasgraph.predict.zero_cost.sizes import l2_norm, multiply_adds, num_parameters, num_weight_layers
from nasgraph.predict.zero_cost.switches import nwot, swap

GROUP = "nasgraph.proxies"
"""The entry-point group of plug-ins, each a `Proxy`."""

PROXIES: Mapping[str, Measure] = {
    "num_parameters": num_parameters,
    "multiply_adds": multiply_adds,
    "num_weight_layers": num_weight_layers,
    "l2_norm": l2_norm,
    "synflow": synflow,
    "grad_norm": grad_norm,
    "snip": snip,
    "plain": plain,
    "fisher": fisher,
    "grasp": grasp,
    "zico": zico,
    "nwot": nwot,
    "swap": swap,
    "jacov": jacov,
    "epe_nas": epe_nas,
    "ntk": ntk,
    "zen": zen,
    "meco": meco,
    "expressivity": expressivity,
    "progressivity": progressivity,
    "trainability": trainability,
}
"""Every proxy of nasgraph by its name. Plug-ins are found by `load_proxy`."""


def proxy_names() -> tuple[str, ...]:
    """Names of all proxies, those of plug-ins at the end. Loads no plug-in."""
    return (*PROXIES, *(name for name in plugin_names(GROUP) if name not in PROXIES))


def load_proxy(name: str) -> Proxy:
    """A proxy by its name: one of `PROXIES`, or a plug-in.

    Raises:
        UnknownNameError: If there is none.
    """
    if name in PROXIES:
        return PROXIES[name]
    if name not in plugin_names(GROUP):
        raise UnknownNameError("zero-cost proxy", name, proxy_names())
    return cast(Proxy, load_plugin(GROUP, name, kind="zero-cost proxy"))


def proxy_scores(
    graphs: Sequence[ComputationalGraph],
    batch: Batch,
    *,
    names: Sequence[str],
    seed: int = 0,
    num_seeds: int = 1,
) -> list[ProxyScores]:
    """The named proxies of each graph, in the order of `names`.

    Each graph is built once per seed, and its proxies share their runs (see `probes`): all together cost far less than
    one after the other, and are what each would be by itself but for rounding.

    Args:
        graphs: With one output each.
        batch: Examples to look at.
        names: Keys of `PROXIES`, or names of plug-ins.
        seed: First seed of the random weights.
        num_seeds: Draws of the weights; the score is their median, and NaN if any draw has none. `jacov` gains much from
            three, the others little (`benchmarks/ghn/ranking_nb201.py`).

    Raises:
        UnknownNameError: If there is no proxy of a name.
    """
    proxies = {name: load_proxy(name) for name in names}
    seeds = range(seed, seed + num_seeds)
    return [_median([_scores(graph, batch, proxies, seed=each) for each in seeds]) for graph in graphs]


def module_scores(
    module: nn.Module,
    inputs: Tensor | Sequence[Tensor],
    targets: Tensor | None = None,
    *,
    names: Sequence[str] = tuple(PROXIES),
    seed: int = 0,
    loss: Loss = task_loss,
) -> ProxyScores:
    """Proxies of any torch module, with the parameters that it has.

    The module is not changed: neither parameters nor buffers, gradients, mode nor hooks. It runs in evaluation mode, except that
    batch norms use the statistics of the batch.

    Args:
        module: Anything that can be copied and returns a tensor of real numbers, or a tuple or mapping with one.
        inputs: What it is called with; the examples lie along the first axis.
        targets: Class numbers, or real numbers to regress on; without them, proxies with a loss have no value.
        names: Keys of `PROXIES`; all if not given. Plug-ins score graphs: trace the module for them.
        seed: Draws noise.
        loss: Of outputs and targets; see `task_loss` for the default.

    Raises:
        UnknownNameError: If there is no proxy of a name.
    """
    for name in names:
        if name not in PROXIES:
            raise UnknownNameError("zero-cost proxy of modules", name, PROXIES)
    examples = Examples((inputs,) if isinstance(inputs, Tensor) else tuple(inputs), targets)
    return _scores(module, examples, {name: PROXIES[name] for name in names}, seed=seed, loss=loss)


def _scores(
    network: Network, batch: Batch, proxies: Mapping[str, Proxy], *, seed: int, loss: Loss = task_loss
) -> ProxyScores:
    measures = {name: proxy for name, proxy in proxies.items() if isinstance(proxy, Measure)}
    watch = joined(measure.watch for measure in measures.values())
    probes = Probes(network, as_examples(batch), seed=seed, watch=watch, loss=loss)
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name, proxy in proxies.items():
        if isinstance(proxy, Measure):
            values[name], reason = outcome(proxy, probes)
        else:
            assert isinstance(network, ComputationalGraph)
            values[name], reason = _plugin_outcome(proxy, network, batch, seed=seed)
        if reason is not None:
            reasons[name] = reason
    return ProxyScores(values, reasons)


def _plugin_outcome(
    proxy: Proxy, graph: ComputationalGraph, batch: Batch, *, seed: int
) -> tuple[float, str | None]:
    if not isinstance(batch, Split):
        return math.nan, "a plug-in looks at a batch of one real-valued input only"
    try:
        value = float(proxy(graph, batch, seed=seed))
    except UndefinedScoreError as error:
        return math.nan, str(error)
    except Exception as error:  # noqa: BLE001  a stranger's code must not end the scoring of thousands; its words are kept
        return math.nan, f"the plug-in fails: {type(error).__name__}: {error}"
    return (value, None) if math.isfinite(value) else (math.nan, f"the plug-in gives {value}")


def _median(draws: Sequence[ProxyScores]) -> ProxyScores:
    reasons: dict[str, str] = {}
    for draw in reversed(draws):
        reasons |= draw.reasons  # the first draw's words win
    values = {
        name: math.nan if name in reasons else median(draw[name] for draw in draws) for name in draws[0]
    }
    return ProxyScores(values, {name: reasons[name] for name in values if name in reasons})
