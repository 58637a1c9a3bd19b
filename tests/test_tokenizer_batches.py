"""Pairs, batches, padding, truncation: by example, and against transformers."""

import copy
import functools
import json
import logging
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2.tokenizer import BatchEncoding, GPT2Tokenizer

GOLDENS = Path(__file__).parent / "data" / "tokenizer_goldens.json"
END = "<|endoftext|>"


@pytest.fixture(scope="session")
def gpt2():
    """GPT-2's tokenizer with a padding token; no test may change it."""
    return GPT2Tokenizer.from_pretrained("gpt2", pad_token=END)


# --- by example ---


def test_the_documented_batch(gpt2):
    encoded = gpt2(
        ["First sentence.", "Second sentence."],
        padding=True,
        truncation=True,
        return_tensors="np",
    )
    assert encoded["input_ids"].shape == (2, 3)
    assert encoded.input_ids.dtype == encoded.attention_mask.dtype == np.int64


def test_one_text_gives_flat_lists_and_a_batch_nested_ones(gpt2):
    one = {"input_ids": [15496, 995], "attention_mask": [1, 1]}
    assert gpt2("Hello world") == one
    assert gpt2(["Hello world"]) == {name: [value] for name, value in one.items()}
    assert gpt2([]) == {"input_ids": [], "attention_mask": []}
    assert gpt2("") == {"input_ids": [], "attention_mask": []}


@pytest.mark.parametrize("as_what", [tuple, np.array])
def test_a_batch_may_be_a_tuple_or_an_array(gpt2, as_what):
    texts = ["Hello world", "Hi"]
    assert gpt2(as_what(texts)) == gpt2(texts)


def test_padding_on_either_side(gpt2):
    texts = ["one two three", "one"]
    right = gpt2(texts, padding=True)
    assert right["input_ids"] == [[505, 734, 1115], [505, 50256, 50256]]
    assert right["attention_mask"] == [[1, 1, 1], [1, 0, 0]]
    left = gpt2(texts, padding="longest", padding_side="left")
    assert left["input_ids"] == [[505, 734, 1115], [50256, 50256, 505]]
    assert left["attention_mask"] == [[1, 1, 1], [0, 0, 1]]
    assert len(gpt2("one", padding="max_length", max_length=7)["input_ids"]) == 7
    assert len(gpt2("one", padding="max_length")["input_ids"]) == 1024
    assert len(gpt2("one two", padding=True, pad_to_multiple_of=8)["input_ids"]) == 8
    assert gpt2("", padding="max_length", max_length=2)["input_ids"] == [50256] * 2


def test_padding_without_a_padding_token_says_what_to_do():
    bare = GPT2Tokenizer.from_pretrained("gpt2")
    for call in (bare, lambda texts, **how: bare.pad(bare(texts), **how)):
        with pytest.raises(ValueError, match=r"tokenizer\.pad_token = tokenizer\.eos_"):
            call(["a", "b c"], padding=True)
    # The documented example has rows of one length and sets no padding token.
    assert bare(["a", "b"], padding=True)["input_ids"] == [[64], [65]]
    bare.pad_token = bare.eos_token
    assert bare(["a", "b c"], padding=True)["input_ids"] == [[64, 50256], [65, 269]]


def test_truncation_of_a_pair(gpt2):
    pair = "one two three four", "five six"
    cut = {
        "only_first": [505, 734, 13261, 2237],
        "longest_first": [505, 734, 13261, 2237],
    }
    for strategy, ids in cut.items():
        assert gpt2(*pair, truncation=strategy, max_length=4)["input_ids"] == ids
    second = gpt2(*pair, truncation="only_second", max_length=5)["input_ids"]
    assert second == [505, 734, 1115, 1440, 13261]
    left = GPT2Tokenizer.from_pretrained("gpt2", truncation_side="left")
    assert left("one two three", max_length=2, truncation=True)["input_ids"] == [
        734,
        1115,
    ]


def test_truncation_that_cannot_reach_max_length_is_refused(gpt2):
    for strategy in ("only_first", "only_second"):
        with pytest.raises(
            ValueError, match=r"cannot take 3 ids off texts that have 2 a"
        ):
            gpt2("a b", "c d", truncation=strategy, max_length=1)
    with pytest.raises(ValueError, match="needs a pair of texts"):
        gpt2("a b", truncation="only_second", max_length=1)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        gpt2("a b", truncation=True, max_length=0)
    with pytest.raises(ValueError, match="padded to a multiple of 4: 6 is none"):
        gpt2("a", padding=True, truncation=True, max_length=6, pad_to_multiple_of=4)


def test_overflowing_tokens_repeat_stride_ids(gpt2):
    how = {"truncation": True, "max_length": 4, "return_overflowing_tokens": True}
    encoded = gpt2("one two three four five six", stride=1, **how)
    assert encoded["input_ids"] == [505, 734, 1115, 1440]
    assert encoded["overflowing_tokens"] == [1440, 1936, 2237]
    assert encoded["num_truncated_tokens"] == 2
    with pytest.raises(ValueError, match="choose 'only_first' or 'only_second'"):
        gpt2("one", "two", **how)


def test_encode_cuts_to_max_length_as_documented(gpt2):
    assert gpt2.encode("one two three", True, 2) == [505, 734]
    assert gpt2.encode("one", text_pair=" two", return_tensors="np").tolist() == [
        [505, 734]
    ]
    assert gpt2.encode("one", " two") == [505, 734]  # as in transformers
    pair = gpt2.encode(
        "a b", text_pair="c d", max_length=3, truncation_strategy="only_first"
    )
    assert pair == [64, 66, 288]


def test_encode_takes_both_orders_of_arguments(gpt2):
    # transformers' (text_pair second), and pytorch-transformers' as documented.
    assert gpt2.encode("a", "b", add_special_tokens=False) == [64, 65]
    assert gpt2.encode("a", "b", False) == [64, 65]
    assert gpt2.encode("a", None, False) == gpt2.encode("a", False) == [64]
    assert gpt2.encode("a", np.array([65])) == [64, 65]
    assert gpt2.encode("a b", True, max_length=1) == [64]
    bos = GPT2Tokenizer.from_pretrained("gpt2", add_bos_token=True)
    assert bos.encode("a", "b", add_special_tokens=False) == [64, 65]
    assert bos.encode("a", "b", True) == [50256, 64, 50256, 65]
    with pytest.raises(TypeError, match="second argument is given twice"):
        gpt2.encode("a", True, add_special_tokens=False)
    with pytest.raises(TypeError, match="second argument is given twice"):
        gpt2.encode("a", "b", text_pair="c")


def test_truncation_strategy_is_the_old_name_of_truncation(gpt2):
    for call in (gpt2, gpt2.encode_plus):
        encoded = call("one two", max_length=1, truncation_strategy="only_first")
        assert encoded["input_ids"] == [505]
    whole = gpt2.encode("one two", max_length=1, truncation_strategy="do_not_truncate")
    assert whole == [505, 734]


def test_rows_of_different_lengths_make_no_array(gpt2):
    with pytest.raises(ValueError, match="'padding=True' 'truncation=True'"):
        gpt2(["a", "b c"], return_tensors="np")


@pytest.mark.parametrize(("kind", "module"), [("pt", "torch"), ("tf", "tensorflow")])
def test_tensors_of_a_library_that_is_not_there_point_to_np(
    gpt2, monkeypatch, kind, module
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"needs {module}.*return_tensors='np'"):
        gpt2("a", return_tensors=kind)


def test_tensorflow_tensors(gpt2):
    tensorflow = pytest.importorskip("tensorflow")
    ids = gpt2("Hello world", return_tensors="tf")["input_ids"]
    assert isinstance(ids, tensorflow.Tensor)
    assert ids.numpy().tolist() == [[15496, 995]]


@pytest.mark.peers
def test_torch_tensors(gpt2):
    torch = pytest.importorskip("torch")
    encoded = gpt2("Hello world", return_tensors="pt").to("cpu")
    assert encoded.input_ids.dtype == torch.int64
    assert encoded.input_ids.tolist() == [[15496, 995]]
    assert gpt2.decode(encoded.input_ids[0]) == "Hello world"


def test_words_are_encoded_each_with_a_space_before(gpt2):
    words = ["Hello", "world"]
    assert gpt2(words, is_split_into_words=True) == gpt2(" Hello world")
    batch = gpt2([words, ["Hi"]], is_split_into_words=True)
    assert batch["input_ids"] == [[18435, 995], [15902]]


def test_tokens_and_ids_are_taken_as_they_are(gpt2):
    assert gpt2.encode(["Hello", "Ġworld"]) == gpt2.encode([15496, 995]) == [15496, 995]
    batch = gpt2.batch_encode_plus([[15496, 995], "Hi", ("Hi", " there")])
    assert batch["input_ids"] == [[15496, 995], [17250], [17250, 612]]
    model = gpt2.prepare_for_model([15496, 995], [17250], return_token_type_ids=True)
    assert model["token_type_ids"] == [0, 0, 1]
    assert gpt2.prepare_for_model([1, 2], return_tensors="np")["input_ids"].shape == (
        2,
    )


def test_bos_is_put_before_each_text_if_asked_for():
    bos = GPT2Tokenizer.from_pretrained("gpt2", add_bos_token=True, pad_token=END)
    encoded = bos(
        ["Hello", "Hi"],
        [" world", " there you"],
        padding=True,
        return_token_type_ids=True,
        return_special_tokens_mask=True,
        return_offsets_mapping=True,
        return_length=True,
    )
    assert encoded["input_ids"][0] == [50256, 15496, 50256, 995, 50256]
    assert encoded["token_type_ids"] == [[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert encoded["special_tokens_mask"] == [[1, 0, 1, 0, 1], [1, 0, 1, 0, 0]]
    assert encoded["offset_mapping"][0] == [(0, 0), (0, 5), (0, 0), (0, 6), (0, 0)]
    assert encoded["length"] == [4, 5]
    assert bos.encode("Hello", add_special_tokens=False) == [15496]
    assert bos.num_special_tokens_to_add(pair=True) == 2
    assert bos.max_len_single_sentence == 1023
    assert bos.get_special_tokens_mask([50256, 3], already_has_special_tokens=True) == [
        1,
        0,
    ]


def test_eos_is_put_behind_each_text_if_asked_for():
    # transformers 5: [50256, 64, 50256, 50256, 65, 50256], types [0, 0, 0, 1, 1, 1]
    both = GPT2Tokenizer.from_pretrained("gpt2", add_bos_token=True, add_eos_token=True)
    encoded = both(
        "a", "b", return_token_type_ids=True, return_special_tokens_mask=True
    )
    assert encoded["input_ids"] == [50256, 64, 50256, 50256, 65, 50256]
    assert encoded["token_type_ids"] == [0, 0, 0, 1, 1, 1]
    assert encoded["special_tokens_mask"] == [1, 0, 1, 1, 0, 1]
    eos = GPT2Tokenizer.from_pretrained("gpt2", add_eos_token=True)
    assert eos.encode("a") == [64, 50256]
    assert eos("a b c", truncation=True, max_length=2)["input_ids"] == [64, 50256]
    with pytest.raises(ValueError, match="add_eos_token needs an eos_token"):
        GPT2Tokenizer.from_pretrained("gpt2", add_eos_token=True, eos_token=None)


def test_a_subclass_may_put_other_special_tokens_around():
    class WithEnd(GPT2Tokenizer):
        def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
            return [*token_ids_0, self.eos_token_id]

    tokenizer = WithEnd.from_pretrained("gpt2")
    assert tokenizer("one two three")["input_ids"] == [505, 734, 1115, 50256]
    cut = tokenizer("one two three", truncation=True, max_length=3)
    assert cut == {"input_ids": [505, 734, 50256], "attention_mask": [1, 1, 1]}
    assert cut.word_ids() == [0, 1, None]
    told = tokenizer(
        "one two", return_special_tokens_mask=True, return_offsets_mapping=True
    )
    assert told["special_tokens_mask"] == [0, 0, 1]
    assert told["offset_mapping"] == [(0, 3), (3, 7), (0, 0)]


def test_offsets_are_places_in_the_text(gpt2):
    text = f"Héllo 😀{END} wörld"
    encoded = gpt2(text, return_offsets_mapping=True)
    parts = [text[start:stop] for start, stop in encoded["offset_mapping"]]
    # The emoji takes two ids; both have the whole of it.
    assert parts == ["H", "é", "llo", " 😀", "😀", END, " w", "ör", "ld"]
    assert gpt2(text, return_offsets_mapping=True, add_prefix_space=True)[
        "offset_mapping"
    ][0] == (0, 1)
    with pytest.raises(ValueError, match="need texts"):
        gpt2.encode_plus([15496], return_offsets_mapping=True)


def test_pad_takes_what_was_encoded_before(gpt2):
    texts = ["one two three", "one"]
    padded = gpt2(texts, padding=True)
    assert gpt2.pad(gpt2(texts)) == padded
    assert gpt2.pad([gpt2(text) for text in texts]) == padded
    assert gpt2.pad({"input_ids": gpt2(texts)["input_ids"]}) == padded
    arrays = gpt2.pad(gpt2(texts), return_tensors="np")
    assert arrays["input_ids"].tolist() == padded["input_ids"]
    one = gpt2.pad(gpt2("one"), padding="max_length", max_length=2)
    assert one == {"input_ids": [505, 50256], "attention_mask": [1, 0]}
    with pytest.raises(
        ValueError, match=r"includes input_ids, but you provided \['x'\]"
    ):
        gpt2.pad({"x": []})
    with pytest.raises(ValueError, match="one of the encodings lacks labels"):
        gpt2.pad([{"input_ids": [1], "labels": 1}, {"input_ids": [1]}])
    with pytest.raises(ValueError, match="input_ids has 2 rows, and labels has not as"):
        gpt2.pad({"input_ids": [[1], [2]], "labels": [1]})
    with pytest.raises(ValueError, match="expected an encoding or a list of them"):
        gpt2.pad("a")


LABELS = [[0.5, 1.2], [True, False], [1, 2], [[1, 2], [3.5, 4]], [[True], [1]], [2**40]]


@pytest.mark.parametrize("labels", LABELS)
def test_arrays_hold_the_values_that_lists_hold(labels):
    made = BatchEncoding({"labels": labels}).convert_to_tensors("np")["labels"]
    kinds = {bool: "b", int: "i", float: "f"}
    flat = [x for row in labels for x in (row if isinstance(row, list) else [row])]
    kind = max((kinds[type(x)] for x in flat), key="bif".index)
    assert made.dtype == {"b": np.bool_, "i": np.int64, "f": np.float64}[kind]
    assert made.tolist() == labels


@pytest.mark.peers
@pytest.mark.parametrize("kind", ["np", "pt"])
@pytest.mark.parametrize("labels", LABELS)
def test_dtypes_are_those_of_transformers(labels, kind):
    transformers = pytest.importorskip("transformers")
    theirs, ours = (
        each({"labels": labels}).convert_to_tensors(kind)["labels"]
        for each in (transformers.BatchEncoding, BatchEncoding)
    )
    assert ours.dtype == theirs.dtype
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("labels", [["a", "b"], [None, 1], [2**70], [{}]])
def test_what_is_no_number_makes_no_array(labels):
    with pytest.raises(ValueError, match="tensor of `labels`, which holds"):
        BatchEncoding({"labels": labels}).convert_to_tensors("np")


def test_pad_keeps_floats_and_returns_what_it_was_given(gpt2):
    rows = [{"input_ids": [1, 2], "labels": 0.7}, {"input_ids": [1], "labels": 0.1}]
    assert gpt2.pad(rows)["labels"] == [0.7, 0.1]
    assert gpt2.pad(rows, return_tensors="np")["labels"].tolist() == [0.7, 0.1]
    padded = [[1, 2], [1, 50256]]
    of_lists = gpt2.pad({"input_ids": [[1, 2], [1]]})
    assert of_lists == {"input_ids": padded, "attention_mask": [[1, 1], [1, 0]]}
    for rows in (
        [{"input_ids": np.array([1, 2])}, {"input_ids": np.array([1])}],
        {"input_ids": [np.array([1, 2]), np.array([1])]},
    ):
        batch = gpt2.pad(rows)
        assert all(isinstance(value, np.ndarray) for value in batch.values())
        assert batch["input_ids"].tolist() == padded
    batch = gpt2.pad({"input_ids": np.array([[1, 2]]), "labels": np.array([0.5])})
    assert batch["labels"].tolist() == [0.5]
    one = gpt2.pad({"input_ids": np.array([1])}, padding="max_length", max_length=2)
    assert one["attention_mask"].tolist() == [1, 0]


@pytest.mark.peers
def test_pad_returns_tensors_for_tensors(gpt2):
    torch = pytest.importorskip("torch")
    rows = [{"input_ids": torch.tensor([1, 2])}, {"input_ids": torch.tensor([1])}]
    batch = gpt2.pad(rows)
    assert isinstance(batch["input_ids"], torch.Tensor)
    assert batch["input_ids"].tolist() == [[1, 2], [1, 50256]]


NO_TEXT = [None, {}, {"a": 1}, {1, 2}, range(3), memoryview(b"ab"), b"ab", 3, 1.5, True]
NO_TEXT += [["a", 1], [1, "a"], [1.0], [True], [None], [-1], np.array([0.5]), object()]


@pytest.mark.parametrize("what", [*NO_TEXT, "generator"], ids=repr)
def test_what_is_no_text_and_no_ids_is_refused(gpt2, what):
    if isinstance(what, str):
        what = (id for id in [1, 2])
    calls = [gpt2.encode, gpt2.encode_plus, gpt2]
    calls += [lambda x: gpt2("a", x), lambda x: gpt2.encode_plus("a", x)]
    for call in calls[: 3 if what is None else 5]:
        with pytest.raises(ValueError, match="text must be a str|id -1: ids are"):
            call(what)
    with pytest.raises(ValueError, match="must be a|id -1"):
        gpt2.batch_encode_plus([what])
    with pytest.raises(
        ValueError, match="a batch must be a list|must be a text|text must|id -1"
    ):
        gpt2.batch_encode_plus(what)


def test_ids_come_as_lists_tuples_and_arrays(gpt2):
    for ids in ([15496, 995], (15496, 995), np.array([15496, 995])):
        assert gpt2.encode(ids) == [15496, 995]
        assert gpt2.batch_encode_plus([ids])["input_ids"] == [[15496, 995]]
    assert gpt2.encode([]) == []


def test_an_empty_word_has_no_ids(gpt2):
    # transformers 5: [[64, 65], []] for the same without the spaces
    encoded = gpt2(
        [["a", "", "b"], [""], []],
        is_split_into_words=True,
        return_offsets_mapping=True,
    )
    assert encoded["input_ids"] == [gpt2.encode(" a b"), [], []]
    assert encoded["offset_mapping"] == [[(0, 1), (0, 1)], [], []]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3,), {}, ValueError, "text must be a str, a list of str"),
        (([1, 2],), {}, ValueError, "text must be a str, a list of str"),
        (("a", 3), {}, ValueError, "text must be a str, a list of str"),
        ((["a", "b"], ["c"]), {}, ValueError, "a batch of 2: text_pair must be"),
        ((["a", "b"], "c"), {}, ValueError, "a batch of 2: text_pair must be"),
        (([["a", "b", "c"]],), {}, ValueError, "a text or a pair of texts"),
        (("a",), {"foo": 1}, TypeError, "foo"),
        (("a",), {"padding": "middle"}, ValueError, "'middle' is none of .*'longest'"),
        (("a",), {"truncation": "x"}, ValueError, "'x' is none of .*'only_first'"),
        (("a",), {"padding_side": "up"}, ValueError, "'up' is none of 'right', 'left'"),
        (("a",), {"max_length": 2.5}, ValueError, "max_length must be a whole number"),
        (("a",), {"max_length": "9"}, ValueError, "max_length must be a whole number"),
        (("a",), {"stride": -1}, ValueError, "stride must be a whole number, not -1"),
        (("a",), {"return_tensors": "jax"}, ValueError, "'jax': 'np', 'pt', 'tf'"),
    ],
)
def test_wrong_arguments_are_refused_by_name(gpt2, arguments, options, error, message):
    with pytest.raises(error, match=message):
        gpt2(*arguments, **options)


def test_each_warning_is_given_once_a_tokenizer(caplog):
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2", pad_token=END)
    endless = GPT2Tokenizer.from_pretrained("gpt2", model_max_length=10**30)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tokenizer("a" * 9999, verbose=False)
            tokenizer("^ " * 1025)
            tokenizer("a", max_length=3)
            tokenizer("a", max_length=3, padding=True)
            assert endless("a b", truncation=True)["input_ids"] == [64, 275]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 4
    assert "longer than the specified maximum" in messages[0]
    assert "(1026 > 1024)" in messages[0]
    assert "Truncation was not explicitly activated" in messages[1]
    assert "`max_length` is ignored" in messages[2]
    assert "no maximum length is provided" in messages[3]


def test_an_encoding_is_a_dict_with_attributes(gpt2):
    encoding = gpt2(["one two", "one"], padding=True)
    assert encoding.input_ids is encoding["input_ids"] is encoding.data["input_ids"]
    assert json.loads(json.dumps(encoding)) == encoding
    assert {**encoding}.keys() == {"input_ids", "attention_mask"}
    assert encoding[1:] == {"input_ids": [[505, 50256]], "attention_mask": [[1, 0]]}
    assert encoding.to("cpu") is encoding
    twin = pickle.loads(pickle.dumps(encoding))
    assert isinstance(twin, BatchEncoding)
    assert twin == encoding
    assert encoding.convert_to_tensors("np").input_ids.shape == (2, 2)
    assert gpt2("a").convert_to_tensors("np", True).input_ids.shape == (1, 1)
    with pytest.raises(AttributeError, match="no 'labels'"):
        encoding.labels  # noqa: B018


def test_upstreams_padding_lengths(tmp_path):
    # transformers' test_padding_if_pad_token_set_slow, on its own small vocabulary.
    words = ["l", "o", "w", "e", "r", "s", "t", "i", "d", "n", "Ġ", "Ġl", "Ġn", "Ġlo"]
    words += ["Ġlow", "er", "Ġlowest", "Ġnewer", "Ġwider", "<unk>", END]
    merges = ["Ġ l", "Ġl o", "Ġlo w", "e r"]
    ids = {word: id for id, word in enumerate(words)}
    tokenizer = GPT2Tokenizer(ids, merges, unk_token="<unk>", pad_token="<pad>")
    pad = tokenizer.pad_token_id
    one, two = "This is a simple input", "This is a pair"
    batch = ["This is a simple input looooooooong", "This is a simple input"]
    pairs = [
        ("This is a simple input loooooong", "This is a simple input"),
        ("This is a simple pair loooooong", "This is a simple pair"),
    ]
    full = {"padding": "max_length", "return_tensors": "np"}
    longest = {"padding": True, "truncation": True, "return_tensors": "np"}
    a = tokenizer(one, max_length=30, **full)
    b = tokenizer(batch, max_length=1000, **longest)
    c = tokenizer(one, two, max_length=60, **full)
    d = tokenizer(pairs, max_length=1000, **longest)
    lengths = [e["input_ids"].shape[-1] for e in (a, b, c, d)]
    assert lengths == [30, 33, 60, 52]
    for encoded in (a, b, c, d):
        padded = encoded["input_ids"] == pad
        assert (encoded["attention_mask"] == ~padded).all()
        assert padded[-1 if encoded is not d else 1].any()


# --- against transformers ---


SIDES = ("right", "left")
words = st.sampled_from(["one", " two", "three", " fourteen", "\n", "é", "😀", END])
texts = st.lists(words, max_size=7).map("".join)
inputs = st.one_of(
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
settings_of_tokenizer = st.fixed_dictionaries(
    {
        "add_bos_token": st.booleans(),
        "add_prefix_space": st.booleans(),
        "padding_side": st.sampled_from(SIDES),
        "truncation_side": st.sampled_from(SIDES),
        "model_max_length": st.sampled_from([5, 1024, int(1e30)]),
    }
)


@pytest.fixture(scope="session")
def transformers_gpt2(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    folder = tmp_path_factory.mktemp("transformers")
    GPT2Tokenizer.from_pretrained("gpt2").save_vocabulary(folder)
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(folder, pad_token=END)
    tokenizer.major = int(transformers.__version__.split(".")[0])

    def made(**how):
        return transformers.GPT2Tokenizer.from_pretrained(folder, pad_token=END, **how)

    tokenizer.made = functools.cache(made)

    def give_up(message):  # instead of a line in a log and a text that is too long
        raise ValueError(message)

    transformers.tokenization_utils_base.logger.error = give_up
    return tokenizer


def attempt(tokenizer, setting, row, how):
    """What the tokenizer returns, as lists, and what it raises."""
    before = {name: getattr(tokenizer, name) for name in setting}
    for name, value in setting.items():
        setattr(tokenizer, name, value)
    try:
        encoding = tokenizer(*row, **how)
    except (ValueError, TypeError) as error:
        return None, error
    finally:
        for name, value in before.items():
            setattr(tokenizer, name, value)
    return {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in encoding.items()
    }, None


# Where minigpt2 differs on purpose, see minigpt2/tokenizer/__init__.py ...
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
        ours.clear()
        theirs.clear()


def says_prefix_space_otherwise(setting, row):
    """Whether transformers 4's tokenizer in Python puts other spaces than 5, which puts
    one before each part between added tokens, unless the part begins with one."""
    texts = [
        text for part in row for text in ([part] if isinstance(part, str) else part)
    ]
    return setting["add_prefix_space"] and any(
        text == "" or text.startswith(" ") or END in text for text in texts
    )


def check_against(theirs, their_error, gpt2, setting, row, how):
    if says_prefix_space_otherwise(
        setting, [() if part is None else part for part in row]
    ):
        return
    ours, our_error = attempt(gpt2, setting, row, how)
    if our_error is not None:
        assert their_error is not None or re.search(OURS_REFUSES, str(our_error))
    elif their_error is not None:
        assert re.search(THEIRS_REFUSES, their_error)
    else:
        settle_differences(ours, theirs, setting)
        assert ours == theirs


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:`max_length` is ignored")
@settings(max_examples=400, deadline=None)
@given(inputs, options, settings_of_tokenizer)
def test_everything_is_as_in_transformers_4(gpt2, transformers_gpt2, row, how, setting):
    if transformers_gpt2.major != 4:
        pytest.skip("the tokenizer in Python is in transformers 4")
    theirs, their_error = attempt(transformers_gpt2, setting, row, how)
    error = None if their_error is None else str(their_error)
    check_against(theirs, error, gpt2, setting, row, how)


def test_a_slice_of_what_transformers_4_does(gpt2):
    cases = json.loads(GOLDENS.read_text("utf-8"))["batches"]
    assert len(cases) > 100
    for case in cases:
        check_against(
            case["result"],
            case["error"],
            gpt2,
            case["setting"],
            case["input"],
            case["options"],
        )


# (Transformers 4 puts a space before a word that begins with one, and in an empty one.)
some_text = texts.filter(lambda t: t and t[0] != " " and END not in t)


@pytest.mark.peers
@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(some_text, min_size=1, max_size=3), min_size=1, max_size=3))
def test_words_are_as_in_transformers_4(gpt2, transformers_gpt2, batch):
    if transformers_gpt2.major != 4:
        pytest.skip("transformers 5 puts no space before each word")
    how = {"is_split_into_words": True}
    assert gpt2(batch, **how) == dict(transformers_gpt2(batch, **how))
    assert gpt2(batch[0], **how) == dict(transformers_gpt2(batch[0], **how))


METHODS_OF_A_ROW = ("tokens", "word_ids", "sequence_ids")
METHODS_OF_A_TOKEN = ("token_to_sequence", "token_to_word", "token_to_chars")
METHODS_OF_A_TEXT = ("word_to_tokens", "word_to_chars", "char_to_token", "char_to_word")


def check_words(ours, theirs):
    """Compare all that two encodings know of words and places."""
    assert ours.is_fast
    assert ours.n_sequences == theirs.n_sequences
    for row in range(len(theirs.encodings)):
        for name in METHODS_OF_A_ROW:
            assert getattr(ours, name)(row) == getattr(theirs, name)(row), name
        for place in range(len(theirs.encodings[row])):
            for name in METHODS_OF_A_TOKEN:
                assert getattr(ours, name)(row, place) == getattr(theirs, name)(
                    row, place
                ), name
        for place in range(40):
            for name in METHODS_OF_A_TEXT:
                for n in range(theirs.n_sequences):
                    try:
                        expected = getattr(theirs, name)(row, place, n)
                    except TypeError:  # its word_to_chars of a word that is not there
                        expected = None
                    assert getattr(ours, name)(row, place, n) == expected, (name, place)


@pytest.mark.peers
@settings(max_examples=100, deadline=None)
@given(
    inputs,
    st.fixed_dictionaries(
        {"padding": st.booleans(), "padding_side": st.sampled_from(SIDES)}
    ),
    st.none() | st.integers(3, 12),
    st.booleans(),
)
def test_words_and_places_are_those_of_transformers_5(
    gpt2, transformers_gpt2, row, how, longest, bos
):
    if transformers_gpt2.major != 5:
        pytest.skip("the tokenizer in Python knows no words")
    first, second = row
    if longest is not None and second is None:
        how |= {"truncation": True, "max_length": longest}
    if second is not None and not all([second, *second]):
        second = None  # as transformers 5 takes an empty one
    theirs = transformers_gpt2.made(add_bos_token=bos)
    ours = gpt2 if not bos else with_bos()
    check_words(ours(first, second, **how), theirs(first, second, **how))


@functools.cache
def with_bos():
    return GPT2Tokenizer.from_pretrained("gpt2", pad_token=END, add_bos_token=True)


@pytest.mark.peers
def test_given_words_are_those_of_transformers_5(gpt2, transformers_gpt2):
    if transformers_gpt2.major != 5:
        pytest.skip("the tokenizer in Python knows no words")
    spaced = [["Hello", "", "wor ld's", f"a{END}"], ["x"]]
    theirs = transformers_gpt2.made(add_prefix_space=True)
    how = {"is_split_into_words": True, "padding": True}
    assert gpt2(spaced, **how).input_ids == theirs(spaced, **how).input_ids
    for row in (0, 1):
        ours = gpt2(spaced, **how)
        assert ours.word_ids(row) == theirs(spaced, **how).word_ids(row)


def test_words_and_places(gpt2):
    # The numbers are those of transformers 5.23.
    e = gpt2("Héllo 😀 world", "b c")
    assert e.word_ids() == [0, 0, 0, 1, 1, 2, 0, 1]
    assert e.sequence_ids() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert e.tokens() == ["H", "Ã©", "llo", "ĠðŁĺ", "Ģ", "Ġworld", "b", "Ġc"]
    assert [e.char_to_token(i) for i in (0, 4, 5, 6, 7, 12, 13)] == [
        *(0, 2, 3, 3, 5, 5),
        None,
    ]
    assert e.char_to_token(0, sequence_index=1) == 6
    assert e.token_to_chars(3) == (5, 7)
    assert e.word_to_tokens(1) == (3, 5)
    assert e.word_to_tokens(1).end == 5
    assert e.word_to_tokens(3) is None
    assert e.word_to_chars(2) == (7, 13)
    assert e[0].ids == e["input_ids"]
    assert len(e.encodings) == 1
    padded = gpt2(["a b", "c"], padding=True)
    assert padded.word_ids(1) == padded.sequence_ids(1) == [0, None]
    assert padded.token_to_chars(1, 1) is None
    assert gpt2("a b", return_tensors="np").word_ids() == [0, 1]


def test_words_are_not_known_of_what_no_tokenizer_made_of_texts(gpt2):
    encoding = gpt2("a b")
    other = BatchEncoding({"input_ids": [1]})
    assert not other.is_fast
    assert other.encodings is None
    with pytest.raises(ValueError, match="word_ids needs an encoding as the tokenizer"):
        other.word_ids()
    of_ids = gpt2.encode_plus([1, 2])
    assert of_ids.tokens() == ['"', "#"]
    assert of_ids.sequence_ids() == [0, 0]
    with pytest.raises(ValueError, match="word_ids and their like need texts"):
        of_ids.word_ids()
    with pytest.raises(KeyError, match="overflowing_tokens holds it"):
        encoding["overflow_to_sample_mapping"]
    with pytest.raises(AttributeError, match="overflowing_tokens holds it"):
        encoding.overflow_to_sample_mapping  # noqa: B018


def test_a_copy_of_an_encoding_knows_its_words(gpt2):
    encoding = gpt2("a b", "c", padding="max_length", max_length=4)
    for twin in (copy.copy(encoding), copy.deepcopy(encoding)):
        assert twin.word_ids() == [0, 1, 0, None]
    data = pickle.dumps(encoding)
    assert len(data) < 1000  # without the tokenizer
    twin = pickle.loads(data)
    assert twin == encoding
    assert twin.tokens() == ["a", "Ġb", "c", END]
    assert twin.char_to_token(0, sequence_index=1) == 2
    of_ids = pickle.loads(pickle.dumps(gpt2.encode_plus([1, 2])))
    assert of_ids.tokens() == ['"', "#"]


@pytest.mark.peers
@settings(max_examples=300, deadline=None)
@given(texts | st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_offsets_are_as_in_transformers_5(gpt2, transformers_gpt2, text):
    if transformers_gpt2.major != 5:
        pytest.skip("the tokenizer in Python has no offsets")
    how = {"return_offsets_mapping": True}
    assert gpt2(text, **how) == dict(transformers_gpt2(text, **how))


def test_a_slice_of_the_offsets_of_transformers_5(gpt2):
    cases = json.loads(GOLDENS.read_text("utf-8"))["offsets"]
    assert len(cases) > 30
    for case in cases:
        encoded = gpt2(case["text"], return_offsets_mapping=True)
        assert encoded["input_ids"] == case["ids"]
        assert list(map(list, encoded["offset_mapping"])) == case["offsets"]
