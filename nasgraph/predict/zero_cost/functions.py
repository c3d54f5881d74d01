"""Torch's functions by what they are to the proxies, and their arguments by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from nasgraph.predict.zero_cost import twice

RECTIFIERS = frozenset(
    {"relu", "relu6", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish"}
)
"""Activations that divide their input at (about) zero."""
NORMS = frozenset({"batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm"})
CONVOLUTIONS = frozenset(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))
LAYERS = CONVOLUTIONS | {"linear"}
"""Functions of (data, weight, ...) whose calls are kept as layers."""
MIXERS = LAYERS | frozenset(
    {
        *("bilinear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "addmm", "baddbmm", "einsum"),
        *("tensordot", "multi_head_attention_forward", "lstm", "gru", "rnn_tanh", "rnn_relu"),
        *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
    }
)
"""Functions that multiply data with parameters: a parameter with two axes or more that one of them is given is a weight."""
DATA_FIRST = {**dict.fromkeys(LAYERS, 1), "bilinear": 2, "multi_head_attention_forward": 3}
"""How many arguments are data in any case: learnt queries are no weights."""
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
Args = Sequence[Any]
KwArgs = Mapping[str, Any]


def first_argument(args: Args, kwargs: KwArgs) -> Any:
    """What a function of a tensor reads."""
    return args[0] if args else kwargs["input"]


def layer_data(args: Args, kwargs: KwArgs) -> Tensor:
    """What a convolution or linear map reads."""
    x: Tensor = first_argument(args, kwargs)
    return x


def tensors_among(values: Sequence[object]) -> list[Tensor]:
    """Tensors among values and in tuples and lists of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found.extend(tensors_among(value))
    return found


def repeated(func: Callable[..., Any], args: Args, kwargs: KwArgs) -> Callable[[Tensor, Tensor], Tensor]:
    """A call of a convolution or linear map as a function of data and weight."""
    rest = {key: value for key, value in kwargs.items() if key not in ("input", "weight")}

    def again(x: Tensor, weight: Tensor) -> Tensor:
        y: Tensor = func(x, weight, *args[2:], **rest)
        return y

    return again


def is_rectifier(op: str, args: Args, kwargs: KwArgs) -> bool:
    """Whether a call is one of `RECTIFIERS`, in place or not. `nn.ReLU6` calls `hardtanh`."""
    if op in ("hardtanh", "hardtanh_"):
        return bool(_named(("input", "min_val"), args, kwargs).get("min_val", -1.0) == 0)
    return op.removesuffix("_") in RECTIFIERS


def hardsigmoid(args: Args, kwargs: KwArgs) -> Tensor:
    """The same function in a form that can be differentiated twice, which torch's cannot."""
    x: Tensor = first_argument(args, kwargs)
    y = F.relu6(x + 3) / 6
    return x.copy_(y) if kwargs.get("inplace") or (len(args) > 1 and args[1]) else y


def convolution_settings(args: Args, kwargs: KwArgs) -> twice.Settings | None:
    """Those of a two-dimensional convolution; None if its padding is given as a word."""
    data = _named(_CONVOLUTION, args, kwargs)
    if isinstance(data.get("padding"), str):
        return None
    stride, padding, dilation = (_pair(data.get(name, 1 - (name == "padding"))) for name in _CONVOLUTION[3:6])
    return stride, padding, dilation, False, (0, 0), data.get("groups", 1)


def convolution(func: Callable[..., Any], args: Args, kwargs: KwArgs) -> Tensor:
    """A two-dimensional convolution, in the form that is cheap to differentiate twice where that is possible."""
    data, settings = _named(_CONVOLUTION, args, kwargs), convolution_settings(args, kwargs)
    x, weight, bias = data["input"], data["weight"], data.get("bias")
    if settings is None or x.dim() != 4 or (bias is not None and bias.requires_grad):
        y: Tensor = func(*args, **kwargs)
        return y
    return twice.convolution(x, weight, bias, settings)


def norm_input_and_eps(args: Args, kwargs: KwArgs) -> tuple[Tensor, float]:
    """What a batch norm reads, and the number that it adds to the variance."""
    data = _named(_NORM, args, kwargs)
    return data["input"], data.get("eps", 1e-5)


def batch_norm(args: Args, kwargs: KwArgs, *, is_twice: bool) -> Tensor:
    """A batch norm by the statistics of the batch; running ones are neither read nor written."""
    data = _named(_NORM, args, kwargs)
    x, weight, bias, eps = data["input"], data.get("weight"), data.get("bias"), data.get("eps", 1e-5)
    is_fixed = not any(tensor is not None and tensor.requires_grad for tensor in (weight, bias))
    if is_twice and x.requires_grad and is_fixed:
        return twice.batch_norm(x, weight, bias, eps)
    return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)


def instance_norm(args: Args, kwargs: KwArgs) -> Tensor:
    """An instance norm by the statistics of each example."""
    data = _named(_NORM, args, kwargs)
    weight, bias, eps = data.get("weight"), data.get("bias"), data.get("eps", 1e-5)
    return F.instance_norm(data["input"], None, None, weight, bias, True, 0.0, eps)


def _named(names: Sequence[str], args: Args, kwargs: KwArgs) -> dict[str, Any]:
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, *rest = value
    return first, rest[0] if rest else first
