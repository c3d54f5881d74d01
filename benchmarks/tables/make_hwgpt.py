"""Write a table of language models of HW-GPT-Bench (Sukthanker et al. 2024), the small space: perplexity and cost of real transformers.

    python -m benchmarks.tables.make_hwgpt [-o FILE] [--count 4000]

Graphs are whole models: every layer has its own number of heads and width. Rebuilt from the parameter counts, which fit exactly:
heads of 64 channels, gated MLPs, untied embeddings of 50,254 tokens, norms with shift. `check` holds the two counts together.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.common import SHARED_DATA
from nasgraph.evaluate.table import Metric, TableInfo, make_table, write_table
from nasgraph.ir import ComputationalGraph, GraphBuilder, cost_of

VOCABULARY, TOKENS, HEAD_DIM = 50_254, 1024, 64


def hwgpt_graph(row: dict[str, np.ndarray]) -> ComputationalGraph:
    """The model of one row."""
    g = GraphBuilder()
    dim, has_bias = int(row["embed_dim"]), bool(row["bias"])
    x = g("embedding", g("input", shape=(TOKENS,), dtype="int"), num_embeddings=VOCABULARY, dim=dim)
    for layer in range(int(row["n_layer"])):
        heads, width = int(row["n_head"][layer]), dim * int(row["mlp_ratio"][layer])
        y = g("layer_norm", x)
        q, k, v = (g("linear", y, out_features=HEAD_DIM * heads, bias=has_bias) for _ in range(3))
        y = g("attention", q, k, v, num_heads=heads, causal=True)
        x = g("add", x, g("linear", y, out_features=dim, bias=has_bias))
        y = g("layer_norm", x)
        gate, value = (g("linear", y, out_features=width, bias=has_bias) for _ in range(2))
        y = g("mul", g("silu", gate), value)
        x = g("add", x, g("linear", y, out_features=dim, bias=has_bias))
    return g.finish(g("linear", g("layer_norm", x), out_features=VOCABULARY, bias=False))


def check(graphs: list[ComputationalGraph], published: np.ndarray) -> None:
    """Print how many parameter counts are those published."""
    ours = np.array([cost_of(graph).num_parameters for graph in graphs])
    off = np.abs(ours - published) / published
    print(f"parameters: {np.mean(ours == published):.4f} equal, largest difference {off.max():.2e}")


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("hwgpt.safetensors"))
    parser.add_argument("--count", type=int, default=4000, help="the first so many of the 10,000")
    arguments = parser.parse_args()
    with np.load(SHARED_DATA / "hwgpt_bench_s.npz", allow_pickle=False) as file:
        devices = file["device_names"].tolist()
        names = (
            "embed_dim",
            "n_layer",
            "n_head",
            "mlp_ratio",
            "bias",
            "perplexity",
            "next_token_accuracy",
            "params",
        )
        table = {name: file[name][: arguments.count] for name in (*names, "latency_ms")}
    size = len(table["bias"])
    graphs = [hwgpt_graph({name: table[name][row] for name in names}) for row in range(size)]
    check(graphs, table["params"])
    supernet = "taken from the supernet, OpenWebText"
    metrics = [
        Metric(name="perplexity", higher_is_better=False, split="validation", protocol=supernet),
        Metric(name="next_token_accuracy", higher_is_better=True, unit="fraction", protocol=supernet),
        Metric(name="params_M", higher_is_better=False, unit="M", training_free=True),
        Metric(name="latency_ms_a100", higher_is_better=False, unit="ms"),
    ]
    columns = {
        "perplexity": table["perplexity"],
        "next_token_accuracy": table["next_token_accuracy"],
        "params_M": table["params"] / 1e6,
        "latency_ms_a100": table["latency_ms"][:, devices.index("a100")],
    }
    info = TableInfo(
        name="hwgpt",
        description=f"{size:,} transformer language models of the small space of HW-GPT-Bench.",
        source="automl/HW-GPT-Bench (795cba812482, cfddd10217c0)",
        licence="Apache-2.0",
        metrics=tuple(metrics),
        train_metric="perplexity",
        test_metric="perplexity",
    )
    made = make_table(graphs, columns, info)
    write_table(arguments.output, made)
    print(
        f"{arguments.output}: {len(made):,} rows, {made.num_graphs:,} graphs, {arguments.output.stat().st_size:,} bytes"
    )


if __name__ == "__main__":
    main()
