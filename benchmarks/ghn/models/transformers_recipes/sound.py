"""Sounds and other series."""

import torch

from benchmarks.ghn.models import Inputs
from benchmarks.ghn.models.transformers_recipes.recipe import (
    SEQ2SEQ,
    SPECIAL,
    SPEECH,
    VOCABULARY,
    WIDTH,
    Recipe,
    Settings,
    ids,
    recipe,
    token_ids,
    waveforms,
)


def audio() -> list[Recipe]:
    """Networks over waveforms and spectrograms, and one speech synthesiser."""
    wave = waveforms()
    squeezed = {"squeeze_factor": 2}
    whisper = {"num_mel_bins": 16, "max_source_positions": 16, "max_target_positions": 32}
    return [
        recipe("wav2vec2", "Wav2Vec2ForCTC", wave, SPEECH),
        recipe(
            "wav2vec2_stable",
            "Wav2Vec2ForSequenceClassification",
            wave,
            SPEECH,
            do_stable_layer_norm=True,
            feat_extract_norm="layer",
        ),
        recipe(
            "wav2vec2_conformer", "Wav2Vec2ConformerForCTC", wave, SPEECH, position_embeddings_type="rotary"
        ),
        recipe("hubert", "HubertForSequenceClassification", wave, SPEECH),
        recipe("unispeech", "UniSpeechModel", wave, SPEECH),
        recipe("wavlm", "WavLMForSequenceClassification", wave, SPEECH),
        recipe("data2vec_audio", "Data2VecAudioModel", wave, SPEECH),
        recipe("sew", "SEWForSequenceClassification", wave, SPEECH, squeezed),
        recipe("sew_d", "SEWDForSequenceClassification", wave, SPEECH, squeezed, max_position_embeddings=64),
        recipe("whisper", "WhisperForConditionalGeneration", _mel_and_tokens, SEQ2SEQ, whisper),
        recipe("whisper_classifier", "WhisperForAudioClassification", _mel, SEQ2SEQ, whisper),
        recipe(
            "speech_to_text",
            "Speech2TextForConditionalGeneration",
            _features_and_tokens,
            SEQ2SEQ,
            input_feat_per_channel=16,
            conv_channels=32,
            max_source_positions=32,
            max_target_positions=32,
        ),
        recipe(
            "audio_spectrogram_transformer",
            "ASTForAudioClassification",
            _spectrogram,
            WIDTH,
            patch_size=8,
            frequency_stride=8,
            time_stride=8,
            max_length=32,
            num_mel_bins=16,
        ),
        recipe(
            "wav2vec2_bert",
            "Wav2Vec2BertModel",
            _frames,
            WIDTH,
            feature_projection_input_dim=16,
            vocab_size=32,
            conv_depthwise_kernel_size=5,
        ),
        recipe(
            "encodec",
            "EncodecModel",
            _mono,
            num_filters=4,
            hidden_size=16,
            codebook_dim=16,
            codebook_size=16,
            upsampling_ratios=[4, 2],
            num_lstm_layers=1,
            target_bandwidths=[24.0],
        ),
        recipe("vits", "VitsModel", token_ids(8), _vits()),
    ]


def _vits() -> Settings:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 32,
        "flow_size": 16,
        "spectrogram_bins": 17,
        "upsample_initial_channel": 32,
        "upsample_rates": [4, 2],
        "upsample_kernel_sizes": [8, 4],
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3]],
        "prior_encoder_num_flows": 2,
        "prior_encoder_num_wavenet_layers": 2,
        "duration_predictor_num_flows": 2,
        "noise_scale": 0.0,
        "noise_scale_duration": 0.0,
    }


def _mel() -> Inputs:
    return {"input_features": torch.randn(2, 16, 32)}


def _mel_and_tokens() -> Inputs:
    return {**_mel(), "decoder_input_ids": ids(6)}


def _features_and_tokens() -> Inputs:
    return {"input_features": torch.randn(2, 32, 16), "decoder_input_ids": ids(6)}


def _spectrogram() -> Inputs:
    return {"input_values": torch.randn(2, 32, 16)}


def _frames() -> Inputs:
    return {"input_features": torch.randn(2, 20, 16)}


def _mono() -> Inputs:
    return {"input_values": torch.randn(2, 1, 320)}


def series() -> list[Recipe]:
    """Forecasts, classification of series, and decisions."""
    context = {"context_length": 32, "patch_length": 8, "d_model": 32}
    patches = {**context, "num_input_channels": 3, "patch_stride": 8}
    forecast = {
        "prediction_length": 4,
        "context_length": 8,
        "lags_sequence": [1, 2],
        "num_time_features": 2,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
    }
    decision = {
        **SPECIAL,
        "state_dim": 5,
        "act_dim": 3,
        "hidden_size": 32,
        "n_layer": 2,
        "n_head": 4,
        "max_ep_len": 32,
    }
    return [
        recipe(
            "patchtst",
            "PatchTSTForClassification",
            _channels,
            patches,
            ffn_dim=64,
            num_attention_heads=4,
            num_hidden_layers=2,
            num_targets=4,
        ),
        recipe(
            "patchtsmixer", "PatchTSMixerForPrediction", _channels, patches, prediction_length=4, num_layers=2
        ),
        recipe("time_series_transformer", "TimeSeriesTransformerModel", _past_and_future, forecast),
        recipe("informer", "InformerModel", _past_and_future, forecast),
        recipe("autoformer", "AutoformerModel", _past_and_future, forecast, moving_average=3, label_length=4),
        recipe("decision_transformer", "DecisionTransformerModel", _trajectory, decision),
    ]


def _channels() -> Inputs:
    return {"past_values": torch.randn(2, 32, 3)}


def _past_and_future() -> Inputs:
    return {
        "past_values": torch.randn(2, 10),
        "past_time_features": torch.randn(2, 10, 2),
        "past_observed_mask": torch.ones(2, 10),
        "future_values": torch.randn(2, 4),
        "future_time_features": torch.randn(2, 4, 2),
    }


def _trajectory() -> Inputs:
    return {
        "states": torch.randn(2, 4, 5),
        "actions": torch.randn(2, 4, 3),
        "rewards": torch.randn(2, 4, 1),
        "returns_to_go": torch.randn(2, 4, 1),
        "timesteps": torch.arange(4).expand(2, 4).clone(),
        "attention_mask": torch.ones(2, 4, dtype=torch.long),
    }
