"""`--around MODEL`: a space around a model from a file."""

import pickle
from pathlib import Path

import optuna
import pytest

from nasgraph.commands.around_option import around_maker, load_around, print_around
from nasgraph.commands.options import WrongUsageError
from nasgraph.commands.output import Output
from nasgraph.data import load_dataset
from nasgraph.errors import NasGraphError
from nasgraph.evaluate import TrainConfig, TrainEvaluator
from nasgraph.ir import check_graph
from nasgraph.search import SearchConfig, TrialState, make_sampler, run_search
from nasgraph.seeding import generator
from nasgraph.spaces import SearchSpace, sample
from nasgraph.spaces.around import AroundGraph

MODEL = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))

    def forward(self, x):
        return self.layer(x.flatten(1) + torch.arange(64.0).sin())
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "model.py").write_text(MODEL)
    return str(tmp_path / "model.py")


def test_the_space_fits_the_data_and_travels_to_other_processes(model: str) -> None:
    space = around_maker(f"{model}:net")((1, 8, 8), 10)
    assert (space.input_shape, space.num_classes) == ((1, 8, 8), 10)
    assert space.name.startswith("around-sequential-")
    copy: SearchSpace = pickle.loads(pickle.dumps(space))
    graph = sample(copy, generator(0)).graph
    check_graph(graph)


def test_a_model_that_does_not_fit_the_data_is_refused(model: str) -> None:
    with pytest.raises(
        WrongUsageError, match=r"gives \(10,\); the data has examples of shape \(1, 8, 8\) and 12 classes"
    ):
        around_maker(f"{model}:net")((1, 8, 8), 12)
    with pytest.raises(WrongUsageError, match=r"reads \(1, 8, 8\) .* shape \(3, 32, 32\)"):
        around_maker(f"{model}:net", input_shape="1,8,8")((3, 32, 32), 10)


def test_a_model_that_fails_on_the_data_is_refused(model: str) -> None:
    with pytest.raises(NasGraphError, match="The forward pass of Sequential fails"):
        around_maker(f"{model}:net")((3, 32, 32), 10)


def test_a_model_with_constants_is_refused_with_the_way_out(model: str) -> None:
    with pytest.raises(WrongUsageError, match=r"holds 1 constants.*learn_constants=True"):
        around_maker(f"{model}:Fixed")((1, 8, 8), 10)


def test_no_code_runs_before_the_data_is_known() -> None:
    make = around_maker("nowhere.py:net")
    with pytest.raises(WrongUsageError, match=r"There is no file 'nowhere\.py'"):
        make((1, 8, 8), 10)


def test_choices_and_what_stays_are_printed(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_around(Output(), load_around(f"{model}:net", input_shape="1,8,8"))
    printed = capsys.readouterr().out
    for text in (
        "0 width",
        "4, 6, 8, 10, 12",
        "activation relu",
        "3 width",
        "it is an output of the network",
    ):
        assert text in printed


def test_the_model_and_its_variants_train_on_data(model: str) -> None:
    data = load_dataset("digits", num_train=200)
    space = around_maker(f"{model}:net")(data.input_shape, data.num_classes)
    assert isinstance(space, AroundGraph)
    study = optuna.create_study(direction="maximize", sampler=make_sampler("tpe", seed=0))
    study.enqueue_trial(dict(space.original.choices))
    evaluate = TrainEvaluator(data.search, TrainConfig(epochs=1, init="random"))
    result = run_search(space, evaluate, study, SearchConfig(num_trials=3))
    assert result.trials[0].candidate.graph.fingerprint == space.graph.fingerprint
    assert all(trial.state == TrialState.COMPLETE for trial in result.trials)
    assert all(trial.metrics["val_accuracy"] > 0.15 for trial in result.trials)
