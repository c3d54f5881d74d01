"""How fast and how complete the embedding index is: exact and HNSW, 100,000 and 1,000,000 embeddings.

    python -m benchmarks.zoo.index_speed [--sizes 100000,1000000] [--queries 300] [--corpus FOLDER]

Embeddings of 128 numbers: 24 random directions and noise of a tenth of their size; with `--corpus`, a folder where
`benchmarks.zoo.retrieval_corpus` put its graphs, those that the shipped `architecture-encoder` gives to graphs that it was
not trained on, each repeated with noise of a twentieth of its length until there are enough.
Queries are drawn like the embeddings and are not among them. Recall is against the exact kind; one thread, CPU time of this
process, single queries one call each. Other sizes of HNSW's search breadth are measured on the same graph.
Rows are written as they are measured; sizes that are there already are skipped.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.common import RESULTS, save
from nasgraph.retrieve import index as module
from nasgraph.retrieve.index import EmbeddingIndex
from nasgraph.seeding import generator

Floats = npt.NDArray[np.float32]
ROWS = RESULTS / "zoo_index_speed.rows.jsonl"
DIMENSIONS, STRUCTURE, NOISE = 128, 24, 0.1
ENCODER = Path(__file__).resolve().parents[2] / "zoo" / "architecture-encoder"
CHUNK = 50_000


def made(number: int, *, label: str) -> Floats:
    """Embeddings with `STRUCTURE` random directions in common, in rows of about length one."""
    directions = generator(0, "directions").standard_normal((STRUCTURE, DIMENSIONS), dtype=np.float32)
    rng = generator(0, "embeddings", label)
    found = np.empty((number, DIMENSIONS), np.float32)
    for start in range(0, number, CHUNK):
        part = found[start : start + CHUNK]
        part[:] = (
            rng.standard_normal((len(part), STRUCTURE), dtype=np.float32) @ directions / np.sqrt(STRUCTURE)
        )
        part += NOISE * rng.standard_normal(part.shape, dtype=np.float32)
    return found


def tiled(real: Floats, number: int, *, label: str) -> Floats:
    """Real embeddings, drawn with repetition, each with noise of a twentieth of its length."""
    rng = generator(0, "tiled", label)
    unit = real / np.linalg.norm(real, axis=1, keepdims=True)
    found = np.empty((number, real.shape[1]), np.float32)
    for start in range(0, number, CHUNK):
        part = found[start : start + CHUNK]
        noise = rng.standard_normal(part.shape, dtype=np.float32) / np.sqrt(real.shape[1])
        part[:] = unit[rng.integers(len(unit), size=len(part))] + 0.05 * noise
    return found


def encoded(corpus: Path, number: int) -> Floats:
    """Embeddings of unseen graphs by the shipped encoder."""
    from benchmarks.zoo.retrieval_corpus import load_part
    from nasgraph.retrieve.checkpoint import load_encoder

    torch.set_num_threads(1)
    graphs = [graph for family in load_part("unseen", corpus) for graph in family.graphs]
    chosen = generator(0, "graphs").permutation(len(graphs))[:number]
    return np.asarray(load_encoder(ENCODER).embed([graphs[i] for i in sorted(chosen)]), np.float32)


def timed(function: Callable[[], object], *, repeats: int = 1) -> list[float]:
    """CPU seconds of each of several calls."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        seconds.append(time.process_time() - started)
    return seconds


def recall(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> float:
    """Share of the true nearest that were found."""
    return float(
        np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
    )


def spread(milliseconds: list[float]) -> dict[str, float]:
    """Median, quartiles and the slow tail."""
    low, median, high, tail = np.percentile(milliseconds, [25, 50, 75, 99])
    return {"median": median, "q25": low, "q75": high, "p99": tail, "mean": float(np.mean(milliseconds))}


def rss_mb() -> float:
    """Resident memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def singles(index: EmbeddingIndex, queries: Floats) -> tuple[dict[str, float], npt.NDArray[np.int64]]:
    """One call for each query: milliseconds, and the rows found."""
    rows, milliseconds = [], []
    for query in queries:
        started = time.process_time()
        rows.append(index.search(query[None], 10)[1])
        milliseconds.append(1e3 * (time.process_time() - started))
    return spread(milliseconds), np.concatenate(rows)


def measure(size: int, vectors: Floats, queries: Floats, *, source: str) -> dict[str, object]:
    """All facts about one size."""
    before = rss_mb()
    exact = EmbeddingIndex.of(vectors, kind="exact")
    row: dict[str, object] = {"size": size, "data": source, "exact_memory_mb": rss_mb() - before}
    row["exact_single_ms"], truth = singles(exact, queries[: max(20, 3_000_000 // size)])
    batch = timed(lambda: exact.search(queries, 10))
    row["exact_batch_ms_per_query"] = 1e3 * batch[0] / len(queries)
    truth = exact.search(queries, 10)[1]
    del exact
    before, wall, started = rss_mb(), time.perf_counter(), time.process_time()
    hnsw = EmbeddingIndex.of(vectors[:CHUNK], kind="hnsw")
    for start in range(CHUNK, size, CHUNK):
        hnsw.add(vectors[start : start + CHUNK])
        print(f"{start + CHUNK:,} after {time.process_time() - started:.0f} s of CPU", flush=True)
    row |= {"build_cpu_s": time.process_time() - started, "build_wall_s": time.perf_counter() - wall}
    row["hnsw_memory_mb"] = rss_mb() - before
    graph = hnsw._graph
    assert graph is not None
    default, curve = module._SEARCH_BREADTH, []
    for breadth in sorted({64, 96, 128, 160, 192, 256, default}):
        graph.hnsw.efSearch = breadth
        milliseconds, found = singles(hnsw, queries)
        curve.append({"breadth": breadth, "ms": milliseconds, "recall_at_10": recall(found, truth)})
        print(json.dumps(curve[-1]), flush=True)
    graph.hnsw.efSearch = default
    batch = timed(lambda: hnsw.search(queries, 10), repeats=3)
    row |= {
        "hnsw_batch_ms_per_query": 1e3 * float(np.median(batch)) / len(queries),
        "default_breadth": default,
    }
    row |= {"hnsw": curve, "peak_process_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    return row


def known() -> list[dict[str, object]]:
    """What was measured, also by a run beside this one."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def main() -> None:
    """Measure the sizes that were not measured yet and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--sizes", default="100000,1000000")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--graphs", type=int, default=4000)
    arguments = parser.parse_args()
    source = "made" if arguments.corpus is None else "encoder"
    for size in map(int, arguments.sizes.split(",")):
        if any(row["size"] == size and row["data"] == source for row in known()):
            continue
        if arguments.corpus is None:
            vectors, queries = made(size, label=str(size)), made(arguments.queries, label="queries")
        else:
            real = encoded(arguments.corpus, arguments.graphs)
            order = generator(0, "held out").permutation(len(real))
            queries = tiled(real[order[: len(real) // 10]], arguments.queries, label="queries")
            vectors = tiled(real[order[len(real) // 10 :]], size, label=str(size))
        row = measure(size, vectors, queries, source=source)
        ROWS.parent.mkdir(exist_ok=True)
        with ROWS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    settings = {"links": module._NUM_LINKS, "build_breadth": module._BUILD_BREADTH, "dimensions": DIMENSIONS}
    note = (
        "CPU time, one thread; the machine was shared with other work, which takes cache and memory bandwidth"
    )
    save(
        "zoo_index_speed", {"settings": settings, "note": note, "queries": arguments.queries, "rows": known()}
    )


if __name__ == "__main__":
    main()
