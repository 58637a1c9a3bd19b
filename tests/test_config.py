"""GPT2Config: documented fields, files, aliases, and what it refuses."""

import copy
import dataclasses
import inspect
import json
import pickle

import pytest

from minigpt2 import GPT2Config, PretrainedConfig
from minigpt2.hub.archive import GPT2_SIZES

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
    named = {p.name: p.default for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD}
    assert list(named.items()) == list(DOCUMENTED.items())
    *rest, others = parameters[len(named) :]
    assert {p.kind for p in rest} == {inspect.Parameter.KEYWORD_ONLY}
    assert others.kind == others.VAR_KEYWORD
    config = GPT2Config()
    assert {name: getattr(config, name) for name in DOCUMENTED} == DOCUMENTED
    assert isinstance(config, PretrainedConfig)


def test_help_explains_every_field_with_its_other_name():
    for owner in (GPT2Config, PretrainedConfig):
        signature = inspect.signature(owner).parameters
        for field in dataclasses.fields(owner):
            assert f"\n    {field.name}: {field.metadata['help'][:30]}" in owner.__doc__
            assert field.name in signature
    assert "n_embd: width of the residual stream, C; also named hidden_size" in (
        GPT2Config.__doc__
    )


def test_the_documented_arguments_may_be_positional():
    values = [99, 20, 21, 12, 3, 4, 30, "relu", 0.0, 0.2, 0.3, 1e-6, 0.5]
    config = GPT2Config(*values)
    assert [getattr(config, name) for name in DOCUMENTED] == values
    with pytest.raises(TypeError, match="positional arguments"):
        GPT2Config(*values, True)
    with pytest.raises(TypeError, match="multiple values for argument 'n_positions'"):
        GPT2Config(99, 20, max_position_embeddings=20)


def test_copies_and_pickles_are_equal_and_keep_other_keys():
    config = GPT2Config(n_layer=2, task={"a": [1]}, pruned_heads={1: [0]})
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other == config
        assert type(other) is GPT2Config
        assert other.task == {"a": [1]}
        assert other.task is not config.task
    with pytest.raises(TypeError, match="unhashable"):
        hash(config)


def test_a_subclass_may_have_fields_and_an_init_of_its_own():
    class Own(GPT2Config):
        model_type = "own"

        def __init__(self, width=3, **kwargs):
            super().__init__(**kwargs)
            self.width = width

    config = Own(width=5, n_layer=2, other=1)
    assert (config.width, config.n_layer, config.other) == (5, 2, 1)
    assert Own.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="configuration of a 'gpt2' model, and Own"):
        Own.from_dict(GPT2Config().to_dict())


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
    path = tmp_path / "new" / "config.json"
    assert GPT2Config(str(path)) == GPT2Config(path) == config
    assert GPT2Config(vocab_size_or_config_json_file=str(path)) == config
    assert GPT2Config(str(path), n_layer=4).n_layer == 4
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
        ({"activation_function": ["relu"]}, r"activation_function \['relu'\]; known"),
        ({"resid_pdrop": 1.5}, "resid_pdrop must lie in 0 to 1"),
        ({"resid_pdrop": "0.1"}, "resid_pdrop must lie in 0 to 1, not '0.1'"),
        ({"attn_pdrop": float("nan")}, "attn_pdrop must lie in 0 to 1"),
        ({"layer_norm_epsilon": -1.0}, "layer_norm_epsilon"),
        ({"initializer_range": None}, "initializer_range must be 0 or more, not None"),
        ({"n_layer": None}, "n_layer must be a whole number above 0, not None"),
        ({"hidden_size": 0}, "n_embd must be a whole number above 0"),
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


def test_every_activation_in_ops_is_known():
    from minigpt2 import ops

    for name in ops.ACTIVATIONS:
        assert GPT2Config(activation_function=name).activation_function == name


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("config.json", {"n_embd": "8"}, "n_embd must be a whole number above 0"),
        ("config.json", {"n_layer": 10**400}, "n_layer must be a whole number above 0"),
        ("config.json", {"vocab_size": "x"}, "vocab_size must be a whole number"),
        ("config.json", {"use_cache": "no"}, "use_cache must be true or false"),
        ("config.json", {"layer_norm_epsilon": [1]}, "layer_norm_epsilon must be 0 or"),
        ("config.json", {"resid_pdrop": 10**400}, "resid_pdrop must lie in 0 to 1"),
        ("config.json", {"eos_token_id": {}}, "eos_token_id must be a whole number"),
        ("config.json", {"pruned_heads": {"x": [0]}}, "pruned_heads must be"),
        ("config.json", {"pruned_heads": {"0": 1}}, "pruned_heads must be"),
        ("config.json", {"check": 1}, "check is a method"),
        ("hparams.json", {"n_vocab": 5}, "hparams lack n_ctx, n_embd, n_head, n_layer"),
        (
            "hparams.json",
            {"n_vocab": [], "n_ctx": 4, "n_embd": 4, "n_head": 1, "n_layer": 1},
            "n_vocab must be a whole number above 0",
        ),
    ],
)
def test_a_wrong_value_in_a_file_is_refused_by_file_and_field(
    tmp_path, file, fields, message
):
    (tmp_path / file).write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=message) as caught:
        GPT2Config.from_pretrained(tmp_path)
    assert str(tmp_path / file) in str(caught.value)


def test_a_configuration_of_more_layers_than_the_file_has_tensors_is_refused(tmp_path):
    """Before 10**9 layers are made, which takes more memory than there is."""
    from minigpt2 import GPT2LMHeadModel

    small = GPT2Config(vocab_size=5, n_positions=4, n_embd=4, n_layer=1, n_head=1)
    GPT2LMHeadModel(small, backend="numpy").save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {"n_layer": 10**9}))
    with pytest.raises(
        ValueError, match="n_layer is 1000000000 in .*, and 1 by the names"
    ):
        GPT2LMHeadModel.from_pretrained(tmp_path)


def test_null_stands_for_what_a_file_does_not_say(tmp_path):
    fields = {"n_ctx": None, "model_type": None, "id2label": None, "label2id": None}
    (tmp_path / "config.json").write_text(json.dumps(fields | {"problem_type": None}))
    config = GPT2Config.from_pretrained(tmp_path)
    assert config.n_ctx is None
    assert config == GPT2Config(n_ctx=None)
    assert config.model_type == "gpt2"


# --- Labels ---


def test_labels_have_their_usual_names_and_number_until_others_are_given():
    config = GPT2Config()
    assert config.num_labels == 2
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1}
    config.id2label = {"0": "no", "1": "maybe", "2": "yes"}
    assert config.num_labels == 3
    assert config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    assert config.label2id == {"no": 0, "maybe": 1, "yes": 2}
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    config.num_labels = 3
    assert config.id2label[1] == "maybe"
    config.num_labels = 1
    assert (config.id2label, config.label2id) == ({0: "LABEL_0"}, {"LABEL_0": 0})
    assert "id2label" not in config.to_dict()
    config.id2label = {0: "a", 1: "b"}
    config.id2label = None
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


def test_labels_survive_files_and_follow_overrides(tmp_path):
    labels = {0: "no", 1: "maybe", 2: "yes"}
    config = GPT2Config(id2label=labels, label2id={"no": 0})
    assert config.num_labels == 3
    config.save_pretrained(tmp_path)
    again = GPT2Config.from_pretrained(tmp_path)
    assert again == config
    assert again.id2label == labels
    assert again.label2id == {"no": 0}
    same = GPT2Config.from_pretrained(tmp_path, num_labels=3)
    assert same.id2label == labels
    fewer = GPT2Config.from_pretrained(tmp_path, num_labels=2)
    assert (fewer.num_labels, fewer.id2label[0]) == (2, "LABEL_0")
    other = GPT2Config.from_pretrained(tmp_path, id2label={0: "only"})
    assert (other.num_labels, other.id2label) == (1, {0: "only"})
    for wrong in ([], {}, {"x": "a"}, {0: 1}, "ab", {1.5: "a"}):
        with pytest.raises(ValueError, match="id2label must be {number: label}"):
            GPT2Config(id2label=wrong)


def test_a_problem_type_is_one_that_has_a_loss():
    for known in (None, "regression", "multi_label_classification"):
        assert GPT2Config(problem_type=known, num_labels=1).problem_type == known
    for wrong in ("ranking", 1, ["regression"]):
        with pytest.raises(
            ValueError, match="problem_type is .*; known are None, 'reg"
        ):
            GPT2Config(problem_type=wrong)
    with pytest.raises(ValueError, match="needs num_labels above 1"):
        GPT2Config(problem_type="single_label_classification", num_labels=1)


@pytest.mark.peers
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_labels": 1},
        {"num_labels": 4},
        {"id2label": {0: "a", 1: "b", 2: "c"}},
        {"id2label": {"0": "a"}, "label2id": {"a": 0}},
        {"id2label": {0: "a", 1: "b"}, "num_labels": 2, "problem_type": "regression"},
    ],
)
def test_labels_are_transformers_both_ways(tmp_path, fields):
    transformers = pytest.importorskip("transformers")
    theirs, ours = transformers.GPT2Config(**fields), GPT2Config(**fields)
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    configs = [
        ours,
        GPT2Config.from_pretrained(tmp_path / "theirs"),
        transformers.GPT2Config.from_pretrained(tmp_path / "ours"),
    ]
    for config in configs:
        assert config.num_labels == theirs.num_labels
        assert config.id2label == theirs.id2label
        if theirs.label2id is not None:  # (transformers makes none of given id2label)
            assert config.label2id == theirs.label2id
        assert config.problem_type == theirs.problem_type


@pytest.mark.peers
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n_layer": 3, "use_cache": False, "extra": [1]},
        {"output_hidden_states": True, "tie_word_embeddings": False, "num_labels": 3},
        {"pad_token_id": 7, "problem_type": "regression"},
    ],
)
def test_the_differences_are_those_that_transformers_lists(fields):
    """But for the fields that one of the two lacks, or writes always."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2Config(**fields)
    ours = GPT2Config(**fields)
    both = set(ours.to_dict()) & set(theirs.to_dict())
    # (Of GPT-2's own in transformers 5; of every configuration in 4, as here.)
    both -= {"use_cache", "pad_token_id", "tie_word_embeddings"}
    got = {n: v for n, v in ours.to_diff_dict().items() if n in both}
    assert got == {n: v for n, v in theirs.to_diff_dict().items() if n in both}
    assert ours.to_diff_dict()["model_type"] == "gpt2"
    assert GPT2Config.from_dict(ours.to_diff_dict()) == ours


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pruned_heads", {"0": ["1"]}, "pruned_heads must be"),
        ("pruned_heads", {0: "12"}, "pruned_heads must be"),
        ("pruned_heads", {0.5: [1]}, "pruned_heads must be"),
        ("pruned_heads", {0: [1.0]}, "pruned_heads must be"),
        ("pruned_heads", {-13: [0]}, "pruned_heads has layer -13"),
        ("pruned_heads", {0: [99]}, "head 99 of layer 0"),
        ("n_head", 5, "divisible"),
        ("n_embd", "768", "n_embd must be a whole number"),
        ("resid_pdrop", 7, "resid_pdrop must lie"),
        ("layer_norm_epsilon", -1e-5, "layer_norm_epsilon must be 0 or more"),
        ("layer_norm_epsilon", float("nan"), "layer_norm_epsilon must be 0 or more"),
        ("activation_function", "none", "unknown activation_function"),
        ("activation_function", None, "unknown activation_function"),
        ("add_cross_attention", True, "not supported"),
        ("use_cache", "yes", "use_cache must be true or false"),
        ("num_labels", 0, "num_labels must be a whole number"),
        ("problem_type", "none", "problem_type is 'none'"),
    ],
)
def test_what_was_changed_is_checked_where_a_model_is_made_or_files_are_written(
    tmp_path, name, value, message
):
    from minigpt2 import GPT2LMHeadModel

    config = GPT2Config()
    setattr(config, name, value)
    for use in (
        lambda: GPT2LMHeadModel(config, seed=None),
        lambda: config.save_pretrained(tmp_path / "new"),
        lambda: config.to_json_file(tmp_path / "config.json"),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    assert not any(tmp_path.iterdir())


def test_pruned_heads_that_were_changed_are_those_of_the_model():
    from minigpt2 import GPT2Model

    config = GPT2Config(vocab_size=5, n_positions=4, n_embd=4, n_layer=2, n_head=2)
    config.pruned_heads = {"-1": [0]}
    model = GPT2Model(config)
    assert model.config.pruned_heads == {1: [0]}
    assert [block.attn.n_head for block in model.h] == [2, 1]
