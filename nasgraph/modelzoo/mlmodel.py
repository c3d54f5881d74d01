"""The `MLmodel` file: how MLflow finds our loader, and what it may feed to it."""

import json
from hashlib import sha256

from nasgraph.ir import ComputationalGraph
from nasgraph.modelzoo.card import ModelCard, card_to_json

LOADER = "nasgraph.modelzoo.flavor"
REQUIREMENTS = "nasgraph\ntorch\nsafetensors\nnumpy\n"


def mlmodel_text(card: ModelCard, graph: ComputationalGraph) -> str:
    """MLflow's description of an entry, with the flavours `nasgraph` and `python_function`.

    YAML whose strings are written as JSON. All of it follows from card and graph, so a reader can tell if it was changed.
    """
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
{_signature(graph)}utc_time_created: '{card.created} 00:00:00'
"""


def _signature(graph: ComputationalGraph) -> str:
    """What MLflow checks inputs by. A network with several inputs or outputs has none."""
    if len(graph.inputs) > 1 or len(graph.outputs) > 1:
        return ""
    source, result = graph.inputs[0], graph.outputs[0]
    tensor = {"dtype": "int64" if takes_integers(graph) else "float32", "shape": [-1, *graph.shapes[source]]}
    logits = {"dtype": "float32", "shape": [-1, *graph.shapes[result]]}
    inputs = json.dumps([{"type": "tensor", "tensor-spec": tensor}])
    outputs = json.dumps([{"type": "tensor", "tensor-spec": logits}])
    raw = json.dumps([{"name": "raw", "type": "boolean", "default": False, "shape": None}])
    return f"""\
signature:
  inputs: {json.dumps(inputs)}
  outputs: {json.dumps(outputs)}
  params: {json.dumps(raw)}
"""


def takes_integers(graph: ComputationalGraph) -> bool:
    """Whether the first input is of integers, such as tokens."""
    return dict(graph.nodes[graph.inputs[0]].attrs).get("dtype") == "int"
