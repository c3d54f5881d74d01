"""Train the architecture encoder that the zoo ships.

    python -m benchmarks.zoo.train_encoder --corpus /tmp/retrieval-corpus --checkpoints /tmp/encoder --folder /tmp/encoders --variants full "without motifs"

The zoo's `architecture-encoder` is the folder `full`.

One thread. The state is written every `EVERY` steps; the same command goes on from there, with the same result bit by bit as an
uninterrupted run, for a batch is a function of the seed and the step. A tenth of the families is held back to watch the
training (nothing is chosen by it while it runs); the benchmark's unseen families are not read.
"""

import argparse
import platform
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import environment
from benchmarks.zoo.retrieval_corpus import load_part
from nasgraph.files import read_json, write_json
from nasgraph.retrieve import ArchitectureEncoder, EncoderConfig, save_encoder
from nasgraph.retrieve.contrastive import ContrastiveTraining, Trainer
from nasgraph.retrieve.corpus import Family
from nasgraph.retrieve.inputs import EncoderInputs, join, read_graph
from nasgraph.retrieve.measures import reciprocal_rank
from nasgraph.seeding import derive_seed

EVERY = 40
HELD_BACK = 10
TRACED = ("transformers", "handwritten", "torch", "handmade")


def is_held_back(family: Family) -> bool:
    """Whether a family only watches."""
    return derive_seed(0, "held back", family.name) % HELD_BACK == 0


def group_of(family: Family) -> str:
    """Where the batches take a family from: its search space; all traced models are one group."""
    return "named" if family.group.startswith(TRACED) else family.group


def held_back_mrr(encoder: ArchitectureEncoder, families: list[list[EncoderInputs]]) -> float:
    """MRR@20 of every held-back graph among all of them."""
    flat = [graph for family in families for graph in family]
    owner = np.repeat(np.arange(len(families)), [len(family) for family in families])
    with torch.no_grad():
        rows = torch.cat([encoder(join(flat[i : i + 64])) for i in range(0, len(flat), 64)]).numpy()
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :-1]
    return float(reciprocal_rank((owner[order] == owner[:, None]).astype(float), k=20).mean())


Groups = dict[str, list[list[EncoderInputs]]]
VARIANTS: dict[str, EncoderConfig] = {
    "full": EncoderConfig(),
    "without motifs": EncoderConfig(num_motif_layers=0),
    "without words": EncoderConfig(word_dim=0),
}
"""What is trained: the encoder that is shipped, and what it is without one of its parts."""


def read_families(corpus: Path, *, limit: int | None) -> tuple[Groups, list[list[EncoderInputs]]]:
    """Families to train with, by group, and those that watch."""
    groups: Groups = defaultdict(list)
    watching: list[list[EncoderInputs]] = []
    for family in load_part("training", corpus, limit=limit):
        members = [read_graph(graph) for graph in family.graphs]
        (watching if is_held_back(family) else groups[group_of(family)]).append(members)
    return groups, watching


def train(
    variant: str,
    training: ContrastiveTraining,
    groups: Groups,
    watching: list[list[EncoderInputs]],
    checkpoints: Path,
) -> tuple[ArchitectureEncoder, dict[str, object]]:
    """Train one variant, or go on training it; its recipe."""
    trainer = Trainer(ArchitectureEncoder(VARIANTS[variant], seed=training.seed), training)
    facts_path = checkpoints / "facts.json"
    facts = read_json(facts_path) if trainer.resume(checkpoints) else {"cpu_seconds": 0.0}
    assert isinstance(facts, dict)
    seconds = float(str(facts["cpu_seconds"]))
    watched = held_back_mrr(trainer.encoder.eval(), watching)
    print(f"{variant}, step {trainer.step}: held back MRR@20 {watched:.4f}", flush=True)
    while trainer.step < training.steps:
        losses: list[dict[str, float]] = []
        started = time.process_time()
        trainer.run(
            groups,
            until=trainer.step + EVERY,
            report=partial(_note, losses),
        )
        seconds += time.process_time() - started
        watched = held_back_mrr(trainer.encoder, watching)
        trainer.save(checkpoints)
        write_json(facts_path, {"cpu_seconds": seconds})
        mean = {name: round(float(np.mean([loss[name] for loss in losses])), 4) for name in losses[0]}
        print(
            f"{variant}, step {trainer.step}: {mean}, held back MRR@20 {watched:.4f}, {seconds:.0f} CPU s",
            flush=True,
        )
    recipe: dict[str, object] = {
        "variant": variant,
        "training": asdict(training),
        "families": sum(map(len, groups.values())),
        "graphs": sum(len(members) for group in groups.values() for members in group),
        "corpus": "benchmarks/zoo/retrieval_corpus.py, part 'training', seed 0",
        "cpu_seconds": round(seconds),
        "held_back_mrr_at_20": round(watched, 4),
        "versions": environment()["versions"],
        "machine": platform.machine(),
    }
    return trainer.encoder, recipe


def _note(losses: list[dict[str, float]], _: int, loss: Mapping[str, float]) -> None:
    losses.append(dict(loss))


def main() -> None:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="one folder in it per variant")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=["full"])
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--families", type=int, default=12, help="of each of four groups in a batch")
    parser.add_argument("--word-dropout", type=float, default=0.0)
    parser.add_argument("--limit", type=int, help="read only so many families")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    training = ContrastiveTraining(
        steps=arguments.steps,
        families=arguments.families,
        word_rate=2.0,
        word_dropout=arguments.word_dropout,
    )
    groups, watching = read_families(arguments.corpus, limit=arguments.limit)
    print(f"{sum(map(len, groups.values()))} families, {len(watching)} held back", flush=True)
    for variant in arguments.variants:
        name = variant.replace(" ", "-")
        encoder, recipe = train(variant, training, groups, watching, arguments.checkpoints / name)
        save_encoder(encoder, arguments.folder / name, recipe=recipe)  # type: ignore[arg-type]  # plain values


if __name__ == "__main__":
    main()
