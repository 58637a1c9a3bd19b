"""What the test suites of pytorch-transformers 1.2 and transformers 4 check of GPT-2.

The same checks, at the same sizes, in our words; those that need gradients, TorchScript
or heads that are not here are left out, and so is what other files test better. Models
are random: these are checks of shapes, of agreement between two ways to the same
result, and of files.
"""

import numpy as np
import pytest
from model_cases import random_ids

from minigpt2 import (
    GPT2Config,
    GPT2DoubleHeadsModel,
    GPT2LMHeadModel,
    GPT2Model,
)

BATCH, LENGTH, CHOICES = 13, 7, 4
SIZES = {
    "vocab_size": 99,
    "n_positions": 512,
    "n_embd": 32,
    "n_layer": 5,
    "n_head": 4,
    "bos_token_id": 98,
    "eos_token_id": 98,
    "pad_token_id": 98,
}
CLASSES = [GPT2Model, GPT2LMHeadModel, GPT2DoubleHeadsModel]
# Upstream allows 1e-3. These are two orders of float32 sums in a model whose outputs
# are of order 1: 1e-5.
CLOSE = {"rtol": 0, "atol": 1e-5}


def config(**changes):
    return GPT2Config(**{**SIZES, **changes})


def ids(*shape, seed=0):
    return random_ids(shape or (BATCH, LENGTH), 99, seed)


def first_output(model, *args, **kwargs):
    """The hidden states or the scores of the next id."""
    return model(*args, **kwargs, return_dict=False)[0]


@pytest.fixture(scope="module")
def models():
    return {cls: cls(config()) for cls in CLASSES}


every_class = pytest.mark.parametrize("cls", CLASSES)


# --- Shapes ---


def test_gpt2_model(models):
    model = models[GPT2Model]
    types = ids(seed=1)
    out = model(ids(), token_type_ids=types, head_mask=np.ones((5, 4)))
    hidden, past = model(ids(), token_type_ids=types, return_dict=False)
    assert out.last_hidden_state.shape == hidden.shape == (13, 7, 32)
    assert len(out.past_key_values) == len(past) == 5
    for layer in past:
        # one array [2, ...] until transformers 3, (keys, values) since
        assert np.stack(layer).shape == (2, BATCH, 4, LENGTH, 8)


def test_gpt2_lm_head_model(models):
    out = models[GPT2LMHeadModel](ids(), token_type_ids=ids(seed=1), labels=ids())
    assert out.loss.shape == ()
    assert out.logits.shape == (13, 7, 99)


def test_gpt2_double_heads_model(models):
    choices = np.repeat(ids()[:, None], CHOICES, axis=1)  # [13, 4, 7]
    out = models[GPT2DoubleHeadsModel](
        choices,
        mc_token_ids=random_ids((BATCH, CHOICES), LENGTH, 2),
        attention_mask=np.ones_like(choices),
        token_type_ids=np.repeat(ids(seed=1)[:, None], CHOICES, axis=1),
        lm_labels=choices,
        mc_labels=random_ids((BATCH,), CHOICES, 3),
    )
    assert out.lm_loss.shape == out.mc_loss.shape == ()
    assert out.lm_logits.shape == (13, 4, 7, 99)
    assert out.mc_logits.shape == (13, 4)
    assert out.past_key_values[0][0].shape == (BATCH * CHOICES, 4, LENGTH, 8)


@every_class
def test_attention_outputs(models, cls):
    model = models[cls]
    out = model(ids(), output_attentions=True, output_hidden_states=False)
    assert "hidden_states" not in out
    assert [weights.shape[-3:] for weights in out.attentions] == [(4, 7, 7)] * 5
    length = len(out)
    both = model(ids(), output_attentions=True, output_hidden_states=True)
    assert len(both) == length + 1
    assert [weights.shape[-3:] for weights in both[-1]] == [(4, 7, 7)] * 5
    by_config = cls(config(output_attentions=True))
    assert len(by_config(ids()).attentions) == 5


@every_class
def test_hidden_states_output(models, cls):
    states = models[cls](ids(), output_hidden_states=True).hidden_states
    assert [state.shape[-2:] for state in states] == [(LENGTH, 32)] * 6


@every_class
def test_model_outputs_are_equal_as_tuple_and_as_object(models, cls):
    options = {"output_hidden_states": True, "output_attentions": True}
    as_tuple = models[cls](ids(), **options, return_dict=False)
    as_object = models[cls](ids(), **options, return_dict=True).to_tuple()
    assert len(as_tuple) == len(as_object)

    for one, other in zip(as_tuple, as_object):
        # an array, a sequence of arrays, or the past's pairs of them
        np.testing.assert_array_equal(np.array(list(one)), np.array(list(other)))


# --- Weights ---


@every_class
def test_initialization(cls):
    """With no spread, every parameter is all zeros, or all ones (the norms' gains)."""
    for name, array in cls(config(initializer_range=0.0)).state_dict().items():
        assert array.mean() in (0.0, 1.0), name


@every_class
def test_weight_initialization_of_the_residual_projections(cls):
    state = cls(config()).state_dict()
    for name, array in state.items():
        if "c_proj" in name and "weight" in name:
            expected = 0.02 / np.sqrt(2 * 5)
            # upstream's margin is 0.01; the standard error here is 1% of 0.006
            assert array.std() == pytest.approx(expected, rel=0.1)
            assert array.mean() == pytest.approx(0.0, abs=1e-3)


@every_class
def test_resize_tokens_embeddings(cls):
    model = cls(config())
    rows = np.array(model.get_input_embeddings().weight)
    for change in (+10, -15):
        model.resize_token_embeddings(99 + change)
        assert model.config.vocab_size == 99 + change
        resized = model.get_input_embeddings().weight
        assert resized.shape == (99 + change, 32)
        common = min(99, 99 + change)
        np.testing.assert_array_equal(resized[:common], rows[:common])
        model(np.minimum(ids(), 99 + change - 1))


@pytest.mark.parametrize("cls", CLASSES[1:])
def test_resize_embeddings_untied(cls):
    model = cls(config(tie_word_embeddings=False))
    for change in (+10, -15):
        model.resize_token_embeddings(99 + change)
        head = model.get_output_embeddings().weight
        assert head.shape == (99 + change, 32)
        assert head is not model.get_input_embeddings().weight
        assert np.abs(head - model.get_input_embeddings().weight).max() > 0
        logits = model(np.minimum(ids(), 99 + change - 1)).logits
        assert logits.shape == (13, 7, 99 + change)


@pytest.mark.parametrize("cls", CLASSES[1:])
def test_tie_model_weights(cls):
    tied, untied = cls(config()), cls(config(tie_word_embeddings=False))
    assert untied.num_parameters() == tied.num_parameters() + 99 * 32

    def equal(model):
        return np.array_equal(
            model.get_input_embeddings().weight, model.get_output_embeddings().weight
        )

    assert equal(tied)
    assert not equal(untied)
    tied.resize_token_embeddings(109)
    assert equal(tied)


@every_class
def test_model_common_attributes(cls):
    model = cls(config())
    rows = model.get_input_embeddings()
    assert rows.weight.shape == (99, 32)
    model.set_input_embeddings(np.ones((99, 32)))
    assert model.get_input_embeddings().weight.sum() == 99 * 32
    head = model.get_output_embeddings()
    assert head is None or head.weight.shape == (99, 32)


@every_class
def test_save_load_and_determinism(models, cls, tmp_path):
    model = models[cls]
    before = first_output(model, ids())
    np.testing.assert_array_equal(first_output(model, ids()), before)
    model.save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path)
    np.testing.assert_array_equal(first_output(again, ids()), before)


# --- Heads ---


@every_class
def test_headmasking(models, cls):
    """The first head of the first layer, and all but the last of the last, are off."""
    mask = np.ones((5, 4))
    mask[0, 0] = 0
    mask[-1, :-1] = 0
    out = models[cls](ids(), head_mask=mask, output_attentions=True)
    for weights in out.attentions:
        assert not np.isnan(weights).any()
    sums = [weights.sum(axis=(0, 2, 3)) for weights in out.attentions]
    assert sums[0][0] == 0
    assert sums[0][-1] != 0
    assert (sums[1] != 0).all()
    assert (sums[-1][:-1] == 0).all()
    assert sums[-1][-1] != 0


def heads_of(model):
    attentions = model(ids(), output_attentions=True).attentions
    return [weights.shape[-3] for weights in attentions]


@every_class
def test_head_pruning(cls):
    model = cls(config())
    model.prune_heads({0: list(range(1, 4)), -1: [0]})
    assert heads_of(model) == [1, 4, 4, 4, 3]


@every_class
def test_head_pruning_save_load_from_pretrained(cls, tmp_path):
    model = cls(config())
    model.prune_heads({0: list(range(1, 4)), -1: [0]})
    model.save_pretrained(tmp_path)
    model = cls.from_pretrained(tmp_path)
    assert heads_of(model) == [1, 4, 4, 4, 3]


@every_class
def test_head_pruning_save_load_from_config_init(cls, tmp_path):
    model = cls(config(pruned_heads={0: list(range(1, 4)), -1: [0]}))
    assert heads_of(model) == [1, 4, 4, 4, 3]


@every_class
def test_head_pruning_integration(cls, tmp_path):
    model = cls(config(pruned_heads={0: [0], 1: [1, 2]}))
    assert heads_of(model) == [3, 2, 4, 4, 4]
    model.save_pretrained(tmp_path)
    model = cls.from_pretrained(tmp_path)
    assert heads_of(model) == [3, 2, 4, 4, 4]
    model.prune_heads({0: [0], 2: [1, 2]})
    assert heads_of(model) == [3, 2, 2, 4, 4]
    assert model.config.pruned_heads == {0: [0], 1: [1, 2], 2: [1, 2]}


# --- The past ---


def test_gpt2_model_past(models):
    model, types = models[GPT2Model], ids(seed=1)
    past = model(ids(), token_type_ids=types, use_cache=True).past_key_values
    assert "past_key_values" not in model(ids(), use_cache=False)
    next_ids, next_types = ids(BATCH, 1, seed=2), ids(BATCH, 1, seed=3)
    whole = model(
        np.concatenate([ids(), next_ids], axis=1),
        token_type_ids=np.concatenate([types, next_types], axis=1),
    ).last_hidden_state
    for name in ("past", "past_key_values"):
        step = model(next_ids, token_type_ids=next_types, **{name: past})
        np.testing.assert_allclose(step.last_hidden_state[:, 0], whole[:, -1], **CLOSE)


def test_gpt2_model_attention_mask_past(models):
    """What a masked position of the past held does not matter."""
    model = models[GPT2Model]
    mask = np.ones((BATCH, LENGTH), int)
    mask[:, LENGTH // 2 :] = 0
    past = model(ids(), attention_mask=mask).past_key_values
    next_ids = ids(BATCH, 1, seed=2)
    changed = ids()
    changed[:, -random_ids((), LENGTH // 2, 3) - 1] = ids(BATCH, seed=4)
    whole_mask = np.concatenate([mask, np.ones((BATCH, 1), int)], axis=1)
    whole = model(
        np.concatenate([changed, next_ids], axis=1), attention_mask=whole_mask
    ).last_hidden_state
    step = model(next_ids, past, attention_mask=whole_mask).last_hidden_state
    np.testing.assert_allclose(step[:, 0], whole[:, -1], **CLOSE)


def test_gpt2_model_past_large_inputs(models):
    model = models[GPT2Model]
    mask = random_ids((BATCH, LENGTH), 2, 5)
    mask[:, 0] = 1
    past = model(ids(), attention_mask=mask).past_key_values
    next_ids = ids(BATCH, 3, seed=2)
    whole_mask = np.concatenate([mask, np.ones((BATCH, 3), int)], axis=1)
    whole = model(
        np.concatenate([ids(), next_ids], axis=1), attention_mask=whole_mask
    ).last_hidden_state
    step = model(next_ids, past, attention_mask=whole_mask).last_hidden_state
    assert step.shape[1] == 3
    np.testing.assert_allclose(step, whole[:, -3:], **CLOSE)


# --- Two ways to one result ---


@every_class
def test_inputs_embeds_matches_input_ids(models, cls):
    model = models[cls]
    embeds = model.get_input_embeddings().weight[ids()]
    np.testing.assert_array_equal(
        first_output(model, inputs_embeds=embeds), first_output(model, ids())
    )


@every_class
def test_batching_equivalence(models, cls):
    whole = first_output(models[cls], ids())
    for row in range(BATCH):
        alone = first_output(models[cls], ids()[row : row + 1])
        np.testing.assert_allclose(alone[0], whole[row], **CLOSE)


def test_gpt2_scale_attn_by_inverse_layer_idx():
    model = GPT2LMHeadModel(config(scale_attn_by_inverse_layer_idx=True))
    assert model(ids(), labels=ids()).logits.shape == (13, 7, 99)
    scales = [block.attn.scale for block in model.transformer.h]
    assert scales == pytest.approx([1 / np.sqrt(8) / n for n in range(1, 6)])


def test_gpt2_reorder_and_upcast_attn(models):
    model = GPT2LMHeadModel(config(reorder_and_upcast_attn=True))
    plain = models[GPT2LMHeadModel]
    np.testing.assert_allclose(model(ids()).logits, plain(ids()).logits, **CLOSE)


# --- Generation ---


@pytest.fixture(scope="module")
def writers():
    """Models with enough spread to write something other than one id for ever."""
    spread = config(initializer_range=0.3)
    return [GPT2LMHeadModel(spread), GPT2DoubleHeadsModel(spread)]


def test_left_padding_compatibility(writers):
    for model in writers:
        alone = model(ids()).logits[:, -1]
        pads = np.full((BATCH, 6), 98)
        mask = np.concatenate([np.zeros_like(pads), np.ones_like(ids())], axis=1)
        padded = model(
            np.concatenate([pads, ids()], axis=1),
            attention_mask=mask,
            position_ids=np.maximum(mask.cumsum(axis=1) - 1, 0),
        ).logits[:, -1]
        # logits here are up to 10
        np.testing.assert_allclose(padded, alone, rtol=0, atol=1e-4)


def test_batch_generation(writers):
    """A padded row is continued as it is alone: upstream's two sentences, as ids."""
    for model in writers:
        long, short = ids(1, 7, seed=6), ids(1, 3, seed=7)
        padded = np.concatenate([np.full((1, 4), 98), short], axis=1)
        batch = np.concatenate([long, padded])
        mask = (np.arange(7) >= np.array([[0], [4]])).astype(int)
        out = model.generate(batch, attention_mask=mask, max_length=20)
        alone = model.generate(long, max_length=20)
        np.testing.assert_array_equal(out[0, : alone.shape[1]], alone[0])
        alone = model.generate(short, max_length=16)
        np.testing.assert_array_equal(out[1, 4 : 4 + alone.shape[1]], alone[0])


def test_generate_without_input_ids(writers):
    for model in writers:
        out = model.generate(max_length=20)
        assert out[0, 0] == 98
        assert out.shape[0] == 1


# --- Configurations: ConfigTester, with its odd width ---


def test_config_common_properties():
    made = GPT2Config(n_embd=37, n_head=1)
    for name in (
        "hidden_size",
        "num_attention_heads",
        "num_hidden_layers",
        "vocab_size",
    ):
        assert hasattr(made, name), name
    assert made.hidden_size == 37
    for number, name in enumerate(("hidden_size", "num_hidden_layers"), start=3):
        setattr(made, name, number)
        assert getattr(made, name) == number
        assert getattr(GPT2Config(**{name: number * 12}), name) == number * 12


def test_config_to_json_and_back(tmp_path):
    import json

    made = GPT2Config(n_embd=37, n_head=1)
    for name, value in {"n_embd": 37, "n_head": 1}.items():
        assert json.loads(made.to_json_string())[name] == value
    made.to_json_file(tmp_path / "config.json")
    assert (
        GPT2Config.from_json_file(tmp_path / "config.json").to_dict() == made.to_dict()
    )
    made.save_pretrained(tmp_path)
    assert GPT2Config.from_pretrained(tmp_path).to_dict() == made.to_dict()
    assert GPT2Config().to_dict()["model_type"] == "gpt2"
