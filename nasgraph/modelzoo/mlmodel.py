"""The `MLmodel` file: how MLflow finds our loader, and what it may feed to it."""

import json
from hashlib import sha256

from nasgraph.modelzoo.card import ModelCard, card_to_json

LOADER = "nasgraph.modelzoo.flavor"
REQUIREMENTS = "nasgraph\ntorch\nsafetensors\nnumpy\n"


def mlmodel_text(card: ModelCard) -> str:
    """MLflow's description of an entry, with the flavours `nasgraph` and `python_function`.

    YAML whose strings are written as JSON. All of it follows from the card, so a reader can tell if it was changed.
    """
    tensor = {"dtype": "float32", "shape": [-1, *card.data.input_shape]}
    logits = {"dtype": "float32", "shape": [-1, len(card.data.class_names)]}
    inputs = json.dumps([{"type": "tensor", "tensor-spec": tensor}])
    outputs = json.dumps([{"type": "tensor", "tensor-spec": logits}])
    raw = json.dumps([{"name": "raw", "type": "boolean", "default": False, "shape": None}])
    model_id = sha256(card_to_json(card).encode()).hexdigest()[:32]
    return f"""\
flavors:
  nasgraph:
    schema: nasgraph/entry/1
    graph: graph.json
    weights: weights.safetensors
    nasgraph_version: {json.dumps(card.nasgraph_version)}
  python_function:
    loader_module: {LOADER}
    python_version: {json.dumps(card.python_version)}
model_uuid: {model_id}
signature:
  inputs: {json.dumps(inputs)}
  outputs: {json.dumps(outputs)}
  params: {json.dumps(raw)}
utc_time_created: '{card.created} 00:00:00'
"""
