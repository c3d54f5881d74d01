"""Images and videos."""

import torch

from benchmarks.ghn.models import Inputs
from benchmarks.ghn.models.transformers_recipes.recipe import (
    SPECIAL,
    VISION,
    VOCABULARY,
    Recipe,
    Settings,
    image_batch,
    recipe,
    token_ids,
)


def vision_transformers() -> list[Recipe]:
    """Image classifiers with attention."""
    image, large = image_batch(), image_batch(64)
    window = {
        "image_size": 32,
        "patch_size": 2,
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [2, 4],
        "window_size": 4,
    }
    levit = {
        "image_size": 64,
        "hidden_sizes": [16, 24, 32],
        "num_attention_heads": [2, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    }
    cvt = {"embed_dim": [16, 32, 32], "num_heads": [1, 2, 2], "depth": [1, 2, 3]}
    pvt = {
        "image_size": 64,
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 16, 16, 32],
        "num_attention_heads": [1, 1, 2, 2],
        "sequence_reduction_ratios": [4, 2, 1, 1],
        "mlp_ratios": [2, 2, 2, 2],
    }
    mobile = {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 32]}
    hiera = {
        "image_size": [32, 32],
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "num_query_pool": 1,
        "masked_unit_size": [4, 4],
        "query_stride": [2, 2],
    }
    return [
        recipe("vit", "ViTForImageClassification", image, VISION),
        recipe("vit_eager", "ViTModel", image, VISION, attn_implementation="eager"),
        recipe("vit_msn", "ViTMSNForImageClassification", image, VISION),
        recipe("deit", "DeiTForImageClassificationWithTeacher", image, VISION),
        recipe(
            "beit",
            "BeitForImageClassification",
            image,
            VISION,
            use_relative_position_bias=True,
            use_mask_token=False,
        ),
        recipe("beit_shared_bias", "BeitModel", image, VISION, use_shared_relative_position_bias=True),
        recipe("swin", "SwinForImageClassification", image, window),
        recipe("swinv2", "Swinv2ForImageClassification", image, window),
        recipe("dinov2", "Dinov2ForImageClassification", image, VISION),
        recipe("dinov2_registers", "Dinov2WithRegistersModel", image, VISION, num_register_tokens=2),
        recipe("dinov3_vit", "DINOv3ViTModel", image, VISION, num_register_tokens=2),
        recipe("ijepa", "IJepaForImageClassification", image, VISION),
        recipe("mobilevit", "MobileViTForImageClassification", large, mobile),
        recipe(
            "mobilevitv2",
            "MobileViTV2ForImageClassification",
            large,
            image_size=64,
            width_multiplier=0.25,
            n_attn_blocks=[1, 1, 1],
        ),
        recipe("levit", "LevitForImageClassification", large, levit),
        recipe("cvt", "CvtForImageClassification", large, cvt),
        recipe("pvt", "PvtForImageClassification", large, pvt),
        recipe("pvt_v2", "PvtV2ForImageClassification", large, pvt, sr_ratios=[4, 2, 1, 1]),
        recipe("hiera", "HieraForImageClassification", image, hiera),
        recipe(
            "focalnet",
            "FocalNetForImageClassification",
            image,
            image_size=32,
            patch_size=2,
            embed_dim=16,
            depths=[1, 1],
            focal_levels=[2, 2],
            focal_windows=[3, 3],
            use_layerscale=True,
        ),
        recipe("vit_mae", "ViTMAEModel", _image_and_noise, VISION),
        recipe(
            "imagegpt",
            "ImageGPTForImageClassification",
            token_ids(16),
            SPECIAL,
            vocab_size=VOCABULARY,
            n_positions=16,
            n_embd=32,
            n_layer=2,
            n_head=4,
        ),
        recipe(
            "swiftformer",
            "SwiftFormerForImageClassification",
            large,
            image_size=64,
            depths=[1, 1],
            embed_dims=[16, 32],
        ),
    ]


def _image_and_noise() -> Inputs:
    """An image, and the noise by which a masked autoencoder chooses among its 16 patches."""
    return {**image_batch()(), "noise": torch.rand(2, 16)}


def vision_convolutions() -> list[Recipe]:
    """Image classifiers by convolution."""
    image, large = image_batch(), image_batch(64)
    staged = {"hidden_sizes": [16, 32], "depths": [1, 2]}
    residual = {**staged, "embedding_size": 16}
    textnet = {
        "image_size": 64,
        "stem_out_channels": 8,
        "hidden_sizes": [8, 8, 16, 16, 32],
        "conv_layer_kernel_sizes": [[[3, 3]], [[3, 3], [1, 3]], [[3, 3]], [[3, 1]]],
        "conv_layer_strides": [[1], [2, 1], [2], [2]],
    }
    van = {"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1]}
    return [
        recipe("convnext", "ConvNextForImageClassification", large, num_stages=2, **staged),
        recipe("convnextv2", "ConvNextV2ForImageClassification", large, num_stages=2, **staged),
        recipe("resnet", "ResNetForImageClassification", image, residual),
        recipe("resnet_basic", "ResNetForImageClassification", image, residual, layer_type="basic"),
        recipe("regnet", "RegNetForImageClassification", image, residual, groups_width=8),
        recipe("bit", "BitForImageClassification", image, residual, num_groups=4),
        recipe(
            "mobilenet_v1", "MobileNetV1ForImageClassification", image, depth_multiplier=0.25, min_depth=4
        ),
        recipe(
            "mobilenet_v2", "MobileNetV2ForImageClassification", image, depth_multiplier=0.25, min_depth=4
        ),
        recipe(
            "efficientnet",
            "EfficientNetForImageClassification",
            image,
            image_size=32,
            width_coefficient=0.25,
            depth_coefficient=0.25,
            hidden_dim=320,
        ),
        recipe("poolformer", "PoolFormerForImageClassification", large, van, num_encoder_blocks=4),
        recipe("hgnet_v2", "HGNetV2ForImageClassification", large, _hgnet()),
        recipe("textnet", "TextNetForImageClassification", large, textnet),
        recipe("dinov3_convnext", "DINOv3ConvNextModel", large, van),
    ]


def _hgnet() -> Settings:
    return {
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 16, 16, 32],
        "stage_mid_channels": [8, 8, 8, 16],
        "stage_out_channels": [16, 16, 32, 32],
        "hidden_sizes": [16, 16, 32, 32],
        "depths": [1, 1, 1, 1],
        "stage_num_blocks": [1, 1, 2, 1],
        "stage_numb_of_layers": [2, 2, 2, 2],
        "embedding_size": 8,
    }


def dense_vision() -> list[Recipe]:
    """Maps, boxes, points and videos."""
    large = image_batch(64)
    segformer = {
        "num_encoder_blocks": 2,
        "depths": [1, 1],
        "hidden_sizes": [16, 32],
        "num_attention_heads": [1, 2],
        "patch_sizes": [7, 3],
        "strides": [4, 2],
        "sr_ratios": [4, 2],
        "mlp_ratios": [2, 2],
        "decoder_hidden_size": 16,
    }
    glpn = {
        **segformer,
        "num_encoder_blocks": 4,
        "depths": [1] * 4,
        "hidden_sizes": [16, 16, 32, 32],
        "num_attention_heads": [1, 1, 2, 2],
        "patch_sizes": [7, 3, 3, 3],
        "strides": [4, 2, 2, 2],
        "sr_ratios": [4, 2, 1, 1],
        "mlp_ratios": [2] * 4,
    }
    upscale = {
        "image_size": 32,
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
        "upscale": 2,
    }
    yolos = {
        **VISION,
        "image_size": [64, 64],
        "num_detection_tokens": 5,
        "use_mid_position_embeddings": False,
    }
    return [
        recipe("segformer", "SegformerForSemanticSegmentation", large, segformer),
        recipe("glpn", "GLPNForDepthEstimation", large, glpn),
        recipe("swin2sr", "Swin2SRForImageSuperResolution", image_batch(), upscale),
        recipe(
            "dpt",
            "DPTForDepthEstimation",
            image_batch(),
            VISION,
            num_hidden_layers=4,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=16,
            is_hybrid=False,
        ),
        recipe("yolos", "YolosForObjectDetection", large, yolos),
        recipe(
            "superpoint",
            "SuperPointForKeypointDetection",
            large,
            encoder_hidden_sizes=[8, 8, 16, 16],
            decoder_hidden_size=16,
            keypoint_decoder_dim=65,
            descriptor_decoder_dim=16,
        ),
        recipe("videomae", "VideoMAEForVideoClassification", _video, VISION, num_frames=4, tubelet_size=2),
        recipe("timesformer", "TimesformerForVideoClassification", _video, VISION, num_frames=4),
        recipe("vivit", "VivitForVideoClassification", _video, VISION, num_frames=4, tubelet_size=[2, 8, 8]),
    ]


def _video() -> Inputs:
    return {"pixel_values": torch.randn(2, 4, 3, 32, 32)}
