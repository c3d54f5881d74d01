import os
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.data import load_dataset
from nasgraph.data.cifar import CLASS_NAMES, read_binary_batch, unpack, unpickle_batch
from nasgraph.errors import DataError
from tests.data.making import (
    Bytes,
    cifar_batch,
    cyclic_labels,
    make_archive,
    python2_batch,
    random_bytes,
    write_cifar,
    write_pictures,
    write_sheet,
)


def assert_is_the_made_set(data_dir: Path) -> None:
    data = load_dataset("cifar10", data_dir=data_dir, download=False)
    assert (len(data.search.train), len(data.search.validation), len(data.test)) == (80, 20, 20)
    assert data.class_names == CLASS_NAMES
    images, labels = cifar_batch(5)
    torch.testing.assert_close(data.test.inputs, data.normalisation.apply(torch.from_numpy(images).float()))
    assert data.test.targets.tolist() == labels.tolist()


@pytest.mark.parametrize("place", [".", "cifar10", "cifar-10", "CIFAR10"])
@pytest.mark.parametrize("below", [".", "cifar-10-batches-py"])
def test_python_batches_are_found_in_the_usual_places(tmp_path: Path, place: str, below: str) -> None:
    write_cifar(tmp_path / "data" / place / below, binary=False)
    assert_is_the_made_set(tmp_path / "data")


@pytest.mark.parametrize("below", [".", "cifar-10-batches-bin"])
def test_binary_batches_give_the_same_set(tmp_path: Path, below: str) -> None:
    write_cifar(tmp_path / "data" / "cifar10" / below, binary=True)
    assert_is_the_made_set(tmp_path / "data")


def test_batches_that_python_3_pickled_are_read(tmp_path: Path) -> None:
    images, labels = cifar_batch(0)
    for protocol in (3, 4):
        content = {b"data": images.reshape(20, -1), b"labels": labels.tolist()}
        (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol=protocol))
        got_images, got_labels = unpickle_batch(tmp_path / "batch")
        np.testing.assert_array_equal(got_images, images)
        np.testing.assert_array_equal(got_labels, labels)


def test_an_array_in_column_order_is_read(tmp_path: Path) -> None:
    images, labels = cifar_batch(0)
    content = {"data": np.asfortranarray(images.reshape(20, -1)), "labels": labels.tolist()}
    (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol=4))
    np.testing.assert_array_equal(unpickle_batch(tmp_path / "batch")[0], images)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_would_run_a_command_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": Evil(tmp_path / "ran"), "labels": [1]}))
    with pytest.raises(DataError, match=r"asks for '(posix|nt).system', which no CIFAR-10 batch needs"):
        unpickle_batch(tmp_path / "batch")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["builtins\neval", "builtins\ngetattr", "numpy\nload", "numpy\nfromfile", "os\nsystem"]
)
def test_no_other_name_is_admitted(tmp_path: Path, name: str) -> None:
    (tmp_path / "batch").write_bytes(f"c{name}\n(S'1'\ntR.".encode())
    with pytest.raises(DataError, match="nothing was run"):
        unpickle_batch(tmp_path / "batch")


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"data": 1, "labels": []},
        {"labels": [1]},
        {"data": np.zeros((2, 5), np.uint8), "labels": [1, 2]},
        {"data": np.zeros((1, 3072), np.float32), "labels": [1]},
        {"data": np.zeros((1, 3072), object), "labels": [1]},
        {"data": np.zeros((1, 3072), np.uint8), "labels": ["cat"]},
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(DataError, match="is not a CIFAR-10 batch"):
        unpickle_batch(tmp_path / "batch")


@given(place=st.integers(0, 400), damage=st.binary(max_size=8), cut=st.integers(0, 500))
def test_a_damaged_batch_gives_arrays_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, damage: bytes, cut: int
) -> None:
    data = bytearray(python2_batch(cifar_batch(0)[0][:1], [3]))
    data[place : place + len(damage)] = damage
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[: len(data) - cut])
    with suppress(DataError):
        images, labels = unpickle_batch(path)
        assert images.shape[1:] == (3, 32, 32)
        assert labels.dtype == np.int64


def test_missing_truncated_and_mislabelled_batches_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    write_cifar(folder, binary=True)
    path = folder / "data_batch_3.bin"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(DataError, match=r"multiple of 3,073 bytes in '.*data_batch_3.bin' \(got 61,459\)"):
        load_dataset("cifar10", data_dir=tmp_path)
    path.write_bytes(b"\x0b" + data[1:])
    with pytest.raises(DataError, match=r"labels from 0 to 9 .training example 40 has 11"):
        load_dataset("cifar10", data_dir=tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"missing: data_batch_3.bin"):
        load_dataset("cifar10", data_dir=tmp_path)
    path.touch()
    with pytest.raises(DataError, match="got 0"):
        read_binary_batch(path)


def test_unpacking_takes_only_the_named_members(tmp_path: Path) -> None:
    members = {"b/one": b"1", "b/two": b"22", "b/extra": b"x", "../escaped": b"x", "/absolute": b"x"}
    unpack(make_archive(tmp_path, members), tmp_path, below="b", names=("one", "two"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == {
        "one": b"1",
        "two": b"22",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "made.tar.gz"]
    assert not (tmp_path.parent / "escaped").exists()


def test_unpacking_follows_no_link_out_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    archive = make_archive(tmp_path, {"b/one": b"1"}, links={"b/two": str(tmp_path / "secret")})
    with pytest.raises(DataError, match="Cannot unpack"):
        unpack(archive, tmp_path, below="b", names=("one", "two"))
    assert not (tmp_path / "b").exists()


def test_an_archive_that_lacks_a_member_or_is_altered_is_refused(tmp_path: Path) -> None:
    archive = make_archive(tmp_path, {"b/one": b"1"})
    with pytest.raises(DataError, match=r"Cannot unpack '.*made.tar.gz': .*b/two"):
        unpack(archive, tmp_path, below="b", names=("one", "two"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.tar.gz"]
    (tmp_path / "made.tar.gz").write_bytes(b"other")
    with pytest.raises(DataError, match="is damaged or another file"):
        unpack(archive, tmp_path, below="b", names=("one",))


def test_an_archive_put_there_by_hand_must_be_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"not the archive")
    with pytest.raises(DataError, match="expected sha256 c4a38c50"):
        load_dataset("cifar10", data_dir=tmp_path)


def write_sheets(folder: Path, *, class_names: tuple[str, ...] = CLASS_NAMES) -> tuple[Bytes, Bytes]:
    folder.mkdir(parents=True)
    images = random_bytes(60, 3, 32, 32)
    labels = cyclic_labels(60)
    np.savez(
        folder / "index.npz",
        train_label=labels[:40],
        test_label=labels[40:],
        class_names=np.array(class_names),
    )
    for number in range(2):
        write_sheet(folder / f"train_{number:02}.webp", images[20 * number : 20 * number + 20], columns=5)
    write_sheet(folder / "test_00.webp", images[40:], columns=5)
    return images, labels


def test_sheets_are_cut_into_the_images_they_were_made_of(tmp_path: Path) -> None:
    images, labels = write_sheets(tmp_path / "cifar10")
    data = load_dataset("cifar10", data_dir=tmp_path, download=False)
    torch.testing.assert_close(
        data.test.inputs, data.normalisation.apply(torch.from_numpy(images[40:]).float())
    )
    assert data.test.targets.tolist() == labels[40:].tolist()
    assert len(data.search.train) + len(data.search.validation) == 40


def test_sheets_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    write_sheets(tmp_path / "cifar10")
    (tmp_path / "cifar10" / "train_00.webp").unlink()
    data = load_dataset("cifar10", data_dir=tmp_path, download=False)
    assert len(data.search.train) + len(data.search.validation) == 20
    (tmp_path / "cifar10" / "test_00.webp").unlink()
    with pytest.raises(DataError, match=r"at least one sheet 'test_00.webp'"):
        load_dataset("cifar10", data_dir=tmp_path, download=False)


def test_sheets_of_another_set_are_read_by_path_but_not_as_cifar10(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10"
    write_sheets(folder, class_names=tuple("abcdefghij"))
    with pytest.raises(DataError, match="CIFAR-10 is not in"):
        load_dataset("cifar10", data_dir=tmp_path, download=False)
    assert load_dataset(folder).class_names == tuple("abcdefghij")


def test_damaged_sheets_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10"
    write_sheets(folder)
    write_sheet(folder / "train_02.webp", random_bytes(20, 3, 32, 32), columns=5)
    with pytest.raises(DataError, match=r"has 40 labels, none for 'train_02.webp'"):
        load_dataset(folder)
    write_sheet(folder / "train_02.webp", random_bytes(10, 3, 32, 32), columns=5)
    with pytest.raises(DataError, match=r"Expected 20 images in '.*train_02.webp'"):
        load_dataset(folder)
    path = folder / "train_01.webp"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"Cannot (read|decode) the picture '.*train_01.webp'"):
        load_dataset(folder)


def test_image_folders_with_the_ten_classes_are_read(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("test", 2)):
        write_pictures(tmp_path / "cifar10" / part, dict.fromkeys(CLASS_NAMES, count), mode="RGB")
    data = load_dataset("cifar10", data_dir=tmp_path, download=False)
    assert (len(data.search.train), len(data.search.validation), len(data.test)) == (40, 10, 20)
    assert data.licence.startswith("no formal licence")


def test_nothing_there_and_fetching_off_says_what_to_get(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not in '.*'.*'cifar-10-binary.tar.gz' \(from https://"):
        load_dataset("cifar10", data_dir=tmp_path, download=False)
