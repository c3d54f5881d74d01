"""The winner, trained in earnest and measured once on test data."""

from dataclasses import dataclass

from nasgraph.data import DataSet
from nasgraph.evaluate import Evaluation, TrainConfig, TrainEvaluator, measure, never_stop
from nasgraph.hyper import GraphHyperNetwork
from nasgraph.modules import Program
from nasgraph.spaces import Candidate


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
    candidate: Candidate, data: DataSet, config: TrainConfig, *, ghn: GraphHyperNetwork | None, seed: int
) -> FinalModel:
    """Train the winner of a search on the training split, choose the epoch on the validation split, measure on test.

    Args:
        candidate: The winner.
        data: On the CPU or the device to train on.
        config: How to train.
        ghn: Predicts weights to start from, if `config.init` asks for them.
        seed: Decides everything random.

    Raises:
        CandidateError: If the loss stops being finite.
    """
    evaluation = TrainEvaluator(data.search, config, ghn)(candidate.graph, seed=seed, keep_going=never_stop)
    test = data.test.to(data.search.train.inputs.device)
    loss, accuracy = measure(Program(candidate.graph), evaluation.state, test, batch_size=config.eval_batch)
    return FinalModel(candidate, evaluation, loss, accuracy, config.eval_batch)
