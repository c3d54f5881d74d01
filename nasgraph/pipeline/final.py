"""The winner, trained in earnest and measured once on test data."""

from dataclasses import dataclass

from nasgraph.data import DataSet
from nasgraph.evaluate import Evaluation, NodeTrainConfig, TrainConfig, measure, never_stop, trainer_for
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.modules import Program
from nasgraph.spaces import Candidate

FOR_NODES = NodeTrainConfig()


@dataclass(frozen=True)
class FinalModel:
    """A trained winner.

    Attributes:
        candidate: Its architecture and graph.
        evaluation: Its training; `state` holds the weights.
        test_loss, test_accuracy: Measured once on the test split, with `eval_batch` examples per forward pass.
        eval_batch: See above. Measuring again with the same number gives the same result bit by bit on one machine.
    """

    candidate: Candidate
    evaluation: Evaluation
    test_loss: float
    test_accuracy: float
    eval_batch: int


def train_winner(
    candidate: Candidate,
    data: DataSet,
    config: TrainConfig,
    *,
    ghn: GraphHyperNetwork | None,
    seed: int,
    nodes: NodeTrainConfig = FOR_NODES,
) -> FinalModel:
    """Train the winner of a search on the training split, choose the epoch on the validation split, measure on test.

    Args:
        candidate: The winner.
        data: On the CPU or the device to train on.
        config: How to train.
        ghn: Predicts weights to start from, if `config.init` asks for them.
        seed: Decides everything random.
        nodes: How to train in place of `config` where the data are nodes of a graph.

    Raises:
        CandidateError: If the loss stops being finite.
    """
    train = trainer_for(data.search, config, ghn, nodes=nodes)
    evaluation = train(candidate.graph, seed=seed, keep_going=never_stop)
    return test_winner(candidate, evaluation, data, config)


def test_winner(
    candidate: Candidate, evaluation: Evaluation, data: DataSet, config: TrainConfig
) -> FinalModel:
    """Measure a winner that was trained in full on test data.

    Args:
        candidate: The winner.
        evaluation: Its training.
        data: On the device that it was trained on.
        config: How it was trained; says how many examples a forward pass takes.
    """
    test = data.test.to(data.search.train.inputs.device)
    loss, accuracy = measure(Program(candidate.graph), evaluation.state, test, batch_size=config.eval_batch)
    return FinalModel(candidate, evaluation, loss, accuracy, config.eval_batch)
