"""generate() against transformers' continuations, and what must hold for any of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import GPT2Config, GPT2LMHeadModel
from minigpt2.generation import processors

TINY = {"vocab_size": 31, "n_positions": 24, "n_embd": 12, "n_layer": 2, "n_head": 3}


@pytest.fixture(scope="module")
def tiny():
    config = GPT2Config(**TINY, initializer_range=0.5, eos_token_id=30, bos_token_id=30)
    return GPT2LMHeadModel(config, dtype=np.float64)


class Recorder:
    """A streamer that keeps what it is told."""

    def __init__(self):
        self.told = []

    def put(self, ids):
        self.told.append(ids)

    def end(self):
        self.told.append("end")


def test_greedy_continuations_are_transformers(model, shakespeare):
    for prompt in shakespeare.expected["prompts"]:
        ids = model.generate([prompt["ids"]], max_new_tokens=60)
        assert ids.tolist() == [prompt["greedy_60"]]
        assert ids.dtype == np.int64


def test_penalised_continuations_are_transformers(model, shakespeare):
    for prompt in shakespeare.expected["prompts"]:
        ids = model.generate([prompt["ids"]], max_new_tokens=60, repetition_penalty=1.2)
        assert ids.tolist() == [prompt["greedy_60_penalty_1.2"]]


def test_a_left_padded_batch_continues_as_transformers_does(model, shakespeare):
    ids, mask = shakespeare.arrays["padded_ids"], shakespeare.arrays["padded_mask"]
    out = model.generate(ids, attention_mask=mask, max_new_tokens=30)
    new = out[:, ids.shape[1] :].tolist()
    assert new == shakespeare.expected["padded_greedy_30"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_padded_row_gets_what_it_gets_alone(tiny, data):
    prompts = data.draw(
        st.lists(
            st.lists(st.integers(0, 30), min_size=1, max_size=6), min_size=1, max_size=4
        )
    )
    options = data.draw(
        st.sampled_from(
            [
                {},
                {"repetition_penalty": 1.7},
                {"do_sample": True, "top_k": 9, "temperature": 0.9},
                {"do_sample": True, "top_p": 0.8, "repetition_penalty": 0.6},
            ]
        )
    )
    left = data.draw(st.booleans())
    width = max(map(len, prompts)) + data.draw(st.integers(0, 2))
    ids = np.full((len(prompts), width), 30)
    mask = np.zeros(ids.shape, int)
    for row, prompt in enumerate(prompts):
        place = slice(width - len(prompt), width) if left else slice(len(prompt))
        ids[row, place], mask[row, place] = prompt, 1
    seeds = list(range(5, 5 + len(prompts)))
    options |= {"max_new_tokens": 8}
    batch = tiny.generate(ids, attention_mask=mask, seed=seeds, **options)
    for row, prompt in enumerate(prompts):
        alone = tiny.generate([prompt], seed=seeds[row], **options)[0, len(prompt) :]
        np.testing.assert_array_equal(batch[row, width : width + len(alone)], alone)
        assert (batch[row, width + len(alone) :] == 30).all()  # padded after its end


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 29), min_size=1, max_size=8), st.integers(1, 16))
def test_greedy_with_a_cache_is_greedy_without(tiny, prompt, new):
    ids = list(prompt)
    for _ in range(new):
        ids.append(int(tiny([ids], use_cache=False).logits[0, -1].argmax()))
        if ids[-1] == 30:
            break
    assert tiny.generate([prompt], max_new_tokens=new)[0].tolist() == ids


def test_generation_ends_at_an_end_id_and_pads_rows_that_ended(tiny):
    free = tiny.generate([[1, 2], [3, 4]], max_new_tokens=10, eos_token_id=[])
    end = int(free[0, 4])  # what row 0 says third
    first = free[0, 2:].tolist().index(end) + 2
    ended = tiny.generate(
        [[1, 2], [3, 4]], max_new_tokens=10, eos_token_id=[end, 99], pad_token_id=7
    )
    assert ended[0, : first + 1].tolist() == free[0, : first + 1].tolist()
    assert (ended[0, first + 1 :] == 7).all()
    alone = tiny.generate([[1, 2]], max_new_tokens=10, eos_token_id=end)
    assert alone.shape == (1, first + 1)


def test_one_seed_gives_one_result_and_results_of_a_row_differ(tiny):
    options = {"do_sample": True, "max_new_tokens": 12, "num_return_sequences": 3}
    a = tiny.generate([[1], [2]], seed=11, **options)
    assert a.shape == (6, 13)
    assert a[:, 0].tolist() == [1, 1, 1, 2, 2, 2]
    np.testing.assert_array_equal(a, tiny.generate([[1], [2]], seed=11, **options))
    assert len({tuple(row) for row in a[:3]}) == 3
    # a list of seeds: row i draws as it does alone with its own seed
    b = tiny.generate([[1], [2]], seed=[11, 11], **options)
    alone = tiny.generate([[2]], seed=11, **options)
    np.testing.assert_array_equal(b[3:, : alone.shape[1]], alone)


FILTERS = {
    "none": ({}, lambda s: s),
    "top_k": (
        {"temperature": 0.7, "top_k": 12},
        lambda s: processors.top_k(processors.temperature(s, 0.7), 12),
    ),
    "top_p": ({"top_p": 0.8}, lambda s: processors.top_p(s, 0.8)),
    "openai": (
        {"top_p": 0.8, "top_p_rule": "openai"},
        lambda s: processors.top_p(s, 0.8, rule="openai"),
    ),
    "min_p": ({"min_p": 0.1}, lambda s: processors.min_p(s, 0.1)),
    "typical_p": ({"typical_p": 0.7}, lambda s: processors.typical_p(s, 0.7)),
    "cutoffs": (
        {"epsilon_cutoff": 0.02, "eta_cutoff": 0.3},
        lambda s: processors.eta_cutoff(processors.epsilon_cutoff(s, 0.02), 0.3),
    ),
    "penalty": (
        {"repetition_penalty": 1.5},
        lambda s: processors.repetition_penalty(s, np.array([[4, 8, 15]]), 1.5),
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_samples_have_the_distribution_of_the_filtered_softmax(tiny, name):
    """Chi-square of 10,000 draws of one step, against the exact probabilities."""
    options, cut = FILTERS[name]
    kept = cut(tiny([[4, 8, 15]]).logits[:, -1])[0]
    p = np.exp(kept - kept.max())
    p /= p.sum()
    n = 10_000
    counts = np.zeros(31)
    out = tiny.generate(
        [[4, 8, 15]], max_new_tokens=1, do_sample=True, num_return_sequences=n, seed=1,
        **options,
    )  # fmt: skip
    np.add.at(counts, out[:, 3], 1)
    assert (counts[p == 0] == 0).all()
    likely = p * n >= 5
    chi2 = ((counts - n * p)[likely] ** 2 / (n * p)[likely]).sum()
    # mean and deviation of a chi-square with k degrees of freedom: k, sqrt(2k)
    k = max(likely.sum() - 1, 1)
    assert chi2 < k + 5 * math.sqrt(2 * k)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 29), min_size=1, max_size=6), st.booleans())
def test_without_a_cache_the_same_is_said(tiny, prompt, do_sample):
    options = {"max_new_tokens": 12, "do_sample": do_sample, "seed": 3}
    ids = [prompt, prompt[::-1]]
    mask = np.ones((2, len(prompt)), int)
    mask[1, : len(prompt) - 1] = 0
    np.testing.assert_array_equal(
        tiny.generate(ids, attention_mask=mask, use_cache=False, **options),
        tiny.generate(ids, attention_mask=mask, **options),
    )


def test_in_float32_a_batch_agrees_wherever_the_choice_is_clear(model, shakespeare):
    """Rows of a padded batch against the rows alone, as far as no choice is close.

    Of close ones, where the two best scores are nearer than 1e-4 (float32 sums of
    different order differ by about 1e-6 of scores around 10), either is right.
    """
    prompts = [prompt["ids"] for prompt in shakespeare.expected["prompts"]]
    width = max(map(len, prompts))
    ids, mask = (
        np.zeros((len(prompts), width), int),
        np.zeros((len(prompts), width), int),
    )
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :], mask[row, width - len(prompt) :] = prompt, 1
    out = model.generate(
        ids, attention_mask=mask, max_new_tokens=60, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip
    scores = np.sort(np.stack(out.scores), axis=-1)  # [new, B, V]
    gap = scores[..., -1] - scores[..., -2]
    for row, prompt in enumerate(prompts):
        alone = model.generate([prompt], max_new_tokens=60)[0, len(prompt) :]
        clear = len(alone)
        if model.dtype == np.float32 and (gap[: len(alone), row] < 1e-4).any():
            clear = int((gap[:, row] < 1e-4).argmax())
        assert clear > 5
        np.testing.assert_array_equal(out.sequences[row, width:][:clear], alone[:clear])


def test_a_streamer_is_told_of_the_prompt_and_of_every_step(tiny):
    recorder = Recorder()
    out = tiny.generate([[1, 2]], max_new_tokens=3, streamer=recorder, eos_token_id=[])
    assert recorder.told[-1] == "end"
    np.testing.assert_array_equal(recorder.told[0], [[1, 2]])
    assert [int(ids[0]) for ids in recorder.told[1:-1]] == out[0, 2:].tolist()


def test_without_a_prompt_it_begins_with_the_bos_id(tiny):
    out = tiny.generate(max_length=5, eos_token_id=[])
    assert out.shape == (1, 5)
    assert out[0, 0] == 30


def test_the_callers_arrays_stay_as_they_were(tiny):
    ids, mask = np.array([[30, 1, 2]]), np.array([[0, 1, 1]])
    tiny.generate(ids, attention_mask=mask, repetition_penalty=2.0, max_new_tokens=3)
    assert ids.tolist() == [[30, 1, 2]]
    assert mask.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 25}, "n_positions=24"),
        ({"max_length": 1}, "the prompt has 1 ids and max_length=1"),
        ({"max_new_tokens": -1}, "max_new_tokens must be a whole number of at least 0"),
        (
            {"do_sample": True, "temperature": 0.0},
            "temperature must be above 0, not 0.0",
        ),
        ({"do_sample": True, "top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"do_sample": True, "top_p": 1.5}, "top_p must be"),
        ({"do_sample": True, "top_k": -1}, "top_k must be"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0"),
        ({"num_return_sequences": 2}, "needs do_sample=True or num_beams > 1"),
        (
            {"max_new_token": 5},
            "no option 'max_new_token'; did you mean 'max_new_tokens'",
        ),
        ({"do_sample": True, "seed": [1, 2]}, "2 seeds for 1 rows"),
        ({"attention_mask": [[0]]}, "attention_mask hides all of row 0"),
        ({"input_ids": [[]]}, "input_ids is empty"),
        ({"input_ids": [[-1]]}, "input_ids holds -1"),
        ({"input_ids": [[31]]}, "input_ids holds 31"),
        ({"input_ids": [1, 2]}, r"it must be \(batch, length\)"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(tiny, options, message):
    options = {"input_ids": [[1]], **options}
    with pytest.raises(ValueError, match=message):
        tiny.generate(**options)


def test_broken_parameters_are_an_error():
    model = GPT2LMHeadModel(GPT2Config(**TINY))
    state = dict(model.state_dict())
    state["transformer.ln_f.weight"] = np.full(12, np.nan, np.float32)
    model.load_state_dict(state)
    with pytest.raises(ValueError, match="logits are not finite"):
        model.generate([[1]])
