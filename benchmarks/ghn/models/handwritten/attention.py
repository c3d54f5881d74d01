"""Attention in many spellings: torch's modules, and by hand with matmul, einsum, SDPA, windows and rotations."""

# mypy: disable-error-code="no-any-return"
# (networks return what their layers return, as users write them; `Module.__call__` is untyped)

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.ghn.models import Inputs, Model
from benchmarks.ghn.models.handwritten.entry import entry, image, sequence, tokens


class MultiheadBatchFirst(nn.Module):
    """nn.MultiheadAttention with packed weights, batch first, and its weights returned beside the output."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, 4, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, weights = self.attention(x, x, x)
        return self.norm(x + y), weights


class MultiheadTimeFirst(nn.Module):
    """nn.MultiheadAttention over (time, batch, dim) with a padding mask and without weights; the fast path is open."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, 2, dropout=0.1)
        self.out = nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros(x.shape[0], x.shape[1], dtype=torch.bool, device=x.device)
        mask[:, -2:] = True
        x = x.transpose(0, 1)
        y = self.attention(x, x, x, key_padding_mask=mask, need_weights=False)[0]
        return self.out(y).mean(dim=0)


class MultiheadUnpacked(nn.Module):
    """Keys and values of other widths: separate projections, a learnt bias for keys and values, an added zero."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(
            16, 4, kdim=12, vdim=20, add_bias_kv=True, add_zero_attn=True, batch_first=True
        )

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.attention(query, key, value, average_attn_weights=False)[0]


class Encoder(nn.Module):
    """nn.TransformerEncoder; in evaluation mode torch may run each layer as one fused operator."""

    def __init__(self, dim: int = 16, norm_first: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            dim, 4, 32, batch_first=True, activation="gelu", norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(dim), enable_nested_tensor=False)
        self.head = nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x)[:, 0])


class PreNormEncoder(Encoder):
    """The same with the norm first, which changes the order of the operators and not the parameters."""

    def __init__(self) -> None:
        super().__init__(norm_first=True)


class Translator(nn.Module):
    """nn.Transformer with masks; source and target embeddings, and the output tied to the target embedding."""

    def __init__(self, dim: int = 16, vocabulary: int = 50) -> None:
        super().__init__()
        self.source = nn.Embedding(vocabulary, dim, padding_idx=0)
        self.target = nn.Embedding(vocabulary, dim, padding_idx=0)
        self.position = nn.Parameter(torch.randn(1, 32, dim) * 0.02)
        self.transformer = nn.Transformer(dim, 2, 1, 2, 32, batch_first=True)
        self.generator = nn.Linear(dim, vocabulary, bias=False)
        self.generator.weight = self.target.weight

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.size(1), device=target.device)
        x = self.source(source) * math.sqrt(self.source.embedding_dim) + self.position[:, : source.size(1)]
        y = self.target(target) + self.position[:, : target.size(1)]
        return self.generator(self.transformer(x, y, tgt_mask=mask, tgt_is_causal=True))


class EinsumAttention(nn.Module):
    """Three-axis weight parameters in einsum, talking heads, and a table of relative positions read by index."""

    index: Tensor

    def __init__(self, dim: int = 16, heads: int = 4, length: int = 8) -> None:
        super().__init__()
        self.to_q = nn.Parameter(torch.randn(dim, heads, dim // heads) / math.sqrt(dim))
        self.to_k = nn.Parameter(torch.randn(dim, heads, dim // heads) / math.sqrt(dim))
        self.to_v = nn.Parameter(torch.randn(dim, heads, dim // heads) / math.sqrt(dim))
        self.to_out = nn.Parameter(torch.randn(heads, dim // heads, dim) / math.sqrt(dim))
        self.talk = nn.Parameter(torch.eye(heads))
        self.table = nn.Parameter(torch.zeros(2 * length - 1, heads))
        place = torch.arange(length)
        self.register_buffer("index", place[:, None] - place[None] + length - 1)

    def forward(self, x: Tensor) -> Tensor:
        q = torch.einsum("btd,dhe->bhte", x, self.to_q)
        k = torch.einsum("btd,dhe->bhte", x, self.to_k)
        v = torch.einsum("btd,dhe->bhte", x, self.to_v)
        score = torch.einsum("bhte,bhse->bhts", q, k) * q.shape[-1] ** -0.5
        score = score + self.table[self.index].permute(2, 0, 1)
        score = torch.einsum("bhts,hg->bgts", score.softmax(-1), self.talk)
        return torch.einsum("bhts,bhse,hed->btd", score, v, self.to_out)


class VisionTransformer(nn.Module):
    """Class token and positions as parameters, and a ParameterList of prompts inserted before each layer."""

    def __init__(self, dim: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, dim) * 0.02)
        self.prompts = nn.ParameterList([torch.randn(1, 2, dim) * 0.02 for _ in range(depth)])
        self.norm1 = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.norm2 = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.qkv = nn.ModuleList(nn.Linear(dim, 3 * dim) for _ in range(depth))
        self.proj = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)) for _ in range(depth)
        )
        self.head = nn.Linear(dim, 10)

    def attend(self, x: Tensor, layer: int, heads: int = 4) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv[layer](x).reshape(b, n, 3, heads, c // heads).permute(2, 0, 3, 1, 4).unbind(0)
        attention = (q @ k.transpose(-2, -1) / math.sqrt(c // heads)).softmax(dim=-1)
        return self.proj[layer]((attention @ v).transpose(1, 2).reshape(b, n, c))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        for layer, prompt in enumerate(self.prompts):
            x = torch.cat([x, prompt.expand(x.shape[0], -1, -1)], dim=1)
            x = x + self.attend(self.norm1[layer](x), layer)
            x = x + self.mlp[layer](self.norm2[layer](x))
            x = x[:, : -prompt.shape[1]]
        return self.head(x[:, 0])


class CausalBlock(nn.Module):
    bias: Tensor

    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.c_attn, self.c_proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc, self.out = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.register_buffer("bias", torch.tril(torch.ones(length, length)).view(1, 1, length, length))

    def forward(self, x: Tensor, heads: int = 2) -> Tensor:
        batch, time, dim = x.size()
        q, k, v = self.c_attn(self.ln_1(x)).split(dim, dim=2)
        q, k, v = (part.view(batch, time, heads, dim // heads).transpose(1, 2) for part in (q, k, v))
        score = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        score = score.masked_fill(self.bias[:, :, :time, :time] == 0, float("-inf"))
        y = (F.softmax(score, dim=-1) @ v).transpose(1, 2).contiguous().view(batch, time, dim)
        x = x + self.c_proj(y)
        return x + self.out(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    """A decoder with a causal mask buffer and the output layer tied to the embedding."""

    def __init__(self, vocabulary: int = 50, dim: int = 16, length: int = 16) -> None:
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocabulary, dim),
                "wpe": nn.Embedding(length, dim),
                "h": nn.ModuleList([CausalBlock(dim, length) for _ in range(2)]),
                "ln_f": nn.LayerNorm(dim),
            }
        )
        self.lm_head = nn.Linear(dim, vocabulary, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight  # type: ignore[assignment]  # a Parameter

    def forward(self, tokens: Tensor) -> Tensor:
        place = torch.arange(tokens.size(1), dtype=torch.long, device=tokens.device).unsqueeze(0)
        x = self.transformer["wte"](tokens) + self.transformer["wpe"](place)
        blocks = self.transformer["h"]
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


class RMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class RotaryDecoder(nn.Module):
    """Rotary positions by complex multiplication, grouped keys and values repeated, RMS norm, SwiGLU, SDPA."""

    def __init__(self, dim: int = 16, heads: int = 4, groups: int = 2) -> None:
        super().__init__()
        self.heads, self.groups, self.head_dim = heads, groups, dim // heads
        self.embed = nn.Embedding(50, dim)
        self.norm1, self.norm2 = RMSNorm(dim), RMSNorm(dim)
        self.wq = nn.Linear(dim, dim, bias=False)
        self.wk, self.wv = (nn.Linear(dim, groups * self.head_dim, bias=False) for _ in range(2))
        self.wo = nn.Linear(dim, dim, bias=False)
        self.w1, self.w3 = (nn.Linear(dim, 2 * dim, bias=False) for _ in range(2))
        self.w2 = nn.Linear(2 * dim, dim, bias=False)
        self.output = nn.Linear(dim, 50, bias=False)

    def rotate(self, x: Tensor) -> Tensor:
        frequency = 1.0 / (10000.0 ** (torch.arange(0, self.head_dim, 2, device=x.device) / self.head_dim))
        angle = torch.outer(torch.arange(x.shape[1], device=x.device).float(), frequency)
        rotation = torch.polar(torch.ones_like(angle), angle)[None, :, None]
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * rotation).flatten(-2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y = self.norm1(x)
        q = self.rotate(self.wq(y).unflatten(-1, (self.heads, self.head_dim))).transpose(1, 2)
        k = self.rotate(self.wk(y).unflatten(-1, (self.groups, self.head_dim))).transpose(1, 2)
        v = self.wv(y).unflatten(-1, (self.groups, self.head_dim)).transpose(1, 2)
        k, v = (part.repeat_interleave(self.heads // self.groups, dim=1) for part in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.wo(y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return self.output(x + self.w2(F.silu(self.w1(y)) * self.w3(y)))


class Perceiver(nn.Module):
    """Learnt latents attend to the input twice with the same weights, and a query parameter reads them out."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(4, dim))
        self.query = nn.Parameter(torch.randn(1, dim))
        self.cross = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.read = nn.MultiheadAttention(dim, 2, batch_first=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        latents = self.latents.unsqueeze(0).repeat(x.size(0), 1, 1)
        for _ in range(2):
            latents = latents + self.cross(latents, x, x, need_weights=False)[0]
        return self.read(self.query[None].expand(x.size(0), 1, -1), latents, latents)[0].squeeze(1)


class LinearAttention(nn.Module):
    """Attention without softmax: feature maps, and cumulative sums for causality."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1, self.v(x)
        state = torch.cumsum(k.unsqueeze(-1) * v.unsqueeze(-2), dim=1)
        norm = (q * torch.cumsum(k, dim=1)).sum(-1, keepdim=True)
        return torch.matmul(q.unsqueeze(-2), state).squeeze(-2) / norm


class WindowAttention(nn.Module):
    """Shifted windows by torch.roll and view; a clamped logarithmic temperature per head; cosine similarity."""

    def __init__(self, dim: int = 8, window: int = 4) -> None:
        super().__init__()
        self.window = window
        self.embed = nn.Conv2d(3, dim, 2, 2)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.temperature = nn.Parameter(torch.log(10 * torch.ones(2, 1, 1)))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.roll(self.embed(x).permute(0, 2, 3, 1), shifts=(-2, -2), dims=(1, 2))
        b, h, w, c = x.shape
        s = self.window
        windows = x.view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        qkv = F.linear(windows, self.qkv.weight, bias).reshape(-1, s * s, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        score = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        score = score * torch.clamp(self.temperature, max=math.log(100)).exp()
        y = self.proj((score.softmax(-1) @ v).transpose(1, 2).reshape(-1, s * s, c))
        y = y.view(b, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return torch.roll(y, shifts=(2, 2), dims=(1, 2)).mean((1, 2))


class Mixer(nn.Module):
    """MLPs over tokens and channels in turn, with transposes between; no attention at all."""

    def __init__(self, dim: int = 16, patches: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.over_tokens = nn.Sequential(nn.Linear(patches, 24), nn.GELU(), nn.Linear(24, patches))
        self.over_channels = nn.Sequential(nn.Linear(dim, 32), nn.GELU(), nn.Linear(32, dim))
        self.head = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mT
        x = x + self.over_tokens(self.norms[0](x).mT).mT
        x = x + self.over_channels(self.norms[1](x))
        return self.head(self.norms[2](x).mean(1))


def _three_sequences() -> Inputs:
    return {"query": torch.randn(2, 5, 16), "key": torch.randn(2, 7, 12), "value": torch.randn(2, 7, 20)}


def _source_and_target() -> Inputs:
    return {"source": torch.randint(1, 50, (2, 7)), "target": torch.randint(1, 50, (2, 5))}


def models() -> list[Model]:
    """Networks with attention, and the mixer."""
    over_sequences: dict[str, type[nn.Module]] = {
        "mha_batch_first": MultiheadBatchFirst,
        "mha_time_first": MultiheadTimeFirst,
        "transformer_encoder": Encoder,
        "transformer_encoder_pre_norm": PreNormEncoder,
        "einsum_attention": EinsumAttention,
        "perceiver": Perceiver,
        "linear_attention": LinearAttention,
    }
    over_images: dict[str, type[nn.Module]] = {
        "vit_by_hand": VisionTransformer,
        "window_attention": WindowAttention,
        "mlp_mixer": Mixer,
    }
    return [
        *(entry(name, "attention", kind, sequence()) for name, kind in over_sequences.items()),
        *(entry(name, "attention", kind, image()) for name, kind in over_images.items()),
        entry("mha_unpacked", "attention", MultiheadUnpacked, _three_sequences),
        entry("transformer", "attention", Translator, _source_and_target),
        entry("gpt_by_hand", "attention", GPT, tokens()),
        entry("rotary_decoder", "attention", RotaryDecoder, tokens()),
    ]
