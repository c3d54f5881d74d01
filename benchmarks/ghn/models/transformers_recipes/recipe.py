"""What a recipe is, the inputs that many models take, and the settings that many configurations share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.ghn.models import Inputs

VOCABULARY = 100
Settings = Mapping[str, Any]  # of a configuration: numbers, strings, lists, and mappings of these

WIDTH: Settings = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXT: Settings = {**WIDTH, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "pad_token_id": 0}
SPECIAL: Settings = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GROUPED: Settings = {**TEXT, **SPECIAL, "num_key_value_heads": 2}
HEADED: Settings = {**GROUPED, "head_dim": 8}
VISION: Settings = {**WIDTH, "image_size": 32, "patch_size": 8, "num_labels": 5}
SEQ2SEQ: Settings = {
    **SPECIAL,
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": 2,
}
T5: Settings = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
SPEECH: Settings = {
    **WIDTH,
    "vocab_size": 32,
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 2, 2],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model class of the library, what to call it with, and the settings of its configuration."""

    name: str
    class_name: str
    inputs: Callable[[], Inputs]
    settings: Settings


def recipe(name: str, class_name: str, inputs: Callable[[], Inputs], *shared: Settings, **own: Any) -> Recipe:
    """A recipe whose settings are the shared ones, overridden from left to right and by its own."""
    settings: dict[str, Any] = {}
    for part in shared:
        settings |= part
    return Recipe(name, class_name, inputs, settings | own)


def ids(length: int) -> Tensor:
    """Two rows of token numbers, none of them special."""
    return torch.randint(5, VOCABULARY, (2, length))


def token_ids(length: int = 12) -> Callable[[], Inputs]:
    """Token ids of two texts."""
    return lambda: {"input_ids": ids(length)}


def masked_token_ids(length: int = 12) -> Callable[[], Inputs]:
    """Token ids of two texts, the second one shorter and padded on the right."""

    def inputs() -> Inputs:
        mask = torch.ones(2, length, dtype=torch.long)
        mask[1, -3:] = 0
        return {"input_ids": ids(length) * mask, "attention_mask": mask}

    return inputs


def source_and_target(length: int = 12, decoder_length: int = 7) -> Callable[[], Inputs]:
    """Token ids for an encoder and for a decoder."""
    return lambda: {"input_ids": ids(length), "decoder_input_ids": ids(decoder_length)}


def image_batch(size: int = 32) -> Callable[[], Inputs]:
    """Two images."""
    return lambda: {"pixel_values": torch.randn(2, 3, size, size)}


def text_and_images(size: int = 32, length: int = 8) -> Callable[[], Inputs]:
    """Two texts, all of whose tokens count, and two images."""
    return lambda: {
        "input_ids": ids(length),
        "pixel_values": torch.randn(2, 3, size, size),
        "attention_mask": torch.ones(2, length, dtype=torch.long),
    }


def waveforms(length: int = 1600) -> Callable[[], Inputs]:
    """Two sounds."""
    return lambda: {"input_values": torch.randn(2, length)}


def boxed_token_ids(length: int = 12) -> Callable[[], Inputs]:
    """Token ids with the box of each token on its page: x0, y0, x1, y1."""

    def inputs() -> Inputs:
        corners = torch.randint(0, 30, (2, length, 2))
        return {"input_ids": ids(length), "bbox": torch.cat([corners, corners + 10], dim=-1)}

    return inputs
