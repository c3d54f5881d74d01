"""Layered drawing of a directed acyclic graph: where boxes stand and how edges run. Pure geometry, no graph language.

Sugiyama's method: longest-path layers, a dummy vertex wherever a long edge passes a layer (`network`), barycentre
sweeps against crossings (`ordering`), quadratic placement (`placing`), and tall drawings broken into columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from nasgraph.draw.columns import Columns, break_into_columns
from nasgraph.draw.network import Edge, Network
from nasgraph.draw.ordering import order_rows
from nasgraph.draw.placing import place_rows

Run = tuple[float, float, float]
"""A vertical piece of an edge: x, and y from and to. Curves lead from one run to the next."""

LAYER_GAP = 34.0
PORT_GAP = 16.0


@dataclass(frozen=True, slots=True)
class Layout:
    """A finished drawing. Coordinates in pixels, y downwards, none negative.

    Attributes:
        centres: Middle of each vertex.
        routes: For each edge, in the order given, its vertical runs from the source to the target. All lead down but
            those that carry a value up to the top of the next column.
        width: Extent of the drawing.
        height: Extent of the drawing.
    """

    centres: tuple[tuple[float, float], ...]
    routes: tuple[tuple[Run, ...], ...]
    width: float
    height: float


def place_vertices(
    sizes: Sequence[tuple[float, float]], edges: Sequence[Edge], *, together: Sequence[range] = ()
) -> Layout:
    """Draw a graph. Equal arguments give an equal drawing.

    Guaranteed: boxes do not overlap, every target stands below its source or in a later column, and edges cross no
    box.

    Args:
        sizes: Width and height of each vertex.
        edges: From smaller to larger vertices; several between the same two are allowed.
        together: Vertices that must not be torn apart by columns.
    """
    network = Network(sizes, edges)
    order_rows(network)
    return _Drawing(network, place_rows(network), together).layout()


class _Drawing:
    """Turns places in rows into coordinates."""

    def __init__(self, network: Network, xs: Sequence[float], together: Sequence[range]) -> None:
        self.network, self.xs = network, [round(x, 1) for x in xs]
        self.tops, self.bottoms = self._vertical()
        self.columns: Columns = break_into_columns(
            network, self.xs, self.tops, self.bottoms, together=together
        )

    def layout(self) -> Layout:
        ports = self._ports()
        return Layout(
            centres=tuple(
                (self._x(vertex), self._middle(vertex)) for vertex in range(len(self.network.sizes))
            ),
            routes=tuple(
                self._route(path, port) for path, port in zip(self.network.paths, ports, strict=True)
            ),
            width=self.columns.width,
            height=self.columns.height,
        )

    def _vertical(self) -> tuple[list[float], list[float]]:
        """Top and bottom of every row. The gap grows with how far edges go sideways in it."""
        tops, bottoms, y = [], [], 0.0
        for row in self.network.rows:
            tops.append(round(y, 1))
            bottoms.append(round(y + max(self.network.size(vertex)[1] for vertex in row), 1))
            steps = [(vertex, lower) for vertex in row for lower in self.network.below[vertex]]
            sideways = max((abs(self.xs[upper] - self.xs[lower]) for upper, lower in steps), default=0.0)
            y = bottoms[-1] + LAYER_GAP + min(0.08 * sideways, 46.0)
        return tops, bottoms

    def _x(self, vertex: int) -> float:
        return round(self.xs[vertex] + self.columns.shifts[self.network.layer[vertex]][0], 1)

    def _top(self, vertex: int) -> float:
        layer = self.network.layer[vertex]
        return round(self.tops[layer] + self.columns.shifts[layer][1], 1)

    def _bottom(self, vertex: int) -> float:
        layer = self.network.layer[vertex]
        return round(self.bottoms[layer] + self.columns.shifts[layer][1], 1)

    def _middle(self, vertex: int) -> float:
        return round((self._top(vertex) + self._bottom(vertex)) / 2, 1)

    def _route(self, path: Sequence[int], port: float) -> tuple[Run, ...]:
        source, target = path[0], path[-1]
        half = self.network.size(source)[1] / 2, self.network.size(target)[1] / 2
        first = (self._x(source), round(self._middle(source) + half[0], 1), self._bottom(source))
        runs = [(self._x(dummy), self._top(dummy), self._bottom(dummy)) for dummy in path[1:-1]]
        last = (port, self._top(target), round(self._middle(target) - half[1], 1))
        channel = self.columns.channel_after(self.network.layer[source])
        if channel is None:
            return (first, *runs, last)
        x, bottom, top = channel
        entry = round(self.xs[source] + self.columns.shifts[self.network.layer[source] + 1][0], 1)
        return ((first[0], first[1], bottom), (x, bottom, top), (entry, top, top + 4), *runs, last)

    def _ports(self) -> list[float]:
        """Where each edge ends on top of its target: side by side in the order of arrival, one straight if it can."""
        ports = [self._x(target) for _, target in self.network.edges]
        arriving: dict[int, list[int]] = {}
        for edge, (_, target) in enumerate(self.network.edges):
            arriving.setdefault(target, []).append(edge)
        for target, edges in arriving.items():
            if len(edges) == 1:
                continue
            from_x = {edge: self.xs[self.network.paths[edge][-2]] for edge in edges}
            edges.sort(key=lambda edge: from_x[edge])
            step = min(PORT_GAP, (self.network.size(target)[0] - 24) / (len(edges) - 1))
            straight = [n for n, edge in enumerate(edges) if abs(from_x[edge] - self.xs[target]) < 1]
            middle = straight[0] if len(straight) == 1 and len(edges) <= 3 else (len(edges) - 1) / 2
            for position, edge in enumerate(edges):
                ports[edge] = round(ports[edge] + (position - middle) * step, 1)
        return ports
