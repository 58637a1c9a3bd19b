"""Pairs, batches, padding, truncation: against transformers, and by example."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.tokenizer import GPT2Tokenizer

END = "<|endoftext|>"
SIDES = ("right", "left")

words = st.sampled_from(["one", " two", "three", " fourteen", "\n", "é", "😀", END])
texts = st.lists(words, max_size=7).map("".join)
rows = st.one_of(
    st.tuples(texts, st.none()),
    st.tuples(texts, texts),
    st.tuples(st.lists(texts, min_size=1, max_size=3), st.none()),
    st.lists(st.tuples(texts, texts), min_size=1, max_size=3).map(
        lambda pairs: tuple(map(list, zip(*pairs)))
    ),
)
options = st.fixed_dictionaries(
    {},
    optional={
        "add_special_tokens": st.booleans(),
        "padding": st.sampled_from([False, True, "longest", "max_length"]),
        "truncation": st.sampled_from(
            [None, False, True, "longest_first", "only_first", "only_second"]
        ),
        "max_length": st.integers(1, 12),
        "stride": st.integers(0, 3),
        "pad_to_multiple_of": st.sampled_from([1, 2, 3]),
        "padding_side": st.sampled_from(SIDES),
        "return_tensors": st.sampled_from([None, "np"]),
        "return_token_type_ids": st.booleans(),
        "return_attention_mask": st.booleans(),
        "return_special_tokens_mask": st.booleans(),
        "return_overflowing_tokens": st.booleans(),
    },
)
tokenizer_options = st.fixed_dictionaries(
    {
        "add_bos_token": st.booleans(),
        "add_prefix_space": st.booleans(),
        "padding_side": st.sampled_from(SIDES),
        "truncation_side": st.sampled_from(SIDES),
        "model_max_length": st.sampled_from([5, 1024, None]),
    }
)


@pytest.fixture(scope="session")
def gpt2():
    return GPT2Tokenizer.from_pretrained("gpt2", pad_token=END)


@pytest.fixture(scope="session")
def transformers_gpt2(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    folder = tmp_path_factory.mktemp("transformers")
    GPT2Tokenizer.from_pretrained("gpt2").save_vocabulary(folder)
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(folder, pad_token=END)
    tokenizer.major = int(transformers.__version__.split(".")[0])

    def give_up(message):  # instead of a line in a log and a text that is too long
        raise ValueError(message)

    transformers.tokenization_utils_base.logger.error = give_up
    return tokenizer


def set_up(tokenizer, setting):
    for name, value in setting.items():
        setattr(tokenizer, name, int(1e30) if value is None else value)
    return tokenizer


def plain(encoding):
    return {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in encoding.items()
    }


def attempt(encode):
    try:
        return plain(encode()), None
    except (ValueError, TypeError) as error:
        return None, error


# Where minigpt2 differs on purpose (see minigpt2/tokenizer/__init__.py) ...
OURS_REFUSES = "cannot take|needs a pair of texts|different lengths"
THEIRS_REFUSES = (
    "token_type_ids while setting add_special_tokens|'int' and 'NoneType'"
    "|We need to remove"
)


def settle_differences(ours, theirs, setting):
    """... and the values where it does, made equal."""
    if "num_truncated_tokens" in theirs:  # theirs is there even if nothing was cut
        if not any(theirs["overflowing_tokens"]):
            del ours["num_truncated_tokens"], theirs["num_truncated_tokens"]
        elif np.ndim(theirs["num_truncated_tokens"]) == 1:
            theirs["num_truncated_tokens"] = [
                count if tokens else 0
                for count, tokens in zip(
                    theirs["num_truncated_tokens"], theirs["overflowing_tokens"]
                )
            ]
    if setting["add_bos_token"]:  # theirs leaves it out
        for encoding in (ours, theirs):
            encoding.pop("token_type_ids", None)
    if theirs["input_ids"] in ([], [[]]):  # theirs does not pad a text that is empty
        ours.clear(), theirs.clear()


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:`max_length` is ignored")
@settings(max_examples=2000, deadline=None)
@given(rows, options, tokenizer_options)
def test_everything_is_as_in_transformers_4(gpt2, transformers_gpt2, row, how, setting):
    if transformers_gpt2.major != 4:
        pytest.skip("transformers 4 has the tokenizer in Python")
    theirs, their_error = attempt(
        lambda: set_up(transformers_gpt2, setting)(*row, **how)
    )
    ours, our_error = attempt(lambda: set_up(gpt2, setting)(*row, **how))
    if our_error is not None:
        assert their_error is not None or re.search(OURS_REFUSES, str(our_error))
    elif their_error is not None:
        assert re.search(THEIRS_REFUSES, str(their_error))
    else:
        settle_differences(ours, theirs, setting)
        assert ours == theirs
