"""Soups: what each recipe promises on the held-out data, and what is refused."""

from collections.abc import Mapping
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data import SearchData
from nasgraph.errors import ConfigError, UnknownNameError
from nasgraph.evaluate import TrainConfig, measure, never_stop, train_graph
from nasgraph.merge import (
    Ingredient,
    Kitchen,
    LearnedConfig,
    MergeError,
    check_ingredients,
    ensemble_accuracy,
    greedy_soup,
    learned_soup,
    linear,
    merge_entries,
    recompute_batch_norm,
    uniform_soup,
)
from nasgraph.modules import Program, build, initial_parameters
from nasgraph.symmetry import permute_units, random_orders, symmetry_table
from tests.merge.networks import blobs, random_state, small_convnet

GRAPH = small_convnet()
State = Mapping[str, Tensor]


def trained(data: SearchData, *, start: State, seed: int, epochs: int, rate: float) -> dict[str, Tensor]:
    config = TrainConfig(epochs=epochs, batch_size=32, learning_rate=rate)
    done = train_graph(GRAPH, data, config, start=start, seed=seed, keep_going=never_stop)
    return dict(done.state)


@cache
def fine_tuned() -> tuple[SearchData, dict[str, dict[str, Tensor]]]:
    """Four fine-tunes of one network, which has seen other noise."""
    base = trained(blobs(seed=1), start=initial_parameters(GRAPH, seed=0), seed=0, epochs=4, rate=5e-3)
    start = {name: base[name] for name in GRAPH.parameters}
    data = blobs(360, seed=2)
    return data, {
        f"tune-{place}": trained(data, start=start, seed=place, epochs=2, rate=rate)
        for place, rate in enumerate((1e-3, 3e-3, 1e-3, 6e-3))
    }


@cache
def apart() -> dict[str, Tensor]:
    data, _ = fine_tuned()
    return trained(data, start=initial_parameters(GRAPH, seed=99), seed=99, epochs=4, rate=5e-3)


def kitchen() -> Kitchen:
    data, states = fine_tuned()
    return Kitchen(GRAPH, states, data.validation, data.train)


def test_the_uniform_soup_is_the_mean_with_statistics_of_the_training_data() -> None:
    data, states = fine_tuned()
    merged = uniform_soup(kitchen())
    expected = recompute_batch_norm(GRAPH, linear(list(states.values())), data.train)
    for name, tensor in expected.items():
        torch.testing.assert_close(merged.state[name], tensor)
    assert merged.weights == tuple((name, 0.25) for name in states)


def test_the_greedy_soup_is_never_worse_on_the_held_out_data_than_the_best_ingredient() -> None:
    data, states = fine_tuned()
    random = random_state(GRAPH, dtype=torch.float32)
    for few in (states, {"tune-1": states["tune-1"], "random": random}):
        merged = greedy_soup(Kitchen(GRAPH, few, data.validation, data.train))
        assert merged.held_out.after >= merged.held_out.best
        again = measure(Program(GRAPH), merged.state, data.validation, batch_size=256)[1]
        assert merged.held_out.after == again
        assert sum(weight for _, weight in merged.weights) == pytest.approx(1.0)


def test_the_greedy_soup_accepts_ties() -> None:
    data, states = fine_tuned()
    twins = {"a": states["tune-1"], "b": dict(states["tune-1"])}
    assert greedy_soup(Kitchen(GRAPH, twins, data.validation)).ingredients == ("a", "b")


def test_a_greedy_soup_that_nothing_joins_is_the_best_model_bit_by_bit() -> None:
    data, states = fine_tuned()
    broken = {name: -tensor for name, tensor in states["tune-1"].items()}
    broken |= {name: -tensor for name, tensor in broken.items() if name.endswith("running_var")}
    merged = greedy_soup(
        Kitchen(GRAPH, {"good": states["tune-1"], "broken": broken}, data.validation, data.train)
    )
    assert merged.ingredients == ("good",)
    assert all(torch.equal(merged.state[name], tensor) for name, tensor in states["tune-1"].items())
    assert "best single model" in merged.notes[0]


def test_the_learned_soup_lowers_the_loss_below_that_of_the_mean() -> None:
    data, states = fine_tuned()
    good = states["tune-3"]
    noise = torch.Generator().manual_seed(0)
    bad = {n: t + 0.2 * torch.rand(t.shape, generator=noise) for n, t in good.items()}
    pot = Kitchen(GRAPH, {"bad": bad, "good": good}, data.validation, data.train)
    learned = learned_soup(pot, LearnedConfig(epochs=20, learning_rate=0.1))
    shares = dict(learned.weights)
    assert shares["good"] > 0.8
    assert sum(shares.values()) == pytest.approx(1.0)
    assert -pot.accuracy(learned.state)[1] < -pot.accuracy(uniform_soup(pot).state)[1]
    assert learned.weights == learned_soup(pot, LearnedConfig(epochs=20, learning_rate=0.1)).weights


def test_a_hot_learned_soup_stays_near_the_mean_and_a_free_one_need_not_sum_to_one() -> None:
    hot = learned_soup(kitchen(), LearnedConfig(temperature=1e6))
    assert [weight for _, weight in hot.weights] == pytest.approx([0.25] * 4, abs=1e-3)
    free = learned_soup(kitchen(), LearnedConfig(free=True, learning_rate=0.2))
    assert sum(weight for _, weight in free.weights) != pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ConfigError, match="'temperature' above 0"):
        LearnedConfig(temperature=0.0)


@pytest.mark.parametrize("method", ["uniform", "greedy", "learned"])
def test_merging_fine_tunes_gives_a_network_that_loads_and_is_as_good_as_it_says(method: str) -> None:
    data, states = fine_tuned()
    before = {name: {key: t.clone() for key, t in state.items()} for name, state in states.items()}
    merged = merge_entries(GRAPH, states, split=data.validation, train=data.train, method=method)
    module = build(GRAPH, seed=1)
    module.load_state_dict(merged.state, strict=True)
    logits = module.eval()(data.validation.inputs)
    accuracy = float((logits.argmax(1) == data.validation.targets).double().mean())
    assert accuracy == pytest.approx(merged.held_out.after)
    assert merged.held_out.num_examples == len(data.validation)
    assert [name for name, _ in merged.weights] == list(states)
    for name, state in states.items():
        assert all(torch.equal(state[key], before[name][key]) for key in state)


def test_fine_tunes_whose_units_were_shuffled_are_put_back_before_they_are_averaged() -> None:
    data, states = fine_tuned()
    table = symmetry_table(GRAPH)
    shuffled = {
        name: permute_units(table, state, random_orders(table, seed=place))
        for place, (name, state) in enumerate(states.items())
    }
    merged = merge_entries(GRAPH, shuffled, split=data.validation, train=data.train, method="uniform")
    plain = merge_entries(GRAPH, states, split=data.validation, train=data.train, method="uniform")
    assert merged.held_out.after == pytest.approx(plain.held_out.after, abs=0.02)
    assert "Units were reordered" in merged.notes[0]
    with pytest.raises(MergeError, match="accuracy breaks down"):
        merge_entries(GRAPH, shuffled, split=data.validation, train=data.train, method="uniform", align=False)


def test_networks_without_a_common_ancestor_are_refused_with_the_numbers() -> None:
    data, states = fine_tuned()
    strangers = {"one": states["tune-3"], "other": apart()}
    for method in ("uniform", "greedy", "learned"):
        with pytest.raises(MergeError, match=r"Half-way to '\w+', .* loses 0\.\d+ \(at most 0\.05"):
            merge_entries(
                GRAPH, strangers, split=data.validation, train=data.train, method=method, align=False
            )
    forced = merge_entries(
        GRAPH,
        strangers,
        split=data.validation,
        train=data.train,
        method="uniform",
        align=False,
        force=True,
    )
    assert "by force" in forced.notes[0]
    assert forced.held_out.after < forced.held_out.best


def test_a_greedy_soup_leaves_a_stranger_out_and_says_so() -> None:
    data, states = fine_tuned()
    worse = {**states, "stranger": {name: t.clone() for name, t in apart().items()}}
    names = [f"n{len(GRAPH) - 1}.weight", f"n{len(GRAPH) - 1}.bias"]
    for name in names:  # never the best
        worse["stranger"][name] = worse["stranger"][name].roll(1, 0)
    merged = merge_entries(GRAPH, worse, split=data.validation, train=data.train, align=False)
    assert dict(merged.weights)["stranger"] == 0.0
    assert any("Left out" in note and "'stranger'" in note for note in merged.notes)
    assert len(merged.held_out.before) == 5


def test_states_that_do_not_fit_are_refused_by_name() -> None:
    data, states = fine_tuned()
    good, other = states["tune-0"], states["tune-1"]
    spoilt = (
        ({**other, "n1.weight": other["n1.weight"] / 0}, "not finite"),
        ({**other, "n1.weight": other["n1.weight"][:2]}, "to have shape"),
        ({name: t for name, t in other.items() if name != "n1.weight"}, r"has no 'n1\.weight'"),
        ({**other, "n77.weight": torch.zeros(1)}, r"has 'n77\.weight', which the architecture does not"),
    )
    for bad, message in spoilt:
        with pytest.raises(MergeError, match=f"'?bad'?.*{message}|{message}"):
            merge_entries(GRAPH, {"good": good, "bad": bad}, split=data.validation)
    with pytest.raises(MergeError, match="two models or more"):
        merge_entries(GRAPH, {"good": good}, split=data.validation)
    with pytest.raises(UnknownNameError, match=r"No soup named 'greed'\. Close: 'greedy'"):
        merge_entries(GRAPH, states, split=data.validation, method="greed")


def test_ingredients_have_to_agree_in_architecture_data_and_order_of_classes() -> None:
    first = Ingredient("a", "f00d", data="hash", class_names=("cat", "dog"))
    wrong = (
        (Ingredient("b", "beef", data="hash", class_names=("cat", "dog")), "different architectures"),
        (Ingredient("b", "f00d", data="hash", class_names=("dog", "cat")), "order of the classes"),
        (Ingredient("b", "f00d", data="hash", class_names=("cat", "cow")), "differ in the classes"),
        (Ingredient("b", "f00d", data="else", class_names=("cat", "dog")), "different data"),
        (first, "'a' twice"),
    )
    for other, message in wrong:
        with pytest.raises(MergeError, match=message):
            check_ingredients([first, other])
    check_ingredients([first, Ingredient("b", "f00d", data="hash", class_names=("cat", "dog"))])


def test_averaged_statistics_of_batch_norms_are_named_as_a_risk() -> None:
    data, states = fine_tuned()
    merged = uniform_soup(Kitchen(GRAPH, states, data.validation))
    assert any("no training data" in note for note in merged.notes)


def test_the_ensemble_averages_logits() -> None:
    data, states = fine_tuned()
    total = torch.zeros(len(data.validation), 3)
    for state in states.values():
        module = build(GRAPH, seed=0)
        module.load_state_dict(state)
        total += module.eval()(data.validation.inputs).detach()
    expected = float((F.softmax(total, 1).argmax(1) == data.validation.targets).double().mean())
    assert ensemble_accuracy(GRAPH, list(states.values()), data.validation) == expected


def test_states_with_names_of_another_node_order_are_refused() -> None:
    """The names of parameters follow the order of nodes, so states of another order are refused, not mixed up."""
    data, states = fine_tuned()
    renamed = {
        f"n{int(name[1:].split('.')[0]) + 1}.{name.split('.')[1]}": t for name, t in states["tune-0"].items()
    }
    with pytest.raises(MergeError, match="has no"):
        merge_entries(GRAPH, {"a": states["tune-0"], "b": renamed}, split=data.validation)
