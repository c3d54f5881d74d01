"""Names of torch functions, one for each meaning: `torch.add`, `Tensor.add` and `+` are all `add`."""

from collections.abc import Callable
from types import FunctionType

import torch

_OPERATORS = {
    "__add__": "add", "__radd__": "add", "__iadd__": "add_",
    "__sub__": "sub", "__rsub__": "rsub", "__isub__": "sub_",
    "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul_",
    "__truediv__": "div", "__rtruediv__": "rdiv", "__itruediv__": "div_", "__div__": "div", "__rdiv__": "rdiv",
    "__floordiv__": "floor_divide", "__rfloordiv__": "rfloor_divide", "__mod__": "remainder",
    "__pow__": "pow", "__rpow__": "rpow", "__ipow__": "pow_",
    "__matmul__": "matmul", "__rmatmul__": "rmatmul", "__neg__": "neg", "__abs__": "abs",
    "__eq__": "eq", "__ne__": "ne", "__lt__": "lt", "__le__": "le", "__gt__": "gt", "__ge__": "ge",
    "__and__": "bitwise_and", "__or__": "bitwise_or", "__xor__": "bitwise_xor", "__invert__": "bitwise_not",
    "__getitem__": "getitem", "__setitem__": "setitem_",
    "subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "negative": "neg",
    "absolute": "abs", "concat": "cat", "concatenate": "cat", "swapaxes": "transpose", "swapdims": "transpose",
    "moveaxis": "movedim", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le",
    "not_equal": "ne", "clip": "clamp", "arctan": "atan", "fix": "trunc", "special_expit": "sigmoid",
    "special_erf": "erf", "special_softmax": "softmax", "special_log_softmax": "log_softmax",
    "hardtanh_": "clamp_", "_softmax": "softmax", "_log_softmax": "log_softmax", "linalg_norm": "norm",
    "linalg_vector_norm": "vector_norm", "_unsafe_view": "view", "numpy_T": "T",
    "set data": "copy_",
}  # fmt: skip
"""Spellings of one function that fold into one name. A trailing underscore marks changes in place."""

_ORDERED_OTHERWISE = frozenset(("batch_norm", "instance_norm", "embedding", "embedding_bag"))
"""Functions that take their arguments in another order in `torch` and `torch.ops.aten` than in `torch.nn.functional`."""

_cache: dict[Callable[..., object], str] = {}


def name_of(function: Callable[..., object]) -> str:
    """Name of a torch function: `T` and `shape` for properties, `linalg_norm` for `torch.linalg.norm`."""
    name = _cache.get(function)
    if name is None:
        name = _cache[function] = _name(function)
    return name


def _name(function: Callable[..., object]) -> str:
    if isinstance(function, torch._ops.OpOverload):
        raw = function._schema.name.split("::")[1]
        if function.namespace != "aten":
            return f"{function.namespace}.{raw}"
    elif isinstance(function, torch._ops.OpOverloadPacket):
        raw = function.__name__
    else:
        raw = getattr(function, "__name__", type(function).__name__)
        if raw in ("__get__", "__set__"):
            owner = getattr(getattr(function, "__self__", None), "__name__", "attribute")
            raw = owner if raw == "__get__" else f"set {owner}"
    if (
        raw.startswith("boolean_dispatch") or raw == "fn"
    ):  # torch.nn.functional's pooling with optional indices
        raw = _dispatched(function)
    if raw in _ORDERED_OTHERWISE and not isinstance(function, FunctionType):
        return f"aten_{raw}"
    return _OPERATORS.get(raw, raw)


def _dispatched(function: Callable[..., object]) -> str:
    functional = torch.nn.functional
    for name in dir(functional):
        if getattr(functional, name) is function:
            return name
    return getattr(function, "__name__", "unknown")


def describe(function: Callable[..., object]) -> str:
    """A torch function for messages, with its module where it has one."""
    try:
        return str(torch.overrides.resolve_name(function) or name_of(function))
    except Exception:  # noqa: BLE001  torch's helper fails in many ways for foreign functions, and this is only a text
        return name_of(function)
