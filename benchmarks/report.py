"""Fills docs/results.md from the result files, between the markers `<!-- results: NAME -->` and `<!-- /results -->`.

python -m benchmarks.report
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS
from benchmarks.ghn.report import SECTIONS as GHN_SECTIONS
from benchmarks.meta.report import SECTIONS as META_SECTIONS
from benchmarks.predictors.report import SECTIONS as PREDICTOR_SECTIONS
from benchmarks.search.report import SECTIONS as SEARCH_SECTIONS
from benchmarks.zoo.report import SECTIONS as ZOO_SECTIONS
from nasgraph.files import write_text

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "results.md"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def load(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def machine(result: dict[str, Any]) -> str:
    facts = result["environment"]
    return f"{facts['processor']}, {facts['cores']} virtual cores, torch {facts['versions']['torch']}, {facts['date']}"


def interval(value: dict[str, float]) -> str:
    centre = value.get("tau", value.get("difference"))
    return f"{centre:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def ghn_quality() -> str:
    parts = []
    for name in sorted(path.stem for path in RESULTS.glob("ghn_quality_*.json")):
        result = load(name)
        assert result is not None
        settings, means = result["settings"], result["mean accuracy"]
        noise = (
            f", shifted by up to {settings['shift_pixels']} pixel, noise {settings['noise_std']}"
            if float(settings.get("noise_std", 0))
            else ""
        )
        size = (
            f" at {settings['image_size']}x{settings['image_size']}"
            if settings["image_size"] != "None"
            else ""
        )
        count = f", {settings['num_train']} training images" if settings["num_train"] != "None" else ""
        parts.append(
            f"### {settings['data']}{size}{noise}, space {settings['space']}\n\n"
            f"{result['architectures']} held-out architectures; the truth is test accuracy after {settings['epochs']} epochs from random "
            f"weights, mean of {settings['seeds']} seeds{count}. {machine(result)}. File: `{name}.json`.\n"
        )
        parts.append(table(["accuracy (validation)", "mean", "std over architectures"],
                           [[key, f"{v['mean']:.3f}", f"{v['std']:.3f}"] for key, v in means.items()]))  # fmt: skip
        wins, total = result["predicted better than random after 1 epoch"], result["architectures"]
        parts.append(
            f"\nAfter one epoch, predicted weights lead random ones on {wins} of {total} architectures.\n"
        )
        rows = [
            [key, interval(value), interval(result["tau, better half"][key]),
             interval(result["tau less that of the parameter count"][key]) if key != "parameter count" else ""]
            for key, value in result["tau"].items()
        ]  # fmt: skip
        if result["seed against seed"]:
            rows.append(
                [
                    "*ceiling: one training seed against another*",
                    interval(result["seed against seed"]),
                    "",
                    "",
                ]
            )
        parts.append(
            table(["score", "Kendall tau [95 %]", "better half", "less that of the parameter count"], rows)
        )
        cpu = ", ".join(
            f"{key} {value:.3f}" for key, value in result["mean CPU seconds per architecture"].items()
        )
        parts.append(f"\nMean CPU seconds per architecture (one thread, busy machine): {cpu}.\n")
    return "\n".join(parts)


def search_against_random() -> str:
    parts = []
    for data in ("digits", "fashion-mnist"):
        name = f"search_vs_random_{data}"
        result = load(name)
        if result is None:
            continue
        settings = result["settings"]
        parts.append(
            f"### {data}\n\nSpace {settings['space']}, {settings['budget']} CPU seconds per run, {settings['epochs']} epochs per candidate. "
            f"Mean test accuracy of random architectures: {result['mean test accuracy of random architectures']:.4f}. "
            f"{machine(result)}. File: `{name}.json`.\n\n![Best so far](../benchmarks/results/{name}.png)\n"
        )
        rows = []
        for strategy in ("random", "screen", "screen + init", "random + init"):
            if strategy not in result:
                continue
            r = result[strategy]
            against = r.get("against random, test")
            val = r.get("against random, validation")
            rows.append([
                strategy, r["runs"], f"{r['trials per run']:.1f}",
                f"{r['final validation accuracy']['mean']:.4f} ± {r['final validation accuracy']['std']:.4f}",
                f"{r['final test accuracy']['mean']:.4f} ± {r['final test accuracy']['std']:.4f}",
                f"{100 * r['relative improvement over the average architecture']:+.1f} %",
                f"{val['mean difference']:+.4f}, {val['wins']} wins, {val['ties']} ties, p = {val['wilcoxon p']:.3f}" if val else "",
                f"{against['mean difference']:+.4f}, {against['wins']} wins, {against['ties']} ties, p = {against['wilcoxon p']:.3f}" if against else "",
            ])  # fmt: skip
        parts.append(table(["strategy", "seeds", "trials per run", "final validation", "final test", "over the average",
                            "validation, against random", "test, against random"], rows))  # fmt: skip
        parts.append("")
    return "\n".join(parts)


def overhead() -> str:
    result = load("overhead")
    if result is None:
        return ""
    rows = []
    for row in result["rows"]:
        at = row["CPU ms per trial"]
        cells = []
        for mark in ("100", "1000", "5000", "10000"):
            values = at.get(mark)
            last = next(value for key, value in values.items() if key.startswith("last")) if values else 0.0
            cells.append(f"{values['mean so far']:.1f} ({last:.1f})" if values else "not run")
        rows.append([row["space"], row["sampler"], *cells, row["writes missing in MLflow"]])
    head = (
        f"{machine(result)}; one other job ran beside it. Mean over all trials so far, in brackets over the last 50. The first 100 trials get "
        "runs of their own in MLflow, some 22 ms each. Proposals of known graphs are part of the cost: nasbench201 has 6,466 distinct graphs.\n\n"
    )
    return head + table(
        ["space", "sampler", "100 trials", "1,000", "5,000", "10,000", "missing writes"], rows
    )


def predict_large() -> str:
    result = load("predict_large")
    if result is None:
        return ""
    rows = [
        [key, f"{v['median']:,.4g}", f"{v['min']:,.4g}", f"{v['max']:,.4g}"]
        for key, v in result.items()
        if isinstance(v, dict) and "median" in v
    ]
    return f"{machine(result)}, one thread, {result['repeats']} processes.\n\n" + table(
        ["", "median", "least", "most"], rows
    )


def spaces() -> str:
    result = load("spaces")
    if result is None:
        return ""
    rows = [
        [name, r["distinct graphs"], *(f"{r[key]['min']:,} / {r[key]['median']:,.0f} / {r[key]['max']:,}" for key in ("nodes", "parameters", "multiply-adds")),
         f"{r['CPU ms to sample']:.2f}", f"{r['CPU ms to fingerprint']:.2f}"]
        for name, r in result.items() if isinstance(r, dict) and "nodes" in r
    ]  # fmt: skip
    whole = result["nasbench201, enumerated"]
    return (
        f"{machine(result)}. 500 samples each, for 1x8x8 images; least / median / most.\n\n"
        + table(
            [
                "space",
                "distinct of 500",
                "nodes",
                "parameters",
                "multiply-adds",
                "ms to sample",
                "ms to fingerprint",
            ],
            rows,
        )
        + f"\n\nNAS-Bench-201, enumerated: {whole['architectures']:,} architectures, {whole['distinct graphs']:,} distinct graphs after "
        "removing what cannot reach the output or carries only zeros."
    )


SECTIONS: dict[str, Callable[[], str]] = {
    "ghn quality": ghn_quality,
    "search against random": search_against_random,
    "overhead": overhead,
    "predict large": predict_large,
    "spaces": spaces,
    **GHN_SECTIONS,
    **PREDICTOR_SECTIONS,
    **SEARCH_SECTIONS,
    **ZOO_SECTIONS,
    **META_SECTIONS,
}


def main() -> None:
    text = DOCUMENT.read_text()
    for name, section in SECTIONS.items():
        pattern = re.compile(rf"(<!-- results: {name} -->\n).*?(<!-- /results -->)", re.DOTALL)
        assert pattern.search(text), name
        content = section().strip()
        text = pattern.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)
    write_text(DOCUMENT, text)


if __name__ == "__main__":
    main()
