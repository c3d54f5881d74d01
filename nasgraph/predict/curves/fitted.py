"""The curve network as a `CurvePredictor`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from nasgraph.predict.curves.curve import Number, PartialCurve
from nasgraph.predict.curves.network import CurveNetwork, bar_borders
from nasgraph.predict.curves.posterior import CurvePosterior, CurvePredictor

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class NetworkCurves(CurvePredictor):
    """Extrapolates with a prior-fitted network: one forward pass for all curves of a call.

    Curves of more than `max_points` values are thinned evenly; the first and the last value are always read. The answer for a
    curve may differ in the last bits of single precision with the other curves of the call.

    Attributes:
        network: From `load_curve_network`. Not changed.
    """

    network: CurveNetwork

    def predict(self, curves: Sequence[PartialCurve], *, step: Number | None = None) -> list[CurvePosterior]:
        """See `CurvePredictor.predict`."""
        if not curves:
            return []
        points = [self._read(curve) for curve in curves]
        longest = max(len(times) for times, _ in points)
        targets = np.array([curve.target_time(step) for curve in curves])
        # The network is causal, so what stands after a curve's last point does not matter.
        times_BL = np.stack([np.pad(times, (0, longest - len(times)), mode="edge") for times, _ in points])
        heights_BL = np.stack(
            [np.pad(heights, (0, longest - len(heights)), mode="edge") for _, heights in points]
        )
        with torch.no_grad():
            logits_BLQK = self.network(
                torch.from_numpy(times_BL).float(),
                torch.from_numpy(heights_BL).float(),
                torch.from_numpy(targets).float()[:, None, None].expand(-1, longest, 1),
            )
        last = torch.tensor([len(times) - 1 for times, _ in points])
        logits_BK = logits_BLQK[torch.arange(len(points)), last, 0].double()
        masses_BK = logits_BK.softmax(dim=-1).numpy()
        borders = bar_borders(self.network.config.num_bars).numpy()
        return [_posterior(curve, masses, borders) for curve, masses in zip(curves, masses_BK, strict=True)]

    def _read(self, curve: PartialCurve) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
        """Times and heights of at most so many points as the network was made for."""
        count, limit = len(curve.values), self.network.config.max_points
        kept = np.unique(np.round(np.linspace(0, count - 1, min(count, limit))).astype(int))
        return curve.times[kept], curve.heights[kept]


def _posterior(
    curve: PartialCurve, masses: Float[Array, " bars"], borders: Float[Array, " borders"]
) -> CurvePosterior:
    """Bars over the change of height, as a distribution of the metric: what lies outside [0, 1] is cut off."""
    ends = np.clip(curve.heights[-1] + borders, 0.0, 1.0)
    has_width = np.diff(ends) > 1e-9
    first = int(np.flatnonzero(has_width)[0])
    kept = masses[has_width]
    inside = ends[first : first + len(kept) + 1]
    return CurvePosterior(inside, kept / kept.sum()).in_units(curve.scale)
