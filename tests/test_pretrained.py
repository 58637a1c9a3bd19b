"""Parameters by name: set whole or not at all, from whatever file, tied where tied."""

import os

import ml_dtypes
import numpy as np
import pytest
from model_cases import base_state_dict, random_ids, random_state_dict

from minigpt2 import (
    CheckpointError,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    load_tf_weights_in_gpt2,
)
from minigpt2.checkpoints.names import openai_name
from minigpt2.checkpoints.safetensors_file import SafetensorsFile, save_safetensors
from minigpt2.checkpoints.tf_bundle import TFBundle
from minigpt2.checkpoints.tf_bundle_writer import save_tf_bundle

TINY = {"vocab_size": 31, "n_positions": 16, "n_embd": 12, "n_layer": 3, "n_head": 3}
UNTIED = {**TINY, "tie_word_embeddings": False}
IDS = random_ids((2, 7), 31, 5)
C_ATTN = "transformer.h.1.attn.c_attn.weight"


@pytest.fixture
def weights():
    """float32 weights of a tiny model with a head, under their names there."""
    return {n: a.astype(np.float32) for n, a in random_state_dict(TINY, 3).items()}


@pytest.fixture
def lm(weights):
    model = GPT2LMHeadModel(GPT2Config(**TINY), seed=None)
    model.load_state_dict(weights)
    return model


def openai_variables(weights):
    """The same weights as OpenAI's checkpoints have them: [1, in, out] and their names."""
    variables = {}
    for name, array in base_state_dict(weights).items():
        linear = array.ndim == 2 and not name.startswith(("wte", "wpe"))
        variables[openai_name(name)] = array[None] if linear else array
    return variables


def same_parameters(model, weights):
    """All parameters of the model are the weights; tied ones follow theirs."""
    state = model.state_dict()
    assert set(weights) <= set(state)
    assert set(state) - set(weights) <= {"lm_head.weight"}
    for name, array in weights.items():
        np.testing.assert_array_equal(state[name], array, err_msg=name)


# --- state_dict and load_state_dict ---


def test_a_state_dict_has_every_parameter_under_hugging_faces_name(lm, weights):
    state = lm.state_dict()
    assert set(state) == {*weights, "lm_head.weight"}
    same_parameters(lm, weights)
    np.testing.assert_array_equal(
        state["lm_head.weight"], state["transformer.wte.weight"]
    )
    assert lm.num_parameters() == sum(array.size for array in weights.values())
    with pytest.raises(ValueError, match="read-only"):
        state["transformer.wte.weight"][0] = 0


def test_the_state_of_one_model_makes_another_compute_the_same(lm):
    twin = GPT2LMHeadModel(lm.config, seed=9)
    assert twin.load_state_dict(lm.state_dict()) == ([], [])
    np.testing.assert_array_equal(twin(IDS).logits, lm(IDS).logits)


def test_weights_that_someone_can_write_to_are_copied(lm, weights):
    before = lm(IDS).logits
    for array in weights.values():
        array[...] = 0
    np.testing.assert_array_equal(lm(IDS).logits, before)
    twin = GPT2LMHeadModel(lm.config, seed=None)
    twin.load_state_dict(lm.state_dict())  # read-only views of writable arrays
    lm.transformer.wpe.weight[...] = 0
    np.testing.assert_array_equal(twin(IDS).logits, before)


def test_missing_unexpected_and_misshapen_weights_are_named_and_none_is_set(
    lm, weights
):
    before = lm.state_dict()
    weights["transformer.wte.weight"] += 1
    for change, message in (
        ({C_ATTN: None}, f"{C_ATTN} is missing"),
        ({"score.weight": np.zeros(2)}, "score.weight is not a parameter here"),
        ({C_ATTN: np.zeros((12, 35))}, rf"{C_ATTN} has shape \(12, 35\), not \(12, 36"),
        ({C_ATTN: np.zeros((12, 36), complex)}, f"{C_ATTN} has dtype complex128"),
        ({C_ATTN: np.full((12, 36), "a")}, f"{C_ATTN} has dtype <U1"),
        (
            {"lm_head.weight": np.zeros((31, 12))},
            "lm_head.weight differs from transformer.wte.weight",
        ),
        (dict.fromkeys(weights), r"is missing; and \d+ more"),
    ):
        changed = {**weights, **change}
        changed = {name: array for name, array in changed.items() if array is not None}
        with pytest.raises(ValueError, match=message):
            lm.load_state_dict(changed)
        for name, array in lm.state_dict().items():
            np.testing.assert_array_equal(array, before[name])


def test_without_strict_the_names_that_do_not_fit_are_returned(lm, weights):
    weights["score.weight"] = np.zeros(2)
    del weights[C_ATTN]
    kept = np.array(lm.state_dict()[C_ATTN])
    weights["transformer.wte.weight"] *= 2
    assert lm.load_state_dict(weights, strict=False) == ([C_ATTN], ["score.weight"])
    np.testing.assert_array_equal(lm.state_dict()[C_ATTN], kept)
    np.testing.assert_array_equal(
        lm.state_dict()["lm_head.weight"], weights["transformer.wte.weight"]
    )
    with pytest.raises(ValueError, match="has shape"):
        lm.load_state_dict({C_ATTN: np.zeros(3)}, strict=False)


def test_the_mask_buffers_of_old_versions_are_passed_over(lm, weights):
    for layer in range(3):
        prefix = f"transformer.h.{layer}.attn."
        weights[prefix + "bias"] = np.tri(16, dtype=np.float32)[None, None]
        weights[prefix + "masked_bias"] = np.float32(-1e4)
    assert lm.load_state_dict(weights) == ([], [])
    assert lm.load_tensors(weights)["unexpected_keys"] == []


def test_a_head_is_tied_unless_the_configuration_unties_it(weights):
    ties = {"lm_head.weight": weights["transformer.wte.weight"]}
    tied = GPT2LMHeadModel(GPT2Config(**TINY), seed=None)
    tied.load_state_dict(weights | ties)
    own_head = random_state_dict(UNTIED, 4)["lm_head.weight"].astype(np.float32)
    untied = GPT2LMHeadModel(GPT2Config(**UNTIED), seed=None)
    with pytest.raises(ValueError, match="lm_head.weight is missing"):
        untied.load_state_dict(weights)
    untied.load_state_dict(weights | {"lm_head.weight": own_head})
    same_parameters(untied, weights | {"lm_head.weight": own_head})
    assert untied.num_parameters() == tied.num_parameters() + 31 * 12
    hidden = tied.transformer(IDS).last_hidden_state
    # float32 sums of 12 terms in whatever order
    np.testing.assert_allclose(
        tied(IDS).logits, hidden @ weights["transformer.wte.weight"].T, atol=1e-5
    )
    np.testing.assert_allclose(untied(IDS).logits, hidden @ own_head.T, atol=1e-5)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64", ">f4"])
def test_other_dtypes_become_the_models_exactly(weights, kind):
    dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else np.dtype(kind)
    stored = {name: array.astype(dtype) for name, array in weights.items()}
    for own in ("float32", "float64"):
        model = GPT2LMHeadModel(GPT2Config(**TINY), dtype=own, seed=None)
        model.load_state_dict(stored)
        assert {a.dtype for a in model.state_dict().values()} == {np.dtype(own)}
        assert all(a.dtype.isnative for a in model.state_dict().values())
        same_parameters(model, {n: a.astype(own) for n, a in stored.items()})


def test_only_float32_and_float64_are_dtypes_of_a_model():
    config = GPT2Config(**TINY)
    for dtype in ("float64", np.float64, np.dtype("float64")):
        assert GPT2Model(config, dtype=dtype, seed=None).dtype == np.float64
    for dtype in (None, "auto", np.float16, int):
        with pytest.raises(ValueError, match="dtype must be float32 or float64, not"):
            GPT2Model(config, dtype=dtype)


# --- TensorFlow's checkpoints ---


@pytest.mark.parametrize("cls", [GPT2Model, GPT2LMHeadModel])
def test_openais_variables_load_into_every_class(tmp_path, weights, cls):
    save_tf_bundle(tmp_path / "model.ckpt", openai_variables(weights))
    expected = base_state_dict(weights) if cls is GPT2Model else weights
    for path in (
        tmp_path,
        tmp_path / "model.ckpt",
        tmp_path / "model.ckpt.index",
        str(tmp_path / "checkpoint"),
    ):
        model = cls(GPT2Config(**TINY), seed=None)
        assert load_tf_weights_in_gpt2(model, path) is model
        same_parameters(model, expected)


def test_what_tensorflow_saves_besides_weights_is_passed_over(tmp_path, weights):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    variables = openai_variables(weights)
    extra = {
        "model/wte/Adam": np.ones((31, 12), np.float32),
        "model/h0/attn/c_attn/w/Adam_1": np.ones((1, 12, 36), np.float32),
        "beta1_power": np.float32(0.9),
        "global_step": np.int64(7),
        "_step": np.int64(7),
    }
    tf.raw_ops.SaveV2(  # what tf.compat.v1.train.Saver runs
        prefix=str(tmp_path / "saver.ckpt"),
        tensor_names=list(variables | extra),
        shape_and_slices=[""] * len(variables | extra),
        tensors=list((variables | extra).values()),
    )
    model = GPT2LMHeadModel(GPT2Config(**TINY), seed=None)
    passed_over = model.load_tensors(TFBundle(tmp_path / "saver.ckpt"))[
        "unexpected_keys"
    ]
    assert set(passed_over) == set(extra)
    same_parameters(model, weights)

    # tf.train.Checkpoint: names of attributes, a graph of objects, a save counter
    root = tf.train.Checkpoint()
    for name, array in variables.items():
        *path, last = name.split("/")
        node = root
        for step in path:
            if not hasattr(node, step):
                setattr(node, step, tf.train.Checkpoint())
            node = getattr(node, step)
        setattr(node, last, tf.Variable(array))
    path = root.save(str(tmp_path / "objects.ckpt"))
    model = GPT2LMHeadModel(GPT2Config(**TINY), seed=None)
    load_tf_weights_in_gpt2(model, path)
    same_parameters(model, weights)


def test_a_checkpoint_that_does_not_fit_is_refused_and_nothing_is_set(
    tmp_path, lm, weights
):
    before = lm.state_dict()
    variables = openai_variables(weights)
    name = "model/h1/attn/c_attn/w"
    for number, (change, message) in enumerate(
        (
            ({name: None}, f"{C_ATTN} is missing"),
            ({name: np.zeros((1, 12, 35))}, rf"{C_ATTN} has shape \(12, 35\)"),
            ({name: np.zeros((2, 12, 36))}, rf"{C_ATTN} has shape \(2, 12, 36\)"),
            (
                {"model/h3/ln_1/g": np.zeros(12)},
                "model/h3/ln_1/g is a parameter of a GPT-2 with more layers .* one's 3",
            ),
            (
                {"transformer.wte.weight": np.zeros((31, 12))},
                "transformer.wte.weight is there twice",
            ),
        )
    ):
        changed = {n: a for n, a in (variables | change).items() if a is not None}
        prefix = tmp_path / f"model-{number}"
        save_tf_bundle(prefix, changed)
        with pytest.raises(CheckpointError, match=f"model-{number}: .*{message}"):
            load_tf_weights_in_gpt2(lm, prefix)
        for parameter, array in lm.state_dict().items():
            np.testing.assert_array_equal(array, before[parameter])


def test_axes_of_size_one_stay_where_they_are_real(tmp_path):
    """TensorFlow's [1, in, out] loses its first axis, and no other."""
    thin = {"vocab_size": 1, "n_positions": 1, "n_embd": 1, "n_layer": 1, "n_head": 1}
    weights = random_state_dict(thin, 1)
    save_tf_bundle(tmp_path / "model.ckpt", openai_variables(weights))
    model = GPT2LMHeadModel(GPT2Config(**thin, n_inner=1), dtype="float64", seed=None)
    with pytest.raises(CheckpointError, match=r"mlp.c_fc.weight has shape \(1, 4\)"):
        load_tf_weights_in_gpt2(model, tmp_path)
    model = GPT2LMHeadModel(GPT2Config(**thin), dtype="float64", seed=None)
    same_parameters(load_tf_weights_in_gpt2(model, tmp_path), weights)
    assert model([[0]]).logits.shape == (1, 1, 1)


# --- Hugging Face's folders ---


def folder_of(path, weights, config=TINY, **kwargs):
    GPT2Config(**config).save_pretrained(path)
    save_safetensors(path / "model.safetensors", weights, {"format": "pt"}, **kwargs)
    return path


def test_base_weights_load_into_a_model_with_a_head_and_back(tmp_path, weights):
    base = folder_of(tmp_path / "base", base_state_dict(weights))
    head = folder_of(tmp_path / "head", weights)
    for folder in (base, head):
        same_parameters(GPT2LMHeadModel.from_pretrained(folder), weights)
        same_parameters(GPT2Model.from_pretrained(folder), base_state_dict(weights))


def test_very_old_files_call_a_norms_parameters_gamma_and_beta(tmp_path, weights):
    old = {
        name.replace("ln_1.weight", "ln_1.gamma").replace("ln_f.bias", "ln_f.beta"): a
        for name, a in weights.items()
    }
    assert set(old) - set(weights)
    same_parameters(GPT2LMHeadModel.from_pretrained(folder_of(tmp_path, old)), weights)


def test_the_hubs_own_gpt2_file_has_buffers_and_no_prefix(tmp_path, weights):
    hub = base_state_dict(weights)
    for layer in range(3):
        hub[f"h.{layer}.attn.bias"] = np.tri(16, dtype=np.float32)[None, None]
    same_parameters(GPT2LMHeadModel.from_pretrained(folder_of(tmp_path, hub)), weights)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_files_are_widened_exactly(tmp_path, weights, kind):
    dtype = getattr(ml_dtypes, kind, None) or np.dtype(kind)
    folder = folder_of(tmp_path, weights, dtype=kind)
    stored = {name: array.astype(dtype) for name, array in weights.items()}
    for own in (np.float32, np.float64):
        model = GPT2LMHeadModel.from_pretrained(folder, dtype=own)
        same_parameters(model, {n: a.astype(own) for n, a in stored.items()})


def test_float32_weights_stay_in_the_mapped_file(tmp_path, weights):
    folder = folder_of(tmp_path, weights)
    model = GPT2LMHeadModel.from_pretrained(folder, backend="numpy")
    for name, (module, attribute) in model.parameter_slots().items():
        array = getattr(module, attribute)
        base = array
        while isinstance(base, np.ndarray):
            assert not base.flags.writeable, name
            base = base.base
        assert isinstance(base, memoryview), name  # of the mmap
    wide = GPT2LMHeadModel.from_pretrained(folder, dtype=np.float64)
    assert wide.transformer.wte.weight.flags.owndata


def test_keywords_override_the_configuration_and_config_replaces_it(tmp_path, weights):
    folder = folder_of(tmp_path, weights)
    model = GPT2LMHeadModel.from_pretrained(
        folder, output_attentions=True, use_cache=False, dtype="float64"
    )
    assert model.dtype == np.float64
    out = model(IDS)
    assert len(out.attentions) == 3
    assert out.past_key_values is None
    config = GPT2Config(**TINY, activation_function="relu")
    assert GPT2LMHeadModel.from_pretrained(folder, config=config).config is config
    with pytest.raises(CheckpointError, match="more layers than this one's 2"):
        GPT2LMHeadModel.from_pretrained(folder, n_layer=2)
    with pytest.raises(
        CheckpointError, match=r"safetensors: .*h.3.ln_1.weight is miss"
    ):
        GPT2LMHeadModel.from_pretrained(folder, n_layer=4)


def test_the_backend_is_the_one_asked_for(tmp_path, weights):
    folder = folder_of(tmp_path, weights)
    logits = {}
    for backend in ("numpy", "numba"):
        model = GPT2LMHeadModel.from_pretrained(folder, backend=backend)
        assert f"backend={backend}" in repr(model)
        same_parameters(model, weights)
        logits[backend] = model(IDS).logits
    # float32 sums in another order: 1e-5 of the largest
    peak = np.abs(logits["numpy"]).max()
    np.testing.assert_allclose(*logits.values(), rtol=0, atol=1e-5 * peak)


def test_a_models_files_can_be_read_while_it_is_used(tmp_path, weights):
    """The file may be replaced (as save_pretrained does) under a model that maps it."""
    folder = folder_of(tmp_path, weights)
    model = GPT2LMHeadModel.from_pretrained(folder)
    before = model(IDS).logits
    folder_of(tmp_path, {name: array * 2 for name, array in weights.items()})
    np.testing.assert_array_equal(model(IDS).logits, before)
    assert set(SafetensorsFile(folder / "model.safetensors")) == set(weights)
