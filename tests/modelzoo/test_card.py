"""Cards: what they keep, and what their reader refuses."""

import json
from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nasgraph.data import load_dataset
from nasgraph.errors import ZooError
from nasgraph.files import canonical_json
from nasgraph.modelzoo import Measurement, ModelCard, card_from_json, card_to_json
from nasgraph.modelzoo.readme import card_markdown
from nasgraph.spaces import Architecture
from tests.modelzoo.making import candidate, made_card

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
CHOICE = (
    st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@cache
def card() -> ModelCard:
    measurement = Measurement(
        split="test",
        metric="accuracy",
        value=0.1 + 0.2,
        num_examples=360,
        batch_size=256,
        protocol="one pass",
    )
    return replace(made_card(load_dataset("digits")), measurements=(measurement,))


def document() -> dict[str, Any]:
    return dict(json.loads(card_to_json(card())))


def test_a_card_has_the_facts_of_its_graph() -> None:
    assert card().fingerprint == candidate().graph.fingerprint
    assert card().num_parameters == sum(p.numel() for p in _torch_twin())
    assert card().task == "image-classification"


def _torch_twin() -> Any:
    from torch import nn

    layers = nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.Linear(16, 10),
    )
    return layers.parameters()


@given(st.lists(st.tuples(TEXT, CHOICE), max_size=4), TEXT, st.floats(0, 1))
def test_writing_and_reading_gives_an_equal_card(
    choices: list[tuple[str, bool | int | float | str]], text: str, value: float
) -> None:
    varied = replace(
        card(),
        architecture=Architecture("space", tuple(choices)),
        training=tuple(choices),
        licence=text,
        scores=((text, value),),
        measurements=(replace(card().measurements[0], value=value, protocol=text),),
    )
    read = card_from_json(card_to_json(varied))
    assert read == varied
    assert [type(choice) for _, choice in read.training] == [type(choice) for _, choice in choices]
    assert card_to_json(read) == card_to_json(varied)


@given(st.data())
def test_anything_else_is_refused_with_one_clear_error(data: st.DataObject) -> None:
    value = document()
    path: list[Any] = []
    place: Any = value
    while isinstance(place, dict | list) and place and (not path or data.draw(st.booleans())):
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        path.append(data.draw(st.sampled_from(list(keys))))
        place = place[path[-1]]
    changed = deepcopy(value)
    parent: Any = changed
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = data.draw(JSON)
    try:
        read = card_from_json(json.dumps(changed))
    except ZooError:
        return
    assert card_from_json(card_to_json(read)) == read
    assert json.loads(canonical_json(changed)).keys() <= json.loads(card_to_json(read)).keys()


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_bytes_that_are_no_card_are_refused(text: bytes) -> None:
    with pytest.raises(ZooError):
        card_from_json(text)


@pytest.mark.parametrize(
    "where", [(), ("data",), ("data", "normalisation"), ("lineage",), ("measurements", 0), ("architecture",)]
)
def test_an_unknown_field_is_refused_at_every_level(where: tuple[str | int, ...]) -> None:
    value: Any = document()
    place = value
    for key in where:
        place = place[key]
    place["surprise"] = 1
    with pytest.raises(ZooError, match="surprise"):
        card_from_json(canonical_json(value))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "../../etc/passwd", "Expected a name"),
        ("created", "31.1.2026", "2026-01-31"),
        ("weights_sha256", "00", "64 hexadecimal"),
        ("schema", "nasgraph/card/9", "nasgraph/card/2"),
        ("kind", "ghn", "kind 'model'"),
        ("seed", "1", "seed"),
        ("num_parameters", 1.5, "num_parameters"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        card_from_json(canonical_json({**document(), field: value}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"schema": NaN}', "JSON"),
        ("", "JSON"),
    ],
)
def test_hostile_documents_are_refused(text: str, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        card_from_json(text)


def test_a_number_beyond_all_bounds_is_refused() -> None:
    text = card_to_json(card()).replace(f"{card().measurements[0].value!r}", "1e999")
    with pytest.raises(ZooError, match=r"finite|JSON number"):
        card_from_json(text)


def test_a_card_that_the_registry_could_not_keep_is_refused() -> None:
    long = replace(card(), training=tuple((f"setting {index}", "x" * 100) for index in range(1000)))
    with pytest.raises(ZooError, match="100,000 characters"):
        card_to_json(long)


@given(TEXT, TEXT)
def test_the_readme_is_yaml_and_a_table_whatever_the_names(licence: str, protocol: str) -> None:
    nasty = replace(
        card(), licence=licence, measurements=(replace(card().measurements[0], protocol=protocol),)
    )
    text = card_markdown(nasty)
    _, front, body = text.split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["license"] == licence
    assert fields["library_name"] == "nasgraph"
    (result,) = fields["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": card().measurements[0].value}]
    assert body.count("| test | accuracy |") == 1


def test_the_readme_says_what_was_measured_and_shows_the_picture_only_if_there_is_one() -> None:
    text = card_markdown(card(), has_picture=True)
    assert repr(card().measurements[0].value) in text
    assert "architecture.svg" in text
    assert "architecture.svg" not in card_markdown(card())
    assert "## Measured" not in card_markdown(replace(card(), measurements=(), scores=()))
