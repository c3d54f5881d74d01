"""Model classes of the `transformers` library, from small configurations, with random weights and no download.

A recipe is a class name, the inputs, and the settings of its configuration. Every model has two layers or
stages, a width of 16 to 64, and a vocabulary of 100; task heads where they are natural, bare models elsewhere.
"""

import importlib
import os

from torch import nn

from benchmarks.ghn.models import Model, enliven, seeded
from benchmarks.ghn.models.transformers_recipes import multimodal, sound, sparse, text, vision
from benchmarks.ghn.models.transformers_recipes.recipe import Recipe


def models() -> list[Model]:
    """All models, in the order of their families."""
    return [_model(recipe, family) for family, recipes in _families().items() for recipe in recipes]


def _model(recipe: Recipe, family: str) -> Model:
    return Model(
        recipe.name, family, seeded(lambda: _build(recipe)), seeded(recipe.inputs), recipe.class_name
    )


def _families() -> dict[str, list[Recipe]]:
    return {
        "text encoder": text.text_encoders(),
        "decoder": text.decoders() + text.new_decoders(),
        "mixture of experts": sparse.experts(),
        "state space": sparse.state_spaces(),
        "encoder-decoder": text.encoder_decoders(),
        "vision": vision.vision_transformers() + vision.vision_convolutions(),
        "dense vision": vision.dense_vision(),
        "audio": sound.audio(),
        "multimodal": multimodal.multimodal(),
        "series": sound.series(),
    }


def _build(recipe: Recipe) -> nn.Module:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    model_class = getattr(importlib.import_module("transformers"), recipe.class_name)
    module: nn.Module = model_class(model_class.config_class(**recipe.settings))
    return enliven(module).eval()
