"""Training with several ranks: two processes that talk by Gloo do what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nasgraph.hyper import Ranks, joined_ranks
from nasgraph.hyper.progress import PROGRESS, STATE
from tests.hyper.toy import toy_training
from tests.hyper.trainings import train

ROOT = Path(__file__).resolve().parents[2]
TOGETHER = """
import json, sys
from pathlib import Path
import torch
from nasgraph.hyper import Execution, joined_ranks
from tests.hyper.toy import ToySpace, toy_training
from tests.hyper.trainings import train

torch.set_num_threads(1)
folder, steps = Path(sys.argv[1]), []
with joined_ranks(torch.device("cpu")) as ranks:
    ghn = train(folder, toy_training(), spaces=[ToySpace(may_overflow=sys.argv[2] == "overflow")],
                execution=Execution(ranks=ranks), on_step=steps.append)
    total = torch.stack([parameter.detach().double().sum() for parameter in ghn.parameters()])
    text = json.dumps([[step.loss, step.accuracy, step.skipped] for step in steps] + [total.tolist()])
    Path(f"{folder}-rank{ranks.rank}.json").write_text(text)
"""


def test_alone_nothing_travels_and_nothing_changes() -> None:
    with joined_ranks(torch.device("cpu")) as ranks:
        assert ranks == Ranks(0, 1)
        parameter = torch.nn.Parameter(torch.ones(2))
        ranks.sum_gradients([parameter])
        assert parameter.grad is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["finite", "overflow"])
def test_two_ranks_train_what_one_trains_and_only_the_first_writes(tmp_path: Path, kind: str) -> None:
    from tests.hyper.toy import ToySpace

    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    done = subprocess.run(
        [sys.executable, *command, str(script), str(tmp_path / "together"), kind],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    steps: list[tuple[float, int]] = []
    train(
        tmp_path / "alone",
        toy_training(),
        spaces=[ToySpace(may_overflow=kind == "overflow")],
        on_step=lambda step: steps.append((step.loss, step.skipped)),
    )
    first, second = ((tmp_path / f"together-rank{rank}.json").read_text() for rank in range(2))
    assert first == second  # losses, and the parameters at the end
    together = [(loss, skipped) for loss, _, skipped in json.loads(first)[:-1]]
    assert [skipped for _, skipped in together] == [skipped for _, skipped in steps]
    assert [loss for loss, _ in together] == pytest.approx([loss for loss, _ in steps], rel=2e-3, nan_ok=True)
    ours, theirs = (load_file(tmp_path / name / STATE) for name in ("alone", "together"))
    assert ours.keys() == theirs.keys()
    # Means of gradients rather than parameters: AdamW blows up the rounding of gradients that are zero in theory, such as
    # those of the biases of attention's keys.
    for name in (name for name in ours if ".exp_avg." in name):
        torch.testing.assert_close(theirs[name], ours[name], rtol=2e-2, atol=2e-4, msg=name)
    assert sorted(path.name for path in (tmp_path / "together").iterdir()) == [PROGRESS, STATE]
    assert (sum(skipped for _, skipped in steps) > 0) == (kind == "overflow")
