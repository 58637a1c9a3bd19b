import hashlib
import json
import random
import subprocess
import sys
import time
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt2 import bpe

VOCAB_BPE = Path(bpe.__file__).parent / "data" / "gpt2" / "vocab.bpe"
PUBLISHED = json.loads(
    (Path(__file__).parent / "data/tokenizer_published.json").read_text()
)
VECTORS = [v for name in ("llama_cpp", "misc", "zeros") for v in PUBLISHED[name]]

# Characters of every kind that the pattern tells apart, and of every length in UTF-8;
# among them those on which `re` and `regex` disagree about white space.
CHARACTERS = (
    "aZ'st 09²٣½é中ह😀ﷺ\u0301_-^.\n\t\r\x0b\x0c\x1c\x1f\x85\xa0\u2028\u3000\u200b\0"
)
texts = st.text(st.sampled_from(CHARACTERS), max_size=40) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=40
)


@pytest.fixture(scope="module")
def gpt2():
    ranks, tokens = bpe.learn(bpe.read_merges(VOCAB_BPE))
    return bpe.BPE(ranks, {token: id for id, token in enumerate(tokens.values())})


def test_ids_that_follow_from_vocab_bpe_are_those_of_openais_encoder_json():
    _, tokens = bpe.learn(bpe.read_merges(VOCAB_BPE))
    ids = {written: id for id, written in enumerate([*tokens, "<|endoftext|>"])}
    # OpenAI's encoder.json is json.dumps of these very ids: its published sha256.
    assert hashlib.sha256(json.dumps(ids).encode()).hexdigest() == (
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
    )


def test_the_packaged_vocabulary_is_openais():
    assert hashlib.sha256(VOCAB_BPE.read_bytes()).hexdigest() == (
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
    )


@pytest.mark.parametrize(
    "vector", VECTORS, ids=lambda vector: ascii(vector["text"])[:30]
)
def test_published_vectors(gpt2, vector):
    assert gpt2.encode(vector["text"]) == vector["ids"]
    assert gpt2.decode(vector["ids"]).decode() == vector["text"]


def test_there_are_71_published_vectors():
    assert len(VECTORS) == 71


@given(texts)
def test_decode_of_encode_is_the_same_text(gpt2, text):
    assert gpt2.decode(gpt2.encode(text)).decode() == text
    assert b"".join(gpt2.tokens(text)).decode() == text


@given(texts)
def test_chunks_are_cut_where_pieces_are(text):
    by_chunk = [
        piece for chunk in bpe.CHUNK.findall(text) for piece in bpe.pieces(chunk)
    ]
    assert by_chunk == bpe.pieces(text)
    assert "".join(by_chunk) == text


def test_chunks_are_cut_where_pieces_are_for_every_short_mix_of_white_space():
    for mix in product("a'1. \n\t\x1c\x85", repeat=5):
        text = "".join(mix)
        by_chunk = [p for chunk in bpe.CHUNK.findall(text) for p in bpe.pieces(chunk)]
        assert by_chunk == bpe.pieces(text), ascii(text)


def test_white_space_is_that_of_regex():
    import regex

    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    white = "".join(regex.findall(r"\s", everything))
    assert "".join(bpe.re.findall(f"[{bpe.WHITE}]", everything)) == white
    assert len(white) == 25


@given(texts)
def test_encode_is_the_ids_of_tokens(gpt2, text):
    assert gpt2.encode(text) == [gpt2.ids[token] for token in gpt2.tokens(text)]


def merge_by_the_book(symbols, ranks):
    """Sennrich et al. 2016, algorithm 1, with no thought for speed."""
    while pairs := [pair for pair in pairwise(symbols) if pair in ranks]:
        left, right = min(pairs, key=ranks.get)
        merged, rest = [], list(symbols)
        while rest:
            take = 2 if rest[:2] == [left, right] else 1
            merged.append(b"".join(rest[:take]))
            rest = rest[take:]
        symbols = merged
    return symbols


@st.composite
def merge_tables(draw):
    """Merges of what is there already, in any order; two may make the same token."""
    tokens, pairs = [b"a", b"b", b"c"], []
    for _ in range(draw(st.integers(0, 12))):
        pair = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        pairs.append(pair)
        tokens.append(pair[0] + pair[1])
    pairs = draw(st.permutations(pairs))
    return {pair: rank for rank, pair in enumerate(pairs)}


@settings(max_examples=500)
@given(merge_tables(), st.text("abc", max_size=60))
def test_both_merges_do_what_the_book_says(ranks, text):
    symbols = [bytes([byte]) for byte in text.encode()]
    expected = merge_by_the_book(symbols, ranks)
    assert bpe.merge(list(symbols), ranks) == expected
    assert bpe.merge_long(list(symbols), ranks) == expected


@pytest.mark.parametrize("seed", range(20))
def test_both_merges_agree_on_gpt2s_table(gpt2, seed):
    draw = random.Random(seed)
    tokens = list(gpt2.ids)
    text = b"".join(draw.choice(tokens) for _ in range(60)) + draw.randbytes(60)
    symbols = [bytes([byte]) for byte in text]
    assert bpe.merge(list(symbols), gpt2.ranks) == bpe.merge_long(symbols, gpt2.ranks)


def test_a_worked_example():
    # Wikipedia, "Byte-pair encoding": aaabdaaabac -> ZabdZabac -> ZYdZYac -> XdXac
    merges = [(b"a", b"a"), (b"a", b"b"), (b"aa", b"ab")]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    symbols = [bytes([byte]) for byte in b"aaabdaaabac"]
    assert bpe.merge(symbols, ranks) == [b"aaab", b"d", b"aaab", b"a", b"c"]


@pytest.mark.parametrize(
    "unit", ["a", " ", "^", "0", "\n", "'s", "ab", "a^", "é中", "😀"]
)
def test_a_million_repeated_characters_take_seconds_not_hours(gpt2, unit):
    text = (unit * 1_000_000)[:1_000_000]
    start = time.perf_counter()
    ids = gpt2.encode(text)
    assert time.perf_counter() - start < 8  # about 1 s; a square law would take hours
    assert gpt2.decode(ids).decode() == text


def test_a_long_word_of_ordinary_letters_is_merged_as_in_parts(gpt2):
    draw = random.Random(0)
    word = "".join(draw.choices("etaoinshrdlu", k=20_000))
    symbols = [bytes([byte]) for byte in word.encode()]
    assert gpt2.tokens(word) == bpe.merge_long(symbols, gpt2.ranks)
    assert b"".join(gpt2.tokens(word)).decode() == word


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


def test_a_token_without_an_id_is_unknown():
    ranks = {(b"l", b"o"): 0}
    ids = {b"l": 0, b"lo": 1, b"?": 2}
    assert bpe.BPE(ranks, ids, unknown_id=2).encode("lola") == [1, 0, 2]
    with pytest.raises(ValueError, match="no id for 'a'"):
        bpe.BPE(ranks, ids).encode("lola")


def test_the_disguise_is_one_to_one_and_has_no_white_space():
    characters = bpe.bytes_to_unicode()
    assert sorted(characters) == list(range(256))
    assert len(set(characters.values())) == 256
    assert all(c.isprintable() and not c.isspace() for c in characters.values())
    assert bpe.undisguise(bpe.disguise(bytes(range(256)))) == bytes(range(256))
    assert bpe.disguise(b" world") == "Ġworld"


def test_a_memo_stays_within_its_bounds_and_keeps_what_is_asked_for():
    calls = []
    memo = bpe.Memo(lambda key: calls.append(key) or len(key), size=10, longest=4)
    for n in range(1000):
        assert memo[f"{n:04}"] == memo["hot"] + 1
        assert memo["longer than that"] == 16
        assert len(memo) + len(memo.old) <= 20
    assert calls.count("hot") == 1
    assert not any(len(key) > 4 for key in [*memo, *memo.old])


def test_encoding_without_end_keeps_the_memory_within_bounds(gpt2):
    fresh = bpe.BPE(gpt2.ranks, gpt2.ids)
    for memo in (fresh._ids, fresh._tokens):
        memo.size = 100
    draw = random.Random(0)
    for _ in range(50):
        text = "".join(draw.choices("abcdefgh \n中", k=2000))
        assert fresh.decode(fresh.encode(text)).decode() == text
    for memo in (fresh._ids, fresh._tokens):
        assert len(memo) + len(memo.old) <= 200


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
@pytest.mark.parametrize("version", [[], ["#version: 0.2"]])
def test_merges_are_read_with_or_without_version_and_last_newline(
    tmp_path, newline, end, version
):
    path = tmp_path / "vocab.bpe"
    lines = newline.join([*version, "Ġ t", "h e", "Ġt he"]) + end.replace("\n", newline)
    path.write_bytes(lines.encode())
    ranks, tokens = bpe.learn(bpe.read_merges(path), path)
    assert sorted(ranks, key=ranks.get) == [(b" ", b"t"), (b"h", b"e"), (b" t", b"he")]
    assert list(tokens)[256:] == ["Ġt", "he", "Ġthe"]


@pytest.mark.parametrize("line", ["Ġthe", "a b c", "Ġqq x", "a  b", "<html> </html>"])
def test_a_line_that_is_no_merge_is_refused_by_number(tmp_path, line):
    path = tmp_path / "vocab.bpe"
    path.write_text(f"#version: 0.2\nh e\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab\.bpe, merge 2: expected two tokens"):
        bpe.learn(bpe.read_merges(path), path)


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": "b"}', '{"a": 1.5}', "<html>"])
def test_ids_that_are_no_json_object_of_ints_are_refused_by_name(tmp_path, content):
    path = tmp_path / "encoder.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"encoder\.json"):
        bpe.read_ids(path)


def test_importing_and_loading_take_neither_regex_nor_numpy():
    program = (
        "import sys; from minigpt2 import bpe; "
        f"bpe.read_merges({str(VOCAB_BPE)!r}); "
        "print([m for m in ('regex', 'numpy') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert run.stdout.strip() == "[]", run.stderr
