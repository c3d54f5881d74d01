"""The model zoo: entries that reproduce their numbers, model cards, and a catalogue over MLflow's registry."""

from nasgraph.modelzoo.card import (
    DataFacts,
    LatencyFact,
    Lineage,
    Measurement,
    ModelCard,
    card_from_json,
    card_to_json,
    data_facts,
    draft_card,
    read_card,
)
from nasgraph.modelzoo.entry import ZooEntry, load_entry, write_entry
from nasgraph.modelzoo.verify import Verification, dataset_of, measure_accuracy, preparation_of, verify

__all__ = [
    "DataFacts",
    "LatencyFact",
    "Lineage",
    "Measurement",
    "ModelCard",
    "Verification",
    "ZooEntry",
    "card_from_json",
    "card_to_json",
    "data_facts",
    "dataset_of",
    "draft_card",
    "load_entry",
    "measure_accuracy",
    "preparation_of",
    "read_card",
    "verify",
    "write_entry",
]
