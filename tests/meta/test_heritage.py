"""Heritage: planted forests are found, and a real family of fine-tuned networks, too."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import kurtosis
from torch import Tensor
from torch.nn import functional as F

from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.heritage import (
    Direction,
    HeritageError,
    aligned_weight_distances,
    behaviour_distances,
    calibrate_direction,
    direction_scores,
    learn_rule,
    recover_heritage,
    weight_distances,
)
from nasgraph.meta.population import load_sample_population
from nasgraph.meta.views import stack_states
from nasgraph.modules import StateError, initial_parameters, run_network
from nasgraph.seeding import generator
from nasgraph.symmetry import permute_units, random_orders, symmetry_table

torch.set_num_threads(1)


def mlp(width: int = 12) -> ComputationalGraph:
    g = GraphBuilder()
    x = g("relu", g("linear", g("input", shape=(8,)), out_features=width))
    return g.finish(g("linear", x, out_features=4))


def planted(num_trees: int = 3, size: int = 9, *, seed: int = 0) -> tuple[dict[str, Tensor], list[int]]:
    """Trees of random networks: a child is its parent after a step of its own, in which all weights grow a little."""
    graph, rng = mlp(), torch.Generator().manual_seed(seed)
    choose = generator(seed, "planted")
    states: list[dict[str, Tensor]] = []
    parents: list[int] = []
    for tree in range(num_trees):
        first = len(states)
        states.append(dict(initial_parameters(graph, seed=100 * seed + tree)))
        parents.append(-1)
        for _ in range(size - 1):
            parent = int(choose.integers(first, len(states)))
            step = {
                name: 1.03 * tensor + 0.02 * torch.randn(tensor.shape, generator=rng)
                for name, tensor in states[parent].items()
            }
            states.append(step)
            parents.append(parent)
    return stack_states(states), parents


@cache
def trained_family() -> tuple[ComputationalGraph, dict[str, Tensor], list[int]]:
    """Two networks trained on blobs, each with two fine-tunes, one of which has a fine-tune again."""
    graph, rng = mlp(), torch.Generator().manual_seed(0)
    centres = torch.randn(4, 8, generator=rng)

    def tuned(start: dict[str, Tensor], classes: list[int], steps: int) -> dict[str, Tensor]:
        state = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
        for _ in range(steps):
            targets = torch.tensor(classes)[torch.randint(0, len(classes), (64,), generator=rng)]
            inputs = centres[targets] + torch.randn(64, 8, generator=rng)
            loss = F.cross_entropy(run_network(graph, state, [inputs])[0], targets)
            gradients = torch.autograd.grad(loss, list(state.values()))
            state = {
                name: (tensor - 0.1 * gradient).detach().requires_grad_()
                for (name, tensor), gradient in zip(state.items(), gradients, strict=True)
            }
        return {name: tensor.detach() for name, tensor in state.items()}

    states: list[dict[str, Tensor]] = []
    parents: list[int] = []
    for seed in range(2):
        base = tuned(initial_parameters(graph, seed=seed), [0, 1, 2, 3], 80)
        first = tuned(base, [0, 1], 25)
        states += [base, first, tuned(base, [2, 3], 25), tuned(first, [1, 2], 25)]
        parents += [-1, 4 * seed, 4 * seed, 4 * seed + 1]
    return graph, stack_states(states), parents


def test_planted_forests_are_found() -> None:
    for seed in range(3):
        stacked, parents = planted(seed=seed)
        graph = mlp()
        scores = {"norm": direction_scores(graph, stacked, "norm")}
        known = calibrate_direction(scores, parents)  # type: ignore[arg-type]  # a literal
        assert known == Direction("norm", 1, 1.0)
        found = recover_heritage(
            weight_distances(graph, stacked), scores=scores["norm"], sign=known.sign, num_trees=3
        )
        right = found.agreement(parents)
        assert right["trees"] == 1.0
        assert right["arcs"] >= 0.9


def test_the_number_of_trees_is_found_where_trees_stand_apart() -> None:
    for count in (1, 2, 4):
        stacked, parents = planted(count, 8, seed=count)
        found = recover_heritage(weight_distances(mlp(), stacked))
        assert found.agreement(parents)["trees"] == 1.0


def test_a_real_family_of_fine_tuned_networks_is_recovered() -> None:
    graph, stacked, parents = trained_family()
    scores = direction_scores(graph, stacked, "norm")
    found = recover_heritage(weight_distances(graph, stacked), scores=scores, num_trees=2)
    assert found.agreement(parents) == {"arcs": 1.0, "undirected": 1.0, "roots": 1.0, "trees": 1.0}


def test_the_order_of_the_networks_does_not_matter() -> None:
    stacked, parents = planted()
    graph, order = mlp(), torch.randperm(len(parents), generator=torch.Generator().manual_seed(0))
    other = {name: tensor[order] for name, tensor in stacked.items()}
    place = {int(old): new for new, old in enumerate(order)}
    runs = [
        recover_heritage(weight_distances(graph, each), scores=direction_scores(graph, each, "norm"))
        for each in (stacked, other)
    ]
    for child, parent in enumerate(runs[0].parents):
        assert runs[1].parents[place[child]] == (-1 if parent < 0 else place[parent])


def test_weight_distances_are_those_of_the_flat_vectors() -> None:
    stacked, _ = planted(1, 4)
    found = weight_distances(mlp(), stacked)
    flat = torch.cat([tensor.flatten(1) for tensor in stacked.values()], dim=1)
    for a in range(4):
        for b in range(4):
            assert found[a, b] == pytest.approx(float((flat[a] - flat[b]).norm()), rel=1e-5)
    name = next(iter(mlp().parameters))
    one = weight_distances(mlp(), stacked, parameters=[name])
    assert one[0, 1] == pytest.approx(float((stacked[name][0] - stacked[name][1]).norm()), rel=1e-5)


def test_alignment_recovers_a_family_whose_units_were_reordered() -> None:
    graph, stacked, parents = trained_family()
    table = symmetry_table(graph)
    mixed = stack_states(
        [
            permute_units(table, {n: t[place] for n, t in stacked.items()}, random_orders(table, seed=place))
            for place in range(len(parents))
        ]
    )
    scores = direction_scores(graph, mixed, "norm")
    aligned = aligned_weight_distances(graph, mixed)
    assert recover_heritage(aligned, scores=scores, num_trees=2).agreement(parents)["arcs"] == 1.0
    plain = recover_heritage(weight_distances(graph, mixed), scores=scores, num_trees=2)
    assert plain.agreement(parents)["arcs"] < 1.0


def test_behaviour_distance_is_that_of_scipy_and_blind_to_architecture() -> None:
    rng = torch.Generator().manual_seed(0)
    responses = torch.randn(3, 5, 4, generator=rng)
    found = behaviour_distances(responses)
    share = responses.softmax(-1).numpy()
    wanted = np.sqrt(np.mean([jensenshannon(share[0, k], share[2, k]) ** 2 for k in range(5)]))
    assert found[0, 2] == pytest.approx(wanted, rel=1e-4)
    assert not found.diagonal().any()


def test_kurtosis_is_that_of_scipy() -> None:
    graph, (stacked, _) = mlp(), planted(1, 3)
    names = [name for name, spec in graph.parameters.items() if spec.role == "weight"]
    wanted = [
        np.mean([kurtosis(stacked[name][place].numpy(), axis=None, fisher=False) for name in names])
        for place in range(3)
    ]
    np.testing.assert_allclose(direction_scores(graph, stacked, "kurtosis"), wanted, rtol=1e-4)


def test_a_direction_that_falls_is_learned_as_such() -> None:
    scores = {"norm": np.array([3.0, 2.0, 1.0]), "kurtosis": np.array([1.0, 2.0, 1.0])}
    found = calibrate_direction(scores, [-1, 0, 1])  # type: ignore[arg-type]  # literals
    assert found == Direction("norm", -1, 1.0)
    d = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    assert recover_heritage(d, scores=scores["norm"], sign=-1, num_trees=1).parents == (-1, 0, 1)
    assert recover_heritage(d, scores=scores["norm"], sign=1, num_trees=1).parents == (1, 2, -1)


def test_a_learned_rule_ignores_a_statistic_that_misleads() -> None:
    """One known tree; a statistic that is right for it, one that is drawn, and what each is worth on another tree."""
    graph = mlp()
    (stacked, parents), (other, truth) = planted(2, 9, seed=5), planted(2, 9, seed=6)
    noise = generator(0, "no statistic").normal(size=len(parents))
    d, e = weight_distances(graph, stacked), weight_distances(graph, other)
    only_noise = learn_rule(d, {"kurtosis": noise}, parents)
    good = learn_rule(d, {"kurtosis": noise, "norm": direction_scores(graph, stacked, "norm")}, parents)
    assert good.statistic == "norm"
    assert good.arcs >= only_noise.arcs
    scores = {"norm": direction_scores(graph, other, "norm"), "kurtosis": noise}
    found = good.recover(e, scores, num_trees=2).agreement(truth)  # type: ignore[arg-type]  # literals
    assert found["arcs"] >= 0.9


def test_without_scores_the_middle_network_is_the_first() -> None:
    d = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
    assert recover_heritage(d, num_trees=1).parents == (1, -1, 1)


def test_what_has_no_heritage_is_refused() -> None:
    with pytest.raises(HeritageError, match="symmetric"):
        recover_heritage(np.array([[0.0, 1.0], [2.0, 0.0]]))
    with pytest.raises(HeritageError, match="'num_trees' from 1 to 2"):
        recover_heritage(np.zeros((2, 2)), num_trees=3)
    with pytest.raises(HeritageError, match="at least one known pair"):
        calibrate_direction({"norm": np.zeros(2)}, [-1, -1])
    with pytest.raises(HeritageError, match=r"No parameter named 'n9\.weight'"):
        weight_distances(mlp(), planted(1, 2)[0], parameters=["n9.weight"])
    with pytest.raises(HeritageError, match="its own ancestor"):
        recover_heritage(np.zeros((2, 2)), num_trees=1).agreement([1, 0])
    with pytest.raises(StateError, match="shape"):
        weight_distances(mlp(9), planted(1, 2)[0])


def test_the_fine_tuned_networks_of_the_shipped_population_find_their_parents() -> None:
    population = load_sample_population()
    tuned = population.select(family="mlp-16-16-tuned")
    parents = population.table["parent"][tuned]
    members = [*tuned.tolist(), *sorted(set(parents.tolist()))]
    graph, stacked = population.graph(members[0]), population.stack(members)
    truth = [members.index(parent) for parent in parents] + [-1] * (len(members) - len(tuned))
    found = recover_heritage(
        weight_distances(graph, stacked),
        scores=direction_scores(graph, stacked, "norm"),
        num_trees=truth.count(-1),
    )
    assert found.agreement(truth)["arcs"] >= 0.75
