"""Weights generated for data sets."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nasgraph.data import Split, load_dataset
from nasgraph.errors import CheckpointError, UnknownNameError
from nasgraph.meta.generate import (
    KINDS,
    GenerateError,
    GeneratorConfig,
    NearestGenerator,
    RidgeGenerator,
    Support,
    TrainingSet,
    WeightSpace,
    align_stack,
    draw_support,
    fit_generator,
    load_generator,
    nearest_distance,
    novelty,
    pick_best,
    save_generator,
)
from nasgraph.meta.generate.baselines import support_matrix
from nasgraph.meta.generate.space import flatten_stack, shapes_of, unflatten
from nasgraph.meta.population import (
    NetworkSettings,
    initial_stack,
    measure_stack,
    perceptron,
    stack_outputs,
    stack_states,
    train_stack,
    unstack,
)
from nasgraph.modules import check_state
from nasgraph.symmetry import permute_units, random_orders, symmetry_table

GRAPH = perceptron((6,), norm="batch")
CONFIG = GeneratorConfig(latent_dim=5, width=16, depth=1, timesteps=8, steps=12, batch_size=8)
SETS = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))


@pytest.fixture(scope="module")
def training() -> TrainingSet:
    data = load_dataset("digits").search.train
    settings = [
        NetworkSettings(seed=seed, initial_seed=0, steps=20, classes=classes)
        for seed, classes in enumerate(SETS * 2)
    ]
    stack = train_stack(GRAPH, initial_stack(GRAPH, settings), data, settings, batch_size=16).state
    return TrainingSet(GRAPH, stack, SETS * 2, data, 10)


def _support(training: TrainingSet, seed: int = 0) -> Support:
    return draw_support(training.data, (0, 1), num_classes=10, seed=seed)


@pytest.mark.parametrize("alignment", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_makes_networks_of_its_graph_and_survives_a_file(
    kind: str, alignment: bool, training: TrainingSet, tmp_path: Path
) -> None:
    config = GeneratorConfig(**{**_fields(CONFIG), "alignment": alignment})  # type: ignore[arg-type]  # same fields
    made = fit_generator(kind, training, config)
    support = _support(training)
    stack = made.generate(support, count=3, seed=1)
    for row in range(3):
        check_state(GRAPH, unstack(stack, row))
    save_generator(made, tmp_path, config=config, recipe={"population": "test"})
    again, recipe = load_generator(tmp_path)
    assert (again.kind, recipe) == (kind, {"population": "test"})
    for name, tensor in again.generate(support, count=3, seed=1).items():
        assert torch.equal(tensor, stack[name])


def _fields(config: GeneratorConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in GeneratorConfig.__dataclass_fields__}


def test_only_diffusion_and_noise_have_chance(training: TrainingSet) -> None:
    support = _support(training)
    noisy = GeneratorConfig(**{**_fields(CONFIG), "noise": 1.0})  # type: ignore[arg-type]  # same fields
    for kind, config, varies in (
        ("mean", CONFIG, False),
        ("nearest", CONFIG, False),
        ("ridge", CONFIG, False),
        ("nearest", noisy, True),
        ("diffusion", CONFIG, True),
    ):
        made = fit_generator(kind, training, config)
        one, two = (flatten_stack(made.generate(support, count=1, seed=seed)) for seed in (0, 1))
        assert torch.equal(one, two) is not varies
        assert torch.equal(one, flatten_stack(made.generate(support, count=1, seed=0)))


def test_fitting_twice_gives_the_same_weights(training: TrainingSet) -> None:
    before = torch.random.get_rng_state()
    one, two = (fit_generator("diffusion", training, CONFIG).tensors() for _ in range(2))
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name])
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_mean_is_the_mean_and_the_nearest_has_the_same_classes(training: TrainingSet) -> None:
    mean = fit_generator("mean", training, CONFIG).generate(_support(training), count=2, seed=0)
    for name, tensor in training.stack.items():
        torch.testing.assert_close(mean[name][1], tensor.mean(0), rtol=1e-4, atol=1e-5)
    made = NearestGenerator.fit(training, CONFIG)
    rows = flatten_stack(training.stack)
    for seed, classes in enumerate(SETS):
        support = draw_support(training.data, classes, num_classes=10, per_class=40, seed=seed)
        row = flatten_stack(made.generate(support, count=1, seed=0))
        assert training.classes[int(torch.cdist(row, rows).argmin())] == classes


def test_ridge_regression_solves_what_scikit_learn_solves(training: TrainingSet) -> None:
    from sklearn.linear_model import Ridge

    config = GeneratorConfig(**{**_fields(CONFIG), "penalty": 3.0})  # type: ignore[arg-type]  # same fields
    made = RidgeGenerator.fit(training, config)
    from nasgraph.seeding import derive_seed

    x = torch.cat(
        [
            support_matrix(training, per_class=10, seed=derive_seed(config.seed, "ridge", draw))
            for draw in range(4)
        ]
    )
    y = made.space.encode(training.stack).repeat(4, 1)
    model = Ridge(alpha=3.0, fit_intercept=False).fit(x.double().numpy(), y.double().numpy())
    torch.testing.assert_close(
        made.weight_FK.double(), torch.from_numpy(model.coef_.T.copy()), rtol=1e-3, atol=1e-5
    )


def test_all_components_give_the_training_networks_back(training: TrainingSet) -> None:
    space = WeightSpace.fit(GRAPH, training.stack, dim=100, alignment=False)
    latents = space.encode(training.stack)
    torch.testing.assert_close(latents.var(0), torch.ones(latents.shape[1]), rtol=1e-3, atol=1e-3)
    for name, tensor in space.decode(latents).items():
        torch.testing.assert_close(tensor, training.stack[name], rtol=1e-3, atol=1e-3)
    assert torch.equal(
        flatten_stack(unflatten(flatten_stack(training.stack), shapes_of(training.stack))),
        flatten_stack(training.stack),
    )


def test_alignment_undoes_permutations_and_keeps_functions(training: TrainingSet) -> None:
    table, network = symmetry_table(GRAPH), unstack(training.stack, 0)
    moved = stack_states(
        [permute_units(table, network, random_orders(table, seed=seed)) for seed in range(3)]
    )
    back = align_stack(GRAPH, moved, to=network)
    inputs = training.data.inputs[:20]
    torch.testing.assert_close(
        stack_outputs(GRAPH, moved, inputs), stack_outputs(GRAPH, back, inputs), rtol=1e-4, atol=1e-4
    )
    for name, tensor in back.items():
        assert torch.equal(tensor, network[name].expand_as(tensor))
    space = WeightSpace.fit(GRAPH, training.stack, dim=5, alignment=True)
    own = {name: tensor[:1] for name, tensor in training.stack.items()}
    torch.testing.assert_close(space.encode(moved), space.encode(own).expand(3, -1), rtol=1e-3, atol=1e-3)


def test_novelty_is_zero_for_copies_and_one_for_real_networks() -> None:
    rng = torch.Generator().manual_seed(0)
    training, held = torch.randn(30, 5, generator=rng), torch.randn(10, 5, generator=rng)
    assert novelty(training[3:7], held, training).ratio == 0
    assert novelty(held, held, training).ratio == 1
    expected = torch.stack([(held[0] - each).norm() for each in training]).min()
    assert float(nearest_distance(held[:1], training)) == pytest.approx(float(expected), rel=1e-5)


def test_the_best_of_several_has_the_least_loss_on_the_support(training: TrainingSet) -> None:
    support = draw_support(training.data, (2, 3), num_classes=10)
    data = Split(support.inputs.reshape(-1, 1, 8, 8), support.targets)
    loss, _ = measure_stack(GRAPH, training.stack, data)
    assert pick_best(GRAPH, training.stack, support) == int(loss.argmin())


def test_a_support_does_not_depend_on_the_order_of_examples(training: TrainingSet) -> None:
    support = _support(training)
    order = torch.randperm(len(support.targets), generator=torch.Generator().manual_seed(0))
    other = Support(support.inputs[order], support.targets[order], 10)
    torch.testing.assert_close(support.features(), other.features())
    assert set(support.targets.tolist()) == {0, 1}
    assert len(support.targets) == 20


_WRONG: dict[str, Callable[[TrainingSet], object]] = {
    "no examples of class 11": lambda t: draw_support(t.data, (11,), num_classes=12),
    "not finite": lambda _: Support(torch.full((1, 64), torch.nan), torch.zeros(1, dtype=torch.int64), 10),
    "classes from 0 to 9": lambda _: Support(torch.zeros(1, 64), torch.full((1,), 10), 10),
    "inputs of 64 numbers": lambda t: fit_generator("mean", t, CONFIG).generate(
        Support(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64), 10), count=1, seed=0
    ),
    "'count' of at least 1": lambda t: fit_generator("mean", t, CONFIG).generate(
        _support(t), count=0, seed=0
    ),
    "'steps' above 0": lambda _: GeneratorConfig(steps=0),
    "at least two networks": lambda t: fit_generator(
        "mean", TrainingSet(t.graph, {n: x[:1] for n, x in t.stack.items()}, SETS[:1], t.data, 10)
    ),
    "in a training network": lambda t: fit_generator(
        "mean",
        TrainingSet(t.graph, {n: x * torch.nan for n, x in t.stack.items()}, t.classes, t.data, 10),
    ),
}


@pytest.mark.parametrize("message", _WRONG)
def test_what_makes_no_sense_is_refused(message: str, training: TrainingSet) -> None:
    with pytest.raises(GenerateError, match=message):
        _WRONG[message](training)


def test_damaged_files_and_unknown_kinds_are_refused(training: TrainingSet, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="diffusion"):
        fit_generator("diffusoin", training)
    made = fit_generator("ridge", training, CONFIG)
    save_generator(made, tmp_path, config=CONFIG, recipe={})
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="checksum"):
        load_generator(tmp_path)
    with pytest.raises(CheckpointError, match="No weight generator"):
        load_generator(tmp_path / "nowhere")


def test_diffusion_learns_where_the_networks_of_each_data_set_lie(training: TrainingSet) -> None:
    """Networks of each class set stand at a place of their own: samples must stand near the right one."""
    rng = torch.Generator().manual_seed(0)
    places = {classes: torch.randn(1, 5, generator=rng) * 2 for classes in SETS}
    names = {"a": torch.cat([places[c] for c in SETS * 10])}
    noise = 0.05 * torch.randn(60, 5, generator=rng)
    layer = perceptron((), input_shape=(4,), num_classes=1)
    weight = (names["a"] + noise)[:, :4].reshape(60, 1, 4)
    stack = {"n1.bias": (names["a"] + noise)[:, 4:], "n1.weight": weight}
    told = TrainingSet(layer, stack, SETS * 10, training.data, 10)
    config = GeneratorConfig(latent_dim=5, width=64, depth=2, timesteps=30, steps=250, learning_rate=3e-3)
    made = fit_generator("diffusion", told, config)
    for seed, classes in enumerate(SETS):
        support = draw_support(training.data, classes, num_classes=10, seed=seed)
        drawn = flatten_stack(made.generate(support, count=8, seed=seed))
        target = flatten_stack({"n1.bias": places[classes][:, 4:], "n1.weight": places[classes][:, None, :4]})
        others = torch.cat(
            [
                flatten_stack({"n1.bias": p[:, 4:], "n1.weight": p[:, None, :4]})
                for c, p in places.items()
                if c != classes
            ]
        )
        assert float((drawn - target).norm(dim=1).median()) < 0.5 * float((others - target).norm(dim=1).min())
