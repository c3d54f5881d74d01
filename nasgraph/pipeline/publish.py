"""The winner as a zoo entry: graph, weights, card and picture in one folder."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nasgraph.data import Preparation
from nasgraph.draw import draw_svg
from nasgraph.evaluate import NodeTrainConfig, TrainConfig
from nasgraph.modelzoo import (
    Lineage,
    ZooEntry,
    data_facts,
    draft_card,
    write_entry,
)
from nasgraph.modelzoo.facts import measure_facts
from nasgraph.pipeline.final import FinalModel
from nasgraph.pipeline.run import Ingredients, node_config, train_config
from nasgraph.search import SearchResult, TrialResult
from nasgraph.spaces import Candidate, Choice

LICENCE = "Apache-2.0"
MAX_CHANGES = 3
"""Choices that may differ for an earlier trial to count as the one that the winner came from."""


def write_winner(
    folder: Path,
    name: str,
    parts: Ingredients,
    result: SearchResult,
    final: FinalModel,
    *,
    run_of: Callable[[int], str | None] = lambda number: None,  # noqa: ARG005
) -> ZooEntry:
    """Write a trained winner as a zoo entry. What the card says was measured here, or stands in the search's record.

    Args:
        folder: Where; must not exist.
        name: Name of the entry.
        parts: What the search was made with.
        result: The search.
        final: The winner's final training.
        run_of: The MLflow run of a trial, by its number; None if there is none.

    Raises:
        ZooError: If the folder exists or the name is not allowed.
        NasGraphError: If the folder cannot be written.
    """
    won = next(trial for trial in result.trials if trial.candidate == final.candidate)
    settings = parts.settings
    preparation = Preparation(image_size=settings.image_size, num_train=settings.num_train)
    card = draft_card(
        name,
        final.candidate,
        data_facts(parts.data, preparation),
        created=time.strftime("%Y-%m-%d"),
        licence=LICENCE,
        seed=final.evaluation.seed,
    )
    graph, state = final.candidate.graph, {k: v.cpu() for k, v in final.evaluation.state.items()}
    splits = {"validation": parts.data.search.validation.to("cpu"), "test": parts.data.test.to("cpu")}
    facts = measure_facts(graph, state, splits, batch_size=final.eval_batch)
    card = replace(
        card,
        measurements=facts.measurements,
        latencies=facts.latencies,
        scores=tuple(sorted(won.scores.items())),
        training=_training_facts(parts, final),
        lineage=_lineage(won, result, run_id=run_of(won.number) or "", ghn=parts.ghn_name),
    )
    picture = draw_svg(graph, title=name).encode()
    return write_entry(folder, graph, state, card, picture=picture)


def _lineage(won: TrialResult, result: SearchResult, *, run_id: str, ghn: str) -> Lineage:
    """Where the winner came from, with the earlier trial that its architecture differs least from."""
    lineage = Lineage(study=result.study, trial=won.number, run_id=run_id, ghn=ghn)
    earlier = [trial for trial in result.trials if trial.number < won.number]
    changes = {trial.number: changed_choices(trial.candidate, won.candidate) for trial in earlier}
    nearest = min(earlier, key=lambda trial: (len(changes[trial.number]), -trial.number), default=None)
    if nearest is None or not 1 <= len(changes[nearest.number]) <= MAX_CHANGES:
        return lineage
    return replace(
        lineage,
        parent_trial=nearest.number,
        parent_fingerprint=nearest.candidate.graph.fingerprint,
        mutation=changes[nearest.number],
    )


def changed_choices(before: Candidate, after: Candidate) -> tuple[tuple[str, str, str], ...]:
    """Choices that differ between two architectures: name, before, after. An absent choice is an empty text."""
    old, new = dict(before.architecture.choices), dict(after.architecture.choices)
    names = dict.fromkeys((*new, *old))
    return tuple(
        (name, str(old.get(name, "")), str(new.get(name, "")))
        for name in names
        if old.get(name) != new.get(name)
    )


def _training_facts(parts: Ingredients, final: FinalModel) -> tuple[tuple[str, Choice], ...]:
    config: TrainConfig | NodeTrainConfig = train_config(parts.settings.final, has_ghn=parts.ghn is not None)
    if parts.data.search.graph is not None:
        config = node_config(parts.settings)
    facts: dict[str, Choice] = {
        name: value for name, value in vars(config).items() if isinstance(value, bool | int | float | str)
    }
    facts["best_epoch"] = int(final.evaluation.metrics["epochs"])
    facts["device"] = str(parts.device)
    return tuple(sorted(facts.items()))
