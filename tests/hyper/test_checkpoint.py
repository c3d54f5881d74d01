"""Hypernetworks on disk: what is written can be read, and what is damaged or foreign is refused in words."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nasgraph.encode import OP_IDS
from nasgraph.errors import CheckpointError, NasGraphError
from nasgraph.files import Json, sha256_of
from nasgraph.hyper import GHNConfig, GraphHyperNetwork, load_ghn, save_ghn
from nasgraph.hyper.checkpoint import CONFIG, WEIGHTS, ghn_config_from_json, load_tensors, save_tensors
from tests.hyper.disks import full_disk
from tests.hyper.toy import ENCODERS, Encoder, tiny_config
from tests.modules.samples import SPACES, sampled_graphs, wide_graph

RECIPE: dict[str, Json] = {"data": "digits", "spaces": ["toy"], "steps": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a hypernetwork."""
    save_ghn(GraphHyperNetwork(tiny_config(), seed=1), tmp_path / "ghn", recipe=RECIPE)
    return tmp_path / "ghn"


def change_config(folder: Path, **changes: Any) -> None:
    document = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**document, **changes}))


def replace_weights(folder: Path, data: bytes) -> None:
    """Other weights, with a checksum that fits them."""
    (folder / WEIGHTS).write_bytes(data)
    change_config(folder, sha256=sha256_of(folder / WEIGHTS))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("mip", [False, True])
def test_reading_gives_what_was_written(tmp_path: Path, encoder: Encoder, mip: bool) -> None:
    ghn = GraphHyperNetwork(tiny_config(encoder, mip=mip), seed=1)
    save_ghn(ghn, tmp_path / "new" / "ghn", recipe=RECIPE)
    read, recipe = load_ghn(tmp_path / "new" / "ghn")
    assert read.config == ghn.config
    assert recipe == RECIPE
    assert not read.training
    assert read.state_dict().keys() == ghn.state_dict().keys()
    assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in ghn.state_dict().items())
    assert all(parameter.requires_grad for parameter in read.parameters())
    (ours,), (theirs,) = ghn.predict([wide_graph()]), read.predict([wide_graph()])
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_file_that_knows_fewer_operators_in_another_order_predicts_the_same(
    folder: Path, tmp_path: Path
) -> None:
    ghn, graph = GraphHyperNetwork(tiny_config(), seed=1).eval(), wide_graph()
    used = {node.op for node in graph.nodes}
    known = [op for op in reversed(OP_IDS) if op in used or op < "m"]
    assert len(known) < len(OP_IDS)
    tensors = load_file(folder / WEIGHTS)
    rows = tensors["encoder.embed.op.weight"][[OP_IDS[op] for op in known]]
    save_tensors(folder / WEIGHTS, {**tensors, "encoder.embed.op.weight": rows})
    change_config(folder, ops=known, sha256=sha256_of(folder / WEIGHTS))
    read, _ = load_ghn(folder)
    own = read.state_dict()["encoder.embed.op.weight"]
    for op, index in OP_IDS.items():
        expected = rows[known.index(op)] if op in known else rows.mean(0)
        assert torch.equal(own[index], expected)
    (ours,), (theirs,) = read.predict([graph]), ghn.predict([graph])
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("space", SPACES)
def test_the_shipped_hypernetwork_predicts_what_it_predicted_when_it_was_trained(space: str) -> None:
    """`ghn_digits.json` was written by the version that trained it, when there were 32 operators."""
    recorded = json.loads((Path(__file__).parent / "ghn_digits.json").read_text())[space]
    root = Path(__file__).parents[2]
    ghn, _ = load_ghn(root / "zoo" / "ghn-digits")
    graphs = sampled_graphs(space, len(recorded), seed=9)
    for expected, parameters in zip(recorded, ghn.predict(graphs), strict=True):
        assert list(parameters) == list(expected)
        for name, tensor in parameters.items():
            probe = torch.cos(torch.arange(tensor.numel(), dtype=torch.double))
            flat = tensor.double().flatten()
            numbers = torch.stack([(flat * probe).sum(), flat.norm()])
            scale = float(expected[name][1]) + 1e-3
            torch.testing.assert_close(
                numbers, torch.tensor(expected[name], dtype=torch.double), rtol=0, atol=1e-4 * scale
            )


@pytest.mark.parametrize("decoder", ["conv", "low_rank"])
def test_every_decoder_can_be_written_and_read(tmp_path: Path, decoder: Literal["conv", "low_rank"]) -> None:
    ghn = GraphHyperNetwork(replace(tiny_config(), decoder=decoder, rank=4, max_low_rank=64), seed=1)
    save_ghn(ghn, tmp_path, recipe=RECIPE)
    read, _ = load_ghn(tmp_path)
    assert read.config == ghn.config
    assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in ghn.state_dict().items())


def test_a_configuration_from_before_there_were_decoders_is_tiled() -> None:
    assert ghn_config_from_json(VALID, source="a test").decoder == "tiled"


def test_a_hypernetwork_is_two_files_that_are_no_pickles(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, WEIGHTS]
    assert set(load_file(folder / WEIGHTS)) == set(GraphHyperNetwork(tiny_config()).state_dict())
    assert json.loads((folder / CONFIG).read_text())["recipe"] == RECIPE


def test_reading_leaves_the_global_generator_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    load_ghn(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_without_a_hypernetwork_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"No graph hypernetwork in .*No such file"):
        load_ghn(tmp_path / "nothing")


def test_missing_weights_are_refused(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"Cannot read .*weights\.safetensors': No such file"):
        load_ghn(folder)


def test_truncated_weights_are_refused(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:-100])
    with pytest.raises(CheckpointError, match="checksum"):
        load_ghn(folder)
    for length in (0, 5, 100, len(data) - 1):
        replace_weights(folder, data[:length])
        with pytest.raises(CheckpointError, match="Cannot read tensors"):
            load_ghn(folder)


def test_one_changed_byte_is_noticed(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(CheckpointError, match=r"checksum of .* differs from the recorded one"):
        load_ghn(folder)


def test_a_foreign_file_of_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "pickle.pt")
    replace_weights(folder, (tmp_path / "pickle.pt").read_bytes())
    with pytest.raises(CheckpointError, match="Cannot read tensors"):
        load_ghn(folder)
    save_file({"a": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    replace_weights(folder, (tmp_path / "foreign.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="has an unexpected tensor 'a'"):
        load_ghn(folder)


def test_a_tensor_that_is_missing_or_of_another_shape_is_named(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["decoder.gain.bias"]
    save_tensors(folder / WEIGHTS, tensors)
    change_config(folder, sha256=sha256_of(folder / WEIGHTS))
    with pytest.raises(CheckpointError, match=r"lacks tensor 'decoder\.gain\.bias'"):
        load_ghn(folder)
    save_tensors(folder / WEIGHTS, {**tensors, "decoder.gain.bias": torch.zeros(2)})
    change_config(folder, sha256=sha256_of(folder / WEIGHTS))
    with pytest.raises(
        CheckpointError, match=r"'decoder\.gain\.bias' .* to have shape \(1,\) \(got \(2,\)\)"
    ):
        load_ghn(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "nasgraph/ghn/99"}, "schema 'nasgraph/ghn/1'"),
        ({"recipe": "secret"}, "'recipe' .* to be an object"),
        ({"ops": ["conv2d"]}, "to have 1 rows"),
        ({"ops": [*OP_IDS, "teleport"]}, "reads the operator 'teleport', which this version does not know"),
        ({"ops": ["relu", "relu"]}, "each once"),
        ({"ops": [1, None]}, "each once"),
        ({"ops": []}, "a list of operators"),
        ({"ops": None}, "a list of operators"),
        ({"features": []}, "other features"),
        ({"sha256": "0" * 64}, "checksum"),
        ({"sha256": None}, "checksum"),
        ({"config": {"dim": 3}}, "exactly the fields"),
        ({"config": None}, "exactly the fields"),
    ],
)
def test_a_foreign_document_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    change_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_ghn(folder)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"schema": NaN}', "\udcff"])
def test_a_document_that_is_no_object_is_refused(folder: Path, text: str) -> None:
    (folder / CONFIG).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError):
        load_ghn(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 1}, "exactly the fields"),
        ({"dim": 16.0}, "'dim' .* of type int"),
        ({"dim": True}, "'dim' .* of type int"),
        ({"dim": "16"}, "'dim' .* of type int"),
        ({"mip": 1}, "'mip' .* of type bool"),
        ({"decoder": "mlp"}, "'decoder' .* one of 'tiled', 'conv', 'low_rank'"),
        ({"rank": 0}, "'rank' between 1 and 4096"),
        ({"max_low_rank": 2**21}, "'max_low_rank' between 1 and 1048576"),
        ({"encoder": "rnn"}, "'encoder' .* one of 'transformer', 'gated'"),
        ({"encoder": ["gated"]}, "'encoder'"),
        ({"dim": 0}, "'dim' between 1 and 4096"),
        ({"dim": 10**30}, "'dim' between 1 and 4096"),
        ({"num_heads": 3}, "'num_heads' to divide 'dim'"),
        ({"dim": 32}, "to have shape"),
        ({"max_size": 4096, "decoder_hidden": 4096, "max_kernel": 4096}, "to have shape"),  # 10**15 numbers
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    change_config(folder, config={**json.loads((folder / CONFIG).read_text())["config"], **changes})
    with pytest.raises(CheckpointError, match=message):
        load_ghn(folder)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
VALID: dict[str, Json] = {
    "encoder": "gated", "dim": 8, "num_layers": 1, "num_heads": 2, "decoder_hidden": 4, "max_size": 8,
    "max_kernel": 3, "mip": False,
}  # fmt: skip


@given(json_values)
def test_any_json_is_refused_in_words(value: Any) -> None:
    with pytest.raises(CheckpointError):
        ghn_config_from_json(value, source="a test")


@given(st.sampled_from(sorted(VALID)), json_values)
def test_a_valid_configuration_with_one_field_changed_is_read_or_refused_in_words(
    name: str, value: Any
) -> None:
    try:
        config = ghn_config_from_json({**VALID, name: value}, source="a test")
    except CheckpointError as error:
        assert name in str(error)  # noqa: PT017  either outcome is right
    else:
        assert isinstance(config, GHNConfig)
        assert getattr(config, name) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_tensors_or_are_tensors(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(data)
    try:
        load_tensors(path)
    except CheckpointError as error:
        assert "any.safetensors" in str(error)  # noqa: PT017  either outcome is right


@given(st.integers(0, 200), st.binary(min_size=1, max_size=8))
def test_tensors_with_damaged_bytes_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, place: int, damage: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_tensors(path, {"one": torch.arange(6.0).view(2, 3), "two": torch.ones(4, dtype=torch.int64)})
    data = bytearray(path.read_bytes())
    data[place : place + len(damage)] = damage
    path.write_bytes(data)
    try:
        load_tensors(path)
    except CheckpointError as error:
        assert "damaged.safetensors" in str(error)  # noqa: PT017  either outcome is right


def test_a_full_disk_leaves_the_old_weights_and_says_so(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with full_disk(1000), pytest.raises(NasGraphError, match=r"Cannot write .*weights\.safetensors"):
        save_ghn(GraphHyperNetwork(tiny_config(), seed=2), folder, recipe={})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NasGraphError, match="Cannot write"):
        save_ghn(GraphHyperNetwork(tiny_config()), tmp_path / "file" / "ghn", recipe={})
