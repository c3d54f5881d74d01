"""How large the search spaces are: architectures, distinct graphs, and the sizes of random samples.

python benchmarks/spaces.py
"""

from statistics import median

from benchmarks.common import cpu_seconds, save
from nasgraph.ir import cost_of
from nasgraph.seeding import generator
from nasgraph.spaces import SearchSpace, enumerate_candidates, load_space, sample, space_names


def count_all(space: SearchSpace) -> dict[str, float]:
    """Architectures and distinct graphs of a space that can be enumerated."""
    fingerprints = [candidate.graph.fingerprint for candidate in enumerate_candidates(space)]
    return {"architectures": len(fingerprints), "distinct graphs": len(set(fingerprints))}


def sizes(space: SearchSpace, count: int) -> dict[str, object]:
    """Sizes of random samples, and the CPU time to make one."""
    graphs, cpu = cpu_seconds(lambda: [sample(space, generator(0, "sizes", i)).graph for i in range(count)])
    distinct, fingerprint_cpu = cpu_seconds(lambda: {graph.fingerprint for graph in graphs})
    costs = [cost_of(graph) for graph in graphs]
    spread = {
        "nodes": sorted(len(graph) for graph in graphs),
        "parameters": sorted(cost.num_parameters for cost in costs),
        "multiply-adds": sorted(cost.multiply_adds for cost in costs),
    }
    return {
        "samples": count,
        "distinct graphs": len(distinct),
        "CPU ms to sample": 1000 * cpu / count,
        "CPU ms to fingerprint": 1000 * fingerprint_cpu / count,
        **{
            name: {"min": values[0], "median": median(values), "max": values[-1]}
            for name, values in spread.items()
        },
    }


def main() -> None:
    result: dict[str, object] = {}
    for name in space_names():
        shape = (32,) if name == "gpt" else (1, 8, 8)  # token sequences, images
        result[name] = sizes(load_space(name, input_shape=shape, num_classes=10), 500)
    whole, cpu = cpu_seconds(
        lambda: count_all(load_space("nasbench201", input_shape=(1, 8, 8), num_classes=10))
    )
    result["nasbench201, enumerated"] = {**whole, "CPU seconds": cpu}
    print(save("spaces", result).read_text())


if __name__ == "__main__":
    main()
