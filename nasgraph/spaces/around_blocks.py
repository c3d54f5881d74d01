"""Blocks of a graph: parts with one entry and one exit of the same shape, alone or repeated.

A segment leads from one node to another: all paths to the second go through the first, and from what lies between all go through
the second. Segments stand in rows: along the graph, and within its branches. A block is one or more segments in a row; a
run is a row of blocks that are isomorphic. What does not depend on the first input (parameters, constants, masks) belongs to
the segment that reads it, if one alone does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from nasgraph.ir import ComputationalGraph, Node


@dataclass(frozen=True, slots=True)
class Block:
    """Nodes that turn the value of `entry` into that of `exit`, which is one of them."""

    entry: int
    exit: int
    nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Equal blocks in a row.

    Attributes:
        blocks: In order; each enters where the one before it exits.
        is_repeatable: Whether a block can stand once more: it holds no constants, whose content nobody would know.
        ends: Nodes at which the segments of the blocks end.
    """

    blocks: tuple[Block, ...]
    is_repeatable: bool
    ends: frozenset[int]

    @property
    def nodes(self) -> frozenset[int]:
        """The nodes of all blocks."""
        return frozenset(node for block in self.blocks for node in block.nodes)


@dataclass(frozen=True)
class BlockFinder:
    """Finds runs and single blocks of a graph.

    Args:
        graph: A checked graph.
        names: A name for every node.
    """

    graph: ComputationalGraph
    names: Sequence[str]

    @cached_property
    def _dominators(self) -> dict[int, int]:
        """For every node that depends on the first input, the last node that all paths to it go through; -1 for the input."""
        first = self.graph.inputs[0]
        above, depth = {first: -1}, {first: 0, -1: -1}
        for index, node in enumerate(self.graph.nodes):
            sources = [source for source in node.inputs if source in above]
            if sources:
                common = self._common(sources, above, depth)
                above[index], depth[index] = common, depth[common] + 1
        return above

    def _common(self, nodes: Sequence[int], above: dict[int, int], depth: dict[int, int]) -> int:
        common = nodes[0]
        for other in nodes[1:]:
            while common != other:
                if depth[common] >= depth[other]:
                    common = above[common]
                else:
                    other = above[other]
        return common

    @cached_property
    def _post_dominators(self) -> dict[int, int]:
        """For every node that depends on the first input, the next node that all paths from it go through; the number of nodes
        stands for the end."""
        end = len(self.graph)
        below, depth = {end: -1}, {end: 0}
        readers: dict[int, list[int]] = {index: [] for index in self._dominators}
        for output in self.graph.outputs:
            readers.setdefault(output, []).append(end)
        for index in sorted(self._dominators, reverse=True):
            common = self._common(readers[index], below, depth)
            below[index], depth[index] = common, depth[common] + 1
            for source in self.graph.nodes[index].inputs:
                if source in self._dominators:
                    readers[source].append(index)
        return below

    @cached_property
    def _chains(self) -> list[list[Block]]:
        """Segments in rows, each entering where the one before it ends. Where paths part, rows begin."""
        chains: list[list[Block]] = []
        ending: dict[int, list[Block]] = {}  # rows by the node at which they end
        for leaves, entry in sorted(self._dominators.items()):
            if entry == -1 or not self._is_closed(entry, leaves):
                continue
            chain = ending.get(entry) if self._post_dominators[entry] == leaves else None
            if chain is None:
                chain = []
                chains.append(chain)
            chain.append(self._segment(entry, leaves))
            ending[leaves] = chain
        return chains

    def _is_closed(self, entry: int, leaves: int) -> bool:
        """Whether all that lies between two nodes leads to the second alone."""
        inside = set(self._between(entry, leaves))
        return all(self._post_dominators.get(index, leaves) in inside for index in inside - {leaves})

    def _segment(self, entry: int, leaves: int) -> Block:
        """What lies between two nodes, together with what only it reads."""
        inside: set[int] = set()
        for index in reversed(self._between(entry, leaves)):
            depends = index in self._dominators
            if depends or (self.graph.nodes[index].op != "input" and self._readers[index] <= inside):
                inside.add(index)
        return Block(entry, leaves, tuple(sorted(inside)))

    @cached_property
    def _readers(self) -> list[set[int]]:
        """Who reads each node; the number of nodes stands for those who want the outputs."""
        readers: list[set[int]] = [set() for _ in self.graph.nodes]
        for index, node in enumerate(self.graph.nodes):
            for source in node.inputs:
                readers[source].add(index)
        for output in self.graph.outputs:
            readers[output].add(len(self.graph))
        return readers

    @cached_property
    def _with_parameters(self) -> frozenset[int]:
        return frozenset(int(name[1:].partition(".")[0]) for name in self.graph.parameters)

    def _signature(self, block: Block) -> str:
        """Equal for blocks that compute the same with parameters of their own."""
        place = {block.entry: 0}
        nodes = [self._as_input(block.entry)]
        outside: list[int] = []
        for index in block.nodes:
            for source in self.graph.nodes[index].inputs:
                if source not in place and source not in block.nodes:
                    place[source] = len(nodes)
                    nodes.append(self._as_input(source))
                    outside.append(source)
        for index in block.nodes:
            node = self.graph.nodes[index]
            place[index] = len(nodes)
            nodes.append(Node(node.op, tuple(place[source] for source in node.inputs), node.attrs))
        graph = ComputationalGraph(tuple(nodes), (place[block.exit],))
        return f"{graph.fingerprint} {outside}"

    def _as_input(self, index: int) -> Node:
        attrs = (("dtype", self.graph.dtypes[index]), ("shape", self.graph.shapes[index]))
        return Node("input", (), attrs)

    def runs(self) -> tuple[Run, ...]:
        """Rows of two or more equal blocks with parameters, none within another; the largest first claim their nodes."""
        found = [
            self._run(chain[start : start + period * count], period)
            for chain in self._chains
            for period, start, count in self._rows(chain)
        ]
        found.sort(key=lambda run: (-len(run.nodes), -len(run.blocks), run.blocks[0].entry))
        taken: set[int] = set()
        runs: list[Run] = []
        for run in found:
            if taken.isdisjoint(run.nodes):
                taken |= run.nodes
                runs.append(run)
        return tuple(sorted(runs, key=lambda run: run.blocks[0].entry))

    def _rows(self, chain: Sequence[Block]) -> Iterator[tuple[int, int, int]]:
        """Where blocks repeat: segments of a block, first segment, number of blocks."""
        if len(chain) < 2:
            return
        labels = [self._signature(segment) for segment in chain]
        for period in range(1, len(labels) // 2 + 1):
            for start, count in self._repetitions(chain, labels, period):
                yield period, start, count

    def _repetitions(
        self, chain: Sequence[Block], labels: Sequence[str], period: int
    ) -> list[tuple[int, int]]:
        """Where blocks of `period` segments repeat, and how often."""
        result: list[tuple[int, int]] = []
        start = 0
        while start + 2 * period <= len(labels):
            end = start + period
            while end < len(labels) and labels[end] == labels[end - period]:
                end += 1
            count = (end - start) // period
            if count >= 2 and self._is_block(chain[start : start + period]):
                length = count * period
                best = max(
                    range(start, end - length + 1),
                    key=lambda at: (*self._agreement(chain[at : at + length], period), -at),
                )
                result.append((best, count))
            start = max(start + 1, end - period + 1) if end > start + period else start + 1
        return result

    def _is_block(self, segments: Sequence[Block]) -> bool:
        """Whether what the segments give has the shape of what they read, and they read parameters, maybe shared ones."""
        entry, leaves, graph = segments[0].entry, segments[-1].exit, self.graph
        same = (graph.shapes[entry], graph.dtypes[entry]) == (graph.shapes[leaves], graph.dtypes[leaves])
        nodes = [node for segment in segments for node in segment.nodes]
        read = {source for node in nodes for source in graph.nodes[node].inputs} - {entry}
        return same and not self._with_parameters.isdisjoint({*nodes, *read})

    def _agreement(self, segments: Sequence[Block], period: int) -> tuple[int, bool]:
        """How much of their names the nodes of a block have in common, over all blocks: where people begin a block. Else,
        whether the first segment has parameters: a layer and its activation rather than the other way round."""
        paths = [[self.names[n] for n in segment.nodes if n in self._with_parameters] for segment in segments]
        shared = sum(
            len(common_path([path for part in paths[at : at + period] for path in part]))
            for at in range(0, len(paths), period)
        )
        return shared, bool(paths[0])

    def _run(self, segments: Sequence[Block], period: int) -> Run:
        blocks = []
        for start in range(0, len(segments), period):
            part = segments[start : start + period]
            nodes = tuple(sorted({node for segment in part for node in segment.nodes}))
            blocks.append(Block(part[0].entry, part[-1].exit, nodes))
        is_repeatable = all(self.graph.nodes[node].op != "constant" for node in blocks[-1].nodes)
        return Run(tuple(blocks), is_repeatable, frozenset(segment.exit for segment in segments))

    def branches(self, taken: Sequence[Run]) -> tuple[Block, ...]:
        """Single blocks that are added to their input, or scale it, and are no block of a run themselves."""
        ends = {end for run in taken for end in run.ends}
        result = []
        for index, node in enumerate(self.graph.nodes):
            entry = self._dominators.get(index, -1)
            if node.op not in ("add", "mul") or entry not in node.inputs or index in ends:
                continue
            graph = self.graph
            same = (graph.shapes[entry], graph.dtypes[entry]) == (graph.shapes[index], graph.dtypes[index])
            inner = self._between(entry, index)
            computes = any(other in self._dominators for other in inner[:-1])  # more than a shift or a scale
            if same and computes and any(other in self._with_parameters for other in inner[:-1]):
                result.append(Block(entry, index, inner))
        return tuple(result)

    def _between(self, entry: int, leaves: int) -> tuple[int, ...]:
        reached, waiting = {leaves}, [leaves]
        while waiting:
            for source in self.graph.nodes[waiting.pop()].inputs:
                if source != entry and source not in reached:
                    reached.add(source)
                    waiting.append(source)
        return tuple(sorted(reached))


def common_path(names: Sequence[str]) -> list[str]:
    """The words between points with which all names begin."""
    paths = [name.split(".") for name in names]
    common = []
    for words in zip(*paths, strict=False):
        if len(set(words)) > 1:
            break
        common.append(words[0])
    return common
