"""What a proxy is given and what it gives."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from nasgraph.data import Split
from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph

Network = nn.Module | ComputationalGraph
"""What is scored: a module with the parameters that it has, or a graph whose initial parameters a seed draws."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""The loss of outputs and targets: a scalar, the mean over examples."""


class UndefinedScoreError(NasGraphError, ValueError):
    """A proxy has no value for this network and batch. Its text is the reason, one sentence for a user."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """One mini-batch for a module: any number of inputs of any type. A `Split` does for one real-valued input.

    Args:
        inputs: What the module is called with; the examples lie along the first axis of each.
        targets: Class numbers (whole numbers) or values to regress on; None: proxies with a loss have no value.

    Raises:
        ValueError: If there is no input, or the numbers of examples differ.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.inputs or any(tensor.dim() == 0 for tensor in self.inputs):
            raise ValueError("Expected at least one input, and inputs with a batch axis")
        sizes = {len(tensor) for tensor in self.inputs} | (
            {len(self.targets)} if self.targets is not None else set()
        )
        if len(sizes) != 1:
            raise ValueError(
                f"Expected one number of examples in all inputs and targets (got {sorted(sizes)})"
            )

    def __len__(self) -> int:
        return len(self.inputs[0])

    def part(self, start: int, stop: int) -> "Examples":
        """The examples from `start` up to `stop`."""
        targets = None if self.targets is None else self.targets[start:stop]
        return Examples(tuple(tensor[start:stop] for tensor in self.inputs), targets)


Batch = Split | Examples
"""One mini-batch. Its inputs lie on the device to compute on."""


def as_examples(batch: Batch) -> Examples:
    """The batch in its general form."""
    return batch if isinstance(batch, Examples) else Examples((batch.inputs,), batch.targets)


@runtime_checkable
class Proxy(Protocol):
    """Scores one graph without training. What plug-ins of the group `nasgraph.proxies` offer.

    Higher is better, but for `plain`, whose sign is that of its definition. NaN where the score is not defined, such as
    for a constant network; a plug-in may raise `UndefinedScoreError` with the reason instead. Equal arguments
    give an equal score on one machine. Called by one thread at a time; mutates nothing.
    """

    def __call__(self, graph: ComputationalGraph, batch: Split, /, *, seed: int) -> float:
        """Score a graph with one output.

        Args:
            graph: Not changed.
            batch: Examples to look at, on the device to compute on. Proxies without data only take their device.
            seed: Seed of the random weights, for proxies that draw any.
        """


@dataclass(frozen=True, eq=False)
class ProxyScores(Mapping[str, float]):
    """Some proxies of one network, by name: a mapping, whose values are finite or NaN.

    Attributes:
        scores: Score by name.
        reasons: Why a score is NaN, for each one that is.
    """

    scores: dict[str, float]
    reasons: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)
