"""The sections of docs/results.md about the zoo."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.search.report import NONE, load_result, machine, table


def retrieval() -> str:
    found = load_result("zoo_retrieval")
    if found is None:
        return NONE
    names = (
        "mrr_at_20",
        "recall_at_10",
        "map_at_20",
        "ndcg_at_20",
        "recall_at_10_named",
        "group_precision_at_10",
    )
    rows = [
        [name, *(f"{values[key]['mean']:.3f} ± {values[key]['std']:.3f}" for key in names)]
        for name, values in sorted(found["methods"].items(), key=lambda item: -item[1]["mrr_at_20"]["mean"])
    ]
    columns = (
        "method",
        "MRR@20",
        "recall@10",
        "MAP@20",
        "NDCG@20",
        "recall@10, traced models",
        "same space in first 10",
    )
    embed = found["embed"]
    text = (
        f"{found['architectures']:,} architectures of {found['families']} families, of all spaces and traced models; {len(found['seeds'])} seeds of "
        f"queries; bases unseen in training. Embedding one graph alone takes {embed['median_ms_alone']:.1f} ms CPU (median, "
        f"{embed['mean_nodes']:.0f} nodes on average)."
    )
    return f"{machine(found)}.\n\n{table(columns, rows)}\n\n{text}"


def index_speed() -> str:
    found = load_result("zoo_index_speed")
    if found is None:
        return NONE
    rows = []
    for row in found["rows"]:
        by_breadth = {point["breadth"]: point for point in row["hnsw"]}
        rows.append(
            [
                f"{row['size']:,}",
                row["data"],
                f"{row['exact_single_ms']['median']:.2f}",
                f"{row['exact_batch_ms_per_query']:.2f}",
                *(
                    f"{point['ms']['median']:.2f} (p99 {point['ms']['p99']:.2f}), {point['recall_at_10']:.3f}"
                    for point in (by_breadth[96], by_breadth[128], by_breadth[192])
                ),
                f"{row['build_cpu_s']:.0f}",
                f"{row['hnsw_memory_mb']:,.0f}",
            ]
        )
    columns = (
        "embeddings", "of", "exact, alone, ms", "exact, in a batch, ms", "HNSW, efSearch 96: ms, recall@10", "128 (default)", "192",
        "build, s", "memory, MB",
    )  # fmt: skip
    links = found["settings"]["links"]
    return f"{machine(found)}, one thread, CPU time, 128 dimensions, M = {links}.\n\n{table(columns, rows)}"


def model_retrieval() -> str:
    found = load_result("zoo_model_retrieval")
    if found is None:
        return NONE
    parts = [f"{machine(found)}. {found['candidates']} candidates; the truth is fine-tuning all of them."]
    whole = "5 or 20 per class, all"
    for group in [whole] if whole in found["groups"] else list(found["groups"]):
        values = found["groups"][group]
        rows = [
            [
                name,
                *(f"{measured[key]['mean']:.2f}" for key in ("hit@1", "hit@3", "top third")),
                *(
                    f"{measured[key]['mean']:.2f} [{measured[key]['low']:.2f}, {measured[key]['high']:.2f}]"
                    for key in ("regret", "weighted tau")
                ),
                f"{measured['cpu_s']:.2f}",
            ]
            for name, measured in sorted(
                ((name, m) for name, m in values.items() if not name.startswith("_")),
                key=lambda item: item[1]["regret"]["mean"],
            )
        ]
        columns = (
            "method",
            "hit@1",
            "hit@3",
            "best in top third",
            "regret, points",
            "weighted tau",
            "CPU s per query",
        )
        truth = values["_truth"]
        parts.append(
            f"**{group}**: {truth['queries']} queries; fine-tuning all costs {truth['fine-tuning cpu_s']:.0f} CPU s, and the best is "
            f"{truth['best less mean']:.1f} points above the mean.\n\n{table(columns, rows)}"
        )
    return "\n\n".join(parts)


def compression() -> str:
    found = load_result("zoo_compression")
    if found is None:
        return NONE
    codecs = list(next(iter(found["groups"].values()))["codecs"])
    rows = [
        [name, f"{group['bytes'] / 1e6:.1f}", *(_codec(group["codecs"][codec]) for codec in codecs)]
        for name, group in found["groups"].items()
    ]
    deltas = [
        [name, f"{row['alone']:.3f}", f"{row['against_parent']:.3f}"]
        for name, row in found["lineage"].items()
    ]
    return (
        f"{machine(found)}. Size as a share of the original; in brackets MB/s of packing and unpacking, one thread, CPU time. `packing` is "
        f"ours. Bit-exact everywhere.\n\n{table(('weights', 'MB', *codecs), rows)}\n\nAgainst the parent's weights:\n\n"
        f"{table(('child', 'alone', 'against the parent'), deltas)}"
    )


def _codec(values: Mapping[str, Any]) -> str:
    speeds = [
        f"{_number(values[key]):.0f}" for key in ("compress_mb_per_s", "decompress_mb_per_s") if key in values
    ]
    return f"{_number(values['ratio']):.3f}" + (f" ({' / '.join(speeds)})" if speeds else "")


def _number(value: Any) -> float:
    return float(value["median"] if isinstance(value, dict) else value)


def soups() -> str:
    found = load_result("zoo_soups")
    if found is None:
        return NONE
    rows = [
        [
            name,
            values["best_single"]["repeats"],
            f"{100 * values['best_single']['mean']:.2f}",
            *(
                _gain(values.get(f"{soup}_minus_best"))
                for soup in ("uniform", "greedy", "learned", "ensemble")
            ),
        ]
        for name, values in found["soups"].items()
    ]
    apart = [
        [name, *(f"{values[key]['loss']['mean']:.3f}" if isinstance(values[key]["loss"], dict) else f"{values[key]['loss']:.3f}"
                 for key in ("plain", "aligned", "aligned_bn"))]
        for name, values in found["barriers"].items()
    ]  # fmt: skip
    columns = ("setting", "repeats", "best single, test %", "uniform", "greedy", "learned", "ensemble of all")
    return (
        f"{machine(found)}. Differences in points of test accuracy from the best single model by validation, with 95 % intervals.\n\n"
        f"{table(columns, rows)}\n\nNetworks trained apart: barrier of the loss half-way.\n\n"
        f"{table(('network', 'as trained', 'aligned', 'aligned, new batch norm statistics'), apart)}"
    )


def _gain(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value['mean']:+.2f} [{100 * value['low']:.2f}, {100 * value['high']:.2f}]"


def exports() -> str:
    found = load_result("zoo_exports")
    if found is None:
        return NONE
    rows = [
        [
            form,
            row["written"],
            row["refused_for_message_passing"],
            row["refused_otherwise"],
            f"{row['largest_difference']:.2g}",
            f"{100 * row['largest_share_of_tolerance']:.1f} %",
            f"{row['median_cpu_s']:.2f}",
        ]
        for form, row in found["summary"].items()
    ]
    columns = (
        "form", "written", "refused: message passing", "refused otherwise", "largest difference", "of its tolerance", "CPU s, median",
    )  # fmt: skip
    return (
        f"{machine(found)}, {found['runtime']}, two architectures of every space.\n\n{table(columns, rows)}"
    )


def web() -> str:
    speed, bad = load_result("zoo_web_speed"), load_result("zoo_bad_requests")
    if speed is None or bad is None:
        return NONE
    pages = [
        [
            name,
            f"{row['cpu_ms']:.0f} ({row['worst_cpu_ms']:.0f})",
            f"{row['best_wall_ms']:.0f}",
            f"{row['wall_ms']:.0f}",
        ]
        for name, row in speed["pages"].items()
        if isinstance(row, dict) and "cpu_ms" in row
    ]
    readers, registry, chart = speed["readers"], speed["registry"], speed["chart"]
    answers = [
        [name, row["requests"], ", ".join(f"{code}: {count}" for code, count in row["answers"].items())]
        for name, row in bad["categories"].items()
    ]
    columns = ("page, 10,000 entries", "CPU ms: median (worst)", "wall ms: best", "wall ms: median")
    return (
        f"{machine(speed)}; other work ran beside (load {speed['pages']['load_average'][0]:.0f}).\n\n{table(columns, pages)}\n\n"
        f"Drawing 10,000 points takes {chart['draw_ms']:.0f} ms (plotly: {chart['plotly']['draw_ms']:.0f}), pointing at one "
        f"{chart['pointing_ms']['median']:.1f} ms (median), {chart['pointing_ms']['worst']:.1f} (worst).\n\n"
        f"A registry of {registry['versions']:,} versions in SQLite: read whole in {registry['first_reading_cpu_s']:.1f} CPU s "
        f"({registry['first_reading_s']:.0f} s wall), news afterwards in {registry['refresh_ms']:.0f} ms.\n\n"
        f"{readers['readers']} readers, {readers['requests']} requests while a search writes ({readers['entries_written']} entries): median "
        f"{readers['while_writing']['p50_ms']:.0f} ms, 99 % within {readers['while_writing']['p99_ms']:.0f} ms, errors: "
        f"{len(readers['while_writing_problems'])}.\n\n"
        f"{bad['num_requests']} bad requests: faults {len(bad['faults'])}, files changed {len(bad['files_changed'])}.\n\n"
        f"{table(('kind', 'requests', 'answers'), answers)}"
    )


SECTIONS: Mapping[str, Callable[[], str]] = {
    "zoo retrieval": retrieval,
    "zoo index": index_speed,
    "zoo models for data": model_retrieval,
    "zoo compression": compression,
    "zoo soups": soups,
    "zoo exports": exports,
    "zoo web": web,
}
"""Every section by its name."""
