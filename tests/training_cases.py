"""What the tests of training share: small models with random parameters."""

import numpy as np
from model_cases import base_state_dict, double_heads_state_dict

from minigpt2 import GPT2Config, GPT2LMHeadModel, GPT2Model

TINY = {"vocab_size": 13, "n_positions": 9, "n_embd": 12, "n_layer": 2, "n_head": 3}


def tiny(cls=GPT2LMHeadModel, dtype=np.float64, backend="numpy", seed=5, **fields):
    """A model of TINY's sizes, or of other `fields`; `seed` draws its parameters."""
    fields = {**TINY, **fields}
    model = cls(GPT2Config(**fields), dtype=dtype, backend=backend)
    state = double_heads_state_dict(fields, seed % 1000)
    names = model.parameter_slots()
    if cls is GPT2Model:
        state = base_state_dict(state)
    model.load_tensors({name: a for name, a in state.items() if name in names})
    return model
