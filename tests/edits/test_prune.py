"""Removing units: the smaller network is the one in which these units had no effect, and targets are met."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from benchmarks.meta.models import TracedModel, traced_models
from nasgraph.edits import (
    EditError,
    choose_units,
    importance,
    loss_gradients,
    prune_to,
    prune_units,
    removable,
)
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of
from nasgraph.ir.graph import check_graph
from nasgraph.modules import StateError, check_state, run_network
from nasgraph.symmetry import UnitGroup, symmetry_table
from tests.merge.networks import SPACES, difference, outputs, random_state, sampled, small_convnet

MODELS = traced_models()
SMALL = [name for name in MODELS if name != "resnet-18"]
OVER_UNITS = {"layer_norm", "rms_norm", "group_norm", "apply_layer_norm"}
"""Norms that are taken over the units of a group, and so change when there are fewer."""

MEANS = {("cross-attention", "n2.weight/1")}
"""Learnt tokens over which a mean is taken, which changes too when there are fewer."""


def _masked(state: dict[str, Tensor], groups: list[UnitGroup], gone: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state in which all weights of these units are zero, those behind them too."""
    masked = {name: tensor.clone() for name, tensor in state.items()}
    for group in groups:
        for member in group.members:
            if ".running_" not in member.parameter:
                places = member.places()[gone[group.name]].flatten()
                masked[member.parameter].index_fill_(member.axis, places, 0.0)
    return masked


def _is_normalised(graph: ComputationalGraph, groups: list[UnitGroup]) -> bool:
    """Whether a norm over units stands among the places of these groups."""
    nodes = {int(m.parameter[1:].split(".")[0]) for group in groups for m in group.members}
    return any(graph.nodes[node].op in OVER_UNITS for node in nodes)


def _thirds(graph: ComputationalGraph) -> Iterator[tuple[list[UnitGroup], dict[str, Tensor]]]:
    """What can be removed, and every third unit of it."""
    table = symmetry_table(graph)
    for names in removable(graph):
        groups = [table.group(name) for name in names]
        yield groups, {group.name: torch.arange(group.size)[1::3] for group in groups}


def _rest(group: UnitGroup, gone: Tensor) -> Tensor:
    return torch.tensor([unit for unit in range(group.size) if unit not in gone.tolist()])


@pytest.mark.parametrize("name", SMALL)
def test_removing_units_of_a_traced_model_is_setting_their_weights_to_zero(name: str) -> None:
    model = MODELS[name].double()
    checked = 0
    for groups, gone in _thirds(model.graph):
        keep = {group.name: _rest(group, gone[group.name]) for group in groups}
        edited = prune_units(model.graph, model.state, keep)
        check_graph(edited.graph)
        check_state(edited.graph, edited.state)
        assert cost_of(edited.graph).num_parameters < cost_of(model.graph).num_parameters
        small = run_network(edited.graph, edited.state, model.inputs)
        if not _is_normalised(model.graph, groups) and (name, groups[0].name) not in MEANS:
            masked = _masked(model.state, groups, gone)
            assert difference(run_network(model.graph, masked, model.inputs), small) <= 1e-10
            checked += 1
    assert checked or name in {"mlp-layer-norm", "temporal"}


@pytest.mark.parametrize("space", SPACES)
def test_removing_units_is_setting_their_weights_to_zero_in_every_space(space: str) -> None:
    (graph, *_) = sampled(space, 2)
    state = random_state(graph)
    for groups, gone in list(_thirds(graph))[:5]:
        edited = prune_units(graph, state, {group.name: _rest(group, gone[group.name]) for group in groups})
        check_state(edited.graph, edited.state)
        if not _is_normalised(graph, groups):
            before = outputs(graph, _masked(state, groups, gone))
            assert difference(before, outputs(edited.graph, edited.state)) <= 1e-9


@pytest.mark.parametrize("name", ["mlp", "resnet", "mobilenet", "encoder", "unet", "lstm"])
def test_groups_can_be_pruned_together_as_one_after_the_other(name: str) -> None:
    model = MODELS[name].double()
    alone = [names[0] for names in removable(model.graph) if len(names) == 1]
    table = symmetry_table(model.graph)
    keep = {group: torch.arange(1, table.group(group).size) for group in alone}
    at_once = prune_units(model.graph, model.state, keep)
    graph, state = model.graph, dict(model.state)
    for group in alone:
        edited = prune_units(graph, state, {group: keep[group]})
        graph, state = edited.graph, edited.state
    assert graph == at_once.graph
    assert all(torch.equal(at_once.state[each], tensor) for each, tensor in state.items())


def test_keeping_all_units_changes_nothing_and_says_so() -> None:
    model = MODELS["resnet"]
    table = symmetry_table(model.graph)
    edited = prune_units(
        model.graph, model.state, {group.name: torch.arange(group.size) for group in table.groups}
    )
    assert edited.graph == model.graph
    assert edited.preserves_function
    assert all(edited.state[name] is tensor for name, tensor in model.state.items())


def test_the_order_in_which_units_are_named_has_no_meaning() -> None:
    graph = small_convnet()
    state, name = random_state(graph), symmetry_table(graph).groups[0].name
    first = prune_units(graph, state, {name: torch.tensor([4, 0, 2])})
    second = prune_units(graph, state, {name: torch.tensor([0, 2, 4])})
    assert first.graph == second.graph
    assert all(torch.equal(first.state[each], second.state[each]) for each in first.state)
    assert first.note == f"prune {name} from 6 to 3"


def test_attention_keeps_the_scale_of_its_scores_when_heads_become_narrower() -> None:
    g = GraphBuilder()
    x = g("linear", g("input", shape=(5, 3)), out_features=8)
    x = g("attention", *(g("linear", x, out_features=8) for _ in range(3)), num_heads=2)
    graph = g.finish(g("linear", g("mean", x, axis=0), out_features=2))
    table, state = symmetry_table(graph), random_state(graph)
    together = next(names for names in removable(graph) if len(names) == 2)
    gone = {name: torch.tensor([1]) for name in together}
    edited = prune_units(graph, state, {name: torch.tensor([0, 2, 3]) for name in together})
    before = outputs(graph, _masked(state, [table.group(name) for name in together], gone))
    assert edited.graph.shapes[2] == (5, 6) or edited.graph.shapes[4] == (5, 6)
    assert difference(before, outputs(edited.graph, edited.state)) <= 1e-10


def test_one_head_or_one_group_of_channels_alone_cannot_become_narrower_and_the_message_names_the_node() -> (
    None
):
    g = GraphBuilder()
    x = g("linear", g("input", shape=(5, 3)), out_features=8)
    x = g("attention", *(g("linear", x, out_features=8) for _ in range(3)), num_heads=2)
    graph = g.finish(g("linear", g("mean", x, axis=0), out_features=2))
    inside = next(group for group in symmetry_table(graph).groups if group.parent)
    with pytest.raises(EditError, match=r"Node 5 \(attention\) .* heads would keep 3, 4 places"):
        prune_units(graph, random_state(graph), {inside.name: torch.tensor([0, 1, 2])})


# ---- scores


@pytest.mark.parametrize("criterion", ["l2", "l1", "random", "taylor"])
def test_every_criterion_scores_every_unit_and_its_largest_score_is_one(criterion: str) -> None:
    model = MODELS["resnet"]
    gradients = loss_gradients(model.graph, model.state, model.inputs, torch.tensor([0, 3]))
    scores = importance(model.graph, model.state, criterion, gradients=gradients)  # type: ignore[arg-type]  # parametrised
    for group in symmetry_table(model.graph).groups:
        assert scores[group.name].shape == (group.size,)
        assert float(scores[group.name].max()) == pytest.approx(1.0)
        assert float(scores[group.name].min()) >= 0.0


def test_the_l2_score_of_a_plain_layer_is_the_norm_of_its_rows_and_columns() -> None:
    model = MODELS["mlp"].double()
    group = symmetry_table(model.graph).groups[0]
    weights = (model.state["n1.weight"], model.state["n3.weight"])
    expected = (weights[0].square().sum(1) + weights[1].square().sum(0)).sqrt()
    scores = importance(model.graph, model.state, "l2")[group.name]
    torch.testing.assert_close(scores, expected / expected.max())


def test_the_taylor_score_tells_how_the_loss_changes_when_a_unit_is_scaled_down() -> None:
    model = MODELS["convnet-vgg"].double()
    targets, share = torch.tensor([0, 3]), 1e-6

    def loss(state: dict[str, Tensor]) -> Tensor:
        return torch.nn.functional.cross_entropy(
            run_network(model.graph, state, model.inputs)[0], targets
        ).detach()

    gradients = loss_gradients(model.graph, model.state, model.inputs, targets)
    scores = importance(model.graph, model.state, "taylor", gradients=gradients)
    group = symmetry_table(model.graph).groups[0]
    changes = []
    for unit in range(group.size):
        state = {name: tensor.clone() for name, tensor in model.state.items()}
        for member in group.members:
            places = member.places()[unit]
            part = state[member.parameter].index_select(member.axis, places)
            state[member.parameter].index_copy_(member.axis, places, (1 - share) * part)
        changes.append(float((loss(state) - loss(model.state)).abs()))
    expected = torch.tensor(changes, dtype=torch.float64)
    torch.testing.assert_close(scores[group.name], expected / expected.max(), rtol=1e-3, atol=1e-3)


def test_scores_by_batch_norm_leave_groups_without_a_norm_out() -> None:
    model = MODELS["resnet"]
    group = symmetry_table(model.graph).groups[1]
    norms = [
        m.parameter
        for m in group.members
        if m.parameter.endswith(".weight") and model.state[m.parameter].ndim == 1
    ]
    scores = importance(model.graph, model.state, "bn_scale")
    total = torch.stack([model.state[name].abs() for name in norms]).sum(0)
    torch.testing.assert_close(scores[group.name], total / total.max())
    with pytest.raises(EditError, match="no group of this network has one"):
        importance(MODELS["mlp"].graph, MODELS["mlp"].state, "bn_scale")


# ---- targets


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize(
    "name", ["mlp", "convnet-vgg", "resnet", "mobilenet", "resnext", "densenet", "vit", "encoder"]
)
def test_a_network_reaches_its_target_with_as_few_units_removed_as_the_ranking_allows(
    name: str, uniform: bool
) -> None:
    model = MODELS[name]
    scores = importance(model.graph, model.state)
    dense = cost_of(model.graph).multiply_adds
    for speed_up in (1.5, 2.0):
        edited = prune_to(model.graph, model.state, speed_up=speed_up, scores=scores, uniform=uniform)
        left = cost_of(edited.graph).multiply_adds
        assert left * speed_up <= dense
        assert f"{dense:,} to {left:,} multiply-adds" in edited.note
        check_state(edited.graph, edited.state)
        assert all(out.isfinite().all() for out in run_network(edited.graph, edited.state, model.inputs))


def test_the_units_with_the_smallest_scores_of_all_groups_go_first() -> None:
    model = MODELS["mlp"]
    groups = symmetry_table(model.graph).groups
    scores = {group.name: torch.linspace(0.5, 1.0, group.size) for group in groups}
    scores[groups[1].name] = torch.linspace(0.0, 0.4, groups[1].size).flip(0)
    keep = choose_units(model.graph, scores, speed_up=1.3)
    assert set(keep) == {groups[1].name}
    kept = keep[groups[1].name]
    assert torch.equal(kept, torch.arange(len(kept)))  # the last units have the smallest scores
    one_more = {groups[1].name: torch.arange(len(kept) + 1)}
    cost = cost_of(prune_units(model.graph, model.state, one_more).graph).multiply_adds
    assert cost * 1.3 > cost_of(model.graph).multiply_adds


def test_limits_hold() -> None:
    model = MODELS["resnet"]
    sizes = {group.name: group.size for group in symmetry_table(model.graph).groups}
    scores = importance(model.graph, model.state)
    keep = choose_units(model.graph, scores, speed_up=1.5, min_units=4, round_to=4)
    assert all(len(units) % 4 == 0 and len(units) >= 4 for units in keep.values())
    keep = choose_units(model.graph, scores, speed_up=1.3, min_share=0.7)
    assert all(len(units) >= 0.7 * sizes[name] for name, units in keep.items())


def test_an_unreachable_target_is_refused_with_what_can_be_reached() -> None:
    model = MODELS["resnet"]
    scores = importance(model.graph, model.state)
    with pytest.raises(EditError, match=r"Cannot reach 50 times fewer .* \(3\.\d times fewer\)"):
        choose_units(model.graph, scores, speed_up=50, min_share=0.5)
    with pytest.raises(EditError, match="no further"):
        choose_units(model.graph, {}, speed_up=2)


def test_resnet_18_is_pruned_to_a_third_of_its_multiply_adds() -> None:
    model = MODELS["resnet-18"]
    scores = importance(model.graph, model.state)
    edited = prune_to(model.graph, model.state, speed_up=3.0, scores=scores, round_to=8)
    ratio = cost_of(model.graph).multiply_adds / cost_of(edited.graph).multiply_adds
    assert 3.0 <= ratio < 3.3
    check_state(edited.graph, edited.state)


# ---- bad input


def _small() -> TracedModel:
    return MODELS["mlp"]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"n9.weight/0": [0]}, "No group named 'n9.weight/0'"),
        ({"n1.weight/0": []}, "at least one unit of 'n1.weight/0'"),
        ({"n1.weight/0": [0, 24]}, r"'n1.weight/0' has units 0 to 23 \(got 24\)"),
        ({"n1.weight/0": [-1]}, r"\(got -1\)"),
        ({"n1.weight/0": [3, 3]}, "each unit of 'n1.weight/0' once"),
    ],
)
def test_units_that_do_not_exist_are_refused(keep: dict[str, list[int]], message: str) -> None:
    model = _small()
    with pytest.raises(EditError, match=message):
        prune_units(
            model.graph,
            model.state,
            {name: torch.tensor(units, dtype=torch.long) for name, units in keep.items()},
        )


def test_a_mask_in_place_of_numbers_is_refused() -> None:
    model = _small()
    with pytest.raises(EditError, match=r"one row of integers \(got bool"):
        prune_units(model.graph, model.state, {"n1.weight/0": torch.ones(24, dtype=torch.bool)})


def test_a_state_that_does_not_belong_to_the_network_is_refused() -> None:
    model = _small()
    keep = {"n1.weight/0": torch.arange(3)}
    name = "n1.weight"
    for wrong, message in (
        ({**model.state, name: torch.full_like(model.state[name], float("nan"))}, "n1.weight.*not finite"),
        ({**model.state, name: torch.zeros(3, 3)}, "Expected 'n1.weight'"),
        ({each: tensor for each, tensor in model.state.items() if each != name}, "no 'n1.weight'"),
        ({**model.state, "n77.weight": torch.zeros(1)}, "n77.weight"),
        ({**model.state, name: model.state[name].to(torch.int8)}, "quantised"),
    ):
        with pytest.raises(StateError, match=message):
            prune_units(model.graph, wrong, keep)
        with pytest.raises(StateError, match=message):
            importance(model.graph, wrong)


def test_networks_without_hidden_units_or_parameters_have_nothing_to_prune() -> None:
    g = GraphBuilder()
    linear = g.finish(g("linear", g("input", shape=(4,)), out_features=2))
    assert removable(linear) == ()
    assert importance(linear, random_state(linear)) == {}
    with pytest.raises(EditError, match="its symmetry table is empty"):
        prune_units(linear, random_state(linear), {"n1.weight/0": torch.tensor([0])})
    g = GraphBuilder()
    bare = g.finish(g("relu", g("input", shape=(4,))))
    assert importance(bare, {}) == {}
    assert prune_units(bare, {}, {}).graph == bare
    with pytest.raises(EditError, match="Cannot reach 2 times fewer"):
        choose_units(linear, {}, speed_up=2)


def test_scores_and_settings_that_make_no_sense_are_refused() -> None:
    model = _small()
    good = importance(model.graph, model.state)
    for scores, message in (
        ({"n9.weight/0": torch.ones(3)}, "no group"),
        ({"n1.weight/0": torch.ones(3)}, "Expected 24 scores"),
        ({"n1.weight/0": torch.full((24,), float("nan"))}, "not finite"),
    ):
        with pytest.raises(EditError, match=message):
            choose_units(model.graph, scores, speed_up=2)
    with pytest.raises(EditError, match="'speed_up' of at least 1"):
        choose_units(model.graph, good, speed_up=0.5)
    with pytest.raises(EditError, match="'min_units' and 'round_to'"):
        choose_units(model.graph, good, speed_up=2, min_units=0)
    with pytest.raises(EditError, match="'min_share'"):
        choose_units(model.graph, good, speed_up=2, min_share=1.5)
    with pytest.raises(EditError, match="No criterion named 'l3'"):
        importance(model.graph, model.state, "l3")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(EditError, match="'taylor' needs gradients"):
        importance(model.graph, model.state, "taylor")
