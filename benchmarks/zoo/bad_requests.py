"""Sends some 500 bad requests to a real server over a zoo of real entries, and reports what it did with each category.

    python -m benchmarks.zoo.bad_requests

Nothing may end in a server error, tell a path or a stack trace, echo a script, change the store, or leave a file behind. The
requests are those of `tests/web/bad_requests.py`, of which the tests send a fifth.
"""

import logging
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import torch

from benchmarks.common import save
from nasgraph.data import load_dataset
from nasgraph.files import sha256_of
from nasgraph.mlflow_client import connect, default_tracking_uri
from nasgraph.modelzoo.store import Zoo
from nasgraph.spaces import load_space
from nasgraph.web.context import WebContext
from tests.web.bad_requests import BadRequest, bad_requests, judge
from tests.web.making import fill_zoo
from tests.web.serving import exchange, running

CANARY = Path("/tmp/nasgraph-was-here")


def main() -> None:
    """Make a zoo, serve it, send everything, write the table."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    folder = Path(tempfile.mkdtemp(prefix="nasgraph-bad-requests-"))
    try:
        save("zoo_bad_requests", report(filled_zoo(folder), folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def filled_zoo(folder: Path) -> Zoo:
    """A few real entries."""
    (folder / "runs").mkdir()
    zoo = Zoo(default_tracking_uri(folder / "runs"))
    connect(zoo.uri)
    space = load_space("convnet", input_shape=(1, 8, 8), num_classes=10)
    fill_zoo(zoo, folder / "entries", {"convnet": space}, load_dataset("digits"), each=2)
    return zoo


def report(zoo: Zoo, folder: Path) -> dict[str, object]:
    """What became of every request, by category."""
    context = WebContext(zoo=zoo, catalogue=zoo.catalogue)
    statuses: defaultdict[str, Counter[str]] = defaultdict(Counter)
    faults: list[str] = []
    before, temporary = state_of(folder), leftovers()
    with running(context) as port:
        started = time.perf_counter()
        for request in bad_requests():
            verdict = judge(exchange(port, request.wire(context.token)), secret=context.token)
            statuses[request.category][str(verdict.status) if verdict.status else "closed"] += 1
            faults += [
                f"{request.category}: {request.method!r} {request.target[:100]!r}: {text}"
                for text in verdict.faults
            ]
        seconds = time.perf_counter() - started
        is_alive = exchange(port, BadRequest("none", b"/").wire("")).startswith(b"HTTP/1.1 200")
    table = {
        name: {"requests": counts.total(), "answers": dict(sorted(counts.items()))}
        for name, counts in statuses.items()
    }
    for name, line in table.items():
        print(f"{name:25} {line}")
    print(f"{len(bad_requests())} requests in {seconds:.0f} s, {len(faults)} faults", *faults, sep="\n")
    return {
        "categories": table,
        "num_requests": len(bad_requests()),
        "server_errors": sum(
            count
            for counts in statuses.values()
            for status, count in counts.items()
            if status >= "500" and status != "closed"
        ),
        "faults": faults,
        "files_changed": sorted(set(state_of(folder).items()) ^ set(before.items())),
        "files_left_behind": sorted(leftovers() - temporary),
        "canary_written": CANARY.exists(),
        "alive_afterwards": is_alive,
        "seconds": round(seconds, 1),
    }


def state_of(folder: Path) -> dict[str, str]:
    """Every file of the store with its hash."""
    return {
        str(path.relative_to(folder)): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def leftovers() -> set[str]:
    """Folders that requests work in."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("nasgraph-web-*")}


if __name__ == "__main__":
    main()
