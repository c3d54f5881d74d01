"""A proxy that shares its runs with others."""

import math
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from functools import update_wrapper

from nasgraph.predict.zero_cost.probes import Probes, task_loss
from nasgraph.predict.zero_cost.records import Batch, Loss, Network, UndefinedScoreError, as_examples
from nasgraph.predict.zero_cost.watching import Watch


class Measure:
    """A proxy of a module or a graph that looks at shared runs. A `Proxy`.

    Args:
        compute: The score from the runs; raises `UndefinedScoreError` where there is none.
        watch: What the run on the data must keep for it.
    """

    def __init__(self, compute: Callable[[Probes], float], watch: Watch) -> None:
        update_wrapper(self, compute)
        del self.__dict__["__wrapped__"]  # else `inspect.signature` shows that of `compute`
        self.compute = compute
        self.watch = watch

    def __call__(self, network: Network, batch: Batch, /, *, seed: int = 0, loss: Loss = task_loss) -> float:
        """Score a module, with the parameters that it has, or a graph, with initial parameters that `seed` draws.

        Args:
            network: Not changed.
            batch: Examples to look at, on the device to compute on.
            seed: Draws the parameters of a graph, and noise.
            loss: Of outputs and targets, for proxies that look at the loss.

        Returns:
            The score; NaN where it is not defined. `proxy_scores` and `module_scores` tell why.
        """
        probes = Probes(network, as_examples(batch), seed=seed, watch=self.watch, loss=loss)
        return outcome(self, probes)[0]


def measured(watch: Watch | None = None) -> Callable[[Callable[[Probes], float]], Measure]:
    """Make a proxy of a function from runs to a score."""
    return lambda compute: Measure(compute, watch or Watch())


def outcome(measure: Measure, probes: Probes) -> tuple[float, str | None]:
    """A finite score; or NaN, and the reason."""
    try:
        value = measure.compute(probes)
    except UndefinedScoreError as error:
        return math.nan, str(error)
    return (value, None) if math.isfinite(value) else (math.nan, f"the score is {value}: numbers overflow")


def joined(watches: Iterable[Watch]) -> Watch:
    """What any of them asks for."""
    result = Watch()
    for watch in watches:
        asked = {field.name: True for field in fields(watch) if getattr(watch, field.name) is True}
        result = replace(result, **asked)  # type: ignore[arg-type]  # all but `norms` are booleans
    return result
