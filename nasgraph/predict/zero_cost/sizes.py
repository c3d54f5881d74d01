"""Proxies that only count."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.predict.zero_cost.measure import measured
from nasgraph.predict.zero_cost.probes import Probes
from nasgraph.predict.zero_cost.records import UndefinedScoreError


@measured()
def num_parameters(probes: Probes) -> float:
    """Elements of all parameters, each counted once. Higher is better. Looks at no data.

    Called `params` elsewhere, where it often counts millions.
    """
    if isinstance(probes.network, ComputationalGraph):
        return float(cost_of(probes.network).num_parameters)
    return float(sum(parameter.numel() for parameter in probes.network.parameters()))


@measured()
def multiply_adds(probes: Probes) -> float:
    """Multiply-accumulate operations of one forward pass of one example. Higher is better. Looks at no data but its shape.

    Called `flops` elsewhere, or complexity (AZ-NAS, Lee and Ham 2024). A graph is counted by the operator table, a module by
    `torch.utils.flop_counter`, halved: convolutions, products of matrices and attention count, all else is free.
    """
    if isinstance(probes.network, ComputationalGraph):
        return float(cost_of(probes.network).multiply_adds)
    one, runnable = tuple(tensor[:1] for tensor in probes.examples.inputs), probes.runnable()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        runnable.run_plainly(one)
    return float(counter.get_total_flops()) / 2


@measured()
def num_weight_layers(probes: Probes) -> float:
    """Weight tensors: parameters that data is multiplied with; norms, biases and embeddings apart. Higher is better.

    Of a module, parameters with two axes or more that a convolution, a linear map, a recurrent layer or a product of
    matrices reads in a forward pass. The number of trainable layers is a strong proxy by itself
    (VKDNW, Tybl and Neumann 2025, there called aleph).
    """
    if isinstance(probes.network, ComputationalGraph):
        return float(sum(spec.role == "weight" for spec in probes.network.parameters.values()))
    return float(len(probes.runnable().weights))


@measured()
def l2_norm(probes: Probes) -> float:
    """Sum over weight tensors of the norm (Abdelfattah et al. 2021, as a baseline). Higher is better. Looks at no data.

    For initial parameters it counts layers and widths.
    """
    total = torch.stack([weight.double().norm() for weight in probes.weights().values()]).sum()
    if total == 0:
        raise UndefinedScoreError("all weights are zero")
    return float(total)
