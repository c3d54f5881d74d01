"""Zoos for the page: a few real entries, and thousands of made rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nasgraph.data import DataSet, Preparation
from nasgraph.errors import UnknownNameError
from nasgraph.modelzoo import (
    Lineage,
    ModelCard,
    ZooEntry,
    data_facts,
    draft_card,
    measure_accuracy,
    write_entry,
)
from nasgraph.modelzoo.card import LatencyFact, card_to_json
from nasgraph.modelzoo.catalogue import Query, Row, ordered
from nasgraph.modelzoo.names import parse_reference
from nasgraph.modelzoo.store import Zoo
from nasgraph.modules import build
from nasgraph.seeding import generator
from nasgraph.spaces import Candidate, SearchSpace, sample
from tests.modelzoo.making import made_entry

SPACES = ("nasbench201", "convnet", "mlp", "vit", "darts", "mobilenetv3", "regnet", "autoformer")
DATA = ("digits", "fashion-mnist", "cifar10", "mnist")
WORDS = ("wide", "deep", "narrow", "plain", "skipping", "grouped", "quick", "patient")


def latency(milliseconds: float) -> LatencyFact:
    """One measured duration for a single example."""
    seconds = milliseconds / 1e3
    return LatencyFact(
        device="cpu", hardware="a processor", threads=1, batch_size=1, dtype="float32",
        median_s=seconds, low_s=0.9 * seconds, high_s=1.2 * seconds, protocol="made for a test",
    )  # fmt: skip


def sampled_entry(folder: Path, space: SearchSpace, data: DataSet, *, name: str, seed: int) -> ZooEntry:
    """An entry with random weights, whose accuracies were measured all the same."""
    candidate: Candidate = sample(space, generator(seed, "web", name))
    state = build(candidate.graph, seed=seed).state_dict()
    facts = data_facts(data, Preparation())
    card = draft_card(
        name, candidate, facts, created=f"2026-0{1 + seed % 9}-1{seed % 10}", licence="Apache-2.0", seed=seed
    )
    splits = {"validation": data.search.validation, "test": data.test}
    measured = tuple(measure_accuracy(candidate.graph, state, split, part) for part, split in splits.items())
    card = replace(
        card,
        measurements=measured,
        latencies=(latency(0.2 + 0.3 * (seed % 7)),),
        lineage=Lineage(study="web", trial=seed),
    )
    return write_entry(folder, candidate.graph, state, card)


def fill_zoo(zoo: Zoo, folder: Path, spaces: Mapping[str, SearchSpace], data: DataSet, *, each: int) -> None:
    """Register `each` entries of every space, and "small", a trained network, in two versions with an alias."""
    small = made_entry(folder / "small", data)
    zoo.add(small.path, "small", aliases=["champion"])
    zoo.add(small.path, "small")
    for name, space in spaces.items():
        for number in range(each):
            entry = sampled_entry(
                folder / f"{name}-{number}", space, data, name=f"{name}-{number}", seed=number
            )
            zoo.add(entry.path, entry.card.name)


@dataclass(frozen=True)
class MadeCatalogue:
    """A catalogue of rows that no registry holds."""

    rows: tuple[Row, ...]
    by_reference: Mapping[str, Row]

    @property
    def all_rows(self) -> tuple[Row, ...]:
        return self.rows

    def refresh(self) -> bool:
        return False

    def query(self, query: Query) -> tuple[Row, ...]:
        return ordered(
            (row for row in self.rows if query.admits(row)), query.sort, descending=query.descending
        )

    def row(self, reference: str) -> Row:
        wanted = str(parse_reference(reference))
        if wanted not in self.by_reference:
            raise UnknownNameError("model in the zoo", wanted, self.by_reference)
        return self.by_reference[wanted]


def made_catalogue(count: int, *, card: ModelCard, seed: int = 0, dimensions: int = 128) -> MadeCatalogue:
    """Rows with cards as long as real ones, and facts that lie as in a large zoo: accuracy rises with cost, with much spread."""
    rng, text = generator(seed, "made rows"), card_to_json(card).lower()
    rows = tuple(_made_row(number, card, text, rng, dimensions) for number in range(count))
    rows = tuple(sorted(rows, key=lambda row: row.name))
    return MadeCatalogue(rows, {row.name: row for row in rows} | {row.reference: row for row in rows})


def _made_row(number: int, template: ModelCard, text: str, rng: np.random.Generator, dimensions: int) -> Row:
    space, data = SPACES[int(rng.integers(len(SPACES)))], DATA[int(rng.integers(len(DATA)))]
    parameters = int(10 ** rng.uniform(3.5, 7.5))
    multiply_adds = int(parameters * 10 ** rng.uniform(0.5, 2.5))
    milliseconds = multiply_adds**0.5 / 1e3 * float(rng.uniform(0.5, 2))
    accuracy = float(np.clip(0.55 + 0.09 * (np.log10(parameters) - 3.5) - rng.exponential(0.06), 0.1, 0.999))
    name = f"{WORDS[number % len(WORDS)]}-{space}-{number:05d}"
    facts = template.data
    assert facts is not None
    card = replace(
        template,
        name=name,
        created=f"2026-{1 + number % 12:02d}-{1 + number % 28:02d}",
        data=replace(facts, name=data),
        measurements=tuple(replace(m, value=accuracy) for m in template.measurements),
        latencies=(latency(milliseconds),),
        architecture=replace(template.architecture, space=space),
        fingerprint=f"{number:064x}",
        num_parameters=parameters,
        multiply_adds=multiply_adds,
    )
    vector = rng.normal(size=dimensions).astype(np.float32)
    return Row(
        reference=f"{name}/1", name=name, version=1, kind="model", aliases=("champion",) if number % 500 == 0 else (), card=card,
        source="registry", accuracy=accuracy, num_parameters=parameters, multiply_adds=multiply_adds, latency_ms=milliseconds,
        data=data, space=space, task=card.task, created=card.created, fingerprint=card.fingerprint,
        embedding=vector / np.linalg.norm(vector), text=f"{name} {'champion' if number % 500 == 0 else ''} {data} {space} {text}",
    )  # fmt: skip
