"""The components of AZ-NAS (Lee and Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", 2024).

Expressivity, progressivity and trainability look at the network block by block, on Gaussian noise, with Gaussian weights scaled by
their fan-in and batch norms by the statistics of the batch. The fourth, complexity, is `multiply_adds`.

The authors name the blocks of each space by hand. Here a block ends at the last tensor, before the next weight is
used, that every path from input to output passes; so a residual block or a cell is one block, and a chain has one per
layer. A block without weights is no block, so networks of one space can have different numbers of them.

Shape letters: N = examples and positions, C = channels.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from nasgraph.predict.prediction import Prediction
from nasgraph.predict.ranks import bottomed
from nasgraph.predict.zero_cost.measure import measured
from nasgraph.predict.zero_cost.probes import Probes
from nasgraph.predict.zero_cost.records import ProxyScores, UndefinedScoreError
from nasgraph.predict.zero_cost.watching import Step, Watcher
from nasgraph.seeding import derive_seed

COMPONENTS = ("expressivity", "progressivity", "trainability", "multiply_adds")


@measured()
def expressivity(probes: Probes) -> float:
    """Sum over blocks of the entropy of the spectrum of the features' covariance (AZ-NAS, eq. 2 and 3). Higher is better."""
    return float(sum(_entropies(probes)))


@measured()
def progressivity(probes: Probes) -> float:
    """Smallest growth of the entropy of `expressivity` from block to block (AZ-NAS, eq. 4). Higher is better."""
    entropies = _entropies(probes)
    if len(entropies) < 2:
        raise UndefinedScoreError("the network has one block")
    return float(min(np.diff(entropies)))


@measured()
def trainability(probes: Probes) -> float:
    """Mean over blocks of 2 - s - 1 / s, with s the spectral norm of the block's Jacobian (AZ-NAS, eq. 5 to 7).

    Zero, the best, where gradients keep their length. The Jacobian between channels is estimated by a random vector of signs at
    the block's output and its pull-back to the input, averaged over examples and positions. A block that
    halves the image has its input's positions folded into channels. Blocks whose positions do not divide are left out.
    """
    seen = probes.noise()
    blocks = _blocks(seen)
    rng = torch.Generator().manual_seed(derive_seed(probes.seed, "zero_cost", "trainability"))
    terms = []
    for start, end in pairwise(blocks):
        signs = (torch.randint(0, 2, end.shape, generator=rng) * 2 - 1).to(end)
        (pulled,) = torch.autograd.grad(end, start, signs, retain_graph=True)
        jacobian = _jacobian(pulled, signs, _channel_axis(seen, start), _channel_axis(seen, end))
        if jacobian is not None:
            norm = torch.linalg.matrix_norm(jacobian.double(), 2)
            if norm > 0:
                terms.append(2 - norm - 1 / norm)
    if not terms:
        raise UndefinedScoreError("no two blocks follow each other through which gradients flow")
    return float(torch.stack(terms).mean())


def az_nas(rows: Sequence[ProxyScores | Mapping[str, float]]) -> Prediction:
    """Combine the four components without labels (AZ-NAS, eq. 9): the sum of log(rank / number of networks), the best rank highest.

    Depends on the company. NaN ranks last.

    Args:
        rows: One per network, with the scores named in `COMPONENTS`.

    Returns:
        The sum, at most zero; no spread.
    """
    columns = [bottomed(np.array([row[name] for row in rows], dtype=np.float64)) for name in COMPONENTS]
    total = sum(np.log(rankdata(column) / len(rows)) for column in columns)
    return Prediction(torch.from_numpy(np.asarray(total)), None)


def _entropies(probes: Probes) -> list[float]:
    seen = probes.noise()
    found = []
    for value in _blocks(seen):
        x_NC = value.detach().movedim(_channel_axis(seen, value), -1).flatten(0, -2).double()
        if len(x_NC) < 2:
            raise UndefinedScoreError("one example without positions has no covariance")
        spectrum = torch.linalg.eigvalsh(torch.cov(x_NC.T).reshape(x_NC.shape[1], -1)).clamp(min=0)
        if spectrum.sum() > 0:
            share = spectrum / spectrum.sum()
            found.append(-float(torch.xlogy(share, share).sum()))
        else:
            found.append(0.0)  # features that never vary say nothing
    return found


def _blocks(seen: Watcher) -> list[Tensor]:
    """The outputs of the blocks, in order.

    Raises:
        UndefinedScoreError: If there is no block.
    """
    steps, last = seen.steps, len(seen.steps) - 1
    live = _reaching(steps, last)
    is_map = any(layer.y.dim() >= 3 for layer in seen.layers)
    cuts = [
        place
        for place in _cuts(steps, live)
        if steps[place].value.dim() >= (3 if is_map else 2) and place != last
    ]
    weighted = [place for place in live if steps[place].is_weighted]
    ends: list[int] = []
    for cut, following in zip(cuts, [*cuts[1:], last], strict=True):
        is_used = any(place <= cut and (not ends or place > ends[-1]) for place in weighted)
        if is_used and (following == last or any(cut < place <= following for place in weighted)):
            ends.append(cut)
    if not ends:
        raise UndefinedScoreError("the network has no block of layers that every path passes")
    return [steps[place].value for place in ends]


def _reaching(steps: Sequence[Step], last: int) -> list[int]:
    """Places of the steps that the last depends on, rising."""
    needed = {last}
    for place in range(last, -1, -1):
        if place in needed:
            needed.update(steps[place].sources)
    return sorted(needed)


def _cuts(steps: Sequence[Step], live: Sequence[int]) -> list[int]:
    """Steps that every path to the last passes: no step after them reads one before them."""
    first_read = {place: min(steps[place].sources, default=place) for place in live}
    cuts, earliest = [], len(steps)
    for place in reversed(live):
        if earliest >= place:
            cuts.append(place)
        earliest = min(earliest, first_read[place])
    return cuts[::-1]


def _channel_axis(seen: Watcher, value: Tensor) -> int:
    has_sequences = value.dim() == 3 and not any(layer.op == "conv1d" for layer in seen.layers)
    return value.dim() - 1 if has_sequences or value.dim() == 2 else 1


def _jacobian(pulled: Tensor, signs: Tensor, start_axis: int, end_axis: int) -> Tensor | None:
    """Mean over examples and positions of the products of input and output channels."""
    x, y = pulled.movedim(start_axis, 1), signs.movedim(end_axis, 1)
    if x.dim() != y.dim():
        return None
    if x.shape[2:] != y.shape[2:]:
        factor, rest = divmod(x.shape[2], y.shape[2])
        if x.dim() != 4 or rest or (x.shape[2], x.shape[3]) != (y.shape[2] * factor, y.shape[3] * factor):
            return None
        x = F.pixel_unshuffle(x, factor)
    x_NC, y_NC = (each.movedim(1, -1).flatten(0, -2) for each in (x, y))
    result: Tensor = x_NC.T @ y_NC / len(x_NC)
    return result
