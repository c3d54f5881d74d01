"""Names that are safe everywhere."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.errors import ZooError
from nasgraph.modelzoo.names import Reference, check_alias, check_name, parse_reference


@given(st.text(max_size=12) | st.text("./\\a-_@", max_size=8))
def test_a_name_that_passes_is_one_plain_folder_name(name: str) -> None:
    try:
        check_name(name)
    except ZooError:
        return
    assert Path("/zoo", name).resolve() == Path("/zoo") / name
    assert not name.startswith((".", "-"))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "a..b", "-rf", "a b", "a:b", "ä", "a\n", "x" * 101, "a."]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ZooError, match="Expected a name"):
        check_name(name)


@pytest.mark.parametrize("alias", ["", "v3", "V12", "latest", "3", "a.b", "a/b", "x" * 101])
def test_reserved_and_unsafe_aliases_are_refused(alias: str) -> None:
    with pytest.raises(ZooError, match="Expected an alias"):
        check_alias(alias)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("net", Reference("net")),
        ("net/3", Reference("net", version=3)),
        ("net@champion", Reference("net", alias="champion")),
    ],
)
def test_references_read_back_as_they_are_written(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize("text", ["net/", "net/0", "net/x", "net@", "net/1/2", "../net", "net@a@b", "/etc"])
def test_other_references_are_refused(text: str) -> None:
    with pytest.raises(ZooError):
        parse_reference(text)
