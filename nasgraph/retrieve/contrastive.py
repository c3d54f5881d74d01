"""Contrastive pre-training of the architecture encoder, on whole graphs and on motifs in their contexts.

Whole graphs: edits of one base are pulled together and pushed away from all others of the batch, many of them of the same search
space (Khosla et al., "Supervised Contrastive Learning", 2020, eq. 2; with two members per family it is the InfoNCE of van den Oord
et al., "Representation Learning with Contrastive Predictive Coding", 2018, eq. 4). Motifs: a motif is to be told from the others of
the batch by the motifs beside it (Pei et al., "Neural Architecture Retrieval", 2024, section 3.3, use a discriminator and no temperature).
No class labels are used: neither the name of a space nor that of a model reaches the loss.

Shape letters: G = graphs of a batch, Z = size of an embedding, K = motifs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from nasgraph.errors import CheckpointError, ConfigError
from nasgraph.files import Json, read_json, write_json
from nasgraph.hyper.checkpoint import check_state, load_tensors, save_tensors
from nasgraph.retrieve.encoder import ArchitectureEncoder
from nasgraph.retrieve.inputs import EncoderInputs, join
from nasgraph.seeding import generator


@dataclass(frozen=True, kw_only=True)
class ContrastiveTraining:
    """How an encoder is trained.

    Attributes:
        steps: Number of batches.
        groups: Groups (search spaces) of a batch: its families come from these few, so that most are hard to tell apart.
        families: Families of each group in a batch.
        members: Members of each family in a batch.
        learning_rate: Highest rate of Adam; it rises over the first twentieth and falls to zero along a cosine.
        word_rate: Rate of the word vectors, relative to the others.
        temperature: Of the comparison of graphs.
        motif_temperature: Of the comparison of motifs with contexts.
        word_dropout: Chance that a word of a graph is left out of its counts: no design is to be known by one word.
        motif_weight: Weight of the motifs' loss beside that of the graphs.
        seed: Decides the batches.

    Raises:
        ConfigError: If a number is out of bounds.
    """

    steps: int = 1000
    groups: int = 4
    families: int = 16
    members: int = 2
    learning_rate: float = 2e-3
    word_rate: float = 1.0
    temperature: float = 0.1
    motif_temperature: float = 0.1
    word_dropout: float = 0.0
    motif_weight: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.groups < 1 or self.families < 2 or self.members < 2:
            raise ConfigError("Expected 'steps' of at least 0, a group, and two 'families' of two 'members'")
        if not 0 <= self.word_dropout < 1:
            raise ConfigError(f"Expected 'word_dropout' in [0, 1) (got {self.word_dropout})")
        if min(self.temperature, self.motif_temperature, self.learning_rate) <= 0 or self.motif_weight < 0:
            raise ConfigError(
                "Expected positive temperatures and 'learning_rate', and 'motif_weight' of at least 0"
            )


Groups = Mapping[str, Sequence[Sequence[EncoderInputs]]]
"""For each group its families; for each family its members, at least two."""


def graph_loss(
    embedding_GZ: Float[Tensor, "graphs embedding"], family_G: Int[Tensor, " graphs"], *, temperature: float
) -> Float[Tensor, ""]:
    """Mean over graphs, and over the other members of their families, of the negative log share of a member among all others."""
    similarity_GG = embedding_GZ @ embedding_GZ.T / temperature
    itself_GG = torch.eye(len(family_G), dtype=torch.bool)
    share_GG = similarity_GG.masked_fill(itself_GG, float("-inf")).log_softmax(dim=1)
    positive_GG = (family_G[:, None] == family_G[None, :]) & ~itself_GG
    per_graph_G = share_GG.masked_fill(~positive_GG, 0).sum(1) / positive_GG.sum(1).clamp(min=1)
    return -per_graph_G[positive_GG.any(1)].mean()


def motif_loss(
    motif_KD: Float[Tensor, "motifs dim"],
    context_KD: Float[Tensor, "motifs dim"],
    key_K: Int[Tensor, " motifs"],
    *,
    temperature: float,
    rng: np.random.Generator,
    most: int = 384,
) -> Float[Tensor, ""]:
    """InfoNCE between motifs and their contexts, both ways. Each kind of motif counts once, by an occurrence drawn by `rng`."""
    order = rng.permutation(len(key_K))
    _, first = np.unique(key_K.numpy()[order], return_index=True)
    chosen = torch.from_numpy(order[np.sort(first)][:most])
    motif, context = F.normalize(motif_KD[chosen], dim=1), F.normalize(context_KD[chosen], dim=1)
    similarity = motif @ context.T / temperature
    truth = torch.arange(len(chosen))
    return (F.cross_entropy(similarity, truth) + F.cross_entropy(similarity.T, truth)) / 2


def draw_batch(
    groups: Groups, training: ContrastiveTraining, step: int
) -> tuple[EncoderInputs, Int[Tensor, " graphs"]]:
    """The batch of one step and the family of each graph: a function of the seed and the step."""
    rng = generator(training.seed, "contrastive", step)
    names = sorted(groups)
    sizes = np.sqrt([len(groups[name]) for name in names])
    number = min(training.groups, len(names))
    parts, family = [], []
    for place in rng.choice(len(names), size=number, replace=False, p=sizes / sizes.sum()):
        families = groups[names[int(place)]]
        for index in rng.permutation(len(families))[: training.families]:
            members = families[int(index)]
            for member in rng.permutation(len(members))[: training.members]:
                parts.append(members[int(member)])
                family.append((int(place), int(index)))
    places = {key: number for number, key in enumerate(dict.fromkeys(family))}
    return join(parts), torch.tensor([places[key] for key in family])


class Trainer:
    """Encoder, optimiser and step: what a run can be resumed from, with the same result bit by bit."""

    def __init__(self, encoder: ArchitectureEncoder, training: ContrastiveTraining) -> None:
        self.encoder = encoder
        self.training = training
        self.step = 0
        words = [p for name, p in encoder.named_parameters() if name.startswith("words.")]
        others = [p for name, p in encoder.named_parameters() if not name.startswith("words.")]
        self.optimiser = torch.optim.Adam([{"params": others}, {"params": words}], lr=training.learning_rate)

    def train_step(self, groups: Groups) -> dict[str, float]:
        """Take one step; its losses."""
        training, encoder = self.training, self.encoder
        batch, family_G = draw_batch(groups, training, self.step)
        batch = _without_words(batch, training.word_dropout, generator(training.seed, "words", self.step))
        encoding = encoder.encode(batch)
        loss = by_graph = graph_loss(encoding.embedding_GZ, family_G, temperature=training.temperature)
        losses = {"graphs": by_graph.item()}
        if encoding.motif_KD is not None and encoding.context_KD is not None and training.motif_weight:
            by_motif = motif_loss(
                encoding.motif_KD,
                encoding.context_KD,
                batch.key_K,
                temperature=training.motif_temperature,
                rng=generator(training.seed, "motifs", self.step),
            )
            losses["motifs"] = by_motif.item()
            loss = loss + training.motif_weight * by_motif
        rate = training.learning_rate * _schedule(self.step, training.steps)
        for group, factor in zip(self.optimiser.param_groups, (1.0, training.word_rate), strict=True):
            group["lr"] = rate * factor
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return losses

    def run(
        self, groups: Groups, *, until: int, report: Callable[[int, Mapping[str, float]], None] | None = None
    ) -> None:
        """Train up to step `until`, at most `training.steps`."""
        self.encoder.train()
        while self.step < min(until, self.training.steps):
            losses = self.train_step(groups)
            if report is not None:
                report(self.step, losses)
        self.encoder.eval()

    def save(self, folder: Path) -> None:
        """Write the state; the step comes last, so that a kill leaves the old state or the new one."""
        tensors = {f"encoder/{name}": tensor for name, tensor in self.encoder.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
        name = f"state-{self.step}.safetensors"
        save_tensors(folder / name, tensors)
        facts: dict[str, Json] = {"step": self.step, "file": name}
        write_json(folder / "state.json", facts)
        for old in folder.glob("state-*.safetensors"):
            if old.name != name:
                old.unlink()

    def resume(self, folder: Path) -> bool:
        """Read the last state, if there is one. Raises `CheckpointError` if it does not fit."""
        if not (folder / "state.json").exists():
            return False
        facts = read_json(folder / "state.json")
        if (
            not isinstance(facts, dict)
            or type(facts.get("step")) is not int
            or not isinstance(facts.get("file"), str)
        ):
            raise CheckpointError(f"Expected 'step' and 'file' in '{folder / 'state.json'}'")
        tensors = load_tensors(folder / str(facts["file"]))
        own = {n.removeprefix("encoder/"): t for n, t in tensors.items() if n.startswith("encoder/")}
        check_state(self.encoder, own, source=folder)
        self.encoder.load_state_dict(own)
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimiser/"):
                _, index, key = name.split("/")
                state.setdefault(int(index), {})[key] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})
        self.step = int(facts["step"])  # type: ignore[arg-type]  # checked above
        return True


def _without_words(batch: EncoderInputs, chance: float, rng: np.random.Generator) -> EncoderInputs:
    if chance == 0:
        return batch
    kept_W = torch.from_numpy(rng.random(len(batch.word_W)) >= chance)
    return replace(batch, weight_W=batch.weight_W * kept_W / (1 - chance))


def _schedule(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / max(1, steps // 20)) * (1 + cos(pi * step / steps)) / 2
