"""Whatever a training program called and turned round, the same parameters arrive."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from model_cases import assert_close, random_ids, random_state_dict

from minigpt2 import CheckpointError, GPT2Config, GPT2LMHeadModel, GPT2Model, plain
from minigpt2.checkpoints.layouts import gpt2_tensors
from minigpt2.checkpoints.names import canonical
from minigpt2.checkpoints.open import open_checkpoint
from minigpt2.checkpoints.safetensors_file import save_safetensors
from minigpt2.config import fields_of_model_args
from minigpt2.tasks.convert import convert

TINY = {"vocab_size": 31, "n_positions": 16, "n_embd": 12, "n_layer": 3, "n_head": 3}
ARGS = {"vocab_size": 31, "block_size": 16, "n_embd": 12, "n_layer": 3, "n_head": 3}
IDS = random_ids((2, 7), 31, 5)


# --- Prefixes ---


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module."],
)
def test_what_wrappers_put_before_names_is_taken_off(tmp_path, prefix):
    config = GPT2Config(**TINY, tie_word_embeddings=False)
    weights = random_state_dict(TINY | {"tie_word_embeddings": False}, 3)
    config.save_pretrained(tmp_path)
    wrapped = {prefix + name: array for name, array in weights.items()}
    save_safetensors(tmp_path / "model.safetensors", wrapped)
    for bare in (True, False):
        found = gpt2_tensors(
            {
                prefix + n.removeprefix("transformer." * bare): a
                for n, a in weights.items()
            }
        )
        assert set(found) == {n.removeprefix("transformer.") for n in weights}
    model = GPT2LMHeadModel.from_pretrained(tmp_path, dtype="float64")
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, weights[name])
    assert canonical(f"{prefix}transformer.h.0.attn.bias") is None


def test_a_prefix_that_is_not_known_is_named(tmp_path):
    weights = random_state_dict(TINY, 3)
    strange = {f"gpt.{name}": array for name, array in weights.items()}
    for weights_of_it in (strange, strange | {"h.0.ln_1.weight": np.ones(12)}):
        with pytest.raises(CheckpointError, match=r"begin with 'gpt.transformer.', wh"):
            GPT2Model.from_pretrained(
                None, config=GPT2Config(**TINY), state_dict=weights_of_it
            )


def test_a_parameter_under_two_names_is_refused():
    weights = random_state_dict(TINY, 3)
    twice = weights | {"module.wte.weight": weights["transformer.wte.weight"]}
    with pytest.raises(ValueError, match="module.wte.weight is there twice"):
        gpt2_tensors(twice)


# --- nanoGPT's layout ---


def linear_layout(weights, bias=True):
    """The same parameters as torch.nn.Linear would have them, maybe without biases."""
    return {
        name: array.T if ".c_" in name and array.ndim == 2 else array
        for name, array in weights.items()
        if bias or not name.endswith(".bias")
    }


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def logits_of_nanogpt(torch, state, args, ids):
    """What a model of nanoGPT's layout computes, by torch's own functions."""
    F = torch.nn.functional

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(x, name):
        w, b = state[f"{name}.weight"], state.get(f"{name}.bias")
        return F.layer_norm(x, (args["n_embd"],), w, b, 1e-5)

    ids = torch.as_tensor(ids)
    x = state["transformer.wte.weight"][ids]
    x = x + state["transformer.wpe.weight"][: ids.shape[1]]
    for layer in range(args["n_layer"]):
        block = f"transformer.h.{layer}"
        qkv = linear(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn")
        q, k, v = (
            part.unflatten(-1, (args["n_head"], -1)).transpose(1, 2)
            for part in qkv.split(args["n_embd"], dim=2)
        )
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(z.transpose(1, 2).flatten(2), f"{block}.attn.c_proj")
        hidden = F.gelu(linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc"))
        x = x + linear(hidden, f"{block}.mlp.c_proj")
    return linear(norm(x, "transformer.ln_f"), "lm_head").numpy()


def ckpt_of_nanogpt(torch, path, bias, prefix="_orig_mod.", **args):
    """Save what nanoGPT's train.py saves; return the state dict without its prefix."""
    weights = linear_layout(random_state_dict(TINY, 3), bias)
    state = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    state["lm_head.weight"] = state["transformer.wte.weight"]  # one storage
    for layer in range(3):
        state[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    torch.save(
        {
            "model": {prefix + name: tensor for name, tensor in state.items()},
            "optimizer": optimizer.state_dict(),
            "model_args": {**ARGS, "bias": bias, "dropout": 0.2, **args},
            "iter_num": 250,
            "best_val_loss": torch.tensor(1.5),
            "config": {"out_dir": "out", "device": torch.device("cpu"), "lr": 6e-4},
        },
        path,
    )
    return state


@pytest.mark.peers
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module."])
def test_nanogpts_checkpoints_give_the_logits_of_its_model(
    tmp_path, torch, bias, prefix
):
    path = tmp_path / "ckpt.pt"
    state = ckpt_of_nanogpt(torch, path, bias, prefix)
    expected = logits_of_nanogpt(torch, state, ARGS, IDS)
    for source in (tmp_path, path, str(path)):
        model = GPT2LMHeadModel.from_pretrained(source, dtype="float64")
        # float64 sums of up to 48 terms in another order
        assert_close(model(IDS).logits, expected, 1e-12, "logits")
    config = model.config
    assert {name: getattr(config, name) for name in TINY} == TINY
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.2,) * 3
    assert config.activation_function == "gelu"
    assert config.eos_token_id is None  # there is no <|endoftext|> among 31 ids
    older = GPT2LMHeadModel.from_pretrained(path, activation_function="gelu_new")
    assert older.config.activation_function == "gelu_new"
    # The file alone, with a configuration said otherwise
    file = open_checkpoint(path)
    twin = GPT2LMHeadModel.from_pretrained(
        None, config=config, state_dict=file, dtype="float64"
    )
    np.testing.assert_array_equal(twin(IDS).logits, model(IDS).logits)
    quantized = GPT2LMHeadModel.from_pretrained(path, weights="int8")
    plain_one = GPT2LMHeadModel.from_pretrained(path).with_weights("int8")
    np.testing.assert_array_equal(quantized(IDS).logits, plain_one(IDS).logits)


@pytest.mark.peers
def test_nanogpts_checkpoints_are_converted_into_hugging_faces_layout(tmp_path, torch):
    (tmp_path / "out").mkdir()
    ckpt_of_nanogpt(torch, tmp_path / "out" / "ckpt.pt", bias=False)
    convert(tmp_path / "out", tmp_path / "converted")
    both = [
        GPT2LMHeadModel.from_pretrained(tmp_path / name, dtype="float64")
        for name in ("out", "converted")
    ]
    np.testing.assert_array_equal(both[0](IDS).logits, both[1](IDS).logits)
    assert both[1].config.activation_function == "gelu"


@pytest.mark.peers
def test_other_formats_of_that_layout_are_known_by_their_shapes(tmp_path, torch):
    """As minGPT's, or a safetensors file of nanoGPT's state dict: config.json says it."""
    weights = random_state_dict(TINY, 3)
    state = {n: torch.from_numpy(a.copy()) for n, a in linear_layout(weights).items()}
    config = GPT2Config(**TINY, activation_function="gelu")
    config.save_pretrained(tmp_path)
    save_safetensors(tmp_path / "model.safetensors", linear_layout(weights))
    state["lm_head.weight"] = state["transformer.wte.weight"]
    expected = logits_of_nanogpt(torch, state, ARGS, IDS)
    for given in (None, linear_layout(weights), state):
        model = GPT2LMHeadModel.from_pretrained(
            tmp_path, state_dict=given, dtype="float64"
        )
        assert_close(model(IDS).logits, expected, 1e-12, "logits")
    save_safetensors(
        tmp_path / "model.safetensors", linear_layout(weights), dtype="bfloat16"
    )
    half = GPT2LMHeadModel.from_pretrained(tmp_path, weights="bfloat16")
    assert_close(half(IDS).logits, expected, 0.05, "logits of bfloat16")
    parameters = plain.load(tmp_path)
    assert parameters["h.0.attn.c_attn.weight"].shape == (12, 36)


@pytest.mark.peers
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "module"])
def test_a_state_dict_inside_another_dict_is_found(tmp_path, torch, key):
    weights = random_state_dict(TINY, 3)
    state = {n: torch.from_numpy(a.copy()) for n, a in weights.items()}
    GPT2Config(**TINY).save_pretrained(tmp_path)
    torch.save({key: state, "epoch": 3}, tmp_path / "pytorch_model.bin")
    model = GPT2LMHeadModel.from_pretrained(tmp_path, dtype="float64")
    for name, array in weights.items():
        np.testing.assert_array_equal(model.state_dict()[name], array)
    assert open_checkpoint(tmp_path / "pytorch_model.bin").besides == {"epoch": 3}
    torch.save({"net": state, "epoch": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="in dicts of the names 'net', none of"):
        GPT2LMHeadModel.from_pretrained(tmp_path)


@pytest.mark.peers
def test_torchs_tensors_of_every_kind_are_taken(torch):
    weights = random_state_dict(TINY, 3)
    for wrap in (
        lambda a: torch.nn.Parameter(torch.from_numpy(a.copy())),
        lambda a: torch.from_numpy(a.copy()).bfloat16(),
        lambda a: torch.from_numpy(np.stack([a, a], axis=-1))[..., 1],  # with gaps
    ):
        state = {name: wrap(array) for name, array in weights.items()}
        model = GPT2LMHeadModel.from_pretrained(
            None, config=GPT2Config(**TINY), state_dict=state, dtype="float64"
        )
        for name, tensor in state.items():
            expected = tensor.detach().double().numpy()
            np.testing.assert_array_equal(model.state_dict()[name], expected)
    with pytest.raises(CheckpointError, match="'model' is a dict, not an array"):
        GPT2LMHeadModel.from_pretrained(
            None, config=GPT2Config(**TINY), state_dict={"model": state, "step": 3}
        )


@pytest.mark.peers
def test_lightnings_files_are_read(tmp_path, torch):
    weights = random_state_dict(TINY, 3)
    state = {f"model.{n}": torch.from_numpy(a.copy()) for n, a in weights.items()}
    GPT2Config(**TINY).save_pretrained(tmp_path)
    path = tmp_path / "epoch=3-step=100.ckpt"
    for legacy in (False, True):
        torch.save(
            {"state_dict": state, "hyper_parameters": {"lr": 0.1}, "epoch": 3},
            path,
            _use_new_zipfile_serialization=not legacy,
        )
        model = GPT2LMHeadModel.from_pretrained(path, dtype="float64")
        for name, array in weights.items():
            np.testing.assert_array_equal(model.state_dict()[name], array)


@pytest.mark.peers
def test_what_nanogpts_fields_do_not_say_is_refused(tmp_path, torch):
    path = tmp_path / "ckpt.pt"
    ckpt_of_nanogpt(torch, path, bias=True, use_rmsnorm=True)
    with pytest.raises(ValueError, match=r"ckpt\.pt: .* have use_rmsnorm, which nano"):
        GPT2LMHeadModel.from_pretrained(tmp_path)
    state = {"transformer.wte.weight": torch.zeros(31, 12)}
    torch.save({"model": state, "model_args": {"n_layer": 3}}, path)
    for source in (tmp_path, path):
        with pytest.raises(
            ValueError, match=r"ckpt\.pt: .* model_args with vocab_size,"
        ):
            GPT2LMHeadModel.from_pretrained(source)
    ckpt_of_nanogpt(torch, path, bias=True, n_layer=2)
    with pytest.raises(CheckpointError, match="more layers than this one's 2"):
        GPT2LMHeadModel.from_pretrained(path)
    # config.json beside it says what counts
    GPT2Config(**TINY, activation_function="relu").save_pretrained(tmp_path)
    for source in (tmp_path, path):
        model = GPT2LMHeadModel.from_pretrained(source)
        assert model.config.activation_function == "relu"


def test_a_vocabulary_of_gpt2s_size_keeps_its_end_of_text():
    for size, end in ((50257, 50256), (50304, 50256), (65, None)):
        config = GPT2Config(**fields_of_model_args(ARGS | {"vocab_size": size}))
        assert config.eos_token_id == config.bos_token_id == end
    assert config.resid_pdrop == 0.0


def test_gpt2s_own_layout_is_never_taken_for_the_other():
    for config in (
        {**TINY, "n_embd": 1, "n_head": 1, "vocab_size": 3},
        {**TINY, "n_embd": 3, "n_head": 3},
    ):
        weights = random_state_dict(config, 1)
        for name, tensor in gpt2_tensors(weights).items():
            assert tensor.shape == weights[f"transformer.{name}"].shape
    pruned = GPT2LMHeadModel(GPT2Config(**TINY, pruned_heads={0: [0, 2], 1: [1]}))
    for name, tensor in gpt2_tensors(pruned.state_dict()).items():
        if not name.startswith("lm_head"):
            own = pruned.state_dict()[f"transformer.{name}"]
            np.testing.assert_array_equal(np.asarray(tensor), own)


def test_files_of_parameters_may_be_named_themselves(tmp_path):
    weights = random_state_dict(TINY, 3)
    GPT2Config(**TINY).save_pretrained(tmp_path)
    save_safetensors(tmp_path / "other.safetensors", weights)
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "other.safetensors")
    assert model.config == GPT2Config(**TINY)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"none of config\.json, hparams\.json"):
        GPT2LMHeadModel.from_pretrained(tmp_path / "other.safetensors")
    (tmp_path / "run1").mkdir()
    hparams = {"n_vocab": 31, "n_ctx": 16, "n_embd": 12, "n_head": 3, "n_layer": 3}
    (tmp_path / "run1" / "hparams.json").write_text(json.dumps(hparams))
    with pytest.raises(FileNotFoundError, match=r"run1 does: give that folder"):
        GPT2LMHeadModel.from_pretrained(tmp_path)


def test_only_the_first_layers_norm_and_matrix_tell_the_layout():
    """Anything else of odd shapes is left to the check of shapes, which names it."""
    odd = SimpleNamespace(shape=(12,), dtype=np.dtype("f4"))
    for tensors in ({}, {"h.0.ln_1.weight": np.ones(())}, {"x": odd.shape}):
        assert set(gpt2_tensors(tensors)) == set(tensors)
