import hashlib
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nasgraph.data import DataSet, Preparation, RawData, SearchData, Split, prepare
from nasgraph.data.splitting import hold_out, stratified_sample
from nasgraph.errors import ConfigError, DataError
from tests.data.making import cyclic_labels, random_bytes, raw_data


def numbers_of(data: DataSet, split: Split) -> list[int]:
    """Which raw examples a split holds: `raw_data` writes the number into the first pixel."""
    std, mean = data.normalisation.std[0], data.normalisation.mean[0]
    return [round(value) for value in (split.inputs[:, 0, 0, 0].double() * std + mean).tolist()]


def equal(first: Split, second: Split) -> bool:
    return torch.equal(first.inputs, second.inputs) and torch.equal(first.targets, second.targets)


def test_without_an_official_test_split_the_parts_are_60_20_20_and_disjoint() -> None:
    data = prepare(raw_data(300), name="made", settings=Preparation())
    parts = [numbers_of(data, split) for split in (data.search.train, data.search.validation, data.test)]
    assert [len(part) for part in parts] == [180, 60, 60]
    assert sorted(chain(*parts)) == list(range(300))


def test_an_official_test_split_is_kept_in_its_order() -> None:
    data = prepare(raw_data(60, 30), name="made", settings=Preparation())
    assert numbers_of(data, data.test) == list(range(60, 90))
    assert sorted(numbers_of(data, data.search.train) + numbers_of(data, data.search.validation)) == list(
        range(60)
    )


def test_all_splits_have_the_same_share_of_each_class() -> None:
    data = prepare(raw_data(300), name="made", settings=Preparation())
    for split in (data.search.train, data.search.validation, data.test):
        assert torch.bincount(split.targets).tolist() == [len(split) // 3] * 3


def test_targets_stay_with_their_inputs() -> None:
    data = prepare(raw_data(90), name="made", settings=Preparation())
    for split in (data.search.train, data.search.validation, data.test):
        assert [number % 3 for number in numbers_of(data, split)] == split.targets.tolist()


def test_equal_settings_give_bit_identical_tensors() -> None:
    first, second = (prepare(raw_data(), name="made", settings=Preparation(split_seed=3)) for _ in range(2))
    assert equal(first.search.train, second.search.train)
    assert equal(first.search.validation, second.search.validation)
    assert equal(first.test, second.test)


def test_the_split_seed_moves_train_and_validation_but_never_test() -> None:
    first, second = (
        prepare(raw_data(), name="made", settings=Preparation(split_seed=seed)) for seed in (0, 1)
    )
    assert numbers_of(first, first.test) == numbers_of(second, second.test)
    assert set(numbers_of(first, first.search.train)) != set(numbers_of(second, second.search.train))


def test_search_data_has_no_way_to_the_test_split() -> None:
    assert not any("test" in name for name in dir(SearchData) if not name.startswith("__"))
    data = prepare(raw_data(), name="made", settings=Preparation())
    held = {split.inputs.data_ptr() for split in (data.search.train, data.search.validation)}
    assert data.test.inputs.untyped_storage().data_ptr() not in held


def test_normalisation_comes_from_the_training_split_alone() -> None:
    raw = raw_data(60, 30)
    changed = replace(raw, test_inputs=raw.test_inputs * np.float32(9))  # type: ignore[operator]  # not None here
    first, second = (prepare(r, name="made", settings=Preparation()) for r in (raw, changed))
    assert first.normalisation == second.normalisation
    train = first.search.train.inputs.double()
    torch.testing.assert_close(train.mean((0, 2, 3)), torch.zeros(2, dtype=torch.double), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        train.std((0, 2, 3), correction=0), torch.ones(2, dtype=torch.double), atol=1e-6, rtol=0
    )


def test_validation_examples_do_not_enter_the_normalisation() -> None:
    raw = raw_data(60, 30)
    data = prepare(raw, name="made", settings=Preparation())
    inputs = raw.train_inputs.astype(np.float32).copy()
    inputs[numbers_of(data, data.search.validation), 1] += 100
    changed = prepare(replace(raw, train_inputs=inputs), name="made", settings=Preparation())
    assert changed.normalisation == data.normalisation


def test_normalisation_applies_to_raw_inputs_as_it_did_to_the_splits() -> None:
    images = random_bytes(40, 3, 4, 4)
    raw = RawData(
        train_inputs=images,
        train_labels=cyclic_labels(40, 2),
        test_inputs=images[:10],
        test_labels=cyclic_labels(10, 2),
        class_names=("a", "b"),
        licence="none",
        source="made here",
    )
    data = prepare(raw, name="made", settings=Preparation())
    assert data.normalisation.scale == 1 / 255
    torch.testing.assert_close(
        data.normalisation.apply(torch.from_numpy(images[:10]).float()), data.test.inputs
    )


def test_a_feature_that_never_varies_becomes_zero() -> None:
    features = np.random.default_rng(0).random((30, 3), dtype=np.float32)
    features[:, 1] = 0.1
    raw = replace(raw_data(30), train_inputs=features)
    data = prepare(raw, name="made", settings=Preparation())
    assert data.input_shape == (3,)
    assert data.normalisation.std[1] == 1
    assert data.search.train.inputs[:, 1].abs().max() < 1e-6


@pytest.mark.parametrize("size", [2, 3, 8])
def test_images_are_resized_as_torch_resizes_them(size: int) -> None:
    raw = raw_data(12, 6)
    data = prepare(raw, name="made", settings=Preparation(image_size=size))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(raw.test_inputs), size=(size, size), mode="bilinear", antialias=True
    )
    assert data.input_shape == (2, size, size)
    torch.testing.assert_close(data.test.inputs, data.normalisation.apply(expected))
    assert data.sha256 == prepare(raw, name="made", settings=Preparation()).sha256


def test_num_train_keeps_a_stratified_part_and_the_share_of_validation() -> None:
    whole = prepare(raw_data(300, 30), name="made", settings=Preparation())
    part = prepare(raw_data(300, 30), name="made", settings=Preparation(num_train=24))
    assert (len(part.search.train), len(part.search.validation), len(part.test)) == (24, 6, 30)
    assert torch.bincount(part.search.train.targets).tolist() == [8, 8, 8]
    assert set(numbers_of(part, part.search.train)) <= set(numbers_of(whole, whole.search.train))


def test_the_hash_tells_content_apart_and_ignores_how_it_is_divided() -> None:
    raw = raw_data(60, 30)
    base = prepare(raw, name="made", settings=Preparation())
    assert prepare(raw, name="other", settings=Preparation(split_seed=5, num_train=9)).sha256 == base.sha256
    labels = raw.train_labels.astype(np.int64).copy()
    labels[7] = (labels[7] + 1) % 3
    turned = np.concatenate([raw.train_inputs, raw.test_inputs]).transpose(0, 1, 3, 2)
    for other in (
        replace(raw, train_labels=labels),
        replace(raw, class_names=("a", "b", "x")),
        replace(raw, test_inputs=None, test_labels=None),
        replace(raw, train_inputs=turned[:60], test_inputs=turned[60:]),
    ):
        assert prepare(other, name="made", settings=Preparation()).sha256 != base.sha256
    assert len(bytes.fromhex(base.sha256)) == hashlib.sha256().digest_size


def test_subsets_are_stratified_deterministic_and_parts_of_their_split() -> None:
    search = prepare(raw_data(300), name="made", settings=Preparation()).search
    first, again, other = (search.subset(30, 9, seed) for seed in (1, 1, 2))
    assert equal(first.train, again.train)
    assert equal(first.validation, again.validation)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert torch.bincount(first.train.targets).tolist() == [10, 10, 10]
    assert torch.bincount(first.validation.targets).tolist() == [3, 3, 3]
    rows = {tuple(row) for row in search.train.inputs.flatten(1).tolist()}
    assert {tuple(row) for row in first.train.inputs.flatten(1).tolist()} <= rows
    assert (first.name, first.input_shape, first.num_classes) == (search.name, search.input_shape, 3)


def test_moving_search_data_moves_every_tensor() -> None:
    moved = prepare(raw_data(), name="made", settings=Preparation()).search.to("meta")
    tensors: list[Tensor] = []
    for split in (moved.train, moved.validation):
        tensors += [split.inputs, split.targets]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_a_sample_has_the_size_asked_for_and_each_class_in_proportion(
    counts: list[int], share: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    size = round(share * len(labels))
    sample = stratified_sample(labels, size, np.random.default_rng(seed))
    assert len(sample) == len(set(sample.tolist())) == size
    drawn = np.bincount(labels[sample], minlength=len(counts))
    if size >= len(counts):
        assert drawn.min() >= 1
    # At most one off by rounding, and one for each class that is lifted to its single example.
    assert np.abs(drawn - np.array(counts) * size / len(labels)).max() <= 1 + len(counts)


@given(counts=st.lists(st.integers(2, 30), min_size=1, max_size=6), seed=st.integers(0, 2**32))
def test_what_is_held_out_and_what_is_kept_are_a_partition(counts: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    size = max(1, len(labels) // 5)
    kept, held = hold_out(labels, size, np.random.default_rng(seed))
    assert len(held) == size
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert set(labels[kept].tolist()) == set(range(len(counts)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"validation_share": 0.0}, "validation_share"),
        ({"validation_share": 1.0}, "validation_share"),
        ({"validation_share": float("nan")}, "validation_share"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": 10**9}, "image_size"),
        ({"num_train": 0}, "num_train"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Preparation(**settings)  # type: ignore[arg-type]  # the fields have several types


def test_settings_that_ask_for_too_much_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'num_train' .*got 900; the training split has 36"):
        prepare(raw_data(), name="made", settings=Preparation(num_train=900))
    with pytest.raises(ConfigError, match=r"'validation_share' = 0.9"):
        prepare(raw_data(), name="made", settings=Preparation(validation_share=0.9))
    with pytest.raises(ConfigError, match=r"'image_size' needs images"):
        prepare(
            replace(raw_data(), train_inputs=np.zeros((60, 4), np.float32)),
            name="made",
            settings=Preparation(image_size=8),
        )
    with pytest.raises(DataError, match=r"memory \(.* GiB, the limit is 32\). Set 'image_size'"):
        prepare(raw_data(3000), name="made", settings=Preparation(image_size=4096))
    search = prepare(raw_data(), name="made", settings=Preparation()).search
    with pytest.raises(ConfigError, match=r"'num_validation' from 1 to 12 \(got 13\)"):
        search.subset(5, 13, 0)


def test_a_class_too_small_for_every_split_is_named() -> None:
    labels = cyclic_labels(60, 2)
    labels[0] = 2
    with pytest.raises(DataError, match=r"at least 3 examples of each class.*class 'c' has 1"):
        prepare(replace(raw_data(), train_labels=labels), name="made", settings=Preparation())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_labels": cyclic_labels(59, 3)}, "one training label per input .got 60 inputs"),
        ({"train_labels": cyclic_labels(60, 4)}, "labels from 0 to 2 .training example 3 has 3"),
        ({"train_labels": cyclic_labels(60, 3).astype(np.int64) - 1}, "training example 0 has -1"),
        ({"train_labels": np.zeros(60, np.int64)}, "at least 2 classes"),
        ({"train_labels": np.zeros(60, np.float32)}, "integer training labels"),
        ({"train_inputs": np.full((60, 3), np.nan, np.float32)}, "training example 0 has a NaN"),
        ({"train_inputs": np.zeros((60, 3), np.float64)}, "uint8 or float32"),
        ({"train_inputs": np.zeros((60, 3, 3), np.uint8)}, "uint8 or float32"),
        ({"train_inputs": np.zeros((0, 3), np.uint8)}, "no training examples"),
        ({"test_labels": cyclic_labels(9, 3)}, "test inputs and test labels, or neither"),
        ({"test_inputs": np.zeros((9, 7), np.float32), "test_labels": cyclic_labels(9, 3)}, "of one shape"),
        (
            {"test_inputs": np.zeros((9, 2, 4, 5), np.uint8), "test_labels": cyclic_labels(9, 3)},
            "of one type",
        ),
    ],
)
def test_raw_data_that_breaks_a_rule_cannot_be_made(change: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=f"^made here: .*{words}"):
        replace(raw_data(), **change)  # type: ignore[arg-type]  # the fields have several types


def test_a_split_needs_one_target_per_input() -> None:
    with pytest.raises(ValueError, match=r"one target per input \(got 3 and 4\)"):
        Split(torch.zeros(3, 2), torch.zeros(4, dtype=torch.long))
