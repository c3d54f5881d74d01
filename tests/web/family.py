"""A zoo with a family: the winner of a real search, a mutant of it, a merge of both, a transformer, an import."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from nasgraph.data import DataSet, Preparation, load_dataset
from nasgraph.draw import draw_svg
from nasgraph.modelzoo import Lineage, ModelCard, data_facts, draft_card, measure_accuracy, write_entry
from nasgraph.modelzoo.store import Zoo
from nasgraph.modules import build
from nasgraph.pipeline import (
    SearchSettings,
    TrainingSettings,
    Workspace,
    finish,
    load_ingredients,
    open_study,
    search,
)
from nasgraph.pipeline.publish import write_winner
from nasgraph.seeding import generator
from nasgraph.spaces import Architecture, Candidate, load_space, mutate, replay, sample
from nasgraph.tracking import MlflowListener
from tests.draw.networks import transformer
from tests.web.making import latency

STUDY = "first-study"
HOSTILE = '<script>alert("card")</script>'
SETTINGS = SearchSettings(
    space="convnet",
    num_train=200,
    trials=4,
    screened=0,
    kept=0,
    ghn="none",
    sampler="random",
    objectives=("val_accuracy", "min:num_parameters"),
    train=TrainingSettings(epochs=3),
    final=TrainingSettings(epochs=4),
)


@dataclass(frozen=True, slots=True)
class FamilyZoo:
    """What was made.

    Attributes:
        zoo: With `winner/1`, `winner/2`, `mutant/1`, `merge/1`, `deep-transformer/1`, `import/1`.
        workspace: Folder with the study.
    """

    zoo: Zoo
    workspace: Path


def make_family(uri: str, folder: Path) -> FamilyZoo:
    """Search, train, change, merge, register; a dozen seconds."""
    zoo, workspace = Zoo(uri), folder / "searches"
    workspace.mkdir()
    winner = _searched(zoo, workspace, folder / "winner")
    data = load_dataset("digits", num_train=200)
    mutant = _mutant(winner, data)
    for candidate, name, lineage, seed in (
        (mutant, "mutant", _changes(winner, mutant), 1),
        (winner, "winner", Lineage(origin="training", note="trained again"), 2),
    ):
        state = build(candidate.graph, seed=seed).state_dict()
        _add(zoo, folder / f"{name}-{seed}", candidate, state, data, name=name, seed=seed, lineage=lineage)
    parts = [zoo.load("winner/1"), zoo.load("winner/2")]
    mean = {
        key: (parts[0].state[key] + parts[1].state[key]) / 2
        if parts[0].state[key].is_floating_point()
        else parts[0].state[key]
        for key in parts[0].state
    }
    merged = Lineage(origin="merge", ingredients=("winner/1", "winner/2"), note=f"uniform soup {HOSTILE}")
    _add(zoo, folder / "merge", winner, mean, data, name="merge", seed=0, lineage=merged)
    _add_imports(zoo, folder)
    zoo.set_alias("winner/1", "champion")
    return FamilyZoo(zoo, workspace)


def _searched(zoo: Zoo, workspace: Path, folder: Path) -> Candidate:
    parts = load_ingredients(SETTINGS)
    files = Workspace(workspace, STUDY)
    files.begin(SETTINGS)
    study = open_study(parts, files, resume=False)
    tracker = MlflowListener(zoo.uri, storage=str(files.journal))
    result = search(parts, study, listeners=[tracker], checkpoints=files.checkpoints)
    final = finish(parts, result)
    entry = write_winner(folder, "winner", parts, result, final, run_of=tracker.trial_run_id)
    trial = entry.card.lineage.trial
    assert trial is not None
    files.end({"study": STUDY})
    zoo.add(entry.path, "winner", run_id=tracker.trial_run_id(trial))
    return final.candidate


def _mutant(winner: Candidate, data: DataSet) -> Candidate:
    space = load_space("convnet", input_shape=data.input_shape, num_classes=len(data.class_names))
    for seed in range(50):
        mutant = mutate(space, winner.architecture, generator(seed, "mutant"))
        if mutant.graph.fingerprint != winner.graph.fingerprint:
            return mutant
    raise AssertionError("no mutation changed the graph")


def _changes(before: Candidate, after: Candidate) -> Lineage:
    old, new = dict(before.architecture.choices), dict(after.architecture.choices)
    changes = tuple(
        (name, str(old.get(name, "")), str(new.get(name, "")))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    )
    return Lineage(
        origin="training", parent="winner/1", parent_fingerprint=before.graph.fingerprint, mutation=changes
    )


def _add(
    zoo: Zoo,
    folder: Path,
    candidate: Candidate,
    state: Mapping[str, Tensor],
    data: DataSet,
    *,
    name: str,
    seed: int,
    lineage: Lineage,
) -> None:
    facts = data_facts(data, Preparation(num_train=200))
    card: ModelCard = draft_card(
        name, candidate, facts, created="2026-11-20", licence="Apache-2.0", seed=seed
    )
    graph = candidate.graph
    splits = {"validation": data.search.validation, "test": data.test}
    measured = tuple(measure_accuracy(graph, state, split, part) for part, split in splits.items())
    card = replace(
        card,
        measurements=measured,
        lineage=lineage,
        latencies=(latency(0.8 + seed),),
        scores=(("ghn_val_accuracy", 0.4), ("synflow", 12345.678)),
    )
    picture = draw_svg(graph, title=name).encode()
    zoo.add(write_entry(folder, graph, state, card, picture=picture).path, name)


def _add_imports(zoo: Zoo, folder: Path) -> None:
    space = load_space("nasbench201", input_shape=(3, 16, 16), num_classes=10)
    graphs = {
        "deep-transformer": Candidate(Architecture("hand-made", (("depth", 12),)), transformer(12)),
        "import": sample(space, generator(0, "import")),
    }
    for name, candidate in graphs.items():
        card = draft_card(name, candidate, None, created="2026-11-21", licence="MIT", seed=0)
        card = replace(card, lineage=Lineage(origin="import", note=f"model.py:{name}"))
        state = build(candidate.graph, seed=0).state_dict()
        zoo.add(write_entry(folder / name, candidate.graph, state, card).path, name)


__all__ = ["HOSTILE", "SETTINGS", "STUDY", "FamilyZoo", "make_family", "replay"]
