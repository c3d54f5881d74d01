"""Inputs as a worse sensor would give them: noise and blur, the same for every network.

An example's noise follows from its number in the split and a seed. So it does not depend on the batch size, on which examples
are measured with it, or on the network, and numbers of different networks can be compared.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float32
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.ir import ComputationalGraph
from nasgraph.modules import Program, RunContext, buffers_by_node, constants_by_node
from nasgraph.seeding import generator

Kind = Literal["none", "noise", "blur"]


@dataclass(frozen=True, slots=True)
class Corruption:
    """How inputs are changed before a network sees them.

    Attributes:
        kind: "noise": normal numbers are added to every element of the normalised input. "blur": images are blurred by a
            Gaussian, with their borders repeated. "none": nothing is changed.
        level: Standard deviation: of the noise in units of the normalised input, of the blur in pixels.
        seed: Decides the noise.

    Raises:
        ValueError: If the level is not positive and finite, or not zero for "none".
    """

    kind: Kind = "none"
    level: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind == "none" and self.level != 0.0:
            raise ValueError(f"Expected level 0 where nothing is changed (got {self.level})")
        if self.kind != "none" and not 0.0 < self.level <= 1000.0:
            raise ValueError(f"Expected a level above 0 and up to 1000 (got {self.level})")

    def apply(
        self, inputs: Float32[Tensor, "examples *shape"], *, first: int = 0
    ) -> Float32[Tensor, "examples *shape"]:
        """The changed inputs, a new tensor unless nothing is changed.

        Args:
            inputs: Normalised inputs of examples that follow each other.
            first: Number of the first one in its split.

        Raises:
            ValueError: If what is to be blurred is no image.
        """
        if self.kind == "noise":
            return _with_noise(inputs, self.level, self.seed, first)
        return _blurred(inputs, self.level) if self.kind == "blur" else inputs


def _with_noise(inputs: Tensor, level: float, seed: int, first: int) -> Tensor:
    """Drawn by numpy, whose normal numbers are the same on all processors. A larger level scales the same noise."""
    noise = torch.empty(inputs.shape, dtype=torch.float32)
    for row in range(len(inputs)):
        rng = generator(seed, "input-noise", first + row)
        noise[row] = torch.from_numpy(rng.standard_normal(tuple(inputs.shape[1:]), dtype="float32"))
    return inputs + level * noise.to(inputs.device)


def _blurred(inputs: Tensor, sigma: float) -> Tensor:
    if inputs.ndim != 4:
        raise ValueError(
            f"Expected images to blur, [examples, channels, height, width] (got {list(inputs.shape)})"
        )
    for axis in (2, 3):
        reach = min(math.ceil(3 * sigma), inputs.shape[axis] - 1)
        places = torch.arange(-reach, reach + 1, dtype=torch.float32, device=inputs.device)
        weights = torch.exp(-(places**2) / (2 * sigma**2))
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        kernel = (weights / weights.sum()).reshape(shape).expand(inputs.shape[1], -1, -1, -1)
        amounts = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        inputs = F.conv2d(F.pad(inputs, amounts, mode="replicate"), kernel, groups=inputs.shape[1])
    return inputs


def measure_logits(
    graph: ComputationalGraph,
    state: Mapping[str, Tensor],
    split: Split,
    *,
    batch_size: int,
    corruption: Corruption | None = None,
) -> Float32[Tensor, "examples classes"]:
    """The output of a network on every example of a split, in inference mode, on the device of the split.

    Examples are batched as `nasgraph.evaluate.measure` does it, and constants of the graph are read from the state. Same
    arguments and the same number of threads, same result, bit by bit, on one machine.

    Args:
        graph: The network.
        state: Parameters, running statistics and constants by name.
        split: Examples, on the device of `state`. Nodes of a data graph see the whole graph, in one pass.
        batch_size: Examples per forward pass, if they stand alone.
        corruption: How the inputs are changed first; None: not at all.

    Raises:
        ValueError: If the network has several outputs, or if the inputs of nodes of a data graph are to be changed: they are bags of words, which noise or blur would
            make something else of.
    """
    if len(graph.outputs) != 1:
        raise ValueError(f"Expected a network with one output, the logits (got {len(graph.outputs)})")
    program, constants = Program(graph), constants_by_node(state)
    buffers = buffers_by_node({name: tensor for name, tensor in state.items() if "running_" in name})
    corruption = corruption or Corruption()
    if split.nodes is not None:
        if corruption.kind != "none":
            raise ValueError(
                f"Expected examples that stand alone, to add '{corruption.kind}' (got nodes of a graph)"
            )
        data = split.nodes.graph
        context = RunContext(len(data.features), buffers=buffers, constants=constants, edges=data.edges)
        with torch.inference_mode():
            (logits,) = program(state, [data.features], context)
        return logits[split.nodes.index]
    parts = []
    with torch.inference_mode():
        for start in range(0, max(1, len(split) - 1), batch_size):
            stop = len(split) if start + batch_size >= len(split) - 1 else start + batch_size
            inputs = corruption.apply(split.inputs[start:stop], first=start)
            context = RunContext(len(inputs), buffers=buffers, constants=constants)
            (logits,) = program(state, [inputs], context)
            parts.append(logits)
    return torch.cat(parts)


__all__ = ["Corruption", "measure_logits"]
