"""Named recipes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product

from nasgraph.errors import UnknownNameError
from nasgraph.ir import ComputationalGraph, GraphBuilder
from nasgraph.meta.population.recipe import Family, Recipe
from nasgraph.meta.population.settings import Ranges

_DIGITS = (1, 8, 8)


def perceptron(
    widths: tuple[int, ...],
    *,
    input_shape: tuple[int, ...] = _DIGITS,
    num_classes: int = 10,
    activation: str = "relu",
    norm: str = "none",
) -> ComputationalGraph:
    """Hidden layers of these widths: linear, norm ("none", "batch" or "layer"), activation. A bias where no norm follows."""
    graph = GraphBuilder()
    x = graph("input", shape=input_shape)
    if len(input_shape) > 1:
        x = graph("flatten", x)
    for width in widths:
        x = graph("linear", x, out_features=width, bias=norm == "none")
        if norm != "none":
            x = graph(f"{norm}_norm", x)
        x = graph(activation, x)
    return graph.finish(graph("linear", x, out_features=num_classes))


def small_convnet(
    widths: tuple[int, ...],
    *,
    input_shape: tuple[int, ...] = _DIGITS,
    num_classes: int = 10,
    activation: str = "relu",
    norm: str = "none",
    residual: bool = False,
) -> ComputationalGraph:
    """Convolutions of 3x3, each halving the image, then the mean over positions and a linear map.

    Args:
        widths: Channels of each.
        input_shape: Channels, height, width.
        num_classes: Outputs.
        activation: After each.
        norm: "none" or "batch".
        residual: Whether after each convolution another one of the same width is added to what it reads.
    """
    graph = GraphBuilder()
    x = graph("input", shape=input_shape)

    def unit(x: int, width: int, stride: int) -> int:
        y = graph(
            "conv2d", x, out_channels=width, kernel_size=3, stride=stride, padding=1, bias=norm == "none"
        )
        return graph(activation, graph("batch_norm", y) if norm == "batch" else y)

    for place, width in enumerate(widths):
        x = unit(x, width, 1 if place == 0 and len(widths) > 2 else 2)
        if residual:
            x = graph("add", x, unit(x, width, 1))
    x = graph("global_avg_pool2d", x)
    return graph.finish(graph("linear", x, out_features=num_classes))


def _digits_mlp() -> Recipe:
    """2,000 perceptrons 64-32-32-10 whose test accuracy spreads from chance to the best they can reach."""
    return Recipe(
        name="digits-mlp",
        data="digits",
        families=(Family(name="mlp-32-32", graph=perceptron((32, 32)), count=2000),),
    )


def _digits_widths() -> Recipe:
    """Perceptrons of widths 12, 16 and 20, and 250 of width 48 to test on."""
    seen = [Family(name=f"mlp-{w}-{w}", graph=perceptron((w, w)), count=400) for w in (12, 16, 20)]
    unseen = Family(name="mlp-48-48", graph=perceptron((48, 48)), count=250, split="unseen-width")
    return Recipe(name="digits-widths", data="digits", families=(*seen, unseen), shard_size=200)


def _family(name: str, graph: ComputationalGraph, count: int, split: str = "") -> Family:
    return Family(name=name, graph=graph, count=count, split=split)


def _digits_families() -> Recipe:
    """Perceptrons and small convnets of several depths, widths, activations and norms; some of each only to test on."""
    families = []
    for depth, activation, norm in product((1, 2, 3), ("relu", "gelu", "tanh"), ("none", "batch", "layer")):
        width = (16, 24, 32)[(depth + ("none", "batch", "layer").index(norm)) % 3]
        graph = perceptron((width,) * depth, activation=activation, norm=norm)
        families.append(_family(f"mlp{depth}-{width}-{activation}-{norm}", graph, 40))
    for widths, norm in product(((8, 16), (6, 12, 16)), ("none", "batch")):
        graph = small_convnet(widths, norm=norm)
        families.append(_family(f"conv{len(widths)}-{'-'.join(map(str, widths))}-{norm}", graph, 40))
    for norm in ("none", "batch"):
        graph = perceptron((64, 64), norm=norm)
        families.append(_family(f"mlp2-64-relu-{norm}", graph, 50, "unseen-width"))
        graph = perceptron((24,) * 5, norm=norm)
        families.append(_family(f"mlp5-24-relu-{norm}", graph, 50, "unseen-depth"))
        graph = perceptron((24, 24), activation="silu", norm=norm)
        families.append(_family(f"mlp2-24-silu-{norm}", graph, 50, "unseen-activation"))
        graph = small_convnet((8, 12), norm=norm, residual=True)
        families.append(_family(f"resnet-8-12-{norm}", graph, 40, "unseen-family"))
    return Recipe(
        name="digits-families", data="digits", families=tuple(families), shard_size=50, snapshots=(0.3,)
    )


def _digits_subsets() -> Recipe:
    """756 perceptrons 64-32-10 from one start and 756 from starts of their own: three on each set of five digits; 52 sets unseen."""
    shared = Ranges(
        gain=(1.0, 1.0),
        learning_rate=(0.2, 0.2),
        weight_decay=(1e-4, 1e-4),
        noisy_share=0.0,
        steps=(400, 400),
        class_sets=tuple(combinations(range(10), 5)),
        shared_initial=True,
    )
    graph = perceptron((32,))
    return Recipe(
        name="digits-subsets",
        data="digits",
        families=(
            Family(name="shared", graph=graph, count=756),
            Family(
                name="separate",
                graph=graph,
                count=756,
                ranges=replace(shared, shared_initial=False),
            ),
        ),
        ranges=shared,
        snapshots=(0.01, 0.03, 0.1, 0.3),
        shard_size=252,
        val_share=0.0,
        test_share=0.0,
        unseen_class_sets=52,
    )


def _digits_trajectories() -> Recipe:
    """1,200 perceptrons 64-16-10 from starts of their own, trained alike, with ten states on the way: for loss prompts."""
    ranges = Ranges(
        gain=(1.0, 1.0),
        learning_rate=(0.1, 0.1),
        weight_decay=(1e-4, 1e-4),
        noisy_share=0.0,
        steps=(400, 400),
    )
    return Recipe(
        name="digits-trajectories",
        data="digits",
        families=(Family(name="mlp-16", graph=perceptron((16,)), count=1200),),
        ranges=ranges,
        snapshots=(0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0),
        shard_size=300,
        val_share=0.05,
        test_share=0.05,
    )


_IMAGE_RANGES = Ranges(
    gain=(0.5, 2.0),
    learning_rate=(0.01, 0.4),
    weight_decay=(1e-5, 1e-2),
    momentum=(0.0, 0.9),
    steps=(50, 600),
)


def _on_pictures(name: str, data: str, families: Sequence[Family], *, image_size: int) -> Recipe:
    """Convnets on 8,000 reduced pictures: small shards, since each network takes long."""
    return Recipe(
        name=name,
        data=data,
        families=tuple(families),
        ranges=_IMAGE_RANGES,
        shard_size=20,
        snapshots=(0.3,),
        image_size=image_size,
        num_train=8000,
    )


def _fashion_mnist_cnn() -> Recipe:
    """400 small convnets of four kinds on Fashion-MNIST at 14x14 pixels; one width and one family only to test on."""
    kinds = [
        _family("conv-8-16", small_convnet((8, 16), input_shape=(1, 14, 14)), 120),
        _family("conv-8-16-batch", small_convnet((8, 16), input_shape=(1, 14, 14), norm="batch"), 120),
        _family(
            "conv-24-32-batch",
            small_convnet((24, 32), input_shape=(1, 14, 14), norm="batch"),
            80,
            "unseen-width",
        ),
        _family(
            "resnet-8-16",
            small_convnet((8, 16), input_shape=(1, 14, 14), norm="batch", residual=True),
            80,
            "unseen-family",
        ),
    ]
    return _on_pictures("fashion-mnist-cnn", "fashion-mnist", kinds, image_size=14)


def _cifar10_cnn() -> Recipe:
    """300 small convnets of three kinds on CIFAR-10 at 16x16 pixels; one family only to test on."""
    shape = (3, 16, 16)
    kinds = [
        _family("conv-12-24", small_convnet((12, 24), input_shape=shape), 100),
        _family("conv-12-24-batch", small_convnet((12, 24), input_shape=shape, norm="batch"), 100),
        _family(
            "resnet-12-24",
            small_convnet((12, 24), input_shape=shape, norm="batch", residual=True),
            100,
            "unseen-family",
        ),
    ]
    return _on_pictures("cifar10-cnn", "cifar10", kinds, image_size=16)


def _digits_sample() -> Recipe:
    """200 small perceptrons, 20 of them fine-tuned from others: the population that ships."""
    tuned = Ranges(learning_rate=(0.02, 0.3), steps=(40, 150), noisy_share=0.0)
    return Recipe(
        name="digits-sample",
        data="digits",
        families=(
            Family(name="mlp-16-16", graph=perceptron((16, 16)), count=80),
            Family(name="mlp-12-tanh", graph=perceptron((12,), activation="tanh"), count=40),
            Family(name="mlp-16-batch", graph=perceptron((16,), norm="batch"), count=40),
            Family(name="mlp-24-24", graph=perceptron((24, 24)), count=20, split="unseen-width"),
            Family(
                name="mlp-16-16-tuned",
                graph=perceptron((16, 16)),
                count=20,
                ranges=tuned,
                parent="mlp-16-16",
            ),
        ),
        ranges=Ranges(steps=(30, 350)),
        snapshots=(),
        num_probes=16,
        store_initial=False,
    )


PRESETS: Mapping[str, Callable[[], Recipe]] = {
    "digits-mlp": _digits_mlp,
    "digits-widths": _digits_widths,
    "digits-families": _digits_families,
    "digits-subsets": _digits_subsets,
    "digits-trajectories": _digits_trajectories,
    "digits-sample": _digits_sample,
    "fashion-mnist-cnn": _fashion_mnist_cnn,
    "cifar10-cnn": _cifar10_cnn,
}


def preset(name: str) -> Recipe:
    """A named recipe. The names: `PRESETS`.

    Raises:
        UnknownNameError: If there is none of that name; the message offers close ones.
    """
    if name not in PRESETS:
        raise UnknownNameError("population recipe", name, PRESETS)
    return PRESETS[name]()
