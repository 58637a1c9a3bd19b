"""Ids that a vocabulary lacks, the model's or the tokenizer's, and no end id at all."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    TextIteratorStreamer,
    TextStreamer,
)
from minigpt2.generation import processors

V = 101
SIZES = {"vocab_size": V, "n_positions": 40, "n_embd": 16, "n_layer": 2, "n_head": 2}
PROMPT = [[3, 5, 7, 3, 5]]
STRATEGIES = {
    "greedy": {},
    "sampling": {"do_sample": True, "seed": 1},
    "beams": {"num_beams": 3},
    "beam sampling": {"num_beams": 3, "do_sample": True, "seed": 1},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "contrastive": {"penalty_alpha": 0.5, "top_k": 4},
    "lookup": {"prompt_lookup_num_tokens": 3},
    "window": {"sliding_window": 6},
}


def model_of(**more):
    config = GPT2Config(**SIZES, initializer_range=0.5, **more)
    return GPT2LMHeadModel(config, dtype=np.float64, backend="numpy")


@pytest.fixture(scope="module")
def endless():
    """A model whose configuration has no end id."""
    return model_of(eos_token_id=None, bos_token_id=1)


OUTSIDE = [V, 50256, -1, -V, [50256], [50256, 7], [-1, 7]]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("end", OUTSIDE)
def test_an_end_id_outside_the_vocabulary_ends_nothing(endless, strategy, end):
    """-1 is not the last id, neither chosen nor forbidden."""
    options = {"max_new_tokens": 6, "pad_token_id": 0, **STRATEGIES[strategy]}
    real = [i for i in np.atleast_1d(end) if 0 <= i < V]
    expected = endless.generate(PROMPT, eos_token_id=real, **options)
    for more in ({}, {"min_new_tokens": 2}, {"min_length": 8}):
        out = endless.generate(PROMPT, eos_token_id=end, **options, **more)
        if not real and "groups" not in strategy:
            np.testing.assert_array_equal(out, expected)
        assert out.shape[1] <= 11


def test_a_forbidden_end_outside_the_vocabulary_does_not_forbid_the_last_id():
    scores = np.zeros((2, 5))
    assert np.isfinite(processors.suppress(scores, [-1, 5, -5])).all()
    assert np.isneginf(processors.suppress(scores, [-1, 4])[:, 4]).all()


@pytest.mark.parametrize("ids", [[-1], [V], [-1, 500]])
@pytest.mark.parametrize("name", ["suppress_tokens", "begin_suppress_tokens"])
def test_suppressed_ids_outside_the_vocabulary_do_nothing(endless, name, ids):
    plain = endless.generate(PROMPT, max_new_tokens=5)
    out = endless.generate(PROMPT, max_new_tokens=5, **{name: ids})
    np.testing.assert_array_equal(out, plain)


@pytest.mark.parametrize("id", [-1, V, 50256])
def test_ids_whose_scores_are_set_must_be_in_the_vocabulary(endless, id):
    for options in (
        {"forced_eos_token_id": id},
        {"forced_eos_token_id": [3, id]},
        {"forced_bos_token_id": id},
        {"bad_words_ids": [[3], [3, id]]},
        {"sequence_bias": {(id, 3): 1.0}},
        {"eos_token_id": [3, id], "exponential_decay_length_penalty": (1, 1.5)},
    ):
        with pytest.raises(ValueError, match=f"holds {id}, which is outside 0 to 100"):
            endless.generate(PROMPT, max_new_tokens=5, **options)
    with pytest.raises(ValueError, match=f"bos_token_id holds {id}"):
        endless.generate(bos_token_id=id, max_new_tokens=5)


@pytest.mark.peers
@pytest.mark.parametrize("end", OUTSIDE)
def test_ends_outside_the_vocabulary_as_transformers(endless, end):
    torch, theirs = theirs_of(endless)
    for more in (
        {},
        {"min_new_tokens": 2},
        {"min_length": 8},
        {"num_beams": 2},
        {"num_beams": 2, "min_length": 8},
        {"suppress_tokens": [-1, 500]},
        {"begin_suppress_tokens": [500, 7]},
    ):
        options = {"max_new_tokens": 5, "pad_token_id": 0, "eos_token_id": end, **more}
        expected = theirs.generate(torch.tensor(PROMPT), **options)
        np.testing.assert_array_equal(endless.generate(PROMPT, **options), expected)


def theirs_of(ours):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()
    config = transformers.GPT2Config(
        **SIZES, eos_token_id=None, bos_token_id=1, attn_implementation="eager"
    )
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    state = {name: torch.tensor(array) for name, array in ours.state_dict().items()}
    theirs.load_state_dict(state, strict=False)
    return torch, theirs


# --- padding


@pytest.mark.parametrize("pad", [-1, -7, V, 500, 50256])
@pytest.mark.parametrize("strategy", set(STRATEGIES) - {"window"})
def test_padding_outside_the_vocabulary_changes_no_id(endless, strategy, pad):
    ids = [[3, 5, 7], [5, 3, 5], [9, 8, 5]]
    options = {
        "max_new_tokens": 12, "eos_token_id": list(range(0, V, 4)),
        "repetition_penalty": 1.3, "no_repeat_ngram_size": 2,
        "return_dict_in_generate": True, "output_scores": True, **STRATEGIES[strategy],
    }  # fmt: skip
    mask = [[0, 1, 1], [1, 1, 1], [1, 1, 1]]
    plain = endless.generate(ids, attention_mask=mask, pad_token_id=0, **options)
    out = endless.generate(ids, attention_mask=mask, pad_token_id=pad, **options)
    padding = out.sequences == pad
    np.testing.assert_array_equal(out.sequences[~padding], plain.sequences[~padding])
    assert (plain.sequences[padding] == 0).all()
    beams = out.get("beam_indices")
    found = endless.compute_transition_scores(out.sequences, out.scores, beams)
    expected = endless.compute_transition_scores(plain.sequences, plain.scores, beams)
    live = ~padding[:, 3 : 3 + found.shape[1]]
    np.testing.assert_allclose(found[live], expected[live], 1e-12)
    assert (found[~live] == 0).all()


def test_transition_scores_of_padding_are_nothing(endless):
    scores = (np.arange(6.0).reshape(2, 3),) * 2
    for pad in (-1, 3, 500):
        sequences = np.array([[1, 2, pad], [1, 0, 1]])
        found = endless.compute_transition_scores(sequences, scores)
        assert found.tolist() == [[2.0, 0.0], [3.0, 4.0]]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=8), st.integers(1, 5))
def test_processors_read_padding_as_nothing(ids, size):
    """What they make of ids with others among them is what they make without those."""
    scores = np.linspace(-2, 3, 5)[None]
    inside = [i for i in ids if 0 <= i < 5]
    a, b = np.array([ids]), np.array([inside], np.int64).reshape(1, -1)
    for function, value in (
        (processors.repetition_penalty, 1.5),
        (processors.no_repeat_ngram, size),
    ):
        np.testing.assert_array_equal(
            function(scores, a, value), function(scores, b, value)
        )
    np.testing.assert_array_equal(
        processors.diversity(scores, a[0], 0.5), processors.diversity(scores, b[0], 0.5)
    )


@pytest.mark.peers
def test_a_prompt_is_left_out_of_the_repetition_penalty_as_in_transformers():
    torch = pytest.importorskip("torch")
    logits_process = pytest.importorskip("transformers.generation.logits_process")
    ids = np.array([[0, 1, 2, 3, 1], [4, 4, 0, 2, 3]])
    scores = np.linspace(-2, 3, 12).reshape(2, 6).astype(np.float32)
    for length in range(6):
        theirs = logits_process.RepetitionPenaltyLogitsProcessor(
            1.4, prompt_ignore_length=length
        )
        np.testing.assert_array_equal(
            processors.repetition_penalty(scores, ids, 1.4, length),
            theirs(torch.tensor(ids), torch.tensor(scores)).numpy(),
        )


# --- no end id


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("end", [None, []])
def test_without_an_end_id_every_strategy_goes_on_to_the_end(endless, strategy, end):
    listed = model_of(eos_token_id=[7, 8], bos_token_id=1)
    ids = PROMPT * 2
    options = {"max_new_tokens": 6, **STRATEGIES[strategy]}
    assert endless.generate(ids, eos_token_id=end, **options).shape == (2, 11)
    if end == []:
        listed.load_state_dict(endless.state_dict())
        np.testing.assert_array_equal(
            listed.generate(ids, eos_token_id=end, **options),
            endless.generate(ids, **options),
        )
    with_penalty = {"exponential_decay_length_penalty": (1, 2.0), "min_new_tokens": 3}
    assert endless.generate(ids, eos_token_id=end, **options, **with_penalty).size


class Letters:
    """A tokenizer of 26 letters, as much as stop strings need."""

    class bpe:
        @staticmethod
        def decode(ids):
            if any(i >= 26 for i in ids):
                raise ValueError("no such id")
            return bytes(97 + i for i in ids)


def test_a_stop_string_ends_one_row_of_a_batch_without_an_end_id(endless):
    dictated = iter([[1, 60], [2, 2], [70, 1], [5, 2]])

    def dictate(ids, scores):
        out = np.full_like(scores, -np.inf)
        out[[0, 1], next(dictated)] = 0.0
        return out

    out = endless.generate(
        [[3], [4]], max_new_tokens=4, stop_strings="bc", tokenizer=Letters(),
        logits_processor=[dictate],
    )  # fmt: skip
    # id 60 and 70 are no letters: no match, and on it goes
    assert out.tolist() == [[3, 1, 2, 0, 0], [4, 60, 2, 1, 2]]


# --- ids beyond the tokenizer


@pytest.fixture(scope="module")
def padded(shakespeare):
    """The Shakespeare model with more ids than its tokenizer, which it says, too."""
    model = GPT2LMHeadModel.from_pretrained(shakespeare.folder, backend="numpy")
    tokenizer = GPT2Tokenizer.from_pretrained(shakespeare.folder)
    model.resize_token_embeddings(len(tokenizer) + 24)
    return model, tokenizer


def dictation(ids):
    left = iter(ids)

    def processor(input_ids, scores):
        out = np.full_like(scores, -np.inf)
        out[:, next(left)] = 0.0
        return out

    return [processor]


def test_ids_beyond_the_tokenizer_have_no_text(padded):
    model, tokenizer = padded
    ids = tokenizer.encode("To be, or not")
    beyond = len(tokenizer) + 3
    said = [ids[0], beyond, *ids[1:], len(tokenizer), ids[0]]
    options = {"max_new_tokens": len(said), "eos_token_id": []}
    text = tokenizer.decode([i for i in said if i < len(tokenizer)])

    tokens = list(
        model.stream(
            [ids], tokenizer=tokenizer, logits_processor=dictation(said), **options
        )
    )
    assert [token.id for token in tokens] == said
    assert "".join(token.text for token in tokens) == text
    file = io.StringIO()
    streamer = TextStreamer(tokenizer, skip_prompt=True, file=file)
    out = model.generate(
        [ids], streamer=streamer, logits_processor=dictation(said),
        stop_strings=["no such text"], tokenizer=tokenizer, **options,
    )  # fmt: skip
    assert out[0, len(ids) :].tolist() == said
    assert file.getvalue() == text + "\n"
    # and a prompt that has one
    list(model.stream([[*ids, beyond]], tokenizer=tokenizer, max_new_tokens=2))


@pytest.mark.parametrize("skip", [None, False, True])
@pytest.mark.peers
def test_streamers_write_special_tokens_as_transformers_do(padded, skip, capsys):
    streamers = pytest.importorskip("transformers.generation.streamers")
    torch = pytest.importorskip("torch")
    model, tokenizer = padded
    options = {} if skip is None else {"skip_special_tokens": skip}
    prompt = np.array([tokenizer.encode("<|endoftext|>To be")])
    new = tokenizer.encode(" or not<|endoftext|>")
    for skip_prompt in (False, True):
        ours = TextStreamer(tokenizer, skip_prompt, **options)
        theirs = streamers.TextStreamer(tokenizer, skip_prompt, **options)
        pieces = TextIteratorStreamer(tokenizer, skip_prompt, timeout=1, **options)
        written = []
        for streamer, array in ((ours, np.array), (theirs, torch.tensor)):
            streamer.put(array(prompt.tolist()))
            for id in new:
                streamer.put(array([id]))
            streamer.end()
            written.append(capsys.readouterr().out)
        pieces.put(prompt)
        for id in new:
            pieces.put(np.array([id]))
        pieces.end()
        assert written[0] == written[1]
        assert "".join(pieces) + "\n" == written[0]


def test_an_iterator_streamer_gives_the_text_of_generate_from_a_thread(padded):
    from queue import Empty
    from threading import Thread

    model, tokenizer = padded
    ids = tokenizer.encode("ROMEO:\nO ", return_tensors="np")
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
    arguments = {"max_new_tokens": 20, "streamer": streamer}
    thread = Thread(target=model.generate, args=(ids,), kwargs=arguments)
    thread.start()
    pieces = list(streamer)
    thread.join()
    out = model.generate(ids, max_new_tokens=20)[0, ids.shape[1] :]
    assert len(pieces) > 5
    known = [i for i in out if i < len(tokenizer)]
    assert "".join(pieces) == tokenizer.decode(known)
    with pytest.raises(Empty):
        next(TextIteratorStreamer(tokenizer, timeout=0.01))


# --- values that are not read, and None


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0.0), ("temperature", -1), ("top_p", 0.0), ("top_p", 3.0),
     ("top_k", -1), ("min_p", 2.0), ("typical_p", 0.0), ("epsilon_cutoff", -1.0),
     ("eta_cutoff", 7)],
)  # fmt: skip
def test_impossible_values_are_refused_where_they_are_read_only(endless, name, value):
    plain = endless.generate(PROMPT, max_new_tokens=5)
    with pytest.warns(UserWarning, match=rf"{name}={value}(\.0)?: not read") as caught:
        out = endless.generate(PROMPT, max_new_tokens=5, **{name: value})
    assert len(caught) == 1
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(out, plain)
    with pytest.raises(ValueError, match=f"{name} must be"):
        endless.generate(PROMPT, do_sample=True, **{name: value})
    with pytest.raises(ValueError, match=f"{name} must be"):
        GenerationConfig(do_sample=True, num_beams=2, **{name: value})


def test_several_values_that_are_not_read_are_one_warning(endless):
    message = "temperature=0.0, top_k=-1, top_p=0.0: not read"
    with pytest.warns(UserWarning, match=message) as caught:
        endless.generate(PROMPT, temperature=0.0, top_p=0.0, top_k=-1)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="temperature=0.0: not read") as caught:
        endless.stream(PROMPT, temperature=0.0, max_new_tokens=1)
    assert len(caught) == 1


def test_top_k_is_read_by_contrastive_search(endless):
    with pytest.raises(ValueError, match="top_k must be a whole number of at least 0"):
        endless.generate(PROMPT, penalty_alpha=0.5, top_k=-1)


def test_none_is_not_given(endless):
    from dataclasses import fields

    plain = endless.generate(PROMPT, max_new_tokens=3)
    for field in fields(GenerationConfig):
        options = {"max_new_tokens": 3, field.name: None}
        if field.name == "max_new_tokens":
            options = {"max_length": 8, field.name: None}
        np.testing.assert_array_equal(endless.generate(PROMPT, **options), plain)
        assert GenerationConfig(**{field.name: None}) == GenerationConfig()
    out = endless.generate(PROMPT, None, None, None, max_new_tokens=3)
    np.testing.assert_array_equal(out, plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        endless.generate(PROMPT, temperature=None, top_p=None, max_new_tokens=3)


# --- lengths


LENGTHS = [
    (5, {}, 25),
    (20, {}, 40),
    (30, {}, 40),
    (5, {"max_length": 20}, 20),
    (5, {"min_length": 8}, 25),
    (40, {"max_new_tokens": 1}, 41),
    (39, {"max_new_tokens": 2}, 41),
    (40, {"max_length": 41}, 41),
    (40, {}, None),
    (20, {"max_length": 20}, None),
    (20, {"max_length": 15}, None),
    (40, {"max_new_tokens": 2}, None),
    (39, {"max_new_tokens": 3}, None),
]


@pytest.mark.parametrize(("length", "options", "expected"), LENGTHS)
def test_how_long_a_result_is(endless, length, options, expected):
    ids = np.random.default_rng(0).integers(0, V, (1, length))
    if expected is not None:
        assert endless.generate(ids, **options).shape == (1, expected)
        return
    with pytest.raises(ValueError, match=r"the prompt has|a prompt of"):
        endless.generate(ids, **options)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")  # advice about lengths
def test_results_are_as_long_as_transformers_makes_them(endless):
    torch, theirs = theirs_of(endless)
    for length, options, expected in LENGTHS:
        ids = torch.ones((1, length), dtype=torch.long)
        if expected is not None:
            assert theirs.generate(ids, pad_token_id=0, **options).shape[1] == expected
            continue
        with pytest.raises((ValueError, IndexError, RuntimeError)):
            theirs.generate(ids, pad_token_id=0, **options)


def test_the_length_of_a_configuration(endless):
    for config in ({"max_length": 12}, GenerationConfig(max_length=12)):
        assert endless.generate(PROMPT, generation_config=config).shape == (1, 12)
    config = GenerationConfig(max_length=12, max_new_tokens=2)
    out = endless.generate(PROMPT, generation_config=config, max_length=9)
    assert out.shape == (1, 7)  # as transformers: max_new_tokens counts


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_full_prompt_gets_one_more_id(endless, strategy):
    ids = np.random.default_rng(1).integers(0, V, (2, 40))
    options = STRATEGIES[strategy]
    if strategy == "contrastive":  # which reads its candidates
        with pytest.raises(ValueError, match="n_positions=40"):
            endless.generate(ids, max_new_tokens=1, **options)
        return
    out = endless.generate(ids, max_new_tokens=1, **options)
    assert out.shape == (2, 41)
    if "do_sample" not in options:
        best = endless(ids).logits[:, -1].argmax(axis=-1)
        np.testing.assert_array_equal(out[:, -1], best)
    assisted = endless.generate(ids, max_new_tokens=1, assistant_model=endless)
    np.testing.assert_array_equal(assisted[:, :40], ids)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("wanted", [False, True])
def test_no_new_ids_are_the_prompt(endless, strategy, wanted):
    class Told(list):
        put = list.append

        def end(self):
            self.append("end")

    ids = np.random.default_rng(1).integers(0, V, (2, 6))
    options = {"max_new_tokens": 0, **STRATEGIES[strategy]}
    if wanted:
        options |= {"return_dict_in_generate": True, "output_scores": True}
    told = Told()
    if "num_beams" not in options:
        options["streamer"] = told
    out = endless.generate(ids, **options)
    sequences = out.sequences if wanted else out
    np.testing.assert_array_equal(sequences, ids)
    assert not wanted or out.scores == ()
    assert len(told) == (2 if "streamer" in options else 0)
    if wanted:
        scores = endless.compute_transition_scores(out.sequences, out.scores)
        assert scores.shape == (2, 0)
    assert list(endless.stream(ids[:1], max_new_tokens=0)) == []
