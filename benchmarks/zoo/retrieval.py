"""Neural architecture retrieval: is a variant of the same design found among thousands of architectures? One thread.

    python -m benchmarks.zoo.retrieval --corpus /tmp/retrieval-corpus [--encoders /tmp/encoders]

The architectures are families of a base design and edits of it (`benchmarks.zoo.retrieval_corpus`, part "unseen"): no base, and no
graph, was trained on. For each of five seeds families are drawn until there are at least 5,000 architectures, and one member of each
family is the query; the others of its family are what is to be found. Grades for NDCG fall with the number of edits between them, 9 -
(edits of one + edits of the other). Ties are broken by chance. Besides, "group": the query asks for the same search space or kind of
model, other members of its own family left out.

`--encoders` is the folder that `benchmarks.zoo.train_encoder` wrote, for the ablations. The shipped encoder is always measured.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import RESULTS, save
from benchmarks.zoo.retrieval_corpus import load_part
from nasgraph.files import write_text
from nasgraph.ir import ComputationalGraph
from nasgraph.retrieve import ArchitectureEncoder, EncoderConfig, encoder_sha256, load_encoder
from nasgraph.retrieve.baselines import BASELINES
from nasgraph.retrieve.corpus import Family
from nasgraph.retrieve.inputs import EncoderInputs, join, read_graph
from nasgraph.retrieve.measures import average_precision, ndcg, recall, reciprocal_rank
from nasgraph.seeding import generator

SHIPPED = Path(__file__).parents[2] / "zoo" / "architecture-encoder"
SEEDS = range(5)
FEWEST = 5000
MOST_EDITS = 8
BATCH = 64
SLOWEST = "plain features"
SHIPPED_NAME = "encoder"
ROWS = RESULTS / "zoo_retrieval.rows.jsonl"

Similarity = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """All architectures and what is known of each.

    Attributes:
        graphs: The architectures.
        family: Number of the family of each.
        group: Number of the search space or kind of model of each.
        edits: Edits since the base.
        is_traced: Whether it comes from a network with a name, traced or handmade.
    """

    graphs: list[ComputationalGraph]
    family: NDArray[np.int64]
    group: NDArray[np.int64]
    edits: NDArray[np.int64]
    is_traced: NDArray[np.bool_]

    @staticmethod
    def of(families: Sequence[Family]) -> "Pool":
        """The members of all families."""
        sizes = [len(family) for family in families]
        names = sorted({family.group for family in families})
        traced = ("transformers", "handwritten", "torch", "handmade")
        return Pool(
            [graph for family in families for graph in family.graphs],
            np.repeat(np.arange(len(families)), sizes),
            np.repeat([names.index(family.group) for family in families], sizes),
            np.concatenate([family.edits for family in families]),
            np.repeat([family.group.startswith(traced) for family in families], sizes),
        )


def draw(pool: Pool, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Architectures of one repetition in an order by chance, and the queries among them."""
    rng = generator(seed, "retrieval")
    chosen: list[int] = []
    queries: list[int] = []
    for family in rng.permutation(int(pool.family.max()) + 1):
        if len(chosen) >= FEWEST:
            break
        members = np.flatnonzero(pool.family == family)
        chosen += members.tolist()
        queries.append(int(rng.choice(members)))
    return rng.permutation(np.array(chosen)), np.array(queries)


def measure(rows: object, pool: Pool, seed: int) -> dict[str, object]:
    """Every measure of one method and one repetition."""
    items, queries = draw(pool, seed)
    similarity = _product(rows, queries, items)
    similarity[queries[:, None] == items[None, :]] = -np.inf
    ranked = items[np.argsort(-similarity, axis=1, kind="stable")][:, :-1]
    own = pool.family[ranked] == pool.family[queries][:, None]
    grade = np.where(own, MOST_EDITS + 1 - pool.edits[ranked] - pool.edits[queries][:, None], 0)
    of_group = [_others_of_group(ranked[i], own[i], pool, int(query)) for i, query in enumerate(queries)]
    traced = pool.is_traced[queries]
    found, first = recall(own, k=10), reciprocal_rank(own, k=20)
    return {
        "seed": seed,
        "architectures": len(items),
        "queries": len(queries),
        "mrr_at_20": float(first.mean()),
        "recall_at_10": float(found.mean()),
        "map_at_20": float(average_precision(own, k=20).mean()),
        "ndcg_at_20": float(ndcg(grade, k=20).mean()),
        "mrr_at_20_named": float(first[traced].mean()),
        "recall_at_10_named": float(found[traced].mean()),
        "recall_at_10_sampled": float(found[~traced].mean()),
        "group_precision_at_10": float(np.mean([hits[:10].mean() for hits in of_group if hits.any()])),
    }


def _others_of_group(
    ranked: NDArray[np.int64], own: NDArray[np.bool_], pool: Pool, query: int
) -> NDArray[np.bool_]:
    """Whether each ranked architecture is of the query's group, those of its family left out."""
    is_alike: NDArray[np.bool_] = pool.group[ranked[~own]] == pool.group[query]
    return is_alike


def _product(rows: object, queries: NDArray[np.int64], items: NDArray[np.int64]) -> Similarity:
    if isinstance(rows, np.ndarray):
        return np.asarray(rows[queries] @ rows[items].T, dtype=np.float64)
    return np.asarray((rows[queries] @ rows[items].T).toarray(), dtype=np.float64)  # type: ignore[index]  # sparse


class Reader:
    """Embeds graphs by several encoders and reads them once; results are those of `ArchitectureEncoder.embed`."""

    def __init__(self) -> None:
        self._parts: list[EncoderInputs] = []

    def rows(
        self, make: Callable[[], ArchitectureEncoder], graphs: Sequence[ComputationalGraph]
    ) -> NDArray[np.float32]:
        """One unit vector per graph. The graphs have to be the same at every call."""
        if not self._parts:
            self._parts = [read_graph(graph) for graph in graphs]
        network = make().eval()
        with torch.no_grad():
            found = [network(join(self._parts[i : i + BATCH])).numpy() for i in range(0, len(graphs), BATCH)]
        return np.concatenate(found)


def methods(encoders: Path | None) -> dict[str, Callable[[Sequence[ComputationalGraph]], object]]:
    """What is measured, by name; what takes longest comes last."""
    reader = Reader()
    makers: dict[str, Callable[[], ArchitectureEncoder]] = {
        SHIPPED_NAME: partial(load_encoder, SHIPPED),
        "untrained encoder": ArchitectureEncoder,
        "untrained encoder without words": partial(ArchitectureEncoder, EncoderConfig(word_dim=0)),
    }
    if encoders is not None:
        for folder in sorted(path for path in encoders.iterdir() if path.is_dir() and path.name != "full"):
            makers[f"encoder {folder.name.replace('-', ' ')}"] = partial(load_encoder, folder)
    quick = {name: rows for name, rows in BASELINES.items() if name != SLOWEST}
    own = {name: partial(reader.rows, make) for name, make in makers.items()}
    return {**own, **quick, SLOWEST: BASELINES[SLOWEST]}


def embed_ms(network: ArchitectureEncoder, graphs: Sequence[ComputationalGraph]) -> dict[str, float]:
    """CPU time per graph, one at a time and in batches of 64."""
    alone = []
    for graph in graphs:
        started = time.process_time()
        network.embed([graph])
        alone.append(1e3 * (time.process_time() - started))
    started = time.process_time()
    for start in range(0, len(graphs), 64):
        network.embed(graphs[start : start + 64])
    together = 1e3 * (time.process_time() - started) / len(graphs)
    return {
        "graphs": len(graphs),
        "mean_nodes": float(np.mean([len(graph) for graph in graphs])),
        "median_ms_alone": float(np.median(alone)),
        "p90_ms_alone": float(np.quantile(alone, 0.9)),
        "mean_ms_in_batches": together,
    }


def summary(rows: Sequence[dict[str, object]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation over seeds, by method and measure."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        own = [row for row in rows if row["method"] == method]
        result[method] = {
            name: {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}
            for name in own[0]
            if "_at_" in name
            for values in [np.array([row[name] for row in own], dtype=float)]
        }
    return result


def facts_of(families: Sequence[Family], pool: Pool) -> dict[str, object]:
    """What the result file says beside the measures."""
    rng = generator(0, "timing")
    timed = [pool.graphs[int(i)] for i in rng.choice(len(pool.graphs), 128, replace=False)]
    nodes = [len(graph) for graph in pool.graphs]
    return {
        "encoder_sha256": encoder_sha256(SHIPPED),
        "families": len(families),
        "architectures": len(pool.graphs),
        "nodes": {"median": float(np.median(nodes)), "max": max(nodes)},
        "embed": embed_ms(load_encoder(SHIPPED), timed),
        "load": "two cores that a dozen processes shared; CPU times, not elapsed ones",
        "seeds": list(SEEDS),
    }


def main() -> None:
    """Measure every method that has no rows yet, and write the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--encoders", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    families = load_part("unseen", arguments.corpus)
    pool = Pool.of(families)
    print(f"{len(families)} families, {len(pool.graphs)} architectures", flush=True)
    done = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    for name, method in methods(arguments.encoders).items():
        mark = encoder_sha256(SHIPPED) if name == SHIPPED_NAME else ""
        if sum(row["method"] == name and row["mark"] == mark for row in done) == len(SEEDS):
            continue
        started = time.process_time()
        table = method(pool.graphs)
        ms = 1e3 * (time.process_time() - started) / len(pool.graphs)
        rows = [
            {"method": name, "mark": mark, "cpu_ms_per_graph": ms, **measure(table, pool, seed)}
            for seed in SEEDS
        ]
        done = [row for row in done if row["method"] != name] + rows
        write_text(ROWS, "".join(json.dumps(row) + "\n" for row in done))
        means = {
            key: round(float(np.mean([row[key] for row in rows])), 4) for key in ("mrr_at_20", "recall_at_10")
        }
        print(f"{name}: {means}, {ms:.1f} ms per graph", flush=True)
    save("zoo_retrieval", {**facts_of(families, pool), "methods": summary(done)})


if __name__ == "__main__":
    main()
