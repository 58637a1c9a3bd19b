import copy
import functools
import hashlib
import json
import pickle
import random
import re
import subprocess
import sys
import time
from itertools import pairwise, product
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import bpe
from minigpt2.tokenizer import fast_bpe
from minigpt2.tokenizer.fast_bpe import FastBPE

VOCAB_BPE = Path(bpe.__file__).parent / "data" / "gpt2" / "vocab.bpe"
PUBLISHED = json.loads(
    (Path(__file__).parent / "data/tokenizer_published.json").read_text("utf-8")
)
VECTORS = [v for name in ("llama_cpp", "misc", "zeros") for v in PUBLISHED[name]]

# Characters of every kind that the pattern tells apart, and of every length in UTF-8;
# among them those on which `re` and `regex` disagree about white space.
CHARACTERS = "aZ'st 09²٣½é中ह😀ﷺ\u0301_-^.\n\t\r\x0b\x0c\x1c\x1f\x85\xa0\u2028\u3000\0"
texts = st.text(st.sampled_from(CHARACTERS), max_size=40) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=40
)


@pytest.fixture(scope="module")
def gpt2():
    return FastBPE(bpe.read_merges(VOCAB_BPE))


# --- the vocabulary ---


def test_the_packaged_vocabulary_is_openais():
    assert hashlib.sha256(VOCAB_BPE.read_bytes()).hexdigest() == (
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
    )


def test_ids_that_follow_from_vocab_bpe_are_those_of_openais_encoder_json(gpt2):
    ids = gpt2.ids | {"<|endoftext|>": len(gpt2.ids)}
    # OpenAI's encoder.json is json.dumps of these very ids: its published sha256.
    assert hashlib.sha256(json.dumps(ids).encode()).hexdigest() == (
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: ascii(v["text"])[:30])
def test_published_vectors(gpt2, vector):
    assert gpt2.encode(vector["text"]) == vector["ids"]
    assert gpt2.decode(vector["ids"]).decode() == vector["text"]


def test_there_are_71_published_vectors():
    assert len(VECTORS) == 71


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
@pytest.mark.parametrize("version", [[], ["#version: 0.2"]])
def test_merges_are_read_with_or_without_version_and_last_newline(
    tmp_path, newline, end, version
):
    path = tmp_path / "vocab.bpe"
    lines = newline.join([*version, "Ġ t", "h e", "Ġt he"]) + end.replace("\n", newline)
    path.write_bytes(lines.encode())
    merges = bpe.read_merges(path)
    assert merges == ["Ġ t", "h e", "Ġt he"]
    encoder = FastBPE(merges)
    assert list(encoder.ids)[256:] == ["Ġt", "he", "Ġthe"]
    assert encoder.written_merges() == merges


@pytest.mark.parametrize("line", ["Ġthe", "a b c", "Ġqq x", "a  b", "<html> </html>"])
def test_a_line_that_is_no_merge_is_refused_by_number(tmp_path, line):
    path = tmp_path / "vocab.bpe"
    path.write_text(f"#version: 0.2\nh e\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab\.bpe, merge 2: expected two tokens"):
        FastBPE(bpe.read_merges(path), source=path)


@pytest.mark.parametrize(
    "content", ["{", "[1]", '{"a": "b"}', '{"a": 1.5}', '{"a": -1}', "<html>"]
)
def test_ids_that_are_no_json_object_of_ids_are_refused_by_name(tmp_path, content):
    path = tmp_path / "encoder.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"encoder\.json"):
        bpe.read_ids(path)


def test_two_tokens_with_one_id_are_refused():
    with pytest.raises(ValueError, match="same id"):
        FastBPE([], {"a": 1, "b": 1})


def test_a_token_without_an_id_is_unknown():
    encoder = FastBPE(["l o", "lo w"], {"l": 7, "lo": 1, "?": 2})
    assert encoder.encode("lola", unknown_id=2) == [1, 7, 2]
    assert encoder.tokens("lowla") == [b"low", b"l", b"a"]
    assert encoder.decode([7, 1, 2]) == b"llo?"
    with pytest.raises(ValueError, match="no id for 'a'"):
        encoder.encode("lola")
    with pytest.raises(ValueError, match="id -1 is not in the vocabulary"):
        encoder.decode([-1])


def test_the_disguise_is_one_to_one_and_has_no_white_space():
    characters = bpe.bytes_to_unicode()
    assert sorted(characters) == list(range(256))
    assert len(set(characters.values())) == 256
    assert all(c.isprintable() and not c.isspace() for c in characters.values())
    assert bpe.undisguise(bpe.disguise(bytes(range(256)))) == bytes(range(256))
    assert bpe.disguise(b" world") == "Ġworld"


# --- text -> pieces ---


def gpt2s_own_split(text):
    """openai/gpt-2's encoder.py: the pattern as published, over the whole text."""
    return regex.findall(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        text,
    )


def split_by_chunks(text):
    return [
        piece
        for chunk in fast_bpe.CHUNK.findall(text)
        for piece in fast_bpe.pieces(chunk)
    ]


@settings(deadline=None)
@given(texts)
def test_pieces_are_cut_as_by_the_published_pattern(text):
    assert bpe.pieces(text) == gpt2s_own_split(text)
    assert fast_bpe.pieces(text) == split_by_chunks(text) == gpt2s_own_split(text)


def test_every_short_mix_of_white_space_is_cut_as_by_the_published_pattern():
    for mix in product("a'1. \n\t\x1c\x85", repeat=4):
        text = "".join(mix)
        assert fast_bpe.pieces(text) == split_by_chunks(text) == gpt2s_own_split(text)


def test_every_ascii_character_is_cut_as_by_the_published_pattern():
    for mix in product(map(chr, range(128)), " a1.'\n", "as 2-\n"):
        text = "".join(mix)
        assert fast_bpe.pieces(text) == split_by_chunks(text) == gpt2s_own_split(text)


def test_white_space_is_that_of_regex():
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    white = re.findall(f"[{fast_bpe.WHITE}]", everything)
    assert white == regex.findall(r"\s", everything)
    assert len(white) == 25


@settings(deadline=None)
@given(texts)
def test_a_text_cut_at_a_border_has_the_ids_of_its_parts(gpt2, text):
    for border in fast_bpe.BORDER.finditer(text):
        first, second = text[: border.start()], text[border.start() :]
        assert gpt2.encode(first) + gpt2.encode(second) == gpt2.encode(text)


@settings(max_examples=50, deadline=None)
@given(texts, st.sampled_from([1, 2, 5, 20]))
def test_the_size_of_the_blocks_changes_nothing(gpt2, text, block):
    expected = gpt2.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_bpe, "BLOCK", block)
        assert gpt2.encode(text) == expected


# --- pieces -> ids ---


def merge_by_the_book(symbols, pairs):
    """Sennrich et al. 2016, algorithm 1, on strings and with no thought for speed.

    pairs: [(left, right), ...], first learned first; of a pair that is there twice the
    second counts, as in transformers.
    """
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    while learned := [pair for pair in pairwise(symbols) if pair in ranks]:
        pair = min(learned, key=ranks.get)
        merged, rest = [], list(symbols)
        while rest:
            take = 2 if tuple(rest[:2]) == pair else 1
            merged.append("".join(rest[:take]))
            rest = rest[take:]
        symbols = merged
    return symbols


@st.composite
def merge_tables(draw, alphabet):
    """Merges of what is there already; several may make the same token."""
    tokens, pairs = list(alphabet), []
    for _ in range(draw(st.integers(0, 12))):
        pair = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        pairs.append(pair)
        tokens.append("".join(pair))
    return pairs


@settings(max_examples=500, deadline=None)
@given(merge_tables("abc"), st.text("abc", max_size=60))
def test_both_merges_do_what_the_book_says(pairs, text):
    encoder = FastBPE([" ".join(pair) for pair in pairs])
    expected = [encoder.ids[token] for token in merge_by_the_book(text, pairs)]
    ids = [encoder.ids[character] for character in text]
    assert fast_bpe.merge_long(list(ids), encoder.ranks, encoder.made) == expected
    if len(set(map("".join, pairs))) == len(pairs):  # no token is made twice
        assert fast_bpe.merge(ids, encoder.ranks, encoder.made) == expected
    assert encoder.encode(text) == expected


# As files write them: the space, and the bytes of six Cyrillic letters.
@settings(max_examples=500, deadline=None)
@given(merge_tables("ĠÐÑ°±²İı"), st.text(" абвра", max_size=20))
def test_characters_of_several_bytes_are_merged_by_the_book(pairs, text):
    encoder = FastBPE([" ".join(pair) for pair in pairs])
    expected = [
        encoder.ids[token]
        for piece in gpt2s_own_split(text)
        for token in merge_by_the_book(bpe.disguise(piece.encode()), pairs)
    ]
    assert encoder.encode(text) == expected


@pytest.mark.parametrize("seed", range(20))
def test_both_merges_agree_on_gpt2s_table(gpt2, seed):
    draw = random.Random(seed)
    tokens = list(gpt2.ids)
    text = "".join(draw.choice(tokens) for _ in range(60))
    ids = [gpt2.ids[character] for character in text]
    merged = fast_bpe.merge(list(ids), gpt2.ranks, gpt2.made)
    assert merged == fast_bpe.merge_long(ids, gpt2.ranks, gpt2.made)


def test_a_worked_example():
    # Wikipedia, "Byte-pair encoding": aaabdaaabac -> ZabdZabac -> ZYdZYac -> XdXac
    encoder = FastBPE(["a a", "a b", "aa ab"])
    assert encoder.tokens("aaabdaaabac") == [b"aaab", b"d", b"aaab", b"a", b"c"]


@pytest.mark.parametrize("long", [2, 10**9])
def test_long_words_are_merged_as_short_ones_are(gpt2, monkeypatch, long):
    word = "".join(random.Random(0).choices("etaoinshrdlué", k=1000))
    expected = gpt2.encode(word)
    monkeypatch.setattr(gpt2, "_long", long)
    assert gpt2.encode(word) == expected


@pytest.mark.parametrize("unit", ["a", " ", "^", "0", "\n", "'s", "ab", "a^", "é中"])
def test_a_million_repeated_characters_take_seconds_not_hours(gpt2, unit):
    text = (unit * 1_000_000)[:1_000_000]
    start = time.perf_counter()
    ids = gpt2.encode(text)
    assert time.perf_counter() - start < 8  # about 1 s; a square law would take hours
    assert gpt2.decode(ids).decode() == text


# --- the definition and its twin ---


@pytest.fixture(scope="module")
def reference():
    return bpe.BPE(bpe.read_merges(VOCAB_BPE))


@settings(max_examples=300, deadline=None)
@given(texts)
def test_the_twin_gives_the_ids_of_the_definition(gpt2, reference, text):
    ids = reference.encode(text)
    assert gpt2.encode(text) == ids
    assert gpt2.tokens(text) == reference.tokens(text)
    assert reference.decode(ids) == gpt2.decode(ids) == text.encode()


@settings(max_examples=300, deadline=None)
@given(merge_tables("ĠabÐ°"), st.text(" abа", max_size=30), st.data())
def test_the_twin_agrees_on_any_vocabulary(pairs, text, data):
    merges = [" ".join(pair) for pair in pairs]
    own = bpe.BPE(merges)
    written = [bpe.disguise(token) for token in own.ids]
    numbers = data.draw(st.permutations(range(len(written))))
    for ids in (None, dict(zip(written, numbers))):
        definition, twin = bpe.BPE(merges, ids), FastBPE(merges, ids)
        assert twin.encode(text) == definition.encode(text)
        assert twin.tokens(text) == definition.tokens(text)


runs = st.lists(
    st.builds(
        str.__mul__, st.sampled_from([" ", "a", "b", "а", "ab"]), st.integers(1, 80)
    ),
    max_size=6,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(merge_tables("ĠabÐ°"), runs, st.data())
def test_the_twin_agrees_where_ids_are_missing_and_in_long_runs(pairs, text, data):
    merges = [" ".join(pair) for pair in pairs]
    written = [bpe.disguise(token) for token in bpe.BPE(merges).ids]
    kept = data.draw(st.sets(st.sampled_from(written)))
    ids = {token: id for id, token in enumerate(written) if token in kept}
    definition, twin = bpe.BPE(merges, ids), FastBPE(merges, ids)
    tokens = definition.tokens(text)
    unknown = len(written)
    assert twin.tokens(text) == tokens
    assert twin.encode(text, unknown) == [
        definition.ids.get(t, unknown) for t in tokens
    ]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: ascii(v["text"])[:30])
def test_the_definition_gives_the_published_ids(reference, vector):
    assert reference.encode(vector["text"]) == vector["ids"]


@functools.cache
def tiktokens_gpt2():
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([byte]): id for id, byte in enumerate(bpe.bytes_to_unicode())}
    for line in bpe.read_merges(VOCAB_BPE):
        ranks[b"".join(map(bpe.undisguise, line.split(" ")))] = len(ranks)
    return tiktoken.Encoding(
        "gpt2", pat_str=bpe.PATTERN, mergeable_ranks=ranks, special_tokens={}
    )


@pytest.mark.peers
@settings(max_examples=300, deadline=None)
@given(texts)
def test_the_definition_gives_the_ids_of_tiktoken(reference, text):
    assert reference.encode(text) == tiktokens_gpt2().encode_ordinary(text)


def test_merges_can_be_watched_one_by_one(reference):
    steps = list(bpe.merge_steps(b" world", reference.ranks))
    assert steps[0][0] in reference.ranks
    assert steps[-1][1] == [b" world"]
    ranks = [reference.ranks[pair] for pair, _ in steps]
    assert ranks == sorted(ranks)
    for _, tokens in steps:
        assert b"".join(tokens) == b" world"


# --- text -> ids -> text ---


@settings(deadline=None)
@given(texts)
def test_decode_of_encode_is_the_same_text(gpt2, text):
    assert gpt2.decode(gpt2.encode(text)).decode() == text


@settings(deadline=None)
@given(texts)
def test_encode_is_the_ids_of_tokens(gpt2, text):
    tokens = gpt2.tokens(text)
    assert b"".join(tokens).decode() == text
    assert gpt2.encode(text) == [gpt2.ids[bpe.disguise(token)] for token in tokens]


@pytest.mark.parametrize(
    ("text", "at"), [("\ud800", 0), ("fine \udfff", 5), ("x" * 100 + "\ud83d!", 100)]
)
def test_a_lone_surrogate_is_refused_with_its_place(gpt2, text, at):
    for encode in (gpt2.encode, gpt2.tokens):
        with pytest.raises(ValueError, match=rf"text\[{at}\] is the lone surrogate"):
            encode(text)
    mended = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert gpt2.decode(gpt2.encode(mended)).decode() == mended


@pytest.mark.parametrize("text", [b"bytes", None, 3, ["a"]])
def test_what_is_no_text_is_refused(gpt2, text):
    with pytest.raises(TypeError, match="text must be a str, not"):
        gpt2.encode(text)


@pytest.mark.parametrize("id", [-1, 50256, 10**20])
def test_an_id_out_of_range_is_refused_with_the_vocabularys_size(gpt2, id):
    with pytest.raises(ValueError, match=rf"id {id} .* 50256 tokens"):
        gpt2.decode([15496, id])


# --- caches, copies, imports ---


def test_a_memo_stays_within_its_bounds_and_keeps_what_is_asked_for():
    calls = []
    memo = fast_bpe.Memo(lambda key: calls.append(key) or (key,), size=2500, longest=4)
    for n in range(1000):
        assert memo[f"{n:04}"] == (f"{n:04}",)
        assert memo["hot"] == ("hot",)
        assert memo["longer than that"] == ("longer than that",)
        assert len(memo) + len(memo.old) <= 2 * 2500 / 200
    assert calls.count("hot") == 1
    assert calls.count("longer than that") == 1000
    assert not any(len(key) > 4 for key in [*memo, *memo.old])


def test_encoding_without_end_keeps_the_caches_within_bounds(gpt2):
    fresh = copy.deepcopy(gpt2)
    memos = fresh._chunks, fresh._fragments
    for memo in memos:
        memo.size = 20_000
    draw = random.Random(0)
    for _ in range(50):
        text = "".join(draw.choices("abcdefgh \n中Жяб", k=2000))
        assert fresh.decode(fresh.encode(text)).decode() == text
    for memo in memos:
        assert 0 < len(memo) + len(memo.old) <= 2 * 20_000 / 200


def test_a_copy_and_a_pickle_encode_the_same(gpt2):
    for twin in (copy.deepcopy(gpt2), pickle.loads(pickle.dumps(gpt2))):
        assert twin.encode("Hello 中") == gpt2.encode("Hello 中")


def test_ascii_text_takes_neither_regex_nor_numpy():
    program = (
        "import sys; from minigpt2 import bpe; "
        "from minigpt2.tokenizer.fast_bpe import FastBPE; "
        f"FastBPE(bpe.read_merges({str(VOCAB_BPE)!r})).encode('plain English'); "
        "print([m for m in ('regex', 'numpy') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert run.stdout.strip() == "[]", run.stderr
