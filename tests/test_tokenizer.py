import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import bpe
from minigpt2.tokenizer import GPT2Tokenizer

VOCAB_BPE = Path(bpe.__file__).parent / "data" / "gpt2" / "vocab.bpe"
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


def write_folder(folder, layout):
    """GPT-2's vocabulary in a folder, as OpenAI or Hugging Face lay it out."""
    ids = bpe.BPE(bpe.read_merges(VOCAB_BPE)).ids
    ids[END] = len(ids)
    vocab, merges = {
        "openai": ("encoder.json", "vocab.bpe"),
        "huggingface": ("vocab.json", "merges.txt"),
    }[layout]
    folder.mkdir()
    (folder / vocab).write_text(json.dumps(ids))
    shutil.copy(VOCAB_BPE, folder / merges)
    return folder


@pytest.fixture(scope="session")
def huggingface_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("vocab") / "gpt2", "huggingface")


@given(texts)
def test_decode_of_encode_is_the_same_text(gpt2, text):
    assert gpt2.decode(gpt2.encode(text)) == text
    assert gpt2.decode(gpt2.encode(text, split_special_tokens=True)) == text
    assert gpt2.convert_tokens_to_string(gpt2.tokenize(text)) == text


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
@settings(max_examples=300)
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


@pytest.mark.parametrize("layout", ["openai", "huggingface"])
def test_from_pretrained_reads_both_layouts_of_a_folder(gpt2, tmp_path, layout):
    folder = write_folder(tmp_path / layout, layout)
    for name in (folder, str(folder)):
        tokenizer = GPT2Tokenizer.from_pretrained(name)
        assert tokenizer.bpe.ids == gpt2.bpe.ids
        assert tokenizer.encode(f"Hello{END} world") == [15496, 50256, 995]
    (folder / "vocab.json").unlink(missing_ok=True)
    (folder / "encoder.json").unlink(missing_ok=True)
    assert GPT2Tokenizer.from_pretrained(folder).bpe.ids == gpt2.bpe.ids


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"])
def test_the_four_released_names_share_one_vocabulary(gpt2, name):
    assert GPT2Tokenizer.from_pretrained(name).bpe.ids == gpt2.bpe.ids


def test_a_folder_without_merges_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no merges\.txt, vocab\.bpe or"):
        GPT2Tokenizer.from_pretrained(tmp_path)


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


@pytest.fixture(scope="session")
def tiktoken_gpt2():
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken_ext.openai_public import r50k_pat_str

    ids = bpe.BPE(bpe.read_merges(VOCAB_BPE)).ids
    return tiktoken.Encoding(
        "gpt2",
        pat_str=r50k_pat_str,
        mergeable_ranks={bpe.undisguise(token): id for token, id in ids.items()},
        special_tokens={END: 50256},
    )


@pytest.mark.peers
@settings(max_examples=500)
@given(texts)
def test_split_special_tokens_is_tiktokens_encode_ordinary(gpt2, tiktoken_gpt2, text):
    ids = tiktoken_gpt2.encode_ordinary(text)
    assert gpt2.encode(text, split_special_tokens=True) == ids
    assert gpt2.encode(text) == tiktoken_gpt2.encode(text, allowed_special="all")


@pytest.fixture(scope="session")
def transformers_gpt2(huggingface_folder):
    transformers = pytest.importorskip("transformers")
    return transformers.GPT2Tokenizer.from_pretrained(huggingface_folder)


@pytest.mark.peers
@settings(max_examples=500)
@given(texts)
def test_ids_tokens_and_text_are_those_of_transformers(gpt2, transformers_gpt2, text):
    ids = transformers_gpt2.encode(text)
    assert gpt2.encode(text) == ids
    assert gpt2.tokenize(text) == transformers_gpt2.tokenize(text)
    assert gpt2.decode(ids) == transformers_gpt2.decode(ids)


@pytest.mark.peers
@settings(max_examples=500)
@given(ids_lists)
def test_any_ids_decode_as_in_transformers(gpt2, transformers_gpt2, ids):
    assert gpt2.decode(ids) == transformers_gpt2.decode(ids)
    assert gpt2.decode(ids, skip_special_tokens=True) == transformers_gpt2.decode(
        ids, skip_special_tokens=True
    )
