"""Drawing architectures ahead of time: the same ones, whoever draws them, and no hanging."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from nasgraph.errors import ConfigError, NasGraphError
from nasgraph.hyper import Execution, Ranks
from nasgraph.hyper.prefetch import Draw, DrawnGraphs, graph_feed
from nasgraph.hyper.progress import STATE
from nasgraph.spaces import enumerate_candidates
from tests.hyper.toy import ToySpace, toy_training
from tests.hyper.trainings import assert_equal, train, train_until_killed
from tests.signals import heed_ctrl_c

ROOT = Path(__file__).resolve().parents[2]
DRAW = Draw((ToySpace(), ToySpace(may_overflow=True)), 4, 0)


def fingerprints(drawn: DrawnGraphs) -> list[tuple[int, str]]:
    return [(item.place, item.graph.fingerprint) for item in drawn]


# ---- what is drawn


def test_the_architectures_of_a_step_are_a_function_of_seed_and_step() -> None:
    def drawn(seed: int, step: int) -> list[tuple[int, str]]:
        return fingerprints(Draw(DRAW.spaces, 20, seed)(step))

    assert drawn(0, 5) == drawn(0, 5)
    assert drawn(0, 5) != drawn(0, 6)
    assert drawn(0, 5) != drawn(1, 5)
    assert [place for place, _ in drawn(0, 5)] == list(range(20))


def test_architectures_that_are_held_out_are_never_drawn() -> None:
    space = ToySpace()
    known = {candidate.graph.fingerprint for candidate in enumerate_candidates(space)}
    held_out = frozenset(sorted(known)[:8])
    draw = Draw((space,), 4, 0, held_out)
    drawn = {item.graph.fingerprint for step in range(30) for item in draw(step)}
    assert drawn == known - held_out


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_architectures_of_a_step(size: int) -> None:
    whole = fingerprints(Draw(DRAW.spaces, 7, 0)(3))
    shares = [
        fingerprints(Draw(DRAW.spaces, 7, 0, frozenset(), Ranks(rank, size))(3)) for rank in range(size)
    ]
    assert all(share == whole[rank::size] for rank, share in enumerate(shares))


# ---- workers


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_draw_what_the_training_would_draw(workers: int) -> None:
    steps = range(5, 16)
    with graph_feed(DRAW, steps, workers=workers) as graphs_of:
        found = [fingerprints(graphs_of(step)) for step in steps]
    assert found == [fingerprints(DRAW(step)) for step in steps]


def test_a_training_with_workers_gives_the_same_network_and_continues_bit_by_bit(tmp_path: Path) -> None:
    config = toy_training(steps=12, checkpoint_every=3)
    straight = train(tmp_path / "straight", config)
    train_until_killed(tmp_path / "stopped", config, after=7, execution=Execution(workers=2))
    resumed = train(tmp_path / "stopped", config, resume=True, execution=Execution(workers=1))
    assert_equal(resumed.state_dict(), straight.state_dict())
    assert (tmp_path / "stopped" / STATE).read_bytes() == (tmp_path / "straight" / STATE).read_bytes()


@dataclass(frozen=True)
class Ends:
    """Draws three steps, then ends in one way or another."""

    how: str

    def __call__(self, step: int) -> DrawnGraphs:
        if step == 3:
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "refused":
                raise NasGraphError("No such architecture")
            raise KeyError("a bug")
        return DRAW(step)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("killed", r"died before step 3 \(exit code -9; .* Use fewer 'workers'"),
        ("refused", r"^No such architecture$"),
        ("bug", r"(?s)of step 3 failed:.*KeyError: 'a bug'"),
    ],
)
def test_a_worker_that_fails_ends_the_training_with_a_reason(how: str, message: str) -> None:
    with graph_feed(Ends(how), range(8), workers=2) as graphs_of:
        for step in range(3):
            graphs_of(step)
        with pytest.raises(NasGraphError, match=message):
            graphs_of(3)


def test_leaving_early_leaves_no_process_behind() -> None:
    with graph_feed(DRAW, range(1000), workers=2) as graphs_of:
        graphs_of(0)
        children = children_of(os.getpid(), "spawn_main")
        assert len(children) == 2
    assert not any(is_running(child) for child in children)


INTERRUPTED = """
import sys
from pathlib import Path
from nasgraph.hyper import Execution
from tests.hyper.toy import toy_training
from tests.hyper.trainings import train

if __name__ == "__main__":
    train(Path(sys.argv[1]), toy_training(steps=100_000), execution=Execution(workers=2),
          on_step=lambda step: print(step.step, flush=True))
"""


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_or_the_death_of_the_training_ends_the_workers(tmp_path: Path, signal_number: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "training")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    workers = children_of(process.pid, "spawn_main")
    assert len(workers) == 2
    if signal_number == signal.SIGINT:
        os.killpg(process.pid, signal_number)  # as the terminal does
    else:
        process.kill()
    _, err = process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while any(is_running(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_running(worker) for worker in workers)
    if signal_number == signal.SIGINT:
        assert err.count("KeyboardInterrupt") == 1, err


def test_impossible_numbers_of_workers_and_ranks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'workers' from 0 to 256 \(got -1\)"):
        Execution(workers=-1)
    with pytest.raises(ConfigError, match=r"'rank' from 0 to 1 \(got 2\)"):
        Ranks(2, 2)
    with pytest.raises(ConfigError, match=r"'meta_batch' of at least the number of ranks.*\(got 3 and 4\)"):
        train(tmp_path, toy_training(), execution=Execution(ranks=Ranks(0, 4)))


def children_of(parent: int, word: str) -> list[int]:
    """Processes whose parent is `parent` and whose command line has the word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == parent and word in command:
            found.append(int(folder.name))
    return found


def is_running(process: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
