"""trace against transformers' hooks, and what tracing must not change."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import base_state_dict, random_ids, random_state_dict

from minigpt2 import (
    GPT2Config,
    GPT2DoubleHeadsModel,
    GPT2LMHeadModel,
    GPT2Model,
    ops,
    trace,
)
from minigpt2.testing import TINY_MODELS, tiny_inputs, tiny_model
from minigpt2.tracing.steps import steps_of

TINY = {"vocab_size": 31, "n_positions": 16, "n_embd": 12, "n_layer": 2, "n_head": 3}
BACKENDS = ("numpy", "numba")


def tiny(dtype=np.float64, backend="numpy", cls=GPT2LMHeadModel, **fields):
    config = {**TINY, **fields}
    model = cls(GPT2Config(**config), dtype=dtype, backend=backend)
    state = random_state_dict(config, 5)
    if cls is GPT2Model:
        state = base_state_dict(state)
    model.load_tensors(state)
    return model


def hooked(theirs, n_layer, **inputs):
    """{our name: array} of an eager model of transformers, by hooks on its modules."""
    torch = pytest.importorskip("torch")
    arrays, handles = {}, []

    def output_of(name):
        def hook(module, arguments, output):
            output = output[0] if isinstance(output, tuple) else output
            arrays.setdefault(name, output.detach().numpy())

        return hook

    def input_of(name):
        def hook(module, arguments):
            arrays[name] = arguments[0].detach().numpy()

        return hook

    base = theirs.transformer
    modules = {"wte": base.wte, "wpe": base.wpe, "drop": base.drop, "ln_f": base.ln_f}
    for i, block in enumerate(base.h):
        modules |= {
            f"h.{i}": block,
            f"h.{i}.ln_1": block.ln_1,
            f"h.{i}.attn.c_attn": block.attn.c_attn,
            f"h.{i}.attn.c_proj": block.attn.c_proj,
            f"h.{i}.ln_2": block.ln_2,
            f"h.{i}.mlp.c_fc": block.mlp.c_fc,
            f"h.{i}.mlp.act": block.mlp.act,
            f"h.{i}.mlp.c_proj": block.mlp.c_proj,
        }
        handles += [
            block.ln_2.register_forward_pre_hook(input_of(f"h.{i}.resid_mid")),
            block.attn.c_proj.register_forward_pre_hook(input_of(f"h.{i}.attn.z")),
        ]
    handles += [m.register_forward_hook(output_of(n)) for n, m in modules.items()]
    handles.append(theirs.lm_head.register_forward_hook(output_of("lm_head")))
    with torch.no_grad():
        output = theirs(
            **{name: torch.as_tensor(value) for name, value in inputs.items()},
            output_attentions=True,
        )
    for handle in handles:
        handle.remove()
    for i in range(n_layer):
        heads = theirs.config.n_head
        z = arrays[f"h.{i}.attn.z"]  # [B, T, C]
        batch, new, width = z.shape
        arrays[f"h.{i}.attn.z"] = z.reshape(batch, new, heads, -1).swapaxes(1, 2)
        q, k, v = ops.split_heads(arrays[f"h.{i}.attn.c_attn"], heads)
        arrays |= {f"h.{i}.attn.q": q, f"h.{i}.attn.k": k, f"h.{i}.attn.v": v}
        arrays[f"h.{i}.attn.weights"] = output.attentions[i].numpy()
    if (
        "labels" in inputs
    ):  # (theirs is computed in float32, whatever the model's dtype)
        logits = output.logits[:, :-1].flatten(0, 1)
        labels = torch.as_tensor(inputs["labels"])[:, 1:].flatten()
        arrays["loss"] = torch.nn.functional.cross_entropy(logits, labels).numpy()
    return arrays


def twin(model):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    fields = model.config.to_dict()
    kept = (
        "vocab_size n_positions n_embd n_layer n_head n_inner activation_function "
        "layer_norm_epsilon scale_attn_weights scale_attn_by_inverse_layer_idx "
        "reorder_and_upcast_attn tie_word_embeddings"
    ).split()
    config = transformers.GPT2Config(
        **{name: fields[name] for name in kept},
        attn_implementation="eager",
        bos_token_id=None,
        eos_token_id=None,
    )
    theirs = transformers.GPT2LMHeadModel(config).eval()
    if model.dtype == np.float64:
        theirs = theirs.double()
    state = {n: torch.from_numpy(a.copy()) for n, a in model.state_dict().items()}
    theirs.load_state_dict(state, strict=False)
    theirs.tie_weights()
    return theirs


def compare(model, tolerance, peer, **inputs):
    """Every name that hooks can see, and scores by what transformers' code says of them."""
    t = trace(model, **inputs)
    assert t.difference() <= tolerance
    theirs = hooked(peer, model.config.n_layer, **inputs)
    assert set(theirs) >= {
        step.name.removeprefix("transformer.")
        for step in steps_of(model.config.n_layer, True)
        if step.name.removeprefix("transformer.") in t.names
        and not step.name.endswith(("scores", "masked", "types", "choice_head"))
    }
    padding = np.asarray(inputs.get("attention_mask", 1)) == 0

    def real(array):  # at the positions that are no padding
        if array.ndim < 3 or not padding.any():
            return array
        return np.moveaxis(array, -2, 1)[~padding]

    def visible(scores):  # and of keys that are no padding
        return (
            np.where(padding[:, None, None, :], 0, scores) if padding.ndim else scores
        )

    for name, expected in theirs.items():
        close(real(t[name]), real(expected), tolerance, name)
    config = model.config
    scale = 1.0
    if config.scale_attn_weights:
        scale = 1 / np.sqrt(config.n_embd // config.n_head)
    for i in range(model.config.n_layer):
        q, k = theirs[f"h.{i}.attn.q"], theirs[f"h.{i}.attn.k"]
        expected = q @ k.swapaxes(-1, -2) * scale
        if config.scale_attn_by_inverse_layer_idx:
            expected /= i + 1
        name = f"h.{i}.attn.scores"
        close(real(visible(t[name])), real(visible(expected)), tolerance, name)
        hidden = t[f"h.{i}.attn.weights"] == 0
        assert (np.isneginf(t[f"h.{i}.attn.masked"]) <= hidden).all()
        future = ~np.tri(*hidden.shape[-2:], dtype=bool)
        assert np.isneginf(t[f"h.{i}.attn.masked"][..., future]).all()


def close(actual, expected, tolerance, name):
    assert actual.shape == expected.shape, name
    worst = np.abs(actual - expected).max()
    assert worst <= tolerance * np.abs(expected).max(), (name, worst)


@pytest.mark.peers
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)]
)
def test_every_name_is_what_transformers_hooks_see(
    dtype, tolerance, backend, shakespeare
):
    ids = random_ids((2, 7), 31, 1)
    model = tiny(np.dtype(dtype), backend)
    compare(model, tolerance, twin(model), input_ids=ids, labels=ids)
    model = GPT2LMHeadModel.from_pretrained(
        shakespeare.folder, dtype=np.dtype(dtype), backend=backend
    )
    ids = random_ids((1, 24), 2048, 2)
    compare(model, tolerance, twin(model), input_ids=ids, labels=ids)


@pytest.mark.peers
@pytest.mark.parametrize("name", TINY_MODELS)
def test_every_name_of_every_tiny_model_is_what_hooks_see(name):
    """Whatever the configuration, and with padding; "upcast" computes scores in float32."""
    dtype = np.float32 if name == "upcast" else np.float64
    model = tiny_model(name, dtype=dtype)
    tolerance = 1e-5 if name == "upcast" else 1e-12
    compare(model, tolerance, twin(model), **tiny_inputs(name).arguments())


@pytest.mark.peers
@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_types_and_embeddings_are_what_hooks_see(backend):
    model = tiny(np.float64, backend)
    peer = twin(model)
    ids = random_ids((2, 7), 31, 1)
    mask = np.ones((2, 7), int)
    mask[1, :3] = 0
    common = {
        "attention_mask": mask,
        "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0),
    }
    compare(model, 1e-12, peer, input_ids=ids, **common, token_type_ids=ids % 2)
    embeds = np.random.default_rng(1).normal(size=(2, 7, 12))
    compare(model, 1e-12, peer, inputs_embeds=embeds, **common)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)]
)
def test_every_name_of_a_random_124m_is_what_hooks_see(dtype, tolerance):
    """(Its parameters are transformers' initial ones, whose biases are drawn too.)"""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.GPT2Config(attn_implementation="eager")
    theirs = transformers.GPT2LMHeadModel(config).eval().to(getattr(torch, dtype))
    for name, parameter in theirs.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.02)
    model = GPT2LMHeadModel(GPT2Config(), dtype=np.dtype(dtype), seed=None)
    state = {name: array.numpy() for name, array in theirs.state_dict().items()}
    model.load_tensors(state)
    assert model.num_parameters() == 124_439_808
    ids = random_ids((1, 5), 50257, 3)
    compare(model, tolerance, theirs, input_ids=ids, labels=ids)


def test_the_names_are_those_of_the_table_in_order():
    model = tiny()
    ids = random_ids((2, 5), 31, 1)
    t = trace(model, ids, labels=ids, token_type_ids=ids)
    table = [step.name for step in steps_of(2, True)]
    assert t.names == [
        name for name in table if "choice" not in name and "mc" not in name
    ]
    base = tiny(cls=GPT2Model)
    t = trace(base, ids, token_type_ids=ids)
    assert t.names == [step.name for step in steps_of(2, False)]
    double = GPT2DoubleHeadsModel(GPT2Config(**TINY), dtype=np.float64)
    t = trace(double, ids[None], mc_labels=[0], labels=ids[None])
    assert t.names[-4:] == ["lm_head", "multiple_choice_head", "loss", "mc_loss"]
    assert set(t.names) <= {step.name for step in steps_of(2, True)}


def test_the_table_says_the_shapes_and_inputs_of_what_is_traced():
    model = tiny()
    ids = random_ids((2, 5), 31, 1)
    t = trace(model, ids, labels=ids)
    letters = {"B": 2, "T": 5, "S": 5, "C": 12, "3C": 36, "4C": 48, "H": 3, "D": 4}
    before = {"input_ids", "position_ids", "token_type_ids", "labels", "mc_labels"}
    for step in steps_of(2, True):
        assert set(step.inputs) <= before, step.name
        before.add(step.name)
        if step.name in t:
            shape = tuple({**letters, "V": 31}[axis] for axis in step.shape.split())
            if step.name.endswith("wpe"):  # positions are alike in all rows
                shape = 1, *shape[1:]
            assert t[step.name].shape == shape, step.name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tracing_changes_the_output_by_rounding_at_most(dtype, backend):
    model = tiny(np.dtype(dtype), backend)
    ids = random_ids((2, 9), 31, 1)
    plain = model(ids).logits
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    t = trace(model, ids)
    close(t.output.logits, plain, tolerance, "logits")
    worst = np.abs(t.output.logits - plain).max() / np.abs(plain).max()
    assert t.difference() == pytest.approx(float(worst), abs=0)
    np.testing.assert_array_equal(model(ids).logits, plain)  # nothing stays


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_an_edit_that_changes_nothing_keeps_every_bit(backend, data):
    model = tiny(np.float32, backend)
    ids = random_ids((2, 6), 31, data.draw(st.integers(0, 100)))
    t = trace(model, ids)
    names = data.draw(st.lists(st.sampled_from(t.names), min_size=1, unique=True))
    same = trace(model, ids, edit={name: lambda array: array for name in names})
    again = trace(model, ids, edit={name: t[name] for name in names})
    for name in t:
        np.testing.assert_array_equal(same[name], t[name])
        np.testing.assert_array_equal(again[name], t[name])


@pytest.mark.parametrize("backend", BACKENDS)
def test_z_of_a_head_set_to_zero_is_a_head_mask(backend):
    model = tiny(np.float64, backend)
    ids = random_ids((2, 6), 31, 1)

    def without_head_1(z):
        z[:, 1] = 0.0
        return z

    edited = trace(model, ids, edit={"h.1.attn.z": without_head_1}, names="lm_head")
    mask = np.ones((2, 3))
    mask[1, 1] = 0.0
    close(edited["lm_head"], model(ids, head_mask=mask).logits, 1e-13, "logits")


def test_a_step_after_a_past_gives_what_the_whole_pass_gives_there():
    model = tiny()
    ids = random_ids((2, 9), 31, 1)
    mask = np.ones((2, 9), int)
    mask[1, :3] = 0
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    whole = trace(model, ids, attention_mask=mask, position_ids=positions)
    past = model(ids[:, :6], attention_mask=mask[:, :6], position_ids=positions[:, :6])
    step = trace(
        model,
        ids[:, 6:],
        past=past.past_key_values,
        attention_mask=mask,
        position_ids=positions[:, 6:],
    )
    for name, array in step.items():
        axis = 2 if array.ndim == 4 else 1  # of the positions
        expected = np.take(whole[name], range(6, 9), axis=axis)
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(finite, np.isfinite(array))
        close(array[finite], expected[finite], 1e-12, name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weights", ["bfloat16", "int8", "int4"])
def test_quantized_models_are_traced_with_the_weights_as_rounded(weights, backend):
    """Every linear step is what quantization's formula of it gives, in NumPy.

    (bfloat16 is a product with the rounded matrix; int8 and int4 round what is multiplied
    with it as well.)
    """
    size = {"n_embd": 32, "n_head": 4}
    model = tiny(np.float32, backend, **size).with_weights(weights)
    full = tiny(np.float64, **size)
    ids = random_ids((1, 6), 31, 1)
    t = trace(model, ids)
    assert t.difference() < 1e-5
    assert np.abs(t["lm_head"] - full(ids).logits).max() > 1e-3  # it is rounded
    sources = {
        "transformer.h.1.attn.c_attn": "h.1.ln_1",
        "transformer.h.1.mlp.c_fc": "h.1.ln_2",
        "transformer.h.1.mlp.c_proj": "h.1.mlp.act",
        "lm_head": "ln_f",
    }
    modules = {path: module for path, module in model.named_modules()}
    for name, source in sources.items():
        module = modules[f"{name}."]
        rows = t[source][0]
        expected = rows @ module.packed
        if weights == "bfloat16":
            exact = rows.astype(np.float64) @ np.asarray(module.packed).T
            close(expected, exact, 1e-6, name)
        if module.bias is not None:
            expected = expected + module.bias
        close(t[name][0], expected, 1e-5, name)


def test_threads_trace_one_model_at_once():
    model = tiny()
    prompts = [random_ids((1, 5), 31, seed) for seed in range(8)]
    expected = [trace(model, ids)["h.1"] for ids in prompts]
    found = [None] * 8

    def run(i):
        found[i] = trace(model, prompts[i])["h.1"]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)


def test_only_the_names_that_are_asked_for_are_kept():
    model = tiny()
    ids = [[1, 2, 3]]
    assert trace(model, ids, names="h.*.attn.weights").names == [
        "transformer.h.0.attn.weights",
        "transformer.h.1.attn.weights",
    ]
    assert trace(model, ids, names=["lm_head", "h.0.ln_?"]).names == [
        "transformer.h.0.ln_1",
        "transformer.h.0.ln_2",
        "lm_head",
    ]
    t = trace(model, ids, names=[])
    assert t.names == []
    assert t.output.logits.shape == (1, 3, 31)


def test_mistakes_are_said_with_what_is_near():
    model = tiny()
    with pytest.raises(
        ValueError, match=r"no step 'h\.0\.attn\.score'; near are .*scores"
    ):
        trace(model, [[1]], names="h.0.attn.score")
    with pytest.raises(ValueError, match=r"no step 'h\.2\.ln_1'"):
        trace(model, [[1]], edit={"h.2.ln_1": 0})
    with pytest.raises(
        ValueError, match=r"ln_f has shape \(3,\); the step gives \(1, 1"
    ):
        trace(model, [[1]], edit={"ln_f": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="this pass has no step loss to edit"):
        trace(model, [[1]], edit={"loss": 0.0})
    with pytest.raises(KeyError, match="no step 'h.0.lnn_1'"):
        trace(model, [[1]])["h.0.lnn_1"]
