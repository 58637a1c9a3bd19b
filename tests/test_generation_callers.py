"""What callers bring: configurations, a folder's file, their own functions, vectors."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import random_state_dict

import minigpt2
from minigpt2 import (
    GenerationConfig,
    GPT2Config,
    GPT2DoubleHeadsModel,
    GPT2LMHeadModel,
    GPT2Model,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from minigpt2.generation import processors

V = 41
SIZES = {"vocab_size": V, "n_positions": 40, "n_embd": 16, "n_layer": 2, "n_head": 2}
ENDS = {"eos_token_id": 40, "bos_token_id": 40}
PROMPTS = [[3, 17, 8, 25], [39, 5, 30, 2]]
MASK = [[1, 1, 1, 1], [0, 1, 1, 1]]


@pytest.fixture(scope="module")
def ours():
    model = GPT2LMHeadModel(
        GPT2Config(**SIZES, **ENDS), dtype=np.float64, backend="numpy"
    )
    model.load_state_dict(random_state_dict(SIZES, seed=7))
    return model


@pytest.fixture(scope="module")
def theirs(ours):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()
    config = transformers.GPT2Config(**SIZES, **ENDS, attn_implementation="eager")
    model = transformers.GPT2LMHeadModel(config).double().eval()
    state = {name: torch.tensor(array) for name, array in ours.state_dict().items()}
    model.load_state_dict(state, strict=False)
    return model


# --- the folder's file


def test_a_folders_configuration_is_applied_and_written(tmp_path, ours):
    plain = ours.generate(PROMPTS[:1], max_new_tokens=8)
    ours.save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    assert json.loads(path.read_text()) == ENDS
    end = int(plain[0, 6])
    path.write_text(json.dumps({
        "eos_token_id": [end], "max_new_tokens": 8, "transformers_version": "5.23.0",
        "encoder_no_repeat_ngram_size": 0, "top_k": None, "_from_model_config": False,
    }))  # fmt: skip
    model = GPT2LMHeadModel.from_pretrained(tmp_path, dtype=np.float64)
    assert model.generation_config.eos_token_id == [end]
    first = 4 + plain[0, 4:].tolist().index(end)
    np.testing.assert_array_equal(model.generate(PROMPTS[:1]), plain[:, : first + 1])
    # what is said counts, then the call's configuration, then the model's
    out = model.generate(PROMPTS[:1], eos_token_id=[])
    np.testing.assert_array_equal(out, plain)
    config = GenerationConfig(max_new_tokens=2)
    assert model.generate(PROMPTS[:1], generation_config=config).shape == (1, 6)
    assert [t.id for t in model.stream(PROMPTS[:1])] == plain[0, 4 : first + 1].tolist()
    model.generation_config.max_new_tokens = 1
    assert model.generate(PROMPTS[:1]).shape == (1, 5)
    model.save_pretrained(tmp_path / "again")
    again = GPT2LMHeadModel.from_pretrained(tmp_path / "again")
    assert again.generation_config == model.generation_config
    assert model.with_weights("float32").generation_config == model.generation_config


def test_documented_defaults_hold_where_the_file_says_nothing(tmp_path, ours):
    ours.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"do_sample": true}')
    model = GPT2LMHeadModel.from_pretrained(tmp_path, dtype=np.float64)
    assert model.generation_config.top_k == 0
    out = model.generate(PROMPTS[:1], seed=1, max_new_tokens=30)
    expected = ours.generate(PROMPTS[:1], do_sample=True, seed=1, max_new_tokens=30)
    np.testing.assert_array_equal(out, expected)  # and the end id is the model's
    greedy = model.generate(PROMPTS[:1], do_sample=False, max_new_tokens=5)
    np.testing.assert_array_equal(greedy, ours.generate(PROMPTS[:1], max_new_tokens=5))


def test_what_a_file_says_that_is_not_supported_is_warned_of(tmp_path, ours):
    ours.save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(
        '{"watermarking_config": {"bias": 2.0}, "tempratur": 1, "top_k": 3}'
    )
    message = r"watermarking_config=\{'bias': 2.0\}, tempratur=1"
    with pytest.warns(UserWarning, match=message) as caught:
        model = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert caught[0].filename == __file__
    assert model.generation_config == GenerationConfig(top_k=3)
    for name, value in (("max_length", "x"), ("eos_token_id", {}), ("num_beams", 0)):
        path.write_text(json.dumps({name: value}))
        with pytest.raises(ValueError, match=f"generation_config.json: {name}"):
            GPT2LMHeadModel.from_pretrained(tmp_path)


def test_options_as_keywords_of_from_pretrained(tmp_path, ours):
    ours.save_pretrained(tmp_path)
    for there in (True, False):
        if not there:
            (tmp_path / "generation_config.json").unlink()
        model = GPT2LMHeadModel.from_pretrained(
            tmp_path, max_new_tokens=3, temperature=0.7, eos_token_id=7, use_cache=False
        )
        config = model.generation_config
        assert (config.max_new_tokens, config.temperature) == (3, 0.7)
        assert config.eos_token_id == model.config.eos_token_id == 7
        assert not hasattr(model.config, "temperature")
        assert model.config.use_cache is False
        assert model.generate(PROMPTS[:1]).shape == (1, 7)
    with pytest.raises(ValueError, match="num_beams must be"):
        GPT2LMHeadModel.from_pretrained(tmp_path, num_beams=0)
    with pytest.raises(TypeError, match="max_new_tokens"):
        GPT2Model.from_pretrained(tmp_path, max_new_tokens=3)


def test_which_models_generate(tmp_path, ours):
    assert ours.can_generate()
    assert GPT2DoubleHeadsModel.can_generate()
    assert not GPT2Model.can_generate()
    assert not hasattr(ours.transformer, "generation_config")
    ours.transformer.save_pretrained(tmp_path)
    assert not (tmp_path / "generation_config.json").exists()


def test_a_models_own_configuration_follows_its_config_until_it_is_asked_for(ours):
    model = GPT2LMHeadModel(GPT2Config(**SIZES, **ENDS, max_length=9, do_sample=True))
    assert model.generate(PROMPTS[:1], seed=1, eos_token_id=[]).shape == (1, 9)
    model.config.eos_token_id = 3
    assert model.generation_config == GenerationConfig(
        max_length=9, do_sample=True, eos_token_id=3, bos_token_id=40
    )
    model.generation_config = {"max_new_tokens": 2, "eos_token_id": []}
    assert model.generate(PROMPTS[:1]).shape == (1, 6)
    with pytest.raises(ValueError, match="no option 'max_new_token'"):
        model.generation_config = {"max_new_token": 2}


# --- GenerationConfig


def test_a_configuration_that_was_changed_is_checked_when_it_is_used(tmp_path, ours):
    for name, value, message in (
        ("num_beams", 0, "num_beams must be"),
        ("max_length", "x", "max_length must be"),
        ("output_scores", True, "needs return_dict_in_generate"),
        ("topk", 3, "no option 'topk'; did you mean 'top_k'"),
        ("stop_strings", 7, "stop_strings must be"),
    ):
        config = GenerationConfig()
        setattr(config, name, value)
        with pytest.raises(ValueError, match=message):
            config.save_pretrained(tmp_path)
        assert not list(tmp_path.iterdir())
        with pytest.raises(ValueError, match=message):
            ours.generate(PROMPTS, generation_config=config)
        model = ours.with_weights("float32")
        setattr(model.generation_config, name, value)
        with pytest.raises(ValueError, match=message):
            model.generate(PROMPTS)
        with pytest.raises(ValueError, match=message):
            model.save_pretrained(tmp_path / "model")


def test_update_changes_what_it_knows_and_returns_the_rest():
    config = GenerationConfig()
    assert config.update(top_k=3, max_new_tokens=4, foo=1) == {"foo": 1}
    assert config == GenerationConfig(top_k=3, max_new_tokens=4)
    assert config.to_diff_dict() == {"top_k": 3, "max_new_tokens": 4}
    with pytest.raises(ValueError, match="num_beams must be"):
        config.update(top_k=5, num_beams=0)
    assert config.top_k == 3


@pytest.mark.peers
@pytest.mark.parametrize(
    "options",
    [{}, {"do_sample": True}, {"num_beams": 2}, {"num_beams": 2, "do_sample": True},
     {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
     {"penalty_alpha": 0.5, "top_k": 4}, {"prompt_lookup_num_tokens": 3}],
)  # fmt: skip
def test_the_mode_has_transformers_name(options):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GenerationConfig(**options).get_generation_mode()
    assert GenerationConfig(**options).get_generation_mode() == theirs
    theirs = transformers.GenerationConfig().get_generation_mode(assistant_model=1)
    assert GenerationConfig().get_generation_mode(assistant_model=1) == theirs


@pytest.mark.peers
def test_transformers_configurations_are_taken(tmp_path, ours):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GenerationConfig(max_new_tokens=3, repetition_penalty=1.3)
    options = {"max_new_tokens": 3, "repetition_penalty": 1.3}
    expected = ours.generate(PROMPTS, attention_mask=MASK, **options)
    for config in (theirs, options, GenerationConfig(**options)):
        out = ours.generate(PROMPTS, attention_mask=MASK, generation_config=config)
        np.testing.assert_array_equal(out, expected)
    # its defaults are not said, whichever version writes them
    out = ours.generate(PROMPTS, generation_config=transformers.GenerationConfig())
    np.testing.assert_array_equal(out, ours.generate(PROMPTS))
    # and each reads the other's file
    theirs.save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).changed() == options
    GenerationConfig(**options).save_pretrained(tmp_path)
    again = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert again.max_new_tokens == 3
    with pytest.raises(
        ValueError, match="must be a GenerationConfig or a dict, not int"
    ):
        ours.generate(PROMPTS, generation_config=3)


@pytest.mark.parametrize(
    ("name", "neutral", "other"),
    [("encoder_no_repeat_ngram_size", 0, 2), ("encoder_repetition_penalty", 1.0, 1.2),
     ("token_healing", False, True), ("force_words_ids", None, [[3]]),
     ("constraints", None, [1]), ("watermarking_config", None, {"bias": 1})],
)  # fmt: skip
def test_neutral_values_of_options_that_are_not_here(ours, name, neutral, other):
    plain = ours.generate(PROMPTS, max_new_tokens=3)
    out = ours.generate(PROMPTS, max_new_tokens=3, **{name: neutral})
    np.testing.assert_array_equal(out, plain)
    with pytest.raises(ValueError, match=f"the option {name} is not supported"):
        ours.generate(PROMPTS, max_new_tokens=3, **{name: other})


def test_options_that_cannot_change_an_id_may_have_any_value(ours):
    plain = ours.generate(PROMPTS, max_new_tokens=3)
    out = ours.generate(
        PROMPTS, max_new_tokens=3, disable_compile=True, synced_gpus=False,
        num_assistant_tokens_schedule="heuristic", return_legacy_cache=True,
        use_model_defaults=True, logits_to_keep=1,
    )  # fmt: skip
    np.testing.assert_array_equal(out, plain)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(sorted(GenerationConfig.__dataclass_fields__))


@settings(max_examples=600, deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=2))
def test_any_value_of_json_is_taken_or_refused_in_words(options):
    try:
        config = GenerationConfig.of(options)
    except ValueError:
        return
    again = GenerationConfig.of(config.to_dict())
    assert json.dumps(again.to_dict()) == json.dumps(config.to_dict())


# --- other names, vectors, types


def test_inputs_is_another_name_of_input_ids(ours):
    expected = ours.generate(PROMPTS, attention_mask=MASK)
    out = ours.generate(inputs=PROMPTS, attention_mask=MASK)
    np.testing.assert_array_equal(out, expected)
    with pytest.raises(ValueError, match="two names of one argument"):
        ours.generate(PROMPTS, inputs=PROMPTS)


SEARCHES = [
    {},
    {"repetition_penalty": 1.4},
    {"min_length": 9, "eos_token_id": [40, 3, 5, 8]},
    {"min_new_tokens": 5, "eos_token_id": [40, 3, 5, 8]},
    {"num_beams": 3},
    {"num_beams": 3, "num_return_sequences": 3, "length_penalty": 2.0},
]


@pytest.mark.peers
@pytest.mark.parametrize("options", SEARCHES)
@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty`")
def test_vectors_in_place_of_ids_as_transformers(ours, theirs, options, with_ids):
    import torch

    vectors = ours.transformer.wte.weight[PROMPTS] * 1.25  # those of no ids
    for row in range(2) if "num_beams" in options else [slice(None)]:
        rows = slice(row, row + 1) if isinstance(row, int) else row
        mask = np.array(MASK)[rows]
        arguments = {"attention_mask": mask, "inputs_embeds": vectors[rows]}
        if with_ids:
            arguments["input_ids"] = np.array(PROMPTS)[rows]
        options = {"max_new_tokens": 7, "pad_token_id": 39, **options}
        if "min_length" in options and with_ids:
            continue  # transformers takes the vectors' length off the ids' as well
        out = ours.generate(**arguments, **options)
        expected = theirs.generate(
            **{name: torch.tensor(value) for name, value in arguments.items()},
            **options,
            top_k=0,
        )
        np.testing.assert_array_equal(out, expected)


def test_vectors_of_ids_give_what_the_ids_give(ours):
    vectors = ours.transformer.wte.weight[PROMPTS]
    for options in ({}, {"num_beams": 3}, {"penalty_alpha": 0.5, "top_k": 4},
                    {"do_sample": True, "seed": 1, "num_return_sequences": 2}):  # fmt: skip
        expected = ours.generate(PROMPTS, attention_mask=MASK, **options)
        out = ours.generate(
            PROMPTS, inputs_embeds=vectors, attention_mask=MASK, **options
        )
        np.testing.assert_array_equal(out, expected)
        alone = ours.generate(inputs_embeds=vectors, attention_mask=MASK, **options)
        np.testing.assert_array_equal(alone, expected[:, 4:])
        out = ours.generate(inputs_embeds=vectors, attention_mask=MASK, max_length=9)
        assert out.shape == (2, 5)
    tokens = ours.stream(inputs_embeds=vectors[:1], max_new_tokens=3)
    assert [t.id for t in tokens] == ours.generate(PROMPTS)[0, 4:7].tolist()
    for wrong, message in (
        ({"inputs_embeds": vectors[..., :3]}, "inputs_embeds has shape"),
        ({"inputs_embeds": vectors, "input_ids": [[1]]}, "input_ids have the shape"),
        (
            {"inputs_embeds": vectors, "attention_mask": [[1, 1, 1, 0]] * 2},
            "at the left",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            ours.generate(**wrong)


@pytest.mark.peers
@pytest.mark.parametrize("options", [*SEARCHES, {"use_cache": False}])
def test_token_types_as_transformers(ours, theirs, options):
    import torch

    types = np.array([[1, 1, 2, 9], [0, 2, 2, 30]])
    for rows in (slice(0, 1), slice(1, 2)) if "num_beams" in options else (slice(2),):
        arguments = {
            "input_ids": np.array(PROMPTS)[rows],
            "attention_mask": np.array(MASK)[rows],
            "token_type_ids": types[rows],
        }
        more = {"max_new_tokens": 9, "pad_token_id": 39, **options}
        out = ours.generate(**arguments, **more)
        expected = theirs.generate(
            **{name: torch.tensor(value) for name, value in arguments.items()},
            **more,
            top_k=0,
        )
        np.testing.assert_array_equal(out, expected)
        del arguments["token_type_ids"]
        assert ours.generate(**arguments, **more).tolist() != out.tolist()


# --- callers' functions


@pytest.mark.peers
@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 2}, {"num_beams": 2, "num_return_sequences": 2},
     {"num_beams": 3, "repetition_penalty": 1.3}],
)  # fmt: skip
def test_allowed_ids_as_transformers(ours, theirs, options):
    import torch

    def allowed(prompt, ids):
        assert len(ids) >= 4
        return [(int(ids[-1]) * 7 + prompt * 5 + j) % 40 for j in range(6)]

    more = {"max_new_tokens": 8, "pad_token_id": 39, "eos_token_id": [40, 3], **options}
    more["prefix_allowed_tokens_fn"] = allowed
    ids = [PROMPTS[0], [5, 30, 2, 11]]
    out = ours.generate(ids, **more)
    expected = theirs.generate(torch.tensor(ids), top_k=0, **more).numpy()
    np.testing.assert_array_equal(out, expected[:, : out.shape[1]])
    assert (expected[:, out.shape[1] :] == 39).all()


@pytest.mark.parametrize(
    "options",
    [{}, {"num_return_sequences": 2, "do_sample": True, "seed": 2}, {"num_beams": 4},
     {"num_beams": 4, "num_beam_groups": 2}, {"prompt_lookup_num_tokens": 2},
     {"penalty_alpha": 0.5, "top_k": 3}],
)  # fmt: skip
def test_allowed_ids_are_asked_for_by_prompt(ours, options):
    each = options.get("num_return_sequences", 1)

    def allowed(prompt, ids):
        prompt //= each  # of sampling, as in transformers, it is the row
        assert len(ids) >= 3
        if "prompt_lookup_num_tokens" not in options:  # whose rows go alone
            assert ids[:4].tolist() == PROMPTS[prompt]  # padding is pad_token_id
        return np.arange(10 * prompt, 10 * prompt + 10)

    out = ours.generate(
        PROMPTS, attention_mask=MASK, pad_token_id=39, max_new_tokens=5,
        prefix_allowed_tokens_fn=allowed, **options,
    )  # fmt: skip
    for row, new in enumerate(out[:, 4:]):
        assert (new // 10 == row // each).all()
    for wrong, message in (([], "allows no id for prompt 0"), ([V], "ids are 0 to 40")):
        with pytest.raises(ValueError, match=message):
            ours.generate(PROMPTS, prefix_allowed_tokens_fn=lambda i, ids: wrong)  # noqa: B023


@pytest.mark.peers
def test_transformers_processors_and_criteria_that_compute_with_arrays(ours):
    t = pytest.importorskip("transformers")
    processor = t.LogitsProcessorList([t.TemperatureLogitsWarper(0.5)])
    criteria = t.StoppingCriteriaList(
        [t.MaxLengthCriteria(max_length=7), t.MaxTimeCriteria(max_time=60.0)]
    )
    out = ours.generate(
        PROMPTS, max_new_tokens=9, logits_processor=processor,
        stopping_criteria=criteria, eos_token_id=[], return_dict_in_generate=True,
        output_scores=True, output_logits=True,
    )  # fmt: skip
    assert out.sequences.shape == (2, 7)
    np.testing.assert_array_equal(out.scores[0], out.logits[0] / 0.5)


def test_own_classes_and_lists_of_them(ours):
    class Double(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores * 2

    class AtSix(StoppingCriteria):
        def __call__(self, input_ids, scores):
            return np.full(len(input_ids), input_ids.shape[1] >= 6)

    chain = LogitsProcessorList([Double(), lambda ids, s: s + 1])
    assert chain(np.zeros((1, 2)), np.array([[3.0]])).tolist() == [[7.0]]
    both = StoppingCriteriaList([AtSix(), lambda ids, s: ids[:, -1] == 3])
    assert both(np.array([[1, 3], [1, 2]]), None).tolist() == [True, False]
    out = ours.generate(
        PROMPTS, logits_processor=chain, eos_token_id=[],
        stopping_criteria=StoppingCriteriaList([AtSix()]),
    )  # fmt: skip
    assert out.shape == (2, 6)
    for wrong, message in (
        ({"logits_processor": Double()}, "logits_processor must be a list"),
        ({"stopping_criteria": AtSix()}, "stopping_criteria must be a list"),
        ({"logits_processor": [lambda ids, s: s[:1]]}, r"it must be \(2, 41\)"),
    ):
        with pytest.raises(ValueError, match=message):
            ours.generate(PROMPTS, **wrong)
    for base in (LogitsProcessor(), StoppingCriteria()):
        with pytest.raises(NotImplementedError, match="must define __call__"):
            base(None, None)


def test_processors_keep_what_is_allowed():
    scores = np.arange(8.0).reshape(2, 4)
    out = processors.allow(
        scores, np.zeros((2, 1), int), lambda prompt, ids: [prompt, 3], [0, 2]
    )
    inf = np.inf
    assert out.tolist() == [[0, -inf, -inf, 3], [-inf, -inf, 6, 7]]


# --- caches of searches


@pytest.mark.peers
def test_the_cache_of_beams_has_transformers_shape(ours, theirs):
    import torch

    options = {
        "max_new_tokens": 6, "pad_token_id": 39, "num_beams": 3, "eos_token_id": 40,
        "return_dict_in_generate": True,
    }  # fmt: skip
    out = ours.generate(PROMPTS, **options)
    expected = theirs.generate(torch.tensor(PROMPTS), top_k=0, **options)
    past, other = out.past_key_values, expected.past_key_values
    assert past.get_seq_length() == other.get_seq_length() == 9
    for mine, layer in zip(past, other.layers):
        assert mine[0].shape == mine[1].shape == tuple(layer.keys.shape)
    assert ours.generate(PROMPTS, **options, use_cache=False).past_key_values is None


@pytest.mark.parametrize("groups", [1, 2])
def test_the_cache_of_beams_is_theirs_who_went_on(ours, groups):
    """Without an end all beams are returned, so each one's cache is there."""
    out = ours.generate(
        [PROMPTS[0], [1, 2, 3, 4]], max_new_tokens=5, eos_token_id=[], num_beams=4,
        num_beam_groups=groups, return_dict_in_generate=True, num_return_sequences=4,
    )  # fmt: skip
    past = out.past_key_values
    assert past.layer_shape(0)[0] == 8
    assert past.length == 8
    whole = ours(out.sequences[:, :-1]).past_key_values
    for row in range(8):
        for layer in range(2):
            for mine, expected in zip(past[layer], whole[layer]):
                assert np.abs(mine - expected[row]).max(axis=(1, 2, 3)).min() < 1e-9


@pytest.mark.parametrize(
    "options",
    [{"penalty_alpha": 0.6, "top_k": 4}, {"penalty_alpha": 0.6, "top_k": 1 + 40}],
)
def test_the_cache_of_contrastive_search_is_that_of_the_result(ours, options):
    out = ours.generate(
        [PROMPTS[0], [1, 2, 3, 4]], max_new_tokens=6, eos_token_id=[],
        return_dict_in_generate=True, **options,
    )  # fmt: skip
    whole = ours(out.sequences[:, :-1]).past_key_values
    assert out.past_key_values.length == 9
    for mine, expected in zip(out.past_key_values, whole):
        np.testing.assert_allclose(mine[0], expected[0], atol=1e-9)
        np.testing.assert_allclose(mine[1], expected[1], atol=1e-9)
    more = ours.generate(out.sequences, past_key_values=out.past_key_values)
    np.testing.assert_array_equal(more, ours.generate(out.sequences))


# --- what serves instead


@pytest.mark.parametrize(
    ("name", "word"), [("set_seed", "seed="), ("pipeline", "tokenizer.decode")]
)
def test_names_of_transformers_say_what_serves(name, word):
    with pytest.raises(ImportError, match=word):
        getattr(minigpt2, name)


def test_no_warning_for_plain_calls(ours):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.generate(PROMPTS, max_new_tokens=2, temperature=0.5, top_k=3)
