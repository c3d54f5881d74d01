"""Networks of the library `transformers` (`pip install transformers`), from small configurations: nothing is downloaded."""

from collections.abc import Callable, Mapping

import torch
import transformers
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Tensor, ...]]
_SIZES = {"hidden_size": 12, "num_hidden_layers": 2, "intermediate_size": 20}


def _made(model: str, inputs: tuple[Tensor, ...], **settings: object) -> Made:
    kind: Callable[..., nn.Module] = getattr(transformers, model)
    config: Callable[..., object] = kind.config_class  # type: ignore[attr-defined]  # of every model there
    return kind(config(**settings)), inputs


def _words() -> tuple[Tensor, ...]:
    return (torch.randint(30, (2, 6)),)


def _image(size: int) -> tuple[Tensor, ...]:
    return (torch.randn(2, 3, size, size),)


def _bert() -> Made:
    sizes = {**_SIZES, "num_attention_heads": 3, "vocab_size": 30, "max_position_embeddings": 8}
    return _made("BertModel", _words(), **sizes)


def _gpt2() -> Made:
    sizes = {"vocab_size": 30, "n_positions": 8, "n_embd": 12, "n_layer": 2, "n_head": 3}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    return _made("GPT2LMHeadModel", _words(), use_cache=False, **sizes, **ends)


def _llama() -> Made:
    sizes = {**_SIZES, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 8}
    return _made("LlamaForCausalLM", _words(), vocab_size=30, use_cache=False, **sizes)


def _vit() -> Made:
    sizes = {**_SIZES, "num_attention_heads": 3, "image_size": 8, "patch_size": 4}
    return _made("ViTForImageClassification", _image(8), num_labels=5, **sizes)


def _resnet() -> Made:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 5}
    return _made("ResNetForImageClassification", _image(32), **sizes)


TRANSFORMERS: Mapping[str, Callable[[], Made]] = {
    "transformers-bert": _bert,
    "transformers-gpt2": _gpt2,
    "transformers-llama": _llama,
    "transformers-vit": _vit,
    "transformers-resnet": _resnet,
}
