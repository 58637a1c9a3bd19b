"""Tiny models for tests: the same bits on every machine, and made so that bugs show.

A fresh GPT-2 hides mistakes: its gains are all 1 and its biases 0, so that a port which
drops them passes; its weights are so small that GELU is nearly linear and attention
nearly uniform. Here gains lie between 0.75 and 1.25, biases between -0.25 and 0.25, and
matrices are scaled so that what goes into an activation reaches beyond 3.

Every parameter is an integer of at most 8 bits times a power of two, drawn from raw words
of PCG64, which NumPy promises never to change (NEP 19). So float16, bfloat16 and float32
hold it alike: a port in half precision starts from the very same numbers.

The sizes differ from one another wherever they may (heads, head size, width, inner width,
vocabulary, positions), so that no transposed or confused axis fits by accident.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import GPT2Config
from ..model.double_heads import GPT2DoubleHeadsModel
from ..model.gpt2 import GPT2LMHeadModel
from ..tracing.golden import padded_inputs

BASE = {
    "vocab_size": 61,
    "n_positions": 24,
    "n_embd": 20,
    "n_layer": 3,
    "n_head": 4,
    "n_inner": 52,
    "bos_token_id": 60,
    "eos_token_id": 60,
    "pad_token_id": 60,
}
# What each model has that `tiny` has not.
TINY_MODELS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "one-head": {"n_head": 1},
    "head-size-1": {"n_embd": 6, "n_head": 6, "n_inner": 14},
    "narrow-inner": {"n_inner": 7},
    "one-layer": {"n_layer": 1},
    "untied": {"tie_word_embeddings": False},
    "gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    "silu": {"activation_function": "silu"},
    "tanh": {"activation_function": "tanh"},
    "unscaled": {"scale_attn_weights": False},
    "inverse-layer": {"scale_attn_by_inverse_layer_idx": True},
    "upcast": {"reorder_and_upcast_attn": True},
    "large-epsilon": {"layer_norm_epsilon": 0.1},
    "double-heads": {},
}


def tiny_model(
    name: str | int = "tiny",
    *,
    dtype: npt.DTypeLike = np.float32,
    backend: str = "numpy",
    **config: Any,
) -> GPT2LMHeadModel:
    """Return a tiny model; the same bits for the same arguments, everywhere.

    Args:
        name: one of TINY_MODELS; or a number, the seed of another `tiny`.
        dtype: float32 or float64, which hold the same parameters.
        backend: as for the model's class.
        config: fields of GPT2Config, in place of the model's own.

    Raises:
        ValueError: an unknown name, and what GPT2Config refuses.
    """
    seed, fields = _seed_and_fields(name)
    double = name == "double-heads"
    cls = GPT2DoubleHeadsModel if double else GPT2LMHeadModel
    model = cls(
        GPT2Config(**{**BASE, **fields, **config}),
        dtype=dtype,
        backend=backend,
        seed=None,
    )
    arrays = {}
    for i, (slot, (module, attribute)) in enumerate(model.own_slots().items()):
        arrays[slot] = _parameter(slot, module.shapes[attribute], seed, i)
    model.load_tensors(arrays)
    return model


def tiny_models(**options: Any) -> Iterator[tuple[str, GPT2LMHeadModel]]:
    """Yield (name, model) of all of TINY_MODELS; options as for tiny_model."""
    for name in TINY_MODELS:
        yield name, tiny_model(name, **options)


@dataclass(frozen=True)
class TinyInputs:
    """Arguments of a forward pass, all int64: two rows, the second padded on the left.

    - input_ids [2, 9], attention_mask [2, 9] (0 or 1), position_ids [2, 9] (counted
      without the padding), labels [2, 9] (-100 where there is padding, and at the first
      id after it: what padding predicts is nobody's promise).
    - past_length: how many of the columns to read in a first pass, where a test wants
      the rest to follow a past.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    position_ids: np.ndarray
    labels: np.ndarray
    past_length: int

    def arguments(self) -> dict[str, np.ndarray]:
        """Return the arguments of one pass over all columns."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "labels": self.labels,
        }


def tiny_inputs(name: str | int = "tiny", **config: Any) -> TinyInputs:
    """Return inputs for a tiny model; arguments as for tiny_model."""
    seed, fields = _seed_and_fields(name)
    size = {**BASE, **fields, **config}
    words = np.random.PCG64([seed, 1 << 20]).random_raw(18)
    ids = (words % np.uint64(size["vocab_size"] - 1)).astype(np.int64).reshape(2, 9)
    mask = np.ones((2, 9), np.int64)
    mask[1, :3] = 0
    ids[1, :3] = size["pad_token_id"]
    return TinyInputs(**padded_inputs(ids, mask), past_length=5)


def _seed_and_fields(name: str | int) -> tuple[int, dict[str, Any]]:
    if isinstance(name, int) and not isinstance(name, bool) and name >= 0:
        return name, {}
    if name not in TINY_MODELS:
        raise ValueError(
            f"there is no tiny model {name!r}; there are {', '.join(TINY_MODELS)}, and "
            "seeds: whole numbers from 0 on"
        )
    return 0, TINY_MODELS[name]


def _parameter(name: str, shape: tuple[int, ...], seed: int, number: int) -> np.ndarray:
    """Return parameter `number` of a model, in float32."""
    words = np.random.PCG64([seed, number]).random_raw(math.prod(shape))
    drawn = (words >> np.uint64(40)).astype(
        np.int64
    )  # 24 bits, of which some are taken
    if name.endswith("bias"):
        values = (drawn % 128 * 2 - 127) * 2.0**-9  # -1/4 .. 1/4, and never 0
    elif ".ln_" in name:
        values = (drawn % 32 * 2 + 97) * 2.0**-7  # 3/4 .. 5/4, and never 1
    else:
        # Uniform in -127 .. 127, whose deviation is 73; the power of two brings that of
        # what a row of inputs of deviation 1 gives near 1.5.
        rows = shape[0] if "c_" in name else 4
        power = math.floor(math.log2(73 * math.sqrt(rows) / 1.5) + 0.5)
        values = (drawn % 255 - 127) * 2.0**-power
    return values.astype(np.float32).reshape(shape)
