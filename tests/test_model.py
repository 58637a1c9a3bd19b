"""The model against what transformers computes with the same trained weights."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import GPT2Config, GPT2LMHeadModel, GPT2Model, KVCache
from minigpt2.model import gpt2

TINY = {"vocab_size": 31, "n_positions": 16, "n_embd": 12, "n_layer": 3, "n_head": 3}


@pytest.fixture(scope="module")
def tiny():
    config = GPT2Config(**TINY, initializer_range=0.5)
    return GPT2LMHeadModel(config, dtype=np.float64)


def close(actual, expected, dtype):
    """Agreement to a fraction of the largest value.

    float32: 24 bits, a few hundred roundings on the way, 1e-5; float64: 53 bits, 1e-12.
    """
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def test_documented_arguments_come_in_the_documented_order():
    documented = (
        "self input_ids past attention_mask token_type_ids position_ids head_mask "
        "inputs_embeds"
    ).split()
    for cls, more in ((GPT2Model, []), (GPT2LMHeadModel, ["labels"])):
        parameters = inspect.signature(cls.forward).parameters.values()
        positional = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
        assert positional == documented + more


def test_logits_losses_hidden_states_and_attentions_are_transformers(
    model, shakespeare
):
    for i, prompt in enumerate(shakespeare.expected["prompts"]):
        ids = np.array([prompt["ids"]])
        out = model(ids, labels=ids, output_hidden_states=True, output_attentions=True)
        assert out.logits.dtype == model.dtype
        close(out.logits[0], shakespeare.arrays[f"logits_{i}_float64"], model.dtype)
        close(out.loss, prompt["loss_float64"], model.dtype)
        if i == 0:
            assert (len(out.hidden_states), len(out.attentions)) == (5, 4)
            for layer, stream in enumerate(out.hidden_states):
                expected = shakespeare.arrays[f"hidden_{layer}_float64"]
                close(stream[0], expected, model.dtype)
            for layer, weights in enumerate(out.attentions):
                expected = shakespeare.arrays[f"attention_{layer}_float64"]
                close(weights[0], expected, model.dtype)


def test_a_left_padded_batch_gives_transformers_last_logits(model, shakespeare):
    ids, mask = shakespeare.arrays["padded_ids"], shakespeare.arrays["padded_mask"]
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    out = model(ids, attention_mask=mask, position_ids=positions, logits_to_keep=1)
    expected = shakespeare.arrays["padded_last_logits_float64"]
    close(out.logits[:, 0], expected, model.dtype)


def test_outputs_read_by_name_key_and_position(tiny):
    ids = [[1, 2, 3]]
    out = tiny(ids, labels=ids)
    assert out.loss is out["loss"] is out[0]
    assert out.logits is out[1]
    assert list(out) == ["loss", "logits", "past_key_values"]
    loss, logits = out[:2]
    assert loss is out.loss
    assert logits is out.logits
    assert "attentions" not in out
    assert out.get("attentions") is None
    with pytest.raises(KeyError, match="this output has loss, logits"):
        _ = out["attentions"]
    assert isinstance(tiny(ids, return_dict=False), tuple)
    assert len(tiny(ids, use_cache=False).to_tuple()) == 1


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_past_in_any_pieces_gives_what_one_pass_gives(tiny, data):
    length = data.draw(st.integers(2, 16))
    ids = np.array(
        data.draw(st.lists(st.integers(0, 30), min_size=length, max_size=length))
    )
    cuts = data.draw(st.sets(st.integers(1, length - 1), max_size=4))
    whole = tiny(ids[None]).logits
    past, pieces = None, []
    for piece in np.split(ids, sorted(cuts)):
        out = tiny(piece[None], past)
        pieces.append(out.logits)
        past = out.past_key_values
        if data.draw(st.booleans()):  # as pytorch-transformers has it: [2, B, H, S, D]
            past = [np.stack(pair) for pair in past]
    close(np.concatenate(pieces, axis=1), whole, np.float64)


def test_a_past_is_not_written_to_and_may_be_continued_twice(tiny):
    past = tiny([[1, 2, 3]]).past_key_values
    before = [np.array(k) for k, _ in past]
    first = tiny([[4]], past=past)
    second = tiny([[5]], past_key_values=past)
    again = tiny([[4]], past=past)
    np.testing.assert_array_equal(first.logits, again.logits)
    assert np.abs(first.logits - second.logits).max() > 1e-3
    for (k, _), old in zip(past, before):
        np.testing.assert_array_equal(k, old)


def test_a_past_of_another_dtype_is_converted(tiny):
    single = GPT2LMHeadModel(tiny.config)
    single.load_state_dict(tiny.state_dict())
    past = tiny([[1, 2, 3]]).past_key_values
    out = single([[4]], past)
    assert out.logits.dtype == out.past_key_values[0][0].dtype == np.float32
    close(out.logits, single([[1, 2, 3, 4]], logits_to_keep=1).logits, np.float32)


def test_changing_a_masked_position_of_the_past_changes_nothing(tiny):
    mask = [[1, 0, 1, 1]]
    results = []
    for hidden in (7, 8):
        past = tiny([[3, hidden]]).past_key_values
        results.append(tiny([[5, 6]], past=past, attention_mask=mask).logits)
    np.testing.assert_array_equal(*results)


def test_extra_leading_axes_are_folded_and_unfolded(tiny):
    ids = np.arange(24).reshape(2, 3, 4)
    out = tiny(ids, output_hidden_states=True, output_attentions=True)
    flat = tiny(ids.reshape(6, 4), output_hidden_states=True, output_attentions=True)
    assert out.logits.shape == (2, 3, 4, 31)
    assert out.attentions[0].shape == (2, 3, 3, 4, 4)
    assert out.past_key_values[0][0].shape == (6, 3, 4, 4)
    np.testing.assert_array_equal(out.logits.reshape(6, 4, 31), flat.logits)
    np.testing.assert_array_equal(
        out.hidden_states[1].reshape(6, 4, 12), flat.hidden_states[1]
    )


def test_embeddings_token_types_and_positions_enter_as_they_should(tiny):
    ids, types = np.array([[1, 2, 3]]), np.array([[0, 0, 30]])
    wte = tiny.transformer.wte.weight
    embeds = wte[ids] + wte[types]
    by_ids = tiny(ids, token_type_ids=types).logits
    np.testing.assert_allclose(tiny(inputs_embeds=embeds).logits, by_ids, atol=1e-12)
    shifted = tiny(ids, position_ids=[[5, 6, 7]]).logits
    assert np.abs(shifted - tiny(ids).logits).max() > 1e-3
    np.testing.assert_array_equal(
        tiny(ids, position_ids=[[0, 1, 2]]).logits, tiny(ids).logits
    )


def test_head_masks_are_factors_of_the_attention_weights(tiny):
    ids = [[1, 2, 3, 4]]
    mask = np.ones((3, 3))
    mask[0, 0] = mask[2, :2] = 0
    out = tiny(ids, head_mask=mask, output_attentions=True)
    dropped = [[w[0, h].sum() == 0 for h in range(3)] for w in out.attentions]
    assert dropped == (mask == 0).tolist()
    everywhere = tiny(ids, head_mask=[1, 0, 1]).logits
    rows = tiny(ids, head_mask=[[1, 0, 1]] * 3).logits
    np.testing.assert_array_equal(everywhere, rows)
    close(tiny(ids, head_mask=np.ones(3)).logits, tiny(ids).logits, np.float64)


def test_logits_to_keep_takes_the_last_or_the_named_positions(tiny):
    ids = [[1, 2, 3, 4]]
    full = tiny(ids).logits
    close(tiny(ids, logits_to_keep=9).logits, full, np.float64)
    close(tiny(ids, logits_to_keep=2).logits, full[:, -2:], np.float64)
    close(
        tiny(ids, logits_to_keep=np.array([0, 3])).logits, full[:, [0, 3]], np.float64
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either input_ids or inputs_embeds"),
        ({"input_ids": [[1]], "inputs_embeds": [[[0.0] * 12]]}, "not both"),
        ({"input_ids": [[1, -1]]}, "input_ids holds -1, which is outside 0 to 30"),
        ({"input_ids": "To be"}, "is text; a model takes ids: tokenizer.encode"),
        ({"input_ids": ["To be"]}, "is text; a model takes ids: tokenizer.encode"),
        ({"input_ids": [[31]]}, "input_ids holds 31"),
        ({"input_ids": [[]]}, "input_ids is empty"),
        ({"input_ids": [[1.0]]}, "must be integers"),
        ({"input_ids": [[1] * 17]}, "n_positions=16"),
        ({"input_ids": [[1]], "position_ids": [[16]]}, "position_ids holds 16"),
        ({"input_ids": [[1]], "token_type_ids": [[31]]}, "token_type_ids holds 31"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, r"it must be \(1, 2\)"),
        ({"input_ids": [[1]], "attention_mask": [[0.5]]}, "0 .* and 1 .* only"),
        ({"input_ids": [[1]], "head_mask": [1, 1]}, r"it must be \(3,\) or \(3, 3\)"),
        ({"input_ids": [[1]], "inputs_embeds": None, "labels": [[1, 2]]}, "labels"),
        ({"input_ids": [[1, 2]], "labels": [[1, 31]]}, "label 31 is outside"),
        (
            {"input_ids": [[1, 2]], "labels": [[1, 2]], "logits_to_keep": 1},
            "labels need",
        ),
        (  # as many scores as labels, but in another order
            {"input_ids": [[1, 2]], "labels": [[1, 2]], "logits_to_keep": [1, 0]},
            "labels need",
        ),
        ({"input_ids": [[1, 2]], "logits_to_keep": -1}, "logits_to_keep is -1"),
        ({"input_ids": [[1, 2]], "logits_to_keep": 1.5}, "logits_to_keep is 1.5"),
        ({"input_ids": [[1, 2]], "logits_to_keep": [2]}, "logits_to_keep holds 2"),
        ({"input_ids": [[1]], "head_mask": 1.0}, r"it must be \(3,\) or \(3, 3\)"),
        ({"input_ids": [[1]], "head_mask": [[1], [1, 1]]}, "head_mask has rows of"),
        ({"input_ids": 1}, "input_ids is a single number"),
        (
            {"input_ids": [[1, 2]], "position_ids": [[1]]},
            r"position_ids has shape \(1, 1",
        ),
        (
            {"input_ids": [[1, 2]], "position_ids": [[0, 1]] * 2},
            r"it must be \(1, 2\), or \(1, 2\) for all rows alike",
        ),
        (
            {"input_ids": [[1, 2]], "token_type_ids": [1, 2, 3]},
            r"token_type_ids has shape \(3,\)",
        ),
        ({"input_ids": [[1, 2]], "labels": [[1.0, 2.0]]}, "dtype float64; .* integers"),
        ({"inputs_embeds": np.zeros((1, 0, 12))}, r"inputs_embeds has shape \(1, 0"),
        ({"input_ids": [[1]], "past": ()}, "past_key_values has no layers"),
        ({"inputs_embeds": [[0.0, 1.0]]}, r"must be \(batch, positions, 12\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(tiny, arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


def test_a_past_of_another_model_or_batch_is_refused(tiny):
    past = tiny([[1], [2]]).past_key_values
    message = r"past_key_values\[0\] has .* \(2, 3, 4\); this pass needs \(1, 3, 4\)"
    with pytest.raises(ValueError, match=message):
        tiny([[1]], past=past)
    with pytest.raises(ValueError, match="has 2 layers; this model has 3"):
        tiny([[1], [1]], past=past[:2])
    message = "past and past_key_values are two names of one argument"
    with pytest.raises(ValueError, match=message):
        tiny([[1], [1]], past=past, past_key_values=past)
    full = KVCache.of([(np.zeros((1, 3, 16, 4)),) * 2] * 3, np.float64)
    with pytest.raises(ValueError, match="make 17 positions"):
        tiny([[1]], past=full)


def test_dropout_needs_a_generator_in_train_mode_and_repeats_with_it(tiny):
    model = GPT2LMHeadModel(GPT2Config(**TINY), dtype=np.float64)
    assert not model.training
    model.train()
    with pytest.raises(ValueError, match="needs generator="):
        model([[1, 2]])
    runs = [
        model([[1, 2]], generator=np.random.default_rng(seed)).logits
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0
    quiet = model.eval()([[1, 2]], generator=np.random.default_rng(0)).logits
    np.testing.assert_array_equal(quiet, model([[1, 2]]).logits)


def test_each_of_the_three_dropouts_is_drawn():
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
        config = GPT2Config(**TINY, **{**rates, name: 0.5}, initializer_range=0.5)
        model = GPT2LMHeadModel(config, dtype=np.float64)
        ids = [[1, 2, 3]]
        train = model.train()(ids, generator=np.random.default_rng(0)).logits
        assert np.abs(train - model.eval()(ids).logits).max() > 1e-3, name


def test_fresh_weights_are_as_documented():
    config = GPT2Config(n_embd=96, n_layer=2, n_head=4, vocab_size=5000, n_positions=64)
    model = GPT2LMHeadModel(config, seed=3)
    for name, array in model.state_dict().items():
        if name.endswith("bias"):
            assert not array.any()
        elif ".ln_" in name:
            assert (array == 1).all()
        else:
            std = 0.02 / math.sqrt(4) if "c_proj" in name else 0.02
            # the standard error of a standard deviation is std / sqrt(2 n)
            assert array.std() == pytest.approx(
                std, abs=5 * std / math.sqrt(2 * array.size)
            )
    same = GPT2LMHeadModel(config, seed=3).state_dict()
    other = GPT2Model(config, seed=4).state_dict()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, same[name])
    assert (other["wte.weight"] != model.transformer.wte.weight).mean() > 0.99
    base = GPT2Model(config, seed=3).state_dict()
    np.testing.assert_array_equal(
        base["h.1.mlp.c_proj.weight"], same["transformer.h.1.mlp.c_proj.weight"]
    )


def test_one_model_serves_many_threads(tiny):
    from concurrent.futures import ThreadPoolExecutor

    prompts = [np.array([[i, i + 1, i + 2]]) for i in range(20)]
    alone = [tiny(p).logits for p in prompts]
    with ThreadPoolExecutor(8) as pool:
        for logits, expected in zip(pool.map(lambda p: tiny(p).logits, prompts), alone):
            np.testing.assert_array_equal(logits, expected)


def test_repr_and_constructor_arguments():
    model = GPT2Model(GPT2Config(**TINY))
    assert repr(model).splitlines() == [
        "GPT2Model(n_layer=3, n_embd=12, n_head=3, vocab_size=31, n_positions=16, "
        "dtype=float32, backend=numpy)",
        "  wte: Embedding [31, 12]",
        "  wpe: Embedding [16, 12]",
        "  h.0..2: Block",
        "    ln_1: LayerNorm [12]",
        "    attn: Attention",
        "      c_attn: Linear [12, 36]",
        "      c_proj: Linear [12, 12]",
        "    ln_2: LayerNorm [12]",
        "    mlp: MLP",
        "      c_fc: Linear [12, 48]",
        "      act: Activation",
        "      c_proj: Linear [48, 12]",
        "  ln_f: LayerNorm [12]",
    ]
    model.prune_heads({1: [0]})
    assert "  h.1: Block" in repr(model)
    assert "  h.2: Block" in repr(model)
    with pytest.raises(ValueError, match="dtype must be float32 or float64"):
        GPT2Model(GPT2Config(**TINY), dtype=np.float16)
    with pytest.raises(ValueError, match="unknown backend 'torch'"):
        GPT2Model(GPT2Config(**TINY), backend="torch")
    with pytest.raises(TypeError, match="from_pretrained loads by name"):
        GPT2Model("gpt2")


def test_an_option_that_no_forward_pass_has_is_a_type_error(tiny):
    with pytest.raises(TypeError, match="'output_attention'"):
        tiny([[1]], output_attention=True)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("activation", ["gelu_new", "silu"])
def test_joined_ops_compute_what_their_steps_do(
    monkeypatch, backend, use_cache, activation
):
    config = GPT2Config(**TINY, initializer_range=0.5, activation_function=activation)
    model = GPT2Model(config, backend=backend)
    ids = np.arange(26).reshape(2, 13)
    mask = np.ones((2, 13), int)
    mask[1, :4] = 0
    options = {"attention_mask": mask, "use_cache": use_cache}
    joined = model(ids, **options).last_hidden_state

    def norm_linear(x, norm, linear, forward_pass, activation=None):
        y = linear(norm(x))
        return y if activation is None else activation(y)

    def linear_add(x, linear, residual, forward_pass, probability):
        return residual + linear(x)

    monkeypatch.setattr(gpt2, "norm_linear", norm_linear)
    monkeypatch.setattr(gpt2, "linear_add", linear_add)
    parts = model(ids, **options).last_hidden_state
    if backend == "numba":  # the kernels' order of summation is fixed
        np.testing.assert_array_equal(joined, parts)
    else:
        close(joined, parts, np.float32)


# --- What callers of other libraries expect to find ---


def test_taking_the_names_of_outputs_for_arrays_says_what_to_do(tiny):
    logits, past = tiny([[1, 2]])
    assert (logits, past) == ("logits", "past_key_values")
    for mistake in (lambda: logits[0, -1], lambda: logits[:, -1], lambda: logits.shape):
        with pytest.raises((TypeError, AttributeError), match=r"out\.to_tuple\(\)"):
            mistake()
    logits, past = tiny([[1, 2]]).to_tuple()
    assert logits.shape == (1, 2, 31)
    assert past.length == 2


def test_fields_of_outputs_can_be_set_by_key(tiny):
    out = tiny([[1, 2]])
    out["logits"] = out.logits * 2
    np.testing.assert_array_equal(out["logits"], out.logits)
    with pytest.raises(KeyError, match="no field 'logit'"):
        out["logit"] = 1


def test_parameters_are_listed_tied_ones_once(tiny):
    named = dict(tiny.named_parameters())
    assert "lm_head.weight" not in named
    assert sum(array.size for array in tiny.parameters()) == tiny.num_parameters()
    assert not any(array.flags.writeable for array in tiny.parameters())
    assert tiny.vocab_size == 31


def test_a_tied_head_follows_whatever_its_embeddings_become():
    model = GPT2LMHeadModel(GPT2Config(**TINY))
    state = {name: array * 2 for name, array in model.transformer.state_dict().items()}
    model.transformer.load_state_dict(state)
    np.testing.assert_array_equal(model.lm_head.weight, state["wte.weight"])
    hidden = model.transformer([[1, 2]]).last_hidden_state
    close(model([[1, 2]]).logits, hidden @ state["wte.weight"].T, np.float32)


def test_a_configuration_that_was_broken_after_it_was_made_is_refused():
    changes = {
        "n_head": 5,
        "activation_function": "sin",
        "layer_norm_epsilon": -1.0,
        "resid_pdrop": 7,
        "add_cross_attention": True,
        "pruned_heads": {-4: [0]},
    }
    for name, value in changes.items():
        config = GPT2Config(**TINY)
        setattr(config, name, value)
        with pytest.raises(ValueError, match=name):
            GPT2Model(config)
    config = GPT2Config(**TINY)
    config.pruned_heads = {"-1": [0]}
    assert GPT2Model(config).h[2].attn.heads == [1, 2]


def test_masks_of_four_axes_that_do_not_fit_are_refused(tiny):
    with pytest.raises(ValueError, match=r"must be \(1, heads or 1, 2, 2\)"):
        tiny([[1, 2]], attention_mask=np.ones((1, 1, 2, 3), bool))
    with pytest.raises(ValueError, match="holds int64: give bool"):
        tiny([[1, 2]], attention_mask=np.ones((1, 1, 2, 2), np.int64))
