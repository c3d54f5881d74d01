"""ONNX files that are not as they should be: refused in words, without harm."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasgraph.errors import NasGraphError, UnsupportedOpError
from nasgraph.modules.onnx import load_onnx
from tests.modules.onnx_files import (
    Case,
    case_of,
    helper,
    image,
    ints,
    network,
    onnx,
    rng,
    save,
    weights,
)


def test_an_unknown_operator_is_named_with_its_node(tmp_path: Path) -> None:
    node = helper.make_node("NonZero", ["x"], ["y"], name="finder")
    path = save(tmp_path / "u.onnx", [node], inputs={"x": (("n", 3), 1)}, outputs=["y"], tensors={})
    with pytest.raises(UnsupportedOpError, match=r"'NonZero' \(node 'finder'\)"):
        load_onnx(path)
    node = helper.make_node("FusedConv", ["x"], ["y"], name="fused", domain="com.microsoft")
    path = save(tmp_path / "v.onnx", [node], inputs={"x": (("n", 3), 1)}, outputs=["y"], tensors={})
    with pytest.raises(UnsupportedOpError, match=r"com.microsoft.FusedConv.*'fused'"):
        load_onnx(path)


@pytest.mark.parametrize(
    ("op", "attrs", "why"),
    [
        ("GRU", {"linear_before_reset": 0}, "linear_before_reset"),
        ("LSTM", {"clip": 1.0}, "clips"),
        ("LSTM", {"activations": ["Relu", "Tanh", "Tanh"]}, "activations"),
    ],
)
def test_a_recurrent_layer_that_torch_does_not_have_is_refused(
    op: str, attrs: dict[str, Any], why: str, tmp_path: Path
) -> None:
    gates = 4 if op == "LSTM" else 3
    case = Case(
        op, (np.zeros((2, 3, 4), np.float32),), (weights(1, gates * 5, 4), weights(1, gates * 5, 5)), attrs
    )
    with pytest.raises(UnsupportedOpError, match=why):
        load_onnx(case_of(case, tmp_path)[0])


def test_what_is_no_onnx_file_is_refused_with_its_path(tmp_path: Path) -> None:
    whole = network(tmp_path / "net.onnx").read_bytes()
    contents = {
        "empty": b"", "text": b"not a model at all", "cut": whole[: len(whole) // 2], "zeros": bytes(1000),
    }  # fmt: skip
    for name, content in contents.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(NasGraphError, match=f"{name}.onnx"):
            load_onnx(path)
    with pytest.raises(NasGraphError, match=r"Cannot read '.*missing.onnx'"):
        load_onnx(tmp_path / "missing.onnx")


def test_flipped_bytes_give_a_module_or_an_error_of_ours(tmp_path: Path) -> None:
    whole = bytearray(network(tmp_path / "net.onnx").read_bytes())
    positions = rng(7).integers(0, len(whole), size=150)
    path = tmp_path / "flipped.onnx"
    num_read = num_refused = 0
    for position in positions:
        damaged = bytearray(whole)
        damaged[int(position)] ^= 0xFF
        path.write_bytes(bytes(damaged))
        try:
            module = load_onnx(path)
            with torch.no_grad():
                module(torch.from_numpy(image(2)))
            num_read += 1  # the byte was part of a number or a name
        except NasGraphError:
            num_refused += 1
    assert num_read + num_refused == 150
    assert min(num_read, num_refused) > 0


def test_a_tensor_with_less_content_than_its_shape_says_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(network(tmp_path / "net.onnx")))
    model.graph.initializer[0].dims[0] = 2**40
    (tmp_path / "big.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(NasGraphError, match=r"big\.onnx"):
        load_onnx(tmp_path / "big.onnx")


def test_a_file_does_not_make_the_reader_fill_its_memory(tmp_path: Path) -> None:
    node = helper.make_node("ConstantOfShape", ["shape"], ["y"], name="huge")
    add = helper.make_node("Add", ["x", "y"], ["z"])
    path = save(
        tmp_path / "h.onnx",
        [node, add],
        inputs={"x": (("n", 1), 1)},
        outputs=["z"],
        tensors={"shape": ints(2**31, 2**10)},
    )
    with pytest.raises(UnsupportedOpError, match=r"'huge'.*elements"):
        load_onnx(path)(torch.zeros(2, 1))


def with_external(tmp_path: Path, location: str) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    model = onnx.load(str(network(tmp_path / "net.onnx")))
    tensor = next(t for t in model.graph.initializer if t.name == "conv.weight")
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "4"), ("length", str(len(content)))):
        tensor.external_data.add(key=key, value=value)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    for place in (folder / "weights.bin", tmp_path / "outside.bin"):
        place.write_bytes(b"....".replace(b".", b"\0") + content)
    return folder / "net.onnx"


def test_tensors_in_a_file_beside_the_model_are_read(tmp_path: Path) -> None:
    module = load_onnx(with_external(tmp_path, "weights.bin"))
    assert torch.equal(module.get_parameter("conv_weight").detach(), torch.from_numpy(weights(8, 3, 3, 3)))


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "link.bin", ""])
def test_tensors_outside_the_folder_of_the_model_are_not_read(location: str, tmp_path: Path) -> None:
    path = with_external(tmp_path, location)
    (path.parent / "link.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(NasGraphError, match="not in its folder"):
        load_onnx(path)


def test_a_missing_file_beside_the_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(NasGraphError, match=r"needs the file 'other\.bin'"):
        load_onnx(with_external(tmp_path, "other.bin"))


def test_without_the_package_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = network(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(NasGraphError, match=r"pip install 'nasgraph\[onnx\]'"):
        load_onnx(path)


def test_importing_the_modules_does_not_import_onnx() -> None:
    code = "import sys, nasgraph.modules.onnx; assert 'onnx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
