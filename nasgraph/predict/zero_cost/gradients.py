"""Proxies from gradients of the loss by the weights.

The loss is the mean over the batch, of cross-entropy or what the caller gives; dropout is off. Batch norms use the statistics
of the batch, through which gradients flow; their own scales and shifts, and biases, are no weights here, as in the common code.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from nasgraph.predict.zero_cost.measure import measured
from nasgraph.predict.zero_cost.probes import Probes
from nasgraph.predict.zero_cost.records import UndefinedScoreError
from nasgraph.predict.zero_cost.watching import Watch

_GRADIENTS = Watch(layers=True)


@measured(_GRADIENTS)
def grad_norm(probes: Probes) -> float:
    """Sum over weight tensors of the norm of the loss's gradient (Abdelfattah et al. 2021, section 3.2). Higher is better."""
    return _sum(gradient.double().norm() for gradient in _loss_gradients(probes))


@measured(_GRADIENTS)
def snip(probes: Probes) -> float:
    """Sum over weights of |w dL/dw| (Lee et al. 2019, eq. 5, summed as in Abdelfattah et al. 2021). Higher is better.

    The common code multiplies every weight by a mask of ones and takes the gradient by the mask: the same number.
    """
    return _sum(product.abs().sum() for product in _products(probes))


@measured(_GRADIENTS)
def plain(probes: Probes) -> float:
    """Sum over weights of w dL/dw, signed (Abdelfattah et al. 2021, section 3.2).

    By definition neither sign is better; published values, and ours, fall with accuracy on NAS-Bench-201. Zero, up
    to rounding, for weights that a norm follows, since the loss does not depend on their scale.
    """
    return _sum(product.sum() for product in _products(probes))


@measured(_GRADIENTS)
def fisher(probes: Probes) -> float:
    """Sum over channels of the squared effect of switching the channel off (Theis et al. 2018; Turner et al. 2020, eq. 3).

    For the output a of each convolution and linear map: half the mean over examples of (sum over positions of a dL/da) squared,
    summed over channels. Higher is better. The common code copies the score of a channel to each of its weights before
    it sums, which multiplies layers by their fan-in; here each channel counts once, as in the papers. Layers whose
    output is the same for all examples, such as those of a learnt query, are left out.
    """
    run, gradients, terms = probes.data(), probes.loss_gradients().layers, []
    _loss_gradients(probes)  # a loss that depends on no weight has no score, even if it depends on a bias
    for layer, gradient in zip(run.seen.layers, gradients, strict=True):
        if gradient is not None and (len(layer.y) > 1 or len(probes.examples) == 1):
            product = (layer.y.detach() * gradient.detach()).movedim(layer.channel_axis, -1)
            if len(product) != len(probes.examples):
                raise UndefinedScoreError("the first axis of a layer's output is not that of the examples")
            effect_BC = product.flatten(1, -2).sum(1) if product.dim() > 2 else product
            terms.append(effect_BC.double().square().mean(0).sum() / 2)
    if not terms:
        raise UndefinedScoreError("the loss depends on no convolution or linear map")
    return _sum(terms)


@measured(Watch(layers=True, twice=True))
def grasp(probes: Probes) -> float:
    """Minus the sum over weights of w (H g), with the gradient g and the Hessian H of the loss (Wang et al. 2020, eq. 8).

    Higher is better, as in Abdelfattah et al. 2021: the sign is that of their code, opposite to the one used for pruning. One batch
    and one forward pass serve both derivatives, and there is no temperature; the original uses two batches and 200.
    Where a norm follows every weight, H w = -g, so the score is the sum of squares of g.
    """
    _loss_gradients(probes)
    weights = probes.weights().values()
    return -_sum((w * each).double().sum() for w, each in zip(weights, probes.curvature(), strict=True))


@measured()
def zico(probes: Probes) -> float:
    """Sum over weight tensors of log sum |mean gradient| / its deviation between batches (ZiCo, Li et al. 2023, eq. 14).

    The two halves of the batch are the two batches, each normalised by itself. Per weight: the mean of |g| over the two
    divided by the standard deviation of g, weights whose gradients are equal left out, as in the authors'
    code (the paper writes the deviation of |g|). Tensors without such weights are left out. Higher is better.
    """
    weights = probes.weights()
    terms = []
    for a, b in zip(*probes.half_gradients(), strict=True):
        mean, deviation = (a.abs() + b.abs()).double() / 2, (a - b).abs().double() / 2
        ratio = (mean / deviation)[deviation > 0].sum()
        if ratio > 0:
            terms.append(ratio.log())
    if not terms:
        raise UndefinedScoreError(
            f"the gradients of both halves of the batch are equal for all {len(weights)} weights"
        )
    return _sum(terms)


@measured()
def synflow(probes: Probes) -> float:
    """Logarithm of the synaptic flow (Tanaka et al. 2020, eq. 2), summed over weights as in Abdelfattah et al. 2021.

    All parameters by their absolute values, norms left out, one input of ones: R is the sum of the outputs, the flow is the
    sum over weight tensors of |w dR/dw|. In double precision, since R grows exponentially with depth; the logarithm
    changes no order. Looks at no data (whole-numbered inputs, such as tokens, are those of the first example).
    Higher is better. The common code also takes absolute values of running statistics and leaves biases of zero
    with a sign of zero; here nothing of the network changes.
    """
    total = _sum(flow.abs().sum() for flow in probes.flow())
    if total == 0:
        raise UndefinedScoreError("nothing flows from the weights to the output")
    return float(torch.tensor(total, dtype=torch.float64).log())


def _loss_gradients(probes: Probes) -> list[Tensor]:
    gradients = [gradient.detach() for gradient in probes.loss_gradients().leaves]
    if not any(bool(gradient.any()) for gradient in gradients):
        raise UndefinedScoreError("the loss depends on no weight")
    return gradients


def _products(probes: Probes) -> Iterator[Tensor]:
    for weight, gradient in zip(probes.weights().values(), _loss_gradients(probes), strict=True):
        yield (weight * gradient).double()


def _sum(terms: Iterator[Tensor] | list[Tensor]) -> float:
    return float(torch.stack(list(terms)).sum())
