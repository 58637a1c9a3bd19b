"""Models of small weights: made while loading, computed with, saved, loaded again."""

import copy
import json
import math
import pickle
import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import random_ids, random_state_dict

from minigpt2 import (
    CheckpointError,
    GPT2Config,
    GPT2DoubleHeadsModel,
    GPT2LMHeadModel,
    GPT2Model,
    GPT2Tokenizer,
    ops,
)
from minigpt2.checkpoints.safetensors_file import SafetensorsFile, save_safetensors
from minigpt2.checkpoints.tf_bundle_writer import save_tf_bundle
from minigpt2.quantization import (
    X_BLOCK,
    BFloat16Matrix,
    Int4Matrix,
    Int8Matrix,
    QuantizedMatrix,
    quantized,
    round_activations,
)
from minigpt2.tasks.convert import convert

SMALL = ("bfloat16", "int8", "int4")
BACKENDS = ("numpy", "numba")
TINY = {"vocab_size": 31, "n_positions": 16, "n_embd": 64, "n_layer": 2, "n_head": 2}
UNTIED = {**TINY, "tie_word_embeddings": False}
IDS = random_ids((2, 7), 31, 5)
C_ATTN = "transformer.h.1.attn.c_attn.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A float32 folder of a tiny model."""
    folder = tmp_path_factory.mktemp("float32")
    tiny(TINY).save_pretrained(folder)
    return folder


def tiny(config, model_class=GPT2LMHeadModel):
    model = model_class(GPT2Config(**config), backend="numpy", seed=3)
    weights = {n: a.astype(np.float32) for n, a in random_state_dict(config, 3).items()}
    model.load_tensors(weights)
    return model


def stored(model):
    """{name: array or QuantizedMatrix} of a model's parameters."""
    slots = model.own_slots().items()
    return {name: module.stored(attribute) for name, (module, attribute) in slots}


def all_rows(model):
    """{name: QuantizedMatrix} of the parameters that a model keeps as such."""
    return {
        name: rows
        for name, rows in stored(model).items()
        if isinstance(rows, QuantizedMatrix)
    }


def kept(model, name):
    """The very object that holds a parameter, in whatever form the backend packs it."""
    module, attribute = model.own_slots()[name]
    names = {"weight": ("packed", "table", "weight")}.get(attribute, (attribute,))
    return next(vars(module)[name] for name in names if name in vars(module))


def same_rows(model, other):
    mine, others = all_rows(model), all_rows(other)
    assert mine.keys() == others.keys()
    for name, rows in mine.items():
        assert type(rows) is type(others[name])
        for array, expected in zip(rows.arrays(), others[name].arrays()):
            np.testing.assert_array_equal(array, expected, err_msg=name)


# --- Loading ---


@pytest.mark.parametrize("weights", SMALL)
def test_the_large_matrices_are_small_and_the_rest_is_float32(folder, weights):
    model = GPT2LMHeadModel.from_pretrained(folder, weights=weights)
    assert model.weights == model.transformer.weights == weights
    assert repr(model).splitlines()[0].endswith(f", weights={weights})")
    rows = all_rows(model)
    block = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    matrices = {f"transformer.h.{i}.{name}.weight" for i in range(2) for name in block}
    assert rows.keys() == {*matrices, "transformer.wte.weight"}
    form = {"bfloat16": BFloat16Matrix, "int8": Int8Matrix, "int4": Int4Matrix}[weights]
    assert {type(rows[name]) for name in matrices} == {form}
    # The embeddings are the head too, whose errors are those of the scores themselves.
    table = rows["transformer.wte.weight"]
    assert type(table) is (Int8Matrix if weights == "int4" else form)
    assert model.lm_head.stored("weight") is table
    plain = GPT2LMHeadModel.from_pretrained(folder)
    assert plain.weights == "float32"
    assert "weights" not in repr(plain)
    for name, value in stored(plain).items():
        expected = module_of(plain, name).as_rows(value)
        if name in rows:
            expected = quantized(
                expected, "int8" if name in table_of(weights) else weights
            )
            for got, array in zip(rows[name].arrays(), expected.arrays()):
                np.testing.assert_array_equal(got, array)
        else:
            np.testing.assert_array_equal(stored(model)[name], value)
    assert model.num_parameters() == plain.num_parameters()


def module_of(model, name):
    return model.parameter_slots()[name][0]


def table_of(weights):
    return {"transformer.wte.weight"} if weights == "int4" else set()


@pytest.mark.parametrize("weights", SMALL)
def test_any_files_floats_give_the_same_small_weights(folder, tmp_path, weights):
    expected = GPT2LMHeadModel.from_pretrained(folder, weights=weights)
    convert(folder, tmp_path / "npz", "npz")
    for path in (tmp_path / "npz", tensorflows(folder, tmp_path / "tf")):
        same_rows(GPT2LMHeadModel.from_pretrained(path, weights=weights), expected)
    base = GPT2Model.from_pretrained(folder, weights=weights)
    assert repr(base).splitlines()[0].endswith(f"weights={weights})")
    for name, rows in all_rows(base).items():
        other = all_rows(expected)[f"transformer.{name}"]
        assert np.array_equal(np.asarray(rows), np.asarray(other))


def tensorflows(folder, path):
    """OpenAI's folder of the same weights."""
    from minigpt2.checkpoints.names import openai_name

    path.mkdir()
    hparams = {"n_vocab": 31, "n_ctx": 16, "n_embd": 64, "n_layer": 2, "n_head": 2}
    (path / "hparams.json").write_text(json.dumps(hparams), encoding="utf-8")
    variables = {}
    for name, array in SafetensorsFile(folder / "model.safetensors").items():
        name = openai_name(name.removeprefix("transformer."))
        variables[name] = array[None] if name.endswith("/w") else array
    save_tf_bundle(path / "model.ckpt", variables)
    return path


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("weights", SMALL)
def test_half_precision_files_are_rounded_from_what_they_hold(
    folder, tmp_path, dtype, weights
):
    convert(folder, tmp_path / "half", dtype=dtype)
    half = GPT2LMHeadModel.from_pretrained(tmp_path / "half")
    got = GPT2LMHeadModel.from_pretrained(tmp_path / "half", weights=weights)
    same_rows(got, half.with_weights(weights))
    if dtype == weights:  # nothing is lost
        for name, array in half.state_dict().items():
            np.testing.assert_array_equal(got.state_dict()[name], array)


def test_bfloat16_is_ml_dtypes_bfloat16(folder):
    plain = GPT2LMHeadModel.from_pretrained(folder).state_dict()
    small = GPT2LMHeadModel.from_pretrained(folder, weights="bfloat16").state_dict()
    expected = plain[C_ATTN].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(small[C_ATTN], expected)


def test_what_cannot_be_asked_for_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="weights must be one of 'float32', .*'int2'"):
        GPT2LMHeadModel.from_pretrained(folder, weights="int2")
    for weights in SMALL:
        with pytest.raises(ValueError, match=f"{weights} weights compute in float32"):
            GPT2LMHeadModel.from_pretrained(folder, weights=weights, dtype="float64")
    small = GPT2LMHeadModel.from_pretrained(folder, weights="int8")
    with pytest.raises(ValueError, match="compute in float32, not in float64"):
        small.double()
    assert small.to("cpu", np.float32) is small
    with pytest.raises(
        ValueError, match=r"resize_token_embeddings\(\) takes a float32"
    ):
        small.resize_token_embeddings(40)
    with pytest.raises(ValueError, match=r"prune_heads\(\) takes a float32 model"):
        small.prune_heads({0: [1]})
    broken = dict(GPT2LMHeadModel.from_pretrained(folder).state_dict())
    broken[C_ATTN] = np.full_like(broken[C_ATTN], np.nan)
    before = small.state_dict()
    with pytest.raises(ValueError, match="NaN or infinite"):
        small.load_state_dict(broken)
    for name, array in small.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# --- Computing ---


@pytest.mark.parametrize("weights", SMALL)
def test_logits_are_those_of_the_formula_in_float64(monkeypatch, weights):
    ids = random_ids((2, 50), 2048, 1)
    model = GPT2LMHeadModel.from_pretrained("shakespeare-1m", weights=weights)
    plain, activations = ops.linear, []

    def recorded(x, *weight_and_bias):
        activations.append(x.copy())
        return plain(x, *weight_and_bias)

    def replayed(x, *weight_and_bias):
        # Which of two steps is the nearer one is float32's to say: it may lie so close
        # to the middle that its last bit decides, and then all that follows differs.
        steps = rounded(activations.pop(0))
        np.testing.assert_allclose(steps, x, rtol=0, atol=np.abs(x).max() / 200)
        return plain(steps, *weight_and_bias)

    if weights == "bfloat16":
        replayed = plain
    monkeypatch.setattr(ops, "linear", recorded)
    logits = model(ids).logits
    # The same dense weights, in float64, and each x rounded as is written.
    dense = GPT2LMHeadModel.from_pretrained("shakespeare-1m", dtype=np.float64)
    dense.load_state_dict(model.state_dict())
    monkeypatch.setattr(ops, "linear", replayed)
    expected = dense(ids).logits
    # Scores of up to 20, by float32's sums of some hundred terms.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5)


def rounded(x):
    rows = x.reshape(-1, x.shape[-1])
    p, t = round_activations(rows)
    steps = np.repeat(t.astype(np.float64), X_BLOCK, axis=1)[:, : rows.shape[1]]
    return (p * steps).reshape(x.shape)


@pytest.mark.parametrize("weights", SMALL)
def test_both_backends_give_the_same_scores(weights):
    tokenizer = GPT2Tokenizer.from_pretrained("shakespeare-1m")
    ids = [tokenizer.encode("First Citizen:\nBefore we proceed any further, hear me")]
    numpy, numba = (
        GPT2LMHeadModel.from_pretrained(
            "shakespeare-1m", weights=weights, backend=backend
        )(ids).logits
        for backend in BACKENDS
    )
    # Where an activation lies in the middle between two steps, the last bit decides
    # which it is: such a place differs by about as much as its rounding changed it.
    difference = np.abs(numpy - numba)
    assert np.median(difference) < 1e-5
    assert difference.max() < (5e-5 if weights == "bfloat16" else 0.3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weights", SMALL)
def test_greedy_text_does_not_depend_on_the_cache_or_the_batch(weights, backend):
    model = GPT2LMHeadModel.from_pretrained(
        "shakespeare-1m", weights=weights, backend=backend
    )
    tokenizer = GPT2Tokenizer.from_pretrained("shakespeare-1m")
    ids = [tokenizer.encode("First Citizen:\n"), tokenizer.encode("To be, or not to")]
    width = max(map(len, ids))
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in ids]
    padded = [[0] * (width - len(row)) + row for row in ids]
    options = {"max_new_tokens": 20, "do_sample": False}
    together = model.generate(padded, attention_mask=mask, **options)[:, width:]
    for row, expected in zip(ids, together):
        alone = model.generate([row], **options)[0, len(row) :]
        assert alone.tolist() == expected.tolist()


def test_scores_stay_near_those_of_float32():
    tokenizer = GPT2Tokenizer.from_pretrained("shakespeare-1m")
    text = "ROMEO:\nBut, soft! what light through yonder window breaks?\n" * 3
    ids = [tokenizer.encode(text)]
    loss = {
        weights: float(
            GPT2LMHeadModel.from_pretrained("shakespeare-1m", weights=weights)(
                ids, labels=ids
            ).loss
        )
        for weights in ("float32", *SMALL)
    }
    # On the whole validation text: 0.00001, 0.0004 and 0.008 nats. This one is short.
    for weights, most in (("bfloat16", 0.002), ("int8", 0.01), ("int4", 0.1)):
        assert math.isclose(loss[weights], loss["float32"], abs_tol=most), weights


# --- One model from another ---


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_with_other_weights_shares_what_is_the_same(folder, backend):
    model = GPT2LMHeadModel.from_pretrained(folder, backend=backend).train()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    for weights in ("float32", *SMALL):
        other = model.with_weights(weights)
        assert (other.weights, other.backend, other.training) == (
            weights,
            backend,
            True,
        )
        same_rows(other, GPT2LMHeadModel.from_pretrained(folder, weights=weights))
        assert other.config == model.config
        assert other.config is not model.config
        small = all_rows(other)
        for name in other.own_slots():
            if name not in small:
                assert kept(other, name) is kept(model, name), name
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    int8 = model.with_weights("int8")
    dense = int8.with_weights("float32")
    assert not all_rows(dense)
    for name, array in int8.state_dict().items():
        np.testing.assert_array_equal(dense.state_dict()[name], array)
    assert all_rows(int8.with_weights("int8")) == all_rows(int8)
    with pytest.raises(ValueError, match="weights must be one of"):
        model.with_weights("int16")
    with pytest.raises(ValueError, match="compute in float32"):
        model.double().with_weights("int8")


def test_parameters_that_are_set_are_rounded(folder):
    small = GPT2LMHeadModel.from_pretrained(folder, weights="int8")
    other = tiny(TINY)
    other.init_weights(seed=8)
    assert small.load_state_dict(other.state_dict()) == ([], [])
    same_rows(small, other.with_weights("int8"))
    small.init_weights(seed=8)
    same_rows(small, other.with_weights("int8"))
    table = np.random.default_rng(1).standard_normal((31, 64), np.float32)
    small.set_input_embeddings(table)
    kept = small.transformer.wte.stored("weight")
    assert np.array_equal(np.asarray(kept), np.asarray(quantized(table, "int8")))
    assert small.lm_head.stored("weight") is kept


@pytest.mark.parametrize("weights", SMALL)
def test_a_state_dict_is_what_is_computed_with(folder, weights):
    small = GPT2LMHeadModel.from_pretrained(folder, weights=weights)
    state = small.state_dict()
    plain = GPT2LMHeadModel.from_pretrained(folder).state_dict()
    assert state.keys() == plain.keys()
    for name, array in state.items():
        assert (array.shape, array.dtype) == (plain[name].shape, np.float32)
        assert not array.flags.writeable
    assert np.array_equal(small.transformer.h[1].attn.c_attn.weight, state[C_ATTN])
    table = small.transformer.wte.weight
    assert np.array_equal(table, state["lm_head.weight"])
    assert np.array_equal(small.lm_head.weight, table)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
@pytest.mark.parametrize("weights", SMALL)
def test_a_small_model_can_be_copied_and_sent_to_another_process(
    folder, weights, copied
):
    small = GPT2LMHeadModel.from_pretrained(folder, weights=weights)
    other = copied(small)
    assert repr(other) == repr(small)
    same_rows(other, small)
    assert other.lm_head.stored("weight") is other.transformer.wte.stored("weight")
    np.testing.assert_array_equal(other(IDS).logits, small(IDS).logits)


# --- Saving ---


@settings(max_examples=25, deadline=None)
@given(
    weights=st.sampled_from(SMALL),
    heads=st.integers(1, 3),
    width=st.sampled_from([1, 5, 32, 64]),
    vocabulary=st.integers(1, 40),
    inner=st.one_of(st.none(), st.integers(1, 200)),
    tied=st.booleans(),
    two=st.booleans(),
)
def test_a_saved_model_is_loaded_equal(
    tmp_path_factory, weights, heads, width, vocabulary, inner, tied, two
):
    config = GPT2Config(vocab_size=vocabulary, n_positions=5, n_embd=heads * width,
                        n_layer=1, n_head=heads, n_inner=inner, bos_token_id=0,
                        eos_token_id=0, tie_word_embeddings=tied)  # fmt: skip
    model_class = GPT2DoubleHeadsModel if two else GPT2LMHeadModel
    model = model_class(config, seed=vocabulary, backend="numpy").with_weights(weights)
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    loaded = model_class.from_pretrained(folder, backend="numpy")
    assert repr(loaded) == repr(model)
    assert loaded.config.n_inner == config.n_inner
    same_rows(loaded, model)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], array, err_msg=name)
    ids = np.zeros((1, 3), int)
    np.testing.assert_array_equal(loaded(ids)[0], model(ids)[0])


@pytest.mark.parametrize("weights", SMALL)
def test_a_saved_folder_says_what_it_is_and_is_used_in_place(folder, tmp_path, weights):
    model = GPT2LMHeadModel.from_pretrained(folder, weights=weights)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["quantization_config"] == {
        "quant_method": "minigpt2",
        "weights": weights,
    }
    file = SafetensorsFile(tmp_path / "model.safetensors")
    assert file.metadata == {"format": "minigpt2", "weights": weights}
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert not hasattr(loaded.config, "quantization_config")
    own = GPT2Config.from_pretrained(tmp_path)
    GPT2LMHeadModel.from_pretrained(tmp_path, config=own)
    assert own.quantization_config == config["quantization_config"]  # as it was given
    for name, rows in all_rows(loaded).items():
        for array, saved in zip(rows.arrays(), all_rows(model)[name].arrays()):
            assert array.base is not None  # the mapped file
            assert not array.flags.writeable
            assert array.nbytes % 64 or array.ctypes.data % 64 == 0
            np.testing.assert_array_equal(array, saved)
    loaded.with_weights("float32").save_pretrained(tmp_path / "dense")
    config = json.loads((tmp_path / "dense/config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config


@pytest.mark.parametrize("weights", SMALL)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_saved_folder_can_be_loaded_as_another_kind(
    folder, tmp_path, weights, backend
):
    model = GPT2LMHeadModel.from_pretrained(folder, weights=weights)
    model.save_pretrained(tmp_path)
    for dtype in ("float32", "float64"):
        dense = GPT2LMHeadModel.from_pretrained(
            tmp_path, weights="float32", dtype=dtype, backend=backend
        )
        assert (dense.weights, dense.dtype.name) == ("float32", dtype)
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(dense.state_dict()[name], array)
    for other in SMALL:
        got = GPT2LMHeadModel.from_pretrained(tmp_path, weights=other)
        same_rows(got, dense.to(np.float32).with_weights(other))
    with pytest.raises(ValueError, match="from_pretrained.*weights='float32'"):
        GPT2LMHeadModel.from_pretrained(tmp_path, dtype="float64")


def test_a_base_model_and_one_with_a_head_read_each_others_folders(folder, tmp_path):
    head = GPT2LMHeadModel.from_pretrained(folder, weights="int4")
    head.save_pretrained(tmp_path / "head")
    head.base_model.save_pretrained(tmp_path / "base")
    for path in ("head", "base"):
        same_rows(GPT2LMHeadModel.from_pretrained(tmp_path / path), head)
        same_rows(GPT2Model.from_pretrained(tmp_path / path), head.base_model)


def changed_file(folder, change, metadata=None):
    file = SafetensorsFile(folder / "model.safetensors")
    tensors = {name: np.array(array) for name, array in file.items()}
    change(tensors)
    save_safetensors(
        folder / "model.safetensors",
        tensors,
        file.metadata if metadata is None else metadata,
    )


DAMAGE = [
    (lambda t: t.pop(C_ATTN), f"{C_ATTN} is missing"),
    (lambda t: t.update({C_ATTN: t[C_ATTN][:-1]}), f"{C_ATTN} is .* have .*192"),
    (lambda t: t.update({C_ATTN: t[C_ATTN].T.copy()}), f"{C_ATTN} is .* have .*192"),
    (lambda t: t.update({C_ATTN: t[C_ATTN].astype(np.int32)}), f"{C_ATTN} is int32"),
    (
        lambda t: t.update({"transformer.h.0.ln_1.weight": np.ones(3, np.float32)}),
        "ln_1.weight has shape",
    ),
]
SCALE = f"{C_ATTN}_scale"
DAMAGED_SCALES = [
    (lambda t: t.pop(SCALE), f"{SCALE} is missing"),
    (lambda t: t.update({SCALE: np.ones(3, np.float32)}), f"{SCALE} is float32"),
    (lambda t: t[SCALE].fill(np.nan), "scales that are not above 0"),
    (lambda t: t[SCALE].fill(0), "scales that are not above 0"),
]


@pytest.mark.parametrize(
    ("weights", "change", "message"),
    [(weights, *damage) for weights in SMALL for damage in DAMAGE]
    + [(weights, *damage) for weights in SMALL[1:] for damage in DAMAGED_SCALES],
)
def test_a_damaged_folder_is_refused_by_name(
    folder, tmp_path, weights, change, message
):
    GPT2LMHeadModel.from_pretrained(folder, weights=weights).save_pretrained(tmp_path)
    changed_file(tmp_path, change)
    for wanted in (None, "float32"):
        with pytest.raises(CheckpointError, match=message):
            GPT2LMHeadModel.from_pretrained(tmp_path, weights=wanted)


def test_other_files_with_integers_are_no_weights(folder, tmp_path):
    GPT2LMHeadModel.from_pretrained(folder, weights="int8").save_pretrained(tmp_path)
    changed_file(tmp_path, lambda t: None, {"format": "minigpt2", "weights": "int3"})
    with pytest.raises(CheckpointError, match=r"weights 'int3'.* reads float32, bf"):
        GPT2LMHeadModel.from_pretrained(tmp_path)
    # What another program wrote anew has lost the metadata.
    changed_file(tmp_path, lambda t: None, {"format": "pt"})
    with pytest.raises(CheckpointError, match="has shape|has dtype"):
        GPT2LMHeadModel.from_pretrained(tmp_path)
    path = tmp_path / "config.json"
    for method in ("bitsandbytes", "gptq"):
        config = json.loads(path.read_text(encoding="utf-8"))
        config["quantization_config"]["quant_method"] = method
        path.write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(CheckpointError, match=f"is quantized by '{method}', which"):
            GPT2LMHeadModel.from_pretrained(tmp_path)


def test_the_commands_take_and_show_the_kind(tmp_path, capsys):
    from minigpt2.cli import main

    assert (
        main(["convert", "shakespeare-1m", str(tmp_path / "a"), "--weights=int8"]) == 0
    )
    assert main(["info", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out
    assert "a: minigpt2, int8 weights" in shown
    assert "weights=int8)" in shown
    prompt = ["generate", "To be", "--greedy", "--max-new-tokens=9"]
    assert main([*prompt, "--model", str(tmp_path / "a")]) == 0
    text = capsys.readouterr().out
    assert main([*prompt, "--weights=int8"]) == 0
    assert capsys.readouterr().out == text
    (tmp_path / "text").write_text("To be, or not to be", encoding="utf-8")
    losses = []
    for weights in ("float32", "int8", "int4"):
        assert main(["score", str(tmp_path / "text"), "--weights", weights]) == 0
        losses.append(capsys.readouterr().out)
    assert len(set(losses)) == 3
    for target, options, message in (
        ("b", [], "has int8 weights, which only minigpt2 reads"),
        (
            "b",
            ["--weights=float32", "--format=npz"],
            "--weights float32 goes with --format saf",
        ),
    ):
        arguments = ["convert", str(tmp_path / "a"), str(tmp_path / target), *options]
        assert main(arguments) == 1
        assert re.search(message, capsys.readouterr().err)
    arguments = [
        "convert",
        str(tmp_path / "a"),
        str(tmp_path / "b"),
        "--weights=float32",
    ]
    assert main(arguments) == 0
    int8, dense = (GPT2LMHeadModel.from_pretrained(tmp_path / name) for name in "ab")
    for name, array in int8.state_dict().items():
        np.testing.assert_array_equal(dense.state_dict()[name], array)


def test_both_heads_are_converted(tmp_path):
    model = tiny(TINY, GPT2DoubleHeadsModel)
    model.save_pretrained(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", weights="int8")
    same_rows(
        GPT2DoubleHeadsModel.from_pretrained(tmp_path / "b"), model.with_weights("int8")
    )


@pytest.mark.peers
@pytest.mark.parametrize("weights", SMALL)
def test_transformers_refuses_a_folder_of_small_weights(folder, tmp_path, weights):
    transformers = pytest.importorskip("transformers")
    GPT2LMHeadModel.from_pretrained(folder, weights=weights).save_pretrained(tmp_path)
    with pytest.raises((RuntimeError, ValueError, OSError)):
        transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
