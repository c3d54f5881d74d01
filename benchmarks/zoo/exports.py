"""Exports of every search space: how much ONNX, programs and source differ from the network itself, how large and how quick they are.

    python -m benchmarks.zoo.exports [--per-space 2]

Random weights, inputs of 3 x 32 x 32 pixels (12 tokens for `gpt`), ten classes, one thread. Rows are written as they come; a second
call goes on where the first one stopped.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.common import RESULTS, save
from nasgraph.errors import UnsupportedOpError
from nasgraph.ir import OPS
from nasgraph.modelzoo.card import ModelCard, draft_card
from nasgraph.modelzoo.entry import ZooEntry
from nasgraph.modelzoo.export import Form, export
from nasgraph.modelzoo.export_onnx import runtime_version
from nasgraph.modules import build
from nasgraph.seeding import generator
from nasgraph.spaces import Candidate, load_space, sample, space_names

ROWS = RESULTS / "zoo_exports.rows.jsonl"
TARGETS: dict[Form, str] = {"onnx": "net.onnx", "program": "net.pt2", "source": "net"}
GRAPH_SPACES = ("gnn", "nasbench-graph")


def drawn(space: str, count: int) -> list[Candidate]:
    shape = (12,) if space in (*GRAPH_SPACES, "gpt") else (3, 32, 32)
    rng = generator(0, "exports", space)
    built = load_space(space, input_shape=shape, num_classes=10)
    return [sample(built, rng) for _ in range(count)]


def entry_of(candidate: Candidate, name: str) -> ZooEntry:
    card: ModelCard = draft_card(name, candidate, None, created="2026-01-01", licence="Apache-2.0", seed=0)
    return ZooEntry(candidate.graph, build(candidate.graph, seed=0).state_dict(), card, Path("/none"))


def measured(candidate: Candidate, space: str, place: int, form: Form) -> dict[str, object]:
    row: dict[str, object] = {
        "space": space,
        "place": place,
        "form": form,
        "nodes": len(candidate.graph),
        "parameters": sum(p.numel() for p in build(candidate.graph, device="meta").parameters()),
    }
    passes_messages = any(OPS[node.op].reads_edges for node in candidate.graph.nodes)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        try:
            report = export(entry_of(candidate, f"{space}-{place}"), Path(folder) / TARGETS[form], form=form)
        except UnsupportedOpError as error:
            return {**row, "refused": str(error), "passes_messages": passes_messages}
        cpu_s = time.process_time() - started
    return {
        **row,
        "difference": report.difference,
        "tolerance": report.tolerance,
        "num_bytes": report.num_bytes,
        "cpu_s": round(cpu_s, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--per-space", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.is_file() else []
    done = {(row["space"], row["place"], row["form"]) for row in rows}
    for space in space_names():
        for place, candidate in enumerate(drawn(space, arguments.per_space)):
            for form in TARGETS:
                if (space, place, form) in done:
                    continue
                rows.append(measured(candidate, space, place, form))
                with ROWS.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(rows[-1], flush=True)
    save("zoo_exports", {"runtime": runtime_version(), "summary": summary(rows), "rows": rows})


def summary(rows: list[dict[str, object]]) -> dict[str, object]:
    """By form: how many were written and refused, the largest difference, the median and the longest time."""
    found: dict[str, object] = {}
    for form in TARGETS:
        own = [row for row in rows if row["form"] == form]
        written = [row for row in own if "difference" in row]
        seconds = sorted(float(str(row["cpu_s"])) for row in written)
        found[form] = {
            "written": len(written),
            "refused_for_message_passing": sum(bool(row.get("passes_messages")) for row in own),
            "refused_otherwise": sum("refused" in row and not row["passes_messages"] for row in own),
            "largest_difference": max(float(str(row["difference"])) for row in written),
            "largest_share_of_tolerance": max(
                float(str(row["difference"])) / float(str(row["tolerance"])) for row in written
            ),
            "median_cpu_s": seconds[len(seconds) // 2],
            "longest_cpu_s": seconds[-1],
        }
    return found


if __name__ == "__main__":
    main()
