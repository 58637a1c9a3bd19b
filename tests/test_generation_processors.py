"""The processors and samplers, each by itself: published numbers, properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minigpt2.generation import processors
from minigpt2.generation.sampling import draw, draw_without_replacement, sample
from minigpt2.runtime.randomness import UniformGenerator

few = settings(max_examples=20, deadline=None)  # of each processor

SCORES = arrays(np.float32, (3, 8), elements=st.floats(-50, 50, width=32))
SEQUENCES = arrays(np.int64, (3, 9), elements=st.integers(-1, 7))

# Every processor with some parameters: (scores, sequences) -> scores
ALL = {
    "repetition_penalty": lambda s, ids: processors.repetition_penalty(s, ids, 1.7),
    "no_repeat_ngram": lambda s, ids: processors.no_repeat_ngram(s, ids, 2),
    "sequence_bias": lambda s, ids: processors.sequence_bias(
        s, ids, {(3,): 1.5, (1, 2): -4.0}
    ),
    "bad_words": lambda s, ids: processors.bad_words(s, ids, [[4], [5, 6]]),
    "suppress": lambda s, ids: processors.suppress(s, [1, 2]),
    "force": lambda s, ids: processors.force(s, [1, 2]),
    "exponential_decay": lambda s, ids: processors.exponential_decay(s, [7], 1.2, 3),
    "guidance": lambda s, ids: processors.guidance(s, s[::-1], 1.5),
    "remove_invalid": lambda s, ids: processors.remove_invalid(s),
    "diversity": lambda s, ids: processors.diversity(s, np.array([1, 1, 4]), 0.5),
    "renormalize": lambda s, ids: processors.renormalize(s),
    "temperature": lambda s, ids: processors.temperature(s, 0.7),
    "top_k": lambda s, ids: processors.top_k(s, 3),
    "top_p": lambda s, ids: processors.top_p(s, 0.8),
    "top_p_3": lambda s, ids: processors.top_p(s, 0.8, rule="huggingface-3"),
    "top_p_openai": lambda s, ids: processors.top_p(s, 0.8, rule="openai"),
    "min_p": lambda s, ids: processors.min_p(s, 0.2),
    "typical_p": lambda s, ids: processors.typical_p(s, 0.7),
    "epsilon_cutoff": lambda s, ids: processors.epsilon_cutoff(s, 0.05),
    "eta_cutoff": lambda s, ids: processors.eta_cutoff(s, 0.05),
}
CUTS = (
    "top_k top_p top_p_3 top_p_openai min_p typical_p epsilon_cutoff eta_cutoff".split()
)


def kept(out):
    return (~np.isneginf(out)).tolist()


@pytest.mark.parametrize("name", ALL)
@few
@given(scores=SCORES, sequences=SEQUENCES)
def test_no_processor_changes_its_arguments_or_the_dtype(name, scores, sequences):
    before, sequences_before = scores.copy(), sequences.copy()
    for dtype in (np.float32, np.float64):
        given = scores.astype(dtype)
        out = ALL[name](given, sequences)
        assert out.dtype == dtype
        assert out.shape == scores.shape
        assert not np.shares_memory(out, given)
        np.testing.assert_array_equal(given, before)
    np.testing.assert_array_equal(sequences, sequences_before)


@pytest.mark.parametrize("name", CUTS)
@few
@given(scores=SCORES, sequences=SEQUENCES)
def test_a_cut_keeps_something_and_changes_no_score(name, scores, sequences):
    out = ALL[name](scores, sequences)
    stays = ~np.isneginf(out)
    assert stays.any(axis=-1).all()
    np.testing.assert_array_equal(out[stays], scores[stays])
    # the likeliest stays, except under typical_p, which may find it too unsurprising
    if name != "typical_p":
        np.testing.assert_array_equal(out.max(axis=-1), scores.max(axis=-1))


@pytest.mark.parametrize("name", "top_k min_p".split())
@few
@given(scores=SCORES, sequences=SEQUENCES)
def test_a_cut_that_does_not_look_at_the_sum_cuts_once(name, scores, sequences):
    once = ALL[name](scores, sequences)
    np.testing.assert_array_equal(ALL[name](once, sequences), once)


@pytest.mark.parametrize(
    "name", "top_p min_p typical_p epsilon_cutoff eta_cutoff".split()
)
@pytest.mark.parametrize("least", [1, 3, 20])
@few
@given(scores=SCORES)
def test_at_least_so_many_stay(name, least, scores):
    out = getattr(processors, name)(scores, 0.01 if name != "min_p" else 0.99, least)
    assert ((~np.isneginf(out)).sum(axis=-1) >= min(least, 8)).all()


@pytest.mark.parametrize("name", ALL)
@few
@given(scores=SCORES, sequences=SEQUENCES)
def test_rows_do_not_know_of_one_another(name, scores, sequences):
    if name == "guidance":
        return  # ALL gives it the rows in another order
    out = ALL[name](scores, sequences)
    for row in range(3):
        alone = ALL[name](scores[row : row + 1], sequences[row : row + 1])
        np.testing.assert_array_equal(out[row], alone[0])


def test_repetition_penalty_gives_the_published_numbers():
    # transformers' own test: uniform 0.1 but for -0.1 at [0, 0] and 0.4 at [1, 5]
    scores = np.full((2, 6), 0.1)
    scores[0, 0], scores[1, 5] = -0.1, 0.4
    out = processors.repetition_penalty(scores, np.array([[0, 1], [5, 0]]), 2.0)
    assert [out[0, 0], out[0, 1], out[1, 0], out[1, 5]] == [-0.2, 0.05, 0.05, 0.2]
    out[[0, 0, 1, 1], [0, 1, 0, 5]] = scores[[0, 0, 1, 1], [0, 1, 0, 5]]
    np.testing.assert_array_equal(out, scores)


def test_what_decay_makes_of_the_lowest_number_stays_finite():
    """An end id that min_new_tokens forbids, after remove_invalid_values."""
    for dtype in (np.float32, np.float64):
        scores = processors.remove_invalid(np.array([[-np.inf, 1.0]], dtype))
        out = processors.exponential_decay(scores, [0], 2.0, 9)
        assert out.tolist() == [[np.finfo(dtype).max, 1.0]]


def test_repetition_penalty_counts_an_id_once_and_padding_never():
    scores = np.full((1, 3), 2.0)
    out = processors.repetition_penalty(scores, np.array([[-1, 1, 1]]), 2.0)
    assert out.tolist() == [[2.0, 1.0, 2.0]]


def test_no_repeat_ngram_removes_what_would_occur_again():
    scores = np.zeros((3, 5))
    sequences = np.array(
        [[-1, 1, 2, 3, 1, 2], [1, 2, 3, 4, 1, 3], [-1, -1, -1, -1, -1, 2]]
    )
    out = processors.no_repeat_ngram(scores, sequences, 3)
    assert kept(out) == [[True, True, True, False, True], [True] * 5, [True] * 5]
    out = processors.no_repeat_ngram(scores, sequences, 1)
    assert kept(out)[0] == [True, False, False, False, True]


def test_bad_words_are_removed_where_they_would_be_completed():
    sequences = np.array([[0, 1], [1, 0]])
    out = processors.bad_words(
        np.zeros((2, 4)), sequences, [[3], [0, 1], [0, 1, 2], [9, 9, 9, 1]]
    )
    assert kept(out) == [[True, True, False, False], [True, False, True, False]]


def test_biases_of_one_id_add_up():
    out = processors.sequence_bias(
        np.zeros((1, 3)), np.array([[1]]), {(2,): 1.0, (1, 2): 0.5, (0, 2): 9.0}
    )
    assert out.tolist() == [[0.0, 0.0, 1.5]]


@few
@given(SCORES, st.integers(1, 12))
def test_top_k_keeps_the_k_largest_and_their_equals(scores, k):
    for row, stays in zip(scores, kept(processors.top_k(scores, k))):
        kth = sorted(row, reverse=True)[min(k, 8) - 1]
        assert stays == (row >= kth).tolist()


@few
@given(SCORES, st.floats(0.01, 0.99))
def test_top_p_keeps_the_fewest_likeliest_that_reach_p(scores, p):
    for row, stays in zip(scores.astype(np.float64), kept(processors.top_p(scores, p))):
        stays = np.array(stays)
        probability = np.exp(row - row.max())
        probability /= probability.sum()
        assert row[stays].min() >= row[~stays].max(initial=-np.inf)
        # float32's rounding of the sum moves the border by no more than 1e-5
        assert probability[stays].sum() >= p - 1e-5
        assert probability[stays].sum() - probability[stays].min() <= p + 1e-5


@pytest.mark.parametrize("rule", ["huggingface", "huggingface-3", "openai"])
@few
@given(st.integers(0, 10**6), st.floats(0.01, 0.99), st.sampled_from([1.0, 4.0]))
def test_selecting_the_likeliest_first_changes_nothing(rule, seed, p, spread):
    """The nucleus of 5,000 ids, against the one found by sorting them all."""
    scores = np.random.default_rng(seed).standard_normal((1, 5000)) * spread
    out = processors.top_p(scores, p, rule=rule)
    probability = np.exp(scores[0] - scores.max())
    probability /= probability.sum()
    order = np.argsort(-probability)
    sums = np.cumsum(probability[order])
    crossing = int((sums < p).sum())  # the one that crosses p
    count = max(crossing, 1) if rule == "openai" else crossing + 1
    stays = np.flatnonzero(~np.isneginf(out[0]))
    assert set(stays) == set(order[:count])


def test_the_top_p_rules_differ_at_the_border():
    # .5 .3 .1 .1 with p = .85: OpenAI's sample.py keeps two, Hugging Face three; of the
    # two equals at the border the newer rule drops the first, the older the last.
    scores = np.log(np.array([[0.5, 0.3, 0.1, 0.1]], np.float32))
    assert kept(processors.top_p(scores, 0.85)) == [[True, True, False, True]]
    older = processors.top_p(scores, 0.85, rule="huggingface-3")
    assert kept(older) == [[True, True, True, False]]
    openai = processors.top_p(scores, 0.85, rule="openai")
    assert kept(openai) == [[True, True, False, False]]


def test_the_published_filter_test_keeps_what_each_rule_keeps():
    # test_top_k_top_p_filtering of transformers 2.11, whose expectation (five a row) is
    # the older rule's; the newer keeps the four of min_tokens_to_keep.
    scores = np.array(
        [
            [8.2220991, -0.5620044, 5.23229752, 4.0386393, -6.8798378, -0.54785802,
             -3.2012153, 2.92777176, 1.88171953, 7.35341276, 8.43207833, -9.85711836,
             -5.96209236, -1.13039161, -7.1115294, -0.8369633, -5.3186408, 7.06427407,
             0.81369344, -0.82023817, -5.9179796, 0.58813443, -6.99778438, 4.71551189,
             -0.18771637, 7.44020759, 9.38450987, 2.12662941, -9.32562038, 2.35652522],
        ],
        np.float32,
    )  # fmt: skip
    cut = processors.top_k(scores, 10)
    older = processors.top_p(cut, 0.6, 4, rule="huggingface-3")
    assert np.flatnonzero(~np.isneginf(older[0])).tolist() == [0, 9, 10, 25, 26]
    newer = processors.top_p(cut, 0.6, 4)
    assert np.flatnonzero(~np.isneginf(newer[0])).tolist() == [0, 10, 25, 26]


def test_a_probability_exactly_at_the_border_is_decided_in_the_scores_dtype():
    # transformers' own test pins float32; 1 - .8 < .2 in float64
    scores = np.log(np.array([[0.3, 0.1, 0.1, 0.5]]))
    assert kept(processors.top_p(scores.astype(np.float32), 0.8))[0] == [
        True, False, False, True,
    ]  # fmt: skip


def test_sampling_inverts_the_distribution_function():
    with np.errstate(divide="ignore"):
        scores = np.log(np.array([0.25, 0.0, 0.5, 0.25]))
    drawn = [draw(scores, u) for u in (0.0, 0.2499, 0.25, 0.7499, 1 - 2**-53)]
    assert drawn == [0, 0, 2, 2, 3]


def test_rows_draw_from_their_own_generators():
    scores = np.zeros((2, 50))
    a, b = UniformGenerator(1, 0), UniformGenerator(1, 1)
    both = [sample(scores, [a, b]) for _ in range(5)]
    alone = UniformGenerator(1, 1)
    assert [row[1] for row in both] == [
        sample(scores[:1], [alone])[0] for _ in range(5)
    ]


def test_drawing_without_replacement_has_the_exact_distribution():
    """Ordered pairs of three ids: P(i, j) = p_i p_j / (1 - p_i)."""
    p = np.array([0.6, 0.3, 0.1])
    generator, n = UniformGenerator(3), 20_000
    counts = np.zeros((3, 3))
    for _ in range(n):
        i, j = draw_without_replacement(np.log(p), 2, generator)
        counts[i, j] += 1
    expected = n * np.outer(p, p) / (1 - p)[:, None]
    off = ~np.eye(3, dtype=bool)
    assert (counts[~off] == 0).all()
    chi2 = ((counts - expected)[off] ** 2 / expected[off]).sum()
    assert chi2 < 5 + 5 * np.sqrt(10)  # 5 degrees of freedom, five deviations


def test_drawing_more_than_there_is_takes_the_rest_in_order():
    scores = np.array([-np.inf, 0.0, -np.inf, -np.inf])
    assert draw_without_replacement(scores, 3, UniformGenerator(0)).tolist() == [
        1,
        0,
        2,
    ]
