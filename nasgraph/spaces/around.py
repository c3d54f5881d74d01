"""A search space around one graph: its widths, kernels, depths and operators become choices."""

from collections.abc import Sequence
from dataclasses import dataclass

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.spaces.around_blocks import Block
from nasgraph.spaces.around_offers import Offer, Offers, find_offers, node_names
from nasgraph.spaces.around_writer import write_variant
from nasgraph.spaces.space import Architecture, C, Choice, Chooser, SearchSpace, index_of, realise

FAMILIES = ("width", "kernel", "kind", "activation", "pooling", "depth", "branch")
"""Kinds of choices: widths of layers, kernels of convolutions, dense or depthwise-separable convolutions, activations, maximum
or mean in pooling, numbers of repeated blocks, and whether a single residual or gating block is there."""


@dataclass(frozen=True, kw_only=True)
class AroundConfig:
    """What a space around a graph varies.

    Attributes:
        families: Kinds of choices, of `FAMILIES`.
        width_factors: What widths are multiplied with; the width of the graph is always offered.
        multiple_of: New widths are multiples of this number, and of what heads and groups demand.
        kernel_sizes: Sizes of kernels that are offered beside the graph's.
        activations: Activations that are offered beside the graph's.
        shared_activation: Whether all activations of one kind change together.
        repeat: The most blocks of a row, as a multiple of those that the graph has; one more is always offered.
    """

    families: tuple[str, ...] = FAMILIES
    width_factors: tuple[float, ...] = (0.5, 0.75, 1.25, 1.5)
    multiple_of: int = 1
    kernel_sizes: tuple[int, ...] = (1, 3, 5, 7)
    activations: tuple[str, ...] = ("relu", "leaky_relu", "elu", "gelu", "silu", "hardswish")
    shared_activation: bool = True
    repeat: float = 1.5

    def __post_init__(self) -> None:
        unknown = sorted(set(self.families) - set(FAMILIES))
        if unknown:
            raise ValueError(f"Expected 'families' among {', '.join(FAMILIES)} (got {unknown[0]!r})")
        if not all(0 < factor <= 16 for factor in self.width_factors):
            raise ValueError(f"Expected 'width_factors' above 0 and up to 16 (got {self.width_factors})")
        if self.multiple_of < 1 or not 1 <= self.repeat <= 16:
            raise ValueError(
                "Expected 'multiple_of' to be at least 1 and 'repeat' from 1 to 16 "
                f"(got {self.multiple_of} and {self.repeat})"
            )


@dataclass(frozen=True, slots=True)
class FixedPart:
    """Something that a space around a graph leaves as it is: which, and why."""

    what: str
    reason: str


class AroundGraph(SearchSpace):
    """Variants of one graph, the graph itself among them.

    Guaranteed: every combination of answers gives a checked graph with the inputs and outputs of the original; the answers of
    `original` give a graph with the original's fingerprint. Names of choices come from the names of nodes, so they are the same
    whenever the space is made from the same graph and names. The space is a plain object that can be pickled.

    A change of one width changes all that must agree with it: what is added to it, concatenated with it, its norms, groups,
    heads and reshapes. A width that cannot be followed through the graph stays as it is and is listed in `fixed`.

    Args:
        graph: A checked graph.
        name: Name of the space. Studies know a space by its name.
        node_names: A name for every node, `""` where it has none; None: names are made from operators.
        config: What is varied.

    Attributes:
        graph: The original.
        offers: Every choice, with its options and the original's answer, in the order of the graph.
        fixed: What stays as it is, and why.

    Raises:
        NasGraphError: If nothing in the graph can be varied.
    """

    def __init__(
        self,
        graph: ComputationalGraph,
        *,
        name: str,
        node_names: Sequence[str] | None = None,
        config: AroundConfig | None = None,
    ) -> None:
        shape = graph.shapes[graph.outputs[0]]
        super().__init__(input_shape=graph.shapes[graph.inputs[0]], num_classes=shape[-1])
        self.graph = graph
        self._name = name
        config = AroundConfig() if config is None else config
        self._offers: Offers = find_offers(graph, node_names_of(graph, node_names), config)
        self.offers: tuple[Offer, ...] = self._offers.all
        self.fixed = tuple(FixedPart(what, reason) for what, reason in self._offers.fixed)
        if not self.offers:
            listed = "; ".join(f"{part.what}: {part.reason}" for part in self.fixed[:3])
            raise NasGraphError(f"Nothing in this network can be varied{f' ({listed})' if listed else ''}")

    @property
    def name(self) -> str:
        return self._name

    def build(self, choose: Chooser) -> ComputationalGraph:
        return write_variant(self._offers, choose)

    @property
    def original(self) -> Architecture:
        """The choices that give the original graph."""
        candidate, _ = realise(self, _Original({offer.name: offer.original for offer in self.offers}))
        return candidate.architecture

    @property
    def blocks(self) -> tuple[tuple[str, tuple[Block, ...]], ...]:
        """Rows of equal blocks by the name of their choice."""
        return tuple((offer.name, run.blocks) for offer, run in self._offers.runs)


def node_names_of(graph: ComputationalGraph, given: Sequence[str] | None) -> tuple[str, ...]:
    """A name for every node: the given one, or one made from the operator.

    Raises:
        ValueError: If there is not one name for each node.
    """
    if given is not None and len(given) != len(graph):
        raise ValueError(f"Expected one name for each of {len(graph)} nodes (got {len(given)})")
    return node_names(graph, given)


class _Original:
    """Gives the answers of the original."""

    def __init__(self, answers: dict[str, Choice]) -> None:
        self._answers = answers

    def categorical(self, name: str, options: Sequence[C]) -> C:
        place = index_of(options, self._answers[name])
        assert place is not None
        return options[place]

    def integer(self, name: str, low: int, high: int) -> int:  # noqa: ARG002
        return int(self._answers[name])
