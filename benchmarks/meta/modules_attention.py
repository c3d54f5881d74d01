"""Networks with attention or with mixing of tokens."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from benchmarks.meta.modules_images import Residual

Made = tuple[nn.Module, tuple[Tensor, ...]]


class _Attention(nn.Module):
    """Attention with one projection for query, key and value, as vision transformers write it."""

    # mypy: disable-error-code="no-any-return"

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, width))


def _block(width: int, heads: int, hidden: int, *, causal: bool = False) -> nn.Sequential:
    return nn.Sequential(
        Residual(nn.Sequential(nn.LayerNorm(width), _Attention(width, heads, causal=causal))),
        Residual(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        ),
    )


class _VisionTransformer(nn.Module):
    """Dosovitskiy et al. 2021: patches, a class token, positions."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 5, width))
        self.blocks = nn.Sequential(*(_block(width, heads, 20) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class _Encoder(nn.Module):
    """torch's own encoder layers over words."""

    def __init__(self, width: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(20, width), nn.Parameter(torch.randn(1, 7, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 20, activation="gelu", batch_first=True, norm_first=bool(i)
            )
            for i in range(2)
        )
        self.last = nn.Linear(width, 4)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.last(x.mean(1))


class _CrossAttention(nn.Module):
    """Queries that are learnt attend to what is given (Jaegle et al. 2021, Perceiver), with `nn.MultiheadAttention`."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.queries, self.read = nn.Parameter(torch.randn(1, 4, width)), nn.Linear(6, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(x)
        y, _ = self.attention(self.queries.expand(len(x), -1, -1), x, x, need_weights=False)
        return self.last(self.norm(y).mean(1))


class _Gpt(nn.Module):
    """A language model whose last map is its table of words (Radford et al. 2019)."""

    def __init__(self, width: int = 12, heads: int = 2, *, tied: bool = True) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(20, width), nn.Embedding(6, width)
        self.blocks = nn.Sequential(*(_block(width, heads, 24, causal=True) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 20, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        places = torch.arange(words.shape[1], device=words.device)
        return self.head(self.norm(self.blocks(self.words(words) + self.positions(places))))


class _Llama(nn.Module):
    """A block with RMS norms and a gated feed-forward part (Touvron et al. 2023), without rotary positions."""

    def __init__(self, width: int = 12, heads: int = 3, hidden: int = 20) -> None:
        super().__init__()
        self.words, self.norms = nn.Embedding(20, width), nn.ModuleList(nn.RMSNorm(width) for _ in range(3))
        self.attention = _Attention(width, heads, causal=True)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down, self.head = nn.Linear(hidden, width, bias=False), nn.Linear(width, 20, bias=False)

    def forward(self, words: Tensor) -> Tensor:
        x = self.words(words)
        x = x + self.attention(self.norms[0](x))
        y = self.norms[1](x)
        x = x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))
        return self.head(self.norms[2](x))


class _Mixing(nn.Module):
    """One block of an MLP-Mixer (Tolstikhin et al. 2021): across tokens, then across channels."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 10), nn.GELU(), nn.Linear(10, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 20), nn.GELU(), nn.Linear(20, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class _Mixer(nn.Module):
    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.patches, self.blocks = nn.Conv2d(3, width, 4, stride=4), nn.Sequential(_Mixing(4, width))
        self.last = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def _words(count: int, length: int) -> tuple[Tensor, ...]:
    return (torch.randint(20, (count, length)),)


ATTENTION: Mapping[str, Callable[[], Made]] = {
    "vit": lambda: (_VisionTransformer(), (torch.randn(2, 3, 8, 8),)),
    "encoder": lambda: (_Encoder(), _words(3, 7)),
    "cross-attention": lambda: (_CrossAttention(), (torch.randn(3, 5, 6),)),
    "gpt-tied": lambda: (_Gpt(), _words(3, 6)),
    "gpt-untied": lambda: (_Gpt(tied=False), _words(3, 6)),
    "llama": lambda: (_Llama(), _words(3, 6)),
    "mixer": lambda: (_Mixer(), (torch.randn(2, 3, 8, 8),)),
}
