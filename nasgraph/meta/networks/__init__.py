"""Equivariant metanetworks: networks that read parameter graphs to predict, to edit and to embed."""

from nasgraph.meta.networks.batches import grouped
from nasgraph.meta.networks.checkpoint import (
    SCHEMA,
    load_metanetwork,
    metanetwork_description,
    save_metanetwork,
    shipped_metanetwork,
)
from nasgraph.meta.networks.config import KINDS, MetanetworkConfig
from nasgraph.meta.networks.fit import Epoch, FitConfig, embed_groups, fit_predictor, predict_groups
from nasgraph.meta.networks.fit_embedding import EmbeddingConfig, fit_embedding
from nasgraph.meta.networks.metanetwork import Metanetwork
from nasgraph.meta.networks.refine import RefineConfig, fit_refinement, refined

__all__ = [
    "KINDS",
    "SCHEMA",
    "EmbeddingConfig",
    "Epoch",
    "FitConfig",
    "Metanetwork",
    "MetanetworkConfig",
    "RefineConfig",
    "embed_groups",
    "fit_embedding",
    "fit_predictor",
    "fit_refinement",
    "grouped",
    "load_metanetwork",
    "metanetwork_description",
    "predict_groups",
    "refined",
    "save_metanetwork",
    "shipped_metanetwork",
]
