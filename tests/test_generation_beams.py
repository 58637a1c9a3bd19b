"""Beam search, its variants and contrastive search: what must hold for any model.

That they say what transformers says is in test_generation_peers.py, and for a fixed set
of cases in test_generation_goldens.py.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import GPT2Config, GPT2LMHeadModel, ops
from minigpt2.generation.sampling import best_of

TINY = {"vocab_size": 13, "n_positions": 24, "n_embd": 12, "n_layer": 2, "n_head": 3}
SEARCHES = {
    "beams": {"num_beams": 3, "num_return_sequences": 3},
    "beams, early": {"num_beams": 3, "early_stopping": True},
    "beams, never": {"num_beams": 2, "early_stopping": "never", "length_penalty": 2.0},
    "beam sampling": {"num_beams": 3, "do_sample": True, "temperature": 2.0},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7},
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
}


@pytest.fixture(scope="module")
def tiny():
    config = GPT2Config(**TINY, initializer_range=0.5, eos_token_id=12, bos_token_id=12)
    return GPT2LMHeadModel(config, dtype=np.float64)


def log_probability(model, prompt, new):
    """Sum of the log-probabilities of new ids, by one pass over the whole sequence."""
    logits = model([[*prompt, *new]]).logits[0]
    logs = ops.log_softmax(logits[len(prompt) - 1 : -1])
    return logs[np.arange(len(new)), new].sum()


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 11), min_size=1, max_size=4))
def test_with_as_many_beams_as_sequences_the_best_is_found(tiny, prompt):
    """All 13^2 sequences of two new ids, by enumeration."""
    sequences = [
        new
        for new in itertools.product(range(13), repeat=2)
        if new[0] != 12  # it would have ended
    ]
    best = max(sequences, key=lambda new: log_probability(tiny, prompt, new))
    out = tiny.generate(
        [prompt], max_new_tokens=2, min_new_tokens=2, num_beams=13,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    if best[1] != 12:  # min_new_tokens forbids an end at once
        assert out.sequences[0, len(prompt) :].tolist() == list(best)
        expected = log_probability(tiny, prompt, best) / 2
        assert math.isclose(out.sequences_scores[0], expected, rel_tol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_scores_are_the_sequences_log_probabilities(tiny, data):
    """Through reordered caches: each score against one pass over the returned sequence."""
    prompt = data.draw(st.lists(st.integers(0, 11), min_size=1, max_size=4))
    penalty = data.draw(st.sampled_from([0.0, 1.0, 2.0, -0.5]))
    out = tiny.generate(
        [prompt], max_new_tokens=9, num_beams=4, num_return_sequences=4,
        length_penalty=penalty, early_stopping=data.draw(st.booleans()),
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    assert (np.diff(out.sequences_scores) <= 0).all()
    for row, score, beams in zip(out.sequences, out.sequences_scores, out.beam_indices):
        new = row[len(prompt) :][: (beams >= 0).sum()].tolist()
        expected = log_probability(tiny, prompt, new) / len(new) ** penalty
        assert math.isclose(score, expected, rel_tol=1e-9)
    moves = tiny.compute_transition_scores(out.sequences, out.scores, out.beam_indices)
    lengths = (out.beam_indices >= 0).sum(axis=1)
    np.testing.assert_allclose(
        moves.sum(axis=1) / lengths**penalty, out.sequences_scores, rtol=1e-9
    )


@pytest.mark.parametrize("name", SEARCHES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_padded_row_gets_what_it_gets_alone(tiny, name, data):
    prompts = data.draw(
        st.lists(
            st.lists(st.integers(0, 11), min_size=1, max_size=5), min_size=2, max_size=4
        )
    )
    left = data.draw(st.booleans())
    width = max(map(len, prompts))
    ids, mask = np.full((len(prompts), width), 12), np.zeros((len(prompts), width), int)
    for row, prompt in enumerate(prompts):
        place = slice(width - len(prompt), width) if left else slice(len(prompt))
        ids[row, place], mask[row, place] = prompt, 1
    options = {**SEARCHES[name], "max_new_tokens": 7, "repetition_penalty": 1.2}
    seeds = list(range(len(prompts)))
    batch = tiny.generate(ids, attention_mask=mask, seed=seeds, **options)
    each = options.get("num_return_sequences", 1)
    for row, prompt in enumerate(prompts):
        alone = tiny.generate([prompt], seed=seeds[row], **options)[:, len(prompt) :]
        together = batch[row * each : (row + 1) * each, width:]
        np.testing.assert_array_equal(together[:, : alone.shape[1]], alone)
        assert (together[:, alone.shape[1] :] == 12).all()


@pytest.mark.parametrize("name", [n for n in SEARCHES if n != "contrastive"])
def test_without_a_cache_the_same_is_found(tiny, name):
    for start in range(6):
        options = {**SEARCHES[name], "max_new_tokens": 9, "seed": 4}
        ids = [[start, 3], [5, start]]
        np.testing.assert_array_equal(
            tiny.generate(ids, **options),
            tiny.generate(ids, use_cache=False, **options),
        )


@pytest.mark.parametrize("name", SEARCHES)
def test_the_prompts_cache_serves_any_search_and_is_not_changed(tiny, name):
    if name == "contrastive":
        with pytest.raises(
            ValueError, match="hidden states that past_key_values lacks"
        ):
            tiny.generate(
                [[1, 2, 3]], past_key_values=tiny([[1, 2]]).past_key_values,
                **SEARCHES[name],
            )  # fmt: skip
        return
    options = {**SEARCHES[name], "max_new_tokens": 9, "seed": 4}
    ids = [[1, 2, 3], [4, 5, 6]]
    past = tiny([[1, 2], [4, 5]]).past_key_values
    before = [(k.copy(), v.copy()) for k, v in past]
    out = tiny.generate(ids, past_key_values=past, **options)
    np.testing.assert_array_equal(out, tiny.generate(ids, **options))
    for (k, v), (kept_k, kept_v) in zip(past, before):
        np.testing.assert_array_equal(k, kept_k)
        np.testing.assert_array_equal(v, kept_v)


def test_groups_differ_where_beams_agree(tiny):
    ids = [[1, 2, 3]]
    options = {"max_new_tokens": 6, "num_beams": 4, "num_return_sequences": 4}
    diverse = tiny.generate(ids, num_beam_groups=4, diversity_penalty=50.0, **options)
    assert len(set(diverse[:, 3].tolist())) == 4


def test_contrastive_search_without_a_penalty_for_likeness_is_greedy(tiny):
    for start in range(5):
        ids = [[start, 2]]
        greedy = tiny.generate(ids, max_new_tokens=8)
        nearly = tiny.generate(ids, max_new_tokens=8, penalty_alpha=1e-9, top_k=5)
        np.testing.assert_array_equal(nearly, greedy)


def test_beam_sampling_of_one_step_has_the_distribution_of_its_softmax(tiny):
    """With num_beams=2 the better of the first two draws is returned.

    Later draws, as upstream, are only there in case the first ones end.
    """
    p = ops.softmax(ops.log_softmax(tiny([[4, 8]]).logits[0, -1]) / 1.5)
    expected = np.zeros(13)
    for i, j in itertools.permutations(range(13), 2):  # without replacement
        expected[i if p[i] > p[j] else j] += p[i] * p[j] / (1 - p[i])
    n = 4000
    counts = np.zeros(13)
    out = tiny.generate(
        np.repeat([[4, 8]], n, axis=0), max_new_tokens=1, num_beams=2, do_sample=True,
        temperature=1.5, seed=3, eos_token_id=[],
    )  # fmt: skip
    np.add.at(counts, out[:, 2], 1)
    likely = expected * n >= 5
    chi2 = ((counts - n * expected)[likely] ** 2 / (n * expected)[likely]).sum()
    k = max(likely.sum() - 1, 1)
    assert chi2 < k + 5 * math.sqrt(2 * k)
    assert counts[~likely].sum() <= 5 * max((~likely).sum(), 1)


@given(
    st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0]), min_size=1, max_size=20),
    st.integers(1, 20),
)
def test_the_best_come_in_order_and_equals_by_place(scores, count):
    scores = np.array(scores)
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert best_of(scores, count).tolist() == order[:count]
