"""Options that scripts for transformers give: honoured, harmless, or refused by name."""

import inspect
import json
import re

import numpy as np
import pytest
from model_cases import random_ids, random_state_dict

from minigpt2 import CheckpointError, GPT2Config, GPT2LMHeadModel, GPT2Model
from minigpt2.checkpoints.safetensors_file import save_safetensors
from minigpt2.model.keywords import LOADING, SAVING, size_in_bytes

TINY = {"vocab_size": 31, "n_positions": 16, "n_embd": 12, "n_layer": 2, "n_head": 3}
IDS = random_ids((2, 7), 31, 5)


@pytest.fixture
def folder(tmp_path):
    config = GPT2Config(**TINY, transformers_version="4.1", extra=1)
    GPT2LMHeadModel(config, seed=3).save_pretrained(tmp_path)
    return tmp_path


HARMLESS = {
    "low_cpu_mem_usage": True,
    "attn_implementation": "sdpa",
    "device_map": "cpu",
    "use_safetensors": True,
    "trust_remote_code": True,
    "resume_download": True,
    "weights_only": True,
    "quantization_config": None,
    "load_in_8bit": False,
    "ignore_mismatched_sizes": False,
    "variant": None,
    "subfolder": "",
    "proxies": None,
    "dtype": None,
    "torch_dtype": "float32",
    "offload_folder": "x",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_options_that_change_no_number_are_accepted(folder, name):
    plain = GPT2LMHeadModel.from_pretrained(folder)
    model = GPT2LMHeadModel.from_pretrained(folder, **{name: HARMLESS[name]})
    np.testing.assert_array_equal(model(IDS).logits, plain(IDS).logits)
    assert model.config == plain.config


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ({"device_map": "cuda"}, "a model here is on the CPU"),
        ({"device_map": {"": 0}}, "a model here is on the CPU"),
        ({"load_in_8bit": True}, "weights='int8'"),
        ({"quantization_config": {"bits": 8}}, "weights='int8'"),
        ({"variant": "fp16"}, "model.safetensors"),
        ({"subfolder": "x"}, "give the folder"),
        ({"attn_implementation": "mine"}, "backend="),
        ({"ignore_mismatched_sizes": True}, "without the tensors that do not fit"),
        ({"from_flax": True}, "safetensors"),
        ({"use_auth_token": "x"}, "its name is token"),
        ({"dtype": "float16"}, r"from_pretrained\(weights="),
        ({"torch_dtype": "bfloat16"}, r"from_pretrained\(weights="),
    ],
)
def test_options_that_ask_for_more_are_refused_with_advice(folder, option, advice):
    with pytest.raises(ValueError, match=advice) as caught:
        GPT2LMHeadModel.from_pretrained(folder, **option)
    assert next(iter(option)).removeprefix("torch_") in str(caught.value)


def test_no_key_of_the_file_makes_an_option_of_a_stray_keyword(folder):
    file = json.loads((folder / "config.json").read_text())
    for stray in ("transformers_version", "extra", "architectures_", "model_type"):
        assert (stray in file) == (stray != "architectures_")
        with pytest.raises(TypeError, match=f"got {stray}: no option"):
            GPT2LMHeadModel.from_pretrained(folder, **{stray: "x"})


def test_fields_and_known_further_ones_are_overrides(folder):
    model = GPT2LMHeadModel.from_pretrained(
        folder,
        resid_pdrop=0.0,
        hidden_size=12,
        problem_type="regression",
        classifier_dropout=0.3,
        id2label={0: "a", 1: "b", 2: "c"},
    )
    assert model.config.resid_pdrop == 0.0
    assert model.config.problem_type == "regression"
    assert model.config.classifier_dropout == 0.3
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_a_subclasss_own_fields_are_overrides(folder):
    class Config(GPT2Config):
        def __init__(self, width=3, **kwargs):
            super().__init__(**kwargs)
            self.width = width

    class Model(GPT2LMHeadModel):
        config_class = Config

    assert Model.from_pretrained(folder, width=5).config.width == 5


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("float16", "float32"),
        ("bfloat16", "float32"),
    ],
)
def test_auto_is_the_checkpoints_dtype_as_far_as_there_are_models_of_it(
    tmp_path, stored, expected
):
    weights = random_state_dict(TINY, 3)
    for said in ({}, {"dtype": stored}, {"torch_dtype": stored}):
        GPT2Config(**TINY, **said).save_pretrained(tmp_path)
        save_safetensors(tmp_path / "model.safetensors", weights, dtype=stored)
        for option in ("dtype", "torch_dtype"):
            model = GPT2LMHeadModel.from_pretrained(tmp_path, **{option: "auto"})
            assert model.dtype == expected
        assert GPT2LMHeadModel.from_pretrained(tmp_path).dtype == np.float32
        small = GPT2LMHeadModel.from_pretrained(tmp_path, dtype="auto", weights="int8")
        assert small.dtype == np.float32


class TorchsDtype:
    """torch.float64 as far as its str shows it."""

    def __str__(self):
        return "torch.float64"


def test_dtypes_of_torch_are_known_by_their_name(folder):
    for dtype in (TorchsDtype(), "torch.float64", np.float64, "float64"):
        assert GPT2LMHeadModel.from_pretrained(folder, dtype=dtype).dtype == np.float64
    model = GPT2LMHeadModel.from_pretrained(folder, torch_dtype=TorchsDtype())
    assert model.dtype == np.float64
    both = GPT2LMHeadModel.from_pretrained(
        folder, torch_dtype="float64", dtype="float32"
    )
    assert both.dtype == np.float32
    assert GPT2LMHeadModel(GPT2Config(**TINY)).to(TorchsDtype()).dtype == np.float64


@pytest.mark.peers
def test_torchs_own_dtypes_and_devices_are_taken(folder):
    torch = pytest.importorskip("torch")
    model = GPT2LMHeadModel.from_pretrained(
        folder, dtype=torch.float64, device_map=torch.device("cpu")
    )
    assert model.dtype == np.float64
    with pytest.raises(ValueError, match=r"not torch.float16"):
        GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float16)


def test_use_safetensors_chooses_the_file(folder):
    other = {
        n: a * 2
        for n, a in GPT2LMHeadModel.from_pretrained(folder).state_dict().items()
    }
    np.savez(folder / "model.npz", **other)
    same = GPT2LMHeadModel.from_pretrained(folder, use_safetensors=True)
    double = GPT2LMHeadModel.from_pretrained(folder, use_safetensors=False)
    np.testing.assert_array_equal(
        double.transformer.wpe.weight, same.transformer.wpe.weight * 2
    )
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="none of model.safetensors, model.saf"):
        GPT2LMHeadModel.from_pretrained(folder, use_safetensors=True)


def test_a_configuration_and_a_state_dict_are_a_model_without_a_folder(folder):
    model = GPT2LMHeadModel.from_pretrained(folder)
    for config in (model.config, folder):
        twin = GPT2LMHeadModel.from_pretrained(
            None, config=config, state_dict=model.state_dict()
        )
        np.testing.assert_array_equal(twin(IDS).logits, model(IDS).logits)
    for half in ({"config": model.config}, {"state_dict": {}}, {}):
        with pytest.raises(ValueError, match="takes a config and a state_dict"):
            GPT2Model.from_pretrained(None, **half)
    with pytest.raises(CheckpointError, match="0 by the names"):
        GPT2Model.from_pretrained(None, config=model.config, state_dict={})


def test_generation_config_is_the_models(folder):
    model = GPT2LMHeadModel.from_pretrained(
        folder, generation_config={"max_new_tokens": 3}
    )
    assert model.generation_config.max_new_tokens == 3
    GPT2Model.from_pretrained(folder, generation_config=None)


# --- Saving ---


def test_options_of_saving_are_harmless_or_refused(tmp_path):
    model = GPT2LMHeadModel(GPT2Config(**TINY))
    model.save_pretrained(
        tmp_path,
        safe_serialization=True,
        max_shard_size="5GB",
        push_to_hub=False,
        is_main_process=True,
        variant=None,
        token=None,
    )
    size = (tmp_path / "model.safetensors").stat().st_size
    for option, message in (
        ({"safe_serialization": False}, "only safetensors is written"),
        ({"push_to_hub": True}, "upload the folder"),
        ({"is_main_process": False}, "one process"),
        ({"max_shard_size": "1KB"}, "minigpt2 writes one file"),
        ({"max_shard_size": "big"}, "not a number of bytes"),
        ({"state_dict": {}}, "load_state_dict"),
    ):
        with pytest.raises(ValueError, match=message):
            model.save_pretrained(tmp_path / "other", **option)
    with pytest.raises(TypeError, match="no option sharded"):
        model.save_pretrained(tmp_path / "other", sharded=True)
    assert not (tmp_path / "other").exists()
    model.save_pretrained(tmp_path / "other", max_shard_size=size)


def test_sizes_of_shards_are_read_as_transformers_writes_them():
    sizes = {"5GB": 5 * 10**9, "5GiB": 5 * 2**30, "200MB": 2 * 10**8, 7: 7, "1kb": 1000}
    assert {text: size_in_bytes(text) for text in sizes} == sizes


def test_a_configuration_that_was_changed_is_checked_when_it_is_saved(tmp_path):
    model = GPT2LMHeadModel(GPT2Config(**TINY))
    for name, value, message in (
        ("n_head", 5, "divisible"),
        ("resid_pdrop", 7, "resid_pdrop must lie"),
        ("layer_norm_epsilon", -1.0, "layer_norm_epsilon"),
        ("activation_function", "none", "unknown activation_function"),
        ("add_cross_attention", True, "not supported"),
        ("pruned_heads", {5: [0]}, "pruned_heads has layer 5"),
    ):
        changed = GPT2LMHeadModel(GPT2Config(**TINY))
        setattr(changed.config, name, value)
        for saved in (changed, changed.config):
            with pytest.raises(ValueError, match=message):
                saved.save_pretrained(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            GPT2Model(changed.config)
    for name, value in (("n_layer", 3), ("pruned_heads", {0: [1]}), ("n_positions", 9)):
        changed = GPT2LMHeadModel(GPT2Config(**TINY))
        setattr(changed.config, name, value)
        with pytest.raises(ValueError, match="a model of another shape"):
            changed.save_pretrained(tmp_path / name)
    assert not any(tmp_path.iterdir())
    model.save_pretrained(tmp_path)


# --- Every option of the installed transformers has an answer ---


@pytest.mark.peers
def test_every_option_of_transformers_has_an_answer(folder):
    """None of its keywords ends as "no option of its own": most may be left empty."""
    transformers = pytest.importorskip("transformers")
    source = inspect.getsource(transformers.PreTrainedModel.from_pretrained)
    named = set(
        inspect.signature(transformers.PreTrainedModel.from_pretrained).parameters
    )
    named |= set(re.findall(r'kwargs\.pop\("(\w+)"', source))
    named -= {"pretrained_model_name_or_path", "model_args", "kwargs", "config", "key"}
    for name in sorted(named):
        GPT2LMHeadModel.from_pretrained(
            folder, **{name: "main" if name == "revision" else None}
        )
    saving = set(
        inspect.signature(transformers.PreTrainedModel.save_pretrained).parameters
    )
    saving -= {"self", "save_directory", "kwargs", "max_shard_size"}
    assert saving <= set(SAVING)
    assert "device_map" in LOADING


@pytest.mark.peers
def test_auto_takes_torchs_tensors_as_they_are(tmp_path):
    torch = pytest.importorskip("torch")
    config = GPT2Config(**TINY)
    config.dtype = None
    state = GPT2LMHeadModel(config).state_dict()
    tensors = {n: torch.tensor(np.array(array)) for n, array in state.items()}
    for dtype, found in ((torch.bfloat16, "float32"), (torch.float64, "float64")):
        given = {n: torch.nn.Parameter(t.to(dtype)) for n, t in tensors.items()}
        model = GPT2LMHeadModel.from_pretrained(
            None, config=config, state_dict=given, dtype="auto"
        )
        assert model.dtype == found
