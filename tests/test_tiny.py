"""The tiny models: the same bits everywhere, and no bug that they would hide."""

import hashlib

import numpy as np
import pytest

from minigpt2 import GPT2DoubleHeadsModel, trace
from minigpt2.testing import TINY_MODELS, tiny_inputs, tiny_model, tiny_models

# SHA-256 of all parameters in order, as little-endian float32.
DIGESTS = {
    "tiny": "44cacb4fd5d4f79a",
    "one-head": "44cacb4fd5d4f79a",
    "head-size-1": "774575a4b3e44018",
    "narrow-inner": "ebc5e6cff3b402d7",
    "one-layer": "c19c0c719ddf62e8",
    "untied": "e0997fbae44212fc",
    "gelu": "44cacb4fd5d4f79a",
    "relu": "44cacb4fd5d4f79a",
    "silu": "44cacb4fd5d4f79a",
    "tanh": "44cacb4fd5d4f79a",
    "unscaled": "44cacb4fd5d4f79a",
    "inverse-layer": "44cacb4fd5d4f79a",
    "upcast": "44cacb4fd5d4f79a",
    "large-epsilon": "44cacb4fd5d4f79a",
    "double-heads": "a02cc29a9ac2f3c7",
}


def digest(model):
    found = hashlib.sha256()
    for name, array in model.named_parameters():
        found.update(name.encode())
        found.update(array.astype("<f4").tobytes())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("name", TINY_MODELS)
def test_the_parameters_are_pinned_bit_for_bit(name):
    assert digest(tiny_model(name)) == DIGESTS[name]


def test_half_precision_holds_every_parameter():
    for name, model in tiny_models():
        for parameter, array in model.named_parameters():
            assert (array.astype(np.float16) == array).all(), (name, parameter)
            bits = array.view(np.uint32)
            assert (bits & 0xFFFF == 0).all(), (name, parameter)  # bfloat16


def test_nothing_is_hidden_by_ones_zeros_or_smallness():
    model, inputs = tiny_model(), tiny_inputs()
    for name, array in model.named_parameters():
        if ".ln_" in name and name.endswith("weight"):
            assert (array != 1).all()
        if name.endswith("bias"):
            assert (array != 0).all()
    t = trace(model, **inputs.arguments())
    for layer in range(3):
        before = t[f"h.{layer}.mlp.c_fc"]
        assert before.max() > 3
        assert before.min() < -3
        weights = t[f"h.{layer}.attn.weights"][0, :, -1]  # of the last query
        assert (weights.max(axis=-1) > 0.3).any()  # far from uniform: 1/9
    sizes = model.config
    numbers = [
        sizes.n_head,
        5,
        sizes.n_embd,
        sizes.n_inner,
        61,
        24,
        sizes.n_layer,
        9,
        2,
    ]
    assert len(set(numbers)) == len(numbers)


def test_inputs_have_padding_a_past_and_labels():
    inputs = tiny_inputs()
    assert inputs.attention_mask[1].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1]
    assert inputs.position_ids[1].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert inputs.labels[1].tolist() == [-100] * 4 + inputs.input_ids[1, 4:].tolist()
    model = tiny_model(dtype=np.float64)
    whole = model(**inputs.arguments())
    split = inputs.past_length
    first = model(
        inputs.input_ids[:, :split],
        attention_mask=inputs.attention_mask[:, :split],
        position_ids=inputs.position_ids[:, :split],
    )
    rest = model(
        inputs.input_ids[:, split:],
        past_key_values=first.past_key_values,
        attention_mask=inputs.attention_mask,
        position_ids=inputs.position_ids[:, split:],
    )
    np.testing.assert_allclose(rest.logits, whole.logits[:, split:], atol=1e-11)


def test_names_seeds_and_fields():
    assert isinstance(tiny_model("double-heads"), GPT2DoubleHeadsModel)
    assert digest(tiny_model(0)) == digest(tiny_model("tiny"))
    assert digest(tiny_model(1)) != digest(tiny_model(0))
    assert tiny_model(n_layer=1).config.n_layer == 1
    with pytest.raises(ValueError, match="no tiny model 'small'; there are tiny, one-"):
        tiny_model("small")
