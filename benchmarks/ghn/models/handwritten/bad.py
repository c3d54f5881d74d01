"""Modules for which a clear error, or a report of what is missing, is the right answer."""

# mypy: disable-error-code="no-any-return"
# (networks return what their layers return, as users write them; `Module.__call__` is untyped)

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.ghn.models import BadModel, Inputs, Model, seeded
from benchmarks.ghn.models.handwritten.entry import vector


class Raises(nn.Module):
    """forward raises a ValueError of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        if y.shape[0] == 2:
            raise ValueError("this network wants more than two examples")
        return y


class WrongShape(nn.Module):
    """The second layer does not fit the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 8), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class ComplexParameter(nn.Module):
    """A complex parameter, used in a complex product."""

    def __init__(self) -> None:
        super().__init__()
        self.rotation = nn.Parameter(torch.randn(16, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.complex64) * self.rotation).abs()


class IntegerParameter(nn.Module):
    """A frozen parameter of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.order = nn.Parameter(torch.randperm(16), requires_grad=False)
        self.layer = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, self.order])


class NoTensorOutput(nn.Module):
    """The output is a Python number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> float:
        return float(self.layer(x).sum())


class NothingReturned(nn.Module):
    """forward forgets its return statement."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> None:
        self.layer(x)


class NoneUsed(nn.Module):
    """It has parameters, and none of them is used."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class NoParameters(nn.Module):
    """It has no parameter at all."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x, dim=-1)


class OneUnused(nn.Module):
    """One parameter is used by no operator."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)
        self.lost = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class InputIgnored(nn.Module):
    """The output does not depend on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.constant)


class DataDependentShape(nn.Module):
    """The number of rows of the output depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = x[x[:, 0] > 0]
        return self.layer(rows)[torch.nonzero(rows.sum(1) > 0).squeeze(1)]


class NumpyInside(nn.Module):
    """The values leave torch for numpy between two layers, so the graph is cut in two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        values = self.first(x).detach().numpy()
        return self.second(torch.from_numpy(values * 2))


class ReplacesParameter(nn.Module):
    """forward puts a new parameter in the place of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.layer.weight = nn.Parameter(self.layer.weight * 0.5)
        return self.layer(x)


class NotANumberParameter(nn.Module):
    """A parameter holds NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)
        nn.init.constant_(self.layer.bias, float("nan"))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def quantised() -> nn.Module:
    """A dynamically quantised network: its packed weights are no parameters."""
    net = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    quantise = torch.ao.quantization.quantize_dynamic
    made: nn.Module = quantise(net, {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]  # torch's
    return made


def on_meta_device() -> nn.Module:
    """Parameters on the meta device have shapes and no values."""
    return nn.Sequential(nn.Linear(16, 8, device="meta"), nn.ReLU(), nn.Linear(8, 3, device="meta"))


def lazy() -> nn.Module:
    """Lazy layers that never saw an input have no shapes yet."""
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))


def scripted() -> nn.Module:
    """A TorchScript module runs without Python, so no Python hook sees its operators."""
    made: nn.Module = torch.jit.script(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)))
    return made


def empty_images() -> nn.Module:
    """Called with a batch of images without any pixels."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))


def linear() -> nn.Module:
    """An ordinary layer, called wrongly or with nothing in the batch."""
    return nn.Sequential(nn.Linear(16, 3))


def _sequential_vector() -> Inputs:
    return {"input": torch.randn(2, 16)}


def _no_rows() -> Inputs:
    return {"input": torch.randn(0, 16)}


def _no_pixels() -> Inputs:
    return {"input": torch.randn(2, 3, 0, 0)}


def _wrong_name() -> Inputs:
    return {"pixels": torch.randn(2, 16)}


def _bad(
    name: str, make: Callable[[], nn.Module], inputs: Callable[[], Inputs], expect: str, *, runs: bool
) -> BadModel:
    special = (make.__doc__ or "").splitlines()[0]
    model = Model(name, "bad", seeded(lambda: make().eval()), seeded(inputs), special)
    return BadModel(model, expect, forward_runs=runs)


def bad_models() -> list[BadModel]:
    """All of them, with what the answer has to make clear."""
    x, sequential = vector(), _sequential_vector
    refused = "an error that names the parameter, its type and what to do"
    return [
        _bad(
            "raises", Raises, x, "an error with the network's own message and the module's name", runs=False
        ),
        _bad("wrong_shape", WrongShape, x, "an error that names layer 'second' and both sizes", runs=False),
        _bad(
            "wrong_argument",
            linear,
            _wrong_name,
            "an error that names the argument and the real ones",
            runs=False,
        ),
        _bad(
            "no_pixels",
            empty_images,
            _no_pixels,
            "an error that names the empty input or the convolution",
            runs=False,
        ),
        _bad(
            "no_rows", linear, _no_rows, "an error that names the empty input, or a correct graph", runs=True
        ),
        _bad(
            "lazy",
            lazy,
            sequential,
            "an error: call the module once before; a call would change it",
            runs=True,
        ),
        _bad("complex_parameter", ComplexParameter, x, refused, runs=True),
        _bad(
            "integer_parameter",
            IntegerParameter,
            x,
            f"{refused}, or a report that it is left alone",
            runs=True,
        ),
        _bad("quantised", quantised, sequential, "an error that names the quantised module", runs=True),
        _bad(
            "scripted",
            scripted,
            sequential,
            "an error that names the script module, or a correct graph",
            runs=True,
        ),
        _bad("no_tensor_output", NoTensorOutput, x, "an error that says what the output is", runs=True),
        _bad(
            "nothing_returned", NothingReturned, x, "an error that says that forward returned None", runs=True
        ),
        _bad("none_used", NoneUsed, x, "a report that all parameters are unused", runs=True),
        _bad(
            "no_parameters",
            NoParameters,
            x,
            "a graph without parameters, or an error that says so",
            runs=True,
        ),
        _bad(
            "one_unused",
            OneUnused,
            x,
            "a correct graph, and 'lost' in the report of unused parameters",
            runs=True,
        ),
        _bad(
            "input_ignored", InputIgnored, x, "an error or a report: no path from input to output", runs=True
        ),
        _bad("meta_device", on_meta_device, sequential, "a correct graph; no values to compare", runs=False),
        _bad(
            "data_dependent_shape",
            DataDependentShape,
            x,
            "a graph by real tensors, or an error that says why",
            runs=True,
        ),
        _bad(
            "numpy_inside",
            NumpyInside,
            x,
            "an error or a report: layer 'first' does not reach the output",
            runs=True,
        ),
        _bad(
            "replaces_parameter",
            ReplacesParameter,
            x,
            "an error, and the module's parameters as they were",
            runs=True,
        ),
        _bad("not_a_number", NotANumberParameter, x, "a correct graph: values do not matter", runs=True),
    ]
