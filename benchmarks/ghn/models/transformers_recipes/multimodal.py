"""Several kinds of input at once."""

import torch

from benchmarks.ghn.models import Inputs
from benchmarks.ghn.models.transformers_recipes.recipe import (
    SEQ2SEQ,
    SPECIAL,
    TEXT,
    VISION,
    VOCABULARY,
    Recipe,
    Settings,
    boxed_token_ids,
    ids,
    image_batch,
    recipe,
    text_and_images,
    token_ids,
)


def multimodal() -> list[Recipe]:
    """Networks of text with images, pages or sounds."""
    both = text_and_images()
    text = {**TEXT, **SPECIAL, "projection_dim": 16}
    vision = {**VISION, "projection_dim": 16}
    towers = {"text_config": text, "vision_config": vision, "projection_dim": 16}
    joint = {**TEXT, "image_size": 32, "patch_size": 8}
    align = {
        "text_config": TEXT,
        "vision_config": {
            "image_size": 32,
            "width_coefficient": 0.25,
            "depth_coefficient": 0.25,
            "hidden_dim": 320,
        },
        "projection_dim": 80,
    }
    flava = {
        **{f"{part}_config": joint for part in ("text", "image", "multimodal")},
        "projection_dim": 16,
        "hidden_size": 32,
    }
    return [
        recipe("clip", "CLIPModel", both, towers),
        recipe("clip_vision", "CLIPVisionModelWithProjection", image_batch(), vision),
        recipe(
            "clip_segmentation",
            "CLIPSegForImageSegmentation",
            both,
            towers,
            extract_layers=[0, 1],
            reduce_dim=16,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=32,
        ),
        recipe("chinese_clip", "ChineseCLIPModel", both, towers),
        recipe("siglip", "SiglipModel", both, text_config=text, vision_config=vision),
        recipe("blip", "BlipModel", both, towers),
        recipe("blip_captioning", "BlipForConditionalGeneration", both, towers),
        recipe("vilt", "ViltForQuestionAnswering", both, joint, num_labels=4),
        recipe("align", "AlignModel", both, align),
        recipe("altclip", "AltCLIPModel", both, towers),
        recipe(
            "groupvit",
            "GroupViTModel",
            both,
            text_config=text,
            vision_config={
                **VISION,
                "depths": [1, 1],
                "num_group_tokens": [4, 0],
                "num_output_groups": [4, 4],
            },
            projection_dim=16,
            projection_intermediate_dim=16,
        ),
        recipe("owlvit", "OwlViTModel", both, towers),
        recipe("flava", "FlavaModel", both, flava),
        recipe("git", "GitForCausalLM", both, TEXT, SPECIAL, vision_config=VISION),
        recipe(
            "layoutlm",
            "LayoutLMForTokenClassification",
            boxed_token_ids(),
            TEXT,
            max_2d_position_embeddings=64,
        ),
        recipe(
            "layoutlmv3",
            "LayoutLMv3ForSequenceClassification",
            boxed_token_ids(),
            TEXT,
            max_2d_position_embeddings=64,
            coordinate_size=6,
            shape_size=4,
            input_size=32,
            patch_size=8,
        ),
        recipe(
            "lilt",
            "LiltForSequenceClassification",
            boxed_token_ids(),
            TEXT,
            hidden_size=48,
            max_2d_position_embeddings=64,
        ),
        recipe(
            "visual_bert", "VisualBertForQuestionAnswering", _visual_tokens, TEXT, visual_embedding_dim=16
        ),
        recipe(
            "lxmert", "LxmertModel", _regions, TEXT, l_layers=1, x_layers=1, r_layers=1, visual_feat_dim=16
        ),
        recipe("pix2struct", "Pix2StructForConditionalGeneration", _patches, _pix2struct()),
        recipe("trocr", "TrOCRForCausalLM", token_ids(), SEQ2SEQ),
        recipe("clap", "ClapModel", _clap_inputs, _clap()),
    ]


def _visual_tokens() -> Inputs:
    mask = torch.ones(2, 8, dtype=torch.long)
    return {"input_ids": ids(8), "attention_mask": mask, "visual_embeds": torch.randn(2, 4, 16)}


def _regions() -> Inputs:
    return {"input_ids": ids(8), "visual_feats": torch.randn(2, 4, 16), "visual_pos": torch.rand(2, 4, 4)}


def _pix2struct() -> Settings:
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "d_kv": 8,
        "d_ff": 64,
    }
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "d_kv": 8,
        "d_ff": 64,
        "patch_embed_hidden_size": 48,
        "seq_len": 8,
    }
    return {"text_config": text, "vision_config": vision}


def _patches() -> Inputs:
    """Flattened patches: row and column number, from 1, before the pixels."""
    place = torch.arange(8)
    places = torch.stack([place // 4 + 1, place % 4 + 1], dim=-1).float().expand(2, -1, -1)
    return {
        "flattened_patches": torch.cat([places, torch.randn(2, 8, 48)], dim=-1),
        "decoder_input_ids": ids(6),
    }


def _clap() -> Settings:
    audio = {
        "spec_size": 32,
        "num_mel_bins": 8,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "hidden_size": 32,
        "window_size": 4,
        "projection_dim": 16,
    }
    return {"text_config": {**TEXT, "projection_dim": 16}, "audio_config": audio, "projection_dim": 16}


def _clap_inputs() -> Inputs:
    return {"input_ids": ids(8), "input_features": torch.randn(2, 1, 100, 8)}
