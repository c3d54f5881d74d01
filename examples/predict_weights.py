"""Parameters for a network that the hypernetwork has never seen, without training it.

python examples/predict_weights.py
"""

from nasgraph.data import load_dataset
from nasgraph.ir import GraphBuilder
from nasgraph.modules import build, call_with
from nasgraph.pipeline import open_ghn, shipped_ghns


def main() -> None:
    """Write a network down, predict its parameters, run it with them."""
    g = GraphBuilder()
    image = g("input", shape=(1, 8, 8))
    features = g(
        "relu", g("group_norm", g("conv2d", image, out_channels=16, kernel_size=3, padding=1), groups=4)
    )
    features = g("max_pool2d", features, kernel_size=2, stride=2)
    features = g(
        "relu", g("group_norm", g("conv2d", features, out_channels=32, kernel_size=3, padding=1), groups=4)
    )
    graph = g.finish(g("linear", g("global_avg_pool2d", features), out_features=10))

    ghn = open_ghn(shipped_ghns()["ghn-digits"], device="cpu")
    (parameters,) = ghn.predict([graph])
    validation = load_dataset("digits").search.validation
    module = build(graph)
    random = module(validation.inputs).argmax(1)
    predicted = call_with(module, parameters, validation.inputs).argmax(1)
    for name, answer in (("random", random), ("predicted", predicted)):
        print(f"accuracy with {name} parameters: {(answer == validation.targets).float().mean():.3f}")


if __name__ == "__main__":
    main()
