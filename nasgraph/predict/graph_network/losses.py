"""Losses over the order of graphs.

Shape letters: G = graphs.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from nasgraph.errors import UnknownNameError

RankingLoss = Callable[[Float[Tensor, " graphs"], Float[Tensor, " graphs"]], Float[Tensor, ""]]
"""Scores and targets, higher is better in both, to a loss. Depends on the order of the targets only; never negative."""


def logistic(scores: Float[Tensor, " graphs"], targets: Float[Tensor, " graphs"]) -> Float[Tensor, ""]:
    """Mean over pairs of unlike targets of log(1 + exp(worse - better)) of the scores.

    Burges et al., "Learning to Rank using Gradient Descent", 2005, eq. 3; Rendle et al., "BPR", 2009. 0 without such pairs.
    """
    return _mean_over_pairs(F.softplus(-(scores[:, None] - scores[None, :])), targets)


def hinge(scores: Float[Tensor, " graphs"], targets: Float[Tensor, " graphs"]) -> Float[Tensor, ""]:
    """Mean over pairs of unlike targets of max(0, 1 - (better - worse)) of the scores. 0 without such pairs."""
    return _mean_over_pairs(F.relu(1.0 - (scores[:, None] - scores[None, :])), targets)


def listwise(scores: Float[Tensor, " graphs"], targets: Float[Tensor, " graphs"]) -> Float[Tensor, ""]:
    """Mean over places of the negative log-likelihood of the true order (Plackett-Luce).

    Xia et al., "Listwise Approach to Learning to Rank: Theory and Algorithm" (ListMLE), 2008, eq. 9. Ties keep their order.
    """
    ordered = scores[torch.argsort(targets, descending=True, stable=True)]
    rest = torch.logcumsumexp(ordered.flip(0), dim=0).flip(0)
    return (rest - ordered).mean()


RANKING_LOSSES: Mapping[str, RankingLoss] = {"logistic": logistic, "hinge": hinge, "listwise": listwise}
"""Every ranking loss by its name."""


def check_loss(name: str) -> None:
    """Raise `UnknownNameError` unless there is a ranking loss of this name."""
    if name not in RANKING_LOSSES:
        raise UnknownNameError("ranking loss", name, RANKING_LOSSES)


def _mean_over_pairs(loss_GG: Tensor, targets: Tensor) -> Tensor:
    """Mean over the pairs whose first target is the higher one."""
    better_GG = (targets[:, None] > targets[None, :]).to(loss_GG.dtype)
    return (loss_GG * better_GG).sum() / better_GG.sum().clamp(min=1.0)
