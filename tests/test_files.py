"""Files that are whole or absent, and JSON that may come from a stranger."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.errors import NasGraphError
from nasgraph.files import canonical_json, parse_json, read_json, sha256_of, write_atomically, write_json

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_json)
def test_canonical_json_is_read_back_equal(value: object) -> None:
    assert parse_json(canonical_json(value)) == value


@given(st.binary() | st.text())
def test_any_text_is_json_or_a_clear_error(text: bytes | str) -> None:
    try:
        value = parse_json(text, source="a test")
    except NasGraphError:
        return
    assert not (isinstance(value, float) and not math.isfinite(value))


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "1e999", "-1e999", "[" * 100_000, "{", "1" * 10_000])
def test_what_is_no_finite_shallow_json_is_refused(text: str) -> None:
    with pytest.raises(NasGraphError, match="a test"):
        parse_json(text, source="a test")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, [1])
    checksum = sha256_of(path)

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(NasGraphError, match=r"value\.json.*No space left"):
        write_atomically(path, fail)
    assert sha256_of(path) == checksum
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NasGraphError, match=r"nothing\.json"):
        read_json(tmp_path / "nothing.json")
