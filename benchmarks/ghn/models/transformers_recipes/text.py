"""Text: encoders, decoders, and both together."""

import torch

from benchmarks.ghn.models import Inputs
from benchmarks.ghn.models.transformers_recipes.recipe import (
    GROUPED,
    HEADED,
    SEQ2SEQ,
    SPECIAL,
    T5,
    TEXT,
    VOCABULARY,
    Recipe,
    Settings,
    ids,
    masked_token_ids,
    recipe,
    source_and_target,
    token_ids,
)


def text_encoders() -> list[Recipe]:
    """Encoders of text, with and without heads."""
    tokens, masked = token_ids(), masked_token_ids()
    xlnet = {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}
    mobile = {"embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2}
    pooled = {
        "block_sizes": [1, 1],
        "d_model": 32,
        "n_head": 4,
        "d_head": 8,
        "d_inner": 64,
        "num_decoder_layers": 1,
    }
    distilled = {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    disentangled = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16}
    xlm = {
        "vocab_size": VOCABULARY,
        "emb_dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "max_position_embeddings": 64,
    }
    sparse = {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 2}
    canine = {"num_hash_functions": 4, "num_hash_buckets": 64, "local_transformer_stride": 16}
    modern = {
        **SPECIAL,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
    }
    return [
        recipe("bert", "BertForSequenceClassification", masked, TEXT, num_labels=3),
        recipe("bert_eager", "BertForMaskedLM", tokens, TEXT, attn_implementation="eager"),
        recipe("bert_pretraining", "BertForPreTraining", tokens, TEXT),
        recipe("roberta", "RobertaForTokenClassification", masked, TEXT),
        recipe("xlm_roberta", "XLMRobertaForQuestionAnswering", tokens, TEXT),
        recipe("albert", "AlbertForMaskedLM", tokens, TEXT, embedding_size=16),
        recipe("distilbert", "DistilBertForSequenceClassification", masked, distilled),
        recipe("electra", "ElectraForPreTraining", tokens, TEXT, embedding_size=16),
        recipe("deberta", "DebertaForSequenceClassification", tokens, TEXT, disentangled),
        recipe("deberta_v2", "DebertaV2ForMaskedLM", tokens, TEXT, disentangled, share_att_key=True),
        recipe("mpnet", "MPNetForSequenceClassification", tokens, TEXT),
        recipe("xlnet", "XLNetForSequenceClassification", tokens, xlnet),
        recipe("longformer", "LongformerForSequenceClassification", tokens, TEXT, attention_window=[4, 4]),
        recipe("big_bird", "BigBirdForSequenceClassification", tokens, TEXT, attention_type="original_full"),
        recipe("big_bird_sparse", "BigBirdModel", token_ids(48), TEXT, sparse),
        recipe("fnet", "FNetForSequenceClassification", tokens, TEXT),
        recipe("funnel", "FunnelModel", tokens, pooled, vocab_size=VOCABULARY),
        recipe("squeezebert", "SqueezeBertForSequenceClassification", tokens, TEXT, embedding_size=32),
        recipe("mobilebert", "MobileBertForSequenceClassification", tokens, TEXT, mobile),
        recipe(
            "nystromformer",
            "NystromformerForSequenceClassification",
            tokens,
            TEXT,
            num_landmarks=4,
            segment_means_seq_len=12,
        ),
        recipe("convbert", "ConvBertForSequenceClassification", tokens, TEXT, embedding_size=32),
        recipe("roformer", "RoFormerForMaskedLM", tokens, TEXT, embedding_size=32),
        recipe(
            "rembert",
            "RemBertForSequenceClassification",
            tokens,
            TEXT,
            input_embedding_size=16,
            output_embedding_size=24,
        ),
        recipe("megatron_bert", "MegatronBertForSequenceClassification", tokens, TEXT),
        recipe("modernbert", "ModernBertForSequenceClassification", masked, TEXT, modern),
        recipe("esm", "EsmForMaskedLM", tokens, TEXT, mask_token_id=3, position_embedding_type="rotary"),
        recipe("ibert", "IBertForSequenceClassification", tokens, TEXT, quant_mode=False),
        recipe("yoso", "YosoForSequenceClassification", tokens, TEXT, use_expectation=True),
        recipe("xlm", "XLMForSequenceClassification", tokens, xlm),
        recipe("flaubert", "FlaubertModel", tokens, xlm),
        recipe("ernie", "ErnieModel", tokens, TEXT),
        recipe("canine", "CanineModel", token_ids(32), TEXT, canine),
        recipe("splinter", "SplinterForQuestionAnswering", tokens, TEXT),
        recipe("nomic_bert", "NomicBertModel", tokens, TEXT),
        recipe("reformer", "ReformerModel", token_ids(16), _reformer()),
    ]


def _reformer() -> Settings:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "attention_head_size": 16,
        "feed_forward_size": 32,
        "attn_layers": ["local", "lsh"],
        "axial_pos_shape": [4, 4],
        "axial_pos_embds_dim": [16, 16],
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "num_buckets": 2,
        "hash_seed": 0,
        "is_decoder": False,
    }


def decoders() -> list[Recipe]:
    """Decoders of the years up to 2023."""
    tokens, masked = token_ids(), masked_token_ids()
    gpt2 = {**SPECIAL, "vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    neo = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8}
    opt = {"ffn_dim": 64, "word_embed_proj_dim": 16}
    xglm = {
        **SPECIAL,
        "vocab_size": VOCABULARY,
        "d_model": 32,
        "num_layers": 2,
        "attention_heads": 4,
        "ffn_dim": 64,
    }
    bloom = {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}
    return [
        recipe("openai_gpt", "OpenAIGPTLMHeadModel", tokens, gpt2),
        recipe("gpt2", "GPT2LMHeadModel", tokens, gpt2),
        recipe("gpt2_classifier", "GPT2ForSequenceClassification", masked, gpt2, attn_implementation="eager"),
        recipe("gpt_bigcode", "GPTBigCodeForCausalLM", tokens, gpt2),
        recipe("gpt_neo", "GPTNeoForCausalLM", tokens, TEXT, SPECIAL, neo),
        recipe("gptj", "GPTJForCausalLM", tokens, gpt2, rotary_dim=4),
        recipe("gpt_neox", "GPTNeoXForCausalLM", masked, TEXT, SPECIAL),
        recipe("codegen", "CodeGenForCausalLM", tokens, gpt2, n_ctx=64, rotary_dim=4),
        recipe("opt", "OPTForCausalLM", masked, TEXT, SPECIAL, opt),
        recipe("bloom", "BloomForCausalLM", tokens, SPECIAL, bloom),
        recipe("falcon", "FalconForCausalLM", tokens, TEXT, SPECIAL),
        recipe(
            "falcon_new",
            "FalconForCausalLM",
            tokens,
            TEXT,
            SPECIAL,
            new_decoder_architecture=True,
            num_kv_heads=2,
        ),
        recipe("falcon_alibi", "FalconForCausalLM", tokens, TEXT, SPECIAL, alibi=True, multi_query=False),
        recipe(
            "mpt",
            "MptForCausalLM",
            tokens,
            {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4},
        ),
        recipe("xglm", "XGLMForCausalLM", tokens, xglm),
        recipe("biogpt", "BioGptForCausalLM", tokens, TEXT, SPECIAL),
        recipe("ctrl", "CTRLLMHeadModel", tokens, gpt2, dff=64),
        recipe("persimmon", "PersimmonForCausalLM", tokens, TEXT, SPECIAL),
    ]


def new_decoders() -> list[Recipe]:
    """Decoders of the kind of Llama and after."""
    tokens, masked = token_ids(), masked_token_ids()
    latent = {
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
    }
    mixed = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
    return [
        recipe("llama", "LlamaForCausalLM", masked, GROUPED),
        recipe("llama_classifier", "LlamaForSequenceClassification", tokens, GROUPED, attention_bias=True),
        recipe("mistral", "MistralForCausalLM", tokens, GROUPED, sliding_window=8),
        recipe("ministral", "MinistralForCausalLM", tokens, HEADED, mixed),
        recipe("qwen2", "Qwen2ForCausalLM", masked, GROUPED),
        recipe("qwen3", "Qwen3ForCausalLM", tokens, HEADED),
        recipe("gemma", "GemmaForCausalLM", tokens, HEADED),
        recipe("gemma2", "Gemma2ForCausalLM", tokens, HEADED, sliding_window=8, query_pre_attn_scalar=8),
        recipe("gemma3_text", "Gemma3ForCausalLM", tokens, HEADED, mixed),
        recipe("phi", "PhiForCausalLM", tokens, GROUPED, qk_layernorm=True),
        recipe("phi3", "Phi3ForCausalLM", tokens, GROUPED),
        recipe("stablelm", "StableLmForCausalLM", tokens, GROUPED, use_qkv_bias=True),
        recipe("starcoder2", "Starcoder2ForCausalLM", tokens, GROUPED),
        recipe("olmo", "OlmoForCausalLM", tokens, GROUPED),
        recipe("olmo2", "Olmo2ForCausalLM", tokens, GROUPED),
        recipe("cohere", "CohereForCausalLM", tokens, GROUPED, use_qk_norm=True),
        recipe("cohere2", "Cohere2ForCausalLM", tokens, GROUPED, mixed),
        recipe("granite", "GraniteForCausalLM", tokens, GROUPED),
        recipe("glm", "GlmForCausalLM", tokens, HEADED),
        recipe("glm4", "Glm4ForCausalLM", tokens, HEADED),
        recipe("helium", "HeliumForCausalLM", tokens, HEADED),
        recipe("nemotron", "NemotronForCausalLM", tokens, HEADED),
        recipe("smollm3", "SmolLM3ForCausalLM", tokens, GROUPED),
        recipe("exaone4", "Exaone4ForCausalLM", tokens, GROUPED, mixed),
        recipe("diffllama", "DiffLlamaForCausalLM", tokens, HEADED),
        recipe("seed_oss", "SeedOssForCausalLM", tokens, HEADED),
        recipe("apertus", "ApertusForCausalLM", tokens, GROUPED),
        recipe("modernbert_decoder", "ModernBertDecoderForCausalLM", tokens, TEXT, SPECIAL),
        recipe("minicpm3", "MiniCPM3ForCausalLM", tokens, TEXT, SPECIAL, latent, num_key_value_heads=4),
    ]


def encoder_decoders() -> list[Recipe]:
    """Encoders with decoders that attend to them."""
    pairs = source_and_target()
    prophet = {
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "num_encoder_attention_heads": 4,
        "num_decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "hidden_size": 32,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
    }
    fsmt = {"langs": ["a", "b"], "src_vocab_size": VOCABULARY, "tgt_vocab_size": VOCABULARY}
    return [
        recipe("t5", "T5ForConditionalGeneration", pairs, T5),
        recipe("t5_encoder", "T5EncoderModel", token_ids(), T5, feed_forward_proj="gated-gelu"),
        recipe("mt5", "MT5ForConditionalGeneration", pairs, T5),
        recipe("umt5", "UMT5Model", pairs, T5),
        recipe(
            "longt5",
            "LongT5ForConditionalGeneration",
            pairs,
            T5,
            encoder_attention_type="transient-global",
            local_radius=3,
            global_block_size=4,
        ),
        recipe("bart", "BartForConditionalGeneration", pairs, SEQ2SEQ),
        recipe("bart_classifier", "BartForSequenceClassification", _ended_tokens, SEQ2SEQ),
        recipe("mbart", "MBartForConditionalGeneration", pairs, SEQ2SEQ),
        recipe("pegasus", "PegasusForConditionalGeneration", pairs, SEQ2SEQ),
        recipe(
            "pegasus_x",
            "PegasusXForConditionalGeneration",
            source_and_target(16),
            SEQ2SEQ,
            block_size=4,
            num_global_tokens=4,
        ),
        recipe("marian", "MarianMTModel", pairs, SEQ2SEQ),
        recipe("blenderbot", "BlenderbotForConditionalGeneration", pairs, SEQ2SEQ),
        recipe("m2m_100", "M2M100ForConditionalGeneration", pairs, SEQ2SEQ),
        recipe(
            "led",
            "LEDForConditionalGeneration",
            pairs,
            SEQ2SEQ,
            attention_window=4,
            max_encoder_position_embeddings=64,
            max_decoder_position_embeddings=64,
        ),
        recipe("prophetnet", "ProphetNetForConditionalGeneration", pairs, prophet),
        recipe("fsmt", "FSMTForConditionalGeneration", pairs, SEQ2SEQ, fsmt),
        recipe(
            "bigbird_pegasus",
            "BigBirdPegasusForConditionalGeneration",
            pairs,
            SEQ2SEQ,
            attention_type="original_full",
        ),
    ]


def _ended_tokens() -> Inputs:
    """Token ids that end with the end-of-sequence token, which the classification head of BART reads."""
    return {"input_ids": torch.cat([ids(11), torch.full((2, 1), 2)], dim=1)}
