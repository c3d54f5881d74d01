import gzip
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.data import load_dataset
from nasgraph.data.idx import read_idx
from nasgraph.errors import DataError
from tests.data.making import cyclic_labels, idx_bytes, random_bytes, write_idx_set


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (0, 4, 4)])
def test_an_array_comes_back_as_it_was_written(tmp_path: Path, shape: tuple[int, ...], zipped: bool) -> None:
    array = random_bytes(*shape)
    data = idx_bytes(array)
    (tmp_path / "file").write_bytes(gzip.compress(data, mtime=0) if zipped else data)
    np.testing.assert_array_equal(read_idx(tmp_path / "file", num_axes=array.ndim), array)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "magic , not 00000801"),
        (b"\x89PNG\r\n\x1a\n", "magic 89504e47, not 00000801"),
        (idx_bytes(random_bytes(2, 2, 2)), "magic 00000803, not 00000801"),
        (b"\x00\x00\x08\x01\x00", "ends within its header"),
        (idx_bytes(random_bytes(9))[:-1], r"Expected 9 bytes .*got 8; the file is truncated"),
        (idx_bytes(random_bytes(9)) + b"x", r"got more"),
        (b"\x00\x00\x08\x01\xff\xff\xff\xff", "at most 1,073,741,824 values"),
        (gzip.compress(idx_bytes(random_bytes(9)), mtime=0)[:-9], "Cannot read"),
        (b"\x1f\x8b", "Cannot read"),
    ],
)
def test_damaged_files_are_refused_with_the_reason(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_idx(tmp_path / "file", num_axes=1)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    content = b"\x00\x00\x08\x01\x00\x00\x00\x05" + bytes(2**24)
    (tmp_path / "file").write_bytes(gzip.compress(content, mtime=0))
    with pytest.raises(DataError, match=r"Expected 5 bytes .*got more"):
        read_idx(tmp_path / "file", num_axes=1)


@given(
    magic=st.sampled_from([b"", b"\x00\x00\x08\x01", b"\x00\x00\x08\x03", b"\x1f\x8b\x08\x00"]),
    garbage=st.binary(max_size=200),
    zipped=st.booleans(),
    num_axes=st.sampled_from([1, 3]),
)
def test_garbage_gives_a_valid_array_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, magic: bytes, garbage: bytes, zipped: bool, num_axes: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage"
    path.write_bytes(gzip.compress(magic + garbage, mtime=0) if zipped else magic + garbage)
    with suppress(DataError):
        array = read_idx(path, num_axes=num_axes)
        assert array.dtype == np.uint8
        assert array.ndim == num_axes
        assert array.tobytes() == (magic + garbage)[4 + 4 * num_axes :]


@pytest.mark.parametrize("place", ["fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "FashionMNIST", "."])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_four_files_are_found_in_the_usual_places(tmp_path: Path, place: str, zipped: bool) -> None:
    write_idx_set(tmp_path / place, zipped=zipped)
    data = load_dataset("fashion-mnist", data_dir=tmp_path, download=False)
    assert data.input_shape == (1, 6, 6)
    assert (len(data.search.train), len(data.search.validation), len(data.test)) == (32, 8, 20)
    assert data.test.targets.tolist() == cyclic_labels(20).tolist()
    assert data.class_names[0] == "t-shirt/top"
    assert data.licence == "MIT"


def test_gzipped_and_raw_files_have_the_same_hash(tmp_path: Path) -> None:
    write_idx_set(tmp_path / "gz" / "mnist", zipped=True)
    write_idx_set(tmp_path / "raw" / "mnist", zipped=False)
    hashes = [load_dataset("mnist", data_dir=tmp_path / form).sha256 for form in ("gz", "raw")]
    assert hashes[0] == hashes[1]


def test_the_spelling_with_a_dot_is_found(tmp_path: Path) -> None:
    write_idx_set(tmp_path, zipped=False)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(load_dataset("mnist", data_dir=tmp_path, download=False).test) == 20


def test_files_of_the_other_set_are_refused(tmp_path: Path) -> None:
    write_idx_set(tmp_path)
    labels = np.resize(np.array((9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9), np.uint8), 40)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels), mtime=0))
    with pytest.raises(DataError, match="those of 'fashion-mnist', not of 'mnist'"):
        load_dataset("mnist", data_dir=tmp_path)


def test_mismatched_counts_and_wrong_labels_are_refused(tmp_path: Path) -> None:
    write_idx_set(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(cyclic_labels(39))))
    with pytest.raises(DataError, match="one training label per input"):
        load_dataset("mnist", data_dir=tmp_path)
    path.write_bytes(gzip.compress(idx_bytes(cyclic_labels(40, 11))))
    with pytest.raises(DataError, match=r"labels from 0 to 9 .training example 10 has 10"):
        load_dataset("mnist", data_dir=tmp_path)


def test_a_missing_file_is_named_with_its_address_when_fetching_is_off(tmp_path: Path) -> None:
    write_idx_set(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"'t10k-labels-idx1-ubyte.gz' is not in '.*mnist'.*https://"):
        load_dataset("mnist", data_dir=tmp_path, download=False)
