# ruff: noqa: SIM905  lists of names read better as text
"""Recording one forward pass of a torch module, without its cost.

The recorder is a `TorchFunctionMode`: it sees every torch function that the module calls. Activations live on the
meta device, so they have shapes and no memory; the module's own parameters are never touched, copied or moved.
Whatever depends on neither the inputs nor the parameters (positions, masks, tables) is computed for real, and so
is what follows from integer inputs alone; a module may therefore branch on it. For the functions that make up
most of a forward pass, output shapes come from `nasgraph.modules.tracing.shapes`, since torch's own meta kernels
cost up to half a millisecond each.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch
from torch.overrides import TorchFunctionMode

from nasgraph.errors import TraceError
from nasgraph.modules.tracing.names import describe, name_of
from nasgraph.modules.tracing.recording import Call, Recording, Value
from nasgraph.modules.tracing.shapes import SHAPES
from nasgraph.modules.tracing.tensors import (
    are_apart,
    holds_the_same,
    inner_storage,
    innermost,
    meta_copy,
    on_meta,
    storage,
)

Function = Callable[..., Any]

MAX_CALLS = 100_000
MAX_KNOWN_ELEMENTS = 2**24
"""Tensors of known content larger than this are no longer computed: their content counts as unknown."""

QUERIES = frozenset(
    "shape size dim ndim ndimension dtype is_floating_point is_complex numel nelement element_size stride is_contiguous layout "
    "requires_grad requires_grad_ is_leaf grad grad_fn names is_sparse is_quantized is_nested is_meta is_cpu is_cuda is_mps is_xpu "
    "is_mkldnn storage_offset untyped_storage __len__ __hash__ __repr__ _version _base _is_view retain_grad "
    "is_inference is_shared is_pinned data_ptr has_names is_signed is_same_size register_hook itemsize nbytes result_type "
    "is_nonzero_ broadcast_shapes __format__ _has_symbolic_sizes_strides is_neg is_conj get_device can_cast "
    "is_autocast_enabled set_requires_grad".split()
)
"""Functions that only ask about a tensor."""
IN_PLACE_EXCEPTIONS = frozenset(("requires_grad_", "__len__"))
LOOK_INTO = frozenset(
    ("item", "__bool__", "__int__", "__float__", "tolist", "numpy", "__index__", "equal", "allclose")
)
"""Functions whose answer is the content of a tensor."""
SHAPED_BY_CONTENT = frozenset(
    (
        "nonzero",
        "argwhere",
        "unique",
        "unique_consecutive",
        "_unique2",
        "masked_select",
        "_pack_padded_sequence",
        "bincount",
    )
)
"""Functions whose result has a shape that follows from content."""
RANDOM = frozenset(
    ("rand", "randn", "randint", "randperm", "normal", "normal_", "uniform_", "bernoulli", "bernoulli_", "multinomial", "rand_like",
     "randn_like", "randint_like", "random_", "exponential_", "poisson")
)  # fmt: skip
FACTORIES_LIKE = {
    "zeros_like": torch.zeros,
    "ones_like": torch.ones,
    "empty_like": torch.zeros,
    "new_zeros": torch.zeros,
    "new_ones": torch.ones,
    "new_empty": torch.zeros,
}
"""Constants whose shape alone comes from a tensor."""
UNWRITTEN = frozenset(
    ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")
)
"""Functions whose result has no content yet. If it is read before it is written to, something wrote to it unseen."""
MOVES = frozenset(
    ("to", "cpu", "cuda", "type", "type_as", "float", "double", "half", "bfloat16", "int", "long", "bool")
)


class ContentNeededError(Exception):
    """The module asked for the content of a tensor that has only a shape. The message says where."""


class HistoryLostError(Exception):
    """A tensor came from inputs or parameters by a way that the recorder does not see. The message says which."""


class BufferChangedError(Exception):
    """The module changed a buffer in place, so the recording needs buffers of its own."""


def kind_of(dtype: torch.dtype) -> str:
    """ "float", "complex", "bool" or "int"."""
    if dtype.is_floating_point:
        return "float"
    return "bool" if dtype == torch.bool else "complex" if dtype.is_complex else "int"


class Recorder(TorchFunctionMode):
    """Records the torch functions called while it is active.

    Args:
        parameters: Those of the module that is going to run, by name; used for their identity and shape only.
        buffers: Its buffers.
        batch_size: Examples in the batch.
        real: Run everything on real tensors instead of the meta device. Memory and time are then those of a
            forward pass.
        has_own_buffers: The module's buffers are copies that it may change.

    Raises:
        BufferChangedError: While recording, if a buffer is changed in place and is no copy.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Sequence[Tensor],
        *,
        batch_size: int,
        real: bool,
        has_own_buffers: bool = False,
    ) -> None:
        super().__init__()
        self.recording = Recording(batch_size)
        self.real = real
        self._owned: dict[int, Value] = {
            id(parameter): Value(tuple(parameter.shape), kind_of(parameter.dtype), parameter=name)
            for name, parameter in parameters.items()
        }
        tensors = [*parameters.values(), *buffers]
        self._device = next((t.device for t in tensors if t.device.type != "meta"), torch.device("cpu"))
        self._all = tensors  # kept alive: identities are looked up
        self._tensors = list(parameters.values()) if has_own_buffers else tensors
        self._storages: frozenset[int] | None = None
        self._meta_ids = frozenset(id(tensor) for tensor in tensors if tensor.device.type == "meta")
        self._constants: dict[int, tuple[Tensor, Value]] = {}
        self._writes: dict[int, list[tuple[Tensor, Value]]] = {}
        self._twins: dict[int, Tensor] = {}
        self._wrapped: dict[int, tuple[Tensor, tuple[Value, ...]]] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._twins.clear()

    def give(self, tensor: Tensor) -> Tensor:
        """Prepare an input tensor for the module and note it as an input."""
        is_known = not tensor.is_floating_point() and not tensor.is_complex()
        given = tensor.detach().clone() if is_known or self.real else meta_copy(tensor)
        value = Value(tuple(tensor.shape), kind_of(tensor.dtype), is_input=True, is_known=is_known)
        self.recording.inputs.append(value)
        return _mark(given, value)

    def value_of(self, tensor: Tensor) -> Value:
        """The value that a tensor stands for; one without history is a constant.

        Raises:
            ContentNeededError: If it lies inside `torch.vmap` and its origin does not show.
            HistoryLostError: If it has no history and is no constant.
        """
        value: Value | None = tensor.__dict__.get("_nasgraph_value")
        if value is None:
            value = self._owned.get(id(tensor))
        elif self._writes:
            return self._up_to_date(tensor, value)
        if value is None and _functorch.is_functorch_wrapped_tensor(tensor):
            value = self._into_vmap(tensor)
        if value is None and self._wrapped:
            value = self._from_vmap(tensor)
        return self._constant(tensor) if value is None else value

    def _constant(self, tensor: Tensor) -> Value:
        _, value = self._constants.get(id(tensor), (None, None))
        if value is None:
            if tensor.device.type == "meta" and id(tensor) not in self._meta_ids:
                what = "new nn.Parameter" if isinstance(tensor, nn.Parameter) else "tensor"
                raise _lost(what, tensor)
            if "_nasgraph_unwritten" in tensor.__dict__ and tensor.numel() > 0:
                raise _lost("tensor", tensor)
            if self.real and not self._is_accounted_for(tensor):
                self._question(
                    f"a tensor {tuple(tensor.shape)} that no recorded function made, taken as fixed"
                )
            value = Value(tuple(tensor.shape), kind_of(tensor.dtype), tensor=tensor.detach())
            self._constants[id(tensor)] = (tensor, value)
        return value

    def _is_accounted_for(self, tensor: Tensor) -> bool:
        return "_nasgraph_fixed" in tensor.__dict__ or any(tensor is each for each in self._all)

    def _up_to_date(self, tensor: Tensor, value: Value) -> Value:
        """The value of a tensor, unless it is a view of memory that was written to afterwards."""
        for target, written in reversed(self._writes.get(storage(tensor), ())):
            if written.made <= value.made or written is value:
                break
            if are_apart(tensor, target):
                continue
            stale = Value(value.shape, value.dtype, is_known=value.is_known)
            if holds_the_same(tensor, target):
                self._add(Call("view", (written,), {}, ()), (stale,))
            else:
                self._add(Call("changed_view", (value, written), {}, ()), (stale,))
            _mark(tensor, stale)
            return stale
        return value

    def _snapshot(self, target: Tensor) -> None:
        """Keep the content of the constants that lie in a memory about to be changed."""
        memory = storage(target)
        for key, (tensor, value) in list(self._constants.items()):
            if value.tensor is not None and storage(tensor) == memory:
                value.tensor = value.tensor.clone()
                del self._constants[key]

    def _into_vmap(self, tensor: Tensor) -> Value | None:
        """The value of one of the tensors over which `torch.vmap` runs; None if it is a constant."""
        inner = innermost(tensor)
        source: Value | None = inner.__dict__.get("_nasgraph_value") or self._owned.get(id(inner))
        if source is None:
            if self._belongs_to_module(inner) and not any(inner is each for each in self._all):
                raise ContentNeededError(
                    "a part of a parameter passes into 'torch.vmap' or 'torch.func.grad'"
                )
            return None
        value = Value(tuple(tensor.shape), kind_of(tensor.dtype), is_known=source.is_known)
        self._add(Call("vmap", (source,), {}, ()), (value,))
        _mark(tensor, value)
        return value

    def _from_vmap(self, tensor: Tensor) -> Value | None:
        """A tensor that leaves `torch.vmap` is a new object; its memory tells where it comes from."""
        _, sources = self._wrapped.get(inner_storage(tensor), (None, ()))
        if not sources:
            return None
        value = Value(tuple(tensor.shape), kind_of(tensor.dtype), is_known=True)
        self._add(Call("vmap", sources, {}, ()), (value,))
        _mark(tensor, value)
        return value

    def __torch_function__(
        self,
        func: Function,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one torch function, or work out its shape, and note it down."""
        keywords: dict[str, Any] = dict(kwargs) if kwargs else {}
        name = name_of(func)
        if name in QUERIES:
            return func(*args, **keywords)
        if name == "device":
            return self._device
        if keywords.get("out") is not None:
            return self._write_out(func, types, args, keywords)
        tensors = _tensors_in(args, keywords)
        if not any(self._has_history(tensor) for tensor in tensors):
            return self._run_constant(func, name, args, keywords, tensors)
        return self._run(func, name, args, keywords, tensors)

    def _write_out(
        self, func: Function, types: Iterable[type], args: Sequence[Any], keywords: dict[str, Any]
    ) -> Any:
        """`out=`: compute first, then copy."""
        targets = keywords.pop("out")
        results = self.__torch_function__(func, types, args, keywords)
        pairs = [(targets, results)] if isinstance(targets, Tensor) else zip(targets, results, strict=True)
        for target, result in pairs:
            if target.shape != result.shape:
                raise HistoryLostError(f"'{describe(func)}' resizes its 'out' argument")
            self.__torch_function__(Tensor.copy_, (Tensor,), (target, result))
        return targets

    def _has_history(self, tensor: Tensor) -> bool:
        if "_nasgraph_value" in tensor.__dict__ or id(tensor) in self._owned:
            return True
        if not _functorch.is_functorch_wrapped_tensor(tensor):
            return bool(self._wrapped) and storage(tensor) in self._wrapped
        inner = innermost(tensor)
        return (
            "_nasgraph_value" in inner.__dict__ or id(inner) in self._owned or storage(inner) in self._wrapped
        )

    def _run_constant(
        self, func: Function, name: str, args: Sequence[Any], keywords: dict[str, Any], tensors: list[Tensor]
    ) -> Any:
        if tensors and _changes_in_place(name, keywords):
            if self._belongs_to_module(tensors[0]):
                raise BufferChangedError
            self._snapshot(tensors[0])
            _note_written(tensors[0])
        if name in RANDOM:
            self._question(f"a random number of '{describe(func)}'")
        if _is_meta_device(keywords.get("device")):
            keywords["device"] = self._device
        result = func(*args, **keywords)
        if name in UNWRITTEN:
            result.__dict__["_nasgraph_unwritten"] = True
        if self.real:
            for tensor in _flatten(result):
                tensor.__dict__["_nasgraph_fixed"] = True
        if name == "getitem" and isinstance(result, Tensor) and result._base is not None:
            result.__dict__["_nasgraph_view"] = (args[0], args[1])
        return result

    def _belongs_to_module(self, tensor: Tensor) -> bool:
        if self._storages is None:
            self._storages = frozenset(storage(t) for t in self._tensors)
        return storage(tensor) in self._storages

    def _run(
        self, func: Function, name: str, args: Sequence[Any], keywords: dict[str, Any], tensors: list[Tensor]
    ) -> Any:
        in_place = _changes_in_place(name, keywords)
        is_protected = in_place and self._belongs_to_module(tensors[0])
        if is_protected and not self._is_of_parameter(tensors[0]):
            raise BufferChangedError
        if in_place and not is_protected:
            _note_written(tensors[0])
            if self.real:
                self._snapshot(tensors[0])
        is_known = all(self._is_known(tensor) for tensor in tensors)
        if name in LOOK_INTO and not (is_known or self.real):
            raise ContentNeededError(
                f"'{describe(func)}' needs the content of a tensor that depends on the inputs"
            )
        if name == "data":
            return tensors[0]
        if name in LOOK_INTO or name in SHAPED_BY_CONTENT or _picks_by_truth(name, args):
            self._question(f"{describe(func)} of a tensor {tuple(tensors[0].shape)}")
        if name in ("getitem", "setitem_"):
            args = (args[0], _tensors_for_lists(args[1]), *args[2:])
        if len(self.recording.calls) >= MAX_CALLS:
            raise TraceError(
                f"The forward pass calls more than {MAX_CALLS:,} torch functions; give it a smaller example"
            )
        if name == "full_like" and not isinstance(
            args[1] if len(args) > 1 else keywords["fill_value"], Tensor
        ):
            filler = args[1] if len(args) > 1 else keywords["fill_value"]
            return _make_like("zeros_like", args, keywords, self._device).fill_(filler)
        if name in FACTORIES_LIKE:
            made = _make_like(name, args, keywords, self._device)
            if name in UNWRITTEN:
                made.__dict__["_nasgraph_unwritten"] = True
            return made
        noted = Call(name, tuple(map(self._note, args)), {k: self._note(v) for k, v in keywords.items()}, ())
        if is_protected:
            result = tensors[0]  # the module's own parameter stays as it is
        elif self.real or is_known:
            result = func(*args, **keywords)
        else:
            result = self._run_on_meta(func, name, args, keywords)
        return self._finish(
            noted,
            result,
            tensors,
            in_place=in_place,
            is_known=is_known,
            index=args[1] if name == "getitem" else None,
        )

    def _question(self, question: str) -> None:
        if question not in self.recording.questions:
            self.recording.questions.append(question)

    def _is_of_parameter(self, tensor: Tensor) -> bool:
        base = tensor.__dict__.get("_nasgraph_view", (tensor,))[0]
        return id(tensor) in self._owned or id(base) in self._owned or id(tensor._base) in self._owned

    def _run_on_meta(self, func: Function, name: str, args: Sequence[Any], keywords: dict[str, Any]) -> Any:
        rule = SHAPES.get(name)
        if rule is not None:
            result = rule(args, keywords)
            if result is not None:
                return result
        if name in MOVES:
            return _move(name, on_meta(args[0]), args, keywords)
        swapped = [self._to_meta(argument) for argument in args]
        keywords = {key: self._to_meta(argument) for key, argument in keywords.items()}
        if "device" in keywords:
            keywords["device"] = "meta"
        try:
            return func(*swapped, **keywords)
        except NotImplementedError as error:
            raise ContentNeededError(f"'{describe(func)}' has no shape rule: {error}") from error

    def _finish(
        self,
        call: Call,
        result: Any,
        tensors: list[Tensor],
        *,
        in_place: bool,
        is_known: bool,
        index: Any = None,
    ) -> Any:
        if in_place:
            target = tensors[0]
            value = Value(tuple(target.shape), kind_of(target.dtype), is_known=is_known)
            self._add(call, (value,))
            self._mark_changed(target, value, is_write=True)
            self._write_through(target, value)
            return target
        outputs: list[Value] = []
        for tensor in _flatten(result):
            if tensor.__dict__.get("_nasgraph_value") is not None or id(tensor) in self._owned:
                continue  # a function that returned its argument
            known = is_known and tensor.numel() <= MAX_KNOWN_ELEMENTS
            outputs.append(Value(tuple(tensor.shape), kind_of(tensor.dtype), is_known=known))
            if call.name == "getitem" and tensor._base is not None:
                tensor.__dict__["_nasgraph_view"] = (tensors[0], index)
            _mark(tensor, outputs[-1])
            if any(map(_functorch.is_functorch_wrapped_tensor, (tensor, *tensors))):
                self._wrapped[inner_storage(tensor)] = (innermost(tensor), (outputs[-1],))
        if outputs:
            self._add(call, tuple(outputs))
        return result

    def _add(self, call: Call, outputs: tuple[Value, ...]) -> None:
        call.outputs = outputs
        self.recording.calls.append(call)
        for value in outputs:
            value.made = len(self.recording.calls)

    def _mark_changed(self, target: Tensor, value: Value, *, is_write: bool) -> None:
        if id(target) in self._owned:
            self._owned[id(target)] = value
            return
        _mark(target, value)
        if is_write:
            self._writes.setdefault(storage(target), []).append((target, value))

    def _write_through(self, view: Tensor, written: Value) -> None:
        """A tensor was changed in place: what it is a view of has changed too."""
        base, index = view.__dict__.get("_nasgraph_view", (view._base, None))
        if base is None:
            return
        if base.device.type == "meta" and not self._has_history(base) and id(base) not in self._meta_ids:
            return  # memory inside a torch function, which nothing else can see
        found = base.__dict__.get("_nasgraph_value")  # as it was before the view changed
        old: Value = self.value_of(base) if found is None else found
        new = Value(old.shape, old.dtype)
        if index is None and holds_the_same(view, base):
            self._add(Call("view", (written,), {}, ()), (new,))
        elif index is None:
            self._add(Call("write_view", (old, written), {}, ()), (new,))
        else:
            self._add(Call("setitem_", (old, self._note(index), written), {}, ()), (new,))
        self._mark_changed(base, new, is_write=False)
        self._write_through(base, new)

    def _is_known(self, tensor: Tensor) -> bool:
        value: Value | None = tensor.__dict__.get("_nasgraph_value")
        if value is not None:
            return value.is_known
        return id(tensor) not in self._owned

    def _note(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            return self.value_of(argument)
        if isinstance(argument, list | tuple):
            return [self._note(item) for item in argument]
        if isinstance(argument, dict):
            return {key: self._note(item) for key, item in argument.items()}
        return argument

    def _to_meta(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            if argument.device.type == "meta":
                return argument
            twin = self._twins.get(id(argument))
            if twin is None:
                twin = meta_copy(argument)
                if id(argument) in self._owned:
                    self._twins[id(argument)] = twin
            return twin
        if isinstance(argument, list | tuple) and any(
            isinstance(item, Tensor | list | tuple) for item in argument
        ):
            swapped = [self._to_meta(item) for item in argument]
            return tuple(swapped) if isinstance(argument, tuple) else swapped
        return argument


def _mark(tensor: Tensor, value: Value) -> Tensor:
    tensor.__dict__["_nasgraph_value"] = value
    return tensor


def _lost(what: str, tensor: Tensor) -> HistoryLostError:
    return HistoryLostError(
        f"the forward pass makes a {what} of shape {tuple(tensor.shape)} from computed values in a way that leaves no trace, "
        "such as a TorchScript function, 'nn.Parameter' or a C++ extension. Use plain torch functions there"
    )


def _note_written(tensor: Tensor) -> None:
    for part in (tensor, tensor._base):
        if part is not None:
            part.__dict__.pop("_nasgraph_unwritten", None)


def _is_meta_device(device: object) -> bool:
    return (
        device is not None and torch.device(str(device)).type == "meta"
        if isinstance(device, str | torch.device)
        else False
    )


def _changes_in_place(name: str, keywords: Mapping[str, object]) -> bool:
    if name.endswith("_") and not name.endswith("__"):
        return name not in IN_PLACE_EXCEPTIONS
    return keywords.get("inplace") is True


def _picks_by_truth(name: str, args: Sequence[Any]) -> bool:
    if name == "where":
        return len(args) == 1
    if name not in ("getitem", "setitem_"):
        return False
    return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in _tensors_in(args[1:2], {}))


def _tensors_for_lists(index: Any) -> Any:
    """An index with tensors in place of lists of integers, which mean the same."""
    if isinstance(index, tuple):
        return tuple(_tensors_for_lists(item) for item in index)
    if isinstance(index, list) and index and all(type(item) is int for item in index):
        return torch.tensor(index)
    return index


def _tensors_in(args: Sequence[Any], keywords: Mapping[str, Any]) -> list[Tensor]:
    tensors: list[Tensor] = []
    for argument in (*args, *keywords.values()) if keywords else args:
        if isinstance(argument, Tensor):
            tensors.append(argument)
        elif isinstance(argument, list | tuple):
            tensors.extend(_tensors_in(argument, {}))
    return tensors


def _flatten(result: object) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, list | tuple):
        return [tensor for item in result for tensor in _flatten(item)]
    return []


def _make_like(name: str, args: Sequence[Any], keywords: Mapping[str, Any], device: torch.device) -> Tensor:
    """Zeros or ones of a tensor's shape: constants, whatever the tensor holds."""
    like: Tensor = args[0]
    shape = like.shape
    if name.startswith("new_"):
        sizes = args[1:] if len(args) > 1 else (keywords.get("size"),)
        shape = torch.Size(sizes[0] if isinstance(sizes[0], list | tuple) else sizes)
    return FACTORIES_LIKE[name](shape, dtype=keywords.get("dtype") or like.dtype, device=device)


_TYPES = {
    "float": torch.float32, "double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16,
    "int": torch.int32, "long": torch.int64, "bool": torch.bool,
}  # fmt: skip


def _move(name: str, tensor: Tensor, args: Sequence[Any], keywords: Mapping[str, Any]) -> Tensor:
    """`Tensor.to` and its kin on meta: the type may change, the device does not."""
    dtype = _TYPES.get(name)
    for argument in (*args[1:], *keywords.values()):
        if isinstance(argument, torch.dtype):
            dtype = argument
        elif isinstance(argument, Tensor):
            dtype = argument.dtype
        elif name == "type" and isinstance(argument, str):
            dtype = getattr(torch, argument.split(".")[-1].removesuffix("Tensor").lower(), tensor.dtype)
    return tensor.to(dtype) if dtype is not None else tensor
