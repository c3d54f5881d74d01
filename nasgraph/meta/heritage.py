"""Model heritage: which network was fine-tuned from which, from their weights alone.

Horwitz, Shul and Hoshen, "Unsupervised Model Tree Heritage Recovery" (MoTHer), 2024, section 4: children lie near their parents in weight space, and
a statistic of the weights moves one way during training. So: pairwise distances; clusters of them are trees; within a tree the minimum spanning
arborescence, where an arc against the direction costs more. Where it departs: which statistic tells parents from children, and which
way it moves, and how much it counts, is learned from known trees (`learn_rule`), for in small networks kurtosis rises where the paper has it fall.

Shape letters: N = networks, P = parameters, E = known pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import networkx as nx
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from nasgraph.errors import NasGraphError
from nasgraph.ir import ComputationalGraph
from nasgraph.merge import match_weights
from nasgraph.meta.views import check_stack, stack_states, unstack_states
from nasgraph.modules import State, is_parameter

Array = NDArray[np.float64]
Statistic = Literal["norm", "kurtosis"]
Root = Literal["free", "centre"]
ROOTS: tuple[Root, ...] = ("centre", "free")
STATISTICS: tuple[Statistic, ...] = ("norm", "kurtosis")
"""Statistics that may tell parents from children: the norm of all parameters, and the kurtosis of the weights."""


class HeritageError(NasGraphError, ValueError):
    """Networks whose heritage cannot be recovered. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Direction:
    """Which way a statistic moves from parent to child.

    Attributes:
        statistic: Which.
        sign: 1 where it rises, -1 where it falls.
        agreement: Share of the known pairs in which it does.
    """

    statistic: Statistic
    sign: int
    agreement: float


@dataclass(frozen=True, eq=False)
class Heritage:
    """A recovered forest.

    Attributes:
        parents: For each network the one that it was made from, or -1 for the first of a tree.
        trees: Number of the tree of each network, from 0, in the order of first appearance.
        costs: Cost of the arc that leads to each network; 0 for the first of a tree.
    """

    parents: tuple[int, ...]
    trees: tuple[int, ...]
    costs: tuple[float, ...]

    def agreement(self, truth: Sequence[int]) -> dict[str, float]:
        """Shares of what is right: `arcs` (of the networks that have a parent in truth), `undirected` (the same, whichever end is
        the parent), `roots` (of the networks without one), and `trees` (1 if the clusters are exactly the true trees).

        Raises:
            HeritageError: If `truth` is of another length or has no arcs.
        """
        if len(truth) != len(self.parents) or not any(parent >= 0 for parent in truth):
            raise HeritageError(f"Expected the true parents of {len(self.parents)} networks, some with one")
        arcs = [(child, parent) for child, parent in enumerate(truth) if parent >= 0]
        found = {frozenset((child, parent)) for child, parent in enumerate(self.parents) if parent >= 0}
        roots = [child for child, parent in enumerate(truth) if parent < 0]
        return {
            "arcs": sum(self.parents[child] == parent for child, parent in arcs) / len(arcs),
            "undirected": sum(frozenset(arc) in found for arc in arcs) / len(arcs),
            "roots": sum(self.parents[root] < 0 for root in roots) / max(1, len(roots)),
            "trees": float(_renumbered(_roots(truth)) == self.trees),
        }


@dataclass(frozen=True, slots=True)
class HeritageRule:
    """How trees of one kind are recovered, learned from trees that are known.

    Attributes:
        statistic: What tells direction; empty if nothing was found that helps.
        sign: Which way it moves from parent to child.
        penalty: Cost of a wrong direction; see `recover_heritage`.
        root: See `recover_heritage`.
        arcs: Share of the known arcs that the rule recovers.
    """

    statistic: Statistic | Literal[""]
    sign: int
    penalty: float
    root: Root
    arcs: float

    def recover(
        self,
        distances: Float[Array, "networks networks"],
        scores: Mapping[Statistic, Float[Array, " networks"]],
        *,
        num_trees: int | None = None,
    ) -> Heritage:
        """Apply the rule: `scores` by statistic, from `direction_scores`."""
        chosen = scores[self.statistic] if self.statistic else None
        return recover_heritage(
            distances,
            scores=chosen,
            sign=self.sign,
            num_trees=num_trees,
            penalty=self.penalty,
            root=self.root,
        )


def weight_distances(
    graph: ComputationalGraph, stacked: State, *, parameters: Sequence[str] | None = None
) -> Float[Array, "networks networks"]:
    """Euclidean distance of the parameters of all pairs of networks of one architecture.

    Args:
        graph: The architecture of all.
        stacked: Their states.
        parameters: Names of those that count; None: all.

    Raises:
        StateError: If the stack does not fit the graph.
        HeritageError: If there is no such parameter.
    """
    check_stack(graph, stacked)
    names = list(graph.parameters) if parameters is None else list(parameters)
    unknown = [name for name in names if name not in graph.parameters]
    if unknown or not names:
        raise HeritageError(
            f"No parameter named '{unknown[0] if unknown else ''}'. There are: {', '.join(graph.parameters)}"
        )
    flat_NP = torch.cat([stacked[name].detach().flatten(1) for name in names], dim=1).double()
    return _distances(flat_NP)


def aligned_weight_distances(
    graph: ComputationalGraph, stacked: State, *, seed: int = 0
) -> Float[Array, "networks networks"]:
    """`weight_distances` after the units of each network are put in the order that fits the other best (git re-basin).

    For networks whose units somebody has reordered. One alignment per pair, so it takes long: about a second for a thousand pairs of small perceptrons
    would be fast. The smaller of the two ways round counts, which makes it symmetric.

    Args:
        graph: The architecture of all.
        stacked: Their states.
        seed: Of the alignment.

    Raises:
        StateError: If the stack does not fit the graph.
    """
    count = check_stack(graph, stacked)
    states = unstack_states(stacked)
    result = np.zeros((count, count))
    for first in range(count):
        for second in range(count):
            if first != second:
                moved = match_weights(graph, states[second], to=states[first], seed=seed).state
                result[first, second] = _gap(graph, states[first], moved)
    return np.minimum(result, result.T)


def behaviour_distances(
    responses: Float[Tensor, "networks probes classes"],
) -> Float[Array, "networks networks"]:
    """Distance of what networks say about the same inputs: square root of the mean Jensen-Shannon divergence of their classes' shares.

    For networks of different architectures, whose weights cannot be compared; outputs must mean the same. A comparison in the manner of ModelDiff
    (Li, Zhang, Liu et al. 2021), which asks by decision distance. Between 0 and the square root of the natural logarithm of 2.

    Raises:
        HeritageError: If the responses are no finite `[networks, probes, classes]`.
    """
    if responses.dim() != 3 or not torch.isfinite(responses).all():
        raise HeritageError(
            f"Expected finite responses [networks, probes, classes] (got {tuple(responses.shape)})"
        )
    share = responses.detach().double().softmax(-1)
    entropy_N = torch.special.entr(share).sum(-1).mean(1)
    rows = []
    for each in share:  # one network against all: memory stays linear
        mixed = torch.special.entr((share + each) / 2).sum(-1).mean(1)
        rows.append(mixed - (entropy_N + torch.special.entr(each).sum(-1).mean()) / 2)
    divergence = torch.stack(rows).clamp(min=0)
    result: Array = ((divergence + divergence.T) / 2).fill_diagonal_(0).sqrt().numpy()
    return result


def direction_scores(
    graph: ComputationalGraph, stacked: State, statistic: Statistic
) -> Float[Array, " networks"]:
    """The statistic of each network.

    `norm`: Euclidean norm of all parameters. `kurtosis`: mean over the weights with at least eight values of the fourth standardised moment.

    Raises:
        StateError: If the stack does not fit the graph.
        HeritageError: If there is no such statistic, or no weight of eight values.
    """
    check_stack(graph, stacked)
    tensors = {name: stacked[name].detach().flatten(1).double() for name in graph.parameters}
    if statistic == "norm":
        square_N = sum((x.square().sum(1) for x in tensors.values()), torch.zeros(1))
        norms: Array = square_N.sqrt().numpy()
        return norms
    if statistic != "kurtosis":
        raise HeritageError(f"No statistic named '{statistic}'. There are: {', '.join(STATISTICS)}")
    weights = [
        x for name, x in tensors.items() if graph.parameters[name].role == "weight" and x.shape[1] >= 8
    ]
    if not weights:
        raise HeritageError("The kurtosis needs a weight of at least eight values, and there is none")
    values = []
    for x in weights:
        centred = x - x.mean(1, keepdim=True)
        spread = centred.square().mean(1).clamp(min=1e-300)
        values.append(centred.pow(4).mean(1) / spread.square())
    result: Array = torch.stack(values).mean(0).numpy()
    return result


def calibrate_direction(
    scores: Mapping[Statistic, Float[Array, " networks"]], parents: Sequence[int]
) -> Direction:
    """The statistic that moves one way in the largest share of known pairs, and that way.

    Args:
        scores: `direction_scores` of networks whose heritage is known, by statistic.
        parents: Their parents; -1 for none.

    Raises:
        HeritageError: If no pair is known.
    """
    pairs = [(parent, child) for child, parent in enumerate(parents) if parent >= 0]
    if not pairs or not scores:
        raise HeritageError("Calibrating a direction takes at least one known pair of parent and child")
    best = Direction("norm", 1, -1.0)
    for statistic, values in scores.items():
        rises = float(np.mean([values[child] > values[parent] for parent, child in pairs]))
        share = max(rises, 1 - rises)
        if share > best.agreement:
            best = Direction(statistic, 1 if rises >= 0.5 else -1, share)
    return best


def learn_rule(
    distances: Float[Array, "networks networks"],
    scores: Mapping[Statistic, Float[Array, " networks"]],
    parents: Sequence[int],
) -> HeritageRule:
    """The rule that recovers most arcs of a known forest; of equals the one that assumes least.

    Whether parents are told from children by a statistic at all, by which, and how much it counts, differs from one kind of fine-tuning to
    another; a wrong direction does more harm than none.

    Args:
        distances: Of the networks of the known forest.
        scores: Their `direction_scores` by statistic; may be empty.
        parents: Their true parents; -1 for none.

    Raises:
        HeritageError: If the numbers do not fit, or no arc is known.
    """
    num_trees = sum(parent < 0 for parent in parents)
    rules = [HeritageRule("", 1, 0.0, "centre", 0.0)]
    for statistic, values in scores.items():
        sign = calibrate_direction({statistic: values}, parents).sign
        rules += [
            HeritageRule(statistic, sign, penalty, root, 0.0)
            for root in ROOTS
            for penalty in (0.03, 0.1, 0.3, 1.0)
        ]
    shares = [
        rule.recover(distances, scores, num_trees=num_trees).agreement(parents)["arcs"] for rule in rules
    ]
    best = int(np.argmax(shares))
    return replace(rules[best], arcs=shares[best])


def recover_heritage(
    distances: Float[Array, "networks networks"],
    *,
    scores: Float[Array, " networks"] | None = None,
    sign: int = 1,
    num_trees: int | None = None,
    penalty: float = 0.3,
    root: Root = "free",
) -> Heritage:
    """The forest of least cost.

    Networks are clustered by Ward's rule. Within a cluster an arc costs the distance, and `penalty` times the mean distance within the cluster more where the
    statistic does not move as it should; the minimum spanning arborescence (Chu and Liu 1965, Edmonds 1967) picks the first network, too. Ties go to
    the network that comes first. Deterministic.

    Args:
        distances: Symmetric, zero on the diagonal.
        scores: The statistic of each network that tells direction. Without it a tree has none, and `root` is `centre` whatever is said.
        sign: 1 if the statistic rises from parent to child, -1 if it falls.
        num_trees: How many trees there are. None: as many clusters as stand before the largest relative jump in the distance at which clusters join; one
            if no jump is larger than twofold.
        penalty: Cost of a wrong direction, as a share of the mean distance (0.3 in the paper).
        root: `free`: whichever network makes the tree cheapest. `centre`: the network that is nearest to all others, as the first of a tree is whose children
            went their own ways.

    Raises:
        HeritageError: If the distances are not a finite symmetric matrix, or other numbers do not fit.
    """
    d = _checked(distances)
    count = len(d)
    if scores is not None and (len(scores) != count or not np.isfinite(scores).all()):
        raise HeritageError(f"Expected one finite score for each of {count} networks")
    if num_trees is not None and not 1 <= num_trees <= count:
        raise HeritageError(f"Expected 'num_trees' from 1 to {count} (got {num_trees})")
    trees = _clusters(d, num_trees)
    parents, costs = [-1] * count, [0.0] * count
    for tree in range(max(trees) + 1):
        members = [place for place in range(count) if trees[place] == tree]
        for child, parent, cost in _arborescence(
            d, members, scores, sign, penalty, is_rooted=scores is None or root == "centre"
        ):
            parents[child], costs[child] = parent, cost
    return Heritage(tuple(parents), trees, tuple(costs))


def _arborescence(
    d: Array, members: Sequence[int], scores: Array | None, sign: int, penalty: float, *, is_rooted: bool
) -> list[tuple[int, int, float]]:
    """Child, parent and cost of every arc."""
    if len(members) < 2:
        return []
    part = d[np.ix_(members, members)]
    extra = penalty * part.sum() / (len(members) * (len(members) - 1))
    root = members[int(part.sum(axis=0).argmin())] if is_rooted else -1
    net = nx.DiGraph()
    net.add_nodes_from(members)
    for parent in members:
        for child in members:
            if child not in (parent, root):
                is_wrong = scores is not None and sign * (scores[child] - scores[parent]) < 0
                net.add_edge(parent, child, weight=float(d[parent, child] + extra * is_wrong))
    found = nx.minimum_spanning_arborescence(net)
    return [(child, parent, float(net[parent][child]["weight"])) for parent, child in found.edges]


def _clusters(d: Array, num_trees: int | None) -> tuple[int, ...]:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    count = len(d)
    if count == 1 or num_trees == 1:
        return (0,) * count
    joined = linkage(squareform(d, checks=False), method="ward")
    wanted = num_trees
    if wanted is None:
        heights = np.maximum(joined[:, 2], 1e-12 * joined[-1, 2] + 1e-300)
        jumps = [after / before for before, after in pairwise(heights[-min(len(heights), 40) :])]
        largest = int(np.argmax(jumps)) if jumps else 0
        wanted = len(jumps) - largest + 1 if jumps and jumps[largest] > 2 else 1
    return _renumbered(fcluster(joined, wanted, criterion="maxclust").tolist())


def _roots(parents: Sequence[int]) -> list[int]:
    roots = []
    for place in range(len(parents)):
        seen = {place}
        while parents[place] >= 0:
            place = parents[place]
            if place in seen:
                raise HeritageError(f"Network {place} is its own ancestor")
            seen.add(place)
        roots.append(place)
    return roots


def _renumbered(labels: Sequence[int]) -> tuple[int, ...]:
    numbers: dict[int, int] = {}
    return tuple(numbers.setdefault(label, len(numbers)) for label in labels)


def _checked(distances: Array) -> Array:
    d = np.asarray(distances, dtype=np.float64)
    if d.ndim != 2 or d.shape[0] != d.shape[1] or len(d) == 0:
        raise HeritageError(f"Expected a square matrix of distances (got shape {d.shape})")
    if not np.isfinite(d).all() or not np.allclose(d, d.T) or d.diagonal().any() or (d < 0).any():
        raise HeritageError("Expected finite symmetric distances of at least 0, with zeros on the diagonal")
    return d


def _distances(flat_NP: Tensor) -> Array:
    d = torch.cdist(flat_NP, flat_NP, compute_mode="donot_use_mm_for_euclid_dist")
    result: Array = ((d + d.T) / 2).fill_diagonal_(0).numpy()
    return result


def _gap(graph: ComputationalGraph, first: State, second: State) -> float:
    pair = stack_states(
        [{n: s[n] for n in graph.parameters if is_parameter(n, s[n])} for s in (first, second)]
    )
    return float(sum((each[0] - each[1]).double().square().sum() for each in pair.values()) ** 0.5)
