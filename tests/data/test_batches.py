import pytest
import torch

from nasgraph.data import Augmentation, Split, add_noise, augment, batches, random_flip, random_shift


@pytest.fixture
def split() -> Split:
    return Split(torch.arange(23.0).reshape(23, 1, 1, 1).expand(23, 2, 3, 4).contiguous(), torch.arange(23))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def order(split: Split, *, seed: int = 0, epoch: int = 0) -> list[int]:
    return torch.cat([y for _, y in batches(split, batch_size=5, seed=seed, epoch=epoch)]).tolist()


def test_a_pass_shows_every_example_once_with_its_target(split: Split) -> None:
    seen = []
    for x, y in batches(split, batch_size=5, seed=0, epoch=0):
        assert x[:, 0, 0, 0].tolist() == y.tolist()
        seen += y.tolist()
    assert sorted(seen) == list(range(23))
    assert seen != list(range(23))


def test_the_order_is_a_function_of_seed_and_epoch(split: Split) -> None:
    assert order(split, seed=1, epoch=7) == order(split, seed=1, epoch=7)
    orders = {tuple(order(split, seed=seed, epoch=epoch)) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4


def test_no_global_generator_is_touched(split: Split) -> None:
    before = torch.random.get_rng_state()
    for x, _ in batches(split, batch_size=5, seed=0, epoch=0):
        augment(x, Augmentation(shift_pixels=1, flip=True, noise_std=0.1), rng=rng())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [5, 5, 5, 5, 3]), (True, [5, 5, 5, 5])])
def test_the_last_batch_is_kept_or_dropped(split: Split, drop_last: bool, sizes: list[int]) -> None:
    assert [len(y) for _, y in batches(split, batch_size=5, seed=0, epoch=0, drop_last=drop_last)] == sizes


def test_wrong_batch_sizes_are_refused_at_once(split: Split) -> None:
    with pytest.raises(ValueError, match=r"at least 1 \(got 0\)"):
        batches(split, batch_size=0, seed=0, epoch=0)
    with pytest.raises(ValueError, match=r"at most 23 with 'drop_last' \(got 24\)"):
        batches(split, batch_size=24, seed=0, epoch=0, drop_last=True)


def test_batches_and_augmentation_stay_on_the_device_of_the_split(split: Split) -> None:
    for x, y in batches(split.to("meta"), batch_size=5, seed=0, epoch=0):
        changed = augment(x, Augmentation(shift_pixels=1, flip=True, noise_std=0.1), rng=rng())
        assert {x.device.type, y.device.type, changed.device.type} == {"meta"}
        assert changed.shape == x.shape


def test_a_shift_moves_whole_images_and_repeats_the_edge() -> None:
    image = torch.arange(20.0).reshape(1, 1, 4, 5)
    shifted = random_shift(image.expand(500, 2, 4, 5), 2, rng=rng())
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2), mode="replicate")[0, 0]
    windows = {tuple(padded[r : r + 4, c : c + 5].flatten().tolist()) for r in range(5) for c in range(5)}
    assert {tuple(row) for row in shifted[:, 0].flatten(1).tolist()} == windows
    assert torch.equal(shifted[:, 0], shifted[:, 1])


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    flipped = random_flip(image.expand(1000, 1, 2, 3), rng=rng())
    mirrored = (flipped == image.flip(-1)).flatten(1).all(1)
    assert ((flipped == image).flatten(1).all(1) ^ mirrored).all()
    assert 430 < mirrored.sum() < 570


def test_noise_has_the_standard_deviation_asked_for() -> None:
    noise = add_noise(torch.full((200, 100), 3.0), 0.5, rng=rng()) - 3
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 0.5) < 0.02


def test_augmentation_is_a_function_of_the_generator_and_leaves_its_input_alone(split: Split) -> None:
    settings = Augmentation(shift_pixels=1, flip=True, noise_std=0.1)
    before = split.inputs.clone()
    assert torch.equal(
        augment(split.inputs, settings, rng=rng(1)), augment(split.inputs, settings, rng=rng(1))
    )
    assert not torch.equal(
        augment(split.inputs, settings, rng=rng(1)), augment(split.inputs, settings, rng=rng(2))
    )
    assert torch.equal(split.inputs, before)


def test_the_default_augmentation_changes_nothing(split: Split) -> None:
    assert torch.equal(augment(split.inputs, Augmentation(), rng=rng()), split.inputs)


def test_tables_can_have_noise() -> None:
    assert augment(torch.zeros(4, 3), Augmentation(noise_std=1.0), rng=rng()).abs().min() > 0


def test_negative_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 0 \(got -1 and 0.0\)"):
        Augmentation(shift_pixels=-1)
