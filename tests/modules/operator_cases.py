"""Uses of every operator that can be run: shapes of the inputs and attributes."""

import pytest

Shape = tuple[int, ...]
Case = tuple[tuple[Shape, ...], dict[str, object]]  # input shapes, attributes

IMAGE: Shape = (4, 9, 7)
SIGNAL: Shape = (4, 11)
VOLUME: Shape = (4, 5, 6, 4)
SPACES_OF: dict[int, Shape] = {1: SIGNAL, 2: IMAGE, 3: VOLUME}
FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "hardswish"),
    *("hardsigmoid", "sigmoid", "log_sigmoid", "tanh", "softsign", "softplus"),
    *("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "abs", "neg", "sign", "reciprocal"),
    *("floor", "round", "sin", "cos", "tan", "atan", "erf", "identity", "zero"),
)
WINDOWS: tuple[dict[str, object], ...] = (
    {"kernel_size": 3},
    {"kernel_size": (2, 3), "stride": 2},
    {"kernel_size": 3, "stride": (1, 2), "padding": 1},
    {"kernel_size": (4, 3), "padding": (2, 0)},
)
POOLINGS: list[Case] = [
    *(((IMAGE,), window) for window in WINDOWS),
    ((IMAGE,), {"kernel_size": 2, "padding": 1}),
    ((IMAGE,), {"kernel_size": 2, "stride": 4, "ceil_mode": True, "padding": 1}),
]
VOLUME_POOLINGS: list[Case] = [
    ((VOLUME,), {"kernel_size": 2}),
    ((VOLUME,), {"kernel_size": (3, 2, 1), "stride": (2, 1, 2), "padding": (1, 0, 0)}),
]
BROADCAST: list[Case] = [((IMAGE, IMAGE), {}), ((IMAGE, (4, 1, 1)), {}), (((1, 5), (3, 1)), {})]
REDUCTIONS: list[Case] = [
    ((IMAGE,), {"axes": (0,)}),
    ((IMAGE,), {"axes": (1, 2)}),
    ((IMAGE,), {"axes": (0, 1, 2), "keepdims": True}),
]
AXES: list[Case] = [((IMAGE,), {"axis": 0}), (((3, 5),), {"axis": 1})]


def _convolutions(dims: int) -> list[Case]:
    space = SPACES_OF[dims]
    return [
        ((space,), {"out_channels": 6, "kernel_size": 2}),
        (
            (space,),
            {"out_channels": 8, "kernel_size": 3, "stride": 2, "padding": 2, "groups": 2, "bias": True},
        ),
        ((space,), {"out_channels": 4, "kernel_size": 2, "groups": 4, "dilation": 2}),
    ]


def _transposed(dims: int) -> list[Case]:
    space = SPACES_OF[dims]
    return [
        ((space,), {"out_channels": 6, "kernel_size": 3}),
        (
            (space,),
            {
                **{"out_channels": 8, "kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
                **{"groups": 2, "bias": True},
            },
        ),
        ((space,), {"out_channels": 4, "kernel_size": 2, "groups": 4, "dilation": 2}),
    ]


def _applied(dims: int) -> list[Case]:
    space, kernel = SPACES_OF[dims], (2,) * dims
    return [
        ((space, (6, 4, *kernel)), {}),
        ((space, (8, 2, *kernel), (8,)), {"stride": 2, "padding": 1, "groups": 2}),
    ]


def _applied_transposed(dims: int) -> list[Case]:
    space, kernel = SPACES_OF[dims], (2,) * dims
    return [
        ((space, (4, 6, *kernel)), {}),
        ((space, (4, 3, *kernel), (6,)), {"stride": 2, "padding": 1, "groups": 2, "output_padding": 1}),
    ]


def _recurrent(attrs: dict[str, object], *, cell: bool = False) -> list[Case]:
    steps = (5, 3)
    states: tuple[Shape, ...] = ((4,), (4,)) if cell else ((4,),)
    return [
        ((steps,), {"hidden_size": 4, **attrs}),
        ((steps, (4,)), {"hidden_size": 4, "bias": False}),
        ((steps, *states), {"hidden_size": 4, "reverse": True}),
    ]


CASES: dict[str, list[Case]] = {
    "parameter": [
        (((1,),), {"shape": (3, 4)}),
        (((1,),), {"shape": (5,), "role": "weight", "fan_in": 7}),
    ],
    "constant": [(((1,),), {"shape": (3, 4)}), (((1,),), {"shape": (5,), "dtype": "int"})],
    "conv1d": _convolutions(1),
    "conv2d": [
        *_convolutions(2),
        *(((IMAGE,), {"out_channels": 6, **window}) for window in WINDOWS),
        ((IMAGE,), {"out_channels": 1, "kernel_size": (3, 1), "dilation": (1, 3), "bias": True}),
    ],
    "conv3d": _convolutions(3),
    **{f"conv_transpose{dims}d": _transposed(dims) for dims in (1, 2, 3)},
    **{f"apply_conv{dims}d": _applied(dims) for dims in (1, 2, 3)},
    **{f"apply_conv_transpose{dims}d": _applied_transposed(dims) for dims in (1, 2, 3)},
    "linear": [
        (((5,),), {"out_features": 3}),
        (((2, 5),), {"out_features": 7, "bias": False}),
        (((2, 3, 5),), {"out_features": 1}),
    ],
    "apply_linear": [(((5,), (3, 5)), {}), (((2, 5), (3, 5), (3,)), {})],
    "bilinear": [(((5,), (4,)), {"out_features": 3}), (((2, 5), (2, 4)), {"out_features": 3, "bias": False})],
    "embedding": [(((6,),), {"num_embeddings": 3, "dim": 4}), (((2, 3),), {"num_embeddings": 5, "dim": 1})],
    "apply_embedding": [(((6,), (3, 4)), {}), (((2, 3), (5, 1)), {})],
    "matmul": [(((2, 3), (3, 4)), {}), (((5, 2, 3), (1, 3, 4)), {})],
    "einsum": [
        (((2, 3), (3, 4)), {"equation": "ij,jk->ik"}),
        (((2, 3, 4),), {"equation": "abc->ca"}),
        (((2, 3), (2, 3)), {"equation": "aB, aB -> a"}),
    ],
    "lstm": [*_recurrent({}, cell=True), (((5, 3), (2,), (4,)), {"hidden_size": 4, "proj_size": 2})],
    "gru": _recurrent({}),
    "rnn": _recurrent({"nonlinearity": "relu"}),
    "attention": [
        (((5, 8), (5, 8), (5, 8)), {"num_heads": 2}),
        (((1, 6), (7, 6), (7, 3)), {"num_heads": 3}),
        (((4, 8), (4, 8), (4, 8)), {"num_heads": 8, "causal": True}),
        (((2, 4, 8), (2, 3, 8), (2, 3, 6)), {"num_heads": 1, "scale": 0.3}),
        (((2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 8)), {"num_heads": 2}),
        (((4, 8), (5, 8), (5, 8), (4, 5)), {"num_heads": 2}),
        (((4, 8), (4, 8), (4, 8), (2, 1, 4)), {"num_heads": 2, "causal": True}),
        (((2, 4, 8), (2, 4, 8), (2, 4, 8), (1, 4, 4)), {"num_heads": 1}),
    ],
    "batch_norm": [
        *(((shape,), {}) for shape in (IMAGE, SIGNAL, VOLUME)),
        (((6,),), {"eps": 1e-3}),
        ((IMAGE,), {"affine": False}),
    ],
    "group_norm": [
        ((IMAGE,), {"groups": 2}),
        (((6,),), {"groups": 3}),
        (((6, 5),), {"groups": 1, "affine": False}),
    ],
    "layer_norm": [
        (((6,),), {}),
        (((3, 6),), {"eps": 1e-3, "bias": False}),
        ((IMAGE,), {"axes": 2}),
        (((3, 6),), {"affine": False}),
    ],
    "rms_norm": [(((3, 6),), {}), ((IMAGE,), {"axes": 3, "eps": 1e-6}), (((6,),), {"affine": False})],
    "apply_layer_norm": [(((3, 6), (6,)), {}), ((IMAGE, (9, 7), (9, 7)), {"eps": 1e-3})],
    "max_pool2d": [*POOLINGS, ((IMAGE,), {"kernel_size": 3, "dilation": (2, 1)})],
    "avg_pool2d": [*POOLINGS, ((IMAGE,), {"kernel_size": 3, "padding": 1, "count_include_pad": True})],
    "max_pool3d": VOLUME_POOLINGS,
    "avg_pool3d": VOLUME_POOLINGS,
    "global_avg_pool2d": [((IMAGE,), {})],
    "adaptive_avg_pool2d": [((IMAGE,), {"size": 3}), ((IMAGE,), {"size": (10, 1)})],
    "adaptive_max_pool2d": [((IMAGE,), {"size": 3}), ((IMAGE,), {"size": (10, 1)})],
    "upsample": [
        ((SIGNAL,), {"size": (20,), "mode": "linear"}),
        ((IMAGE,), {"size": (20, 5)}),
        ((IMAGE,), {"size": (20, 5), "mode": "bicubic", "align_corners": True}),
        ((VOLUME,), {"size": (7, 7, 7), "mode": "trilinear"}),
        ((IMAGE,), {"size": (3, 5), "mode": "area"}),
    ],
    "pixel_shuffle": [((IMAGE,), {"factor": 2})],
    "mean": [
        ((IMAGE,), {"axis": 0}),
        ((IMAGE,), {"axis": 2, "keepdims": True}),
        (((3, 2),), {"axis": 1}),
    ],
    **dict.fromkeys(("reduce_sum", "reduce_mean", "reduce_max", "reduce_min"), REDUCTIONS),
    "reduce_var": [*REDUCTIONS, ((IMAGE,), {"axes": (1,), "correction": 0})],
    "cumsum": AXES,
    "add": [*BROADCAST, (((3,), (3,), (3,), (1,)), {})],
    **dict.fromkeys(("mul", "sub", "div", "maximum", "minimum", "power"), BROADCAST),
    "where": [((IMAGE, IMAGE, IMAGE), {}), (((3, 1), (1, 4), (1, 1)), {})],
    "compare": [
        (shapes, {"kind": kind}) for (shapes, _), kind in zip(BROADCAST, ("lt", "eq", "ge"), strict=True)
    ],
    "prelu": [((IMAGE, (4,)), {}), (((3,), (1,)), {})],
    "concat": [((IMAGE, (2, 9, 7)), {}), (((2, 3), (2, 4), (2, 1)), {"axis": 1})],
    "reshape": [((IMAGE,), {"shape": (4, 63)}), (((6,),), {"shape": (1, 2, 3)})],
    "flatten": [((IMAGE,), {}), (((3,),), {})],
    "permute": [((IMAGE,), {"order": (2, 0, 1)}), (((2, 3),), {"order": (1, 0)})],
    "slice": [
        ((IMAGE,), {"axis": 1, "start": 2, "stop": 9, "step": 3}),
        (((3,),), {"axis": 0, "start": 0, "stop": 1}),
    ],
    "expand": [(((4, 1, 7),), {"shape": (4, 9, 7)}), (((1,),), {"shape": (5,)})],
    "pad": [
        (((3, 4),), {"amounts": (1, 0, 0, 2), "value": 0.5}),
        ((IMAGE,), {"amounts": (0, 0, 2, 1, 0, 3), "mode": "reflect"}),
        ((IMAGE,), {"amounts": (0, 0, 2, 1, 0, 3), "mode": "replicate"}),
        ((IMAGE,), {"amounts": (1, 4, 2, 1, 0, 3), "mode": "circular"}),
    ],
    "roll": [((IMAGE,), {"axis": 1, "shift": 2}), (((5,),), {"axis": 0, "shift": -1})],
    "flip": AXES,
    "take": [((IMAGE, (3,)), {"axis": 1}), (((5, 2), (7,)), {"axis": 0})],
    "gather": [(((4, 3), (4, 5)), {"axis": 1}), ((IMAGE, (2, 9, 5)), {"axis": 0})],
    "softmax": AXES,
    "log_softmax": AXES,
    "affine": [((IMAGE,), {"scale": 2.0, "shift": -1.0}), ((IMAGE,), {"scale": 0.5}), (((3,),), {})],
    "power_scalar": [((IMAGE,), {"exponent": 2.0}), ((IMAGE,), {"exponent": -0.5})],
    "clamp": [((IMAGE,), {"low": -0.5, "high": 0.5}), ((IMAGE,), {"low": 0.0}), (((3,),), {})],
    "compare_scalar": [((IMAGE,), {"kind": kind, "value": 0.0}) for kind in ("gt", "le", "ne")],
    "cast": [((IMAGE,), {"dtype": dtype}) for dtype in ("int", "float")],
    "dropout": [((IMAGE,), {"p": 0.5}), (((3,),), {"p": 0.0}), (((3,),), {"p": 1.0})],
    "drop_path": [((IMAGE,), {"p": 0.5}), (((3,),), {"p": 0.25, "scheduled": True}), (((3,),), {"p": 1.0})],
    **{op: [((IMAGE,), {}), (((3,),), {})] for op in FUNCTIONS},
}
ALL_CASES = [pytest.param(op, *case, id=f"{op}-{i}") for op in CASES for i, case in enumerate(CASES[op])]
