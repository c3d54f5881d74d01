"""A recurrent policy: probabilities of the answers to a question, given all earlier answers.

Written in numpy, with the gradients by hand, because a policy is asked one question at a time, where the calls of torch
cost more than the arithmetic.

Shape letters: B = trajectories, T = questions of the longest, N = answers to one question, O = its options, H = hidden size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from nasgraph.search.strategies._draws import Draw, Draws
from nasgraph.seeding import generator
from nasgraph.spaces import Question
from nasgraph.spaces.space import C, index_of

Array = np.ndarray
Table = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The answers that make an architecture, in the order in which its space asks.

    Attributes:
        starts: For each question the row of its first option in the policy's tables.
        sizes: For each question how many options it has.
        places: For each question the place of the answer among them.
    """

    starts: tuple[int, ...]
    sizes: tuple[int, ...]
    places: tuple[int, ...]


@dataclass(eq=False)
class RecurrentPolicy:
    """An Elman network (Elman 1990) over questions and answers, as the controller of Zoph and Le (2017) is an LSTM.

    Before a question, the state is h = tanh(W h' + embed[answer before]), and the answers have the logits
    read[answer] h + bias[answer], with a row of each table for every option of every question. Options get their rows
    when the question comes up, from the seed and the name of the question, so that it does not matter which is first.
    `read` and `bias` begin at zero: the policy begins uniform.

    Attributes:
        seed: Decides the weights at the beginning.
        hidden_dim: Size of the state.
        learning_rate: Of Adam.
    """

    seed: int
    hidden_dim: int
    learning_rate: float
    tables: Table = field(init=False)
    _first: Table = field(init=False)
    _second: Table = field(init=False)
    _num_updates: int = 0
    _starts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        dim = self.hidden_dim
        rng = generator(self.seed, "policy", "recurrent")
        empty = {"embed": np.zeros((0, dim)), "read": np.zeros((0, dim)), "bias": np.zeros(0)}
        self.tables = {"recurrent": rng.normal(0.0, 0.7 / np.sqrt(dim), size=(dim, dim)), **empty}
        self._first = {key: np.zeros_like(value) for key, value in self.tables.items()}
        self._second = {key: np.zeros_like(value) for key, value in self.tables.items()}

    def start_of(self, name: str, size: int) -> int:
        """The row of the first option of a question."""
        if name not in self._starts:
            self._starts[name] = len(self.tables["bias"])
            rng = generator(self.seed, "policy", "question", name)
            embed = rng.normal(0.0, 0.5, size=(size, self.hidden_dim))
            for tables, rows in ((self.tables, embed), (self._first, 0 * embed), (self._second, 0 * embed)):
                tables["embed"] = np.vstack([tables["embed"], rows])
                tables["read"] = np.vstack([tables["read"], 0 * embed])
                tables["bias"] = np.append(tables["bias"], np.zeros(size))
        return self._starts[name]

    def trajectory(self, questions: Sequence[Question]) -> Trajectory:
        """The trajectory of answered questions."""
        places = [index_of(question.options, question.answer) for question in questions]
        return Trajectory(
            tuple(self.start_of(question.name, len(question.options)) for question in questions),
            tuple(len(question.options) for question in questions),
            tuple(place for place in places if place is not None),
        )

    # ---- one question at a time

    def log_probabilities(
        self, state: Float[Array, " hidden"], start: int, size: int
    ) -> Float[Array, " options"]:
        """Of each answer to a question."""
        logits = self.tables["read"][start : start + size] @ state + self.tables["bias"][start : start + size]
        logits = logits - logits.max()
        return np.asarray(logits - np.log(np.exp(logits).sum()))

    def advance(self, state: Float[Array, " hidden"], row: int) -> Float[Array, " hidden"]:
        """The state after the answer that has this row."""
        return np.asarray(np.tanh(self.tables["recurrent"] @ state + self.tables["embed"][row]))

    # ---- learning

    def log_likelihoods(self, trajectories: Sequence[Trajectory]) -> Float[Array, " trajectories"]:
        """The logarithm of the probability of each trajectory."""
        return _Pass(self, trajectories).log_likelihood_B

    def ascend(
        self,
        trajectories: Sequence[Trajectory],
        weigh: Callable[[Float[Array, " trajectories"]], Float[Array, " trajectories"]],
        *,
        entropy: float = 0.0,
    ) -> None:
        """One step of Adam (Kingma and Ba 2015) up the gradient of: the weighted sum of the logarithms of the trajectories'
        probabilities, plus `entropy` times the mean over the trajectories of the entropies at their questions, summed.
        `weigh` gives the weights, knowing the logarithms."""
        self._num_updates += 1
        forward = _Pass(self, trajectories)
        gradient = forward.gradient(weigh(forward.log_likelihood_B), entropy)
        correction = 1.0 - 0.9**self._num_updates, 1.0 - 0.999**self._num_updates
        for key, value in gradient.items():
            first, second = self._first[key], self._second[key]
            first += 0.1 * (value - first)
            second += 0.001 * (value**2 - second)
            step = first / correction[0] / (np.sqrt(second / correction[1]) + 1e-8)
            self.tables[key] = self.tables[key] + self.learning_rate * step


@dataclass(frozen=True, slots=True)
class _Asked:
    """All answers of a batch to one question; N of them.

    Attributes:
        rows: The rows of the question's options.
        places: Where in the batch, as place among all answers in the order trajectory by trajectory.
        answers: Places of the answers among the options.
        states: States before the question.
        log_p: Logarithms of the probabilities of the options.
    """

    rows: slice
    places: Int[Array, " answers"]
    answers: Int[Array, " answers"]
    states: Float[Array, "answers hidden"]
    log_p: Float[Array, "answers options"]


class _Pass:
    """All trajectories of a batch through the policy: the states step by step, then the answers question by question."""

    def __init__(self, policy: RecurrentPolicy, trajectories: Sequence[Trajectory]) -> None:
        self._tables = policy.tables
        self._size = len(trajectories)
        self._length = max(len(trajectory.sizes) for trajectory in trajectories)
        padded = np.zeros((3, self._size, self._length), dtype=np.int64)
        for place, t in enumerate(trajectories):
            padded[:, place, : len(t.sizes)] = t.starts, t.sizes, t.places
        starts_BT, self._sizes_BT, places_BT = padded
        self._rows_BT = starts_BT + places_BT
        self._states_BTH = self._run(policy.hidden_dim)
        self._asked = self._ask(starts_BT.ravel(), places_BT.ravel())
        likelihoods = np.zeros(self._size * self._length)
        for asked in self._asked:
            likelihoods[asked.places] = asked.log_p[np.arange(len(asked.answers)), asked.answers]
        self.log_likelihood_B: Float[Array, " trajectories"] = likelihoods.reshape(self._size, -1).sum(axis=1)

    def _run(self, dim: int) -> Float[Array, "B T1 H"]:
        recurrent, embedded_BTH = self._tables["recurrent"], self._tables["embed"][self._rows_BT]
        states_BTH = np.zeros((self._size, self._length + 1, dim))
        for t in range(self._length):
            states_BTH[:, t + 1] = np.tanh(states_BTH[:, t] @ recurrent.T + embedded_BTH[:, t])
        return states_BTH

    def _ask(self, starts: Int[Array, " answers"], answers: Int[Array, " answers"]) -> list[_Asked]:
        sizes = self._sizes_BT.ravel()
        real = np.flatnonzero(sizes)
        ordered = real[np.argsort(starts[real], kind="stable")]
        states = self._states_BTH[:, :-1].reshape(len(starts), -1)
        result = []
        for places in np.split(ordered, np.flatnonzero(np.diff(starts[ordered])) + 1):
            first = int(starts[places[0]])
            rows = slice(first, first + int(sizes[places[0]]))
            logits = states[places] @ self._tables["read"][rows].T + self._tables["bias"][rows]
            logits -= logits.max(axis=1, keepdims=True)
            log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            result.append(_Asked(rows, places, answers[places], states[places], log_p))
        return result

    def gradient(self, weights_B: Float[Array, " trajectories"], entropy: float) -> Table:
        """See `RecurrentPolicy.ascend`."""
        table = {key: np.zeros_like(value) for key, value in self._tables.items()}
        from_read = np.zeros((self._size * self._length, self._states_BTH.shape[2]))
        for asked in self._asked:
            p_NO, weights_N1 = np.exp(asked.log_p), weights_B[asked.places // self._length, None]
            delta_NO = -weights_N1 * p_NO
            delta_NO[np.arange(len(p_NO)), asked.answers] += weights_N1[:, 0]
            negative_entropy_N1 = (p_NO * asked.log_p).sum(axis=1, keepdims=True)
            delta_NO -= entropy / self._size * p_NO * (asked.log_p - negative_entropy_N1)
            table["bias"][asked.rows] = delta_NO.sum(axis=0)
            table["read"][asked.rows] = delta_NO.T @ asked.states
            from_read[asked.places] = delta_NO @ self._tables["read"][asked.rows]
        from_read_BTH = from_read.reshape(self._size, self._length, -1)
        inner_BTH = np.zeros_like(from_read_BTH)
        after_BH = np.zeros_like(from_read_BTH[:, 0])
        for t in reversed(range(self._length)):
            inner_BTH[:, t] = after_BH * (1.0 - self._states_BTH[:, t + 1] ** 2)
            after_BH = inner_BTH[:, t] @ self._tables["recurrent"] + from_read_BTH[:, t]
        inner = inner_BTH.reshape(len(from_read), -1)
        table["recurrent"] = inner.T @ self._states_BTH[:, :-1].reshape(len(from_read), -1)
        order = np.argsort(self._rows_BT.ravel(), kind="stable")
        rows = self._rows_BT.ravel()[order]
        firsts = np.flatnonzero(np.diff(rows, prepend=-1))
        table["embed"][rows[firsts]] = np.add.reduceat(inner[order], firsts, axis=0)
        return table


@dataclass(eq=False)
class PolicyChooser:
    """Answers by drawing from a policy. Use it for one architecture.

    Attributes:
        policy: Where the probabilities come from.
        rng: Draws.
        explore: Chance of a uniform draw at each question.
    """

    policy: RecurrentPolicy
    rng: np.random.Generator
    explore: float = 0.0

    def __post_init__(self) -> None:
        self._state = np.zeros(self.policy.hidden_dim)

    def categorical(self, name: str, options: Sequence[C]) -> C:
        return options[self._draw(name, len(options))]

    def integer(self, name: str, low: int, high: int) -> int:
        return low + self._draw(name, high - low + 1)

    def _draw(self, name: str, size: int) -> int:
        start = self.policy.start_of(name, size)
        p = np.exp(self.policy.log_probabilities(self._state, start, size))
        cumulative = np.cumsum((1.0 - self.explore) * p + self.explore / size)
        place = min(int(np.searchsorted(cumulative, self.rng.random(), side="right")), size - 1)
        self._state = self.policy.advance(self._state, start + place)
        return place


def policy_draws(
    draws: Draws, policy: RecurrentPolicy, rng: np.random.Generator, *, max_draws: int, explore: float = 0.0
) -> Iterator[Draw | None]:
    """Draws from a policy; after them, changes of one choice of the last, and then uniform draws, as many of each."""
    last: Draw | None = None
    for _ in range(max_draws):
        last = draws.build(PolicyChooser(policy, rng, explore=explore)) or last
        yield last
    yield from draws.walk(last, rng, steps=max_draws)
    yield from draws.random(rng, tries=max_draws)
