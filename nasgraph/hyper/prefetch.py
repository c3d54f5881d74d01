"""The architectures of each step: drawn and encoded here, or ahead of time in worker processes.

What a step draws is a pure function of the seed and the step's number, so the result does not depend on who draws it.
"""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from nasgraph.encode import EncodedGraph, encode
from nasgraph.errors import NasGraphError
from nasgraph.hyper.distributed import Ranks
from nasgraph.hyper.splits import TRAINING_SIZE, training_candidate
from nasgraph.ir import ComputationalGraph
from nasgraph.seeding import generator
from nasgraph.spaces import SearchSpace

MAX_REFUSED = 1000


@dataclass(frozen=True, slots=True)
class DrawnGraph:
    """One architecture of a step.

    Attributes:
        place: Its number among the architectures of the step, over all ranks.
        graph: Its graph.
        encoded: What a hypernetwork reads of it.
    """

    place: int
    graph: ComputationalGraph
    encoded: EncodedGraph


DrawnGraphs = list[DrawnGraph]


@dataclass(frozen=True, slots=True)
class Draw:
    """Draws the architectures of a step from the training sets of search spaces. Pure, and can be pickled.

    Attributes:
        spaces: Each with equal chance; of a space each of its `TRAINING_SIZE` training architectures.
        count: Architectures per step, over all ranks.
        seed: Seed of the training.
        held_out: Fingerprints of architectures that are drawn again.
        ranks: Rank r encodes and returns the places r, r + size, r + 2 size ...
    """

    spaces: tuple[SearchSpace, ...]
    count: int
    seed: int
    held_out: frozenset[str] = frozenset()
    ranks: Ranks = Ranks()  # noqa: RUF009  frozen

    def __call__(self, step: int) -> DrawnGraphs:
        """The share of this rank in the architectures of one step.

        Raises:
            NasGraphError: If 1,000 draws in a row give only architectures that are held out.
        """
        rng = generator(self.seed, "architectures", step)
        drawn: DrawnGraphs = []
        place, refused = 0, 0
        while place < self.count:
            space = self.spaces[int(rng.integers(len(self.spaces)))]
            graph = training_candidate(space, int(rng.integers(TRAINING_SIZE))).graph
            if self.held_out and graph.fingerprint in self.held_out:
                refused += 1
                if refused == MAX_REFUSED:
                    raise NasGraphError(
                        "Nearly all architectures of the search spaces are held out: none is left to train on"
                    )
                continue
            if place % self.ranks.size == self.ranks.rank:
                drawn.append(DrawnGraph(place, graph, encode(graph)))
            place, refused = place + 1, 0
        return drawn


@contextmanager
def graph_feed(
    draw: Callable[[int], DrawnGraphs], steps: range, *, workers: int
) -> Iterator[Callable[[int], DrawnGraphs]]:
    """A function that gives the architectures of each of `steps`; it must be called for them in order, once each.

    Worker w draws every `workers`-th step and waits, one step ahead, until it is fetched. Workers are new processes
    (spawned, not forked: torch's threads do not survive a fork), ignore Ctrl-C, and end with the `with` block
    or with this process, however it ends.

    Args:
        draw: Pure; must be picklable if there are workers.
        steps: The steps that will be asked for.
        workers: Number of processes; 0: the function is `draw` itself.

    Raises:
        NasGraphError: From the function, if drawing failed, in words, or if a worker died.
    """
    if workers == 0:
        yield draw
        return
    crew: list[tuple[SpawnProcess, Connection]] = []
    try:
        for number in range(min(workers, len(steps))):
            crew.append(_start(draw, steps[number::workers], number))

        def take(step: int) -> DrawnGraphs:
            return _receive(*crew[(step - steps.start) % workers], step)

        yield take
    finally:
        for process, receiver in crew:
            receiver.close()
            process.terminate()
        for process, _ in crew:
            process.join()


def _start(draw: Callable[[int], DrawnGraphs], steps: range, number: int) -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(draw, steps, sender), daemon=True, name=f"nasgraph-graphs-{number}"
    )
    # The child inherits the mask: Ctrl-C, which the terminal sends to all, is then answered by this process alone.
    # Python starts its tracker before the first child, and unblocks the signal when it has.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sender.close()  # only the worker holds it now, so its death ends the stream
    return process, receiver


def _work(draw: Callable[[int], DrawnGraphs], steps: range, sender: Connection) -> None:
    """Life of a worker: draw, send, until the steps are done or nobody reads any more."""
    for step in steps:
        try:
            message: DrawnGraphs | str = draw(step)
        except NasGraphError as error:
            message = str(error)
        except Exception:  # noqa: BLE001  sent to the training, which raises it
            message = f"Drawing the architectures of step {step} failed:\n{traceback.format_exc()}"
        try:
            sender.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return
        if isinstance(message, str):
            return


def _receive(process: SpawnProcess, receiver: Connection, step: int) -> DrawnGraphs:
    try:
        message = receiver.recv()
    except (EOFError, ConnectionResetError) as error:
        process.join(5)
        raise NasGraphError(
            f"A worker that draws architectures died before step {step} (exit code {process.exitcode}; a negative one is "
            "the signal that killed it, -9 is often a lack of memory). Use fewer 'workers', or 0; a script that trains "
            'with workers needs its `if __name__ == "__main__":`'
        ) from error
    if isinstance(message, str):
        raise NasGraphError(message)
    drawn: DrawnGraphs = message
    return drawn
