"""Stopping, outputs, streaming, long sequences, and the options' own file."""

import itertools
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    PrefixCache,
    ops,
)
from minigpt2.generation.stopping import StopStrings

TINY = {"vocab_size": 13, "n_positions": 24, "n_embd": 12, "n_layer": 2, "n_head": 3}


@pytest.fixture(scope="module")
def tiny():
    config = GPT2Config(**TINY, initializer_range=0.5, eos_token_id=12, bos_token_id=12)
    return GPT2LMHeadModel(config, dtype=np.float64)


@pytest.fixture(scope="module")
def speaker(shakespeare):
    """A model that says something, and its tokenizer."""
    return (
        GPT2LMHeadModel.from_pretrained(shakespeare.folder, dtype=np.float64),
        GPT2Tokenizer.from_pretrained(shakespeare.folder),
    )


# --- stopping


def test_a_stop_string_ends_a_text_wherever_its_tokens_begin(speaker):
    model, tokenizer = speaker
    ids = tokenizer.encode("ROMEO:", return_tensors="np")
    free = tokenizer.decode(model.generate(ids, max_new_tokens=60)[0, ids.shape[1] :])
    tokens = [tokenizer.decode(i) for i in tokenizer.encode(free)]
    assert any(len(token) > 2 for token in tokens)
    for start in range(5, 30, 4):
        stop = free[start : start + 4]  # four characters of two or three tokens
        out = model.generate(
            ids, max_new_tokens=60, stop_strings=["@@@", stop], tokenizer=tokenizer
        )
        said = tokenizer.decode(out[0, ids.shape[1] :])
        without_last = tokenizer.decode(out[0, ids.shape[1] : -1])
        assert free.startswith(said)
        assert stop in said
        assert stop not in without_last


@given(st.text("ab", max_size=8), st.text("ab", min_size=1, max_size=4), st.data())
def test_a_stop_string_matches_exactly_when_the_last_token_completes_it(
    before, stop, data
):
    """Tokens are cut anywhere: the answer is that of the text."""
    text = data.draw(st.just(before + stop) | st.text("ab", min_size=1, max_size=9))
    cuts = data.draw(st.sets(st.integers(1, max(len(text) - 1, 1)), max_size=4))
    places = [0, *sorted(c for c in cuts if c < len(text)), len(text)]
    tokens = [text[a:b].encode() for a, b in itertools.pairwise(places)]

    class Tokenizer:
        class bpe:
            decode = staticmethod(lambda ids: b"".join(tokens[i] for i in ids))

    ended = StopStrings(stop, Tokenizer)(np.array([[-1, *range(len(tokens))]]))
    last = places[-2]  # where the last token begins
    ends = [i + len(stop) for i in range(len(text)) if text.startswith(stop, i)]
    assert ended.tolist() == [any(end > last for end in ends)]


def test_max_time_stops_after_the_step_that_is_too_late(tiny):
    class Slow:
        def put(self, ids):
            time.sleep(0.03)

        def end(self):
            pass

    options = {"max_new_tokens": 20, "eos_token_id": [], "streamer": Slow()}
    start = time.perf_counter()
    out = tiny.generate([[1, 2]], max_time=0.1, **options)
    assert 3 <= out.shape[1] < 12
    assert time.perf_counter() - start < 0.6
    assert tiny.generate([[1, 2]], max_time=0, **options).shape == (1, 3)


def test_own_criteria_and_processors_see_all_rows_with_padding_filled_in(tiny):
    seen = []

    def only_even(input_ids, scores):
        seen.append(input_ids.copy())
        return np.where(np.arange(13) % 2, -np.inf, scores)

    def third_row_at_length_six(input_ids, scores):
        assert scores.shape == (3, 13)
        return np.array([False, False, input_ids.shape[1] == 6])

    out = tiny.generate(
        [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
        attention_mask=[[0, 1, 1], [1, 1, 1], [1, 1, 1]],
        max_new_tokens=6, eos_token_id=[], pad_token_id=11,
        logits_processor=[only_even], stopping_criteria=[third_row_at_length_six],
    )  # fmt: skip
    assert (out[:2, 3:] % 2 == 0).all()
    assert (out[2, 6:] == 11).all()
    assert seen[0].tolist() == [[11, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert all(ids.shape[0] == 3 for ids in seen)


def test_rows_that_have_ended_leave_the_work(tiny):
    """Counted in the rows of the forward passes."""
    ids = np.array([[i, j] for i in range(4) for j in range(3)])
    options = {"max_new_tokens": 20, "do_sample": True, "temperature": 3.0, "seed": 1}
    rows = []
    forward = tiny.forward
    try:
        tiny.forward = lambda *args, **more: (
            rows.append(len(args[0])) or forward(*args, **more)
        )
        out = tiny.generate(ids, **options)
    finally:
        del tiny.forward
    lengths = (out[:, 2:] != 12).sum(axis=1) + 1  # the end id is chosen, not read
    expected = [12] + [int((lengths > step).sum()) for step in range(1, len(rows))]
    assert rows == expected
    assert len(set(rows)) > 4


@pytest.mark.parametrize("pad", [-1, 99])
def test_padding_may_be_outside_the_vocabulary(tiny, pad):
    ids = [[1, 2], [3, 4], [5, 6]]
    options = {"max_new_tokens": 12, "eos_token_id": list(range(4))}
    for more in ({}, {"num_beams": 4, "num_beam_groups": 2}, {"num_beams": 2}):
        plain = tiny.generate(ids, **options, **more, pad_token_id=12)
        for wanted in (False, True):
            out = tiny.generate(
                ids, **options, **more, pad_token_id=pad, return_dict_in_generate=wanted
            )
            out = out.sequences if wanted else out
            np.testing.assert_array_equal(out[out != pad], plain[out != pad])


# --- outputs


def test_every_output_is_what_the_forward_passes_give(tiny):
    ids = [[1, 2, 3], [4, 5, 6]]
    out = tiny.generate(
        ids, max_new_tokens=4, eos_token_id=[], repetition_penalty=1.4,
        return_dict_in_generate=True, output_scores=True, output_logits=True,
        output_attentions=True, output_hidden_states=True,
    )  # fmt: skip
    whole = tiny(out.sequences, output_attentions=True, output_hidden_states=True)
    for step in range(4):
        np.testing.assert_allclose(out.logits[step], whole.logits[:, 2 + step], 1e-9)
        new = slice(0, 3) if step == 0 else slice(2 + step, 3 + step)
        for layer in range(2):
            np.testing.assert_allclose(
                out.attentions[step][layer],
                whole.attentions[layer][:, :, new, : 3 + step],
                1e-9,
            )
        for mine, theirs in zip(out.hidden_states[step], whole.hidden_states):
            np.testing.assert_allclose(mine, theirs[:, new], 1e-9, 1e-12)
    chosen = np.stack(out.scores).argmax(axis=-1).T
    np.testing.assert_array_equal(out.sequences[:, 3:], chosen)
    assert out.past_key_values.length == 6
    scores = tiny.compute_transition_scores(
        out.sequences, out.logits, normalize_logits=True
    )
    expected = np.take_along_axis(
        ops.log_softmax(whole.logits[:, 2:-1]), out.sequences[:, 3:, None], axis=-1
    )
    np.testing.assert_allclose(scores, expected[..., 0], 1e-9)


def test_return_sequences_repeat_what_belongs_to_the_prompt(tiny):
    out = tiny.generate(
        [[1, 2]], max_new_tokens=3, do_sample=True, seed=1, num_return_sequences=3,
        return_dict_in_generate=True, output_attentions=True, output_scores=True,
    )  # fmt: skip
    assert [len(step[0]) for step in out.attentions] == [3, 3, 3]
    assert [step.shape for step in out.scores] == [(3, 13)] * 3
    assert "logits" not in out


# --- streaming


def test_a_stream_gives_the_ids_and_the_text_of_generate(speaker):
    model, tokenizer = speaker
    ids = tokenizer.encode("JULIET:\nO ", return_tensors="np")
    options = {"max_new_tokens": 40, "do_sample": True, "seed": 8, "top_k": 50}
    out = model.generate(ids, **options)[0, ids.shape[1] :]
    tokens = list(model.stream(ids, tokenizer=tokenizer, logprobs=3, **options))
    assert [token.id for token in tokens] == out.tolist()
    assert "".join(token.text for token in tokens) == tokenizer.decode(out)
    whole = model(np.concatenate([ids[0], out])[None]).logits[0, ids.shape[1] - 1 : -1]
    logs = ops.log_softmax(whole)
    for token, row in zip(tokens, logs):
        assert abs(token.logprob - row[token.id]) < 1e-9
        best = np.argsort(-row)[:3]
        assert [id for id, _ in token.alternatives] == best.tolist()
        np.testing.assert_allclose([p for _, p in token.alternatives], row[best])


def test_a_streams_pieces_are_whole_characters(shakespeare):
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2")
    config = GPT2Config(n_embd=4, n_layer=1, n_head=1, n_positions=64)
    model = GPT2LMHeadModel(config)
    text = "naïve 🤗 日本"
    ids = tokenizer.encode(text)
    # A processor that dictates the text, whose characters are cut by token borders
    dictate = iter(ids[1:])

    def next_of_text(input_ids, scores):
        out = np.full_like(scores, -np.inf)
        out[:, next(dictate)] = 0.0
        return out

    pieces = [
        token.text
        for token in model.stream(
            [ids[:1]], tokenizer=tokenizer, max_new_tokens=len(ids) - 1,
            logits_processor=[next_of_text],
        )
    ]  # fmt: skip
    assert "" in pieces
    assert tokenizer.decode(ids[:1]) + "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_stream_computes_only_what_is_asked_for(tiny):
    rows = []
    forward = tiny.forward
    try:
        tiny.forward = lambda *a, **m: rows.append(0) or forward(*a, **m)
        stream = tiny.stream([[1, 2]], max_new_tokens=20, eos_token_id=[])
        assert rows == []
        next(stream)
        next(stream)
        stream.close()
    finally:
        del tiny.forward
    assert len(rows) == 2


def test_a_stream_says_at_once_what_is_wrong(tiny):
    with pytest.raises(ValueError, match="one row"):
        tiny.stream([[1], [2]])
    with pytest.raises(ValueError, match="greedy decoding and sampling only"):
        tiny.stream([[1]], num_beams=2)
    with pytest.raises(ValueError, match="did you mean 'temperature'"):
        tiny.stream([[1]], temprature=2)
    with pytest.raises(ValueError, match="logprobs must be a whole number"):
        tiny.stream([[1]], logprobs=-1)


# --- going on, and long sequences


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_returned_cache_continues_the_sequence(tiny, data):
    prompts = data.draw(
        st.lists(
            st.lists(st.integers(0, 11), min_size=3, max_size=3), min_size=1, max_size=3
        )
    )
    mask = np.ones((len(prompts), 3), int)
    mask[0, : data.draw(st.integers(0, 2))] = 0
    options = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "eos_token_id": []}
    first = tiny.generate(
        prompts, attention_mask=mask, max_new_tokens=4, return_dict_in_generate=True,
        **options,
    )  # fmt: skip
    said = np.array([data.draw(st.integers(0, 11)) for _ in prompts])
    ids = np.concatenate([first.sequences, said[:, None]], axis=1)
    longer = np.concatenate([mask, np.ones((len(prompts), 5), int)], axis=1)
    again = {"input_ids": ids, "attention_mask": longer, "max_new_tokens": 5, **options}
    np.testing.assert_array_equal(
        tiny.generate(past_key_values=first.past_key_values, **again),
        tiny.generate(**again),
    )


def test_a_past_that_holds_all_or_more_than_the_prompt(tiny):
    past = tiny([[1, 2, 3]]).past_key_values
    plain = tiny.generate([[1, 2, 3]], max_new_tokens=5)
    np.testing.assert_array_equal(
        tiny.generate([[1, 2, 3]], past_key_values=past, max_new_tokens=5), plain
    )
    with pytest.raises(ValueError, match="holds 3 positions and input_ids 2"):
        tiny.generate([[1, 2]], past_key_values=past)
    with pytest.raises(ValueError, match="needs use_cache=True"):
        tiny.generate([[1, 2, 3, 4]], past_key_values=past, use_cache=False)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=8
    )
)
def test_a_prefix_cache_changes_nothing_and_reads_only_what_is_new(tiny, prompts):
    cache, sequences = PrefixCache(capacity=2), []
    read = []
    forward = tiny.forward
    for prompt in prompts:
        plain = tiny.generate([prompt], max_new_tokens=5, eos_token_id=[])
        read.clear()
        try:
            tiny.forward = lambda *a, **m: (
                read.append(a[0].shape[1]) or forward(*a, **m)
            )
            out = tiny.generate(
                [prompt], max_new_tokens=5, eos_token_id=[], prefix_cache=cache
            )
        finally:
            del tiny.forward
        np.testing.assert_array_equal(out, plain)
        if sequences:  # what the last one shares is not read again
            last = sequences[-1][:-1]
            shared = 0
            while shared < min(len(last), len(prompt) - 1) and (
                last[shared] == prompt[shared]
            ):
                shared += 1
            assert read[0] <= len(prompt) - shared
        sequences.append(out[0].tolist())
        assert len(cache) <= 2


def test_a_prefix_cache_is_one_models_and_for_one_row(tiny):
    cache = PrefixCache()
    tiny.generate([[1, 2]], prefix_cache=cache)
    other = GPT2LMHeadModel(tiny.config, dtype=np.float64)
    with pytest.raises(ValueError, match="filled by another model"):
        other.generate([[1, 2]], prefix_cache=cache)
    with pytest.raises(ValueError, match="one row"):
        tiny.generate([[1, 2], [3, 4]], prefix_cache=cache)
    with pytest.raises(ValueError, match="prefix_cache works with greedy"):
        tiny.generate([[1, 2]], num_beams=2, prefix_cache=cache)
    with pytest.raises(ValueError, match="no sliding_window"):
        tiny.generate([[1, 2]], sliding_window=2, prefix_cache=PrefixCache())


def test_a_stream_that_is_left_early_leaves_what_it_read(tiny):
    cache = PrefixCache()
    options = {"max_new_tokens": 9, "eos_token_id": []}
    plain = tiny.generate([[1, 2, 3]], **options)[0].tolist()
    stream = tiny.stream([[1, 2, 3]], prefix_cache=cache, **options)
    said = [next(stream).id for _ in range(4)]
    stream.close()
    assert said == plain[3:7]
    assert cache.past_of(tiny, [plain[:9]]).length == 6  # the last id was not read


def test_an_own_processor_may_write_to_what_it_is_given(tiny):
    def no_even(input_ids, scores):
        scores[:, ::2] = -np.inf
        return scores

    options = {"max_new_tokens": 5, "return_dict_in_generate": True}
    out = tiny.generate(
        [[1, 2]], logits_processor=[no_even], output_logits=True, **options
    )
    assert (out.sequences[0, 2:] % 2 == 1).all()
    assert np.isfinite(out.logits).all()


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_a_sliding_window_reads_the_end_of_each_row_again(tiny, data):
    """Against a loop that does it step by step, row by row, without any cache."""
    prompts = data.draw(
        st.lists(
            st.lists(st.integers(0, 11), min_size=1, max_size=30),
            min_size=1,
            max_size=3,
        )
    )
    window, new = data.draw(st.integers(1, 24)), 40
    width = max(map(len, prompts))
    ids, mask = np.full((len(prompts), width), 12), np.zeros((len(prompts), width), int)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
    out = tiny.generate(
        ids, attention_mask=mask, max_new_tokens=new, sliding_window=window,
        eos_token_id=[],
    )  # fmt: skip
    for row, prompt in enumerate(prompts):
        ids, start = list(prompt), 0
        for _ in range(new):
            if len(ids) - start > 24:
                start = len(ids) - window
            ids.append(int(tiny([ids[start:]]).logits[0, -1].argmax()))
        assert out[row, width:].tolist() == ids[len(prompt) :]


# --- GenerationConfig


def test_a_configuration_comes_back_from_its_file(tmp_path):
    config = GenerationConfig(
        do_sample=True, top_k=50, sequence_bias={(1, 2): 0.5}, eos_token_id=[3, 4]
    )
    config.save_pretrained(tmp_path / "new")
    again = GenerationConfig.from_pretrained(tmp_path / "new")
    assert again.to_dict() == config.to_dict()
    assert again.sequence_bias == [[[1, 2], 0.5]]
    assert GenerationConfig.from_pretrained(tmp_path / "new", top_k=3).top_k == 3


def test_the_hubs_file_is_read(tmp_path):
    # what the hub's gpt2/generation_config.json says, and nulls as 5.x writes them
    (tmp_path / "generation_config.json").write_text(
        json.dumps(
            {"_from_model_config": True, "bos_token_id": 50256, "eos_token_id": 50256,
             "transformers_version": "4.26.0.dev0", "top_k": None, "watermarking": None}
        )
    )  # fmt: skip
    config = GenerationConfig.from_pretrained(tmp_path)
    assert config.to_dict() == {"bos_token_id": 50256, "eos_token_id": 50256}


def test_an_unknown_option_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(ValueError, match="no option 'topk'; did you mean 'top_k'"):
        GenerationConfig.of({"topk": 3})
    with pytest.raises(ValueError, match="did you mean 'num_beams'"):
        GenerationConfig().updated(num_beam=3)
    path = tmp_path / "generation_config.json"
    path.write_text('{"watermarking_config": {"bias": 2.0}}')
    with pytest.raises(
        ValueError,
        match=r"generation_config.json: the option watermarking_config is not",
    ):
        GenerationConfig.from_pretrained(tmp_path)


def test_what_is_said_beside_a_configuration_counts_even_if_it_is_a_default(tiny):
    config = GenerationConfig(max_new_tokens=3, num_beams=3, top_k=1, do_sample=True)
    ids = [[1, 2]]
    assert tiny.generate(ids, generation_config=config).shape == (1, 5)
    plain = tiny.generate(ids, max_new_tokens=4)
    out = tiny.generate(
        ids, generation_config=config, max_new_tokens=4, num_beams=1, do_sample=False
    )
    np.testing.assert_array_equal(out, plain)
    # positional, and equal to the signature's defaults: 20 ids at most, greedily
    config = config.updated(max_new_tokens=None, num_beams=1, max_length=9)
    np.testing.assert_array_equal(
        tiny.generate(ids, 20, False, generation_config=config),
        tiny.generate(ids)[:, :20],
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_p_rule": "mine"}, "top_p_rule must be one of huggingface"),
        ({"output_scores": True}, "output_scores needs return_dict_in_generate"),
        ({"early_stopping": "soon"}, "early_stopping must be"),
        ({"num_beams": 2, "num_return_sequences": 3}, "is more than num_beams=2"),
        ({"num_beams": 3, "num_beam_groups": 2}, "not divisible"),
        ({"diversity_penalty": 1.0}, "needs num_beam_groups > 1"),
        ({"penalty_alpha": 0.5}, "needs both penalty_alpha above 0 and top_k above 1"),
        (
            {"do_sample": True, "min_p": 1.5},
            "min_p must be a number of at least 0 and at most 1",
        ),
        ({"max_time": -1}, "max_time must be"),
        ({"num_beams": True}, "num_beams must be a whole number"),
        ({"seed": 1.5, "do_sample": True}, "seed must be a whole number or a list"),
        ({"seed": -1, "do_sample": True}, "seed must be a whole number of at least 0"),
        ({"eos_token_id": "x"}, "eos_token_id must be a whole number or a list"),
        ({"pad_token_id": 0.5}, "pad_token_id must be a whole number, not 0.5"),
        ({"length_penalty": "x"}, "length_penalty must be a number"),
        ({"sliding_window": 3, "num_beams": 2}, "sliding_window works with greedy"),
        ({"bad_words_ids": [[]]}, "bad_words_ids has an empty sequence"),
        ({"sequence_bias": {(99,): 1.0}}, "sequence_bias holds 99"),
        ({"forced_eos_token_id": -1}, "forced_eos_token_id holds -1"),
        ({"stop_strings": "x"}, "need the model's tokenizer"),
        ({"suppress_tokens": list(range(13))}, "leave no id to choose"),
        ({"sliding_window": 25}, "more than this model's n_positions=24"),
        ({"negative_prompt_ids": [[1]]}, "needs guidance_scale"),
    ],
)
def test_what_cannot_be_is_refused(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        tiny.generate([[1, 2]], **options)


# --- guidance


def test_guidance_is_the_formula_on_two_plain_passes(tiny):
    ids, negative = [[1, 2, 3], [4, 5, 6]], [[7, 8], [9, 3]]
    out = tiny.generate(
        ids, max_new_tokens=5, guidance_scale=1.7, negative_prompt_ids=negative,
        eos_token_id=[],
    )  # fmt: skip
    for row in range(2):
        new = out[row, 3:].tolist()
        for step in range(5):
            c = ops.log_softmax(tiny([[*ids[row], *new[:step]]]).logits[0, -1])
            u = ops.log_softmax(tiny([[*negative[row], *new[:step]]]).logits[0, -1])
            assert (u + 1.7 * (c - u)).argmax() == new[step]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bad_words_ids", 5),
        ("bad_words_ids", [[True]]),
        ("sequence_bias", 5),
        ("sequence_bias", [[[1], "x"]]),
        ("sequence_bias", [[[[1]], 0.5]]),
        ("exponential_decay_length_penalty", 7),
        ("exponential_decay_length_penalty", [[1], 2]),
        ("stop_strings", [1]),
        ("max_length", 10**400),
        ("temperature", 10**400),
        ("length_penalty", 10**400),
    ],
)
def test_values_of_another_form_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        GenerationConfig(**{name: value})


# --- What transformers' GenerationConfig can do


@pytest.mark.peers
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True},
        {"num_beams": 3},
        {"num_beams": 3, "do_sample": True},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"prompt_lookup_num_tokens": 3},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
    ],
)
def test_the_mode_is_transformers(options):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GenerationConfig(**options).get_generation_mode()
    ours = GenerationConfig(**options)
    assert ours.get_generation_mode() == theirs.value
    assert ours.get_generation_mode(assistant_model=object()) == "assisted_generation"


def test_updates_are_taken_whole_or_not_at_all_and_what_is_unknown_comes_back():
    config = GenerationConfig(top_k=5, do_sample=True)
    unknown = config.update(top_k=7, temperature=0.5, length=3)
    assert unknown == {"length": 3}
    assert (config.top_k, config.temperature) == (7, 0.5)
    with pytest.raises(ValueError, match="top_p"):
        config.update(top_k=9, top_p=7.0)
    assert (config.top_k, config.top_p) == (7, 1.0)


@pytest.mark.peers
def test_options_of_a_models_configuration_are_those_that_transformers_takes():
    transformers = pytest.importorskip("transformers")
    fields = {"bos_token_id": 3, "eos_token_id": 4, "pad_token_id": 5}
    theirs = transformers.GenerationConfig.from_model_config(
        transformers.GPT2Config(**fields)
    )
    for config in (GPT2Config(**fields), transformers.GPT2Config(**fields), fields):
        ours = GenerationConfig.from_model_config(config)
        for name in fields:
            assert getattr(ours, name) == getattr(theirs, name)
