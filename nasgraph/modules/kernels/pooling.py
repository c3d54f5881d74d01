# ruff: noqa: ARG001, ARG005  every kernel has the same signature, and most need only a part of it
"""Pooling and its opposites."""

from collections.abc import Mapping

from torch.nn import functional as F

from nasgraph.modules.kernels.kernel import Attrs, Kernel, KernelMaker, on_first, whole, wholes


def _window(attrs: Attrs) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    return wholes(attrs, "kernel_size"), wholes(attrs, "stride"), wholes(attrs, "padding")


def _max_pool2d(node: int, attrs: Attrs) -> Kernel:
    window, dilation, ceil = _window(attrs), wholes(attrs, "dilation"), bool(attrs["ceil_mode"])
    return lambda inputs, own, context: F.max_pool2d(inputs[0], *window, dilation, ceil)


def _avg_pool2d(node: int, attrs: Attrs) -> Kernel:
    window, ceil, count = _window(attrs), bool(attrs["ceil_mode"]), bool(attrs["count_include_pad"])
    return lambda inputs, own, context: F.avg_pool2d(inputs[0], *window, ceil, count)


def _max_pool3d(node: int, attrs: Attrs) -> Kernel:
    window = _window(attrs)
    return lambda inputs, own, context: F.max_pool3d(inputs[0], *window)


def _avg_pool3d(node: int, attrs: Attrs) -> Kernel:
    window = _window(attrs)
    return lambda inputs, own, context: F.avg_pool3d(inputs[0], *window, count_include_pad=False)


def _adaptive_avg_pool2d(node: int, attrs: Attrs) -> Kernel:
    height, width = wholes(attrs, "size")
    return lambda inputs, own, context: F.adaptive_avg_pool2d(inputs[0], (height, width))


def _adaptive_max_pool2d(node: int, attrs: Attrs) -> Kernel:
    height, width = wholes(attrs, "size")
    return lambda inputs, own, context: F.adaptive_max_pool2d(inputs[0], (height, width))


def _upsample(node: int, attrs: Attrs) -> Kernel:
    size, mode = wholes(attrs, "size"), str(attrs["mode"])
    corners = bool(attrs["align_corners"]) if mode.endswith(("linear", "cubic")) else None
    return lambda inputs, own, context: F.interpolate(inputs[0], size, mode=mode, align_corners=corners)


def _pixel_shuffle(node: int, attrs: Attrs) -> Kernel:
    factor = whole(attrs, "factor")
    return lambda inputs, own, context: F.pixel_shuffle(inputs[0], factor)


POOLING: Mapping[str, KernelMaker] = {
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "max_pool3d": _max_pool3d,
    "avg_pool3d": _avg_pool3d,
    "global_avg_pool2d": on_first(lambda x: x.mean((2, 3))),
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "adaptive_max_pool2d": _adaptive_max_pool2d,
    "upsample": _upsample,
    "pixel_shuffle": _pixel_shuffle,
}
