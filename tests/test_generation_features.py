"""How options are declared, and the table of what excludes what."""

import inspect
import itertools
import re
from dataclasses import MISSING, dataclass, fields

import numpy as np
import pytest

from minigpt2 import GenerationConfig, GPT2Config, GPT2LMHeadModel, PrefixCache
from minigpt2.cli import parser
from minigpt2.generation.features import EXCLUDES, Strategy
from minigpt2.generation.mixin import STRATEGIES
from minigpt2.generation.options import (
    check_needs,
    check_value,
    documented,
    option,
    option_of,
)

TINY = {"vocab_size": 13, "n_positions": 24, "n_embd": 12, "n_layer": 2, "n_head": 3}
PROMPT = [[1, 2, 3]]


@pytest.fixture(scope="module")
def tiny():
    config = GPT2Config(**TINY, initializer_range=0.5, eos_token_id=12, bos_token_id=12)
    return GPT2LMHeadModel(config, dtype=np.float64)


class Silent:
    """A streamer that nobody reads."""

    def put(self, ids):
        pass

    def end(self):
        pass


class Letters:
    """As much of a tokenizer as stop strings need: id i is the i-th letter."""

    class bpe:
        decode = staticmethod(lambda ids: bytes(97 + i for i in ids))


# Each feature of the table, and others: what asks for it. Those of the second part
# change no id of the result.
FEATURES = {
    Strategy.LOOP: lambda model: {},
    Strategy.BEAMS: lambda model: {"num_beams": 4},
    Strategy.GROUP_BEAMS: lambda model: {"num_beams": 4, "num_beam_groups": 2},
    Strategy.CONTRASTIVE: lambda model: {"penalty_alpha": 0.5, "top_k": 4},
    "do_sample": lambda model: {"do_sample": True, "seed": 1},
    "num_return_sequences": lambda model: {"num_return_sequences": 2, "num_beams": 4},
    "guidance_scale": lambda model: {"guidance_scale": 1.5},
    "stop_strings": lambda model: {"stop_strings": "b", "tokenizer": Letters()},
    "logits_processor": lambda model: {
        "logits_processor": [lambda ids, s: np.where(np.isfinite(s), -s, s)]
    },
    "stopping_criteria": lambda model: {"stopping_criteria": [lambda ids, s: True]},
    "repetition_penalty": lambda model: {"repetition_penalty": 1.5},
    "token_type_ids": lambda model: {"token_type_ids": [[4, 5, 6]]},
    "prefix_allowed_tokens_fn": lambda model: {
        "prefix_allowed_tokens_fn": lambda prompt, ids: [2, 3, 5, 7, 11]
    },
}
NEUTRAL = {
    Strategy.SPECULATIVE: lambda model: {"prompt_lookup_num_tokens": 3},
    "assistant_model": lambda model: {"assistant_model": model},
    "sliding_window": lambda model: {"sliding_window": 20},
    "past_key_values": lambda m: {"past_key_values": m([[1, 2]]).past_key_values},
    "prefix_cache": lambda model: {"prefix_cache": PrefixCache()},
    "use_cache": lambda model: {"use_cache": False},
    "inputs_embeds": lambda model: {
        "inputs_embeds": model.transformer.wte.weight[PROMPT]},
    "streamer": lambda model: {"streamer": Silent()},
    "output_attentions": lambda model: {
        "output_attentions": True, "return_dict_in_generate": True},
    "output_hidden_states": lambda model: {
        "output_hidden_states": True, "return_dict_in_generate": True},
    "output_scores": lambda model: {
        "output_scores": True, "return_dict_in_generate": True},
    "output_logits": lambda model: {
        "output_logits": True, "return_dict_in_generate": True},
}  # fmt: skip
ALL = {**FEATURES, **NEUTRAL}
APART = [
    (feature, other, message)
    for feature, others, message in EXCLUDES
    for other in others
]


def asked_for(arguments):
    """Return the features that arguments ask for, by the strategies' definitions."""
    names = set(arguments)
    if names & {"prompt_lookup_num_tokens", "assistant_model"}:
        names.add(Strategy.SPECULATIVE)
    if "num_beam_groups" in names:
        names.add(Strategy.GROUP_BEAMS)
    elif "num_beams" in names:
        names.add(Strategy.BEAMS)
    if "penalty_alpha" in names:
        names.add(Strategy.CONTRASTIVE)
    return names


def exactly(*texts):
    """Return the pattern of one of the texts and nothing else."""
    return "^(" + "|".join(map(re.escape, texts)) + ")$"


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(ALL, 2)])
def test_two_features_go_together_unless_the_table_says_otherwise(tiny, first, second):
    arguments = {**ALL[first](tiny), **ALL[second](tiny)}
    options = {"max_new_tokens": 5}
    names = asked_for(arguments)
    refusals = [
        message.format(feature=feature, other=other)
        for feature, other, message in APART
        if feature in names and other in names
    ]
    if refusals:
        with pytest.raises(ValueError, match=exactly(*refusals)):
            tiny.generate(PROMPT, **options, **arguments)
        return
    out = tiny.generate(PROMPT, **options, **arguments)
    out = out.sequences if "return_dict_in_generate" in arguments else out
    assert out.shape[0] == arguments.get("num_return_sequences", 1)
    assert out[0, :3].tolist() == PROMPT[0]
    sampled_draft = {"assistant_model", "do_sample"} <= names
    other_past = {"token_type_ids", "past_key_values"} <= names  # that has no types
    if second in NEUTRAL and not sampled_draft and not other_past:
        without = tiny.generate(PROMPT, **options, **ALL[first](tiny))
        without = getattr(without, "sequences", without)
        np.testing.assert_array_equal(out, without)


@pytest.mark.parametrize(("feature", "other", "message"), APART)
def test_what_the_table_excludes_is_refused_in_its_words(tiny, feature, other, message):
    arguments = {}
    for name in (feature, other):
        if name in ("penalty_alpha", "prompt_lookup_num_tokens"):
            strategies = Strategy.CONTRASTIVE, Strategy.SPECULATIVE
            name = strategies[name == "prompt_lookup_num_tokens"]
        if name == "num_return_sequences":  # without beams
            arguments |= {"num_return_sequences": 2, "do_sample": True}
        elif name != "stream":
            arguments |= ALL[name](tiny)
    run = tiny.stream if feature == "stream" else tiny.generate
    text = message.format(feature=feature, other=other)
    with pytest.raises(ValueError, match=exactly(text)):
        run(PROMPT, **arguments)


def test_every_strategy_has_its_function():
    assert set(STRATEGIES) == set(Strategy)


# --- options


def test_an_option_is_declared_checked_and_documented_in_one_place():
    @documented
    @dataclass
    class Options:
        """Two options."""

        switch: bool = option(False, "turns it on")
        size: int | None = option(
            None, "how large it is", heading="Sizes", least=2, needs=("switch",)
        )

    switch, size = fields(Options)
    for value in (None, 2, 3):
        check_value(size, value)
    for value in (1, 2.0, "2", True):
        with pytest.raises(
            ValueError, match="size must be a whole number of at least 2"
        ):
            check_value(size, value)
    with pytest.raises(ValueError, match="switch must be one of False, True, not 'no'"):
        check_value(switch, "no")
    with pytest.raises(ValueError, match="size needs switch=True"):
        check_needs((switch, size), {"size"})
    check_needs((switch, size), {"size", "switch"})
    assert inspect.getdoc(Options).splitlines() == [
        "Two options.",
        "    switch (bool = False): turns it on",
        "",
        "Sizes:",
        "    size (int | None = None): how large it is (at least 2)",
    ]


def test_help_and_signature_show_every_option():
    parameters = inspect.signature(GenerationConfig).parameters
    documentation = inspect.getdoc(GenerationConfig)
    for field in fields(GenerationConfig):
        assert parameters[field.name].default == field.default is not MISSING
        assert option_of(field).help
        assert f"\n    {field.name} (" in documentation


def test_the_documented_defaults_of_generate_are_the_options():
    defaults = {field.name: field.default for field in fields(GenerationConfig)}
    shown = inspect.signature(GPT2LMHeadModel.generate).parameters
    both = set(shown) & set(defaults)
    assert len(both) == 8
    assert shown["max_length"].default == 20  # pytorch-transformers', if it is said
    assert {name: shown[name].default for name in both} == {
        name: defaults[name] for name in both
    } | {"max_length": 20}


def test_the_command_has_the_options_that_have_a_metavar():
    known = vars(parser().parse_args(["generate", "x"]))
    for field in fields(GenerationConfig):
        by_hand = field.name == "stop_strings"
        assert (field.name in known) == (by_hand or bool(option_of(field).metavar))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_sample": "false"}, "do_sample must be one of False, True, not 'false'"),
        ({"temperature": "hot"}, "temperature must be a number, not 'hot'"),
        ({"temperature": float("nan")}, "temperature must be a number, not nan"),
        ({"suppress_tokens": [1.5]}, "suppress_tokens must be a whole number"),
        ({"length_penalty": float("nan")}, "length_penalty must be a number, not nan"),
    ],
)
def test_a_value_of_another_type_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GenerationConfig(**options)


def test_arrays_and_numpys_numbers_are_fine_as_options(tiny):
    options = {"max_new_tokens": 5, "do_sample": True}
    plain = tiny.generate(
        PROMPT, seed=[3], eos_token_id=[4, 5], suppress_tokens=[1], top_k=5, **options
    )
    out = tiny.generate(
        PROMPT, seed=np.array([3]), eos_token_id=np.array([4, 5]), top_k=np.int64(5),
        suppress_tokens=np.array([1]), **options,
    )  # fmt: skip
    np.testing.assert_array_equal(out, plain)
