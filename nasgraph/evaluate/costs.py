"""What networks cost, by name: known from the graph alone, predicted for a device, looked up, or measured.

    num_parameters          elements of all parameter tensors
    multiply_adds           multiply-accumulate operations of one forward pass, for one example
    memory_bytes            what one forward pass of one example needs at once, see `peak_memory_bytes`
    depth                   nodes on the longest path
    num_nodes               nodes
    latency:DEVICE, energy:DEVICE     from a predictor or a table, where one is given
    latency_ms              measured on this machine; costs a measurement per graph and is not the same twice

Lower is better in all of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType

from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.evaluate.evaluation import Evaluation, InheritingEvaluator, KeepGoing
from nasgraph.evaluate.latency import LatencyConfig, measure_latency
from nasgraph.evaluate.table import Table
from nasgraph.ir import ComputationalGraph, cost_of
from nasgraph.predict import Predictor

CostSource = Callable[[Sequence[ComputationalGraph]], Sequence[float]]
"""One cost of some graphs, in their order; NaN where it is not known."""

LATENCY_MS = "latency_ms"
"""The metric of `nasgraph.evaluate.LatencyEvaluator`."""
BYTES = 4
"""Of one number in single precision."""

_VIEWS = frozenset({"identity", "dropout", "drop_path", "reshape", "flatten", "permute", "slice", "expand"})
"""Operators whose output is the memory of their input, in inference mode."""
_PARAMETER = "parameter"
BACKWARD_AND_FORWARD = 3
FLOPS_PER_MULTIPLY_ADD = 2


def peak_memory_bytes(graph: ComputationalGraph) -> int:
    """Bytes that one forward pass of one example needs at once: parameters, and the activations alive together at most.

    Numbers are in single precision and nodes run in the order of the graph, as `nasgraph.modules.Program` runs them: what a
    node reads and what it writes are alive while it runs, and a value is dropped after its last reader. Views (such as
    reshape) need nothing of their own and keep alive what they look at. Not counted: the work space of an operator,
    and what training keeps (see `Cost.activation_bytes` for that). For a batch of B examples the activations are
    B times as large. Two orders of equal graphs may differ.
    """
    owner = list(range(len(graph)))
    last_use = list(range(len(graph)))
    for index, node in enumerate(graph.nodes):
        if node.op in _VIEWS:
            owner[index] = owner[node.inputs[0]]
        for source in node.inputs:
            last_use[owner[source]] = index
    for index in graph.outputs:
        last_use[owner[index]] = len(graph)
    ends: dict[int, list[int]] = {}
    for index, until in enumerate(last_use):
        ends.setdefault(until, []).append(index)
    alive = peak = 0
    sizes = [
        0 if owner[index] != index or node.op == _PARAMETER else prod(graph.shapes[index])
        for index, node in enumerate(graph.nodes)
    ]
    inputs = set(graph.inputs)
    alive = sum(sizes[index] for index in inputs)  # the caller holds them from the start
    for index in range(len(graph)):
        alive += 0 if index in inputs else sizes[index]
        peak = max(peak, alive)
        alive -= sum(sizes[done] for done in ends.get(index, []))
    parameters = sum(prod(spec.shape) for spec in graph.parameters.values())
    return BYTES * (peak + parameters)


def training_flops(multiply_adds: int, *, num_examples: int, epochs: int) -> float:
    """Floating-point operations of a training: 3 x 2 x multiply-adds x examples x epochs.

    A multiply-add is two operations, and the backward pass costs twice the forward pass, once for the gradient of the activations
    and once for that of the weights (Kaplan et al. 2020, "Scaling laws for neural language models", section 2.1; Amodei and
    Hernandez 2018, "AI and compute"). Norms, activations, the optimiser and validation are not counted.
    """
    return float(BACKWARD_AND_FORWARD * FLOPS_PER_MULTIPLY_ADD * multiply_adds * num_examples * epochs)


GRAPH_COSTS: Mapping[str, Callable[[ComputationalGraph], float]] = MappingProxyType(
    {
        "num_parameters": lambda graph: float(cost_of(graph).num_parameters),
        "multiply_adds": lambda graph: float(cost_of(graph).multiply_adds),
        "memory_bytes": lambda graph: float(peak_memory_bytes(graph)),
        "depth": lambda graph: float(cost_of(graph).depth),
        "num_nodes": lambda graph: float(len(graph)),
    }
)
"""Costs that the graph alone decides, by name."""


@dataclass(frozen=True)
class GraphCosts:
    """Costs of graphs by name.

    Attributes:
        sources: Costs beside `GRAPH_COSTS`, by names such as `latency:pixel3`. See `predicted_cost`,
            `tabulated_cost` and `measured_latency`.

    Raises:
        ConfigError: If a source has the name of a cost that the graph decides.
    """

    sources: Mapping[str, CostSource] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.sources:
            if name in GRAPH_COSTS:
                raise ConfigError(
                    f"The cost '{name}' is decided by the graph: it can have no source of its own"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Every cost that is known here: those of the graph first, which are cheap, then the others."""
        return (*GRAPH_COSTS, *self.sources)

    def check(self, names: Sequence[str]) -> None:
        """Raise `UnknownNameError` for the first name that is no known cost; the message says where costs come from."""
        for name in names:
            if name not in self.names:
                raise UnknownNameError("cost of a graph", name, self.names, hint=_hint(name))

    def of(self, graphs: Sequence[ComputationalGraph], name: str) -> list[float]:
        """One cost of some graphs, in their order; NaN where a source does not know it.

        Raises:
            UnknownNameError: If there is no cost of that name.
            ValueError: If a source gives another number of values than there are graphs.
        """
        self.check([name])
        if name in GRAPH_COSTS:
            return [GRAPH_COSTS[name](graph) for graph in graphs]
        values = [float(value) for value in self.sources[name](graphs)]
        if len(values) != len(graphs):
            raise ValueError(f"Expected {len(graphs)} values of '{name}' from its source (got {len(values)})")
        return values

    def __call__(
        self, graphs: Sequence[ComputationalGraph], *, names: Sequence[str]
    ) -> list[dict[str, float]]:
        """The named costs of each graph. See `of` for what is raised."""
        columns = [self.of(graphs, name) for name in names]
        return [
            {name: column[row] for name, column in zip(names, columns, strict=True)}
            for row in range(len(graphs))
        ]


def predicted_cost(predictor: Predictor) -> CostSource:
    """What a fitted predictor says, such as a `HardwarePredictor` of one device, in its unit."""

    def source(graphs: Sequence[ComputationalGraph]) -> list[float]:
        return [float(value) for value in predictor.predict(graphs).mean] if graphs else []

    return source


def tabulated_cost(table: Table, metric: str) -> CostSource:
    """A column of a table, by the fingerprint of the graph; NaN for a graph that the table lacks. Rows of one graph are averaged.

    Raises:
        UnknownNameError: If the table has no such column.
        ConfigError: If higher is better in that column.
    """
    if table.metric(metric).higher_is_better:
        raise ConfigError(f"Expected a cost, where lower is better (got '{metric}' of '{table.info.name}')")

    def source(graphs: Sequence[ComputationalGraph]) -> list[float]:
        values = []
        for graph in graphs:
            rows = table.rows_of_fingerprint(graph.fingerprint)
            found = [value for row in rows if math.isfinite(value := table.value(row, metric))]
            values.append(sum(found) / len(found) if found else math.nan)
        return values

    return source


def measured_latency(config: LatencyConfig | None = None) -> CostSource:
    """The median latency in milliseconds, measured on this machine anew at every call. Not the same twice.

    As a hard constraint it makes the trajectory of a search depend on the noise of the machine.
    """

    def source(graphs: Sequence[ComputationalGraph]) -> list[float]:
        return [measure_latency(graph, config=config).median_ms for graph in graphs]

    return source


@dataclass(frozen=True)
class CostedEvaluator:
    """Adds costs of the graph to what another evaluator measures, so that a search can optimise them. An `Evaluator`.

    Attributes:
        evaluate: Measures the candidate, an `Evaluator`; its metrics win where names are equal.
        names: Costs to add, each known to `costs`.
        costs: Knows the costs.

    Raises:
        UnknownNameError: If a cost is not known.
    """

    evaluate: Callable[..., Evaluation]  # an `Evaluator`, which runtime type checks cannot test
    names: tuple[str, ...]
    costs: GraphCosts = field(default_factory=GraphCosts)

    def __post_init__(self) -> None:
        self.costs.check(self.names)

    def __call__(self, graph: ComputationalGraph, *, seed: int, keep_going: KeepGoing) -> Evaluation:
        """Measure, and add the costs. Raises what the other evaluator raises."""
        (costs,) = self.costs([graph], names=self.names)
        evaluation = self.evaluate(graph, seed=seed, keep_going=keep_going)
        return replace(evaluation, metrics={**costs, **evaluation.metrics})

    def from_parent(self, parent: str) -> "CostedEvaluator":
        """The evaluator that starts from what a parent learnt, if the other evaluator can. See `InheritingEvaluator`."""
        evaluate: object = self.evaluate
        if not isinstance(evaluate, InheritingEvaluator):
            return self
        return replace(self, evaluate=evaluate.from_parent(parent))


def _hint(name: str) -> str:
    if name == LATENCY_MS:
        return "It is measured: give it as a source, 'measured_latency()'."
    if name.startswith(("latency:", "energy:")):
        return "Give a predictor or a table of that device as a source."
    return ""
