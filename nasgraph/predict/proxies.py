"""Zero-cost proxies: scores of a graph that need no training, from one mini-batch and random weights at most.

Higher is better for each. They are scores, not accuracies: their scales mean nothing, only their order does, and how well
they order the networks of a space is measured in `benchmarks/results`. Parameters are passed to the network as tensors of
their own; nothing is mutated, and no global generator is drawn from.

Shape letters: B = examples in the batch, U = units of one activation.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.errors import UnknownNameError
from nasgraph.ir import ComputationalGraph, cost_of, make_node
from nasgraph.modules import Program, RunContext, initial_parameters

RECTIFIERS = frozenset({"relu", "leaky_relu", "elu", "gelu", "silu", "hardswish"})
"""Activations that divide their input at (about) zero: what `nwot` counts."""
NORMS = frozenset({"batch_norm", "group_norm", "layer_norm"})
JACOV_JITTER = 1e-5


class Proxy(Protocol):
    """Scores one graph. Higher is better; minus infinity where the score is not defined, such as for a constant network.

    Equal arguments give an equal score on one machine. Called by one thread at a time.
    """

    def __call__(self, graph: ComputationalGraph, batch: Split, *, seed: int) -> float:
        """Score a graph with one input and one output.

        Args:
            graph: Not changed.
            batch: Examples to look at, on the device to compute on. Proxies without data only take their device.
            seed: Seed of the random weights, for proxies that draw any.
        """


def num_parameters(graph: ComputationalGraph, batch: Split, *, seed: int) -> float:  # noqa: ARG001  a `Proxy`
    """Elements of all parameters."""
    return float(cost_of(graph).num_parameters)


def multiply_adds(graph: ComputationalGraph, batch: Split, *, seed: int) -> float:  # noqa: ARG001  a `Proxy`
    """Multiply-accumulate operations of one forward pass of one example."""
    return float(cost_of(graph).multiply_adds)


def num_weight_layers(graph: ComputationalGraph, batch: Split, *, seed: int) -> float:  # noqa: ARG001  a `Proxy`
    """Nodes that own a weight tensor, norms apart."""
    return float(sum(spec.role == "weight" for spec in graph.parameters.values()))


def synflow(graph: ComputationalGraph, batch: Split, *, seed: int) -> float:
    """Logarithm of the synaptic flow (Tanaka et al. 2020, eq. 2), summed over weights as in Abdelfattah et al. 2021.

    All parameters by their absolute values, norms left out, one input of ones: R is the sum of the outputs, the flow is the
    sum over weight tensors of |w * dR/dw|. In double precision, since R grows exponentially with depth. Looks at no data.
    """
    own = _random_parameters(graph, batch, seed=seed)
    weights = {name: tensor.abs().double().requires_grad_() for name, tensor in own.items()}
    ones = torch.ones(1, *batch.inputs.shape[1:], dtype=torch.float64, device=batch.inputs.device)
    (outputs,) = Program(_without_norms(graph))(weights, [ones], RunContext(batch_size=1))
    chosen = [weights[name] for name in _weight_names(graph)]
    gradients = torch.autograd.grad(outputs.sum(), chosen, allow_unused=True, materialize_grads=True)
    return _log(float(_total([(w * g).detach().abs().sum() for w, g in zip(chosen, gradients, strict=True)])))


def nwot(graph: ComputationalGraph, batch: Split, *, seed: int) -> float:
    """How differently a batch of examples switches the rectifiers of an untrained network (Mellor et al. 2021, eq. 2).

    log |det K|, where K counts for each pair of examples the units that are switched alike. Every activation in
    `RECTIFIERS` counts, by the sign of its input. Norms use the statistics of the batch.
    """
    switched = [node.inputs[0] for node in graph.nodes if node.op in RECTIFIERS]
    if not switched:
        return -math.inf
    # The inputs of the rectifiers become the outputs: one run returns them all. One node may feed several rectifiers.
    watched = replace(graph, outputs=tuple(switched))
    B = len(batch)
    with torch.no_grad():
        values = Program(watched)(
            _random_parameters(graph, batch, seed=seed), [batch.inputs], RunContext(batch_size=B)
        )
    alike_BB = torch.zeros(B, B, dtype=torch.float64, device=batch.inputs.device)
    for value in values:
        sign_BU = (value.flatten(1) > 0).float() * 2 - 1
        alike_BB += (sign_BU @ sign_BU.T + sign_BU.shape[1]) / 2  # exact: counts below 2**24
    return _finite(float(torch.linalg.slogdet(alike_BB).logabsdet))


def grad_norm(graph: ComputationalGraph, batch: Split, *, seed: int) -> float:
    """Sum over weight tensors of the norm of the loss's gradient, with random weights (Abdelfattah et al. 2021)."""
    _, gradients = _loss_gradients(graph, batch, seed=seed)
    return _finite(float(_total([gradient.norm() for gradient in gradients])))


def snip(graph: ComputationalGraph, batch: Split, *, seed: int) -> float:
    """Sum over weights of |w * dL/dw| with random weights (Lee et al. 2019, eq. 5, as in Abdelfattah et al. 2021)."""
    weights, gradients = _loss_gradients(graph, batch, seed=seed)
    return _finite(float(_total([(w * g).abs().sum() for w, g in zip(weights, gradients, strict=True)])))


def jacov(graph: ComputationalGraph, batch: Split, *, seed: int) -> float:
    """How little the gradients of the outputs by the inputs correlate between examples (Mellor et al. 2020).

    With the eigenvalues v of their correlation matrix: minus the sum of log(v + k) + 1 / (v + k), k = 1e-5. Norms use the
    statistics of the batch.
    """
    inputs = batch.inputs.clone().requires_grad_()
    parameters = _random_parameters(graph, batch, seed=seed)
    (outputs,) = Program(graph)(parameters, [inputs], RunContext(batch_size=len(batch)))
    if not outputs.requires_grad:
        return -math.inf  # no path from the input
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    correlation = torch.corrcoef(gradient.flatten(1).double())
    if not correlation.isfinite().all():
        return -math.inf  # a constant gradient correlates with nothing
    values = torch.linalg.eigvalsh(correlation) + JACOV_JITTER
    return -float((values.log() + 1 / values).sum()) if bool((values > 0).all()) else -math.inf


PROXIES: Mapping[str, Proxy] = {
    "num_parameters": num_parameters,
    "multiply_adds": multiply_adds,
    "num_weight_layers": num_weight_layers,
    "synflow": synflow,
    "nwot": nwot,
    "grad_norm": grad_norm,
    "snip": snip,
    "jacov": jacov,
}
"""Every proxy by its name."""


def proxy_scores(
    graphs: Sequence[ComputationalGraph],
    batch: Split,
    *,
    names: Sequence[str],
    seed: int = 0,
    num_seeds: int = 1,
) -> list[dict[str, float]]:
    """The named proxies of each graph, in the order of `names`.

    Args:
        graphs: With one input and one output each.
        batch: Examples to look at.
        names: Keys of `PROXIES`.
        seed: First seed of the random weights.
        num_seeds: Draws of the weights; the score is their median. `jacov` gains much from three, the others little
            (`benchmarks/ghn/ranking_nb201.py`).

    Raises:
        UnknownNameError: If there is no proxy of a name.
    """
    for name in names:
        if name not in PROXIES:
            raise UnknownNameError("zero-cost proxy", name, PROXIES)
    seeds = range(seed, seed + num_seeds)
    return [
        {name: median(PROXIES[name](graph, batch, seed=each) for each in seeds) for name in names}
        for graph in graphs
    ]


def _random_parameters(graph: ComputationalGraph, batch: Split, *, seed: int) -> dict[str, Tensor]:
    device = batch.inputs.device
    return {name: tensor.to(device) for name, tensor in initial_parameters(graph, seed=seed).items()}


def _weight_names(graph: ComputationalGraph) -> list[str]:
    return [name for name, spec in graph.parameters.items() if spec.role == "weight"]


def _without_norms(graph: ComputationalGraph) -> ComputationalGraph:
    """The graph with every norm as an identity. Nodes keep their places, so that parameters keep their names."""
    nodes = tuple(make_node("identity", node.inputs) if node.op in NORMS else node for node in graph.nodes)
    return replace(graph, nodes=nodes)


def _loss_gradients(
    graph: ComputationalGraph, batch: Split, *, seed: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Weight tensors, and the gradients of the cross-entropy of one batch by them."""
    own = _random_parameters(graph, batch, seed=seed)
    names = _weight_names(graph)
    weights = [own[name].requires_grad_() for name in names]
    (logits,) = Program(graph)(own, [batch.inputs], RunContext(batch_size=len(batch)))
    loss = F.cross_entropy(logits, batch.targets)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return [weight.detach() for weight in weights], list(gradients)


def _total(terms: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum() if terms else torch.zeros(())


def _log(value: float) -> float:
    return _finite(math.log(value)) if value > 0 else -math.inf


def _finite(value: float) -> float:
    """Failures go to the bottom of every ranking."""
    return value if math.isfinite(value) else -math.inf
