"""Proxies that feed noise to a network with Gaussian weights."""

import math

import torch

from nasgraph.predict.zero_cost.measure import measured
from nasgraph.predict.zero_cost.probes import ZEN_STEP, Probes
from nasgraph.predict.zero_cost.records import UndefinedScoreError


@measured()
def zen(probes: Probes) -> float:
    """Log of how far features move when Gaussian noise is moved a little, plus the log deviations that enter batch norms.

    Zen-score (Lin et al. 2021, eq. 3 and algorithm 1): weights standard normal, biases zero, the input x standard normal, f the
    last feature map before pooling; log of the mean norm of f(x) - f(x + 0.01 e) over 0.01, plus for each batch norm the log of the
    root of the mean variance that enters it. Higher is better. The batch's images are not looked at, only their shape and
    number. Residual links stay, which the authors remove. The last output of a convolution, norm or rectifier
    with positions counts as the last feature map; without any, the output does.
    """
    first, second, seen = probes.zen_runs()
    distance_B = (first - second).double().flatten(1).norm(dim=1)
    mean = float(distance_B.mean()) / ZEN_STEP
    if mean == 0:
        raise UndefinedScoreError("the features do not depend on the input")
    return math.log(mean) + float(sum(each.double() for each in seen.log_spreads))


@measured()
def meco(probes: Probes) -> float:
    """Sum over layers of the smallest eigenvalue of the correlation matrix between channels (MeCo, Jiang et al. 2023, eq. 6).

    On one pass of Gaussian noise, for each convolution or linear map whose output has positions. Higher is better. Correlations
    are over the positions of all examples, not of one as in the paper: with fewer positions than channels one example's matrix
    is singular. Each layer counts once; the authors' hooks count nested modules again. Channels that never vary
    are left out.
    """
    terms = []
    for layer in probes.noise().layers:
        if layer.y.dim() >= 3:
            x_CN = layer.y.detach().movedim(layer.channel_axis, 0).flatten(1).double()
            x_CN = x_CN[x_CN.amax(1) > x_CN.amin(1)]
            if len(x_CN) >= 2:
                terms.append(torch.linalg.eigvalsh(torch.corrcoef(x_CN))[0].clamp(min=0))
    if not terms:
        raise UndefinedScoreError("no layer has a feature map of two channels or more that vary")
    return float(torch.stack(terms).sum())
