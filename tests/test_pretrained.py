"""Parameters by name: set whole or not at all, from whatever file, tied where tied."""

import copy
import json
import os
import pickle
import warnings

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import assert_close, base_state_dict, random_ids, random_state_dict

from minigpt2 import (
    AutoTokenizer,
    CheckpointError,
    GPT2Config,
    GPT2DoubleHeadsModel,
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


@pytest.fixture(params=["numpy", "numba"])
def lm(weights, request):
    """The model of these weights, made of either namespace of ops."""
    model = GPT2LMHeadModel(GPT2Config(**TINY), backend=request.param, seed=None)
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
    twin = GPT2LMHeadModel(lm.config, backend=lm.backend, seed=9)
    assert twin.load_state_dict(lm.state_dict()) == ([], [])
    np.testing.assert_array_equal(twin(IDS).logits, lm(IDS).logits)


def test_weights_that_someone_can_write_to_are_copied(lm, weights):
    before = lm(IDS).logits
    for array in weights.values():
        array[...] = 0
    np.testing.assert_array_equal(lm(IDS).logits, before)
    twin = GPT2LMHeadModel(lm.config, backend=lm.backend, seed=None)
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


def under_the_heads_name(weights):
    """The same parameters, the tied ones under the head's name alone."""
    renamed = {"transformer.wte.weight": "lm_head.weight"}
    return {renamed.get(name, name): array for name, array in weights.items()}


@pytest.mark.parametrize("weight_format", ["float32", "int8"])
def test_whichever_of_the_tied_names_is_there_serves(tmp_path, weights, weight_format):
    """As in transformers 5; the prefix may be missing, and the file be sharded."""
    only_head = under_the_heads_name(weights)
    one = folder_of(tmp_path / "one", only_head)
    unprefixed = {n.removeprefix("transformer."): a for n, a in only_head.items()}
    bare = folder_of(tmp_path / "bare", unprefixed)
    shards = tmp_path / "shards"
    GPT2Config(**TINY).save_pretrained(shards)
    weight_map = {}
    for number, name in enumerate(only_head):
        file = f"model-{number % 2}.safetensors"
        weight_map[name] = file
    for file in set(weight_map.values()):
        save_safetensors(
            shards / file, {n: a for n, a in only_head.items() if weight_map[n] == file}
        )
    (shards / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": weight_map})
    )
    expected = GPT2LMHeadModel(GPT2Config(**TINY), seed=None)
    expected.load_state_dict(weights)
    expected = expected.with_weights(weight_format).state_dict()
    for folder in (one, bare, shards):
        for cls in (GPT2LMHeadModel, GPT2Model, GPT2DoubleHeadsModel):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*freshly drawn")  # second heads
                model, info = cls.from_pretrained(
                    folder, weights=weight_format, output_loading_info=True
                )
            assert info["unexpected_keys"] == []
            state = model.state_dict()
            prefix = "" if cls is GPT2Model else "transformer."
            for name in base_state_dict(weights):
                np.testing.assert_array_equal(
                    state[prefix + name], expected["transformer." + name]
                )


def test_a_state_dict_may_have_tied_parameters_under_either_name(weights):
    for state in (weights, under_the_heads_name(weights)):
        model = GPT2LMHeadModel(GPT2Config(**TINY), seed=None)
        assert model.load_state_dict(state) == ([], [])
        same_parameters(model, weights)
        assert np.shares_memory(model.lm_head.weight, model.transformer.wte.weight)
    untied = GPT2LMHeadModel(GPT2Config(**UNTIED), seed=None)
    with pytest.raises(ValueError, match=r"transformer.wte.weight is missing"):
        untied.load_state_dict(under_the_heads_name(weights))


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


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_damage_that_shows_in_the_last_tensor_leaves_the_model_as_it_was(
    tmp_path, weights, backend
):
    variables = openai_variables(weights)
    save_tf_bundle(tmp_path / "model", variables)
    data = tmp_path / "model.data-00000-of-00001"
    whole = bytearray(data.read_bytes())
    last = variables["model/wte"].nbytes  # the last in the order of names
    whole[-last // 2] ^= 1
    data.write_bytes(whole)
    model = GPT2LMHeadModel(GPT2Config(**TINY), backend=backend)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="model/w"):
        load_tf_weights_in_gpt2(model, tmp_path / "model")
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    table = before["lm_head.weight"] + 1  # the tie holds still
    model.load_state_dict({"transformer.wte.weight": table}, strict=False)
    np.testing.assert_array_equal(model.lm_head.weight, table)


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
        CheckpointError, match=r"safetensors: n_layer is 4 in .*, and 3 by the n"
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


def test_weights_may_be_given_in_place_of_the_folders(tmp_path, weights):
    GPT2Config(**TINY).save_pretrained(tmp_path)
    for named in (weights, base_state_dict(weights), openai_variables(weights)):
        model = GPT2LMHeadModel.from_pretrained(tmp_path, state_dict=named)
        same_parameters(model, weights)
    with pytest.raises(CheckpointError, match="n_layer is 3 in .*, and 0 by the names"):
        GPT2LMHeadModel.from_pretrained(tmp_path, state_dict={})


def test_loading_info_names_what_was_passed_over(tmp_path, weights):
    extra = {"score.weight": np.zeros((2, 12)), "lm_head.weight": np.zeros((31, 12))}
    folder = folder_of(tmp_path, weights | extra)
    model, info = GPT2Model.from_pretrained(folder, output_loading_info=True)
    same_parameters(model, base_state_dict(weights))
    assert set(info.pop("unexpected_keys")) == set(extra)
    assert info == {"missing_keys": [], "error_msgs": []}


def test_from_tf_reads_tensorflows_files_beside_or_without_others(tmp_path, weights):
    double = {name: array * 2 for name, array in weights.items()}
    folder = folder_of(tmp_path, double)
    save_tf_bundle(tmp_path / "model.ckpt", openai_variables(weights))
    same_parameters(GPT2LMHeadModel.from_pretrained(folder), double)
    for path in (folder, folder / "model.ckpt.index", str(folder / "model.ckpt")):
        model = GPT2LMHeadModel.from_pretrained(path, from_tf=True)
        same_parameters(model, weights)
        config = GPT2Config(**TINY, use_cache=False)
        model = GPT2Model.from_pretrained(path, from_tf=True, config=config)
        assert model.config is config


def test_the_configuration_may_come_from_another_folder(tmp_path, weights):
    folder = folder_of(tmp_path / "model", weights)
    other = GPT2Config(**TINY, activation_function="relu")
    other.save_pretrained(tmp_path / "other")
    model = GPT2LMHeadModel.from_pretrained(folder, config=str(tmp_path / "other"))
    assert model.config == other


def test_the_hubs_options_reach_the_hub_and_unknown_ones_are_refused(
    tmp_path, weights, monkeypatch
):
    folder = folder_of(tmp_path, weights)
    asked = []

    def model_folder(name, **options):
        asked.append((str(name), options))
        return folder

    monkeypatch.setattr("minigpt2.hub.model_folder", model_folder)
    where = {"cache_dir": "c", "revision": "main", "local_files_only": True, "token": 1}
    model = GPT2LMHeadModel.from_pretrained("gpt2", **where, pad_token_id=3)
    assert asked[0] == ("gpt2", where)
    assert model.config.pad_token_id == 3
    for unknown in ({"n_layres": 2}, {"transformers_version": "4"}):
        with pytest.raises(TypeError, match=f"got {next(iter(unknown))}: no option of"):
            GPT2LMHeadModel.from_pretrained("gpt2", **unknown)
    with pytest.raises(TypeError, match="got n_layer: no option"):
        GPT2LMHeadModel.from_pretrained("gpt2", config=model.config, n_layer=2)


# --- Saving ---


@pytest.mark.parametrize("config", [TINY, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_model_is_loaded_equal(tmp_path, config, dtype):
    model = GPT2LMHeadModel(GPT2Config(**config, extra=[1]), dtype=dtype, seed=4)
    model.save_pretrained(tmp_path / "a" / "b")
    file = SafetensorsFile(tmp_path / "a" / "b" / "model.safetensors")
    assert file.metadata == {"format": "pt"}
    assert ("lm_head.weight" in file) == (config is UNTIED)
    assert len(file) == 12 * 3 + 4 + (config is UNTIED)
    again = GPT2LMHeadModel.from_pretrained(tmp_path / "a" / "b", dtype=dtype)
    for name, array in again.state_dict().items():
        np.testing.assert_array_equal(array, model.state_dict()[name])
        assert array.dtype == dtype
    assert again.config.architectures == ["GPT2LMHeadModel"]
    assert again.config.dtype == dtype
    assert again.config.extra == [1]
    assert not hasattr(model.config, "architectures")


def test_saving_again_replaces_the_files_and_leaves_others_alone(tmp_path, lm):
    lm.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    model = GPT2LMHeadModel.from_pretrained(tmp_path, backend=lm.backend)
    before = model(IDS).logits
    model.set_input_embeddings(model.get_input_embeddings().weight * 2)
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "vocab.json",
    ]
    again = GPT2LMHeadModel.from_pretrained(tmp_path, backend=lm.backend)
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)
    assert np.abs(again(IDS).logits - before).max() > 1e-3


def test_an_older_name_of_the_dtype_does_not_survive_in_the_file(tmp_path, weights):
    """transformers 5 would halve the weights of a folder that says float16."""
    config = {**TINY, "torch_dtype": "float16"}
    folder = folder_of(tmp_path / "half", weights, config, dtype="float16")
    GPT2LMHeadModel.from_pretrained(folder).save_pretrained(tmp_path / "full")
    saved = GPT2Config.from_pretrained(tmp_path / "full")
    assert saved.dtype == "float32"
    assert not hasattr(saved, "torch_dtype")


# --- Embeddings ---


def test_embeddings_are_got_and_set_and_a_tied_head_follows(lm, weights):
    wte = lm.get_input_embeddings()
    assert wte is lm.transformer.wte is lm.base_model.get_input_embeddings()
    assert lm.get_output_embeddings() is lm.lm_head
    assert lm.transformer.get_output_embeddings() is None
    new = weights["transformer.wte.weight"] + 1
    for value in (new, type("Layer", (), {"weight": new})):
        lm.set_input_embeddings(value)
        np.testing.assert_array_equal(wte.weight, new)
        np.testing.assert_array_equal(lm.lm_head.weight, new)
    with pytest.raises(ValueError, match=r"has shape \(5, 12\), not \(31, 12\)"):
        lm.set_input_embeddings(np.zeros((5, 12)))
    with pytest.raises(ValueError, match="has its head tied to its embeddings"):
        lm.set_output_embeddings(new)
    with pytest.raises(ValueError, match="GPT2Model has no head"):
        lm.transformer.set_output_embeddings(new)


def test_an_untied_head_is_set_alone():
    model = GPT2LMHeadModel(GPT2Config(**UNTIED))
    before = np.array(model.get_input_embeddings().weight)
    model.set_output_embeddings(before + 1)
    np.testing.assert_array_equal(model.lm_head.weight, before + 1)
    np.testing.assert_array_equal(model.get_input_embeddings().weight, before)


def test_tie_weights_follows_embeddings_that_were_replaced_from_inside(lm):
    lm.transformer.set_input_embeddings(lm.transformer.wte.weight * 3)
    lm.tie_weights()
    np.testing.assert_array_equal(lm.lm_head.weight, lm.transformer.wte.weight)


# --- More and fewer ids ---


@pytest.mark.parametrize("config", [TINY, UNTIED], ids=["tied", "untied"])
def test_resizing_keeps_the_rows_that_stay_and_their_scores(config):
    config = GPT2Config(**config)
    model = GPT2LMHeadModel(config, dtype=np.float64)
    old, logits = model.state_dict(), model(IDS).logits
    parameters = model.num_parameters()
    embeddings = model.resize_token_embeddings(41)
    assert embeddings is model.get_input_embeddings()
    assert config.vocab_size == 31  # the one that the model was made from
    assert model.config.vocab_size == model.transformer.config.vocab_size == 41
    grown = model.state_dict()
    for name in ("transformer.wte.weight", "lm_head.weight"):
        assert grown[name].shape == (41, 12)
        np.testing.assert_array_equal(grown[name][:31], old[name])
        np.testing.assert_allclose(
            grown[name][31:], np.tile(old[name].mean(axis=0), (10, 1)), atol=1e-15
        )
    assert model(np.array([[40]])).logits.shape == (1, 1, 41)
    np.testing.assert_allclose(model(IDS).logits[..., :31], logits, atol=1e-12)
    # an average row scores the average
    np.testing.assert_allclose(
        model(IDS).logits[..., 40], logits.mean(axis=-1), atol=1e-12
    )
    tables = 1 if config.tie_word_embeddings else 2
    assert model.num_parameters() == parameters + tables * 10 * 12
    model.resize_token_embeddings(16)
    np.testing.assert_array_equal(
        model.state_dict()["lm_head.weight"], old["lm_head.weight"][:16]
    )
    with pytest.raises(ValueError, match="outside 0 to 15"):
        model([[16]])


def test_the_older_rule_draws_new_rows(lm):
    lm.resize_token_embeddings(2031, mean_resizing=False)
    fresh = lm.transformer.wte.weight[31:]
    # the standard error of a standard deviation is std / sqrt(2 n)
    assert fresh.std() == pytest.approx(0.02, abs=5 * 0.02 / np.sqrt(2 * fresh.size))
    assert fresh.dtype == np.float32


def test_resizing_to_nothing_changes_nothing(lm, weights):
    assert lm.resize_token_embeddings() is lm.get_input_embeddings()
    for wrong in (0, -1, 2.5, "31"):
        with pytest.raises(ValueError, match="vocab_size must be a whole number above"):
            lm.resize_token_embeddings(wrong)
    same_parameters(lm, weights)


def test_a_resized_model_is_saved_and_loaded(tmp_path, lm):
    lm.resize_token_embeddings(40)
    lm.save_pretrained(tmp_path)
    again = GPT2LMHeadModel.from_pretrained(tmp_path, backend=lm.backend)
    assert again.config.vocab_size == 40
    np.testing.assert_array_equal(again(IDS).logits, lm(IDS).logits)


# --- Fewer heads ---


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_pruned_heads_are_as_if_masked_whatever_the_order(data):
    heads = st.sets(st.integers(0, 3), max_size=3)
    layers = st.dictionaries(st.integers(-3, 2), heads, max_size=3)
    config = GPT2Config(**TINY | {"n_head": 4})
    whole = GPT2LMHeadModel(config, dtype=np.float64, seed=1)
    model = GPT2LMHeadModel(config, dtype=np.float64, seed=1)
    mask = np.ones((3, 4))
    pruned = {}
    for step in data.draw(st.lists(layers, max_size=3)):
        wanted = {layer: set(pruned.get(layer, ())) for layer in range(3)}
        for layer, gone in step.items():
            wanted[layer % 3] |= gone
        if any(len(gone) == 4 for gone in wanted.values()):
            with pytest.raises(ValueError, match="without a head"):
                model.prune_heads(step)
            continue
        model.prune_heads(step)
        pruned = {layer: sorted(gone) for layer, gone in wanted.items() if gone}
        for layer, gone in pruned.items():
            mask[layer, gone] = 0
        assert model.config.pruned_heads == pruned
        assert config.pruned_heads == {}
    out = model(IDS, output_attentions=True)
    expected = whole(IDS, head_mask=mask).logits
    np.testing.assert_allclose(out.logits, expected, atol=1e-12)
    for layer, weights in enumerate(out.attentions):
        assert weights.shape == (2, 4 - len(pruned.get(layer, ())), 7, 7)
    assert model.num_parameters() == whole.num_parameters() - int(
        (mask == 0).sum() * (3 * (4 * 12**2 // 12 + 3))
    )
    # made so from the configuration, and through a state_dict
    again = GPT2LMHeadModel(model.config, dtype=np.float64, seed=None)
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(again(IDS).logits, model(IDS).logits)
    past = model(IDS[:, :3]).past_key_values
    np.testing.assert_allclose(
        model(IDS[:, 3:], past).logits, out.logits[:, 3:], atol=1e-12
    )


def test_pruning_survives_saving_and_loading_and_goes_on_from_there(tmp_path, lm):
    lm.prune_heads({0: [1], -1: [0, 2]})
    lm.save_pretrained(tmp_path)
    again = GPT2LMHeadModel.from_pretrained(tmp_path, backend=lm.backend)
    assert again.config.pruned_heads == {0: [1], 2: [0, 2]}
    np.testing.assert_array_equal(again(IDS).logits, lm(IDS).logits)
    base = GPT2Model.from_pretrained(tmp_path)
    assert [block.attn.n_head for block in base.h] == [2, 3, 1]
    for model in (lm, again):
        model.prune_heads({0: {0, 1}, 1: range(2)})
        assert model.config.pruned_heads == {0: [0, 1], 1: [0, 1], 2: [0, 2]}
    np.testing.assert_array_equal(again(IDS).logits, lm(IDS).logits)
    ids = IDS[:, :3]
    np.testing.assert_array_equal(
        again.generate(ids, max_length=9), lm.generate(ids, max_length=9)
    )
    mask = [[1.0], [0.5], [1.0]]
    assert np.abs(lm(IDS, head_mask=mask).logits - lm(IDS).logits).max() > 1e-3
    with pytest.raises(ValueError, match=r"head_mask has rows of shape \[\(3,\)"):
        lm(IDS, head_mask=[1, 1, 1])


def test_heads_that_are_not_there_are_refused_and_none_is_pruned(lm, weights):
    for wrong, message in (
        ({0: [1], 3: [0]}, "pruned_heads has layer 3; there are 3"),
        ({-4: [0]}, "layer -4"),
        ({0: [1], 1: [3]}, "head 3 of layer 1; heads are numbered 0 to 2"),
        ({0: [-1]}, "head -1 of layer 0"),
        ({0: [0, 1, 2]}, "leaves layer 0 without a head"),
        ({"0": [0], 0: [1, 2]}, "leaves layer 0 without a head"),
    ):
        with pytest.raises(ValueError, match=message):
            lm.prune_heads(wrong)
    same_parameters(lm, weights)
    assert lm.config.pruned_heads == {}


# --- What torch's modules do ---


def test_a_model_is_on_the_cpu_and_changes_its_dtype_in_place(lm, weights):
    single = lm(IDS).logits
    assert lm.to("cpu") is lm.cpu() is lm.eval() is lm
    assert lm.device == "cpu"
    assert lm.to(np.float64) is lm
    assert {a.dtype for a in lm.state_dict().values()} == {np.dtype("float64")}
    double = lm(IDS).logits
    assert double.dtype == lm.dtype == lm.transformer.dtype == np.float64
    np.testing.assert_allclose(double, single, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(lm.float()(IDS).logits, single)
    np.testing.assert_array_equal(lm.double()(IDS).logits, double)
    assert lm.to("cpu", dtype="float32").dtype == np.float32
    for wrong in ("cuda", "cuda:0", np.float16, 0):
        with pytest.raises(ValueError, match="on the CPU, in float32 or float64: not"):
            lm.to(wrong)
    same_parameters(lm, weights)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_model_can_be_copied_and_sent_to_another_process(lm, copied):
    twin = copied(lm)
    before = lm(IDS).logits
    np.testing.assert_array_equal(twin(IDS).logits, before)
    assert np.shares_memory(twin.lm_head.weight, twin.transformer.wte.weight)
    twin.transformer.wte.weight[...] = 0
    twin.prune_heads({0: [0]})
    np.testing.assert_array_equal(lm(IDS).logits, before)
    assert lm.config.pruned_heads == {}


# --- Names ---


def test_auto_classes_are_gpt2s(tmp_path, lm):
    from minigpt2.model import auto

    lm.save_pretrained(tmp_path)
    assert type(auto.AutoConfig.from_pretrained(tmp_path)) is GPT2Config
    assert type(auto.AutoModel.from_pretrained(tmp_path)) is GPT2Model
    assert type(auto.AutoModel.from_config(lm.config)) is GPT2Model
    model = auto.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="float64")
    assert type(model) is GPT2LMHeadModel
    assert model.dtype == np.float64
    assert auto.AutoModelWithLMHead.from_config is GPT2LMHeadModel
    tokenizer = AutoTokenizer.from_pretrained("gpt2")
    assert tokenizer.encode("Hello world") == [15496, 995]
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for cls in (auto.AutoConfig, auto.AutoModel, auto.AutoModelForCausalLM):
        with pytest.raises(ValueError, match="configuration of a 'bert' model"):
            cls.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "GPT2ForMaskedLM",
        "AutoModelForSeq2SeqLM",
        "TFGPT2LMHeadModel",
    ],
)
def test_heads_that_are_not_documented_are_refused_by_name(name):
    with pytest.raises(ImportError, match=f"minigpt2 has no {name}. Its models are"):
        exec(f"from minigpt2 import {name}")


# --- Folders of and for the installed transformers ---


def saved_pairs():
    """(class, changes to TINY, what is done to it, which major versions can do it)."""
    for name in ("GPT2Model", "GPT2LMHeadModel", "GPT2DoubleHeadsModel"):
        yield name, {}, None, (4, 5)
        yield name, {"tie_word_embeddings": False}, None, (4, 5)
        yield name, {}, "prune_heads", (4,)
        yield name, {}, "resize", (4, 5)
    yield (
        "GPT2LMHeadModel",
        {"n_inner": 20, "activation_function": "relu"},
        None,
        (4, 5),
    )
    yield "GPT2DoubleHeadsModel", {"summary_use_proj": False}, None, (4, 5)


@pytest.mark.peers
@pytest.mark.parametrize(("name", "changes", "then", "versions"), list(saved_pairs()))
def test_folders_go_to_transformers_and_come_back(
    tmp_path, name, changes, then, versions
):
    import minigpt2

    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    if int(transformers.__version__.split(".")[0]) not in versions:
        pytest.skip(f"transformers {transformers.__version__} has no {then}")
    config = {**TINY, **changes, "bos_token_id": 0, "eos_token_id": 0}
    ours = getattr(minigpt2, name)(GPT2Config(**config, initializer_range=0.3))
    if then == "prune_heads":
        ours.prune_heads({0: [1], 2: [0, 2]})
    elif then == "resize":
        ours.resize_token_embeddings(37)

    def scores(model, ids):
        return model(ids, output_hidden_states=True).hidden_states[-1]

    ours.save_pretrained(tmp_path / "ours")
    theirs, info = getattr(transformers, name).from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info.values()), info
    assert theirs.dtype == torch.float32
    with torch.no_grad():
        expected = scores(theirs, torch.tensor(IDS)).numpy()
    # float32 sums of 12 terms in another order, in three layers
    np.testing.assert_allclose(scores(ours, IDS), expected, rtol=1e-4, atol=1e-5)

    theirs.save_pretrained(tmp_path / "theirs")
    back, info = getattr(minigpt2, name).from_pretrained(
        tmp_path / "theirs", output_loading_info=True
    )
    assert not any(info.values()), info
    assert set(ours.state_dict()) == set(back.state_dict())
    for parameter, array in back.state_dict().items():
        np.testing.assert_array_equal(array, ours.state_dict()[parameter])
    np.testing.assert_array_equal(scores(back, IDS), scores(ours, IDS))
    kept = {n: v for n, v in vars(ours.config).items() if n in vars(GPT2Config())}
    kept.pop("num_labels")  # transformers' model with two heads sets it to 1
    assert {n: vars(back.config)[n] for n in kept} == kept
    files = [
        SafetensorsFile(tmp_path / d / "model.safetensors") for d in ("ours", "theirs")
    ]
    assert set(files[0]) == set(files[1])
    assert files[0].metadata == files[1].metadata


@pytest.mark.peers
def test_resizing_gives_the_rows_that_transformers_gives():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    weights = random_state_dict(TINY, 3)
    ours = GPT2LMHeadModel(GPT2Config(**TINY), seed=None)
    ours.load_state_dict(weights)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**TINY))
    state = {name: torch.tensor(array) for name, array in weights.items()}
    theirs.load_state_dict(state, strict=False)
    theirs.tie_weights()
    theirs.resize_token_embeddings(40, mean_resizing=True)
    ours.resize_token_embeddings(40)
    expected = theirs.get_input_embeddings().weight.detach().numpy()
    # its noise has 1e-9 of the rows' variance, 0.02: six deviations are 2.7e-5
    np.testing.assert_allclose(ours.lm_head.weight, expected, rtol=0, atol=3e-5)


@st.composite
def prunings(draw, layers, heads):
    """Steps of {layer: heads}, after which each layer still has its last head."""
    some = st.sets(st.integers(0, heads - 2), max_size=heads - 1) if heads > 1 else None
    step = st.dictionaries(st.integers(0, layers - 1), some, max_size=layers)
    return draw(st.lists(step, max_size=3)) if some is not None else []


@pytest.mark.peers
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_any_pruned_model_is_transformers_and_goes_both_ways(tmp_path_factory, data):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    prunes = int(transformers.__version__.split(".")[0]) < 5
    folder = tmp_path_factory.mktemp("folders")
    heads, layers = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    config = {
        "vocab_size": 31,
        "n_positions": 8,
        "n_embd": heads * data.draw(st.integers(1, 5)),
        "n_layer": layers,
        "n_head": heads,
        "n_inner": data.draw(st.none() | st.integers(1, 20)),
        "activation_function": data.draw(st.sampled_from(["gelu_new", "relu", "silu"])),
        "tie_word_embeddings": data.draw(st.booleans()),
        "scale_attn_by_inverse_layer_idx": data.draw(st.booleans()),
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    # the default, sdpa, passes over scale_attn_by_inverse_layer_idx in 4.57
    eager = {"attn_implementation": "eager"}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config, **eager))
    weights = random_state_dict(config, data.draw(st.integers(0, 999)))
    state = {name: torch.tensor(array) for name, array in weights.items()}
    theirs.load_state_dict(state, strict=False)
    theirs.double().eval().tie_weights()
    ours = GPT2LMHeadModel(GPT2Config(**config), dtype=np.float64, seed=None)
    ours.load_state_dict(weights)

    def same(ours, theirs):
        with torch.no_grad():
            expected = theirs(torch.tensor(IDS)).logits.numpy()
        # float64 sums of up to 80 terms in another order
        assert_close(ours(IDS).logits, expected, 1e-12, "logits")
        assert_close(ours.num_parameters(), theirs.num_parameters(), 0, "parameters")

    steps = data.draw(prunings(layers, heads)) if prunes else []
    for step in [{}, *steps]:
        ours.prune_heads(step)
        if step:
            theirs.prune_heads({layer: list(gone) for layer, gone in step.items()})
            theirs.double()  # it makes new layers in float32, which hold these weights
        same(ours, theirs)
    ours.save_pretrained(folder / "ours")
    theirs.save_pretrained(folder / "theirs")
    loaded = GPT2LMHeadModel.from_pretrained(folder / "theirs", dtype=np.float64)
    same(loaded, theirs)
    assert loaded.config.pruned_heads == ours.config.pruned_heads
    loaded, info = transformers.GPT2LMHeadModel.from_pretrained(
        folder / "ours", dtype=torch.float64, output_loading_info=True, **eager
    )
    assert not any(info.values()), info
    same(ours, loaded.eval())
