import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import bpe
from minigpt2.tokenizer import (
    AddedToken,
    GPT2Tokenizer,
    GPT2TokenizerFast,
    PreTrainedTokenizer,
)
from minigpt2.tokenizer.fast_bpe import FastBPE

VOCAB_BPE = Path(bpe.__file__).parent / "data" / "gpt2" / "vocab.bpe"
DATA = Path(__file__).parent / "data"
END = "<|endoftext|>"

CHARACTERS = "aZ'st 09²é中😀\u0301^.\n\t\x1c\x85\xa0\u3000\0"
texts = st.lists(
    st.text(st.sampled_from(CHARACTERS), max_size=8)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from([END, "<|", "|>", "endoftext", "the", " world"]),
    max_size=8,
).map("".join)
ids_lists = st.lists(st.integers(0, 50256) | st.integers(0, 255), max_size=30)


@pytest.fixture(scope="session")
def gpt2():
    return GPT2Tokenizer.from_pretrained("gpt2")


@settings(deadline=None)
@given(texts)
def test_decode_of_encode_is_the_same_text(gpt2, text):
    assert gpt2.decode(gpt2.encode(text)) == text
    assert gpt2.decode(gpt2.encode(text, split_special_tokens=True)) == text
    assert gpt2.convert_tokens_to_string(gpt2.tokenize(text)) == text


@settings(deadline=None)
@given(texts)
def test_tokens_and_ids_are_the_same_thing(gpt2, text):
    for split in (False, True):
        tokens = gpt2.tokenize(text, split_special_tokens=split)
        ids = gpt2.encode(text, split_special_tokens=split)
        assert gpt2.convert_tokens_to_ids(tokens) == ids
        assert gpt2.convert_ids_to_tokens(ids) == tokens


def test_end_of_text_within_a_text_is_its_id_unless_it_is_split(gpt2):
    assert gpt2.encode(f"a{END} b") == [64, 50256, 275]
    assert gpt2.tokenize(f"a{END} b") == ["a", END, "Ġb"]
    assert gpt2.encode(END, split_special_tokens=True) == [
        27,
        91,
        437,
        1659,
        5239,
        91,
        29,
    ]
    strict = GPT2Tokenizer.from_pretrained("gpt2", split_special_tokens=True)
    assert strict.encode(END) == [27, 91, 437, 1659, 5239, 91, 29]
    assert strict.encode(END, split_special_tokens=False) == [50256]


def test_special_tokens_have_gpt2s_ids(gpt2):
    assert gpt2.bos_token == gpt2.eos_token == gpt2.unk_token == END
    assert gpt2.bos_token_id == gpt2.eos_token_id == gpt2.unk_token_id == 50256
    assert gpt2.pad_token is None
    assert gpt2.pad_token_id is None
    assert gpt2.vocab_size == len(gpt2) == 50257


def test_skip_special_tokens_leaves_them_out(gpt2):
    ids = gpt2.encode(f"{END}Hello{END} world")
    assert gpt2.decode(ids) == f"{END}Hello{END} world"
    assert gpt2.decode(ids, skip_special_tokens=True) == "Hello world"
    assert gpt2.convert_ids_to_tokens(ids, skip_special_tokens=True) == [
        "Hello",
        "Ġworld",
    ]


def test_encode_returns_an_int64_array_of_shape_1_t(gpt2):
    ids = gpt2.encode("Hello, my dog is cute", return_tensors="np")
    assert ids.dtype == np.int64
    assert ids.tolist() == [[15496, 11, 616, 3290, 318, 13779]]


@pytest.mark.parametrize("as_what", [list, tuple, np.array, iter])
def test_decode_takes_any_sequence_of_ids(gpt2, as_what):
    assert gpt2.decode(as_what([15496, 995])) == "Hello world"


def test_decode_takes_one_id(gpt2):
    assert gpt2.decode(15496) == gpt2.decode(np.int64(15496)) == "Hello"
    assert gpt2.convert_ids_to_tokens(995) == "Ġworld"


@pytest.mark.parametrize(
    "what",
    [
        None,
        "ab",
        b"ab",
        {1: 2},
        {1},
        memoryview(b"a"),
        1.0,
        [1.0],
        [True],
        [None],
        ["a"],
    ],
    ids=repr,
)
def test_decode_refuses_what_are_no_ids(gpt2, what):
    for use in (gpt2.decode, gpt2.convert_ids_to_tokens):
        with pytest.raises(TypeError, match=r"ids must be (an )?int"):
            use(what)


def test_decode_of_a_batch_points_to_batch_decode(gpt2):
    with pytest.raises(ValueError, match="batch_decode"):
        gpt2.decode(np.array([[15496, 995]]))


@pytest.mark.parametrize("id", [-1, 50257])
def test_an_id_out_of_range_is_refused_with_the_vocabularys_size(gpt2, id):
    for use in (gpt2.decode, gpt2.convert_ids_to_tokens, gpt2.decode_stream().put):
        with pytest.raises(ValueError, match=rf"id {id} .* 50257 tokens"):
            use(id)


def test_errors_governs_what_half_a_character_decodes_to(gpt2):
    half = gpt2.encode("😀")[:1]
    assert gpt2.decode(half) == "\ufffd"
    assert GPT2Tokenizer.from_pretrained("gpt2", errors="ignore").decode(half) == ""
    with pytest.raises(UnicodeDecodeError):
        GPT2Tokenizer.from_pretrained("gpt2", errors="strict").decode(half)
    with pytest.raises(LookupError, match="nonsense"):
        GPT2Tokenizer.from_pretrained("gpt2", errors="nonsense")


def test_clean_up_is_off(gpt2):
    text = "Hello , world . I do n't ' know ' ?"
    assert gpt2.decode(gpt2.encode(text)) == text


@pytest.mark.parametrize("errors", ["replace", "ignore"])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_stream_joined_is_decode_of_all(gpt2, errors, data):
    ids = data.draw(ids_lists)
    skip = data.draw(st.booleans())
    tokenizer = GPT2Tokenizer.__new__(GPT2Tokenizer)
    tokenizer.__dict__ = {**gpt2.__dict__, "errors": errors}
    stream = tokenizer.decode_stream(skip_special_tokens=skip)
    parts = [*map(stream.put, ids), stream.end()]
    assert "".join(parts) == tokenizer.decode(ids, skip_special_tokens=skip)


def test_a_stream_never_gives_half_a_character(gpt2):
    text = "naïve 中文 😶‍🌫️ done"
    stream = gpt2.decode_stream()
    parts = [stream.put(id) for id in gpt2.encode(text)]
    assert "".join(parts) == text
    assert not any("\ufffd" in part for part in parts)
    assert stream.end() == ""
    assert "" in parts  # some characters took several ids


def test_add_prefix_space_makes_the_first_word_like_others(gpt2):
    spaced = GPT2Tokenizer.from_pretrained("gpt2", add_prefix_space=True)
    assert spaced.encode("Hello world") == gpt2.encode(" Hello world")


def test_a_tokenizer_without_merges_is_refused():
    with pytest.raises(TypeError, match=r'from_pretrained\("gpt2"\)'):
        GPT2Tokenizer()


def test_ids_come_from_the_vocabulary_file(tmp_path):
    # The vocabulary of upstream's own test: ids in no derived order, bytes missing.
    words = ["l", "o", "w", "e", "r", "s", "t", "i", "d", "n", "Ġ", "Ġl", "Ġn", "Ġlo"]
    words += ["Ġlow", "er", "Ġlowest", "Ġnewer", "Ġwider", "<unk>", END]
    vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocab.write_text(json.dumps({word: id for id, word in enumerate(words)}))
    merges.write_text("#version: 0.2\nĠ l\nĠl o\nĠlo w\ne r\n", encoding="utf-8")
    tokenizer = GPT2Tokenizer(vocab, merges, unk_token="<unk>", add_prefix_space=True)
    tokens = tokenizer.tokenize("lower newer")
    assert tokens == ["Ġlow", "er", "Ġ", "n", "e", "w", "er"]
    ids = tokenizer.convert_tokens_to_ids([*tokens, "<unk>", "no such token"])
    assert ids == [14, 15, 10, 9, 3, 2, 15, 19, 19]
    assert tokenizer.encode("lower newest?") == [14, 15, 10, 9, 3, 2, 3, 5, 6, 19]
    assert tokenizer.decode(tokenizer.encode("lower newer")) == " lower newer"


# --- added and special tokens ---


@pytest.fixture
def changeable():
    return GPT2Tokenizer.from_pretrained("gpt2")


def test_added_tokens_get_the_next_ids_and_are_never_split(changeable):
    tokenizer = changeable
    assert tokenizer.encode("a<x> b") == [64, 27, 87, 29, 275]
    assert tokenizer.add_tokens(["<x>", "<y>", "<x>", ""]) == 2
    assert tokenizer.add_tokens("<x>") == 0
    assert len(tokenizer) == 50259
    assert tokenizer.vocab_size == 50257
    assert tokenizer.encode("a<x> b<y>") == [64, 50257, 275, 50258]
    assert tokenizer.tokenize("a<x> b<y>") == ["a", "<x>", "Ġb", "<y>"]
    assert tokenizer.decode([64, 50257, 275, 50258]) == "a<x> b<y>"
    assert tokenizer.decode([64, 50257], skip_special_tokens=True) == "a<x>"
    added = {END: 50256, "<x>": 50257, "<y>": 50258}
    assert tokenizer.get_added_vocab() == tokenizer.added_tokens_encoder == added
    assert tokenizer.get_vocab()["<y>"] == 50258
    assert tokenizer.added_tokens_decoder[50257] == AddedToken("<x>")


def test_a_token_of_the_vocabulary_keeps_its_id_when_it_is_added(changeable):
    assert changeable.add_tokens(["hello"]) == 0
    assert changeable.tokenize("othello") == ["ot", "hello"]
    # "é" is how vocabulary files write the byte E9: another token.
    assert changeable.add_tokens(["é"]) == 1
    assert changeable.encode("é") == [50257]
    assert changeable.decode(changeable.encode("é 鐘")) == "é 鐘"


def test_special_tokens_take_roles(changeable):
    tokenizer = changeable
    roles = {"pad_token": "<pad>", "cls_token": AddedToken("<cls>", lstrip=True)}
    assert tokenizer.add_special_tokens(roles | {"sep_token": END}) == 2
    assert tokenizer.pad_token_id == 50257
    assert (tokenizer.cls_token, tokenizer.sep_token) == ("<cls>", END)
    assert tokenizer.encode("a <cls> b") == [64, 50258, 275]
    assert tokenizer.all_special_tokens == [END, "<pad>", "<cls>"]
    assert tokenizer.all_special_ids == [50256, 50257, 50258]
    assert tokenizer.special_tokens_map == {
        "bos_token": END,
        "eos_token": END,
        "unk_token": END,
        "sep_token": END,
        "pad_token": "<pad>",
        "cls_token": "<cls>",
    }
    assert tokenizer.decode([64, 50257, 65], skip_special_tokens=True) == "ab"
    with pytest.raises(ValueError, match="'foo' is no role .* bos_token, eos_token"):
        tokenizer.add_special_tokens({"foo": "<x>"})
    with pytest.raises(TypeError, match="must be a str or an AddedToken, not int"):
        tokenizer.add_special_tokens({"mask_token": 3})


def test_additional_special_tokens_are_replaced_or_extended(changeable):
    tokenizer = changeable
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<a>"]}) == 1
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<b>"]}) == 1
    assert tokenizer.additional_special_tokens == ["<b>"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<c>"]}, False)
    assert tokenizer.add_tokens(["<d>"], special_tokens=True) == 1
    assert tokenizer.additional_special_tokens == ["<b>", "<c>", "<d>"]
    assert tokenizer.additional_special_tokens_ids == [50258, 50259, 50260]
    assert tokenizer.decode([50257, 50258], skip_special_tokens=True) == ""


def test_special_added_tokens_without_a_role_are_skipped(changeable):
    # As transformers 5, and the fast tokenizer of 4, have it.
    changeable.add_tokens([AddedToken("<s>", special=True), "<x>"])
    settled = {50259: AddedToken("<t>", special=True)}
    loaded = GPT2Tokenizer.from_pretrained("gpt2", added_tokens_decoder=settled)
    for tokenizer, text in ((changeable, "a<s>b<x>"), (loaded, "a<t>b<x>")):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids, skip_special_tokens=True) == "ab<x>"
        tokens = tokenizer.convert_ids_to_tokens(ids, skip_special_tokens=True)
        assert tokens[:2] == ["a", "b"]
        stream = tokenizer.decode_stream(skip_special_tokens=True)
        assert "".join(map(stream.put, ids)) == "ab<x>"


def test_the_padding_token_is_set_as_everyone_does(changeable, caplog):
    changeable.pad_token = changeable.eos_token
    assert changeable.pad_token_id == 50256
    changeable.pad_token_id = 11
    assert changeable.pad_token == ","
    changeable.pad_token = None
    assert changeable.pad_token_id is None
    assert not caplog.records
    changeable.pad_token = "<pad>"  # not in the vocabulary: as upstream, unk's id
    assert changeable.pad_token_id == changeable.unk_token_id
    assert "add_special_tokens({'pad_token': '<pad>'})" in caplog.text


def test_a_caller_may_name_roles_of_his_own(tmp_path):
    # As transformers 4.57 and 5.23: an attribute, its id, and a special token.
    own = {"image_token": "<im>", "end_token": AddedToken("<e>", lstrip=True)}
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2", extra_special_tokens=own)
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, GPT2Tokenizer.from_pretrained(tmp_path)):
        assert (each.image_token, each.image_token_id) == ("<im>", 50257)
        assert each.all_special_tokens == [END, "<im>", "<e>"]
        assert each.special_tokens_map["image_token"] == "<im>"
        assert each.encode("a<im> <e>") == [64, 50257, 50258]
        assert each.init_kwargs == {}
    with pytest.raises(AttributeError, match="has no attribute 'audio_token'"):
        tokenizer.audio_token  # noqa: B018
    for name in ("encode", "add_bos_token", "vocab_size", "x y_token"):
        with pytest.raises(
            ValueError, match=f"'{name}' must be a name that ends in _to"
        ):
            GPT2Tokenizer.from_pretrained("gpt2", extra_special_tokens={name: "<x>"})
    by_keyword = GPT2Tokenizer.from_pretrained("gpt2", image_token="<im>")
    by_keyword.image_token = "Ġworld"
    assert by_keyword.image_token_id == 995
    assert by_keyword.special_tokens_map["image_token"] == "Ġworld"
    assert copy.deepcopy(by_keyword).image_token == "Ġworld"
    listed = GPT2Tokenizer.from_pretrained("gpt2", extra_special_tokens=["<im>"])
    assert listed.extra_special_tokens == listed.additional_special_tokens == ["<im>"]
    assert listed.add_special_tokens({"extra_special_tokens": ["<a>"]}) == 1


def loaded_with_flags(flags):
    return GPT2Tokenizer.from_pretrained("gpt2", pad_token=flags)


def set_with_flags(flags):
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2")
    tokenizer.add_tokens([str(flags)])
    tokenizer.pad_token = flags
    return tokenizer


def added_with_flags(flags):
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2", pad_token=str(flags))
    tokenizer.add_special_tokens({"pad_token": flags})
    return tokenizer


@pytest.mark.parametrize("content", ["<pad>", "hello", END])
@pytest.mark.parametrize("make", [loaded_with_flags, set_with_flags, added_with_flags])
def test_an_added_token_as_a_role_keeps_its_flags(tmp_path, make, content):
    tokenizer = make(AddedToken(content, lstrip=True, rstrip=True))
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, GPT2Tokenizer.from_pretrained(tmp_path)):
        assert each.encode(f"a {content} b") == [64, each.pad_token_id, 65]


def test_spaces_beside_a_token_are_taken_if_it_says_so(changeable):
    changeable.add_tokens(
        [AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True)]
    )
    assert changeable.tokenize("a  <l>  b") == ["a", "<l>", "Ġ", "Ġb"]
    assert changeable.tokenize("a  <r> \n b") == ["a", "Ġ", "Ġ", "<r>", "b"]
    assert changeable.tokenize("<r> <l>") == ["<r>", "<l>"]


def test_a_token_for_single_words_is_not_found_within_one(changeable):
    changeable.add_tokens([AddedToken("zqx", single_word=True)])
    for text, found in {"zqx": 1, "(zqx)": 1, "zqxs": 0, "azqx": 0, "_zqx": 0}.items():
        assert changeable.tokenize(text).count("zqx") == found, text


def test_split_special_tokens_leaves_other_added_tokens_whole(changeable):
    changeable.add_tokens(["<x>"])
    changeable.add_special_tokens({"pad_token": "<p>"})
    assert changeable.encode("<x><p>", split_special_tokens=True) == [50257, 27, 79, 29]


def test_decode_can_put_spaces_around_added_tokens(changeable):
    changeable.add_tokens(["<x>"])
    ids = changeable.encode(f"a<x>b{END}")
    assert changeable.decode(ids) == f"a<x>b{END}"
    assert changeable.decode(ids, spaces_between_special_tokens=True) == f"a <x> b{END}"


def test_the_longest_token_is_found_first(changeable):
    changeable.add_tokens(["<x>", "<x><x>", "x><x"])
    assert changeable.tokenize("<x><x><x>") == ["<x><x>", "<x>"]


def test_what_is_no_token_cannot_be_added(changeable):
    for wrong, error in ((3, TypeError), (AddedToken, TypeError), (b"x", TypeError)):
        with pytest.raises(error, match="must be a str"):
            changeable.add_tokens([wrong])
    with pytest.raises(ValueError, match="not empty"):
        AddedToken("")


def test_ids_that_have_holes_are_not_given_twice():
    tokenizer = GPT2Tokenizer({"a": 0, "b": 7, END: 3}, [])
    assert tokenizer.add_tokens(["<x>"]) == 1
    assert tokenizer.convert_tokens_to_ids("<x>") == 8


def test_an_entry_of_the_vocabulary_that_is_no_bytes_decodes_to_itself():
    tokenizer = GPT2Tokenizer({"a": 0, "my token": 1, END: 2}, [])
    assert tokenizer.decode([0, 1]) == "amy token"
    assert tokenizer.convert_tokens_to_ids("my token") == 1


def test_decode_can_clean_up():
    tokenizer = GPT2Tokenizer.from_pretrained("gpt2", clean_up_tokenization_spaces=True)
    text = "Hello , I 'm here . Do n't ' go ' ? We 've , they 're ! It 's"
    clean = "Hello, I'm here. Don't'go '? We've, they're! It's"
    assert tokenizer.decode(tokenizer.encode(text)) == clean
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_batch_decode_decodes_each_row(gpt2):
    rows = np.array([[15496, 995, 50256], [17250, 612, 50256]])
    assert gpt2.batch_decode(rows) == [f"Hello world{END}", f"Hi there{END}"]
    assert gpt2.batch_decode(rows, skip_special_tokens=True) == [
        "Hello world",
        "Hi there",
    ]


def test_a_copy_and_a_pickle_are_the_same_tokenizer(changeable):
    changeable.add_special_tokens({"pad_token": "<pad>"})
    for twin in (copy.deepcopy(changeable), pickle.loads(pickle.dumps(changeable))):
        twin.add_tokens(["<x>"])
        assert twin.encode("a<pad><x>") == [64, 50257, 50258]
    assert len(changeable) == 50258


def test_a_keyword_goes_before_the_files_by_its_old_name_too():
    for how in ({"max_len": 43}, {"model_max_length": 43}):
        assert GPT2Tokenizer.from_pretrained("gpt2", **how).model_max_length == 43


@pytest.mark.parametrize("name", ["add_special_tokens", "tokenize", "encode"])
def test_a_keyword_that_names_a_method_is_refused(name):
    # AttributeError, as in transformers
    with pytest.raises(AttributeError, match=f"{name} is a method of GPT2Tokenizer"):
        GPT2Tokenizer.from_pretrained("gpt2", **{name: False})


def test_additional_special_tokens_can_be_set_by_id(changeable):
    changeable.additional_special_tokens_ids = [5, 50256]
    assert changeable.additional_special_tokens == ["&", END]
    assert changeable.additional_special_tokens_ids == [5, 50256]


def test_a_surrogate_pair_is_named_as_one(gpt2):
    pair = "ab\ud83d\ude00"
    with pytest.raises(ValueError, match=r"text\[2:4\] is the surrogate pair"):
        gpt2.encode(pair)
    with pytest.raises(ValueError, match=r"text\[2\] is the lone surrogate"):
        gpt2.encode("ab\ude00\ud83d")
    mended = pair.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert gpt2.encode(mended) == gpt2.encode("ab😀")


def test_a_chat_template_is_said_to_be_none(gpt2):
    with pytest.raises(ValueError, match="GPT-2 has no chat template"):
        gpt2.apply_chat_template([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    ("token", "error"),
    [
        ({"content": 5}, "must be a str"),
        (
            {"content": "<x>", "lstrip": "no"},
            "lstrip of the token '<x>' must be True or False, not 'no'",
        ),
        ({"content": "\ud800"}, "no surrogates"),
        ("", "not empty"),
    ],
)
def test_added_tokens_from_python_are_checked_like_those_from_files(token, error):
    with pytest.raises(ValueError, match=error):
        GPT2Tokenizer.from_pretrained("gpt2", added_tokens_decoder={50257: token})
    if isinstance(token, dict):
        with pytest.raises(ValueError, match=error):
            AddedToken(**token)


def test_an_added_token_has_an_id_of_its_own():
    for id, error in (
        (-1, "the id -1, and ids are"),
        ("x", "the id 'x', and ids are"),
        (True, "the id True, and ids are"),
        (1.5, "the id 1.5, and ids are"),
        (5, "the id 5, which is that of '&'"),
    ):
        with pytest.raises(ValueError, match=error):
            GPT2Tokenizer.from_pretrained("gpt2", added_tokens_decoder={id: "<x>"})
    same = GPT2Tokenizer.from_pretrained("gpt2", added_tokens_decoder={5: "&"})
    assert same.encode("a&") == [64, 5]
    for ids in ({"a": -1}, {"a": 1.0}, {"a": True}):
        with pytest.raises(ValueError, match="whole numbers from 0 on"):
            GPT2Tokenizer(ids, [])


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        (
            {"add_prefix_space": "no"},
            "add_prefix_space must be True or False, not 'no'",
        ),
        ({"add_eos_token": 1}, "add_eos_token must be True or False, not 1"),
        (
            {"model_max_length": "9"},
            "model_max_length must be a number above 0, not '9'",
        ),
        ({"model_max_length": -1}, "model_max_length must be a number above 0, not -1"),
    ],
)
def test_settings_from_python_are_checked_like_those_from_files(setting, error):
    with pytest.raises(ValueError, match=error):
        GPT2Tokenizer.from_pretrained("gpt2", **setting)


def test_tokens_are_strings(gpt2):
    for wrong in (5, [5], {"a": 1}, {"a"}, [None, 2]):
        with pytest.raises(TypeError, match="tokens must be a str or a list of str"):
            gpt2.convert_tokens_to_ids(wrong)
        with pytest.raises(TypeError, match="tokens must be a str or a list of str"):
            gpt2.convert_tokens_to_string(wrong)
    # As in transformers 5: what no file writes is its own text.
    assert gpt2.convert_tokens_to_string(["Hello", "a b", "Ġ中"]) == "Helloa bĠ中"


@pytest.mark.parametrize("wrong", [5, None, "ab", b"ab", {"a": 1}, {1}], ids=repr)
def test_what_is_no_list_is_refused_where_one_is_asked_for(changeable, wrong):
    with pytest.raises(TypeError, match="a batch must be a list or an array"):
        changeable.batch_decode(wrong)
    with pytest.raises(TypeError, match="expected a list of tokens, not"):
        changeable.extra_special_tokens = wrong
    if not isinstance(wrong, dict):
        with pytest.raises(TypeError, match="special tokens come as {"):
            changeable.add_special_tokens(wrong)
        if wrong is not None:
            with pytest.raises(ValueError, match="added_tokens_decoder is no {id"):
                GPT2Tokenizer({"a": 0}, [], added_tokens_decoder=wrong)
            for name in ("extra_special_tokens", "additional_special_tokens"):
                with pytest.raises(ValueError, match="special tokens are no list"):
                    GPT2Tokenizer({"a": 0}, [], **{name: wrong})


def test_a_vocabulary_may_be_empty():
    tokenizer = GPT2Tokenizer({}, [])
    assert (len(tokenizer), tokenizer.encode(END)) == (1, [0])


def test_the_old_names_are_there(gpt2):
    assert GPT2TokenizerFast is GPT2Tokenizer
    assert isinstance(gpt2, PreTrainedTokenizer)
    assert gpt2.is_fast  # as in transformers 5: it knows offsets and words
    assert gpt2.encoder["Ġworld"] == 995
    assert gpt2.decoder[995] == "Ġworld"
    assert gpt2.max_len == 1024
    assert gpt2.vocab == gpt2.get_vocab()
    assert gpt2.max_model_input_sizes["gpt2-xl"] == 1024
    assert gpt2.model_max_length == 1024
    assert "vocab_size=50257" in repr(gpt2)


def test_added_tokens_are_a_slice_of_what_transformers_4_does(changeable):
    goldens = json.loads((DATA / "tokenizer_goldens.json").read_text("utf-8"))
    changeable.pad_token = END
    for fields in goldens["tokens"]:
        changeable.add_tokens([AddedToken(**fields)], fields.get("special", False))
    assert len(goldens["added"]) > 50
    for case in goldens["added"]:
        ids = changeable.encode(case["text"])
        assert ids == case["ids"], case["text"]
        assert changeable.decode(ids) == case["decoded"]
        assert (
            changeable.decode(ids, spaces_between_special_tokens=True)
            == (case["with_spaces"])
        )
        assert changeable.decode(ids, skip_special_tokens=True) == case["skipped"]


# --- against peers ---


@pytest.fixture(scope="session")
def tiktoken_gpt2():
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken_ext.openai_public import r50k_pat_str

    ids = FastBPE(bpe.read_merges(VOCAB_BPE)).ids
    return tiktoken.Encoding(
        "gpt2",
        pat_str=r50k_pat_str,
        mergeable_ranks={bpe.undisguise(token): id for token, id in ids.items()},
        special_tokens={END: 50256},
    )


@pytest.mark.peers
@settings(max_examples=500, deadline=None)
@given(texts)
def test_split_special_tokens_is_tiktokens_encode_ordinary(gpt2, tiktoken_gpt2, text):
    ids = tiktoken_gpt2.encode_ordinary(text)
    assert gpt2.encode(text, split_special_tokens=True) == ids
    assert gpt2.encode(text) == tiktoken_gpt2.encode(text, allowed_special="all")


@pytest.fixture(scope="session")
def transformers_gpt2(gpt2, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("transformers")
    gpt2.save_vocabulary(folder)
    return transformers.GPT2Tokenizer.from_pretrained(folder)


@pytest.mark.peers
@settings(max_examples=500, deadline=None)
@given(texts)
def test_ids_tokens_and_text_are_those_of_transformers(gpt2, transformers_gpt2, text):
    ids = transformers_gpt2.encode(text)
    assert gpt2.encode(text) == ids
    assert gpt2.tokenize(text) == transformers_gpt2.tokenize(text)
    assert gpt2.decode(ids) == transformers_gpt2.decode(ids)


@pytest.mark.peers
@settings(max_examples=500, deadline=None)
@given(ids_lists)
def test_any_ids_decode_as_in_transformers(gpt2, transformers_gpt2, ids):
    assert gpt2.decode(ids) == transformers_gpt2.decode(ids)
    assert gpt2.decode(ids, skip_special_tokens=True) == transformers_gpt2.decode(
        ids, skip_special_tokens=True
    )


contents = st.text("ab<é 中", min_size=1, max_size=4).map(lambda c: f"<{c.strip()}~")
flags = st.fixed_dictionaries({"lstrip": st.booleans(), "rstrip": st.booleans()})


@pytest.mark.peers
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_texts_with_added_tokens_are_as_in_transformers(transformers_gpt2, data):
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    in_python = transformers.__version__.startswith("4.")
    special = data.draw(st.booleans())
    new = data.draw(st.dictionaries(contents, flags, min_size=1, max_size=4))
    ours = GPT2Tokenizer.from_pretrained("gpt2")
    theirs = copy.deepcopy(transformers_gpt2)
    for content, how in new.items():
        how["single_word"] = not in_python and data.draw(st.booleans())
        how |= {"special": special, "normalized": not special}
        count = ours.add_tokens([AddedToken(content, **how)], special)
        assert count == 1
        theirs.add_tokens([tokenizers.AddedToken(content, **how)], special)
    parts = st.sampled_from([*new, *new, "a", "b", " ", "\n", "é", ".", END])
    for text in data.draw(
        st.lists(st.lists(parts, max_size=8).map("".join), max_size=20)
    ):
        ids = ours.encode(text)
        assert ids == theirs.encode(text)
        if in_python:
            for spaces in (False, True):
                how = {"spaces_between_special_tokens": spaces}
                assert ours.decode(ids, **how) == theirs.decode(ids, **how)
        assert ours.decode(ids, skip_special_tokens=True).count("<") == theirs.decode(
            ids, skip_special_tokens=True
        ).count("<")
