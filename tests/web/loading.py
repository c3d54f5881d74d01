"""Many readers of a real server while another process writes to its store."""

import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.signals import heed_ctrl_c

ADDRESSES = (
    "/", "/?q=small&sort=num_parameters", "/api/entries?min_accuracy=0.05", "/scatter", "/api/points", "/entry/small",
    "/thumbnail/small.svg", "/compare?with=small&with=small/1", "/api/entries/small", "/?data=digits&page=1",
)  # fmt: skip

_SERVER = """
import sys
from nasgraph.web.server import ServeConfig, serve
serve(sys.argv[1], ServeConfig(port=0), on_start=lambda address: print(address, flush=True))
"""
_WRITER = """
import sys, time
from pathlib import Path
import torch
from nasgraph.mlflow_client import connect, ensure_experiment
from nasgraph.modelzoo.store import Zoo
torch.set_num_threads(1)
uri, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
zoo, client = Zoo(uri), connect(uri)
experiment = ensure_experiment(client, 'a search', root=None)
print('ready', flush=True)
end, number = time.monotonic() + seconds, 0
while time.monotonic() < end:
    run = client.create_run(experiment, run_name=f'trial {number}').info.run_id
    for step in range(3):
        client.log_metric(run, 'val_accuracy', 0.1 * step, step=step)
    client.set_terminated(run)
    zoo.add(folder, f'found-{number}', aliases=['champion'])
    number += 1
print(number, flush=True)
"""


@dataclass(slots=True)
class Traffic:
    """What readers met.

    Attributes:
        seconds: Time of each request.
        problems: Answers other than 200, and broken connections.
    """

    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def percentile_ms(self, share: float) -> float:
        """The time that so many per cent of the requests stay below, in milliseconds."""
        return float(np.percentile(self.seconds, share)) * 1e3


@contextmanager
def served(uri: str) -> Iterator[int]:
    """`serve` in a process of its own, for the time of a `with` block; gives the port."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, uri], stdout=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().strip().rstrip("/").rsplit(":", 1)[1])
    finally:
        process.kill()
        process.communicate()


@contextmanager
def writing(uri: str, entry: Path, *, seconds: float) -> Iterator["list[int]"]:
    """A process that adds trials and entries for some seconds. After the `with` block, the list holds how many."""
    written: list[int] = []
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, uri, str(entry), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield written
        out, _ = process.communicate(timeout=seconds + 120)
        assert process.returncode == 0
        written.append(int(out))
    finally:
        process.kill()
        process.communicate()


def read_much(port: int, *, readers: int, requests: int, addresses: Sequence[str] = ADDRESSES) -> Traffic:
    """Let `readers` threads ask for `requests` pages each, all at the same time."""
    traffic, start = Traffic(), threading.Barrier(readers)

    def read(number: int) -> None:
        start.wait()
        for turn in range(requests):
            address = addresses[(number + turn) % len(addresses)]
            began = time.perf_counter()
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
                connection.request("GET", address)
                answer = connection.getresponse()
                answer.read()
                connection.close()
            except OSError as error:
                traffic.problems.append(f"{address}: {error}")
                continue
            traffic.seconds.append(time.perf_counter() - began)
            if answer.status != 200:
                traffic.problems.append(f"{address}: {answer.status}")

    threads = [threading.Thread(target=read, args=(number,)) for number in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return traffic
