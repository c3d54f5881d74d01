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
    measure_accuracy,
    write_entry,
)
from nasgraph.pipeline.final import FinalModel
from nasgraph.pipeline.run import Ingredients, node_config, train_config
from nasgraph.search import SearchResult
from nasgraph.spaces import Choice

LICENCE = "Apache-2.0"


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
    splits = {"validation": parts.data.search.validation, "test": parts.data.test}
    card = replace(
        card,
        measurements=tuple(
            measure_accuracy(graph, state, split.to("cpu"), name, batch_size=final.eval_batch)
            for name, split in splits.items()
        ),
        scores=tuple(sorted(won.scores.items())),
        training=_training_facts(parts, final),
        lineage=Lineage(
            study=result.study, trial=won.number, run_id=run_of(won.number) or "", ghn=parts.ghn_name
        ),
    )
    picture = draw_svg(graph, title=name).encode()
    return write_entry(folder, graph, state, card, picture=picture)


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
