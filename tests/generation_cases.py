"""What the goldens of generation are made from: tiny models and options.

Shared by tools/make_generation_goldens.py, which has transformers answer, and
test_generation_goldens.py, which has us answer. Needs NumPy alone.
"""

import numpy as np
from model_cases import random_state_dict

CONFIG = {"vocab_size": 41, "n_positions": 40, "n_embd": 16, "n_layer": 2, "n_head": 2}
ENDS = {"eos_token_id": 40, "bos_token_id": 40}
PAD = 39
SPREADS = (1.0, 3.0)  # of the last norm: a model in doubt, and one that is sure
PROMPTS = {
    "one": {"ids": [[3, 17, 8, 25]], "mask": [[1, 1, 1, 1]]},
    "padded": {
        "ids": [[39, 39, 5, 30], [11, 2, 2, 19], [39, 6, 33, 6]],
        "mask": [[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]],
    },
}

# name -> (prompts, options); with 4.49 those of OLD, with 5 the others
NEW = {
    "greedy": ("padded", {}),
    "repetition_penalty": ("padded", {"repetition_penalty": 1.4}),
    "no_repeat_ngram_size": ("one", {"no_repeat_ngram_size": 2}),
    "bad_words_ids": ("padded", {"bad_words_ids": [[4], [12, 7], [8], [20]]}),
    "min_new_tokens": ("padded", {"min_new_tokens": 6, "eos_token_id": [40, 3, 5, 8]}),
    "min_length": ("one", {"min_length": 9, "eos_token_id": [40, 3, 5, 8]}),
    "sequence_bias": ("padded", {"sequence_bias": [[[4], 3.0], [[4, 9], 6.0]]}),
    "suppress_tokens": ("padded", {"suppress_tokens": list(range(0, 20, 2))}),
    "begin_suppress_tokens": ("padded", {"begin_suppress_tokens": list(range(30))}),
    "forced_eos_token_id": ("padded", {"forced_eos_token_id": 40}),
    "exponential_decay": ("padded", {"exponential_decay_length_penalty": (2, 1.6)}),
    "guidance_scale": ("one", {"guidance_scale": 1.5}),
    "renormalize_logits": ("padded", {"renormalize_logits": True}),
    "beams": ("one", {"num_beams": 3, "num_return_sequences": 3}),
    "beams_early": ("one", {"num_beams": 4, "early_stopping": True,
        "num_return_sequences": 4, "eos_token_id": [40, 3, 5, 8]}),
    "beams_never": ("one", {"num_beams": 4, "early_stopping": "never",
        "length_penalty": 2.0, "eos_token_id": [40, 3, 5, 8]}),
    "beams_short": ("one", {"num_beams": 2, "length_penalty": -1.0,
        "repetition_penalty": 1.3, "eos_token_id": [40, 3, 5, 8]}),
    "beams_padded": ("padded", {"num_beams": 3, "no_repeat_ngram_size": 3}),
}  # fmt: skip
OLD = {
    "groups": ("padded", {"num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 2,
        "diversity_penalty": 0.8}),
    "groups_early": ("one", {"num_beams": 6, "num_beam_groups": 3, "early_stopping": True,
        "diversity_penalty": 2.0, "num_return_sequences": 6,
        "eos_token_id": [40, 3, 5, 8]}),
    "contrastive": ("padded", {"penalty_alpha": 0.6, "top_k": 4}),
    "contrastive_10": ("one", {"penalty_alpha": 0.3, "top_k": 10}),
}  # fmt: skip
ALWAYS = {"max_new_tokens": 12, "pad_token_id": PAD}


def state_dict(spread: float) -> dict[str, np.ndarray]:
    """Return float64 parameters of GPT2LMHeadModel."""
    state = random_state_dict(CONFIG, seed=7)
    state["transformer.ln_f.weight"] = state["transformer.ln_f.weight"] * spread
    return state
