"""The real data that lies beside the checkout on a developer's machine."""

from pathlib import Path

import pytest
import torch

from nasgraph.data import load_dataset
from nasgraph.data.fetch import check_file
from nasgraph.data.idx import FASHION_MNIST

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def fashion_dir() -> Path:
    if not (DATA / "fashion_mnist").is_dir():
        pytest.skip(f"needs the real Fashion-MNIST in '{DATA / 'fashion_mnist'}'")
    return DATA


@pytest.fixture
def cifar_dir() -> Path:
    if not (DATA / "cifar10" / "index.npz").is_file():
        pytest.skip(f"needs the sheets of CIFAR-10 in '{DATA / 'cifar10'}'")
    return DATA


def test_the_official_files_of_fashion_mnist_have_the_checksums_in_the_code(fashion_dir: Path) -> None:
    for file in FASHION_MNIST.files:
        path = fashion_dir / "fashion_mnist" / file.name
        check_file(file, path)
        assert path.stat().st_size == file.num_bytes


def test_fashion_mnist_has_its_published_counts_and_statistics(fashion_dir: Path) -> None:
    data = load_dataset("fashion-mnist", data_dir=fashion_dir, download=False)
    assert (len(data.search.train), len(data.search.validation), len(data.test)) == (48_000, 12_000, 10_000)
    assert data.input_shape == (1, 28, 28)
    assert torch.bincount(data.search.train.targets).tolist() == [4_800] * 10
    assert torch.bincount(data.test.targets).tolist() == [1_000] * 10
    # 0.2860 and 0.3530 are published for the whole training file; this is 80 % of it.
    assert data.normalisation.mean[0] == pytest.approx(0.2860, abs=2e-3)
    assert data.normalisation.std[0] == pytest.approx(0.3530, abs=2e-3)


def test_fashion_mnist_is_not_taken_for_mnist(fashion_dir: Path) -> None:
    with pytest.raises(ValueError, match="those of 'fashion-mnist', not of 'mnist'"):
        load_dataset("mnist", data_dir=fashion_dir / "fashion_mnist", download=False)


@pytest.mark.slow
def test_cifar10_has_its_published_counts_and_statistics(cifar_dir: Path) -> None:
    data = load_dataset("cifar10", data_dir=cifar_dir, download=False)
    sheets = len(list((cifar_dir / "cifar10").glob("train_*.webp")))
    assert len(data.search.train) + len(data.search.validation) == 2_000 * sheets
    assert data.input_shape == (3, 32, 32)
    assert len(set(torch.bincount(data.search.train.targets).tolist())) == 1
    assert data.normalisation.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=3e-3)
    assert data.normalisation.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=3e-3)


def test_the_small_cifar10_archive_is_read_by_path(cifar_dir: Path) -> None:
    data = load_dataset(cifar_dir / "cifar10_tiny.npz", image_size=16)
    assert (len(data.search.train), len(data.search.validation), len(data.test)) == (800, 200, 500)
    assert data.input_shape == (3, 16, 16)
    assert data.class_names[3] == "cat"
