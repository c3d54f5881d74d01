"""What a network answers to fixed inputs: a view that no change of the weights that keeps the function can alter.

Unlabelled data are the best probes there are where networks share inputs and outputs: 32 of them tell more of a network's accuracy than
anything that reads weights (docs/views.md). Noise and learned probes serve where no data are known.

Shape letters: B = networks, Q = probes, K = outputs of one probe.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nasgraph.errors import UnsupportedOpError
from nasgraph.ir import ComputationalGraph
from nasgraph.meta.views.stack import check_stack, run_stack
from nasgraph.modules import State
from nasgraph.seeding import derive_seed


def noise_probes(graph: ComputationalGraph, count: int, *, seed: int, std: float = 1.0) -> tuple[Tensor, ...]:
    """Standard normal inputs, `[count, *shape]` per input node; the first k of more probes are the k probes.

    Args:
        graph: The architecture whose inputs they fit.
        count: How many.
        seed: Decides the numbers.
        std: Their standard deviation.

    Raises:
        UnsupportedOpError: If an input consists of integers, for which there is no noise: pass data.
        ValueError: If `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"Expected 'count' of at least 1 (got {count})")
    probes = []
    for index in graph.inputs:
        if graph.dtypes[index] == "int":
            raise UnsupportedOpError(
                f"Input {index} consists of integers, which noise cannot stand for: pass data as probes"
            )
        shape, drawn = graph.shapes[index], []
        for number in range(
            count
        ):  # one generator each, for what torch draws first depends on how much it draws
            rng = torch.Generator().manual_seed(derive_seed(seed, "noise probes", index, number))
            drawn.append(torch.randn(shape, generator=rng) * std)
        probes.append(torch.stack(drawn))
    return tuple(probes)


def data_probes(inputs: Float[Tensor, "examples *shape"], count: int, *, seed: int) -> Tensor:
    """A random choice of unlabelled examples, without repetition; the first k of more probes are the k probes.

    Raises:
        ValueError: If there are fewer than `count`.
    """
    if not 1 <= count <= len(inputs):
        raise ValueError(f"Expected 'count' from 1 to the {len(inputs)} examples (got {count})")
    rng = torch.Generator().manual_seed(derive_seed(seed, "data probes"))
    return inputs[torch.randperm(len(inputs), generator=rng)[:count]]


def probe_responses(
    graph: ComputationalGraph,
    stacked: State,
    probes: Sequence[Tensor] | Tensor,
    *,
    edges: Tensor | None = None,
) -> Float[Tensor, "networks columns"]:
    """Outputs of every network for every probe, `[networks, probes * outputs]`, probe by probe. Differentiable.

    Columns mean the same for two architectures whose outputs do, whatever lies between. With several outputs, those of the first come first.

    Args:
        graph: The architecture of all.
        stacked: Their states.
        probes: One tensor per input node, `[probes, *shape]`; a tensor where there is one input.
        edges: Edges between probes for graphs that pass messages, `[2, edges]`.

    Raises:
        StateError: If the stack does not fit the graph.
    """
    check_stack(graph, stacked)
    given = (probes,) if isinstance(probes, Tensor) else tuple(probes)
    return torch.cat([output.flatten(1) for output in run_stack(graph, stacked, given, edges=edges)], dim=1)
