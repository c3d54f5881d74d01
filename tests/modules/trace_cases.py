"""Small modules, one for each way of writing a layer or a function, that a traced graph must reproduce."""

# mypy: disable-error-code="no-any-return"
# (networks return what their layers return, as users write them; `Module.__call__` is untyped)

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

Function = Callable[..., Tensor]
Shape = tuple[int, ...]


class Call(nn.Module):
    """A function of the inputs and of this module's parameters `w0`, `w1`, ... of the given shapes."""

    def __init__(self, function: Function, *shapes: Shape) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs, *self.weights)


VECTOR: Shape = (6,)
IMAGE: Shape = (4, 9, 7)
SIGNAL: Shape = (4, 11)
VOLUME: Shape = (4, 5, 6, 4)
TOKENS: Shape = (5, 8)

UNARY: Mapping[str, Function] = {
    **{
        name: getattr(torch, name)
        for name in (
            "relu",
            "selu",
            "celu",
            "sigmoid",
            "tanh",
            "exp",
            "sin",
            "cos",
            "erf",
            "abs",
            "neg",
            "square",
            "sign",
            "floor",
            "round",
            "atan",
            "expm1",
            "tan",
        )
    },
    **{
        name: getattr(F, name)
        for name in (
            "relu6",
            "elu",
            "leaky_relu",
            "gelu",
            "silu",
            "mish",
            "hardswish",
            "hardsigmoid",
            "softplus",
            "softsign",
            "logsigmoid",
            "hardtanh",
        )
    },
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "leaky_relu with slope": lambda x: F.leaky_relu(x, 0.2),
    "elu with alpha": lambda x: F.elu(x, alpha=0.7),
    "softplus with beta": lambda x: F.softplus(x, beta=2.0, threshold=1.0),
    "sqrt": lambda x: torch.sqrt(x.abs() + 1),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 1),
    "log": lambda x: torch.log(x.abs() + 1),
    "log1p": lambda x: x.abs().log1p(),
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 1),
    "plus a number": lambda x: 3 + x + 1.5,
    "a number minus": lambda x: 2 - x,
    "rsub": lambda x: torch.rsub(x, 2.0),
    "add with alpha": lambda x: torch.add(x, 2.0, alpha=3),
    "times a number": lambda x: 0.5 * x * 3,
    "divided by a number": lambda x: x / 4,
    "a number divided": lambda x: 2 / (x.abs() + 1),
    "pow 2": lambda x: x**2,
    "pow 3": lambda x: x.pow(3),
    "pow one half": lambda x: (x.abs() + 1) ** 0.5,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp from below": lambda x: x.clamp(min=0.1),
    "clip": lambda x: torch.clip(x, max=0.3),
    "compare": lambda x: (x > 0.2).float() * x,
    "logical": lambda x: ((x > -1) & ~(x > 0.5) | (x < -2)).float(),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "masked_fill": lambda x: x.masked_fill(x < 0, -1.0),
    "maximum": lambda x: torch.maximum(x, -x) + torch.minimum(x, 2 * x),
    "lerp": lambda x: torch.lerp(x, x * x, 0.3),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "casts": lambda x: x.double().to(torch.float32).type_as(x).contiguous().clone(),
    "glu": lambda x: F.glu(x, dim=1),
    "dropout in evaluation": lambda x: F.dropout(x, 0.5, training=False),
    "in place": lambda x: (x * 1).relu_().add_(1).mul_(2),
    "relu in place": lambda x: F.relu(x + 1, inplace=True),
}
"""Functions of one image."""

REDUCED: Mapping[str, Function] = {
    "mean": lambda x: x.mean(1),
    "mean of two": lambda x: x.mean((2, 3)),
    "mean keeping": lambda x: x.mean(dim=(1, 2), keepdim=True),
    "mean of all but examples": lambda x: x.mean((1, 2, 3)),
    "sum": lambda x: x.sum(-1),
    "sum by axis": lambda x: torch.sum(x, axis=2, keepdims=True),  # type: ignore[call-overload]  # torch takes NumPy's names too
    "amax": lambda x: x.amax((1, 3)),
    "amin": lambda x: x.amin(1),
    "max": lambda x: x.max(dim=2).values,
    "min": lambda x: x.min(1, keepdim=True)[0],
    "max of two": lambda x: torch.max(x, x * 0.5),
    "var": lambda x: x.var(1),
    "var without correction": lambda x: x.var(dim=(2, 3), unbiased=False),
    "std": lambda x: x.std(-1, keepdim=True),
    "norm": lambda x: x.norm(dim=1),
    "vector norm": lambda x: torch.linalg.vector_norm(x, dim=(1, 2)),
    "normalize": lambda x: F.normalize(x, dim=1),
    "logsumexp": lambda x: x.logsumexp(2),
    "cumsum": lambda x: x.cumsum(3),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: F.log_softmax(x, dim=-1),
    "softmin": lambda x: F.softmin(x, dim=1),
    "adaptive mean to one": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive mean": lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, (3, 2)),
    "max pool": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max pool with dilation": lambda x: F.max_pool2d(x, 2, 1, 0, 2, ceil_mode=True),
    "mean pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "mean pool without padding": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2),
    "interpolate bilinear": lambda x: F.interpolate(x, size=(5, 8), mode="bilinear", align_corners=True),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
}
"""Functions of one image that reduce, pool or resize."""

MOVED: Mapping[str, Function] = {
    "view": lambda x: x.view(x.shape[0], 4, 63),
    "reshape with examples last": lambda x: x.permute(1, 2, 3, 0).reshape(36, 7, -1).permute(2, 0, 1),
    "examples merged with channels": lambda x: F.relu(x.reshape(-1, 9, 7)).view(-1, 4, 9, 7),
    "channels before examples": lambda x: (
        torch.tanh(x.transpose(0, 1).reshape(-1, 63)).view(4, -1, 63).transpose(0, 1)
    ),
    "flatten": lambda x: x.flatten(1),
    "flatten two": lambda x: x.flatten(1, 2),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "squeeze and unsqueeze": lambda x: x.unsqueeze(1).squeeze(1)[:, None],
    "permute": lambda x: x.permute(0, 3, 1, 2),
    "transpose": lambda x: x.transpose(-1, 1),
    "mT": lambda x: x.mT,
    "movedim": lambda x: x.movedim(1, -1),
    "movedim of two": lambda x: x.movedim((1, 2), (3, 1)),
    "expand": lambda x: x[:, :1].expand(-1, 4, -1, -1),
    "repeat": lambda x: x.repeat(1, 2, 1, 3),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=1),
    "cat": lambda x: torch.cat([x, x * 2], 1),
    "stack": lambda x: torch.stack((x, -x), dim=2),
    "hstack": lambda x: torch.hstack((x, x)),
    "chunk": lambda x: torch.cat(x.chunk(3, 2)[::-1], 2),
    "split": lambda x: x.split([1, 3], 1)[1],
    "uneven chunk": lambda x: x.chunk(4, 3)[-1],
    "unbind": lambda x: x.unbind(1)[2],
    "select": lambda x: x.select(1, -1),
    "narrow": lambda x: x.narrow(2, 3, 4),
    "numbers and slices": lambda x: x[:, 1, 2:, ::2],
    "ellipsis and None": lambda x: x[..., None, -1],
    "negative bounds": lambda x: x[:, :-1, -3:],
    "list of positions": lambda x: x[:, [0, 2, 2]],
    "tensor of positions": lambda x: x[:, :, torch.tensor([3, 0])],
    "index_select": lambda x: x.index_select(1, torch.tensor([3, 1])),
    "roll": lambda x: torch.roll(x, (2, -1), (2, 3)),
    "flip": lambda x: x.flip(1, 3),
    "pad": lambda x: F.pad(x, (1, 2, 0, 3), value=0.5),
    "pad reflecting": lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
    "pad by cutting": lambda x: F.pad(x, (-1, 1)),
    "tril": lambda x: x.tril() + x.triu(1),
    "unfold": lambda x: x.unfold(2, 3, 2),
}
"""Functions of one image that move elements."""


def _written(x: Tensor) -> Tensor:
    y = x * 1
    y[:, 1] = 0.5
    y[:, 2:4] += x[:, :2]
    y[..., 0] = x[..., 1]
    return y


def _seen_through_a_view(x: Tensor) -> Tensor:
    y = x * 1
    flat = y.view(len(y), -1)
    y.add_(1)
    return flat * 2  # the view has changed with its base


def _written_through_a_view(x: Tensor) -> Tensor:
    y = x * 1
    y.view(len(y), -1).mul_(3)
    return y + x


def _kept_apart(x: Tensor) -> Tensor:
    y = x * 1
    first, second = y[:, :2], y[:, 2:]
    first.add_(1)
    second.mul_(2)
    return y


def _copied_by_positions(x: Tensor) -> Tensor:
    y = x * 1
    picked = y[:, torch.tensor([0, 1])]
    picked.add_(1)  # a copy: y stays
    return torch.cat([picked, y], 1)


def _filled(x: Tensor) -> Tensor:
    rows = torch.zeros(len(x), 3, *x.shape[2:])
    rows[:, 0] = x[:, 0]
    rows[:, 1:] = x[:, 2:] * 2
    return rows


def _constant_that_changes(x: Tensor) -> Tensor:
    offset = torch.zeros(7)
    y = x + offset
    offset[2] = 5.0
    return y * 2 + offset


def _out_argument(x: Tensor) -> Tensor:
    target = torch.empty(len(x), 9, 7)
    torch.mean(x, dim=1, out=target)
    return target + 1


IN_PLACE: Mapping[str, Function] = {
    "writing": _written,
    "a view of what is written": _seen_through_a_view,
    "writing through a view": _written_through_a_view,
    "writing to parts": _kept_apart,
    "a copy by positions": _copied_by_positions,
    "filling zeros": _filled,
    "a constant that changes": _constant_that_changes,
    "an argument 'out'": _out_argument,
}
"""Functions of one image that change tensors in place."""

PRODUCTS: Mapping[str, tuple[Function, tuple[Shape, ...], tuple[Shape, ...]]] = {
    "linear": (F.linear, (TOKENS,), ((3, 8), (3,))),
    "x @ W": (lambda x, w: x @ w, (TOKENS,), ((8, 3),)),
    "x @ W.T": (lambda x, w: x @ w.T, (TOKENS,), ((3, 8),)),
    "x @ W.t() + b": (lambda x, w, b: x @ w.t() + b, (VECTOR,), ((3, 6), (3,))),
    "addmm": (lambda x, w, b: torch.addmm(b, x, w), (VECTOR,), ((6, 3), (3,))),
    "mm": (torch.mm, (VECTOR,), ((6, 3),)),
    "matmul by a vector": (torch.matmul, (TOKENS,), ((8,),)),
    "matmul of inputs": (lambda x, y: x @ y.mT, (TOKENS, TOKENS), ()),
    "bmm": (lambda x, y: torch.bmm(x, y.transpose(1, 2)), (TOKENS, TOKENS), ()),
    "weights for each head": (lambda x, w: x[:, None] @ w, (TOKENS,), ((2, 8, 3),)),
    "einsum": (lambda x, w: torch.einsum("btd,hde->bhte", x, w), (TOKENS,), ((2, 8, 3),)),
    "einsum of inputs": (lambda x, y: torch.einsum("bid,bjd->bij", x, y), (TOKENS, TOKENS), ()),
    "bilinear": (F.bilinear, (VECTOR, VECTOR), ((3, 6, 6), (3,))),
    "baddbmm": (
        lambda x, y: torch.baddbmm(x @ y.mT, x, y.mT, beta=0.5, alpha=2), (TOKENS, TOKENS), ()
    ),
    "scaled by a parameter": (lambda x, w: x * w, (TOKENS,), ((8,),)),
    "shifted by a parameter": (lambda x, w: w + x, (TOKENS,), ((5, 8),)),
    "a learnt number": (lambda x, w: x * w, (TOKENS,), ((),)),
    "a token in front": (
        lambda x, w: torch.cat([w.expand(len(x), -1, -1), x], 1), (TOKENS,), ((1, 1, 8),)
    ),
    "prelu": (F.prelu, (IMAGE,), ((4,),)),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1), (SIGNAL,), ((6, 4, 3), (6,))),
    "conv2d": (lambda x, w: F.conv2d(x, w, groups=2, dilation=2), (IMAGE,), ((6, 2, 3, 3),)),
    "conv2d with padding 'same'": (lambda x, w: F.conv2d(x, w, padding="same"), (IMAGE,), ((6, 4, 2, 3),)),
    "conv3d": (lambda x, w, b: F.conv3d(x, w, b, padding=(1, 0, 1)), (VOLUME,), ((2, 4, 3, 2, 1), (2,))),
    "conv_transpose1d": (lambda x, w: F.conv_transpose1d(x, w, stride=2), (SIGNAL,), ((4, 6, 3),)),
    "conv_transpose2d": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2),
        (IMAGE,),
        ((4, 3, 3, 3), (6,)),
    ),
    "conv_transpose3d": (lambda x, w: F.conv_transpose3d(x, w), (VOLUME,), ((4, 2, 2, 2, 2),)),
    "layer norm": (lambda x, w, b: F.layer_norm(x, (8,), w, b), (TOKENS,), ((8,), (8,))),
    "layer norm over two axes": (lambda x, w, b: F.layer_norm(x, (5, 8), w, b), (TOKENS,), ((5, 8), (5, 8))),
    "layer norm without parameters": (lambda x: F.layer_norm(x, (8,)), (TOKENS,), ()),
    "a shared layer norm": (
        lambda x, w, b: F.layer_norm(F.layer_norm(x, (8,), w, b) + x, (8,), w, b), (TOKENS,), ((8,), (8,))
    ),
    "a shared rms norm": (
        lambda x, w: F.rms_norm(F.rms_norm(x, (8,), w) + x, (8,), w), (TOKENS,), ((8,),)
    ),
    "torch.batch_norm": (
        lambda x, w, b: torch.batch_norm(
            x, w, b, torch.arange(4.0), torch.arange(1.0, 5.0), False, 0.1, 1e-5, False
        ),
        (IMAGE,),
        ((4,), (4,)),
    ),
    "torch.instance_norm": (
        lambda x, w, b: torch.instance_norm(x, w, b, None, None, True, 0.1, 1e-5, False), (IMAGE,), ((4,), (4,))
    ),
    "torch.embedding": (
        lambda x, w: torch.embedding(w, torch.tensor([[2, 0, 1, 1, 2]])) + x, (TOKENS,), ((3, 8),)
    ),
    "rms norm": (lambda x, w: F.rms_norm(x, (8,), w, eps=1e-5), (TOKENS,), ((8,),)),
    "group norm": (lambda x, w, b: F.group_norm(x, 2, w, b), (IMAGE,), ((4,), (4,))),
    "a shared group norm": (
        lambda x, w, b: F.group_norm(F.group_norm(x, 2, w, b) + x, 2, w, b), (IMAGE,), ((4,), (4,))
    ),
    "instance norm": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), (IMAGE,), ((4,), (4,))),
    "a tied matrix": (lambda x, w: F.linear(torch.tanh(F.linear(x, w)), w.T), (TOKENS,), ((3, 8),)),
    "a convolution by computed weights": (
        lambda x, w: F.conv2d(x, w - w.mean((1, 2, 3), keepdim=True)), (IMAGE,), ((6, 4, 3, 3),)
    ),
    "packed weights in pieces": (
        lambda x, w: torch.stack([F.linear(x, part) for part in w.chunk(3)]).sum(0), (TOKENS,), ((9, 8),)
    ),
    "packed weights by number": (lambda x, w: F.linear(F.linear(x, w[0]), w[1]), (TOKENS,), ((2, 8, 8),)),
    "attention": (
        lambda q, k: F.scaled_dot_product_attention(*(x.unflatten(2, (2, 4)).transpose(1, 2) for x in (q, k, q))),
        (TOKENS, TOKENS),
        (),
    ),
    "causal attention": (
        lambda x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], is_causal=True, scale=0.3),
        (TOKENS,),
        (),
    ),
    "masked attention": (
        lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(5, 5).tril().bool()), (TOKENS,), ()
    ),
}  # fmt: skip
"""Function, shapes of the inputs for one example, and shapes of the parameters."""


class Packed(nn.Module):
    """`nn.MultiheadAttention` on itself."""

    def __init__(self, *, batch_first: bool, need_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
        self.batch_first, self.need_weights = batch_first, need_weights

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        y = self.attention(x, x, x, need_weights=self.need_weights)[0]
        return y if self.batch_first else y.transpose(0, 1)


class First(nn.Module):
    """The first of the results of a layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def _steps(cell: nn.Module) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = cell(step, state)
        assert state is not None
        return state[0] if isinstance(state, tuple) else state

    return run


class Cell(nn.Module):
    """A recurrent cell in a Python loop."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return _steps(self.cell)(x)


class CrossAttention(nn.Module):
    """`nn.MultiheadAttention` whose keys have another width."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x[..., :6], x[..., :6], need_weights=False)[0]


LAYERS: Mapping[str, tuple[Callable[[], nn.Module], Shape]] = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(6), VECTOR),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4), IMAGE),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(4, affine=False), VOLUME),
    "the same BatchNorm2d twice": (
        lambda: (lambda norm: nn.Sequential(norm, nn.ReLU(), norm))(nn.BatchNorm2d(4)),
        IMAGE,
    ),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4), IMAGE),
    "PReLU": (lambda: nn.PReLU(4), IMAGE),
    "Conv1d, circular": (lambda: nn.Conv1d(4, 3, 3, padding=1, padding_mode="circular"), SIGNAL),
    "MaxPool1d": (lambda: nn.MaxPool1d(3, 2), SIGNAL),
    "AvgPool1d": (lambda: nn.AvgPool1d(3, 2, 1), SIGNAL),
    "MaxPool3d": (lambda: nn.MaxPool3d(2), VOLUME),
    "AvgPool3d": (lambda: nn.AvgPool3d(2), VOLUME),
    "AdaptiveAvgPool1d": (lambda: nn.AdaptiveAvgPool1d(1), SIGNAL),
    "AdaptiveAvgPool3d": (lambda: nn.AdaptiveAvgPool3d(1), VOLUME),
    "Upsample": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "ZeroPad2d": (lambda: nn.ZeroPad2d((1, 2, 0, 1)), IMAGE),
    "LSTM": (lambda: First(nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True)), TOKENS),
    "LSTM, projected": (lambda: First(nn.LSTM(8, 5, proj_size=3, batch_first=True)), TOKENS),
    "GRU": (lambda: First(nn.GRU(8, 5, batch_first=True, bias=False)), TOKENS),
    "RNN": (lambda: First(nn.RNN(8, 5, nonlinearity="relu", batch_first=True)), TOKENS),
    "LSTMCell": (lambda: Cell(nn.LSTMCell(8, 5)), TOKENS),
    "GRUCell": (lambda: Cell(nn.GRUCell(8, 5)), TOKENS),
    "RNNCell": (lambda: Cell(nn.RNNCell(8, 5)), TOKENS),
    "MultiheadAttention": (lambda: Packed(batch_first=True, need_weights=False), TOKENS),
    "MultiheadAttention, tokens first": (lambda: Packed(batch_first=False, need_weights=True), TOKENS),
    "MultiheadAttention of another width": (CrossAttention, TOKENS),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), TOKENS),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3)), SIGNAL),
    "spectral norm": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4), n_power_iterations=20),
        TOKENS,
    ),
    "ParameterDict": (
        lambda: Call(lambda x, a, b: x * a + b, (8,), (1, 8)),
        TOKENS,
    ),
}
"""A layer and the shape of one example."""


def randomised(module: nn.Module, *, seed: int) -> nn.Module:
    """The module in evaluation mode with parameters and running statistics that show in its output."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.5 + 0.1)
        for name, buffer in module.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=rng) + 0.5)
            elif name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=rng))
        for part in module.modules():
            if parametrize.is_parametrized(part, "weight"):
                _ = part.weight  # a spectral norm follows the new weights, lest it divide by nearly nothing
    return module.eval()
