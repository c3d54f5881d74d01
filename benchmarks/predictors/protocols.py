"""Protocols A, B and C on tables: how well predictors rank all architectures that they have no label for.

    python -m benchmarks.predictors.protocols            runs what is missing; a second call goes on where the first ended
    python -m benchmarks.predictors.protocols --report   makes benchmarks/results/predictor_protocols.json from the rows

One configuration serves all tables. Labels are n random rows, all rows without a label are judged, and nothing else is
known but the graphs and, where stated, the stored zero-cost proxies of all rows (which need no training). Draws depend on the
seed alone, so predictors are compared on the same rows.

Tables other than NAS-Bench-201 are made from the shared data by `python -m benchmarks.tables.make_*`, see docs/tables.md.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import RESULTS, save
from nasgraph.evaluate.protocol import MEASURED, ProtocolConfig, SeedResult, run_predictor_protocol
from nasgraph.evaluate.table import Table, open_table
from nasgraph.evaluate.table_predictors import PREDICTORS, RowPredictorFactory, on_ensemble

ROWS = RESULTS / "predictor_protocols.rows.jsonl"
TABLES = Path("/tmp/nasgraph/tables")
SEEDS = 20
PROXIES = tuple(
    f"proxy_{name}"
    for name in (
        "epe_nas", "fisher", "flops", "grad_norm", "grasp", "jacov", "l2_norm", "nwot", "params", "plain", "snip", "synflow", "zen",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One line of the result: a table, what is known of it, a number of labels, and a predictor."""

    name: str
    table: str
    train_metric: str
    test_metric: str
    num_train: int
    predictor: str = "ensemble"
    side: bool = False
    pool: str = ""
    halves: bool = False

    @property
    def config(self) -> ProtocolConfig:
        """As the protocol wants it."""
        return ProtocolConfig(
            train_metric=self.train_metric,
            test_metric=self.test_metric,
            num_train=self.num_train,
            pool=self.pool,
            halves=self.halves,
            side_columns=PROXIES if self.side else (),
        )


def jobs() -> Iterator[Job]:
    """Everything that is measured, the most important first."""
    valid, test, reachable = "cifar10_valid_200ep", "cifar10_test_200ep", "no_unreachable_ops"
    for n in (39, 78, 156, 469):
        yield Job("A", "nasbench201", valid, test, n, side=True)
    yield Job("B", "nasbench201", test, test, 78, side=True, halves=True)
    for n in (100, 172, 424):
        yield Job("NB101", "nasbench101", "valid_accuracy_108ep", "valid_accuracy_108ep", n)
    for data in ("cora", "arxiv", "cs"):
        yield Job(f"NB-Graph {data}", "nasbench_graph", f"{data}_valid", f"{data}_test", 100)
    for n in (39, 78, 156, 469):
        yield Job("C", "nasbench201", valid, test, n)
    for n in (39, 78, 156, 469):
        yield Job("A, 9,445 cells", "nasbench201", valid, test, n, side=True, pool=reachable)
    yield Job("A 12 epochs", "nasbench201", "cifar10_valid_12ep", test, 78, side=True)
    for data in ("cifar100", "imagenet16_120"):
        yield Job(f"A {data}", "nasbench201", f"{data}_test_200ep", f"{data}_test_200ep", 78, side=True)
    for predictor in ("gaussian_process, blocks", "extra_trees", "blend", "ridge", "multiply_adds"):
        yield Job("A", "nasbench201", valid, test, 78, side=True, predictor=predictor)
    for data in ("citeseer", "pubmed", "physics", "photo", "computers"):
        yield Job(f"NB-Graph {data}", "nasbench_graph", f"{data}_valid", f"{data}_test", 100)


def factory_of(name: str) -> RowPredictorFactory:
    """A predictor by its name in the rows; single members of the ensemble among them."""
    members = {"gaussian_process, blocks": ("gaussian_process",), "extra_trees": ("extra_trees",)}
    return partial(on_ensemble, members=members[name]) if name in members else PREDICTORS[name]


def done() -> dict[tuple[str, str, int, str], dict[int, dict[str, object]]]:
    """Rows that are on disk."""
    found: dict[tuple[str, str, int, str], dict[int, dict[str, object]]] = {}
    if ROWS.exists():
        for line in ROWS.read_text().splitlines():
            row = json.loads(line)
            key = (row["job"], row["table"], row["num_train"], row["predictor"])
            found.setdefault(key, {})[row["seed"]] = row
    return found


def key_of(job: Job) -> tuple[str, str, int, str]:
    """What tells rows of one job from those of another."""
    return job.name, job.table, job.num_train, job.predictor


def run(only: str | None) -> None:
    """Measure what is missing. Preparations are shared by jobs on one view of a table."""
    tables: dict[str, Table] = {}
    prepared: dict[tuple[object, ...], RowPredictorFactory] = {}
    for job in jobs():
        missing = tuple(seed for seed in range(SEEDS) if seed not in done().get(key_of(job), {}))
        if not missing or (only is not None and not job.name.startswith(only)):
            continue
        if job.table not in tables:
            path = TABLES / f"{job.table}.safetensors"
            tables[job.table] = open_table("nasbench201" if job.table == "nasbench201" else str(path))
        view = (job.table, job.pool, job.side, job.predictor, job.train_metric, job.test_metric)
        if view not in prepared:
            prepared.clear()
            prepared[view] = _once(factory_of(job.predictor))
        config = ProtocolConfig(**{**asdict(job.config), "seeds": missing})
        result = run_predictor_protocol(
            tables[job.table], prepared[view], config, on_seed=partial(_write, job)
        )
        ceiling = result.ceiling.kendall_tau if result.ceiling else float("nan")
        taus = [row.kendall_tau for row in result.seeds]
        print(
            f"{job.name} {job.num_train} {job.predictor}: {np.mean(taus):.4f} ceiling {ceiling:.3f}",
            flush=True,
        )


def _once(factory: RowPredictorFactory) -> RowPredictorFactory:
    """A factory that prepares once: rows of equal views are described alike."""
    made: list[object] = []

    def prepare(view):  # type: ignore[no-untyped-def]
        if not made:
            made.append(factory(view))
        return made[0]

    return prepare


def _write(job: Job, result: SeedResult) -> None:
    row = {
        "job": job.name,
        "table": job.table,
        "num_train": job.num_train,
        "predictor": job.predictor,
        **asdict(result),
    }
    with ROWS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def report() -> None:
    """Means, spreads and the ceilings."""
    found = done()
    lines = []
    for job in jobs():
        rows = list(found.get(key_of(job), {}).values())
        if rows:
            values = {name: np.array([row[name] for row in rows], dtype=float) for name in MEASURED}
            summary = {
                name: {"mean": float(v.mean()), "std": float(v.std(ddof=1)) if len(v) > 1 else None}
                for name, v in values.items()
                if np.isfinite(v).all()
            }
            lines.append({**asdict(job), "seeds": len(rows), "num_test": rows[0]["num_test"], **summary})
    ceilings = {job.name: ceiling for job in jobs() if (ceiling := _ceiling(job)) is not None}
    print(
        save("predictor_protocols", {"jobs": lines, "ceilings": ceilings, "threads": torch.get_num_threads()})
    )
    for line in lines:
        tau = line["kendall_tau"]
        print(
            line["name"],
            line["num_train"],
            line["predictor"],
            line["seeds"],
            f"{tau['mean']:.4f} ± {tau['std'] or 0:.4f}",
        )  # type: ignore[index]


_CEILINGS: dict[tuple[str, str, str, str], float | None] = {}


def _ceiling(job: Job) -> float | None:
    """Tau of the true training metric with the test metric over the population; None where they are one."""
    from scipy.stats import kendalltau

    key = (job.table, job.train_metric, job.test_metric, job.pool)
    if key not in _CEILINGS:
        name = "nasbench201" if job.table == "nasbench201" else str(TABLES / f"{job.table}.safetensors")
        table = open_table(name)
        a, b = table.column(job.train_metric), table.column(job.test_metric)
        use = np.isfinite(a) & np.isfinite(b)
        if job.pool:
            use &= table.column(job.pool) == 1
        same = job.train_metric == job.test_metric
        _CEILINGS[key] = None if same else float(kendalltau(a[use], b[use]).statistic)
    return _CEILINGS[key]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--report", action="store_true", help="make the result file from the rows that there are"
    )
    parser.add_argument("--only", help="run only jobs whose name starts with this")
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    if not parsed.report:
        run(parsed.only)
    report()


if __name__ == "__main__":
    main()
