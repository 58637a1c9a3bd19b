"""minigpt2 against whichever transformers is installed, over random shapes.

Hypothesis chooses configurations and arguments; weights are random_state_dict's. Both
sides compute in float64, so that a difference is an error and not rounding. head_mask
is compared where transformers still applies it (before version 5).
"""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from model_cases import (
    assert_close,
    base_state_dict,
    random_ids,
    random_state_dict,
    random_values,
    real_rows,
)

from minigpt2 import GPT2Config, GPT2LMHeadModel, GPT2Model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.peers
APPLIES_HEAD_MASK = int(transformers.__version__.split(".")[0]) < 5

# Sums of up to 100 terms, each rounded by 1e-16, in another order, three layers deep.
TOLERANCE = 1e-12

many = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
few = settings(many, max_examples=20)


@st.composite
def configurations(draw, **fixed):
    n_head = draw(st.integers(1, 4))
    vocab_size = draw(st.integers(2, 60))
    config = {
        "vocab_size": vocab_size,
        "n_positions": draw(st.integers(12, 24)),
        "n_embd": n_head * draw(st.integers(1, 8)),
        "n_layer": draw(st.integers(1, 3)),
        "n_head": n_head,
        "n_inner": draw(st.none() | st.integers(1, 40)),
        "activation_function": draw(
            st.sampled_from(["gelu_new", "gelu", "relu", "silu", "swish", "tanh"])
        ),
        "layer_norm_epsilon": draw(st.sampled_from([1e-5, 1e-12, 0.1])),
        "scale_attn_weights": draw(st.booleans()),
        "scale_attn_by_inverse_layer_idx": draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
        "bos_token_id": vocab_size - 1,
        "eos_token_id": vocab_size - 1,
    }
    return {**config, **fixed}


@st.composite
def forward_arguments(draw, config):
    """Arguments of forward as NumPy arrays, any of them left out."""
    seed = draw(st.integers(0, 2**31))
    B = draw(st.integers(1, 3))
    past = draw(st.sampled_from([0, 0, 1, 4]))
    T = draw(st.integers(1, config["n_positions"] - past))
    V, H, L = config["vocab_size"], config["n_head"], config["n_layer"]
    C = config["n_embd"]
    arguments = {"input_ids": random_ids((B, T), V, seed, 0)}
    if draw(st.booleans()):
        embeds = 4 * random_values((B, T, C), seed, 1)
        arguments = {"inputs_embeds": embeds}
    if past:
        shape = (L, 2, B, H, past, C // H)
        arguments["past_key_values"] = 4 * random_values(shape, seed, 2)
    if draw(st.booleans()):
        mask = random_ids((B, past + T), 4, seed, 3) > 0
        mask[:, -1] = True
        arguments["attention_mask"] = mask.astype(np.int64)
    if draw(st.booleans()):
        arguments["token_type_ids"] = random_ids((B, T), V, seed, 4)
    if draw(st.booleans()):
        rows = draw(st.sampled_from([1, B]))
        arguments["position_ids"] = random_ids(
            (rows, T), config["n_positions"], seed, 5
        )
        # Without a mask transformers takes positions that start anew for another text.
        ones = np.ones((B, past + T), np.int64)
        arguments.setdefault("attention_mask", ones)
    if APPLIES_HEAD_MASK and draw(st.booleans()):
        shape = draw(st.sampled_from([(H,), (L, H)]))
        arguments["head_mask"] = random_ids(shape, 3, seed, 6) / 2.0
    if draw(st.booleans()):
        labels = random_ids((B, T), V, seed, 7)
        labels[random_ids((B, T), 3, seed, 8) == 0] = -100
        arguments["labels"] = labels
    return arguments


def pair(config, seed=0, head=True):
    """The same model twice: ours and transformers', in float64."""
    weights = random_state_dict(config, seed)
    if not head:
        weights = base_state_dict(weights)
    ours = (GPT2LMHeadModel if head else GPT2Model)(
        GPT2Config(**config), dtype=np.float64, seed=None
    )
    ours.load_state_dict(weights)
    cls = transformers.GPT2LMHeadModel if head else transformers.GPT2Model
    hf_config = transformers.GPT2Config(**config, attn_implementation="eager")
    theirs = cls(hf_config).double().eval()
    state = {name: torch.tensor(array) for name, array in weights.items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    theirs.tie_weights()
    return ours, theirs


def to_torch(arguments):
    """The same arguments as tensors, and the past as a cache."""
    tensors = {
        name: torch.tensor(value) if isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
    }
    if "past_key_values" in tensors:
        cache = transformers.DynamicCache()
        for layer, (keys, values) in enumerate(tensors["past_key_values"]):
            cache.update(keys, values, layer)
        tensors["past_key_values"] = cache
    return tensors


def by_name(out):
    """Outputs of either side as arrays, with one array for all layers."""
    result = {}
    for name in ("logits", "last_hidden_state"):
        if out.get(name) is not None:
            result[name] = np.asarray(out[name])
    for name, tail in ("hidden_states", 2), ("attentions", 3):
        layers = [np.asarray(x) for x in out.get(name) or ()]
        if layers:
            result[name] = np.stack([x.reshape(-1, *x.shape[-tail:]) for x in layers])
    past = out.past_key_values
    layers = (
        [(layer.keys, layer.values) for layer in past.layers]
        if hasattr(past, "layers")
        else list(past)
    )
    result["keys"] = np.stack([np.asarray(keys) for keys, values in layers])
    result["values"] = np.stack([np.asarray(values) for keys, values in layers])
    return result


def assert_same(ours, theirs, mask=None):
    if mask is not None:
        mask = mask.reshape(-1, mask.shape[-1]).astype(bool)
    ours, theirs = by_name(ours), by_name(theirs)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name].dtype == np.float64
        assert_close(
            real_rows(name, ours[name], mask),
            real_rows(name, expected, mask),
            TOLERANCE,
            name,
        )


def call(model, arguments, **more):
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' deprecations are not ours
        return model(**arguments, **more)


@many
@given(st.data())
def test_forward_equals_transformers_for_any_arguments(data):
    config = data.draw(configurations())
    arguments = data.draw(forward_arguments(config))
    ours, theirs = pair(config)
    asked = {"use_cache": True}
    asked["output_hidden_states"] = data.draw(st.booleans())
    asked["output_attentions"] = data.draw(st.booleans())
    actual = ours(**arguments, **asked)
    tensors = to_torch(arguments)
    expected = call(theirs, tensors, **asked)
    assert_same(actual, expected, arguments.get("attention_mask"))
    if "labels" in arguments:
        # transformers computes the loss in float32, so torch does it here in float64;
        # on our logits, since padded positions may carry labels.
        shifted = tensors["labels"][:, 1:].reshape(-1)
        logits = torch.tensor(actual.logits)[:, :-1].reshape(-1, config["vocab_size"])
        loss = torch.nn.functional.cross_entropy(logits, shifted)
        np.testing.assert_allclose(actual.loss, loss, rtol=1e-12, equal_nan=True)


@few
@given(st.data())
def test_bare_model_equals_transformers(data):
    config = data.draw(configurations(tie_word_embeddings=True))
    arguments = data.draw(forward_arguments(config))
    arguments.pop("labels", None)
    ours, theirs = pair(config, head=False)
    asked = {"use_cache": True, "output_hidden_states": True, "output_attentions": True}
    expected = call(theirs, to_torch(arguments), **asked)
    assert_same(ours(**arguments, **asked), expected, arguments.get("attention_mask"))


@few
@given(st.data())
def test_reorder_and_upcast_attn_equals_transformers_in_float32(data):
    # Only float32: transformers refuses the flag in float64.
    config = data.draw(configurations(reorder_and_upcast_attn=True))
    ids = random_ids((2, 7), config["vocab_size"], data.draw(st.integers(0, 99)))
    ours, theirs = pair(config)
    ours = GPT2LMHeadModel(GPT2Config(**config), seed=None)
    ours.load_state_dict(random_state_dict(config, 0))
    expected = call(theirs.float(), to_torch({"input_ids": ids})).logits.numpy()
    # float32 rounds by 6e-8; sums of up to 100 terms, three layers deep.
    assert_close(ours(ids).logits, expected, 1e-5, "logits")


@few
@given(st.data())
def test_choices_are_folded_into_the_batch_as_in_transformers(data):
    config = data.draw(configurations())
    shape = data.draw(st.tuples(*[st.integers(1, 3)] * 2, st.integers(1, 8)))
    V = config["vocab_size"]
    arguments = {"input_ids": random_ids(shape, V, 1)}
    if data.draw(st.booleans()):
        arguments["token_type_ids"] = random_ids(shape, V, 2)
    if data.draw(st.booleans()):
        arguments["attention_mask"] = np.ones(shape, np.int64)
    ours, theirs = pair(config)
    asked = {"use_cache": True, "output_hidden_states": True, "output_attentions": True}
    actual = ours(**arguments, **asked)
    assert actual.logits.shape == (*shape, V)
    assert_same(actual, call(theirs, to_torch(arguments), **asked))


@few
@given(st.data())
def test_a_sequence_in_two_passes_equals_transformers_in_one(data):
    config = data.draw(configurations())
    B, T = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 12))
    first = data.draw(st.integers(1, T - 1))
    ids = random_ids((B, T), config["vocab_size"], data.draw(st.integers(0, 99)))
    ours, theirs = pair(config)
    past = ours(ids[:, :first], use_cache=True).past_key_values
    actual = ours(ids[:, first:], past=past, use_cache=True)
    expected = call(theirs, to_torch({"input_ids": ids}), use_cache=True)
    assert_close(actual.logits, expected.logits[:, first:].numpy(), TOLERANCE, "logits")
    assert_close(by_name(actual)["keys"], by_name(expected)["keys"], TOLERANCE, "keys")


@few
@given(st.data())
def test_logits_to_keep_equals_transformers(data):
    config = data.draw(configurations())
    T = data.draw(st.integers(1, 12))
    ids = random_ids((2, T), config["vocab_size"], 5)
    keep = data.draw(st.integers(0, T))
    ours, theirs = pair(config)
    actual = ours(ids, logits_to_keep=keep).logits
    expected = call(theirs, to_torch({"input_ids": ids}), logits_to_keep=keep).logits
    assert_close(actual, expected.numpy(), TOLERANCE, "logits")


def generate_both(config, seed, arguments):
    """The sequences of both sides; greedy, padded with eos unless told otherwise."""
    ours, theirs = pair(config, seed)
    arguments = {"pad_token_id": config["eos_token_id"], **arguments}
    actual = ours.generate(**arguments, do_sample=False)
    tensors = to_torch(arguments)
    if "attention_mask" not in tensors:
        tensors["attention_mask"] = torch.ones_like(tensors["input_ids"])
    with torch.no_grad():
        expected = theirs.generate(**tensors, do_sample=False).numpy()
    return actual, expected


@few
@given(st.data())
def test_greedy_generation_equals_transformers(data):
    config = data.draw(configurations())
    B, T = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    seed = data.draw(st.integers(0, 99))
    arguments = {"input_ids": random_ids((B, T), config["vocab_size"], seed)}
    room = config["n_positions"] - T
    if data.draw(st.booleans()):
        arguments["max_new_tokens"] = data.draw(st.integers(1, room))
    else:
        arguments["max_length"] = T + data.draw(st.integers(1, room))
    if data.draw(st.booleans()):
        arguments["repetition_penalty"] = data.draw(st.sampled_from([1.2, 2.0, 0.8]))
    if data.draw(st.booleans()):  # another id than eos pads rows that have ended
        arguments["pad_token_id"] = 0
        mask = np.ones((B, T), np.int64)
        arguments["attention_mask"] = mask
    actual, expected = generate_both(config, seed, arguments)
    np.testing.assert_array_equal(actual, expected)


@few
@given(st.data())
def test_left_padded_rows_generate_what_transformers_generates(data):
    config = data.draw(configurations())
    pad = config["eos_token_id"]
    assume(config["vocab_size"] > 2)
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    T, B = max(lengths), len(lengths)
    seed = data.draw(st.integers(0, 99))
    mask = np.array([[0] * (T - n) + [1] * n for n in lengths])
    ids = np.where(mask == 1, random_ids((B, T), pad, seed), pad)
    arguments = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 6}
    actual, expected = generate_both(config, seed, arguments)
    np.testing.assert_array_equal(actual, expected)


@few
@given(st.data())
def test_a_left_padded_row_is_penalised_as_the_row_alone_in_transformers(data):
    # transformers 4.x counts the padding in the penalty, so each row goes alone there.
    config = data.draw(configurations())
    pad = config["eos_token_id"]
    assume(config["vocab_size"] > 2)
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=3))
    T, seed = max(lengths), data.draw(st.integers(0, 99))
    mask = np.array([[0] * (T - n) + [1] * n for n in lengths])
    ids = np.where(mask == 1, random_ids(mask.shape, pad, seed), pad)
    more = {"max_new_tokens": 6, "repetition_penalty": 1.5, "pad_token_id": pad}
    ours, theirs = pair(config, seed)
    batch = ours.generate(ids, attention_mask=mask, do_sample=False, **more)
    for row, n in enumerate(lengths):
        alone = torch.tensor(ids[row : row + 1, T - n :])
        with torch.no_grad():
            expected = theirs.generate(
                alone, attention_mask=torch.ones_like(alone), do_sample=False, **more
            )[0].numpy()
        new = batch[row, T:]
        np.testing.assert_array_equal(new[: len(expected) - n], expected[n:])
        assert (new[len(expected) - n :] == pad).all()


@few
@given(st.data())
def test_masks_of_four_axes_take_the_place_of_the_causal_rule(data):
    fields = {
        "vocab_size": 20,
        "n_positions": 12,
        "n_embd": 12,
        "n_layer": 2,
        "n_head": 3,
    }
    batch, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    past = data.draw(st.integers(0, length - 1))
    heads, seed = data.draw(st.sampled_from([1, 3])), data.draw(st.integers(0, 1000))
    visible = random_ids((batch, heads, length, length), 2, seed).astype(bool)
    visible[..., 0] = True  # each query sees something
    visible[:, :, :past, past:] = False  # what is read first sees nothing of the rest
    state = random_state_dict(fields, seed)
    model = GPT2LMHeadModel(GPT2Config(**fields), dtype=np.float64)
    model.load_tensors(state)
    config = transformers.GPT2Config(**fields, attn_implementation="eager")
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    tensors = {n: torch.from_numpy(a) for n, a in state.items()}
    theirs.load_state_dict(tensors, strict=False)
    theirs.tie_weights()
    ids = random_ids((batch, length), 20, seed)
    added = np.where(visible, random_values(visible.shape, seed), -np.inf)
    lowest = torch.finfo(torch.float64).min
    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(ids),
            attention_mask=torch.from_numpy(added).clamp(min=lowest),
        ).logits.numpy()
    logits = model(ids, attention_mask=added).logits
    assert_close(logits, expected, TOLERANCE, "logits")
    boolean = model(ids, attention_mask=visible).logits
    zeros = np.where(visible, 0.0, -np.inf)
    np.testing.assert_array_equal(boolean, model(ids, attention_mask=zeros).logits)
    cache = None
    if past:
        first = model(ids[:, :past], attention_mask=added[:, :, :past, :past])
        cache = first.past_key_values
    rest = model(ids[:, past:], past=cache, attention_mask=added[:, :, past:])
    assert_close(rest.logits, expected[:, past:], TOLERANCE, "after a past")
