"""Sequences: torch's recurrent layers, cells in loops, causal convolutions, and state spaces by hand."""

# mypy: disable-error-code="no-any-return"
# (networks return what their layers return, as users write them; `Module.__call__` is untyped)

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.ghn.models import Inputs, Model
from benchmarks.ghn.models.handwritten.entry import entry, sequence, tokens


class BidirectionalLSTM(nn.Module):
    """Two layers, two directions, batch first; the last hidden states of both directions are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16, padding_idx=0)
        self.lstm = nn.LSTM(16, 12, num_layers=2, bidirectional=True, batch_first=True, dropout=0.1)
        self.fc = nn.Linear(24, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(self.embedding(tokens))
        return self.fc(torch.cat((hidden[-2], hidden[-1]), dim=1))


class ProjectedLSTM(nn.Module):
    """proj_size, no biases, and initial states that are parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 12, proj_size=8, bias=False)
        self.h0 = nn.Parameter(torch.zeros(1, 1, 8))
        self.c0 = nn.Parameter(torch.zeros(1, 1, 12))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x = x.transpose(0, 1)
        state = (
            self.h0.expand(-1, x.size(1), -1).contiguous(),
            self.c0.expand(-1, x.size(1), -1).contiguous(),
        )
        return self.lstm(x, state)


class StackedGRU(nn.Module):
    """Three layers of GRU over time-first input, then attention pooling with a learnt query."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(16, 12, num_layers=3)
        self.query = nn.Parameter(torch.randn(12))
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.gru(x.permute(1, 0, 2))
        weight = torch.softmax(output @ self.query, dim=0)
        return self.fc((weight.unsqueeze(-1) * output).sum(0))


class ElmanRNN(nn.Module):
    """nn.RNN with ReLU, read at the last time step."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(16, 12, 2, nonlinearity="relu", batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1, :])


class PackedLSTM(nn.Module):
    """Packed, padded sequences: their lengths are values of an input tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 8, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.out(output.sum(1) / lengths.unsqueeze(1))


class CellLoop(nn.Module):
    """LSTMCell in a Python loop: the same weights are used eight times."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(16, 12)
        self.out = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.size(0), 12, device=x.device, dtype=x.dtype)
        outputs = []
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t], (h, c))
            outputs.append(self.out(h))
        return torch.stack(outputs, dim=1)


class AttentiveDecoder(nn.Module):
    """GRU encoder, GRUCell decoder with additive attention, feeding back its own greedy choices."""

    def __init__(self, vocabulary: int = 50, dim: int = 12) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.encoder = nn.GRU(dim, dim, batch_first=True)
        self.cell = nn.GRUCell(2 * dim, dim)
        self.w, self.u, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False), nn.Linear(dim, 1)
        self.out = nn.Linear(dim, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        memory, hidden = self.encoder(self.embed(tokens))
        state, token, logits = hidden[0], tokens[:, 0], []
        for _ in range(3):
            score = self.v(torch.tanh(self.w(memory) + self.u(state).unsqueeze(1)))
            context = (score.softmax(1) * memory).sum(1)
            state = self.cell(torch.cat([self.embed(token), context], -1), state)
            logits.append(self.out(state))
            token = logits[-1].argmax(-1)
        return torch.stack(logits, 1)


class GatesByHand(nn.Module):
    """One matrix for four gates, split by chunk; forget bias added as a constant; layer norm on the gates."""

    def __init__(self, dim: int = 16, hidden: int = 8) -> None:
        super().__init__()
        self.hidden = hidden
        self.w = nn.Parameter(torch.randn(dim + hidden, 4 * hidden) * 0.1)
        self.b = nn.Parameter(torch.zeros(4 * hidden))
        self.norm = nn.LayerNorm(4 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        h, c = x.new_zeros(x.shape[0], self.hidden), x.new_zeros(x.shape[0], self.hidden)
        for step in torch.split(x, 1, dim=1):
            gates = self.norm(torch.addmm(self.b, torch.hstack((step.squeeze(1), h)), self.w))
            i, f, o, g = gates.chunk(4, 1)
            c = torch.sigmoid(f + 1.0) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h


class CausalConv1d(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0)))


class TemporalConvolution(nn.Module):
    """Dilated causal convolutions with weight-normalised kernels, residuals and a cut of the padding's tail."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for index in range(3):
            conv = nn.Conv1d(dim, dim, 3, padding=2 * 2**index, dilation=2**index)
            self.layers.append(nn.utils.parametrizations.weight_norm(conv))
        self.out = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        for layer in self.layers:
            x = F.relu(x + layer(x)[:, :, : x.shape[2]].relu())
        return self.out(x[:, :, -1])


class WaveNet(nn.Module):
    """Gated activations of two convolutions, residual and skip paths that are summed at the end."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.start = CausalConv1d(16, dim, 2)
        self.filters = nn.ModuleList(CausalConv1d(dim, dim, 2, dilation=2**i) for i in range(3))
        self.gates = nn.ModuleList(CausalConv1d(dim, dim, 2, dilation=2**i) for i in range(3))
        self.residuals = nn.ModuleList(nn.Conv1d(dim, dim, 1) for _ in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(dim, dim, 1) for _ in range(3))
        self.end = nn.Conv1d(dim, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x.mT)
        total: Tensor | float = 0.0
        for f, g, r, s in zip(self.filters, self.gates, self.residuals, self.skips, strict=True):
            z = torch.tanh(f(x)) * torch.sigmoid(g(x))
            total = total + s(z)
            x = x + r(z)
        return self.end(F.relu(torch.as_tensor(total)))


class DiagonalStateSpace(nn.Module):
    """S4D: complex state matrices from real parameters, a kernel by Vandermonde product, convolution by FFT."""

    def __init__(self, dim: int = 16, state: int = 4) -> None:
        super().__init__()
        self.log_dt = nn.Parameter(torch.rand(dim) * -2 - 1)
        self.log_a_real = nn.Parameter(torch.log(0.5 * torch.ones(dim, state)))
        self.a_imag = nn.Parameter(math.pi * torch.arange(state).repeat(dim, 1).float())
        self.c = nn.Parameter(torch.randn(dim, state, 2) * 0.5)
        self.d = nn.Parameter(torch.randn(dim))
        self.mix = nn.Conv1d(dim, 2 * dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        u = x.transpose(-1, -2)
        length = u.size(-1)
        a = -torch.exp(self.log_a_real) + 1j * self.a_imag
        dta = a * torch.exp(self.log_dt).unsqueeze(-1)
        power = torch.exp(dta.unsqueeze(-1) * torch.arange(length, device=x.device))
        c = torch.view_as_complex(self.c) * (torch.exp(dta) - 1.0) / a
        kernel = 2 * torch.einsum("hn,hnl->hl", c, power).real
        y = torch.fft.irfft(
            torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length), n=2 * length
        )
        y = F.gelu(y[..., :length] + u * self.d.unsqueeze(-1))
        return F.glu(self.mix(y), dim=-2).transpose(-1, -2)


class SelectiveScan(nn.Module):
    """A Mamba-like block: causal depthwise convolution, input-dependent step sizes, and the scan as a loop."""

    def __init__(self, dim: int = 16, state: int = 4, rank: int = 2) -> None:
        super().__init__()
        self.rank, self.state = rank, state
        self.in_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.conv = nn.Conv1d(dim, dim, 3, groups=dim, padding=2)
        self.x_proj = nn.Linear(dim, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, dim)
        self.a_log = nn.Parameter(torch.log(torch.arange(1, state + 1).float()).repeat(dim, 1))
        self.d = nn.Parameter(torch.ones(dim))
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.in_proj(x).chunk(2, dim=-1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        dt, b, c = self.x_proj(x).split([self.rank, self.state, self.state], dim=-1)
        dt = F.softplus(self.dt_proj(dt))
        a = -torch.exp(self.a_log)
        state = x.new_zeros(x.shape[0], x.shape[2], self.state)
        outputs = []
        for t in range(x.shape[1]):
            decay = torch.exp(dt[:, t, :, None] * a)
            state = decay * state + dt[:, t, :, None] * b[:, t, None, :] * x[:, t, :, None]
            outputs.append((state * c[:, t, None, :]).sum(-1))
        return self.out_proj((torch.stack(outputs, 1) + x * self.d) * F.silu(gate))


class ConvolutionalLSTM(nn.Module):
    """A recurrent cell whose gates are one two-dimensional convolution; the video is read frame by frame."""

    def __init__(self, hidden: int = 4) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(1 + hidden, 4 * hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, 1, 1)

    def forward(self, video: Tensor) -> Tensor:
        batch, frames, _, height, width = video.shape
        h = torch.zeros(batch, self.hidden, height, width, device=video.device)
        c = torch.zeros_like(h)
        for frame in range(frames):
            i, f, o, g = torch.split(self.gates(torch.cat([video[:, frame], h], 1)), self.hidden, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.out(h)


class TextConvolution(nn.Module):
    """Convolutions of several widths over embeddings, max over time, joined; dropout by F.dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16, max_norm=None)
        self.convs = nn.ModuleList([nn.Conv2d(1, 6, (k, 16)) for k in (2, 3, 4)])
        self.fc = nn.Linear(18, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).unsqueeze(1)
        parts = [F.relu(conv(x)).squeeze(3) for conv in self.convs]
        parts = [F.max_pool1d(part, part.size(2)).squeeze(2) for part in parts]
        return self.fc(F.dropout(torch.cat(parts, 1), 0.5, self.training))


class Reservoir(nn.Module):
    """An echo-state network: the recurrent matrices are buffers, only the read-out is trained."""

    w_in: Tensor
    w: Tensor

    def __init__(self, size: int = 24) -> None:
        super().__init__()
        self.register_buffer("w_in", torch.randn(16, size) * 0.1)
        self.register_buffer("w", torch.randn(size, size) / (2 * math.sqrt(size)))
        self.readout = nn.Linear(size, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], self.w.shape[0])
        for t in range(x.shape[1]):
            state = 0.7 * state + 0.3 * torch.tanh(x[:, t] @ self.w_in + state @ self.w)
        return self.readout(state)


def _sequences_and_lengths() -> Inputs:
    return {"x": torch.randn(2, 8, 16), "lengths": torch.tensor([5, 8])}


def models() -> list[Model]:
    """Networks over sequences that are not attention."""
    over_sequences: dict[str, type[nn.Module]] = {
        "lstm_projected": ProjectedLSTM,
        "gru_stacked": StackedGRU,
        "rnn_elman": ElmanRNN,
        "lstm_cell_loop": CellLoop,
        "lstm_by_hand": GatesByHand,
        "temporal_convolution": TemporalConvolution,
        "wavenet": WaveNet,
        "state_space_s4d": DiagonalStateSpace,
        "selective_scan": SelectiveScan,
        "reservoir": Reservoir,
    }
    over_tokens: dict[str, type[nn.Module]] = {
        "lstm_bidirectional": BidirectionalLSTM,
        "gru_attentive_decoder": AttentiveDecoder,
        "text_convolution": TextConvolution,
    }
    return [
        *(entry(name, "recurrent", kind, sequence()) for name, kind in over_sequences.items()),
        *(entry(name, "recurrent", kind, tokens()) for name, kind in over_tokens.items()),
        entry("lstm_packed", "recurrent", PackedLSTM, _sequences_and_lengths),
        entry("conv_lstm", "recurrent", ConvolutionalLSTM, lambda: {"video": torch.randn(2, 3, 1, 8, 8)}),
    ]
