"""Training with several ranks: two processes that talk by Gloo do what one does."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import HashStore

from nasgraph.errors import NasGraphError
from nasgraph.hyper import Ranks, joined_ranks
from nasgraph.hyper.distributed import agreed_name
from nasgraph.hyper.progress import PROGRESS, STATE
from tests.hyper.toy import toy_training
from tests.hyper.trainings import assert_equal, train

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


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from nasgraph.hyper import Execution, joined_ranks
from tests.hyper.toy import toy_training
from tests.hyper.trainings import train

torch.set_num_threads(1)
folder, mark, steps = Path(sys.argv[1]), Path(sys.argv[2]), []
with joined_ranks(torch.device("cpu")) as ranks:
    def on_step(step):
        steps.append(step.step)
        if ranks.rank == 1 and step.step == 7 and not mark.exists():
            mark.write_text("killed")
            os.kill(os.getpid(), signal.SIGKILL)
    train(folder, toy_training(), resume=True, execution=Execution(ranks=ranks), on_step=on_step)
    Path(f"{folder}-steps{ranks.rank}").write_text(repr(steps))
"""


def torchrun(script: Path, words: Sequence[str], *options: str) -> "subprocess.Popen[str]":
    """Start `torchrun` with the packages of this process."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, str(script), *words],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            "OMP_NUM_THREADS": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: "subprocess.Popen[str]") -> None:
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output


def test_alone_nothing_travels_and_nothing_changes() -> None:
    with joined_ranks(torch.device("cpu")) as ranks:
        assert ranks == Ranks(0, 1)
        parameter = torch.nn.Parameter(torch.ones(2))
        ranks.sum_gradients([parameter])
        assert parameter.grad is None


def test_ranks_that_start_again_find_each_other_and_not_those_that_died() -> None:
    store = HashStore()

    def meet(size: int) -> set[str]:
        with ThreadPoolExecutor(size) as threads:
            return set(threads.map(lambda rank: agreed_name(store, rank, size, timeout_s=20.0), range(size)))

    names = [meet(size) for size in (3, 3, 2, 3)]
    assert [len(name) for name in names] == [1] * 4
    assert len(set.union(*names)) == 4
    for rank in range(2):  # the third never comes, though its answer to an earlier meeting is still there
        with pytest.raises(NasGraphError, match="Not all 3 processes came together"):
            agreed_name(store, rank, 3, timeout_s=0.2)
    assert agreed_name(store, 0, 1)


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


@pytest.mark.slow
def test_a_killed_rank_is_started_again_and_the_result_is_the_same_bit_by_bit(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    options = ("--standalone", "--nproc-per-node=2", "--max-restarts=1")
    mark = tmp_path / "mark"
    finished(torchrun(script, [str(tmp_path / "killed"), str(mark)], *options))
    assert mark.read_text() == "killed"
    for rank in range(2):  # both began anew at the last checkpoint, of step 6
        assert (tmp_path / f"killed-steps{rank}").read_text() == repr(list(range(6, 12)))
    finished(torchrun(script, [str(tmp_path / "whole"), str(mark)], *options))
    assert (tmp_path / "whole-steps0").read_text() == repr(list(range(12)))
    assert_equal(*(load_file(tmp_path / name / STATE) for name in ("killed", "whole")))


@pytest.mark.slow
def test_two_machines_train_what_two_processes_of_one_train(tmp_path: Path) -> None:
    """Two `torchrun`s that meet at an address, as on two machines with a shared folder."""
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    finished(torchrun(script, [str(tmp_path / "one"), "finite"], "--standalone", "--nproc-per-node=2"))
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    meeting = (
        "--nnodes=2",
        "--nproc-per-node=1",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{port}",
        "--rdzv-id=7",
    )
    for process in [torchrun(script, [str(tmp_path / "two"), "finite"], *meeting) for _ in range(2)]:
        finished(process)
    assert (tmp_path / "two-rank0.json").read_text() == (tmp_path / "two-rank1.json").read_text()
    assert_equal(*(load_file(tmp_path / name / STATE) for name in ("one", "two")))
