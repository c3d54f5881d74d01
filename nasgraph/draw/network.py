"""The layered network that a drawing is computed on: vertices in rows, and dummies where long edges pass."""

from collections.abc import Sequence

Edge = tuple[int, int]

BOX_GAP = 26.0
EDGE_GAP = 18.0


def layers_of(num_vertices: int, edges: Sequence[Edge]) -> tuple[int, ...]:
    """Layer of each vertex: the longest path that leads to it. Vertices without inputs stand just above their readers.

    Args:
        num_vertices: Vertices `0 .. num_vertices - 1`.
        edges: From smaller to larger vertices.
    """
    layers = [0] * num_vertices
    readers: list[list[int]] = [[] for _ in layers]
    has_input = [False] * num_vertices
    for source, target in sorted(edges, key=lambda edge: edge[1]):
        layers[target] = max(layers[target], layers[source] + 1)
        readers[source].append(target)
        has_input[target] = True
    for vertex in range(num_vertices):
        if readers[vertex] and not has_input[vertex]:
            layers[vertex] = min(layers[target] for target in readers[vertex]) - 1
    return tuple(layers)


class Network:
    """The vertices and, after them, dummies: one per source and layer that an edge from that source passes.

    All long edges from one source share their dummies, since they carry the same value.

    Attributes:
        sizes: Width and height of the real vertices.
        edges: As given.
        layer: Layer of every vertex, dummies included.
        above: For every vertex those that lead to it from the layer above.
        below: For every vertex those that it leads to in the layer below.
        paths: For each edge the vertices along it, both ends included.
        rows: The vertices of each layer from left to right; ordering changes it.
    """

    def __init__(self, sizes: Sequence[tuple[float, float]], edges: Sequence[Edge]) -> None:
        self.sizes, self.edges = sizes, edges
        self.layer = list(layers_of(len(sizes), edges))
        self.above: list[list[int]] = [[] for _ in sizes]
        self.below: list[list[int]] = [[] for _ in sizes]
        self.paths: list[list[int]] = []
        trunks = [[vertex] for vertex in range(len(sizes))]
        for source, target in edges:
            trunk, length = trunks[source], self.layer[target] - self.layer[source]
            while len(trunk) < length:
                trunk.append(self._add_dummy(below=trunk[-1]))
            self._connect(trunk[length - 1], target)
            self.paths.append([*trunk[:length], target])
        self.rows: list[list[int]] = [[] for _ in range(max(self.layer, default=-1) + 1)]
        for vertex, layer in enumerate(self.layer):
            self.rows[layer].append(vertex)

    def _add_dummy(self, *, below: int) -> int:
        self.layer.append(self.layer[below] + 1)
        self.above.append([])
        self.below.append([])
        self._connect(below, len(self.layer) - 1)
        return len(self.layer) - 1

    def _connect(self, upper: int, lower: int) -> None:
        self.below[upper].append(lower)
        self.above[lower].append(upper)

    def is_dummy(self, vertex: int) -> bool:
        """Whether a vertex stands for an edge that passes."""
        return vertex >= len(self.sizes)

    def size(self, vertex: int) -> tuple[float, float]:
        """Width and height; nothing for dummies."""
        return (0.0, 0.0) if self.is_dummy(vertex) else self.sizes[vertex]

    def separation(self, left: int, right: int) -> float:
        """Least distance between the middles of two neighbours in a row."""
        gap = EDGE_GAP if self.is_dummy(left) and self.is_dummy(right) else BOX_GAP
        return (self.size(left)[0] + self.size(right)[0]) / 2 + gap

    def places(self) -> list[float]:
        """Place of every vertex in its row, between 0 and 1."""
        place = [0.0] * len(self.layer)
        for row in self.rows:
            for position, vertex in enumerate(row):
                place[vertex] = (position + 0.5) / len(row)
        return place
