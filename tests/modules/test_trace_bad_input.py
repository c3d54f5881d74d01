"""Modules that cannot be traced, or not wholly, get a clear answer."""

# mypy: disable-error-code="no-any-return"

import re

import pytest
import torch
from torch import Tensor, nn

from benchmarks.ghn.models import BadModel, bad_models
from nasgraph.errors import TraceError
from nasgraph.modules import trace
from tests.modules.trace_cases import Call

BAD = {bad.model.name: bad for bad in bad_models()}
ERRORS = {
    "wrong_shape": r"WrongShape fails .*'second' \(Linear\).* cannot be multiplied",
    "wrong_argument": r"unexpected keyword argument 'pixels'",
    "no_pixels": r"Expected at least one tensor with a batch axis",
    "no_rows": r"Expected at least one tensor with a batch axis",
    "lazy": r"'0.weight' is not initialised yet: run the module once",
    "complex_parameter": r"Expected real-valued parameters \(got 'rotation' of type torch.complex64\)",
    "integer_parameter": r"Expected real-valued parameters \(got 'order' of type torch.int64\)",
    "quantised": r"'0' is a quantised module \(Linear\)",
    "scripted": r"TorchScript module",
    "no_tensor_output": r"NoTensorOutput returns no tensor \(got float\)",
    "nothing_returned": r"NothingReturned returns no tensor \(got NoneType\)",
    "data_dependent_shape": r"DataDependentShape returns nothing but empty tensors",
    "replaces_parameter": r"ReplacesParameter cannot be traced: the forward pass makes a new nn.Parameter",
}
UNUSED = {
    "none_used": ("layer.weight", "layer.bias"),
    "no_parameters": (),
    "one_unused": ("lost",),
    "input_ignored": (),
    "meta_device": (),
    "not_a_number": (),
    "numpy_inside": ("first.weight", "first.bias"),
    "raises": (),  # it refuses two examples only, and the recorded batch is larger
}


@pytest.fixture(autouse=True)
def _quiet_libraries(recwarn: pytest.WarningsRecorder) -> None:
    """Quantising and scripting are deprecated in torch, and are tested all the same."""


def make(bad: BadModel) -> nn.Module:
    return bad.model.make()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ERRORS)
def test_a_bad_model_is_refused_with_what_is_wrong(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TraceError) as caught:
        trace(make(BAD[name]), BAD[name].model.inputs())
    assert re.search(ERRORS[name], str(caught.value)), str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", UNUSED)
def test_an_odd_model_is_traced_and_reports_its_unused_parameters(name: str) -> None:
    module = make(BAD[name])
    traced = trace(module, BAD[name].model.inputs())
    assert traced.unused == UNUSED[name]
    owned = {owner.name for owner in traced.owners.values()}
    assert owned == {n for n, _ in module.named_parameters()} - set(UNUSED[name])


def test_every_bad_model_is_tested() -> None:
    assert BAD.keys() == ERRORS.keys() | UNUSED.keys()


def test_values_that_leave_torch_are_reported() -> None:
    traced = trace(make(BAD["numpy_inside"]), BAD["numpy_inside"].model.inputs())
    assert any("numpy" in question for question in traced.specialised)


def test_a_scripted_function_inside_is_refused() -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        scripted = torch.jit.script(_softmax)
    with pytest.raises(TraceError, match="leaves no trace, such as a TorchScript function"):
        trace(nn.Sequential(nn.Linear(4, 4), Call(lambda x: scripted(x) + x)), torch.zeros(2, 4))


def _softmax(x: Tensor) -> Tensor:
    return torch.softmax(x, 1)


@pytest.mark.parametrize("inputs", [(), {}, (3, "x"), torch.zeros(())])
def test_inputs_without_a_tensor_are_refused(inputs: object) -> None:
    with pytest.raises(TraceError, match="at least one tensor with a batch axis"):
        trace(nn.Linear(4, 4), inputs)  # type: ignore[arg-type]  # wrong on purpose


def test_the_message_of_a_forward_that_raises_is_kept_with_its_place() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("expected three channels")

    with pytest.raises(
        TraceError, match=r"in '1.0' \(Inner\): ValueError: expected three channels"
    ) as caught:
        trace(nn.Sequential(nn.Linear(4, 4), nn.Sequential(Inner())), torch.zeros(2, 4))
    assert isinstance(caught.value.__cause__, ValueError)
