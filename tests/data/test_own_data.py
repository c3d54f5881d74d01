import logging
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nasgraph.data import load_dataset
from nasgraph.data.arrays import read_npz
from nasgraph.data.folders import read_image_folder
from nasgraph.data.pictures import read_header
from nasgraph.data.tables import read_csv_table
from nasgraph.errors import DataError
from tests.data.making import cyclic_labels, random_bytes, write_pictures


def save(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]  # anything that numpy turns into an array
    return path


# --- numpy archives -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "layout", "input_shape"),
    [
        ((30, 6, 7), None, (1, 6, 7)),
        ((30, 6, 7, 3), None, (3, 6, 7)),
        ((30, 3, 6, 7), None, (3, 6, 7)),
        ((30, 3, 6, 3), "NHWC", (3, 3, 6)),
        ((30, 3, 6, 3), "NCHW", (3, 6, 3)),
        ((30, 8, 6, 9), "NCHW", (8, 6, 9)),
        ((30, 5), None, (5,)),
    ],
)
def test_arrays_of_all_layouts_are_read(
    tmp_path: Path, shape: tuple[int, ...], layout: str | None, input_shape: tuple[int, ...]
) -> None:
    extra = {} if layout is None else {"layout": layout}
    path = save(tmp_path / "own.npz", x=random_bytes(*shape), y=cyclic_labels(30, 3), **extra)
    data = load_dataset(str(path))
    assert (data.name, data.input_shape, data.num_classes) == ("own", input_shape, 3)
    assert (len(data.search.train), len(data.search.validation), len(data.test)) == (18, 6, 6)


def test_an_archive_with_a_test_part_keeps_it(tmp_path: Path) -> None:
    x, y = random_bytes(50, 6, 6, 3), cyclic_labels(50, 5)
    path = save(tmp_path / "own.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    data = load_dataset(path)
    images = torch.from_numpy(x[40:].transpose(0, 3, 1, 2).astype(np.float32))
    torch.testing.assert_close(data.test.inputs, data.normalisation.apply(images))
    assert data.test.targets.tolist() == y[40:].tolist()


@pytest.mark.parametrize(
    ("labels", "class_names"),
    [
        (np.array([7, 3, 12] * 10), ("3", "7", "12")),
        (np.array(["cat", "ant", "bee"] * 10), ("ant", "bee", "cat")),
        (np.array([[2], [1], [0]] * 10), ("0", "1", "2")),
    ],
)
def test_labels_are_sorted_and_numbered(
    tmp_path: Path, labels: np.ndarray, class_names: tuple[str, ...]
) -> None:
    raw = read_npz(save(tmp_path / "own.npz", x=random_bytes(30, 4), y=labels))
    assert raw.class_names == class_names
    assert [raw.class_names[number] for number in raw.train_labels] == [
        str(label) for label in labels.ravel()
    ]


def test_class_names_of_the_archive_are_used(tmp_path: Path) -> None:
    names = np.array(["no", "yes", "perhaps"])
    raw = read_npz(
        save(tmp_path / "own.npz", x=random_bytes(30, 4), y=cyclic_labels(30, 2), class_names=names)
    )
    assert raw.class_names == ("no", "yes", "perhaps")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.bool_])
def test_other_numbers_become_floats_unchanged(tmp_path: Path, dtype: type) -> None:
    values: npt.NDArray[np.generic] = np.arange(120).reshape(30, 4).astype(dtype)
    raw = read_npz(save(tmp_path / "own.npz", x=values, y=cyclic_labels(30, 3)))
    assert raw.train_inputs.dtype == np.float32
    np.testing.assert_array_equal(raw.train_inputs, values.astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((9, 2))}, r"x_train, y_train \[, x_test, y_test\] or x, y in '.*' \(got x\)"),
        (
            {"x_train": np.zeros((9, 2)), "y_train": np.arange(9), "x_test": np.zeros((9, 2))},
            "Expected x_train",
        ),
        ({"x": np.zeros((9, 2)), "y": np.linspace(0, 1, 9)}, "integer or text per example as 'y'"),
        ({"x": np.zeros((9, 2)), "y": np.array([-1, 0, 1] * 3)}, r"labels from 0 as 'y' .*\(got -1\)"),
        ({"x": np.zeros((9, 3, 5, 3)), "y": np.arange(9)}, "which axis of 'x' .* is the channel"),
        ({"x": np.zeros((9, 8, 5, 8)), "y": np.arange(9)}, "Add an array 'layout'"),
        ({"x": np.zeros((9, 3, 5, 3)), "y": np.arange(9), "layout": "CHWN"}, "NHWC or NCHW"),
        ({"x": np.zeros(9), "y": np.arange(9)}, "2, 3 or 4 axes"),
        ({"x": np.array(["a"] * 9), "y": np.arange(9)}, "Expected numbers as 'x'"),
        ({"x": np.zeros((9, 2)), "y": np.zeros(9, int)}, "at least 2 classes"),
        ({"x": np.zeros((9, 2)), "y": np.array([0, 1] * 4)}, "one training label per input"),
        ({"x": np.full((9, 2), 1e300), "y": np.array([0, 1, 2] * 3)}, "NaN or an infinity"),
        (
            {
                "x_train": np.zeros((9, 2)),
                "y_train": np.arange(9) % 2,
                "x_test": np.zeros((1, 2)),
                "y_test": [5],
            },
            "Label 5 of 'y_test' .* does not occur in the training labels",
        ),
        ({"x": np.array([{}] * 9), "y": np.arange(9)}, "Cannot read arrays .*allow_pickle"),
    ],
)
def test_archives_of_another_form_are_refused(tmp_path: Path, arrays: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_npz(save(tmp_path / "own.npz", **arrays))


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "own.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match=r"holds a single array, not named ones"):
        read_npz(tmp_path / "own.npz")


@given(cut=st.integers(0, 400), place=st.integers(0, 800), damage=st.binary(max_size=6))
def test_a_damaged_archive_gives_data_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, place: int, damage: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    save(path, x=random_bytes(12, 4), y=cyclic_labels(12, 3))
    data = bytearray(path.read_bytes())
    data[place : place + len(damage)] = damage
    path.write_bytes(data[: len(data) - cut])
    with suppress(DataError):
        raw = read_npz(path)
        assert len(raw.train_inputs) == len(raw.train_labels)


# --- image folders --------------------------------------------------------------------------------


def test_class_folders_become_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"dog": 4, "cat": 5})
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    (tmp_path / "cat" / ".hidden.png").write_text("not a picture")
    raw = read_image_folder(tmp_path)
    assert raw.class_names == ("cat", "dog")
    assert raw.train_inputs.shape == (9, 1, 4, 5)
    assert raw.train_labels.tolist() == [0] * 5 + [1] * 4
    assert raw.train_inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert raw.test_inputs is None


def test_a_test_folder_becomes_the_test_split(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", {"a": 4, "b": 4}, mode="RGB")
    write_pictures(tmp_path / "test", {"b": 3}, mode="RGB")
    data = load_dataset(tmp_path)
    assert data.input_shape == (3, 4, 5)
    assert data.test.targets.tolist() == [1, 1, 1]


def test_a_folder_with_validation_images_warns_that_they_are_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(tmp_path / "train", {"a": 3, "b": 3})
    write_pictures(tmp_path / "val", {"a": 3, "b": 3})
    with caplog.at_level(logging.WARNING, "nasgraph.data.folders"):
        assert len(read_image_folder(tmp_path).train_inputs) == 6
    assert "val' is not read" in caplog.text


def test_one_coloured_picture_makes_all_of_them_rgb(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"a": 2, "b": 2})
    Image.new("RGBA", (5, 4), (1, 2, 3, 4)).save(tmp_path / "b" / "zz.png")
    raw = read_image_folder(tmp_path)
    assert raw.train_inputs.shape == (5, 3, 4, 5)
    assert raw.train_inputs[-1, :, 0, 0].tolist() == [1, 2, 3]
    assert (raw.train_inputs[0, 0] == raw.train_inputs[0, 2]).all()


def test_folders_of_another_form_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "one", {"a": 2})
    with pytest.raises(
        DataError, match=r"sub-folder of images per class, at least 2, in '.*one' \(got 'a'\)"
    ):
        read_image_folder(tmp_path / "one")
    (tmp_path / "one" / "b").mkdir()
    with pytest.raises(DataError, match=r"class folder '.*b' has no images"):
        read_image_folder(tmp_path / "one")
    write_pictures(tmp_path / "sizes", {"a": 2})
    write_pictures(tmp_path / "sizes", {"b": 2}, size=(6, 4))
    with pytest.raises(DataError, match=r"one size: '.*a/000.png' has 5x4 pixels, '.*b/000.png' has 6x4"):
        read_image_folder(tmp_path / "sizes")
    write_pictures(tmp_path / "more" / "train", {"a": 2, "b": 2})
    write_pictures(tmp_path / "more" / "test", {"c": 2})
    with pytest.raises(DataError, match=r"'.*test/c' is a class that the training images do not have"):
        read_image_folder(tmp_path / "more")


@pytest.mark.parametrize("damage", [b"", b"no picture", None])
def test_damaged_pictures_are_named(tmp_path: Path, damage: bytes | None) -> None:
    write_pictures(tmp_path, {"a": 2, "b": 2}, size=(40, 40))
    path = tmp_path / "b" / "001.png"
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    with pytest.raises(DataError, match=r"Cannot (read|decode) the picture '.*b/001.png'"):
        read_image_folder(tmp_path)


def test_huge_and_deep_pictures_are_refused_unread(tmp_path: Path) -> None:
    Image.new("1", (8192, 4097)).save(tmp_path / "huge.png")
    with pytest.raises(DataError, match="at most 33,554,432 pixels"):
        read_header(tmp_path / "huge.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match="8 bits per channel"):
        read_header(tmp_path / "deep.png")


# --- tables ---------------------------------------------------------------------------------------


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "w,h,kind\n1,2,x\n3,4,y\n5,6,x\n",
        "w,Label,h\n1,x,2\n3,y,4\n5,x,6\n",
        "target;w;h\nx;1;2\ny;3;4\nx;5;6\n",
        "1\t2\tx\n3\t4\ty\n\n5\t6\tx\n",
        "\ufeffw,h,kind\r\n1,2,x\r\n3,4,y\r\n5,6,x\r\n",
        '"w","h","kind"\n"1","2","x"\n 3 ,4, y\n5,6.0,x',
        "0,1,label\n1,2,x\n3,4,y\n5,6,x\n",
    ],
)
def test_tables_with_and_without_header_are_read(tmp_path: Path, text: str) -> None:
    raw = read_csv_table(table(tmp_path / "own.csv", text))
    assert raw.train_inputs.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert raw.train_labels.tolist() == [0, 1, 0]
    assert raw.class_names == ("x", "y")


def test_classes_that_are_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    raw = read_csv_table(table(tmp_path / "own.csv", "1,10\n2,9\n3,10\n"))
    assert raw.class_names == ("9", "10")


def test_a_table_becomes_a_data_set_of_features(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},{i * i % 7},{'ab'[i % 2]}" for i in range(40))
    data = load_dataset(table(tmp_path / "own.csv", rows))
    assert (data.name, data.input_shape, data.num_classes) == ("own", (2,), 2)
    assert (len(data.search.train), len(data.search.validation), len(data.test)) == (24, 8, 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("w,h,kind\n1,2,x\n3,oops,y\n", r"number in line 3, column 'h' of '.*own.csv' \(got 'oops'\)"),
        ("1,2,x\n3,,y\n", r"number in line 2, column '2' .*\(got ''\)"),
        ("1,oops,x\n3,4,y\n", r"line 1, column '2'"),
        ("w,h,kind\n1,nan,x\n3,4,y\n", r"finite 32-bit number in line 2, column 'h' .*Fill or remove"),
        ("w,h,kind\n1,1e60,x\n3,4,y\n", r"finite 32-bit number in line 2"),
        ("w,h,kind\n1,2,x\n3,4\n", r"Expected 3 cells in line 3 .*\(got 2\)"),
        ("w,h,kind\n1,2,x\n3,4,\n", r"class is empty in line 3, column 'kind'"),
        ("w,h,kind\n1,2,x\n3,4,x\n", "at least 2 classes"),
        ("w,h,kind\n", "a header and no rows"),
        ("kind\nx\ny\n", "at least one feature"),
        ("label,w,target\n1,2,3\n", "one column named 'label' or 'target'"),
        ("", "is empty"),
        ("\n , \n", "is empty"),
        ('1,2,"x\n3,4,y\n', "Cannot read the table"),
    ],
)
def test_tables_of_another_form_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_csv_table(table(tmp_path / "own.csv", text))


def test_measured_numbers_are_refused_as_classes(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},{i * 0.37}" for i in range(40))
    with pytest.raises(
        DataError, match=r"class '0.0' has 1, and 39 more classes .* measured rather than classes"
    ):
        load_dataset(table(tmp_path / "own.csv", rows))


@given(st.binary(max_size=120))
def test_a_table_of_garbage_gives_data_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.csv"
    path.write_bytes(garbage)
    with suppress(DataError):
        raw = read_csv_table(path)
        assert np.isfinite(raw.train_inputs.astype(np.float32)).all()


@given(
    rows=st.lists(
        st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from("xyz")),
        min_size=6,
    )
)
def test_numbers_survive_the_round_trip_through_text(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, str]]
) -> None:
    rows = [*rows, (0.0, "x"), (0.0, "y")]
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    raw = read_csv_table(
        table(path, "value,label\n" + "\n".join(f"{value!r},{label}" for value, label in rows))
    )
    assert raw.train_inputs[:, 0].tolist() == [value for value, _ in rows]
    assert [raw.class_names[number] for number in raw.train_labels] == [label for _, label in rows]
