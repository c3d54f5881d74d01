"""Fine-tuning, criteria, lottery tickets, comparisons, group sparsity, pruning spaces."""

import pytest
import torch
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.edits import EditError
from nasgraph.errors import ConfigError
from nasgraph.ir import cost_of
from nasgraph.meta.pruning import (
    CRITERIA,
    METHODS,
    Candidate,
    CompareConfig,
    FineTuneConfig,
    best_band,
    compare_errors,
    compare_pruning,
    distillation_loss,
    error_distribution,
    finetune,
    group_sparsity,
    magnitude_masks,
    prune_by,
    sample_pruning_space,
    teacher_logits,
    units_to_keep,
)
from nasgraph.meta.pruning.spaces import SubNetwork
from nasgraph.modules import StateError, is_statistic, run_network
from nasgraph.symmetry import symmetry_table
from tests.meta.pruning.networks import digits, random_state, resnet, trained_resnet

TUNING = FineTuneConfig(batch_size=64, learning_rate=5e-3)


def loss_of(logits: torch.Tensor) -> float:
    return float(F.cross_entropy(logits, digits().train.targets[: len(logits)]))


def test_no_steps_return_the_state_as_it_is() -> None:
    graph, state = trained_resnet()
    same = finetune(graph, state, digits().train, steps=0, seed=0)
    assert same.keys() == state.keys()
    assert all(torch.equal(same[name], state[name]) for name in state)


def test_fine_tuning_lowers_the_loss_repeats_and_leaves_the_state_alone() -> None:
    graph = resnet(blocks=1)
    state = random_state(graph)
    before = {name: tensor.clone() for name, tensor in state.items()}
    first, second = (finetune(graph, state, digits().train, steps=15, seed=5, config=TUNING) for _ in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(state[name], before[name]) for name in state)
    inputs = [digits().train.inputs[:300]]
    old, new = (loss_of(run_network(graph, each, inputs, use_batch=True)[0]) for each in (state, first))
    assert new < old
    assert any(not torch.equal(first[name], state[name]) for name in first if is_statistic(name))


def test_masked_weights_stay_zero_and_others_learn() -> None:
    graph, state = trained_resnet()
    masks = magnitude_masks(graph, state, sparsity=0.6)
    start = {name: tensor * masks[name] if name in masks else tensor for name, tensor in state.items()}
    tuned = finetune(graph, start, digits().train, steps=5, seed=0, config=TUNING, masks=masks)
    for name, mask in masks.items():
        assert (tuned[name][mask == 0] == 0).all()
        assert not torch.equal(tuned[name], start[name])


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_masks_keep_the_largest_weights_of_the_whole_network(sparsity: float) -> None:
    graph, state = trained_resnet()
    masks = magnitude_masks(graph, state, sparsity=sparsity)
    kept = torch.cat([state[name][mask == 1].abs() for name, mask in masks.items()])
    gone = torch.cat([state[name][mask == 0].abs() for name, mask in masks.items()])
    assert len(gone) == round(sparsity * (len(kept) + len(gone)))
    assert not len(gone) or gone.max() <= kept.min()


def test_distillation_towards_oneself_leaves_the_cross_entropy() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(7, 4, generator=rng), torch.randint(4, (7,), generator=rng)
    loss = distillation_loss(logits, targets, logits, share=0.7, temperature=3.0)
    torch.testing.assert_close(loss, 0.3 * F.cross_entropy(logits, targets))


def test_the_gradient_of_distillation_at_high_temperature_is_that_of_matching_logits() -> None:
    rng = torch.Generator().manual_seed(0)  # Hinton et al. 2015, equation 4
    student = torch.randn(5, 6, generator=rng, dtype=torch.double, requires_grad=True)
    teacher = torch.randn(5, 6, generator=rng, dtype=torch.double)
    loss = distillation_loss(student, torch.zeros(5, dtype=torch.long), teacher, share=1.0, temperature=1e4)
    (gradient,) = torch.autograd.grad(loss, student)
    student, teacher = (each - each.mean(1, keepdim=True) for each in (student.detach(), teacher))
    torch.testing.assert_close(gradient, (student - teacher) / (5 * 6), rtol=1e-3, atol=1e-5)


def test_a_teacher_of_other_examples_is_refused() -> None:
    graph, state = trained_resnet()
    logits = teacher_logits(graph, state, digits().train)
    assert logits.shape == (len(digits().train), 10)
    with pytest.raises(ConfigError, match="the teacher's outputs"):
        finetune(graph, state, digits().validation, steps=1, seed=0, teacher=logits)


def test_the_state_of_another_network_is_refused() -> None:
    with pytest.raises(StateError):
        finetune(resnet(width=7), trained_resnet()[1], digits().train, steps=1, seed=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("speed_up", [2.0, 5.0])
def test_every_method_cuts_to_the_speed_up_and_the_network_runs(method: str, speed_up: float) -> None:
    graph, state = trained_resnet()
    cut = prune_by(graph, state, method, speed_up=speed_up, data=digits().train, initial=random_state(graph))
    wanted = cost_of(graph).multiply_adds / speed_up
    assert 0.6 * wanted < cost_of(cut.graph).multiply_adds <= wanted
    assert run_network(cut.graph, cut.state, [digits().train.inputs[:3]])[0].shape == (3, 10)


def test_the_lottery_keeps_the_units_of_group_l2_and_the_initial_weights() -> None:
    graph, state = trained_resnet()
    initial = random_state(graph)
    ticket = prune_by(graph, state, "lottery", speed_up=2.0, initial=initial)
    assert ticket.graph == prune_by(graph, state, "l2", speed_up=2.0).graph
    keep = units_to_keep(graph, state, "lottery", speed_up=2.0)
    first = symmetry_table(graph).groups[0]
    name = first.members[0].parameter
    expected = initial[name][keep[first.name]] if first.name in keep else initial[name]
    torch.testing.assert_close(ticket.state[name], expected, rtol=0, atol=0)


def test_methods_without_what_they_need_are_refused() -> None:
    graph, state = trained_resnet()
    with pytest.raises(ConfigError, match="'taylor' needs data"):
        prune_by(graph, state, "taylor", speed_up=2.0)
    with pytest.raises(ConfigError, match="'lottery' needs the weights before training"):
        prune_by(graph, state, "lottery", speed_up=2.0)
    with pytest.raises(ConfigError, match="a method among l2"):
        prune_by(graph, state, "best", speed_up=2.0)
    with pytest.raises(EditError):
        prune_by(graph, state, "l2", speed_up=1e6)
    assert set(CRITERIA) < set(METHODS)


def test_a_comparison_gives_all_methods_the_same_cost_and_the_same_start() -> None:
    graph, state = trained_resnet()
    config = CompareConfig(speed_ups=(2.0,), steps_before=3, steps_after=3, norm_examples=200, tuning=TUNING)
    test = digits().validation
    sparse = Candidate(name="sparse", penalty=group_sparsity(graph, strength=1e-2))
    rows = compare_pruning(graph, state, digits(), ["l2", "random", sparse], test=test, seed=0, config=config)
    assert [row.method for row in rows] == ["l2", "random", "sparse"]
    assert rows[0].full == rows[1].full
    assert max(row.multiply_adds for row in rows) <= cost_of(graph).multiply_adds / 2
    again = compare_pruning(graph, state, digits(), ["l2"], test=test, seed=0, config=config)
    assert again[0] == rows[0]


def test_the_gradient_of_group_sparsity_is_strength_times_gamma_times_the_weight() -> None:
    graph, state = trained_resnet()
    table = symmetry_table(graph)
    counted = {n for n, spec in graph.parameters.items() if spec.role in ("weight", "scale")}
    leaves = {name: state[name].clone().requires_grad_() for name in counted}
    penalty = group_sparsity(graph, strength=0.5, alpha=16.0, relative=False)(leaves)
    gradients = torch.autograd.grad(penalty, list(leaves.values()), materialize_grads=True)
    expected = {name: torch.zeros_like(state[name]) for name in counted}
    for group in table.groups:
        squares = torch.zeros(group.size)
        for member in group.members:
            if member.parameter in counted:
                weight = state[member.parameter].movedim(member.axis, 0)
                for unit, places in enumerate(member.places()):
                    squares[unit] += weight[places].square().sum()
        scores = squares.sqrt()
        gamma = 16.0 ** ((scores.max() - scores) / (scores.max() - scores.min()))
        for member in group.members:
            if member.parameter in counted:
                target = expected[member.parameter].movedim(member.axis, 0)
                weight = state[member.parameter].movedim(member.axis, 0)
                for unit, places in enumerate(member.places()):
                    target[places] += 0.5 * gamma[unit] * weight[places]
    for name, gradient in zip(leaves, gradients, strict=True):
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_relative_sparsity_does_not_change_when_all_weights_are_scaled() -> None:
    graph, state = trained_resnet()
    penalty = group_sparsity(graph, strength=1.0)
    larger = {name: 3 * tensor for name, tensor in state.items()}
    torch.testing.assert_close(penalty(state), penalty(larger))


def test_sub_networks_of_a_space_have_one_cost_and_fall_within_the_band() -> None:
    graph = resnet(width=8, blocks=1)
    dense = cost_of(graph).multiply_adds
    few = Split(digits().train.inputs[:128], digits().train.targets[:128])
    data = type(digits())("few", digits().input_shape, 10, few, digits().validation)
    networks = sample_pruning_space(graph, data, target_ratio=0.5, count=4, steps=2, seed=0, tolerance=0.03)
    assert all(abs(network.multiply_adds / (0.5 * dense) - 1) <= 0.03 for network in networks)
    assert len({tuple(network.widths.values()) for network in networks}) > 1
    low = min(network.intensity for network in networks)
    middle = sum(network.intensity for network in networks) / 4
    band = sample_pruning_space(
        graph, data, target_ratio=0.5, count=2, steps=1, seed=1, tolerance=0.03, band=(low, middle)
    )
    assert all(low <= network.intensity <= middle for network in band)


def test_the_best_band_is_that_of_the_lowest_errors() -> None:
    networks = [
        SubNetwork({}, 100 * ratio, 100, error)
        for ratio, error in zip(range(1, 7), (5, 4, 1, 2, 6, 7), strict=True)
    ]
    assert best_band(networks, bins=3) == (3.0, 4.0)
    with pytest.raises(ConfigError, match="at least 6"):
        best_band(networks[:5], bins=3)


def test_lower_errors_are_told_from_higher_ones_and_from_equal_ones() -> None:
    low, high = [0.1 + i / 1000 for i in range(60)], [0.2 + i / 1000 for i in range(60)]
    assert compare_errors(high, low).p_value < 1e-6
    assert compare_errors(low, high).p_value > 0.9
    assert compare_errors(low, low).p_value > 0.9
    assert error_distribution([0.3, 0.1])[0] == [0.1, 0.3]
