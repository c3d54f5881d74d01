"""Which of 108 models fits a data set? Rankings by stored vectors and by running the models, against fine-tuning all of them.

    nice -n 10 python -m benchmarks.zoo.model_retrieval_models --mnist FOLDER     (first: trains the networks and measures the truth)
    nice -n 10 python -m benchmarks.zoo.model_retrieval --mnist FOLDER            (ranks what is missing, then reports)
    python -m benchmarks.zoo.model_retrieval --report                             (report only)

The truth of a query is the accuracy of every candidate after fine-tuning all its weights on the query's images, on 180 other images per class
(900 in all). Population, class sets and splits: see `model_retrieval_models`. Alignments are trained with 108 other networks, other
class sets and other images:

    know2vec            listwise loss; models asked with unlabelled training images of theirs
    know2vec probes     the same, models asked with the shipped probes only
    know2vec triplet    Know2Vec's own loss: queries are those of the training networks' class sets, the network trained on them must be nearest
    know2vec left out   as know2vec, but without the query's data set in the training of the alignment (models, class sets and images of two
                        data sets); the candidates are all 108
    know2vec left probes  the same with probes only: what could be shipped once for all

    nearest mean, probe of 36   two-stage, put together from the rows of both: what `rank_models` does by default where there is no alignment

`hit@1`: the first model is the truly best one; `near@1`: it is within one standard error of 900 images of the best; `hit@3`: the truly best is among
the first three; `top third`: it is in the first third; `regret`: best accuracy less that of the first model, in points; `weighted tau`: scipy's, of the true
accuracies against the ranking. Intervals: 95 % bootstrap over queries. CPU seconds are those of this process, per query, for ranking 108
candidates, with what is stored of them at hand.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import weightedtau
from torch import Tensor

from benchmarks.common import RESULTS, SHARED_DATA, cpu_seconds, save
from benchmarks.zoo.model_retrieval_models import (
    MODELS,
    POOLS,
    SETS,
    TRAINING,
    TRUTH,
    UNSEEN,
    WORK,
    Member,
    QueryPart,
    architecture,
    class_sets,
    images,
    members,
    normalisation,
    part,
    queries,
    query_parts,
)
from nasgraph.hyper.checkpoint import load_tensors, save_tensors
from nasgraph.retrieve.behaviour import (
    AlignConfig,
    Alignment,
    Candidate,
    DataDescription,
    Episode,
    ModelDescription,
    QueryData,
    RankConfig,
    candidate_from_graph,
    describe_classes,
    describe_data,
    describe_model,
    draw_episodes,
    image_features,
    load_alignment,
    outputs_of,
    rank_models,
    save_alignment,
    train_alignment,
)
from nasgraph.retrieve.behaviour.records import Forward
from nasgraph.seeding import generator

ROWS = RESULTS / "zoo_model_retrieval.rows.jsonl"
HELD = 900
SOURCES = ("own", "probes")
Pictures = Mapping[str, Tensor]
Descriptions = Mapping[str, ModelDescription]


def pool_candidates(pool: str, pictures: Pictures, folder: Path) -> list[Candidate]:
    """The networks of a pool, without vectors."""
    normals = {name: normalisation(pictures[name]) for name in SETS}
    return [
        candidate_from_graph(
            member.name,
            architecture(member),
            load_tensors(folder / f"{member.name}.safetensors"),
            normalisation=normals[member.data],
        )
        for member in members(pool)
    ]


def own_images(member: Member, pictures: Pictures) -> QueryData:
    """100 training images per class of a network."""
    classes = class_sets(member.data)[member.number]
    return QueryData(*part(pictures[member.data], classes, slice(MODELS.start, MODELS.start + 100)))


def data_means(pictures: Pictures) -> dict[str, tuple[float, ...]]:
    """Mean description of the training images of every candidate, 100 per class."""
    first = slice(MODELS.start, MODELS.start + 100)
    by_class = {
        name: describe_data(QueryData(*part(pictures[name], tuple(range(10)), first))).means for name in SETS
    }
    return {
        member.name: DataDescription(by_class[member.data][list(class_sets(member.data)[member.number])]).mean
        for member in members("candidates")
    }


def descriptions(
    pool: str, source: str, candidates: Sequence[Candidate], pictures: Pictures, folder: Path
) -> Descriptions:
    """What the networks of a pool answer; kept in a file."""
    path = folder / f"described-{pool}-{source}.safetensors"
    if not path.exists():
        tensors: dict[str, Tensor] = {}
        for member, candidate in zip(members(pool), candidates, strict=True):
            asked = own_images(member, pictures).inputs if source == "own" else None
            described = describe_model(candidate, asked)
            for name in ("anchors", "borders", "confidence"):
                tensors[f"{member.name}.{name}"] = getattr(described, name)
        save_tensors(path, tensors)
    tensors = load_tensors(path)
    return {
        member.name: ModelDescription(
            *(tensors[f"{member.name}.{name}"] for name in ("anchors", "borders", "confidence"))
        )
        for member in members(pool)
    }


def episodes(candidates: Sequence[Candidate], pictures: Pictures, folder: Path) -> list[Episode]:
    """Queries to learn from, data sets in turn, on other class sets and images than the evaluated ones; kept in a file."""
    path = folder / "episodes.safetensors"
    if not path.exists():
        first = slice(TRAINING.start, TRAINING.start + 100)
        data = [QueryData(*part(pictures[name], tuple(range(10)), first)) for name in SETS]
        forbidden = {*POOLS["candidates"], *UNSEEN}
        allowed = [
            [classes for number, classes in enumerate(class_sets(name)) if number not in forbidden]
            for name in SETS
        ]
        drawn = draw_episodes(candidates, data, class_sets=allowed)
        means = torch.stack([each.data.means for each in drawn])
        save_tensors(path, {"means": means, "scores": torch.tensor([each.scores for each in drawn])})
    tensors = load_tensors(path)
    return [
        Episode(DataDescription(means), tuple(scores.tolist()))
        for means, scores in zip(tensors["means"], tensors["scores"], strict=True)
    ]


def without_set(found: Sequence[Episode], name: str) -> list[Episode]:
    """The episodes of the other data sets, with the scores of the networks of other data sets only."""
    keep = [place for place, member in enumerate(members("training")) if member.data != name]
    return [
        Episode(each.data, tuple(each.scores[place] for place in keep))
        for number, each in enumerate(found)
        if SETS[number % len(SETS)] != name
    ]


def triplet_episodes(pictures: Pictures) -> list[Episode]:
    """Know2Vec's queries: the class set of each training network, the score 1 for that network and 0 for others."""
    found = []
    pool = members("training")
    first = slice(TRAINING.start, TRAINING.start + 100)
    features = {
        name: image_features(pictures[name][:, first].flatten(0, 1)).unflatten(0, (10, 100)) for name in SETS
    }
    for place, member in enumerate(pool):
        classes = class_sets(member.data)[member.number]
        scores = tuple(float(other == place) for other in range(len(pool)))
        rng = generator(0, "triplet", member.name)
        for shots in (5, 20, 5, 20):
            shown = features[member.data][list(classes)][:, torch.from_numpy(rng.permutation(100)[:shots])]
            labels = torch.arange(len(classes)).repeat_interleave(shots)
            found.append(Episode(describe_classes(shown.flatten(0, 1), labels), scores))
    return found


def alignments(pictures: Pictures, folder: Path) -> dict[str, tuple[Alignment, str]]:
    """Every alignment by name, with what models are asked with; kept in files."""
    pool = pool_candidates("training", pictures, folder)
    every = episodes(pool, pictures, folder)
    described = {
        source: list(descriptions("training", source, pool, pictures, folder).values()) for source in SOURCES
    }
    found: dict[str, tuple[Alignment, str]] = {}

    def add(name: str, source: str, train: Callable[[], Alignment]) -> None:
        path = folder / "alignments" / name.replace(" ", "-").replace(":", "-")
        if not (path / "config.json").exists():
            save_alignment(train(), path, recipe={})
            print(f"trained {name}", flush=True)
        found[name] = (load_alignment(path)[0], source)

    add("know2vec", "own", partial(train_alignment, described["own"], every))
    add("know2vec probes", "probes", partial(train_alignment, described["probes"], every))
    paper = AlignConfig(triplet=1.0, listwise=0.0)
    paired = triplet_episodes(pictures)
    add("know2vec triplet", "own", partial(train_alignment, described["own"], paired, train=paper))
    for without in SETS:
        rest = without_set(every, without)
        for source, name in zip(SOURCES, ("left out", "left probes"), strict=True):
            pairs = zip(described[source], members("training"), strict=True)
            kept = [each for each, member in pairs if member.data != without]
            add(f"know2vec {name}:{without}", source, partial(train_alignment, kept, rest))
    return found


def with_vectors(
    candidates: Sequence[Candidate], alignment: Alignment, described: Descriptions
) -> list[Candidate]:
    """Candidates with the vectors of an alignment."""
    return [
        replace(each, vector=alignment.model_vector(described[each.reference]), encoder=alignment.digest)
        for each in candidates
    ]


def measure(pictures: Pictures, folder: Path, kind: str) -> None:
    """Rank for every query whose truth is known by every method of a kind; one row per ranking."""
    have, known = _done(), complete(read_truth()[0])
    pool = pool_candidates("candidates", pictures, folder)
    heads = {member.name: _head(member, folder) for member in members("candidates")}
    aligned: dict[str, tuple[Alignment, list[Candidate]]] = {}
    if kind != "run":
        means = data_means(pictures)
        pool = [replace(each, data_mean=means[each.reference]) for each in pool]
        described = {source: descriptions("candidates", source, pool, pictures, folder) for source in SOURCES}
        aligned = {
            name: (alignment, with_vectors(pool, alignment, described[source]))
            for name, (alignment, source) in alignments(pictures, folder).items()
        }
    with ROWS.open("a") as file:
        for query in queries():
            if query.name not in known:
                continue
            shown = QueryData(*query_parts(query, pictures[query.data])[0])
            methods = _methods(query, aligned, kind)
            methods = {name: each for name, each in methods.items() if (query.name, name) not in have}
            answers: dict[str, tuple[Forward, Forward]] = {}
            run_s = 0.0
            if kind != "vectors" and methods:
                answers, run_s = cpu_seconds(partial(_answers, pool, heads, shown))
            for name, (method, candidates, alignment, config) in methods.items():
                told = [
                    replace(each, forward=answers[each.reference][0], features=answers[each.reference][1])
                    if answers
                    else each
                    for each in candidates or pool
                ]
                ranked, seconds = cpu_seconds(
                    partial(rank_models, told, shown, method=method, alignment=alignment, config=config)
                )
                assert not any(each.failed for each in ranked)
                num_run = sum(each.method in ("linear-probe", "logme", "leep") for each in ranked)
                row = {
                    "query": query.name,
                    "method": name,
                    "ranking": [each.reference for each in ranked],
                    "cpu_s": round(seconds + run_s * num_run / len(ranked), 4),
                }
                file.write(json.dumps(row) + "\n")
                file.flush()
            print(query.name, flush=True)


def _head(member: Member, folder: Path) -> tuple[Tensor, Tensor]:
    """Weight and bias of the last layer."""
    state = load_tensors(folder / f"{member.name}.safetensors")
    name = f"n{len(architecture(member)) - 1}"
    return state[f"{name}.weight"].double(), state[f"{name}.bias"].double()


def _answers(
    pool: Sequence[Candidate], heads: Mapping[str, tuple[Tensor, Tensor]], query: QueryData
) -> dict[str, tuple[Forward, Forward]]:
    """What every candidate says of the query: run once, and handed to all methods (each is charged for the runs it would make)."""
    found: dict[str, tuple[Forward, Forward]] = {}
    for candidate in pool:
        features = outputs_of(candidate, query.inputs, features=True)
        weight, bias = heads[candidate.reference]
        logits = features @ weight.T + bias
        found[candidate.reference] = (partial(_same, logits), partial(_same, features))
    return found


def _same(answer: Tensor, inputs: Tensor) -> Tensor:
    assert len(answer) == len(inputs)
    return answer


Options = tuple[str, list[Candidate] | None, Alignment | None, RankConfig]


def _methods(
    query: QueryPart, aligned: Mapping[str, tuple[Alignment, list[Candidate]]], kind: str
) -> dict[str, Options]:
    """The methods of a kind: those that run models, and those that compare what is stored."""
    plain, black = RankConfig(reads="features"), RankConfig(reads="outputs")
    found: dict[str, Options] = {}
    if kind != "vectors":
        found |= {
            "leep": ("leep", None, None, plain),
            "logme": ("logme", None, None, plain),
            "logme black box": ("logme", None, None, black),
            "linear probe": ("linear-probe", None, None, plain),
            "linear probe black box": ("linear-probe", None, None, black),
        }
    if kind != "run":
        found["random"] = ("random", None, None, RankConfig(seed=query.number))
        found["nearest mean"] = ("nearest-mean", None, None, plain)
    for name, (alignment, candidates) in aligned.items():
        if ":" not in name or name.endswith(f":{query.data}"):
            found[name.split(":")[0]] = ("know2vec", candidates, alignment, plain)
    return found


def _done() -> set[tuple[str, str]]:
    if not ROWS.exists():
        return set()
    rows = [json.loads(line) for line in ROWS.read_text().splitlines() if line.endswith("}")]
    return {(row["query"], row["method"]) for row in rows}


# ---- report


def facts_of(ranking: Sequence[str], truth: Mapping[str, float], held: int) -> dict[str, float]:
    """How good one ranking is."""
    best = max(truth.values())
    top = {name for name, value in truth.items() if value == best}
    chosen = truth[ranking[0]]
    error = (best * (1 - best) / held) ** 0.5
    places = {name: place for place, name in enumerate(ranking)}
    names = sorted(truth)
    tau = weightedtau([truth[name] for name in names], [-places[name] for name in names]).statistic
    first = min(places[name] for name in top)
    return {
        "hit@1": float(first == 0),
        "near@1": float(chosen >= best - error),
        "hit@3": float(first < 3),
        "top third": float(first < len(ranking) / 3),
        "regret": 100 * (best - chosen),
        "regret of 3": 100 * (best - max(truth[name] for name in ranking[:3])),
        "weighted tau": float(tau),
    }


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean with a 95 % bootstrap interval over queries."""
    x = np.asarray(values)
    rng = generator(0, "queries")
    means = x[rng.integers(len(x), size=(4000, len(x)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": round(float(x.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def read_truth() -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Accuracy by query and candidate, and the CPU seconds that fine-tuning all of them took, by query."""
    truth: dict[str, dict[str, float]] = {}
    tuning: dict[str, float] = {}
    for line in TRUTH.read_text().splitlines():
        row = json.loads(line)
        truth.setdefault(row["query"], {})[row["model"]] = row["accuracy"]
        tuning[row["query"]] = tuning.get(row["query"], 0.0) + row["cpu_s"]
    return truth, tuning


def complete(truth: Mapping[str, Mapping[str, float]]) -> set[str]:
    """Queries on which all candidates were fine-tuned."""
    return {name for name, scores in truth.items() if len(scores) == len(members("candidates"))}


def report() -> None:
    """Print and save what the rows say."""
    truth, tuning = read_truth()
    known = complete(truth)
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    rows = [row for row in rows if row["query"] in known]
    rows += [row for number in (12, 24, 36) for row in in_two_stages(rows, number)]
    groups: dict[str, dict[str, object]] = {}
    for shots in (5, 20, 0):
        for which in ("unseen", "seen", "all"):
            names = [
                query.name
                for query in queries()
                if shots in (query.shots, 0)
                and query.name in known
                and (which == "all" or query.seen == (which == "seen"))
            ]
            groups[f"{shots or '5 or 20'} per class, {which}"] = _group(names, rows, truth, tuning)
    for name, group in groups.items():
        _print(name, group)
    save("zoo_model_retrieval", {"groups": groups, "candidates": len(members("candidates"))})


def in_two_stages(rows: Sequence[Mapping[str, Any]], number: int) -> list[dict[str, Any]]:
    """The rankings of "two-stage", put together as it does: the nearest by what is stored in the order of their probes, then the others."""
    found = []
    probes = {row["query"]: row for row in rows if row["method"] == "linear probe black box"}
    for row in rows:
        if row["method"] not in ("know2vec", "nearest mean") or row["query"] not in probes:
            continue
        probe, nearest = probes[row["query"]], set(row["ranking"][:number])
        ranking = [each for each in probe["ranking"] if each in nearest] + row["ranking"][number:]
        seconds = row["cpu_s"] + probe["cpu_s"] * number / len(ranking)
        method = f"{row['method']}, probe of {number}"
        found.append({"query": row["query"], "method": method, "ranking": ranking, "cpu_s": seconds})
    return found


def _group(
    names: Sequence[str],
    rows: Sequence[Mapping[str, object]],
    truth: Mapping[str, Mapping[str, float]],
    tuning: Mapping[str, float],
) -> dict[str, object]:
    methods: dict[str, list[tuple[dict[str, float], float]]] = {}
    for row in rows:
        if row["query"] in names:
            facts = facts_of(row["ranking"], truth[str(row["query"])], HELD)  # type: ignore[arg-type]  # rows are JSON
            methods.setdefault(str(row["method"]), []).append((facts, float(row["cpu_s"])))  # type: ignore[arg-type]
    result: dict[str, object] = {
        method: {
            **{key: interval([facts[key] for facts, _ in found]) for key in found[0][0]},
            "cpu_s": round(float(np.median([seconds for _, seconds in found])), 4),
            "queries": len(found),
        }
        for method, found in methods.items()
    }
    spread = [max(truth[name].values()) - float(np.mean(list(truth[name].values()))) for name in names]
    result["_truth"] = {
        "queries": len(names),
        "best less mean": round(100 * float(np.mean(spread)), 2) if names else None,
        "fine-tuning cpu_s": round(float(np.mean([tuning[name] for name in names])), 2) if names else None,
    }
    return result


def _print(name: str, group: Mapping[str, object]) -> None:
    print(f"\n{name}: {group['_truth']}")
    for method, found in group.items():
        if method.startswith("_"):
            continue
        assert isinstance(found, dict)
        cells = [
            f"{key} {found[key]['mean']:.3f} [{found[key]['low']:.2f}, {found[key]['high']:.2f}]"
            for key in ("hit@1", "near@1", "hit@3", "top third", "regret", "weighted tau")
        ]
        print(f"  {method:24} {'  '.join(cells)}  cpu {found['cpu_s']:.3f} s")


def main() -> None:
    """Measure what is missing, then report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", type=Path, default=SHARED_DATA / "mnist", help="folder of the t10k files")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the weights")
    parser.add_argument("--kind", choices=("run", "vectors", "all"), default="all", help="which methods")
    parser.add_argument("--report", action="store_true", help="report only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.report:
        kept = arguments.work / "pictures.safetensors"
        if not kept.exists():
            save_tensors(kept, {name: images(name, mnist=arguments.mnist) for name in SETS})
        measure(load_tensors(kept), arguments.work, arguments.kind)
    report()


if __name__ == "__main__":
    main()
