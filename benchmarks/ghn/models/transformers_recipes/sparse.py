"""Text by experts, state spaces and recurrence."""

from benchmarks.ghn.models.transformers_recipes.recipe import (
    GROUPED,
    HEADED,
    SEQ2SEQ,
    SPECIAL,
    T5,
    TEXT,
    VOCABULARY,
    Recipe,
    recipe,
    source_and_target,
    token_ids,
)


def experts() -> list[Recipe]:
    """Mixtures of experts, routed token by token."""
    tokens = token_ids()
    few = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    local = {"num_local_experts": 4, "num_experts_per_tok": 2}
    deepseek = {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "moe_intermediate_size": 16,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
    }
    switch = {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_experts": 4}
    nllb = {"num_experts": 4, "expert_capacity": 8, "encoder_sparse_step": 2, "decoder_sparse_step": 2}
    return [
        recipe("mixtral", "MixtralForCausalLM", tokens, GROUPED, local),
        recipe("qwen2_moe", "Qwen2MoeForCausalLM", tokens, GROUPED, few, shared_expert_intermediate_size=32),
        recipe("qwen3_moe", "Qwen3MoeForCausalLM", tokens, HEADED, few),
        recipe("olmoe", "OlmoeForCausalLM", tokens, GROUPED, num_experts=4, num_experts_per_tok=2),
        recipe("phimoe", "PhimoeForCausalLM", tokens, GROUPED, local),
        recipe("granitemoe", "GraniteMoeForCausalLM", tokens, GROUPED, local),
        recipe("gpt_oss", "GptOssForCausalLM", tokens, HEADED, local, sliding_window=8),
        recipe(
            "deepseek_v2", "DeepseekV2ForCausalLM", tokens, TEXT, SPECIAL, deepseek, num_key_value_heads=4
        ),
        recipe(
            "deepseek_v3", "DeepseekV3ForCausalLM", tokens, TEXT, SPECIAL, deepseek, num_key_value_heads=4
        ),
        recipe(
            "glm4_moe", "Glm4MoeForCausalLM", tokens, HEADED, few, n_routed_experts=4, n_group=1, topk_group=1
        ),
        recipe(
            "ernie4_5_moe",
            "Ernie4_5_MoeForCausalLM",
            tokens,
            GROUPED,
            moe_num_experts=4,
            moe_k=2,
            moe_intermediate_size=16,
        ),
        recipe("jetmoe", "JetMoeForCausalLM", tokens, GROUPED, local, kv_channels=16),
        recipe(
            "switch_transformers",
            "SwitchTransformersForConditionalGeneration",
            source_and_target(),
            T5,
            switch,
        ),
        recipe("nllb_moe", "NllbMoeForConditionalGeneration", source_and_target(), SEQ2SEQ, nllb),
    ]


def state_spaces() -> list[Recipe]:
    """State spaces, linear attention and recurrence, and hybrids of these with attention."""
    tokens = token_ids()
    mamba = {**SPECIAL, "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    mamba2 = {**mamba, "head_dim": 16, "num_heads": 4, "n_groups": 1, "chunk_size": 4}
    rwkv = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 32}
    griffin = {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 8}
    jamba = {
        "num_experts": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    }
    bamba = {
        "attn_layer_indices": [1],
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 4,
        "mamba_chunk_size": 4,
    }
    zamba = {
        **GROUPED,
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "n_mamba_heads": 2,
        "mamba_d_state": 4,
        "use_mamba_kernels": False,
    }
    delta = {
        **HEADED,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    }
    return [
        recipe("mamba", "MambaForCausalLM", tokens, mamba),
        recipe("mamba2", "Mamba2ForCausalLM", tokens, mamba2),
        recipe("falcon_mamba", "FalconMambaForCausalLM", tokens, mamba),
        recipe("rwkv", "RwkvForCausalLM", tokens, SPECIAL, rwkv),
        recipe("recurrent_gemma", "RecurrentGemmaForCausalLM", tokens, HEADED, griffin),
        recipe("jamba", "JambaForCausalLM", tokens, GROUPED, jamba),
        recipe("bamba", "BambaForCausalLM", tokens, GROUPED, bamba),
        recipe("zamba", "ZambaForCausalLM", tokens, zamba),
        recipe(
            "falcon_h1",
            "FalconH1ForCausalLM",
            tokens,
            HEADED,
            mamba_n_heads=4,
            mamba_d_head=16,
            mamba_d_ssm=64,
            mamba_d_state=4,
            mamba_chunk_size=4,
        ),
        recipe("qwen3_next", "Qwen3NextForCausalLM", tokens, delta),
        recipe("lfm2", "Lfm2ForCausalLM", tokens, GROUPED, layer_types=["conv", "full_attention"]),
        recipe(
            "xlstm",
            "xLSTMForCausalLM",
            tokens,
            SPECIAL,
            vocab_size=VOCABULARY,
            hidden_size=128,
            num_hidden_layers=2,
            num_heads=2,
            chunk_size=4,
        ),
    ]
