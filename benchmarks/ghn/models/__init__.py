"""The models that the coverage of the tracer is measured on: libraries' and hand-written networks, all small.

Three lists, each built lazily (nothing is imported or allocated before it is asked for):

- `transformers_models()`: classes of the `transformers` library with small configurations and random weights;
- `handwritten_models()`: networks in the styles people write them;
- `bad_models()`: modules for which a clear error, or an honest report, is the right answer.

`python -m benchmarks.ghn.check_models` runs the real forward of every one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")
Inputs = dict[str, Tensor]

__all__ = [
    "BadModel",
    "Inputs",
    "Model",
    "bad_models",
    "enliven",
    "handwritten_models",
    "seeded",
    "transformers_models",
]


@dataclass(frozen=True, slots=True)
class Model:
    """One network of the benchmark: how to make it, and what to call it with.

    Both functions give the same values at every call and leave the global random state as they found it.

    Attributes:
        name: Unique among all lists.
        family: The group it is counted in, such as "decoder" or "convolution".
        make: Makes the module, in evaluation mode unless the model is about training mode.
        inputs: Makes the keyword arguments of `forward`, for two examples.
        special: What is special about the model, in one sentence; may be empty.
    """

    name: str
    family: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    special: str = ""


@dataclass(frozen=True, slots=True)
class BadModel:
    """A model that must not be traced silently.

    Attributes:
        model: What to trace.
        expect: What the answer has to make clear, in words.
        forward_runs: Whether the module's own forward runs on the inputs.
    """

    model: Model
    expect: str
    forward_runs: bool


def seeded(function: Callable[[], T], seed: int = 0) -> Callable[[], T]:
    """The function, run with torch's generator seeded, and the generator's state put back afterwards."""

    def run() -> T:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return function()

    return run


def enliven(module: nn.Module) -> nn.Module:
    """Give every trainable parameter values that show in the output, drawn from torch's generator; the same module.

    Small initialisations make the output of a deep random network vanish, and zeros hide a bias that was lost or
    exchanged: a comparison of outputs would pass whatever the graph says. So matrices and kernels get a standard
    deviation of sqrt(2 / fan-in) around their mean, constants and vectors a little noise, and running statistics
    values other than 0 and 1.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                _enliven(parameter)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn_like(buffer))
            elif name.endswith("running_var"):
                buffer.mul_(0.8 + 0.4 * torch.rand_like(buffer))
    return module


def _enliven(parameter: Tensor) -> None:
    spread = float(parameter.std()) if parameter.ndim > 1 and parameter.numel() > 1 else 0.0
    if spread == 0:
        parameter.add_(0.1 * torch.randn_like(parameter))
    else:
        mean = parameter.mean()
        wanted = math.sqrt(2 / parameter[0].numel())
        parameter.sub_(mean).mul_(wanted / spread).add_(mean)


def transformers_models() -> list[Model]:
    """Classes of the `transformers` library; needs `pip install transformers`."""
    from benchmarks.ghn.models.transformers_models import models  # slow to import, and optional

    return models()


def handwritten_models() -> list[Model]:
    """Networks written by hand in ordinary PyTorch styles."""
    from benchmarks.ghn.models.handwritten import models

    return models()


def bad_models() -> list[BadModel]:
    """Modules that must give a clear error or a report."""
    from benchmarks.ghn.models.handwritten.bad import bad_models as models

    return models()
