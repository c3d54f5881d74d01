"""ONNX operators that slide windows, normalise or resize, as torch functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor

import torch
from torch import Tensor
from torch.nn import functional as F

from nasgraph.modules.onnx_step import Result, Rule, Step
from nasgraph.modules.onnx_structure import pad_constant

Pairs = list[tuple[int, int]]
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class _Window:
    """A window over the axes of space, with the padding before and after each."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pads: Pairs

    @property
    def is_even(self) -> bool:
        """Whether the padding before and after is the same everywhere."""
        return all(before == after >= 0 for before, after in self.pads)

    @property
    def padding(self) -> tuple[int, ...]:
        """The padding on one side."""
        return tuple(before for before, _ in self.pads)


def _window(step: Step, kernel: Sequence[int]) -> _Window:
    rank = len(kernel)
    if not 1 <= rank <= 3:
        raise step.refuse(f"it has {rank} axes of space")
    stride = step.node.wholes("strides") or (1,) * rank
    dilation = step.node.wholes("dilations") or (1,) * rank
    return _Window(tuple(kernel), stride, dilation, _pads(step, kernel, stride, dilation))


def _pads(step: Step, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Pairs:
    automatic, rank = step.node.text("auto_pad", "NOTSET"), len(kernel)
    if automatic == "VALID":
        return [(0, 0)] * rank
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        pairs = []
        for axis, size in enumerate(step.tensor().shape[2:]):
            extent = (kernel[axis] - 1) * dilation[axis] + 1
            total = max(0, (-(-size // stride[axis]) - 1) * stride[axis] + extent - size)
            small, large = total // 2, total - total // 2
            pairs.append((small, large) if automatic == "SAME_UPPER" else (large, small))
        return pairs
    flat = step.node.wholes("pads") or (0,) * (2 * rank)
    return list(zip(flat[:rank], flat[rank:], strict=True))


def _padded(x: Tensor, pads: Pairs, value: float = 0.0) -> Tensor:
    return pad_constant(x, [(0, 0), (0, 0), *pads], value)


# ---- convolutions


def _conv(step: Step) -> Result:
    x, weight, bias = step.tensor(0), step.tensor(1), step.optional(2)
    window = _window(step, weight.shape[2:])
    padding = window.padding
    if not window.is_even:
        x, padding = _padded(x, window.pads), (0,) * len(window.kernel)
    function = _CONVOLUTIONS[len(window.kernel)]
    return function(x, weight, bias, window.stride, padding, window.dilation, step.node.whole("group", 1))


def _conv_transpose(step: Step) -> Result:
    x, weight, bias = step.tensor(0), step.tensor(1), step.optional(2)
    kernel = tuple(weight.shape[2:])
    rank, groups = len(kernel), step.node.whole("group", 1)
    stride = step.node.wholes("strides") or (1,) * rank
    dilation = step.node.wholes("dilations") or (1,) * rank
    more = step.node.wholes("output_padding") or (0,) * rank
    if not 1 <= rank <= 3:
        raise step.refuse(f"it has {rank} axes of space")
    pads = _cuts(step, kernel, stride, dilation, more)
    function = _TRANSPOSED[rank]
    if all(before == after >= 0 for before, after in pads):
        padding = tuple(before for before, _ in pads)
        return function(x, weight, bias, stride, padding, more, groups, dilation)
    result = function(x, weight, bias, stride, 0, more, groups, dilation)
    return _padded(result, [(-before, -after) for before, after in pads])


def _cuts(
    step: Step, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], more: Sequence[int]
) -> Pairs:
    """What a transposed convolution cuts off before and after each axis."""
    automatic, wanted = step.node.text("auto_pad", "NOTSET"), step.node.wholes("output_shape")
    same = automatic in ("SAME_UPPER", "SAME_LOWER")
    if wanted is None and not same:
        return [(0, 0)] * len(kernel) if automatic == "VALID" else _pads(step, kernel, stride, dilation)
    pairs = []
    for axis, size in enumerate(step.tensor().shape[2:]):
        target = size * stride[axis] if wanted is None else wanted[axis - len(kernel)]
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        total = stride[axis] * (size - 1) + more[axis] + extent - target
        small = total // 2
        pairs.append((small, total - small) if automatic == "SAME_UPPER" else (total - small, small))
    return pairs


# ---- pooling


def _counts(x: Tensor, window: _Window, *, ceil_mode: bool) -> list[int]:
    """Number of windows along each axis; one that begins in the padding after the input does not count."""
    counts = []
    for axis, size in enumerate(x.shape[2:]):
        before, after = window.pads[axis]
        extent = (window.kernel[axis] - 1) * window.dilation[axis] + 1
        free, stride = size + before + after - extent, window.stride[axis]
        count = (-(-free // stride) if ceil_mode else free // stride) + 1
        counts.append(count - 1 if ceil_mode and (count - 1) * stride >= size + before else count)
    return counts


def _is_plain(window: _Window) -> bool:
    return window.is_even and all(2 * p <= k for p, k in zip(window.padding, window.kernel, strict=True))


def _grown(x: Tensor, window: _Window, *, value: float, ceil_mode: bool) -> Tensor:
    """The input with its padding, and with as much more as the last window needs."""
    pads = []
    for axis, count in enumerate(_counts(x, window, ceil_mode=ceil_mode)):
        before, after = window.pads[axis]
        extent = (window.kernel[axis] - 1) * window.dilation[axis] + 1
        end = (count - 1) * window.stride[axis] + extent
        pads.append((before, max(after, end - before - x.shape[axis + 2])))
    return _padded(x, pads, value)


def _cropped(x: Tensor, counts: Sequence[int]) -> Tensor:
    for axis, count in enumerate(counts, start=2):
        x = x if x.shape[axis] == count else x.narrow(axis, 0, count)
    return x


def _max_pool(step: Step) -> Result:
    if len(step.node.outputs) > 1 and step.node.outputs[1]:
        raise step.refuse("its indices are read")
    x, window = step.tensor(), _window(step, step.node.wholes("kernel_shape") or ())
    ceil_mode = bool(step.node.whole("ceil_mode", 0))
    function = _MAX_POOLS[len(window.kernel)]
    if _is_plain(window):
        return function(x, window.kernel, window.stride, window.padding, window.dilation, ceil_mode)
    counts = _counts(x, window, ceil_mode=ceil_mode)
    grown = _grown(x, window, value=float(torch.finfo(x.dtype).min), ceil_mode=ceil_mode)
    return _cropped(function(grown, window.kernel, window.stride, 0, window.dilation), counts)


def _average_pool(step: Step) -> Result:
    x, window = step.tensor(), _window(step, step.node.wholes("kernel_shape") or ())
    if any(dilation != 1 for dilation in window.dilation):
        raise step.refuse("it has dilations")
    ceil_mode, include = bool(step.node.whole("ceil_mode", 0)), bool(step.node.whole("count_include_pad", 0))
    function = _AVG_POOLS[len(window.kernel)]
    if _is_plain(window):
        return function(x, window.kernel, window.stride, window.padding, ceil_mode, include)
    counts = _counts(x, window, ceil_mode=ceil_mode)
    ones = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    if include:
        ones = _padded(ones, window.pads, 1.0)
        bare = _Window(window.kernel, window.stride, window.dilation, [(0, 0)] * len(window.kernel))
        weights = function(_grown(ones, bare, value=0.0, ceil_mode=ceil_mode), window.kernel, window.stride)
    else:
        weights = function(_grown(ones, window, value=0.0, ceil_mode=ceil_mode), window.kernel, window.stride)
    sums = function(_grown(x, window, value=0.0, ceil_mode=ceil_mode), window.kernel, window.stride)
    return _cropped(sums, counts) / _cropped(weights, counts)


def _global_average(step: Step) -> Result:
    x = step.tensor()
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def _global_max(step: Step) -> Result:
    x = step.tensor()
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


# ---- norms


def _batch_norm(step: Step) -> Result:
    if step.node.whole("training_mode", 0):
        raise step.refuse("it is in training mode: export the model in evaluation mode")
    weight, bias, mean, variance = (step.tensor(place) for place in range(1, 5))
    eps = step.node.number("epsilon", 1e-5)
    return F.batch_norm(step.tensor(), mean, variance, weight, bias, False, 0.1, eps)


def _scaled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x * weight if bias is None else x * weight + bias


def _layer_norm(step: Step) -> Result:
    if any(step.node.outputs[1:]):
        raise step.refuse("its mean is read")
    x, weight, bias = step.tensor(0), step.tensor(1), step.optional(2)
    size, eps = list(x.shape[step.node.whole("axis", -1) :]), step.node.number("epsilon", 1e-5)
    if list(weight.shape) == size and (bias is None or list(bias.shape) == size):
        return F.layer_norm(x, size, weight, bias, eps)
    return _scaled(F.layer_norm(x, size, None, None, eps), weight, bias)


def _rms_norm(step: Step) -> Result:
    x, weight = step.tensor(0), step.tensor(1)
    size, eps = list(x.shape[step.node.whole("axis", -1) :]), step.node.number("epsilon", 1e-5)
    if list(weight.shape) == size:
        return F.rms_norm(x, size, weight, eps)
    return F.rms_norm(x, size, None, eps) * weight


def _instance_norm(step: Step) -> Result:
    x, weight, bias = (step.tensor(place) for place in range(3))
    return F.instance_norm(x, weight=weight, bias=bias, eps=step.node.number("epsilon", 1e-5))


def _group_norm(step: Step) -> Result:
    """Before version 21 scale and shift belong to groups, since then to channels."""
    x, weight, bias = (step.tensor(place) for place in range(3))
    groups, channels = step.node.whole("num_groups", 1), x.shape[1]
    if weight.shape[0] != channels:
        weight, bias = (tensor.repeat_interleave(channels // groups) for tensor in (weight, bias))
    return F.group_norm(x, groups, weight, bias, step.node.number("epsilon", 1e-5))


def _lp_norm(step: Step) -> Result:
    p, axis = step.node.whole("p", 2), step.node.whole("axis", -1)
    return F.normalize(step.tensor(), float(p), axis)


def _local_response(step: Step) -> Result:
    alpha, beta = step.node.number("alpha", 1e-4), step.node.number("beta", 0.75)
    return F.local_response_norm(
        step.tensor(), step.node.whole("size", 1), alpha, beta, step.node.number("bias", 1.0)
    )


# ---- resizing


def _resize(step: Step) -> Result:
    x, mode = step.tensor(), step.node.text("mode", "nearest")
    sizes, scales = _targets(step)
    changed = [axis for axis in range(x.dim()) if sizes[axis] != x.shape[axis]]
    if not changed:
        return x
    if step.node.whole("antialias", 0) or step.node.whole("exclude_outside", 0):
        raise step.refuse("it smoothes or excludes what lies outside")
    if mode == "nearest":
        return _nearest(step, x, sizes, scales)
    space = x.dim() - 2
    torch_mode = {"linear": {1: "linear", 2: "bilinear", 3: "trilinear"}, "cubic": {2: "bicubic"}}
    name, how = (
        torch_mode.get(mode, {}).get(space),
        step.node.text("coordinate_transformation_mode", "half_pixel"),
    )
    known = how in ("half_pixel", "pytorch_half_pixel", "align_corners")
    sharp = mode == "cubic" and abs(step.node.number("cubic_coeff_a", -0.75) + 0.75) > 1e-6
    if name is None or not known or sharp or any(axis < 2 for axis in changed):
        raise step.refuse(f"it resizes by '{mode}' with '{how}' in a way that torch does not")
    if how != "align_corners" and any(
        abs(scale * before - after) > 1e-3
        for scale, before, after in zip(scales, x.shape, sizes, strict=True)
    ):
        factors = tuple(scales[2:])
        return F.interpolate(x, scale_factor=factors, mode=name, align_corners=False)
    return F.interpolate(x, tuple(sizes[2:]), mode=name, align_corners=how == "align_corners")


def _targets(step: Step) -> tuple[list[int], list[float]]:
    """The new size of each axis, and by how much it grows."""
    x = step.tensor()
    axes = [axis % x.dim() for axis in step.node.wholes("axes") or range(x.dim())]
    if step.node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise step.refuse("it keeps the aspect ratio")
    place = 1 if step.opset < 11 else 2
    given, wanted = step.optional(place), step.optional(place + 1)
    sizes, scales = list(x.shape), [1.0] * x.dim()
    if given is not None and given.numel():
        for axis, scale in zip(axes, given.tolist(), strict=True):
            sizes[axis], scales[axis] = floor(x.shape[axis] * scale + 1e-6), scale
    elif wanted is not None:
        for axis, size in zip(axes, wanted.tolist(), strict=True):
            is_batch = axis == 0 and step.follows[0] and size == step.fixed_batch
            sizes[axis] = x.shape[0] if is_batch else int(size)
            scales[axis] = sizes[axis] / x.shape[axis]
    return sizes, scales


def _nearest(step: Step, x: Tensor, sizes: Sequence[int], scales: Sequence[float]) -> Tensor:
    """The nearest element by the file's rule; by `interpolate` where it picks the same."""
    picked = [_places(step, x.shape[axis], sizes[axis], scales[axis]) for axis in range(x.dim())]
    space = range(2, x.dim())
    if 3 <= x.dim() <= 5 and all(sizes[axis] == x.shape[axis] for axis in (0, 1)):
        for mode, shift in (("nearest", 0.0), ("nearest-exact", 0.5)):
            ours = [[int((i + shift) * x.shape[a] / sizes[a]) for i in range(sizes[a])] for a in space]
            if ours == [picked[axis] for axis in space]:
                return F.interpolate(x, tuple(sizes[2:]), mode=mode)
    for axis, places in enumerate(picked):
        if places != list(range(x.shape[axis])):
            x = x.index_select(axis, torch.tensor(places, device=x.device))
    return x


def _places(step: Step, before: int, after: int, scale: float) -> list[int]:
    """The element that each new position takes."""
    if before == after:
        return list(range(before))
    how = step.node.text("coordinate_transformation_mode", "half_pixel" if step.opset >= 11 else "asymmetric")
    rounding = step.node.text("nearest_mode", "round_prefer_floor" if step.opset >= 11 else "floor")
    found = []
    for i in range(after):
        match how:
            case "half_pixel" | "pytorch_half_pixel":
                place = 0.0 if how.startswith("pytorch") and after == 1 else (i + 0.5) / scale - 0.5
            case "asymmetric":
                place = i / scale
            case "align_corners":
                place = i * (before - 1) / (after - 1) if after > 1 else 0.0
            case _:
                raise step.refuse(f"it resizes with '{how}'")
        rounded = {
            "round_prefer_floor": ceil(place - 0.5),
            "round_prefer_ceil": floor(place + 0.5),
            "floor": floor(place),
            "ceil": ceil(place),
        }[rounding]
        found.append(min(max(rounded, 0), before - 1))
    return found


LAYERS: Mapping[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LpNormalization": _lp_norm,
    "LRN": _local_response,
    "Resize": _resize,
}
