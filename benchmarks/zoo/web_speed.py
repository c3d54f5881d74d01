"""Speed of the zoo's page over 10,000 entries: time of the server by page, readers at once, and the chart in a real browser.

    python -m benchmarks.zoo.web_speed                       server times and the load test
    python -m benchmarks.zoo.web_speed --registry 10000      also the first reading of an MLflow registry with so many versions
    python -m benchmarks.zoo.web_speed --chromium /usr/bin/chromium [--plotly plotly-basic.min.js]
                                                             also the chart, beside plotly's if its file is given

Server time is what one thread of the server computes for one request, without the network. CPU time is given beside wall time because the
machine has other work to do; the load is recorded.
"""

import argparse
import json
import logging
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from starlette.testclient import TestClient

from benchmarks.common import RESULTS, save
from nasgraph.data import load_dataset
from nasgraph.ir import graph_to_json
from nasgraph.mlflow_client import connect, default_tracking_uri
from nasgraph.modelzoo import ModelCard, ZooEntry
from nasgraph.modelzoo.card import card_to_json
from nasgraph.modelzoo.catalogue import Catalogue
from nasgraph.modelzoo.store import Zoo
from nasgraph.web.app import make_app
from nasgraph.web.context import WebContext
from tests.modelzoo.making import made_entry
from tests.web.loading import read_much, served, writing
from tests.web.making import MadeCatalogue, made_catalogue
from tests.web.serving import running

NUM_ROWS = 10_000
REPEATS = 15
REQUESTS = {
    "first page": "/?max_multiply_adds=9{turn:02}T",  # each turn asks something new: answers are remembered
    "search of one word": "/?q=wide&max_multiply_adds=9{turn:02}T",
    "search of three words": "/?q=wide+vit+champion&max_multiply_adds=9{turn:02}T",
    "filter by space and parameters": "/?space=vit&max_parameters=1M&max_multiply_adds=9{turn:02}T",
    "filter by accuracy and latency": "/?min_accuracy=0.7&max_latency_ms=2&max_multiply_adds=9{turn:02}T",
    "sorted by name": "/?sort=name&max_multiply_adds=9{turn:02}T",
    "page 150": "/?page=150&max_multiply_adds=9{turn:02}T",
    "chart": "/scatter?max_multiply_adds=8{turn:02}T",
    "points of the chart": "/api/points?max_multiply_adds=7{turn:02}T",
    "page 151 of a table that is remembered": "/?page=151",
    "similar": "/api/similar/{name}",
    "an entry that is not there": "/api/entries/no-such-entry",
}


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--registry", type=int, default=0, help="versions in a real registry that is read")
    parser.add_argument("--chromium", type=Path, help="browser for the chart")
    parser.add_argument("--plotly", type=Path, help="plotly-basic.min.js to compare with")
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=("pages", "readers"), help="parts that are kept as they are"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    folder = Path(tempfile.mkdtemp(prefix="nasgraph-web-speed-"))
    try:
        digits = load_dataset("digits")
        entry = made_entry(folder / "entry", digits)
        zoo = empty_zoo(folder / "runs")
        if "pages" not in arguments.skip or arguments.chromium:
            catalogue = made_catalogue(NUM_ROWS, card=entry.card)
        if "pages" not in arguments.skip:
            keep("pages", page_times(zoo, catalogue))
        if arguments.chromium:
            keep("chart", chart_times(zoo, catalogue, arguments.chromium, arguments.plotly))
        if arguments.registry:
            keep("registry", registry_times(folder, entry, arguments.registry))
        if "readers" not in arguments.skip:
            keep("readers", readers(folder, entry))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep(part: str, found: dict[str, object]) -> None:
    """Write a part beside those that are there: a run that is cut off loses nothing."""
    path = RESULTS / "zoo_web_speed.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    others = {name: value for name, value in before.items() if name not in ("environment", part)}
    load = [round(value, 1) for value in os.getloadavg()]
    save("zoo_web_speed", {**others, "rows": NUM_ROWS, part: {**found, "load_average": load}})
    print(part, json.dumps(found, indent=1), flush=True)


def empty_zoo(folder: Path) -> Zoo:
    """A zoo over a store of its own."""
    folder.mkdir()
    zoo = Zoo(default_tracking_uri(folder))
    connect(zoo.uri)
    return zoo


def page_times(zoo: Zoo, catalogue: MadeCatalogue) -> dict[str, object]:
    """Wall and CPU milliseconds of each kind of request."""
    client = TestClient(make_app(WebContext(zoo=zoo, catalogue=catalogue)), base_url="http://localhost")
    first, _ = timed(lambda: client.get("/"))  # templates are compiled, values of the filters are counted
    times: dict[str, object] = {"very first request": {"wall_ms": round(first, 1)}}
    for name, address in REQUESTS.items():
        is_filter = name.startswith(("search", "filter", "sorted", "page"))
        headers = {"hx-request": "true"} if is_filter else {}
        wall, cpu = [], []
        for turn in range(REPEATS):
            target = address.format(name=catalogue.rows[turn].name, turn=turn)
            one = timed(lambda target=target, headers=headers: client.get(target, headers=headers))  # type: ignore[misc]
            wall.append(one[0])
            cpu.append(one[1])
        times[name] = {
            "wall_ms": round(statistics.median(wall), 1),
            "best_wall_ms": round(min(wall), 1),
            "cpu_ms": round(statistics.median(cpu), 1),
            "worst_cpu_ms": round(max(cpu), 1),
        }
    return times


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU milliseconds of a call, all threads of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def readers(folder: Path, entry: ZooEntry) -> dict[str, object]:
    """Fifty readers of a real server, quiet and while another process writes trials and entries to its store."""
    zoo = empty_zoo(folder / "busy")
    zoo.add(entry.path, "small")
    zoo.add(entry.path, "small")
    found: dict[str, object] = {"readers": 50, "requests": 500}
    with served(zoo.uri) as port:
        read_much(port, readers=4, requests=10)
        quiet = read_much(port, readers=50, requests=10)
        with writing(zoo.uri, entry.path, seconds=30) as written:
            busy = read_much(port, readers=50, requests=10)
    for name, traffic in (("quiet", quiet), ("while_writing", busy)):
        found[name] = {f"p{share}_ms": round(traffic.percentile_ms(share), 1) for share in (50, 90, 99, 100)}
        found[f"{name}_problems"] = traffic.problems
    return {**found, "entries_written": written[0]}


def registry_times(folder: Path, entry: ZooEntry, count: int) -> dict[str, object]:
    """Reading a real MLflow registry in SQLite with many versions, whose rows are written straight into the database."""
    zoo = empty_zoo(folder / "large")
    zoo.add(entry.path, "template")
    multiply_version(Path(zoo.uri.removeprefix("sqlite:///")), entry.card, count)
    started, cpu = time.perf_counter(), time.process_time()
    catalogue = Catalogue(Zoo(zoo.uri))
    first, first_cpu = time.perf_counter() - started, time.process_time() - cpu
    assert len(catalogue.all_rows) >= count
    refreshes = [timed(catalogue.refresh)[0] for _ in range(5)]
    full = timed(lambda: catalogue.refresh(full=True))[0]
    return {
        "versions": count,
        "graph_bytes": len(graph_to_json(entry.graph)),
        "first_reading_s": round(first, 2),
        "first_reading_cpu_s": round(first_cpu, 2),
        "refresh_ms": round(statistics.median(refreshes), 1),
        "full_refresh_ms": round(full, 1),
    }


def multiply_version(database: Path, card: ModelCard, count: int) -> None:
    """Copies of the version of "template" under other names, with cards that differ."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(database)) as connection, connection:
        tables = ("registered_models", "model_versions", "model_version_tags")
        columns = {t: [row[1] for row in connection.execute(f"PRAGMA table_info({t})")] for t in tables}
        originals = {
            t: connection.execute(f"SELECT * FROM {t} WHERE name = 'template'").fetchall() for t in tables
        }
        for number in range(count):
            name = f"copy-{number:05d}"
            text = card_to_json(replace(card, name=name, num_parameters=1000 + number))
            for table, rows in originals.items():
                names = columns[table]
                for row in rows:
                    values = dict(zip(names, row, strict=True)) | {"name": name}
                    for column in ("creation_time", "last_updated_time"):
                        if (
                            column in values
                        ):  # one a minute, the newest last: nobody registers 10,000 in a second
                            values[column] -= 60_000 * (count - number)
                    if values.get("key") == "nasgraph.card":
                        values["value"] = text
                    marks = ", ".join("?" for _ in names)
                    connection.execute(f"INSERT INTO {table} VALUES ({marks})", [values[n] for n in names])


def chart_times(zoo: Zoo, catalogue: MadeCatalogue, chromium: Path, plotly: Path | None) -> dict[str, object]:
    """How long 10,000 points take to draw, and to point at, in a browser."""
    from playwright.sync_api import sync_playwright

    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ]
    with running(WebContext(zoo=zoo, catalogue=catalogue)) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        started = time.perf_counter()
        page.goto(f"http://127.0.0.1:{port}/scatter")
        while not page.evaluate("document.getElementById('chart').dataset.drawnMs"):
            page.wait_for_timeout(20)  # `wait_for_function` would need `eval`, which the page forbids
        found: dict[str, object] = {"page_until_drawn_ms": round(1e3 * (time.perf_counter() - started))}
        found["draw_ms"] = float(page.evaluate("Number(document.getElementById('chart').dataset.drawnMs)"))
        found["pointing_ms"] = page.evaluate(_POINTING, "#points")
        if plotly is not None:
            points = json.loads(page.evaluate("fetch('/api/points').then((answer) => answer.text())"))
            found["plotly"] = plotly_times(
                browser.new_page(viewport={"width": 1280, "height": 900}), plotly, points
            )
        browser.close()
    return found


_POINTING = """async (selector) => {
  const target = document.querySelector(selector);
  const frame = target.getBoundingClientRect();
  const times = [];
  for (let i = 0; i < 200; i++) {
    const at = { clientX: frame.left + 80 + (i * 37) % (frame.width - 120), clientY: frame.top + 20 + (i * 53) % (frame.height - 90) };
    const started = performance.now();
    for (const kind of ["pointermove", "mousemove"])
      target.dispatchEvent(new (kind === "pointermove" ? PointerEvent : MouseEvent)(kind, { ...at, bubbles: true, pointerType: "mouse" }));
    times.push(performance.now() - started);
  }
  times.sort((a, b) => a - b);
  return { median: times[100], worst: times[199] };
}"""


def plotly_times(page, plotly: Path, points: dict[str, list[float]]) -> dict[str, object]:  # type: ignore[no-untyped-def]
    """The same points by plotly's SVG scatter, the only one in its basic bundle."""
    page.set_content("<div id='plot' style='width:1200px;height:560px'></div>")
    page.add_script_tag(path=str(plotly))
    draw = page.evaluate(
        """async ([x, y]) => {
          const started = performance.now();
          await Plotly.newPlot('plot', [{ x, y, mode: 'markers', type: 'scatter' }], { xaxis: { type: 'log' }, hovermode: 'closest' });
          await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
          return performance.now() - started;
        }""",
        [points["x"], points["accuracy"]],
    )
    return {
        "draw_ms": round(draw, 1),
        "pointing_ms": page.evaluate(_POINTING, "#plot .nsewdrag"),
        "bytes": plotly.stat().st_size,
    }


if __name__ == "__main__":
    main()
