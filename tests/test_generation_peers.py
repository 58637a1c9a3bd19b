"""generate() beside transformers' on the same weights, option by option and mixed.

transformers 5 has greedy decoding, beam search and the processors; group beams and
contrastive search are compared with 4.49, the last that had both.
"""

import warnings

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from model_cases import random_state_dict

from minigpt2 import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer
from minigpt2.generation import processors

pytestmark = pytest.mark.peers

TINY = {"vocab_size": 41, "n_positions": 40, "n_embd": 16, "n_layer": 2, "n_head": 2}
END, PAD = 40, 39
ENDS = {"eos_token_id": END, "bos_token_id": END}


def versions():
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    return tuple(int(n) for n in transformers.__version__.split(".")[:2])


def needs(*, groups):
    """Skip unless this transformers has group beams, or is the one to compare with.

    That is 5.x: 4.57 counts padding in repetition_penalty, and its beams' scores are NaN
    where exponential_decay_length_penalty meets a forbidden end.
    """
    if not (versions() < (4, 50) if groups else versions() >= (5, 0)):
        pytest.skip("compared with another version of transformers")


def theirs_of(ours):
    """Make transformers' model with the weights of ours."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    fields = {name: getattr(ours.config, name) for name in [*TINY, *ENDS]}
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**fields, attn_implementation="eager")
    )
    state = {name: torch.tensor(array) for name, array in ours.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith(("attn.bias", "masked_bias")) for name in missing)
    # 4.49's group beams take float32 only
    return (theirs if versions() < (4, 50) else theirs.double()).eval()


class Pair:
    """The same weights twice: ours in float64, transformers' with float64 weights.

    transformers computes scores in float32 from the logits on.
    """

    def __init__(self, seed, spread):
        state = random_state_dict(TINY, seed)
        # Tied random embeddings make a model that repeats itself: spread the norm.
        state["transformer.ln_f.weight"] = state["transformer.ln_f.weight"] * spread
        config = GPT2Config(**TINY, **ENDS)
        self.ours = GPT2LMHeadModel(config, dtype=np.float64, seed=None)
        self.ours.load_state_dict(state)
        self.theirs = theirs_of(self.ours)

    def both(self, ids, mask=None, **options):
        """Return (our output, their output) with all that can be compared."""
        import torch

        ids = np.array(ids)
        mask = np.ones_like(ids) if mask is None else np.array(mask)
        options = {"pad_token_id": PAD, **options}
        extra = {"return_dict_in_generate": True, "output_scores": True}
        ours = self.ours.generate(ids, attention_mask=mask, **options, **extra)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice about unusual options
            theirs = self.theirs.generate(
                torch.from_numpy(ids),
                attention_mask=torch.from_numpy(mask),
                **{"top_k": 0, **options},
                **extra,
            )
        return ours, theirs

    def agree(self, ids, mask=None, **options):
        """Assert that sequences are equal, and scores to float32's rounding."""
        ours, theirs = self.both(ids, mask, **options)
        np.testing.assert_array_equal(ours.sequences, theirs.sequences.numpy())
        if theirs.get("sequences_scores") is not None:
            np.testing.assert_allclose(
                ours.sequences_scores, theirs.sequences_scores, rtol=2e-5, atol=2e-5
            )
        return ours, theirs


def prompts(draw, most_rows=3, widest=7):
    """Left-padded prompts [B, T] with their mask."""
    lengths = draw(st.lists(st.integers(1, widest), min_size=1, max_size=most_rows))
    width = max(lengths)
    seed = draw(st.integers(0, 10**6))
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, PAD, (len(lengths), width))
    mask = (np.arange(width) >= width - np.array(lengths)[:, None]).astype(np.int64)
    ids[mask == 0] = PAD
    return ids, mask


# Options by themselves and, drawn together, in random combination. Where transformers
# takes padding for text (n-grams; in 4.49 the repetition penalty, too), without any.
ALWAYS = {
    "repetition_penalty": st.sampled_from([0.7, 1.3, 2.0]),
    "no_repeat_ngram_size": st.integers(1, 4),
    "bad_words_ids": st.lists(
        st.lists(st.integers(0, 38), min_size=1, max_size=2), min_size=1, max_size=12
    ),
    "min_length": st.integers(1, 16),
    "min_new_tokens": st.integers(1, 10),
    "sequence_bias": st.lists(
        st.tuples(
            st.lists(st.integers(1, 38), min_size=1, max_size=2).map(tuple),
            st.floats(-8, 8),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda pair: pair[0],
    ).map(lambda pairs: [[list(ids), bias] for ids, bias in pairs]),
    "suppress_tokens": st.lists(st.integers(0, 19), min_size=1, max_size=10),
    "begin_suppress_tokens": st.lists(st.integers(0, 19), min_size=1, max_size=10),
    "forced_bos_token_id": st.integers(20, 38),
    "forced_eos_token_id": st.sampled_from([END, [END, 7]]),
    "exponential_decay_length_penalty": st.tuples(
        st.integers(0, 4), st.sampled_from([1.1, 1.5, 2.0])
    ),
    "renormalize_logits": st.just(True),
    "remove_invalid_values": st.just(True),
    "eos_token_id": st.sampled_from([END, [END, 3], [END, 3, 5, 8, 13]]),
    "guidance_scale": st.sampled_from([1.5, 0.5]),
}
BEAMS = {
    "length_penalty": st.sampled_from([-1.0, 0.0, 0.5, 2.0]),
    "early_stopping": st.sampled_from([True, "never"]),
}


@pytest.fixture(scope="module")
def pairs():
    versions()
    return [Pair(seed, spread) for seed in range(3) for spread in (1.0, 3.0)]


@settings(max_examples=40, deadline=None, phases=[Phase.generate])
@given(st.data())
def test_greedy_is_transformers_with_any_options(pairs, data):
    needs(groups=False)
    pair = data.draw(st.sampled_from(pairs))
    names = data.draw(st.sets(st.sampled_from(sorted(ALWAYS)), max_size=4))
    options = {name: data.draw(ALWAYS[name]) for name in sorted(names)}
    ids, mask = prompts(data.draw)
    if names & {"no_repeat_ngram_size", "guidance_scale"}:
        ids, mask = ids[:1, -mask[0].sum() :], None
    ours, theirs = pair.agree(ids, mask, max_new_tokens=14, **options)
    for a, b in zip(ours.scores, theirs.scores):
        b = b.double().numpy()
        # remove_invalid_values and what follows it: the ends of another dtype's numbers
        live = np.abs(a) < 1e30
        np.testing.assert_array_equal(live, np.abs(b) < 1e30)
        # float32 scores after processors: a few units in the last place of ~10
        np.testing.assert_allclose(a[live], b[live], rtol=2e-4, atol=2e-4)


@settings(max_examples=40, deadline=None, phases=[Phase.generate])
@given(st.data())
def test_beam_search_is_transformers_with_any_options(pairs, data):
    needs(groups=False)
    pair = data.draw(st.sampled_from(pairs))
    both = {**ALWAYS, **BEAMS}
    del both["guidance_scale"]  # transformers does not reorder its second cache
    del both["forced_bos_token_id"]  # leaves fewer possible texts than beams
    both["forced_eos_token_id"] = st.just(END)  # two would tie
    names = data.draw(st.sets(st.sampled_from(sorted(both)), max_size=4))
    options = {name: data.draw(both[name]) for name in sorted(names)}
    beams = data.draw(st.integers(2, 5))
    results = data.draw(st.integers(1, beams))
    ids, mask = prompts(data.draw, most_rows=1)  # each row is what it is alone
    ids, mask = ids[:, -mask[0].sum() :], None
    ours, theirs = pair.agree(
        ids, mask, max_new_tokens=data.draw(st.integers(2, 12)), num_beams=beams,
        num_return_sequences=results, **options,
    )  # fmt: skip
    width = ours.beam_indices.shape[1]
    np.testing.assert_array_equal(ours.beam_indices, theirs.beam_indices[:, :width])
    np.testing.assert_allclose(
        pair.ours.compute_transition_scores(
            ours.sequences, ours.scores, ours.beam_indices
        ),
        pair.theirs.compute_transition_scores(
            theirs.sequences, theirs.scores, theirs.beam_indices
        ),
        rtol=2e-4,
        atol=2e-4,
    )


@settings(max_examples=25, deadline=None, phases=[Phase.generate])
@given(st.data())
def test_group_beams_are_transformers_with_any_options(pairs, data):
    needs(groups=True)
    pair = data.draw(st.sampled_from(pairs))
    both = {**ALWAYS, **BEAMS}
    for name in ("guidance_scale", "forced_bos_token_id", "no_repeat_ngram_size"):
        del both[name]
    del both["exponential_decay_length_penalty"]  # NaN where it meets a forbidden end
    both["forced_eos_token_id"] = st.just(END)  # two would tie
    names = data.draw(st.sets(st.sampled_from(sorted(both)), max_size=3))
    options = {name: data.draw(both[name]) for name in sorted(names)}
    groups = data.draw(st.integers(2, 3))
    beams = groups * data.draw(st.integers(1, 3))
    ids, mask = prompts(data.draw, most_rows=1 if "repetition_penalty" in names else 3)
    pair.agree(
        ids, mask, max_new_tokens=data.draw(st.integers(2, 12)), num_beams=beams,
        num_beam_groups=groups, diversity_penalty=data.draw(st.floats(0.25, 4.0)),
        num_return_sequences=data.draw(st.integers(1, beams)), **options,
    )  # fmt: skip


@settings(max_examples=20, deadline=None, phases=[Phase.generate])
@given(st.data())
def test_contrastive_search_is_transformers_with_any_options(pairs, data):
    needs(groups=True)
    pair = data.draw(st.sampled_from(pairs))
    names = data.draw(st.sets(st.sampled_from(["repetition_penalty", "suppress_tokens",
        "eos_token_id", "min_new_tokens"]), max_size=3))  # fmt: skip
    options = {name: data.draw(ALWAYS[name]) for name in sorted(names)}
    ids, mask = prompts(data.draw, most_rows=1 if "repetition_penalty" in names else 3)
    pair.agree(
        ids, mask, max_new_tokens=12, penalty_alpha=data.draw(st.floats(0.1, 0.9)),
        top_k=data.draw(st.integers(2, 8)), **options,
    )  # fmt: skip


WARPERS = {
    "top_k": ("TopKLogitsWarper", st.integers(1, 60)),
    "top_p": ("TopPLogitsWarper", st.floats(0.05, 0.99)),
    "min_p": ("MinPLogitsWarper", st.floats(0.01, 0.9)),
    "typical_p": ("TypicalLogitsWarper", st.floats(0.05, 0.99)),
    "epsilon_cutoff": ("EpsilonLogitsWarper", st.floats(1e-4, 0.5)),
    "eta_cutoff": ("EtaLogitsWarper", st.floats(1e-4, 0.5)),
    "temperature": ("TemperatureLogitsWarper", st.floats(0.2, 5.0)),
}


@pytest.mark.parametrize("name", WARPERS)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_sampling_cuts_off_is_what_transformers_does(name, data):
    versions()
    import torch
    from transformers.generation import logits_process

    theirs, values = WARPERS[name]
    value = data.draw(values)
    generator = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    width = data.draw(st.sampled_from([7, 50, 700, 5000]))
    scores = generator.standard_normal((3, width)).astype(np.float32)
    scores *= data.draw(st.sampled_from([0.5, 2.0, 6.0]))
    low = generator.random(scores.shape) < data.draw(st.sampled_from([0, 0.5]))
    scores[low] -= 30
    if data.draw(st.booleans()):  # after another filter
        scores = processors.top_k(scores, 5)
    extra = {}
    if name != "temperature":
        extra["min_tokens_to_keep"] = data.draw(st.integers(1, 4))
    ours = getattr(processors, name)(scores, value, **extra)
    warper = getattr(logits_process, theirs)(value, **extra)
    expected = warper(None, torch.from_numpy(scores.copy())).numpy()
    different = np.isneginf(ours) != np.isneginf(expected)
    if name == "temperature":
        np.testing.assert_allclose(ours, expected, rtol=2e-7)
    # Where float32 sums of thousands of probabilities end exactly at the border, the
    # order of summation decides about one id, or a few that are equal in float32.
    assert different.sum(axis=-1).max() <= (3 if width > 100 else 0)
    assert (ours == expected)[~different].all() or name == "temperature"


def test_the_shakespeare_model_says_what_it_says_in_transformers(shakespeare):
    versions()
    pair = Pair.__new__(Pair)
    pair.ours = GPT2LMHeadModel.from_pretrained(shakespeare.folder, dtype=np.float64)
    pair.theirs = theirs_of(pair.ours)
    tokenizer = GPT2Tokenizer.from_pretrained(shakespeare.folder)
    for text in ("ROMEO:", "To be, or not to be"):
        ids = tokenizer.encode(text, return_tensors="np")
        for options in SHAKESPEARE[versions() < (4, 50)]:
            pair.agree(ids, None, max_new_tokens=40, **options)


SHAKESPEARE = {
    False: [
        {},
        {"no_repeat_ngram_size": 3, "repetition_penalty": 1.2},
        {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.8},
        {"num_beams": 3, "early_stopping": True, "no_repeat_ngram_size": 2},
    ],
    True: [
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
        {"penalty_alpha": 0.6, "top_k": 4},
    ],
}
