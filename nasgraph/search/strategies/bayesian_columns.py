# ruff: noqa: N815  shape letters after array names, in fields too
"""Candidates as numbers: what their graphs look like, and the choices that made them.

Graph features leave out widths and whatever else keeps the pattern of operators as it is; choices have it all. A process with
a kernel for each follows whichever says more.

Shape letters: C = candidates, F = columns, K = knots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nasgraph.predict.columns import ColumnScale
from nasgraph.predict.gaussian_process import Block
from nasgraph.predict.graph_features import GraphFeatures, NeighbourhoodFeatures
from nasgraph.predict.ranks import NormalScores
from nasgraph.spaces import Architecture, Candidate, Choice, Question, ReplayChooser, SearchSpace, realise

Array = np.ndarray
MIN_ASKED = 0.01
"""Choices that are asked for in fewer candidates than this share have no columns."""
MAX_KNOTS = 24
MARGIN = 1.0
"""How far beyond those of known rows scaled values may go, in standard deviations of the normal scale."""
CHUNK = 256


@dataclass(frozen=True, slots=True)
class _Coding:
    """Where the columns of one choice lie.

    Attributes:
        asked: Column that says whether the choice was asked for.
        first: The next column: the value itself, or the first of one per option.
        options: Place of every option; empty if the value itself is the column.
        missing: What stands for the value where the choice is not asked for.
    """

    asked: int
    first: int
    options: Mapping[tuple[bool, Choice], int]
    missing: float


@dataclass(frozen=True)
class ChoiceFeatures:
    """Describes architectures by their named choices: numbers by their value, other options by one column each.

    A choice that only some architectures have gets a column that says so.

    Attributes:
        width: Number of columns.
    """

    width: int
    _codings: Mapping[str, _Coding]

    @staticmethod
    def of(questions: Sequence[Sequence[Question]]) -> "ChoiceFeatures":
        """Features for the choices that these candidates were asked for."""
        asked: dict[str, list[Question]] = {}
        for each in questions:
            for question in each:
                asked.setdefault(question.name, []).append(question)
        codings, width = {}, 0
        for name in sorted(asked):
            options = asked[name][0].options
            if len(options) < 2 or len(asked[name]) < MIN_ASKED * len(questions):
                continue
            is_number = all(isinstance(o, int | float) and not isinstance(o, bool) for o in options)
            missing = float(np.mean([q.answer for q in asked[name]])) if is_number else 0.0
            places = {} if is_number else {_key(option): i for i, option in enumerate(options)}
            codings[name] = _Coding(width, width + 1, places, missing)
            width += 1 + (1 if is_number else len(options))
        return ChoiceFeatures(width, codings)

    def __call__(self, architectures: Sequence[Architecture]) -> Float[Array, "architectures columns"]:
        """One row per architecture."""
        rows = np.zeros((len(architectures), self.width))
        for coding in self._codings.values():
            if not coding.options:
                rows[:, coding.first] = coding.missing
        for row, architecture in zip(rows, architectures, strict=True):
            for name, answer in architecture.choices:
                if name not in self._codings:
                    continue
                coding = self._codings[name]
                row[coding.asked] = 1
                if not coding.options:
                    row[coding.first] = float(answer)
                elif _key(answer) in coding.options:
                    row[coding.first + coding.options[_key(answer)]] = 1
        return rows


def _key(option: Choice) -> tuple[bool, Choice]:
    """`True` and `1` are different answers."""
    return isinstance(option, bool), option


@dataclass(frozen=True, eq=False)
class CandidateColumns:
    """Describes candidates of one space by columns that are near standard normal among those that it was made from.

    Attributes:
        blocks: Families of columns that belong together: those of `GraphFeatures`, neighbourhoods, and choices.
    """

    blocks: tuple[Block, ...]
    _graphs: GraphFeatures
    _around: NeighbourhoodFeatures
    _choices: ChoiceFeatures
    _kept: tuple[int, ...]
    _scale: "_Knots"

    @staticmethod
    def of(space: SearchSpace, candidates: Sequence[Candidate]) -> "CandidateColumns":
        """Columns whose kinds and scales are those of some candidates, one at least."""
        graphs = [candidate.graph for candidate in candidates]
        questions = [
            realise(space, ReplayChooser(dict(c.architecture.choices)))[1] for c in candidates[:CHUNK]
        ]
        features, around = GraphFeatures.of(graphs), NeighbourhoodFeatures.of(graphs)
        choices = ChoiceFeatures.of(questions)
        ends = np.cumsum([features.blocks[-1][1], len(around.known), choices.width]).tolist()
        blocks = (*features.blocks, (ends[0], ends[1]), (ends[1], ends[2]))
        raw = np.column_stack(
            [features(graphs), around(graphs), choices([c.architecture for c in candidates])]
        )
        scale = ColumnScale.of(raw, blocks)
        used = tuple(block for block in scale.blocks if block[1] > block[0])
        knots = _Knots.of(raw[:, list(scale.kept)])
        return CandidateColumns(used or ((0, 1),), features, around, choices, scale.kept, knots)

    def __call__(self, candidates: Sequence[Candidate]) -> Float[Array, "candidates columns"]:
        """One row per candidate; a single zero where nothing tells candidates apart."""
        if not self._kept:
            return np.zeros((len(candidates), 1))
        graphs = [candidate.graph for candidate in candidates]
        raw = np.column_stack(
            [
                self._graphs(graphs),
                self._around(graphs),
                self._choices([c.architecture for c in candidates]),
            ]
        )
        return self._scale(raw[:, list(self._kept)])


@dataclass(frozen=True, eq=False)
class _Knots:
    """Normal scores of many columns at once, along lines between a few knots: `ColumnScale` column by column is exact, and
    takes milliseconds for a single row. Beyond the known values it goes on with the mean slope, for a margin: unlike rows of a
    table, new candidates may lie there."""

    _known_FK: Float[Array, "columns knots"]
    _score_FK: Float[Array, "columns knots"]
    _slope_F: Float[Array, " columns"]

    @staticmethod
    def of(rows_CF: Float[Array, "candidates columns"]) -> "_Knots":
        """Of columns none of which is constant."""
        F = rows_CF.shape[1]
        known, score = np.full((F, MAX_KNOTS), np.inf), np.zeros((F, MAX_KNOTS))
        slope = np.zeros(F)
        for column in range(F):
            scores = NormalScores.of(rows_CF[:, column])
            values = scores(rows_CF[:, column])
            place = np.unique(np.linspace(0, len(scores.known) - 1, MAX_KNOTS).round().astype(int))
            at = (scores.quantile[place] - values.mean()) / values.std()
            known[column, : len(place)], score[column, : len(place)] = scores.known[place], at
            score[column, len(place) :] = at[-1]
            slope[column] = (at[-1] - at[0]) / (scores.known[-1] - scores.known[0])
        return _Knots(known, score, slope)

    def __call__(self, rows_CF: Float[Array, "candidates columns"]) -> Float[Array, "candidates columns"]:
        parts = [self._some(rows_CF[low : low + CHUNK]) for low in range(0, len(rows_CF), CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(rows_CF.shape)

    def _some(self, x_CF: Array) -> Array:
        columns = np.arange(x_CF.shape[1])
        last = np.isfinite(self._known_FK).sum(axis=1) - 1
        below = np.clip((x_CF[:, :, None] >= self._known_FK).sum(axis=-1) - 1, 0, last - 1)
        low, high = self._known_FK[columns, below], self._known_FK[columns, below + 1]
        first, then = self._score_FK[columns, below], self._score_FK[columns, below + 1]
        least, most = self._known_FK[:, 0], self._known_FK[columns, last]
        inside = first + (np.clip(x_CF, least, most) - low) / (high - low) * (then - first)
        beyond = self._slope_F * (np.maximum(x_CF - most, 0) - np.maximum(least - x_CF, 0))
        result: Array = inside + np.clip(beyond, -MARGIN, MARGIN)
        return result
