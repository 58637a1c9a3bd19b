"""Speculative decoding changes no token, or with a sampling assistant no distribution."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

TINY = {"vocab_size": 13, "n_positions": 40, "n_embd": 12, "n_layer": 2, "n_head": 3}
ENDS = {"eos_token_id": 12, "bos_token_id": 12}


def model_of(seed, dtype=np.float64, backend="numpy", **changes):
    config = GPT2Config(**{**TINY, **changes}, initializer_range=0.5, **ENDS)
    return GPT2LMHeadModel(config, dtype=dtype, backend=backend, seed=seed)


@pytest.fixture(scope="module")
def tiny():
    return model_of(0)


@pytest.fixture(scope="module")
def assistants(tiny):
    """One that knows nothing, and one that says nearly what the model says."""
    near = model_of(0)
    near.load_state_dict(
        {name: np.round(array, 1) for name, array in tiny.state_dict().items()}
    )
    return [model_of(1, n_layer=1), near]


@pytest.fixture(scope="module")
def rows_alike():
    """A model whose kernels give a row the same bits however many are read with it."""
    return model_of(0, dtype=np.float32, backend="numba")


PROMPTS = st.lists(
    st.lists(st.integers(0, 11), min_size=1, max_size=8), min_size=1, max_size=3
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "repetition_penalty": st.just(1.3),
        "no_repeat_ngram_size": st.just(3),
        "min_new_tokens": st.integers(1, 9),
        "eos_token_id": st.sampled_from([12, [12, 3], []]),
        "guidance_scale": st.just(1.5),
    },
)


def padded(prompts, left):
    width = max(map(len, prompts))
    ids, mask = np.full((len(prompts), width), 12), np.zeros((len(prompts), width), int)
    for row, prompt in enumerate(prompts):
        place = slice(width - len(prompt), width) if left else slice(len(prompt))
        ids[row, place], mask[row, place] = prompt, 1
    return {"input_ids": ids, "attention_mask": mask}


@settings(max_examples=20, deadline=None)
@given(prompts=PROMPTS, left=st.booleans(), options=OPTIONS, size=st.integers(1, 8))
def test_prompt_lookup_is_plain_decoding_token_for_token(
    tiny, prompts, left, options, size
):
    inputs = padded(prompts, left)
    for sampling in ({}, {"do_sample": True, "seed": 5, "temperature": 0.7}):
        plain = tiny.generate(**inputs, **options, **sampling, max_new_tokens=16)
        np.testing.assert_array_equal(
            tiny.generate(
                **inputs, **options, **sampling, max_new_tokens=16,
                prompt_lookup_num_tokens=size,
            ),
            plain,
        )  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(prompts=PROMPTS, left=st.booleans(), options=OPTIONS, size=st.integers(1, 8))
def test_an_assistant_changes_no_greedy_token(
    tiny, assistants, prompts, left, options, size
):
    inputs = padded(prompts, left)
    plain = tiny.generate(**inputs, **options, max_new_tokens=16)
    for assistant in assistants:
        out = tiny.generate(
            **inputs, **options, max_new_tokens=16, assistant_model=assistant,
            num_assistant_tokens=size,
        )  # fmt: skip
        np.testing.assert_array_equal(out, plain)


@settings(max_examples=15, deadline=None)
@given(
    prompts=PROMPTS, left=st.booleans(), options=OPTIONS, size=st.integers(1, 8),
    weights=st.sampled_from(["int8", "int4", "bfloat16"]), read=st.integers(0, 3),
)  # fmt: skip
def test_the_models_own_quantized_copy_changes_no_greedy_token(
    rows_alike, prompts, left, options, size, weights, read
):
    inputs = padded(prompts, left)
    if read and "guidance_scale" not in options:  # go on from a past, padding and all
        read = min(read, min(map(len, prompts)) - 1, inputs["input_ids"].shape[1] - 1)
        past = {name: array[:, :read] for name, array in inputs.items()}
        if read:
            out = rows_alike(**past, use_cache=True)
            inputs["past_key_values"] = out.past_key_values
    plain = rows_alike.generate(**inputs, **options, max_new_tokens=16)
    out = rows_alike.generate(
        **inputs, **options, max_new_tokens=16, assistant_model=weights,
        num_assistant_tokens=size,
    )  # fmt: skip
    np.testing.assert_array_equal(out, plain)


def test_the_quantized_copys_drafts_are_kept(monkeypatch, rows_alike):
    """As the model's own passes show: the prompt, then six ids at a time, mostly kept."""
    forward, widths = GPT2LMHeadModel.forward, []

    def counting(model, ids, **options):
        if model is rows_alike:
            widths.append(np.shape(ids)[1])
        return forward(model, ids, **options)

    monkeypatch.setattr(GPT2LMHeadModel, "forward", counting)
    rows_alike.generate(
        [[1, 2, 3]], max_new_tokens=25, assistant_model="int8", eos_token_id=[]
    )
    assert widths[:2] == [3, 6]
    assert len(widths) <= 8  # 1 + 4 * 6 ids, had all been kept, are 5 passes


def test_the_quantized_copy_is_made_anew_for_a_model_of_another_shape():
    model = model_of(0, dtype=np.float32, vocab_size=24)
    options = {"max_new_tokens": 8, "pad_token_id": 0}
    for change in (
        lambda: None,
        lambda: model.prune_heads({0: [1]}),
        lambda: model.resize_token_embeddings(40),
    ):
        change()
        plain = model.generate([[1, 2]], **options)
        np.testing.assert_array_equal(
            model.generate([[1, 2]], **options, assistant_model="int8"), plain
        )
    with pytest.raises(ValueError, match="'int8', 'int4', 'bfloat16': 'int3'"):
        model.generate([[1, 2]], **options, assistant_model="int3")


@pytest.mark.parametrize("which", [0, 1])
def test_sampling_with_an_assistant_has_the_models_distribution(
    tiny, assistants, which
):
    """Chi-square of 2,000 pairs of new ids against the model's exact probabilities.

    Drafts of two ids, so that ids come from acceptance, from replacement and from
    beyond the draft.
    """
    prompt, n = [4, 8, 1], 2000
    scale = 1 / 0.8
    first = softmax(tiny([prompt]).logits[0, -1] * scale)
    second = softmax(
        tiny([[*prompt, i] for i in range(13)]).logits[:, -1] * scale
    )  # [13, 13]
    expected = n * first[:, None] * second
    out = tiny.generate(
        [prompt], max_new_tokens=2, do_sample=True, temperature=0.8, seed=2,
        eos_token_id=[], num_return_sequences=n, assistant_model=assistants[which],
        num_assistant_tokens=2,
    )  # fmt: skip
    counts = np.zeros((13, 13))
    np.add.at(counts, (out[:, 3], out[:, 4]), 1)
    likely = expected >= 5
    chi2 = ((counts - expected)[likely] ** 2 / expected[likely]).sum()
    rest = expected[~likely].sum()  # the others, as one cell
    chi2 += (counts[~likely].sum() - rest) ** 2 / rest
    k = likely.sum()
    # mean and deviation of a chi-square with k degrees of freedom: k, sqrt(2k)
    assert chi2 < k + 5 * math.sqrt(2 * k)


def softmax(x):
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def test_copying_takes_a_third_of_the_passes_or_fewer(shakespeare):
    """In a sequence that repeats itself most proposals are kept."""
    model = GPT2LMHeadModel.from_pretrained(shakespeare.folder)
    tokenizer = GPT2Tokenizer.from_pretrained(shakespeare.folder)
    ids = tokenizer.encode("To be, or not to be, " * 4, return_tensors="np")
    passes = []
    forward = model.forward
    model.forward = lambda *args, **more: (
        passes.append(len(args[0][0])) or forward(*args, **more)
    )
    plain = model.generate(ids, max_new_tokens=60, repetition_penalty=0.4)
    steps = len(passes)
    passes.clear()
    quick = model.generate(
        ids, max_new_tokens=60, repetition_penalty=0.4, prompt_lookup_num_tokens=8
    )
    np.testing.assert_array_equal(quick, plain)
    assert len(passes) < steps / 3


def test_scores_and_streamers_are_those_of_plain_decoding(tiny, assistants):
    class Recorder(list):
        def put(self, ids):
            self.append(ids.tolist())

        def end(self):
            self.append("end")

    ids = [[1, 2, 1, 2], [3, 1, 3, 1]]
    options = {"max_new_tokens": 10, "return_dict_in_generate": True}
    options |= {"output_scores": True, "output_logits": True, "eos_token_id": []}
    plain = tiny.generate(ids, **options)
    for how in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": assistants[0]}):
        out = tiny.generate(ids, **how, **options)
        np.testing.assert_allclose(np.stack(out.scores), np.stack(plain.scores), 1e-9)
        np.testing.assert_allclose(np.stack(out.logits), np.stack(plain.logits), 1e-9)
    told, told_plain = Recorder(), Recorder()
    tiny.generate(ids[:1], max_new_tokens=8, streamer=told_plain)
    tiny.generate(ids[:1], max_new_tokens=8, streamer=told, prompt_lookup_num_tokens=3)
    assert told == told_plain


def test_a_past_serves_speculative_decoding_too(tiny):
    past = tiny([[1, 2, 1]]).past_key_values
    options = {"input_ids": [[1, 2, 1, 2]], "max_new_tokens": 12}
    np.testing.assert_array_equal(
        tiny.generate(**options, past_key_values=past, prompt_lookup_num_tokens=4),
        tiny.generate(**options),
    )
    assert past.length == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2}, "assistant_model works with greedy decoding and sampling"),
        (
            {"output_attentions": True, "return_dict_in_generate": True},
            "output_attentions doesn't go with speculative decoding",
        ),
        (
            {"max_new_tokens": 30},
            "assistant_model has n_positions=20; these sequences need 30",
        ),
    ],
)
def test_what_cannot_be_is_refused(tiny, options, message):
    assistant = model_of(2, n_positions=20)
    with pytest.raises(ValueError, match=message):
        tiny.generate([[1]], assistant_model=assistant, **options)
    with pytest.raises(ValueError, match="another vocabulary"):
        tiny.generate([[1]], assistant_model=model_of(2, vocab_size=20))
