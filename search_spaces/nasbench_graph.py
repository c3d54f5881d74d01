"""The cells of NAS-Bench-Graph (Qin et al., "NAS-Bench-Graph: Benchmarking Graph Neural Architecture Search", 2022)."""

from collections.abc import Sequence

from nasgraph.errors import InvalidChoiceError, NasGraphError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.spaces import Architecture, Chooser, SearchSpace

OPERATIONS = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip")
"""The nine operations, in the order of the benchmark's table. `graph` is the k-GNN of Morris et al. (2019)."""
LINKS = ("0000", "0001", "0011", "0012", "0013", "0111", "0112", "0122", "0123")
"""The nine shapes of a cell: what each of four nodes reads, 0 the features and `i` node `i`."""
NAME = "nasbench-graph"
_ON_FEATURES = OPERATIONS[:-1]


class NASBenchGraph(SearchSpace):
    """Four nodes that read one value each: the features, or an earlier node.

    Each operation but `skip` is followed by a batch norm and the ReLU; nodes that no other reads are concatenated, and two
    linear layers follow. As in the benchmark, a node that reads the features can be a `skip` only where no other node
    reads them and one reads it, so that features never come out raw. `skip` adds no node, and
    what is concatenated stands in an order that does not depend on the numbers of the nodes, so that architectures which
    the benchmark counts as one have one graph: 26,206 in all. Parameter counts equal the published ones of Cora with
    `hidden_dim` 256, but for a matrix that PyG's ARMA layer holds and does not use, and for the norms that the benchmark
    gives to `skip`. The number of attention heads is not in the published table.

    Args:
        input_shape: `(features,)` of one node.
        num_classes: Length of the output.
        hidden_dim: Width of all nodes. Even, for the two heads of `gat`.

    Raises:
        NasGraphError: If the input is no vector, or a setting is out of bounds.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_classes: int, hidden_dim: int = 64) -> None:
        super().__init__(input_shape=input_shape, num_classes=num_classes)
        if len(self.input_shape) != 1 or self.input_shape[0] < 1:
            raise NasGraphError(
                f"The space '{NAME}' expects nodes of a graph with one vector of features each (got shape {self.input_shape})"
            )
        if num_classes < 1 or hidden_dim < 2 or hidden_dim % 2:
            raise NasGraphError(
                "Expected 'num_classes' of at least 1 and 'hidden_dim' to be even and above 0 "
                f"(got {num_classes} and {hidden_dim})"
            )
        self._hidden_dim = hidden_dim

    @property
    def name(self) -> str:
        return NAME

    def build(self, choose: Chooser) -> ComputationalGraph:
        link = [int(source) for source in choose.categorical("link", LINKS)]
        graph = GraphBuilder()
        values, texts, operations = [graph("input", shape=self.input_shape)], ["x"], list[str]()
        for place, source in enumerate(link, start=1):
            operation = choose.categorical(*_question(link, place, texts[source]))
            operations.append(operation)
            is_skip = operation == "skip"
            values.append(values[source] if is_skip else self._apply(graph, operation, values[source]))
            texts.append(texts[source] if is_skip else f"{operation}({texts[source]})")
        x = self._joined(graph, values, _outputs(link, operations, values, texts))
        x = graph("relu", graph("linear", x, out_features=self._hidden_dim))
        return graph.finish(graph("linear", x, out_features=self.num_classes))

    def _apply(self, graph: GraphBuilder, operation: str, x: int) -> int:
        if operation == "fc":
            x = graph("linear", x, out_features=self._hidden_dim)
        else:
            settings: dict[str, object] = {"num_heads": 2} if operation == "gat" else {}
            x = graph(f"{operation}_conv", x, out_features=self._hidden_dim, **settings)
        return graph("relu", graph("batch_norm", x))

    def _joined(self, graph: GraphBuilder, values: Sequence[int], outputs: Sequence[int]) -> int:
        found = [values[node] for node in outputs]
        return found[0] if len(found) == 1 else graph("concat", *found, axis=0)


def _outputs(
    link: Sequence[int], operations: Sequence[str], values: Sequence[int], texts: Sequence[str]
) -> list[int]:
    """Nodes that no other reads, by what they compute and then by what else is made of the same value."""
    unread = [node for node in range(1, len(values)) if node not in link]

    def others(node: int) -> list[str]:
        readers = [
            texts[place]
            for place, source in enumerate(link, start=1)
            if values[source] == values[node] and operations[place - 1] != "skip"
        ]
        return sorted(readers)

    return sorted(unread, key=lambda node: (texts[node], others(node)))


def architecture_of(link: Sequence[int], operations: Sequence[str]) -> Architecture:
    """The architecture of a row of the benchmark's table.

    Raises:
        InvalidChoiceError: If the benchmark has no such cell.
    """
    shape = "".join(str(int(source)) for source in link)
    if shape not in LINKS or len(operations) != 4:
        raise InvalidChoiceError(
            f"Expected one of the links {', '.join(LINKS)} and 4 operations (got {shape!r:.60})"
        )
    choices, texts = [("link", shape)], ["x"]
    for place, operation in enumerate(operations, start=1):
        text = texts[int(shape[place - 1])]
        name, options = _question([int(source) for source in shape], place, text)
        if operation not in options:
            raise InvalidChoiceError(f"Node {place} cannot be {operation!r:.60}")
        choices.append((name, operation))
        texts.append(text if operation == "skip" else f"{operation}({text})")
    return Architecture(NAME, tuple(choices))


def _question(link: Sequence[int], place: int, text: str) -> tuple[str, tuple[str, ...]]:
    """Name and options of a node's operation; `text` says what it reads. Other options have another name."""
    may_skip = text != "x" or (link.count(link[place - 1]) == 1 and place in link)
    return (f"op_{place}", OPERATIONS) if may_skip else (f"op_{place}_on_features", _ON_FEATURES)
