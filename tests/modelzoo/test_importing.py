"""Models from outside become entries that compute what they computed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nasgraph.data import DataSet, Preparation
from nasgraph.errors import ZooError
from nasgraph.modelzoo import load_entry, verify
from nasgraph.modelzoo.export import export
from nasgraph.modelzoo.flavor import EntryFunction
from nasgraph.modelzoo.importing import import_checkpoint, import_module, import_onnx
from tests.modelzoo.making import candidate, trained


class OwnNetwork(nn.Module):
    """A residual network as somebody outside writes it: functional calls, a buffer, batch norms."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.GELU(), nn.Dropout(0.1))
        self.head = nn.Linear(6, 10)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 6).view(1, 6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x))) * self.scale
        x = x + self.block(x)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def own_network() -> OwnNetwork:
    torch.manual_seed(3)
    module = OwnNetwork()
    for _ in range(3):  # running statistics that are not those of a new network
        module(torch.randn(16, 1, 8, 8))
    return module


def test_a_torch_module_computes_the_same_as_an_entry(tmp_path: Path, digits: DataSet) -> None:
    module = own_network()
    entry = import_module(
        tmp_path / "own", "own", module, torch.randn(2, 1, 8, 8), source="own_network()", data=(digits, Preparation())
    )  # fmt: skip
    module.eval()
    inputs = digits.test.inputs[:32]
    with torch.no_grad():
        torch.testing.assert_close(entry.module()(inputs), module(inputs), rtol=1e-4, atol=1e-5)
    assert (entry.card.lineage.origin, entry.card.lineage.note) == ("import", "own_network()")
    assert entry.card.licence == "other"
    accuracy = float((module(digits.test.inputs).argmax(1) == digits.test.targets).float().mean())
    recorded = entry.card.measured("test")
    assert recorded is not None
    assert recorded.value == pytest.approx(accuracy, abs=2 / len(digits.test))
    checks = verify(load_entry(entry.path), digits)
    assert len(checks) > 2
    assert all(check.agrees for check in checks)


@pytest.mark.filterwarnings(
    "ignore:.*Any type hint is inferred as AnyType:UserWarning"
)  # importing mlflow.pyfunc
def test_without_data_nothing_is_claimed_and_mlflow_still_loads_it(tmp_path: Path) -> None:
    module = own_network().eval()
    entry = import_module(tmp_path / "own", "own", module, torch.randn(2, 1, 8, 8), source="here")
    assert (entry.card.data, entry.card.measurements, entry.card.task) == (None, (), "other")
    inputs = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        expected = module(inputs)
    found = torch.from_numpy(EntryFunction(entry).predict(inputs))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no constants that normalise"):
        EntryFunction(entry).predict(inputs, {"raw": True})
    import mlflow.pyfunc

    loaded = mlflow.pyfunc.load_model(str(entry.path))
    torch.testing.assert_close(
        torch.from_numpy(loaded.predict(inputs.numpy())), expected, rtol=1e-4, atol=1e-5
    )


def test_an_onnx_file_becomes_an_entry(tmp_path: Path) -> None:
    module = own_network().eval()
    own = import_module(tmp_path / "own", "own", module, torch.randn(2, 1, 8, 8), source="here")
    export(own, tmp_path / "own.onnx", form="onnx")
    entry = import_onnx(tmp_path / "entry", "own", tmp_path / "own.onnx")
    assert entry.card.lineage.note.startswith("own.onnx, sha256 ")
    inputs = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(entry.module()(inputs), module(inputs), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_with_its_architecture_becomes_an_entry(tmp_path: Path, digits: DataSet) -> None:
    state = trained(digits, steps=5).state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    entry = import_checkpoint(tmp_path / "entry", "mine", candidate(), tmp_path / "weights.safetensors")
    assert entry.card.architecture == candidate().architecture
    assert all(torch.equal(entry.state[name], tensor) for name, tensor in state.items())


def test_checkpoints_that_do_not_fit_or_are_pickles_are_refused(tmp_path: Path, digits: DataSet) -> None:
    state = trained(digits, steps=1).state_dict()
    torch.save(state, tmp_path / "pickle.safetensors")
    save_file(
        {name: tensor for name, tensor in state.items() if "n1." not in name}, tmp_path / "part.safetensors"
    )
    bomb = (2**62).to_bytes(8, "little") + b"{}"
    (tmp_path / "bomb.safetensors").write_bytes(bomb)
    for name, message in [
        ("pickle", "with a pickle"),
        ("part", "lacks"),
        ("bomb", "no complete safetensors file"),
        ("absent", "There is no file"),
    ]:
        with pytest.raises(ZooError, match=message):
            import_checkpoint(tmp_path / "entry", "mine", candidate(), tmp_path / f"{name}.safetensors")
    assert not (tmp_path / "entry").exists()


def test_what_a_graph_cannot_express_is_named(tmp_path: Path) -> None:
    class Sorts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sort(self.linear(x), dim=1).values

    with pytest.raises(ZooError, match=r"cannot be an entry.*sort"):
        import_module(tmp_path / "entry", "sorts", Sorts(), torch.randn(2, 8), source="here")
    assert not (tmp_path / "entry").exists()
