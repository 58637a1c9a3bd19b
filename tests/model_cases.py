"""What the model's tests and tools/make_goldens.py share: parameters that need no
file, and a comparison that names the first place that differs.

It needs NumPy alone, so that the tests make the parameters which transformers was given
when the goldens were made.
"""

import numpy as np

# name in one block -> shape, for C = n_embd and M = n_inner (Hugging Face's names).
BLOCK = {
    "ln_1.weight": "C",
    "ln_1.bias": "C",
    "attn.c_attn.weight": "C 3C",
    "attn.c_attn.bias": "3C",
    "attn.c_proj.weight": "C C",
    "attn.c_proj.bias": "C",
    "ln_2.weight": "C",
    "ln_2.bias": "C",
    "mlp.c_fc.weight": "C M",
    "mlp.c_fc.bias": "M",
    "mlp.c_proj.weight": "M C",
    "mlp.c_proj.bias": "C",
}


def parameter_shapes(config):
    """Shapes of GPT2LMHeadModel's parameters for `config`, a dict of GPT2Config's
    fields; `lm_head.weight` is among them only where it is not tied."""
    C, V = config["n_embd"], config["vocab_size"]
    M = config.get("n_inner") or 4 * C
    size = {"C": C, "3C": 3 * C, "M": M}
    shapes = {
        "transformer.wte.weight": (V, C),
        "transformer.wpe.weight": (config["n_positions"], C),
    }
    for i in range(config["n_layer"]):
        for name, axes in BLOCK.items():
            shape = tuple(size[axis] for axis in axes.split())
            shapes[f"transformer.h.{i}.{name}"] = shape
    shapes["transformer.ln_f.weight"] = shapes["transformer.ln_f.bias"] = (C,)
    if not config.get("tie_word_embeddings", True):
        shapes["lm_head.weight"] = (V, C)
    return shapes


def random_values(shape, *seed):
    """Multiples of 2**-21 in [-0.25, 0.25), exact in float32, the same everywhere.

    Twenty bits of each raw PCG64 word, so no distribution code is involved; the
    spread (a standard deviation of 0.14, seven times GPT-2's initial one) makes every
    bias, head and layer visible in the outputs.
    """
    words = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return (((words >> 44).astype(np.int64) - 2**19) * 2.0**-21).reshape(shape)


def random_ids(shape, vocab_size, *seed):
    words = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return (words % np.uint64(vocab_size)).astype(np.int64).reshape(shape)


def random_state_dict(config, seed):
    """Parameters of GPT2LMHeadModel in float64; tensor i is drawn from (seed, i).

    Layer norms' weights lie around 1, everything else (biases too) around 0.
    """
    parameters = {}
    for i, (name, shape) in enumerate(parameter_shapes(config).items()):
        parameters[name] = random_values(shape, seed, i)
        if ".ln_" in name and name.endswith(".weight"):
            parameters[name] += 1.0
    return parameters


def base_state_dict(state_dict):
    """The same parameters under the names of the bare GPT2Model."""
    return {
        name.removeprefix("transformer."): array
        for name, array in state_dict.items()
        if name != "lm_head.weight"
    }


def double_heads_state_dict(config, seed):
    """random_state_dict with GPT2DoubleHeadsModel's second head, as `config` has it."""
    parameters = random_state_dict(config, seed)
    if config.get("summary_use_proj", True):
        C = config["n_embd"]
        width = 1 if config.get("summary_proj_to_labels", True) else C
        prefix = "multiple_choice_head.summary."
        parameters[prefix + "weight"] = random_values((width, C), seed, 1000)
        parameters[prefix + "bias"] = random_values((width,), seed, 1001)
    return parameters


def assert_close(actual, expected, tolerance, what):
    """Differences stay within `tolerance` times max|expected|; shapes are equal."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (
        f"{what}: shape {actual.shape}, expected {expected.shape}"
    )
    if not expected.size:
        return
    scale = float(np.abs(expected).max()) or 1.0
    wrong = ~(np.abs(actual - expected) <= tolerance * scale)  # NaN counts as wrong
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{what}: {wrong.sum()} of {wrong.size} values differ by more than "
            f"{tolerance:g} of max|expected| = {scale:.6g}; first at {first}: "
            f"{actual[first]!r}, expected {expected[first]!r}; largest difference "
            f"{np.nanmax(np.abs(actual - expected)) / scale:.3g} of the maximum"
        )


def real_rows(name, array, mask):
    """The rows of an output that belong to real tokens: a padded position's values
    depend on the constant that stands for minus infinity, which is nobody's promise.

    `mask` is (B, S); the last T positions of it are the new ones. `name` says where
    the position axis of `array` is.
    """
    if mask is None or name == "loss":
        return array
    if name in ("keys", "values"):  # (L, B, H, S, D)
        return array.swapaxes(2, 3)[:, mask]
    if name == "attentions":  # (L, B, H, T, S)
        return array.swapaxes(2, 3)[:, mask[:, -array.shape[3] :]]
    if name == "hidden_states":  # (L + 1, B, T, C)
        return array[:, mask[:, -array.shape[2] :]]
    # logits or last_hidden_state: (..., T, V or C)
    array = array.reshape(len(mask), *array.shape[-2:])
    return array[mask[:, -array.shape[1] :]]
