"""One space for models and data sets: an encoder of sets of classes, trained until models lie near the data that they fit.

Know2Vec (Shang et al. 2025) reads the classes with a recurrent network, whose answer depends on their order and, in the authors' code, on a
random start. Here every class is encoded by itself and the set is pooled (Zaheer et al., "Deep Sets", 2017; attention as in
Ilse et al., "Attention-based Deep Multiple Instance Learning", 2018, equation 7): the order cannot matter.

Shape letters: B = sets in the batch, C = classes (padded), D = features of a description, H = hidden size, V = size of a vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.errors import ConfigError
from nasgraph.retrieve.behaviour.data_side import DataDescription
from nasgraph.retrieve.behaviour.features import EXTRACTOR, NUM_FEATURES
from nasgraph.retrieve.behaviour.model_side import ModelDescription


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """Sizes of the two encoders.

    Attributes:
        hidden_dim: Size of the state of a class.
        vector_dim: Size of a vector.
        num_features: Length of an image's description.

    Raises:
        ConfigError: If a size is out of range.
    """

    hidden_dim: int = 64
    vector_dim: int = 64
    num_features: int = NUM_FEATURES

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "vector_dim", "num_features"):
            if not 1 <= getattr(self, name) <= 4096:
                raise ConfigError(f"Expected '{name}' from 1 to 4096 (got {getattr(self, name)})")


class SetEncoder(nn.Module):
    """A set of class states to one vector of length 1; the order of the classes and the padding do not matter.

    Args:
        config: Sizes.
    """

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        hidden = config.hidden_dim
        self.token = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.attention = nn.Linear(hidden, 1)
        self.vector = nn.Linear(2 * hidden, config.vector_dim)

    def forward(self, token_BCH: Tensor, mask_BC: Tensor) -> Tensor:
        """Encode; `mask_BC` is True where a class exists, at least once per set."""
        state_BCH = token_BCH + self.token(token_BCH)
        share_BC = self.attention(state_BCH)[..., 0].masked_fill(~mask_BC, float("-inf")).softmax(1)
        attended_BH = (share_BC[..., None] * state_BCH).sum(1)
        weight_BC = mask_BC.to(state_BCH.dtype) / mask_BC.sum(1, keepdim=True)
        mean_BH = (weight_BC[..., None] * state_BCH).sum(1)
        return F.normalize(self.vector(torch.cat([mean_BH, attended_BH], 1)), dim=1)


class Alignment(nn.Module):
    """Encoders of models and of data sets into one space, where a cosine says how well they fit.

    Both sides share the encoder: a model's anchors are read as if they were data, and what its borders and its confidence say
    is added to them by a map that starts at zero. There are far fewer models than queries to learn from, and two
    encoders of their own learn these models by heart. A pure function of its weights: no chance, no state between calls.

    Args:
        config: Sizes.
    """

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.num_features))
        self.register_buffer("std", torch.ones(config.num_features))
        self.project = nn.Linear(config.num_features, config.hidden_dim)
        self.behaviour = nn.Linear(config.hidden_dim + 1, config.hidden_dim)
        self.encoder = SetEncoder(config)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    @property
    def digest(self) -> str:
        """Hash of the weights and of what they read: vectors of equal digests can be compared, others must not be."""
        digest = sha256(f"{EXTRACTOR} {sorted(asdict(self.config).items())}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().float().numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def encode_models(self, descriptions: Sequence[ModelDescription]) -> Tensor:
        """Vectors of models, `[models, vector_dim]`, of length 1."""
        anchors, mask = _padded([each.anchors for each in descriptions])
        borders, _ = _padded([each.borders for each in descriptions])
        confidence, _ = _padded([each.confidence[:, None] for each in descriptions])
        return self.encode_model_tokens(anchors, borders, confidence, mask)

    def encode_data(self, descriptions: Sequence[DataDescription]) -> Tensor:
        """Vectors of data sets, `[data sets, vector_dim]`, of length 1."""
        means, mask = _padded([each.means for each in descriptions])
        return self.encode_data_tokens(means, mask)

    def encode_model_tokens(
        self, anchors_BCD: Tensor, borders_BCD: Tensor, confidence_BC1: Tensor, mask_BC: Tensor
    ) -> Tensor:
        """Vectors of models from padded tensors."""
        token_BCH = self._projected(anchors_BCD)
        border_BCH = self._projected(borders_BCD) - token_BCH
        extra_BCH = self.behaviour(torch.cat([border_BCH, confidence_BC1], 2))
        vectors: Tensor = self.encoder(token_BCH + extra_BCH, mask_BC)
        return vectors

    def encode_data_tokens(self, means_BCD: Tensor, mask_BC: Tensor) -> Tensor:
        """Vectors of data sets from padded tensors."""
        vectors: Tensor = self.encoder(self._projected(means_BCD), mask_BC)
        return vectors

    def _projected(self, x_BCD: Tensor) -> Tensor:
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        projected: Tensor = self.project((x_BCD - mean) / std)
        return projected

    def model_vector(self, description: ModelDescription) -> tuple[float, ...]:
        """The vector of one model, as a catalogue keeps it."""
        with torch.inference_mode():
            return tuple(self.encode_models([description])[0].double().tolist())

    def data_vector(self, description: DataDescription) -> tuple[float, ...]:
        """The vector of one data set."""
        with torch.inference_mode():
            return tuple(self.encode_data([description])[0].double().tolist())


def _padded(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Tensors `[classes, k]` as one `[sets, most classes, k]`, and which classes exist."""
    lengths = torch.tensor([len(tensor) for tensor in tensors])
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    return nn.utils.rnn.pad_sequence(list(tensors), batch_first=True), mask


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """One query of the training of an alignment.

    Attributes:
        data: What it looks like.
        scores: How well each model of the training fits it, higher is better: measured, such as the accuracy of a linear probe.
    """

    data: DataDescription
    scores: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """How an alignment is trained.

    Attributes:
        steps: Steps of AdamW.
        batch_size: Queries per step; all models are compared with each.
        learning_rate: Peak; a cosine to 0.
        weight_decay: AdamW's.
        margin: Of the triplet loss.
        triplet: Weight of the triplet loss (Know2Vec's): the best model of a query must be nearer than the nearest other.
        listwise: Weight of the listwise loss: the softmax of the cosines must be that of the scores (Cao et al., "Learning to rank: from
            pairwise approach to listwise approach", 2007).
        spread: Scores are divided by so many of their standard deviations over models before the softmax.
        noise: Standard deviation of the noise on standardised descriptions, against learning the few models by heart.

    Raises:
        ConfigError: If a value is out of range.
    """

    steps: int = 600
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    margin: float = 0.2
    triplet: float = 0.0
    listwise: float = 1.0
    spread: float = 0.5
    noise: float = 0.6

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "spread"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")
        for name in ("weight_decay", "margin", "triplet", "listwise", "noise"):
            if getattr(self, name) < 0:
                raise ConfigError(f"Expected '{name}' of at least 0 (got {getattr(self, name)})")
        if self.triplet + self.listwise == 0:
            raise ConfigError(
                "Expected 'triplet' or 'listwise' above 0 (got 0 and 0): there is nothing to learn"
            )


def train_alignment(
    models: Sequence[ModelDescription],
    episodes: Sequence[Episode],
    *,
    config: AlignmentConfig | None = None,
    train: AlignConfig | None = None,
    seed: int = 0,
) -> Alignment:
    """Train both encoders until models lie near the data sets that they fit.

    Same arguments, same weights, on one machine. The models and data sets of the training need not be those that are
    ranked later.

    Args:
        models: Descriptions of at least two models.
        episodes: Queries with a score for each of these models.
        config: Sizes; None: the defaults.
        train: How to train; None: the defaults.
        seed: Decides start weights, order and noise.

    Raises:
        ConfigError: If there are fewer than two models, no episodes, or an episode has another number of scores.
    """
    config, train = config or AlignmentConfig(), train or AlignConfig()
    if len(models) < 2 or not episodes:
        raise ConfigError(f"Expected at least 2 models and 1 episode (got {len(models)} and {len(episodes)})")
    for episode in episodes:
        if len(episode.scores) != len(models):
            raise ConfigError(f"Expected {len(models)} scores per episode (got {len(episode.scores)})")
    rng = torch.Generator().manual_seed(seed)
    alignment = _initial(config, rng)
    tensors = _tensors(models, episodes)
    _standardise(alignment, tensors)
    optimizer = torch.optim.AdamW(
        alignment.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, train.steps)
    for _ in range(train.steps):
        picked = torch.randint(len(episodes), (train.batch_size,), generator=rng)
        loss = _loss(alignment, tensors, picked, train, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        schedule.step()
    return alignment.eval().requires_grad_(False)


def _initial(config: AlignmentConfig, rng: torch.Generator) -> Alignment:
    """An alignment whose weights are drawn from `rng`; torch's generator is not touched."""
    with torch.device("meta"):
        alignment = Alignment(config)
    alignment = alignment.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in alignment.named_parameters():
            if parameter.ndim == 2 and not name.startswith("behaviour."):
                parameter.normal_(std=parameter.shape[1] ** -0.5, generator=rng)
            else:
                parameter.zero_()
            if name == "log_scale":
                parameter.fill_(2.0)
        alignment.get_buffer("mean").zero_()
        alignment.get_buffer("std").fill_(1.0)
    return alignment


def _tensors(models: Sequence[ModelDescription], episodes: Sequence[Episode]) -> Mapping[str, Tensor]:
    anchors, model_mask = _padded([each.anchors for each in models])
    borders, _ = _padded([each.borders for each in models])
    confidence, _ = _padded([each.confidence[:, None] for each in models])
    means, data_mask = _padded([each.data.means for each in episodes])
    scores = torch.tensor([each.scores for each in episodes], dtype=torch.float32)
    return {
        "anchors": anchors,
        "borders": borders,
        "confidence": confidence,
        "model_mask": model_mask,
        "means": means,
        "data_mask": data_mask,
        "scores": scores,
    }


def _standardise(alignment: Alignment, tensors: Mapping[str, Tensor]) -> None:
    """Set mean and spread of the descriptions from both sides of the training."""
    seen = torch.cat(
        [tensors["anchors"][tensors["model_mask"]], tensors["means"][tensors["data_mask"]]], 0
    ).double()
    alignment.get_buffer("mean").copy_(seen.mean(0))
    # One floor for all: a feature that hardly varies in the training must not shout later.
    std = seen.std(0, correction=0)
    alignment.get_buffer("std").copy_(std.clamp(min=0.1 * float(std.mean()) + 1e-9))


def _loss(
    alignment: Alignment,
    tensors: Mapping[str, Tensor],
    picked: Tensor,
    train: AlignConfig,
    rng: torch.Generator,
) -> Tensor:
    std = alignment.get_buffer("std")

    def noisy(x: Tensor) -> Tensor:
        return x + train.noise * std * torch.randn(x.shape, generator=rng)

    model_vectors = alignment.encode_model_tokens(
        noisy(tensors["anchors"]), noisy(tensors["borders"]), tensors["confidence"], tensors["model_mask"]
    )
    data_vectors = alignment.encode_data_tokens(noisy(tensors["means"][picked]), tensors["data_mask"][picked])
    cosine = data_vectors @ model_vectors.T
    scores = tensors["scores"][picked]
    loss = cosine.new_zeros(())
    if train.listwise:
        spread = scores.std(1, keepdim=True, correction=0).clamp(min=1e-6) * train.spread
        target = (scores / spread).softmax(1)
        logits = cosine * alignment.log_scale.exp().clamp(max=50)
        loss = loss + train.listwise * F.cross_entropy(logits, target)
    if train.triplet:
        best = scores.argmax(1, keepdim=True)
        right = cosine.gather(1, best)
        wrong = cosine.scatter(1, best, -2.0).amax(1, keepdim=True)
        loss = loss + train.triplet * F.relu(train.margin + wrong - right).mean()
    return loss
