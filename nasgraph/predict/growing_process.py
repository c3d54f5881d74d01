# ruff: noqa: N815  shape letters after array names, in fields too
"""A Gaussian process over a pool of rows that learns one label at a time: what a search needs.

The model is that of `GaussianProcess`: Matérn-5/2 kernels, one per block of columns, added up, noise, and weak priors. What
differs is the cost. With settings kept, one more label costs one row of the Cholesky factor and one pass over the pool;
settings are fitted anew only when the caller says so, and from where they were. The pool may grow.

While labels are few, many settings fit them, and the best of these is too sure of itself: a search that trusts it now and then
takes long to leave a wrong idea. So there may be several settings, drawn from their posterior by a Markov chain, and an acquisition
is averaged over them (Snoek et al., "Practical Bayesian Optimization of Machine Learning Algorithms", 2012, section 3.2).

Shape letters: M = rows of the pool, N = labelled rows, E = new rows, F = columns, B = blocks, P = settings, S = draws of settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from jaxtyping import Float
from scipy.linalg import cholesky

from nasgraph.predict.gaussian_process import JITTER, LENGTH_PRIOR, Block, MeanAndStd
from nasgraph.predict.growing_settings import (
    LengthPrior,
    SettingsPosterior,
    first_settings,
    solved,
    squared_distances,
)
from nasgraph.seeding import generator

Array = np.ndarray
SEARCH_LENGTH_PRIOR = (0.7, 0.7)
"""A prior of lengths for searches: longer than `LENGTH_PRIOR`. With as few labels as theirs, trends that reach far find the best rows
sooner; averaged over draws of the settings, one that is wrong does less harm."""
CHUNK = 4096
"""Rows of the pool that are looked at at once."""
FIRST_ITERATIONS = 60
WARM_ITERATIONS = 15
"""Steps of the optimiser when it starts from settings that fitted fewer labels."""


@dataclass(eq=False)
class GrowingProcess:
    """A posterior over the rows of a pool. Equal calls in equal order give equal results.

    Attributes:
        pool_MF: The rows that can be asked about at first; finite, columns near standard normal. `extend` adds more.
        blocks: Divide the columns; all in one block if not given. Blocks without columns are left out.
        num_draws: Settings to average over; 1 for the mode of their posterior.
        draw_until: With more labels than this the mode is all there is: it stands for its surroundings by then.
        seed: Of the draws.
        length_prior: Mean and standard deviation of the logarithm of a length.
    """

    pool_MF: Float[Array, "rows columns"]
    blocks: Sequence[Block] = ()
    num_draws: int = 1
    draw_until: int = 100
    seed: int = 0
    length_prior: LengthPrior = LENGTH_PRIOR
    _blocks: tuple[Block, ...] = field(init=False)
    _parts: list[Float[Array, "room _"]] = field(init=False)
    _squares: list[Float[Array, " room"]] = field(init=False)
    _size: int = field(init=False)
    _labelled: list[int] = field(default_factory=list, init=False)
    _awaited: list[int] = field(default_factory=list, init=False)
    _before: list[Float[Array, "draws rows"]] = field(default_factory=list, init=False)
    _mode_P: Float[Array, " settings"] = field(init=False)
    _settings_SP: Float[Array, "draws settings"] = field(init=False)
    _is_fitted: bool = field(default=False, init=False)
    _white_SNM: Float[Array, "draws labelled rows"] = field(init=False)
    _factor_SNN: Float[Array, "draws labelled labelled"] = field(init=False)
    _explained_SM: Float[Array, "draws rows"] = field(init=False)

    def __post_init__(self) -> None:
        blocks = [block for block in (self.blocks or ((0, self.pool_MF.shape[1]),)) if block[1] > block[0]]
        if not blocks:
            raise ValueError("Expected at least one column to tell rows apart by")
        self._blocks, self._size = tuple(blocks), len(self.pool_MF)
        self._parts = self._divided(self.pool_MF)
        self._squares = [np.einsum("mf,mf->m", part, part) for part in self._parts]
        self._mode_P = first_settings(len(blocks), self.length_prior)
        self._settings_SP = self._mode_P[None]
        self._forget()

    def __len__(self) -> int:
        return self._size

    @property
    def labelled(self) -> tuple[int, ...]:
        """Rows that have a label, in the order in which they came."""
        return tuple(self._labelled)

    @property
    def awaited(self) -> tuple[int, ...]:
        """Rows whose labels are awaited, in the order in which they were named."""
        return tuple(self._awaited)

    @property
    def noise(self) -> float:
        """Variance of the noise at the mode."""
        return float(np.exp(self._mode_P[-1]))

    def extend(self, rows_EF: Float[Array, "new columns"]) -> None:
        """Add rows to the pool; they come after those that are there."""
        self.await_labels(())
        old, size = self._size, self._size + len(rows_EF)
        self._reserve_rows(size)
        for part, squares, new in zip(self._parts, self._squares, self._divided(rows_EF), strict=True):
            part[old:size] = new
            squares[old:size] = np.einsum("mf,mf->m", new, new)
        self._size = size
        n = len(self._labelled)
        kernel_SNE = self._kernel(np.array(self._labelled, dtype=int), slice(old, size))
        for draw, kernel_NE in enumerate(kernel_SNE):
            white_NE = solved(self._factor_SNN[draw, :n, :n], kernel_NE)
            self._white_SNM[draw, :n, old:size] = white_NE
            self._explained_SM[draw, old:size] = (white_NE**2).sum(axis=0)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows of the pool but these, which take the places 0, 1, ... in the order given. Labels are dropped too.

        Args:
            rows: At least one, each once.
        """
        index = np.array(rows, dtype=int)
        self._parts = [np.ascontiguousarray(part[index]) for part in self._parts]
        self._squares = [squares[index] for squares in self._squares]
        self._size = len(index)
        self._forget()

    def add(self, row: int) -> None:
        """Take a row among the labelled ones, settings kept. A row may come twice: two measurements of one thing.

        This is one step of a Cholesky factorisation, in which what is left of the row's kernel goes over to the whole pool.
        Rows whose labels are awaited are forgotten.
        """
        self.await_labels(())
        self._take(row)
        self._labelled.append(row)

    def add_all(self, rows: Sequence[int]) -> None:
        """Take many rows at once among the labelled ones: the same as `add` for each but for rounding, and quicker."""
        self.await_labels(())
        self._labelled += rows
        index, n, size = np.array(self._labelled, dtype=int), len(self._labelled), self._size
        self._reserve(n)
        for draw, own_NN in enumerate(self._kernel(index, index)):
            own_NN[np.diag_indices(n)] += self._noise_S[draw] + JITTER
            self._factor_SNN[draw, :n, :n] = cholesky(own_NN, lower=True)
        for low in range(0, size, CHUNK):
            part = slice(low, min(low + CHUNK, size))
            for draw, kernel_NM in enumerate(self._kernel(index, part)):
                white_NM = solved(self._factor_SNN[draw, :n, :n], kernel_NM)
                self._white_SNM[draw, :n, part] = white_NM
                self._explained_SM[draw, part] = (white_NM**2).sum(axis=0)

    def await_labels(self, rows: Sequence[int]) -> None:
        """Know that these rows are being measured, and no others. They condition the spread, not the mean.

        A label that equals the posterior mean leaves the mean where it is, whatever the kernel ("kriging believer"; Ginsbourger
        et al., "Kriging Is Well-Suited to Parallelize Optimization", 2010). Costs as much as the rows that come after those
        that this call and the last have in common at the front.
        """
        common = 0
        while common < min(len(rows), len(self._awaited)) and rows[common] == self._awaited[common]:
            common += 1
        if common < len(self._awaited):
            self._explained_SM[:, : self._size] = self._before[common]
            del self._awaited[common:], self._before[common:]
        for row in rows[common:]:
            self._before.append(self._explained_SM[:, : self._size].copy())
            self._take(row)
            self._awaited.append(row)

    def fit_settings(self, targets: Float[Array, " labelled"], *, among: Sequence[int] | None = None) -> None:
        """Move the settings to the mode of their posterior, from where it was, and draw from there.

        Args:
            targets: One per labelled row, in their order; about mean 0 and variance 1.
            among: Places in `labelled` that are looked at; all if not given. The cost is cubic in their number.
        """
        chosen = np.arange(len(self._labelled)) if among is None else np.array(among, dtype=int)
        index = np.array(self._labelled, dtype=int)[chosen]
        distances_BNN = np.stack(
            [
                squared_distances(part[index], squares[index])
                for part, squares in zip(self._parts, self._squares, strict=True)
            ]
        )
        steps = WARM_ITERATIONS if self._is_fitted else FIRST_ITERATIONS
        posterior = SettingsPosterior.of(distances_BNN, targets[chosen], self.length_prior)
        self._mode_P = posterior.mode(self._mode_P, steps)
        self._settings_SP = self._mode_P[None]
        if self.num_draws > 1 and len(self._labelled) <= self.draw_until:
            rng = generator(self.seed, "settings", len(self._labelled))
            self._settings_SP = posterior.draws(self._mode_P, self.num_draws, rng)
        self._is_fitted = True
        rows = self._labelled
        self._forget()
        self.add_all(rows)

    def posterior(self, targets: Float[Array, " labelled"]) -> MeanAndStd:
        """Mean and standard deviation of the function, without noise, at every row of the pool.

        Args:
            targets: One per labelled row, in their order. They may be others at every call: only the settings remember.
        """
        mean_SM, std_SM = self.posteriors(targets)
        mean = mean_SM.mean(axis=0)
        variance = (std_SM**2 + (mean_SM - mean) ** 2).mean(axis=0)
        return mean, np.sqrt(variance)

    def posteriors(
        self, targets: Float[Array, " labelled"]
    ) -> tuple[Float[Array, "draws rows"], Float[Array, "draws rows"]]:
        """The same for each draw of the settings."""
        n, size = len(self._labelled), self._size
        white_SN = np.stack([solved(factor[:n, :n], targets) for factor in self._factor_SNN])
        mean_SM = np.stack([w @ part[:n, :size] for w, part in zip(white_SN, self._white_SNM, strict=True)])
        variance_SM = self._variance_S[:, None] - self._explained_SM[:, :size]
        return mean_SM, np.sqrt(np.maximum(variance_SM, JITTER))

    def covariances(self, rows: Sequence[int]) -> Float[Array, "draws some some"]:
        """Covariance of the function at some rows, given the labels, and the awaited ones, for each draw of the settings."""
        index, n = np.array(rows, dtype=int), len(self._labelled) + len(self._awaited)
        white_SNR = self._white_SNM[:, :n][:, :, index]
        result: Array = self._kernel(index, index) - np.swapaxes(white_SNR, 1, 2) @ white_SNR
        return result

    @property
    def _variance_S(self) -> Float[Array, " draws"]:  # noqa: N802  shape letters
        result: Array = np.exp(self._settings_SP[:, : len(self._blocks)]).sum(axis=1)
        return result

    @property
    def _noise_S(self) -> Float[Array, " draws"]:  # noqa: N802  shape letters
        result: Array = np.exp(self._settings_SP[:, -1])
        return result

    def _take(self, row: int) -> None:
        """One more row of the factors."""
        n, size = len(self._labelled) + len(self._awaited), self._size
        self._reserve(n + 1)
        kernel_SM = self._kernel(np.array([row]), slice(0, size))[:, 0]
        for draw, kernel_M in enumerate(kernel_SM):
            own = self._white_SNM[draw, :n, row].copy()
            rest = float(kernel_M[row]) + self._noise_S[draw] + JITTER - float(own @ own)
            diagonal = sqrt(max(rest, JITTER))
            self._factor_SNN[draw, n, :n], self._factor_SNN[draw, n, n] = own, diagonal
            white_M = (kernel_M - own @ self._white_SNM[draw, :n, :size]) / diagonal
            self._white_SNM[draw, n, :size] = white_M
            self._explained_SM[draw, :size] += white_M**2

    def _kernel(self, rows: Array, others: Array | slice) -> Float[Array, "draws some others"]:
        """The prior's covariance for each draw of the settings."""
        B, total_S = len(self._blocks), [np.zeros(())] * len(self._settings_SP)
        for index, (part, squares) in enumerate(zip(self._parts, self._squares, strict=True)):
            dots = part[rows] @ part[others].T
            squared = np.maximum(squares[rows][:, None] + squares[others] - 2 * dots, 0) / part.shape[1]
            root = np.sqrt(5 * (squared + 1e-12))
            for draw, settings in enumerate(self._settings_SP):
                r = root / np.exp(settings[B + index])
                total_S[draw] = total_S[draw] + np.exp(settings[index]) * (1 + r + r**2 / 3) * np.exp(-r)
        return np.stack(total_S)

    def _divided(self, rows_EF: Float[Array, "new columns"]) -> list[Array]:
        return [np.array(rows_EF[:, low:high], dtype=np.float64, order="C") for low, high in self._blocks]

    def _forget(self) -> None:
        """No labelled rows."""
        S, room = len(self._settings_SP), len(self._parts[0])
        self._labelled, self._awaited, self._before = [], [], []
        self._white_SNM, self._factor_SNN = np.zeros((S, 0, room)), np.zeros((S, 0, 0))
        self._explained_SM = np.zeros((S, room))

    def _reserve(self, count: int) -> None:
        """Room for so many labelled rows; it grows by half when it is full."""
        S, held, room = self._white_SNM.shape
        if count <= held:
            return
        more = max(16, held + held // 2, count)
        white, factor = np.zeros((S, more, room)), np.zeros((S, more, more))
        white[:, :held], factor[:, :held, :held] = self._white_SNM, self._factor_SNN
        self._white_SNM, self._factor_SNN = white, factor

    def _reserve_rows(self, size: int) -> None:
        """Room for so many rows of the pool; it grows by half when it is full."""
        held = len(self._parts[0])
        if size <= held:
            return
        more = max(16, held // 2, size - held)
        self._parts = [np.pad(part, ((0, more), (0, 0))) for part in self._parts]
        self._squares = [np.pad(squares, (0, more)) for squares in self._squares]
        self._white_SNM = np.pad(self._white_SNM, ((0, 0), (0, 0), (0, more)))
        self._explained_SM = np.pad(self._explained_SM, ((0, 0), (0, more)))
