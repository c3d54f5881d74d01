"""From raw arrays to tensors: split, resize, scale, normalise. Done once; the result stays in memory."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.data.records import Array, DataSet, Normalisation, RawData, SearchData, Split
from nasgraph.data.splitting import IntArray, hold_out, stratified_sample
from nasgraph.errors import ConfigError, DataError
from nasgraph.files import canonical_json
from nasgraph.seeding import generator

TEST_SHARE = 0.2
MAX_TENSOR_BYTES = 32 * 2**30
_TEST_SEED = 1797  # never change it: published test accuracies depend on it
_CHUNK = 1024  # examples that are converted at a time, to keep the temporary memory small


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How raw data is divided and sized.

    Args:
        split_seed: Divides training from validation data. The test split never depends on it.
        validation_share: Validation examples, as a share of the published training examples. Above 0;
            below 1, or below 0.8 for sets without an official test split, of which 0.2 go there.
        image_size: Height and width in pixels to resize all images to; None keeps them.
        num_train: Training examples to keep, stratified; the validation split shrinks in proportion,
            the test split stays whole. None keeps all.

    Raises:
        ConfigError: If a value is out of its range.
    """

    split_seed: int = 0
    validation_share: float = 0.2
    image_size: int | None = None
    num_train: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ConfigError(f"Expected 'validation_share' between 0 and 1 (got {self.validation_share})")
        if self.image_size is not None and not 1 <= self.image_size <= 4096:
            raise ConfigError(f"Expected 'image_size' from 1 to 4096 pixels (got {self.image_size})")
        if self.num_train is not None and self.num_train < 1:
            raise ConfigError(f"Expected 'num_train' of at least 1 (got {self.num_train})")


def prepare(raw: RawData, *, name: str, settings: Preparation) -> DataSet:
    """Split, resize and normalise raw data.

    Deterministic: equal arguments give bit-identical tensors on one machine. The splits are disjoint and
    stratified. Mean and standard deviation come from the training split alone. Images are resized
    bilinearly with antialiasing.

    Args:
        raw: Content as published.
        name: Name to record.
        settings: How to divide and size it.

    Raises:
        ConfigError: If `settings` ask for more examples than there are, or to resize a table.
        DataError: If a class has too few examples to stand in every split, or the tensors would need
            more than 32 GiB.
    """
    if settings.image_size is not None and raw.train_inputs.ndim != 4:
        raise ConfigError(f"'image_size' needs images, but '{name}' is a table. Leave it out")
    train, validation, test = _divide(raw, settings)
    _check_memory(raw, settings, len(train) + len(validation) + len(test))
    test_inputs, test_labels = raw.test_inputs, raw.test_labels
    if test_inputs is None or test_labels is None:
        test_inputs, test_labels = raw.train_inputs, raw.train_labels
    sources = (raw.train_inputs, raw.train_inputs, test_inputs)
    tensors = [
        _scaled(inputs, index, settings.image_size)
        for inputs, index in zip(sources, (train, validation, test), strict=True)
    ]
    mean, std = _channel_statistics(tensors[0])
    for inputs in tensors:
        shape = (-1,) + (1,) * (inputs.ndim - 2)
        inputs.sub_(torch.tensor(mean).reshape(shape)).div_(torch.tensor(std).reshape(shape))
    return DataSet(
        search=SearchData(
            name=name,
            input_shape=tuple(tensors[0].shape[1:]),
            num_classes=len(raw.class_names),
            train=Split(tensors[0], _targets(raw.train_labels, train)),
            validation=Split(tensors[1], _targets(raw.train_labels, validation)),
        ),
        test=Split(tensors[2], _targets(test_labels, test)),
        class_names=raw.class_names,
        sha256=content_sha256(raw),
        split_seed=settings.split_seed,
        licence=raw.licence,
        source=raw.source,
        normalisation=Normalisation(_scale_of(raw.train_inputs), mean, std),
    )


def content_sha256(raw: RawData) -> str:
    """Hexadecimal SHA-256 over class names, shapes and values of all published examples."""
    digest = hashlib.sha256(canonical_json(list(raw.class_names)).encode())
    for inputs, labels in ((raw.train_inputs, raw.train_labels), (raw.test_inputs, raw.test_labels)):
        if inputs is None or labels is None:
            continue
        kind = "|u1" if inputs.dtype == np.uint8 else "<f4"
        digest.update(canonical_json([kind, list(inputs.shape)]).encode())
        digest.update(np.ascontiguousarray(inputs, dtype=kind).data)
        digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def _divide(raw: RawData, settings: Preparation) -> tuple[IntArray, IntArray, IntArray]:
    """Positions of the training, validation and test examples."""
    labels = raw.train_labels.astype(np.int64)
    _check_class_counts(raw, labels)
    if raw.test_inputs is None:
        # numpy promises that the numbers of RandomState never change; those of Generator may (NEP 19).
        num_test = max(1, round(TEST_SHARE * len(labels)))
        pool, test = hold_out(labels, num_test, np.random.RandomState(_TEST_SEED))
    else:
        pool, test = np.arange(len(labels)), np.arange(len(raw.test_inputs))
    num_validation = max(1, round(settings.validation_share * len(labels)))
    try:
        kept, held = hold_out(
            labels[pool], num_validation, generator(settings.split_seed, "validation split")
        )
    except ValueError as error:
        share = f"'validation_share' = {settings.validation_share} ({num_validation:,} examples)"
        raise ConfigError(
            f"{share} leaves too few of {len(pool):,} examples to train on in {raw.source}"
        ) from error
    train, validation = pool[kept], pool[held]
    if settings.num_train is not None:
        if settings.num_train > len(train):
            got = f"{settings.num_train:,}; the training split has {len(train):,}"
            raise ConfigError(f"Expected a smaller 'num_train' for {raw.source} (got {got})")
        num_validation = max(1, round(settings.num_train * len(validation) / len(train)))
        rng = generator(settings.split_seed, "num_train")
        train = train[stratified_sample(labels[train], settings.num_train, rng)]
        validation = validation[stratified_sample(labels[validation], num_validation, rng)]
    return train, validation, test


def _check_class_counts(raw: RawData, labels: IntArray) -> None:
    num_splits = 3 if raw.test_inputs is None else 2
    counts = np.bincount(labels)
    few = np.flatnonzero((counts > 0) & (counts < num_splits))
    if len(few):
        name, count = raw.class_names[few[0]], counts[few[0]]
        parts = "training, validation and test" if num_splits == 3 else "training and validation"
        others = f", and {len(few) - 1} more classes are as small" if len(few) > 1 else ""
        hint = "Numbers that are measured rather than classes cannot be used as labels"
        raise DataError(
            f"{raw.source}: expected at least {num_splits} examples of each class, for {parts} "
            f"(class '{name}' has {count}{others}). {hint}"
        )


def _check_memory(raw: RawData, settings: Preparation, num_examples: int) -> None:
    shape = raw.train_inputs.shape[1:]
    if settings.image_size is not None:
        shape = (shape[0], settings.image_size, settings.image_size)
    num_bytes = 4 * num_examples * math.prod(shape)
    if num_bytes > MAX_TENSOR_BYTES:
        need = f"{num_bytes / 2**30:.0f} GiB, the limit is {MAX_TENSOR_BYTES // 2**30}"
        raise DataError(
            f"{raw.source}: all tensors are kept in memory ({need}). Set 'image_size' or 'num_train'"
        )


def _scale_of(inputs: Array) -> float:
    return 1 / 255 if inputs.dtype == np.uint8 else 1.0


def _scaled(inputs: Array, index: IntArray, image_size: int | None) -> Tensor:
    """The chosen examples as one float tensor, bytes divided by 255, images resized."""
    shape = inputs.shape[1:]
    resized = image_size is not None and shape[1:] != (image_size, image_size)
    if resized:
        shape = (shape[0], image_size, image_size)
    result = torch.empty((len(index), *shape))
    for start in range(0, len(index), _CHUNK):
        chunk = torch.from_numpy(inputs[index[start : start + _CHUNK]]).float().mul_(_scale_of(inputs))
        if resized:
            chunk = F.interpolate(chunk, size=shape[1:], mode="bilinear", antialias=True, align_corners=False)
        result[start : start + _CHUNK] = chunk
    return result


def _channel_statistics(inputs: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation over all axes but the second, in double precision.

    numpy sums in one thread, so the result does not depend on the number of threads as torch's may.
    """
    array = inputs.numpy()
    axes = (0, *range(2, array.ndim))
    shape = (-1,) + (1,) * (array.ndim - 2)
    count = array.size / array.shape[1]
    chunks = [array[start : start + _CHUNK] for start in range(0, len(array), _CHUNK)]
    mean = sum(chunk.sum(axis=axes, dtype=np.float64) for chunk in chunks) / count
    squares = sum(np.square(chunk - mean.reshape(shape), dtype=np.float64).sum(axis=axes) for chunk in chunks)
    std = np.sqrt(squares / count)
    # Relative to the mean: rounding leaves a constant channel a spread that is tiny but not zero.
    std[std <= 1e-7 * np.maximum(np.abs(mean), 1e-30)] = 1.0
    return tuple(mean.tolist()), tuple(std.tolist())


def _targets(labels: Array, index: IntArray) -> Tensor:
    return torch.from_numpy(labels[index].astype(np.int64))
