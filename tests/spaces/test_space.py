"""Architectures as JSON, and finding spaces by name."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.errors import InvalidChoiceError, UnknownNameError
from nasgraph.files import Json, parse_json
from nasgraph.spaces import Architecture, Choice, architecture_from_json, load_space, space_names

choices = (
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
named_choices = st.lists(st.tuples(st.text(max_size=8), choices), max_size=6)
json_values = st.recursive(
    st.none() | choices,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["space", "choices", "x"]), inner)
    ),
    max_leaves=12,
)


@given(st.text(max_size=8), named_choices)
def test_json_keeps_every_architecture(space: str, named: list[tuple[str, Choice]]) -> None:
    architecture = Architecture(space, tuple(named))
    restored = architecture_from_json(parse_json(architecture.to_json()))
    assert restored == architecture
    assert [type(value) for _, value in restored.choices] == [
        type(value) for _, value in architecture.choices
    ]


@given(json_values)
def test_other_json_is_refused_with_an_error_of_ours(value: Json) -> None:
    with suppress(InvalidChoiceError):
        assert isinstance(architecture_from_json(value), Architecture)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "an object with 'space' and 'choices'"),
        ({"space": "mlp"}, "an object with 'space' and 'choices'"),
        ({"space": "mlp", "choices": [], "more": 1}, "an object with 'space' and 'choices'"),
        ({"space": 1, "choices": []}, "'space' to be text"),
        ({"space": "mlp", "choices": {}}, "'choices' a list"),
        ({"space": "mlp", "choices": [["depth"]]}, "a pair of a name and a value"),
        ({"space": "mlp", "choices": [["depth", None]]}, "'depth' to be text, a number or a truth value"),
    ],
)
def test_what_is_wrong_is_said(value: Json, message: str) -> None:
    with pytest.raises(InvalidChoiceError, match=message):
        architecture_from_json(value)


def test_names_are_sorted_and_unknown_ones_refused() -> None:
    assert list(space_names()) == sorted(space_names())
    with pytest.raises(UnknownNameError, match=r"No search space named 'convnets'\. Close: 'convnet'"):
        load_space("convnets", input_shape=(1, 8, 8), num_classes=10)
