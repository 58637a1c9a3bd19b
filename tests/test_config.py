"""GPT2Config: documented fields, files, aliases, and what it refuses."""

import inspect
import json

import pytest

from minigpt2 import GPT2Config, PretrainedConfig
from minigpt2.config import ACTIVATIONS, GPT2_SIZES

DOCUMENTED = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_ctx": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
}


def test_documented_arguments_have_the_documented_order_and_defaults():
    parameters = list(inspect.signature(GPT2Config).parameters.values())
    named = {p.name: p.default for p in parameters if p.kind != p.VAR_KEYWORD}
    assert list(named.items()) == list(DOCUMENTED.items())
    config = GPT2Config()
    assert {name: getattr(config, name) for name in DOCUMENTED} == DOCUMENTED
    assert isinstance(config, PretrainedConfig)


def test_aliases_read_and_write_the_fields_they_name():
    config = GPT2Config(hidden_size=64, num_attention_heads=4)
    assert (config.n_embd, config.n_head) == (64, 4)
    config.num_hidden_layers = 3
    assert (config.n_layer, config.num_hidden_layers) == (3, 3)
    assert config.max_position_embeddings == config.n_positions
    assert "hidden_size" not in config.to_dict()


def test_dict_json_and_file_give_an_equal_configuration_back(tmp_path):
    config = GPT2Config(
        n_embd=37, n_head=37, pruned_heads={0: [1], 2: [0, 3]}, extra=[1]
    )
    assert GPT2Config.from_dict(config.to_dict()) == config
    assert GPT2Config.from_dict(json.loads(config.to_json_string())) == config
    config.save_pretrained(tmp_path / "new")
    assert GPT2Config.from_pretrained(tmp_path / "new") == config
    assert GPT2Config(str(tmp_path / "new" / "config.json")) == config
    assert GPT2Config.from_json_file(tmp_path / "new" / "config.json").extra == [1]
    assert config != GPT2Config()
    assert config.to_json_string().endswith("}\n")
    assert '"n_embd": 37' in repr(config)


def test_to_dict_is_a_deep_copy():
    config = GPT2Config(task={"a": [1]})
    config.to_dict()["task"]["a"].append(2)
    assert config.task == {"a": [1]}


def test_overrides_and_unused_keywords():
    fields = GPT2Config().to_dict()
    assert GPT2Config.from_dict(fields, hidden_size=96).n_embd == 96
    config, unused = GPT2Config.from_dict(
        fields, return_unused_kwargs=True, n_layer=2, foo=False
    )
    assert config.n_layer == 2
    assert unused == {"foo": False}
    assert not hasattr(config, "foo")


def test_pruned_heads_are_counted_from_the_first_layer_and_named_once():
    config = GPT2Config(pruned_heads={"-1": [3, 1], "11": [1, 2], "0": []})
    assert config.pruned_heads == {11: [1, 2, 3]}


def test_hparams_name_the_last_id_as_end_of_text(tmp_path):
    hparams = {"n_vocab": 2048, "n_ctx": 256, "n_embd": 128, "n_head": 4, "n_layer": 4}
    path = tmp_path / "hparams.json"
    path.write_text(json.dumps(hparams))
    for source in (hparams, path):
        config = GPT2Config.from_hparams(source)
        assert (config.vocab_size, config.n_positions, config.n_ctx) == (2048, 256, 256)
        assert config.bos_token_id == config.eos_token_id == 2047
    assert GPT2Config.from_pretrained(tmp_path) == config
    with pytest.raises(ValueError, match="hparams lack n_ctx"):
        GPT2Config.from_hparams({"n_vocab": 1, "n_embd": 2, "n_head": 1, "n_layer": 1})


def test_the_four_released_sizes_have_the_published_numbers_of_parameters():
    def parameters(c):
        block = 12 * c.n_embd**2 + 13 * c.n_embd
        tables = (c.vocab_size + c.n_positions) * c.n_embd
        return tables + c.n_layer * block + 2 * c.n_embd

    counts = {name: parameters(GPT2Config(**size)) for name, size in GPT2_SIZES.items()}
    assert counts == {
        "gpt2": 124_439_808,
        "gpt2-medium": 354_823_168,
        "gpt2-large": 774_030_080,
        "gpt2-xl": 1_557_611_200,
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"n_embd": 30, "n_head": 4},
            r"n_embd \(30\) must be divisible by n_head \(4\)",
        ),
        ({"n_layer": -1}, "n_layer must be a whole number above 0, not -1"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"n_positions": 2.5}, "n_positions"),
        ({"n_inner": 0}, "n_inner"),
        (
            {"activation_function": "xielu"},
            "unknown activation_function 'xielu'",
        ),
        ({"resid_pdrop": 1.5}, "resid_pdrop must lie in 0 to 1"),
        ({"layer_norm_epsilon": -1.0}, "layer_norm_epsilon"),
        ({"add_cross_attention": True}, "add_cross_attention=True is not supported"),
        ({"pruned_heads": {12: [0]}}, "pruned_heads has layer 12; there are 12"),
        ({"pruned_heads": {0: [12]}}, "head 12 of layer 0; heads are numbered 0 to 11"),
        ({"pruned_heads": {"-1": range(12)}}, "leaves layer 11 without a head"),
        ({"model_type": "llama"}, "configuration of a 'llama' model"),
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        GPT2Config(**wrong)


def test_unknown_attributes_and_broken_files_say_what_is_wrong(tmp_path):
    with pytest.raises(AttributeError, match="GPT2Config has no field 'n_layres'"):
        _ = GPT2Config().n_layres
    for content in ("<html>", "[1]"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match="config.json"):
            GPT2Config.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder 'nowhere'"):
        GPT2Config.from_pretrained("nowhere")


def test_every_known_activation_is_an_op():
    from minigpt2 import ops

    assert tuple(ops.ACTIVATIONS) == ACTIVATIONS
    assert all(callable(ops.ACTIVATIONS[name]) for name in ACTIVATIONS)
