"""The first of two stages: score many candidates without training, and keep the best for the trials."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any

import numpy as np
from scipy.stats import rankdata

from nasgraph.errors import InvalidGraphError, NasGraphError
from nasgraph.search.history import SCORES, History
from nasgraph.search.owners import machine_lock
from nasgraph.search.records import Screen, ScreenedCandidate, SearchConfig, SearchListener
from nasgraph.seeding import generator
from nasgraph.spaces import Candidate, SearchSpace, sample

logger = logging.getLogger(__name__)

SCREENING = "screening"
RANK = "screening_rank"
RANK_SCORE = "rank_score"


def screen_candidates(
    space: SearchSpace,
    screen: Screen,
    history: History,
    config: SearchConfig,
    *,
    listeners: Sequence[SearchListener],
    out_of_time: Callable[[], bool],
) -> tuple[ScreenedCandidate, ...]:
    """Score `num_screened` different random candidates and enqueue the best `num_kept` as the first trials.

    Which are kept is written into the study in one piece before any is enqueued, so the stage happens once per
    study: killed before that it starts again, with the same candidates; killed after it, what is missing is enqueued.

    Returns:
        All scored candidates, best first. None if the study was screened before; none, and nothing is kept, if the
        time ran out.

    Raises:
        NasGraphError: If `screen` breaks its contract.
    """
    screened: tuple[ScreenedCandidate, ...] = ()
    done = history.study.user_attrs.get(SCREENING)
    if done is None:
        scored = _score(space, screen, config, listeners, out_of_time)
        if scored is None:
            return ()
        screened = _decide(scored, config)
        done = {
            "num_screened": config.num_screened,
            "num_kept": config.num_kept,
            "kept": [
                {"choices": item.candidate.architecture.choices, "scores": dict(item.scores)}
                for item in screened
                if item.kept
            ],
        }
        history.study.set_user_attr(SCREENING, done)
        for listener in listeners:
            listener.on_kept(screened)
    elif (done["num_screened"], done["num_kept"]) != (config.num_screened, config.num_kept):
        logger.warning(
            "The study was screened before (%d, %d kept): 'num_screened' and 'num_kept' are ignored",
            done["num_screened"],
            done["num_kept"],
        )
    _enqueue_missing(history, done["kept"])
    return screened


def distinct_candidates(space: SearchSpace, config: SearchConfig) -> Iterator[Candidate]:
    """Random candidates with different graphs, the same for equal seeds.

    Ends when `max_duplicates` draws in a row bring nothing new: then most of the space has been seen.
    """
    seen: set[str] = set()
    in_vain = 0
    for draw in count():
        try:
            candidate = sample(space, generator(config.seed, "screen", draw))
            known = candidate.graph.fingerprint in seen
        except InvalidGraphError as error:
            logger.warning("The space '%s' gives an invalid graph: %s", space.name, error)
            known = True
        in_vain = in_vain + 1 if known else 0
        if in_vain >= config.max_duplicates:
            return
        if not known:
            seen.add(candidate.graph.fingerprint)
            yield candidate


def _score(
    space: SearchSpace,
    screen: Screen,
    config: SearchConfig,
    listeners: Sequence[SearchListener],
    out_of_time: Callable[[], bool],
) -> list[ScreenedCandidate] | None:
    candidates = islice(distinct_candidates(space, config), config.num_screened)
    scored: list[ScreenedCandidate] = []
    while batch := list(islice(candidates, config.screen_batch)):
        if out_of_time():
            return None
        scores = screen([candidate.graph for candidate in batch])
        new = [_screened(candidate, score, config) for candidate, score in zip(batch, scores, strict=True)]
        scored += new
        for listener in listeners:
            listener.on_screened(new, total=config.num_screened)
    if len(scored) < config.num_screened:
        logger.warning(
            "Screened %d candidates, not %d: the space '%s' has few more",
            len(scored),
            config.num_screened,
            space.name,
        )
    return scored


def _screened(candidate: Candidate, scores: Mapping[str, float], config: SearchConfig) -> ScreenedCandidate:
    missing = sorted(set(config.rank_by) - set(scores))
    if missing:
        raise NasGraphError(
            f"Expected the screen to give '{missing[0]}' (got {', '.join(sorted(scores)) or 'nothing'})"
        )
    return ScreenedCandidate(candidate, {name: float(value) for name, value in scores.items()}, kept=False)


def _decide(scored: Sequence[ScreenedCandidate], config: SearchConfig) -> tuple[ScreenedCandidate, ...]:
    """Best first; equals by fingerprint. The first `num_kept` are kept. Who lacks a score stands last by it."""
    ranks = np.zeros(len(scored))
    for name in config.rank_by:
        values = np.array([item.scores[name] for item in scored])
        ranks += rankdata(np.where(np.isnan(values), -np.inf, values)) - 1
    if len(scored):
        ranks /= len(config.rank_by) * max(1, len(scored) - 1)
    with_rank = [
        replace(item, scores={**item.scores, RANK_SCORE: float(rank)})
        for item, rank in zip(scored, ranks, strict=True)
    ]
    ranked = sorted(with_rank, key=lambda item: (-item.scores[RANK_SCORE], item.candidate.graph.fingerprint))
    return tuple(replace(item, kept=place < config.num_kept) for place, item in enumerate(ranked))


def _enqueue_missing(history: History, kept: Sequence[Mapping[str, Any]]) -> None:
    with machine_lock():
        present = {trial.user_attrs.get(RANK) for trial in history.study.get_trials(deepcopy=False)}
        for rank, item in enumerate(kept):
            if rank not in present:
                history.study.enqueue_trial(
                    dict(item["choices"]), user_attrs={SCORES: item["scores"], RANK: rank}
                )
        history.refresh()
