"""Entries as MLflow models."""

import logging

import numpy as np
import pytest
import torch
import yaml

from nasgraph.data import DataSet, load_dataset
from nasgraph.mlflow_client import configure_mlflow
from nasgraph.modelzoo import ZooEntry
from nasgraph.modelzoo.flavor import EntryFunction

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Any type hint is inferred as AnyType:UserWarning"
)  # importing pyfunc


def test_mlflow_loads_an_entry_without_a_warning_and_predicts_the_same_bits(
    entry: ZooEntry, digits: DataSet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_mlflow()
    import mlflow.pyfunc

    monkeypatch.setattr(logging.getLogger("mlflow"), "propagate", True)
    model = mlflow.pyfunc.load_model(str(entry.path))
    logits = model.predict(digits.test.inputs.numpy())
    assert caplog.text == ""
    assert logits.dtype == np.float32
    with torch.inference_mode():
        assert np.array_equal(logits, EntryFunction(entry).predict(digits.test.inputs))
    accuracy = (logits.argmax(1) == digits.test.targets.numpy()).sum().item() / len(digits.test)
    recorded = entry.card.measured("test")
    assert recorded is not None
    assert accuracy == recorded.value


def test_raw_inputs_are_normalised_only_if_asked_for(entry: ZooEntry, digits: DataSet) -> None:
    assert entry.card.data is not None
    constants = entry.card.data.normalisation
    prepared = digits.test.inputs[:20]
    raw = (prepared * constants.std[0] + constants.mean[0]) / constants.scale
    function = EntryFunction(entry)
    np.testing.assert_allclose(function.predict(raw, {"raw": True}), function.predict(prepared), atol=1e-3)
    assert not np.allclose(function.predict(raw), function.predict(prepared), atol=1e-1)


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 258, 600])
def test_any_number_of_examples_can_be_predicted(entry: ZooEntry, count: int) -> None:
    data = load_dataset("digits").search.train.inputs[:count].numpy()
    assert EntryFunction(entry).predict(data).shape == (count, 10)


def test_inputs_of_another_shape_are_refused(entry: ZooEntry) -> None:
    with pytest.raises(ValueError, match=r"Expected inputs of shape \[examples, 1, 8, 8\]"):
        EntryFunction(entry).predict(np.zeros((3, 8, 8), np.float32))


def test_the_mlmodel_file_is_what_mlflow_expects(entry: ZooEntry) -> None:
    content = yaml.safe_load((entry.path / "MLmodel").read_text())
    assert content["flavors"]["python_function"]["loader_module"] == "nasgraph.modelzoo.flavor"
    assert "nasgraph" in content["flavors"]
    assert "pickle" not in (entry.path / "MLmodel").read_text()
