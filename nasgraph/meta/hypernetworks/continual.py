"""Learning tasks one after the other without forgetting: one hypernetwork, one embedding per task.

Follows von Oswald et al. 2020, "Continual learning with hypernetworks", equation 2. The hypernetwork makes the parameters of the target from
the embedding of a task. What it makes for the tasks before is held where it was by a penalty on its *outputs*; no data of those
tasks are kept. Departures: the penalty looks at the present parameters instead of those after the next step (the paper's own cheaper
variant), and embeddings enter by MIP.

Letters: T = tasks learnt, D = numbers in an embedding, P = parameters of the target.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasgraph.data import Split
from nasgraph.errors import CheckpointError, ConfigError, NasGraphError, UnknownNameError
from nasgraph.files import Json, parse_json
from nasgraph.hyper.checkpoint import CONFIG, WEIGHTS, check_state
from nasgraph.hyper.network_folder import read_config, read_description, read_weights_of, write_network
from nasgraph.ir import ComputationalGraph, graph_to_json
from nasgraph.meta.hypernetworks.config import HypernetworkConfig
from nasgraph.meta.hypernetworks.files import empty_hypernetwork, read_target
from nasgraph.meta.hypernetworks.hypernetwork import Hypernetwork
from nasgraph.modules import Program, RunContext
from nasgraph.seeding import derive_seed

SCHEMA = "nasgraph/continual/1"


@dataclass(frozen=True, kw_only=True)
class ContinualConfig:
    """How tasks are learnt.

    Attributes:
        beta: Weight of the penalty on what changes for the tasks before. Zero forgets.
        steps: Training steps per task.
        batch_size: Examples per step.
        learning_rate: Of Adam, for the hypernetwork and the embedding of the task.
        embedding_std: Standard deviation of new embeddings.
        clip_norm: Largest norm of a gradient.

    Raises:
        ConfigError: If a value is out of its range.
    """

    beta: float = 0.1
    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 1e-3
    embedding_std: float = 1.0
    clip_norm: float = 10.0

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ConfigError(f"Expected 'beta' of at least 0 (got {self.beta})")
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Expected '{name}' of at least 1 (got {getattr(self, name)})")
        for name in ("learning_rate", "embedding_std", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"Expected '{name}' above 0 (got {getattr(self, name)})")


@dataclass(frozen=True, slots=True)
class LearntTask:
    """One line of the record.

    Attributes:
        name: Name of the task.
        examples: Training examples.
        steps: Training steps.
        loss: Mean training loss of the last tenth of the steps.
        accuracy: Accuracy on held-out examples right after it was learnt; None if there were none.
    """

    name: str
    examples: int
    steps: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class ContinualScores:
    """How well all tasks are done now.

    Attributes:
        accuracy: Held-out accuracy by task.
        forgetting: Mean over all tasks but the last of (accuracy right after learning - accuracy now); zero for one task. Negative if
            later tasks helped.
    """

    accuracy: dict[str, float]
    forgetting: float

    @property
    def mean_accuracy(self) -> float:
        """Mean over the tasks."""
        return sum(self.accuracy.values()) / len(self.accuracy)


class ContinualLearner:
    """Learns classification tasks in sequence; each is asked for by its name.

    A task that is cut off while it is learnt leaves the learner as it was before. Equal seeds give equal learners.

    Args:
        graph: The target network: one input, logits as its output. All tasks share its shape; labels of each task count from 0.
        hypernetwork: Shape of the hypernetwork; `condition` has to be "free".
        config: How tasks are learnt.
        seed: Seed of initial parameters, embeddings and the order of examples.

    Raises:
        NasGraphError: If the graph has batch norms, several inputs or outputs, or no logits.
        ConfigError: If the condition is not "free".
    """

    def __init__(
        self,
        graph: ComputationalGraph,
        hypernetwork: HypernetworkConfig,
        config: ContinualConfig | None = None,
        *,
        seed: int = 0,
    ) -> None:
        _check_graph(graph)
        if hypernetwork.condition != "free":
            raise ConfigError(
                f"Expected 'condition' to be 'free': task embeddings are learnt numbers (got '{hypernetwork.condition}')"
            )
        self.config = config or ContinualConfig()
        self.seed = seed
        self.hypernetwork = Hypernetwork(graph, hypernetwork, seed=derive_seed(seed, "hypernetwork"))
        self.record: tuple[LearntTask, ...] = ()
        self.embeddings = torch.zeros(0, hypernetwork.condition_dim)  # [T, D]
        self._program = Program(graph)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks in the order in which they were learnt."""
        return tuple(task.name for task in self.record)

    @property
    def num_parameters(self) -> int:
        """Numbers that are kept: the hypernetwork and one embedding per task."""
        return self.hypernetwork.num_parameters + self.embeddings.numel()

    def learn(
        self,
        name: str,
        data: Split,
        *,
        held_out: Split | None = None,
        on_step: Callable[[int, float], None] | None = None,
    ) -> LearntTask:
        """Learn one more task.

        Args:
            name: Its name; not used before.
            data: Its training examples, labels from 0.
            held_out: Other examples of it; their accuracy goes into the record, and `scores` needs it.
            on_step: Told the number of steps done and the loss of each.

        Raises:
            NasGraphError: If the name is taken or empty, or the examples do not fit the graph.
        """
        if not name or name in self.tasks:
            raise NasGraphError(
                f"Expected a new name for the task (got '{name}'). Learnt so far: {', '.join(self.tasks) or 'none'}"
            )
        _check_data(self.hypernetwork.graph, data, name)
        if held_out is not None:
            _check_data(self.hypernetwork.graph, held_out, name)
        rng = torch.Generator().manual_seed(derive_seed(self.seed, "task", len(self.record)))
        hypernetwork = copy.deepcopy(self.hypernetwork)
        embedding = nn.Parameter(
            torch.randn(self.embeddings.shape[1], generator=rng) * self.config.embedding_std
        )
        losses = self._train(hypernetwork, embedding, data, rng, on_step)
        tail = losses[-max(1, len(losses) // 10) :]
        task = LearntTask(name, len(data), len(losses), sum(tail) / len(tail), None)
        before = (self.hypernetwork, self.embeddings, self.record)
        self.hypernetwork = hypernetwork
        self.embeddings = torch.cat([self.embeddings, embedding.detach().unsqueeze(0)])
        self.record = (*self.record, task)
        try:
            if held_out is not None:
                task = replace(task, accuracy=self.accuracy(name, held_out))
        except BaseException:
            self.hypernetwork, self.embeddings, self.record = before
            raise
        self.record = (*self.record[:-1], task)
        return task

    def _train(
        self,
        hypernetwork: Hypernetwork,
        embedding: nn.Parameter,
        data: Split,
        rng: torch.Generator,
        on_step: Callable[[int, float], None] | None,
    ) -> list[float]:
        """Train the copy and the embedding in place; return the loss of each step."""
        config = self.config
        with torch.no_grad():
            kept_TP = self.hypernetwork.flat(self.embeddings) if self.record else None
        learnt = [*hypernetwork.parameters(), embedding]
        optimiser = torch.optim.Adam(learnt, lr=config.learning_rate)
        losses = []
        for step in range(config.steps):
            picked = torch.randint(len(data), (min(config.batch_size, len(data)),), generator=rng)
            conditions = torch.cat([embedding.unsqueeze(0), self.embeddings])
            flat = hypernetwork.flat(conditions if kept_TP is not None and config.beta else conditions[:1])
            logits = self._logits(
                hypernetwork.target.split(flat[0]), data.inputs[picked], training=True, rng=rng
            )
            task_loss = F.cross_entropy(logits, data.targets[picked])
            loss = task_loss
            if kept_TP is not None and config.beta:
                loss = loss + config.beta * (flat[1:] - kept_TP).square().sum(1).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            norm = nn.utils.clip_grad_norm_(learnt, config.clip_norm)
            if not torch.isfinite(norm):
                raise NasGraphError(
                    f"The loss or its gradient is not finite at step {step}: lower 'learning_rate' or check the inputs. "
                    "The learner is as it was before this task"
                )
            optimiser.step()
            losses.append(float(task_loss.detach()))
            if on_step is not None:
                on_step(step + 1, losses[-1])
        return losses

    def _logits(
        self,
        parameters: Mapping[str, Tensor],
        inputs: Tensor,
        *,
        training: bool = False,
        rng: torch.Generator | None = None,
    ) -> Tensor:
        context = RunContext(batch_size=len(inputs), training=training, generator=rng)
        return self._program(parameters, [inputs], context)[0]

    def parameters_for(self, name: str) -> dict[str, Tensor]:
        """The parameters of the target for a task: an ordinary network, to be kept or served by itself.

        Raises:
            UnknownNameError: If no task of that name was learnt.
        """
        if name not in self.tasks:
            raise UnknownNameError("task", name, self.tasks, hint="Learn it first with 'learn'.")
        with torch.no_grad():
            parameters: dict[str, Tensor] = self.hypernetwork(self.embeddings[self.tasks.index(name)])
        return parameters

    @torch.no_grad()
    def predict(self, name: str, inputs: Tensor) -> Tensor:
        """Logits `[examples, classes]` for a task.

        Raises:
            UnknownNameError: If no task of that name was learnt.
        """
        return self._logits(self.parameters_for(name), inputs)

    def accuracy(self, name: str, data: Split) -> float:
        """Share of examples that are classified correctly, given which task they are from.

        Raises:
            UnknownNameError: If no task of that name was learnt.
        """
        return float((self.predict(name, data.inputs).argmax(1) == data.targets).double().mean())

    def scores(self, held_out: Mapping[str, Split]) -> ContinualScores:
        """Accuracy of every task now, and how much was forgotten since each was learnt.

        Args:
            held_out: For each learnt task the examples that `learn` was given as `held_out`.

        Raises:
            NasGraphError: If nothing was learnt yet, or a task has no held-out examples here or had none when it was learnt.
        """
        lacking = [task.name for task in self.record if task.accuracy is None or task.name not in held_out]
        if lacking or not self.record:
            what = f"Task '{lacking[0]}' has no" if lacking else "No task was learnt, so there are no"
            raise NasGraphError(f"{what} held-out examples: give them to 'learn' and to 'scores'")
        now = {name: self.accuracy(name, held_out[name]) for name in self.tasks}
        lost = [task.accuracy - now[task.name] for task in self.record[:-1] if task.accuracy is not None]
        return ContinualScores(now, sum(lost) / len(lost) if lost else 0.0)

    def infer_task(self, inputs: Tensor) -> list[str]:
        """For each example the task under which the prediction is least uncertain.

        The entropy criterion of von Oswald et al. 2020, section 2.3 (HNET+ENT). It needs no extra network, and is only as good as the
        networks' confidence on what they have never seen.

        Raises:
            NasGraphError: If nothing was learnt yet.
        """
        if not self.record:
            raise NasGraphError("No task was learnt yet, so none can be inferred")
        entropies = []
        for name in self.tasks:
            logp = F.log_softmax(self.predict(name, inputs), dim=1)
            entropies.append(-(logp.exp() * logp).sum(1))
        return [self.tasks[index] for index in torch.stack(entropies).argmin(0).tolist()]

    def save(self, folder: Path, *, recipe: Mapping[str, Json] | None = None) -> None:
        """Write the learner with its record; `load` goes on from there bit by bit.

        Args:
            folder: Where; created if missing.
            recipe: What else should be known about it.
        """
        facts: dict[str, Json] = {
            "config": asdict(self.hypernetwork.config),
            "graph": parse_json(graph_to_json(self.hypernetwork.graph)),
            "learning": asdict(self.config),
            "seed": self.seed,
            "tasks": [asdict(task) for task in self.record],
        }
        tensors = {**self.hypernetwork.state_dict(), "embeddings": self.embeddings}
        write_network(folder, tensors, facts, schema=SCHEMA, recipe=recipe or {})

    @classmethod
    def load(cls, folder: Path) -> "ContinualLearner":
        """Read a learner that `save` wrote.

        Raises:
            CheckpointError: If a file is missing, damaged or foreign, or the record and the tensors do not agree.
        """
        document = read_description(folder, schema=SCHEMA, what="continual learner")
        shape = read_config(folder, document.get("config"), HypernetworkConfig)
        learning = read_config(folder, document.get("learning"), ContinualConfig)
        graph = read_target(folder, document.get("graph"))
        seed = document.get("seed")
        if type(seed) is not int:
            raise CheckpointError(
                f"Expected 'seed' in '{folder / CONFIG}' to be an integer (got {seed!r:.40})"
            )
        record = _read_record(folder, document.get("tasks"))
        empty = empty_hypernetwork(folder, graph, shape)
        tensors = read_weights_of(folder, document)
        embeddings = tensors.pop("embeddings", torch.zeros(0))
        if embeddings.shape != (len(record), shape.condition_dim):
            raise CheckpointError(
                f"Expected 'embeddings' in '{folder / WEIGHTS}' to have shape {(len(record), shape.condition_dim)} "
                f"(got {tuple(embeddings.shape)})"
            )
        check_state(empty, tensors, source=folder / WEIGHTS)
        try:
            learner = cls(graph, shape, learning, seed=seed)
        except NasGraphError as error:
            raise CheckpointError(f"{folder / CONFIG}: {error}") from error
        learner.hypernetwork.load_state_dict(tensors)
        learner.embeddings, learner.record = embeddings, record
        return learner


def _read_record(folder: Path, value: Json) -> tuple[LearntTask, ...]:
    """The record in a configuration, possibly from a stranger."""
    if not isinstance(value, list):
        raise CheckpointError(f"Expected 'tasks' in '{folder / CONFIG}' to be a list")
    record = []
    for line in value:
        match line:
            case {
                "name": str(name),
                "examples": int(examples),
                "steps": int(steps),
                "loss": float(loss),
                "accuracy": float() | None as accuracy,
            } if isinstance(line, dict) and len(line) == 5:
                record.append(LearntTask(name, examples, steps, loss, accuracy))
            case _:
                raise CheckpointError(f"Not a record of a task in '{folder / CONFIG}': {line!r:.80}")
    if len({task.name for task in record}) != len(record):
        raise CheckpointError(f"Expected the names of 'tasks' in '{folder / CONFIG}' to differ")
    return tuple(record)


def _check_graph(graph: ComputationalGraph) -> None:
    norms = [index for index, node in enumerate(graph.nodes) if node.op == "batch_norm"]
    if norms:
        raise NasGraphError(
            f"Cannot learn tasks in sequence with the batch norm at node {norms[0]}: its running statistics belong to one task. "
            "Use layer or group norm"
        )
    constants = [index for index, node in enumerate(graph.nodes) if node.op == "constant"]
    if constants:
        raise NasGraphError(
            f"The constant at node {constants[0]} has no value in a graph: use a graph without constants"
        )
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or len(graph.shapes[graph.outputs[0]]) != 1:
        raise NasGraphError("Expected a graph with one input and one vector of logits as its output")


def _check_data(graph: ComputationalGraph, data: Split, name: str) -> None:
    wanted, classes = graph.shapes[graph.inputs[0]], graph.shapes[graph.outputs[0]][0]
    if not len(data):
        raise NasGraphError(f"Task '{name}' has no examples")
    if tuple(data.inputs.shape[1:]) != wanted:
        raise NasGraphError(
            f"Expected inputs of shape {wanted} for task '{name}' (got {tuple(data.inputs.shape[1:])})"
        )
    low, high = int(data.targets.min()), int(data.targets.max())
    if low < 0 or high >= classes:
        raise NasGraphError(
            f"Expected labels from 0 to {classes - 1} for task '{name}': the network has {classes} outputs (got {low} to {high})"
        )
