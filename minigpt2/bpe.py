"""Byte-pair encoding: text -> pieces -> tokens -> ids, and all the way back.

    "Hello world"  ->  "Hello", " world"  ->  b"Hello", b" world"  ->  15496, 995

1. A pattern cuts the text into *pieces*: a word with the space before it, a number,
   a run of punctuation, white space. No token ever crosses from one to the next.
2. Each piece, as UTF-8, starts as single bytes. Of all pairs of neighbours the one
   that was learned first is merged wherever it stands, from left to right; then the
   same again, until no two neighbours are a learned pair. What is left are *tokens*.
3. Each token has an id.

Every byte is a token, so every text has ids and comes back exactly.

Tokens are `bytes` here. In files they are written in a disguise that has no spaces
and no control characters ("Ġworld" for b" world"), which is undone once, at load.
This module knows no special tokens: "<|endoftext|>" is thirteen characters to it.

Sources: Sennrich et al. 2016 (https://arxiv.org/abs/1508.07909); section 2.2 of
Radford et al. 2019; the pattern and the files are those of openai/gpt-2.
"""

import json
import re
from functools import cache
from heapq import heappop, heappush
from itertools import chain, pairwise
from math import inf

# GPT-2's pattern, for the module `regex`: the standard library's `re` has no \p{L}, and
# its \s takes U+001C to U+001F for white space too. WHITE is what `regex` takes.
PIECE = (
    r"'s|'t|'re|'ve|'m|'ll|'d"  # English endings
    r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"  # letters, digits, others
    r"|\s+(?!\S)|\s+"  # white space: all but the last, the last
)
WHITE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

# The cuts that PIECE makes at white space and no others, so that the pieces of a text's
# chunks are the pieces of the text.
CHUNK = re.compile(f"[{WHITE}]?+[^{WHITE}]++|[{WHITE}]+(?![^{WHITE}])")

LONG = 100  # symbols: from here on merge_long is the faster one
BYTES = [bytes([byte]) for byte in range(256)]


@cache
def bytes_to_unicode():
    """The disguise: byte -> the character that stands for it in vocabulary files.

    The 188 bytes that are visible in Latin-1 stand for themselves, the other 68 are
    U+0100, U+0101, ... in order. The order of this dict is that of the first 256 ids.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {
        byte: chr(0x100 + n) for n, byte in enumerate(hidden)
    }


@cache
def unicode_to_bytes():
    """The disguise backwards: character -> byte."""
    return {character: byte for byte, character in bytes_to_unicode().items()}


def disguise(token):
    """How vocabulary files write a token: b" world" -> "Ġworld"."""
    return "".join(map(bytes_to_unicode().__getitem__, token))


def undisguise(written):
    """The token that vocabulary files write so: "Ġworld" -> b" world".

    KeyError if a character stands for no byte.
    """
    return bytes(map(unicode_to_bytes().__getitem__, written))


def read_merges(path):
    """Read vocab.bpe (or merges.txt): a comment, then one merge a line, first learned
    first. Returns the merges as they are written: ["Ġ t", "h e", ...]."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")
    if lines[0].startswith("#version"):
        del lines[0]
    return [line for line in lines if line]


def learn(merges, source="merges"):
    """What written merges teach: `ranks`, {(left, right): the lower the earlier}, and
    `tokens`, {written token: token} of all that can come of them, in the order of the
    ids that follow: the 256 bytes, then what each merge makes.

    source: where the merges are from, for the message of a ValueError.
    """
    tokens = {char: BYTES[byte] for byte, char in bytes_to_unicode().items()}
    ranks = {}
    for rank, merge in enumerate(merges):
        try:
            written_left, written_right = merge.split(" ")
            left, right = tokens[written_left], tokens[written_right]
        except (ValueError, KeyError):
            raise ValueError(
                f"{source}, merge {rank + 1}: expected two tokens and a space between, "
                f"each a byte or made by an earlier merge; found {merge[:80]!r}"
            ) from None
        tokens[written_left + written_right] = left + right
        ranks[left, right] = rank
    return ranks, tokens


def read_ids(path):
    """Read encoder.json (or vocab.json): {written token: id}."""
    with open(path, encoding="utf-8") as file:
        try:
            ids = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(ids, dict) or not all(type(i) is int for i in ids.values()):
        raise ValueError(f"{path}: expected a JSON object of tokens and their ids")
    return ids


def merge(symbols, ranks):
    """Merge neighbours until no two are a learned pair: the definition of BPE.

    symbols: list of bytes, changed in place and returned. Each merge looks at every
    pair, so the time grows with the square of the length; see `merge_long`.
    """
    costs = [ranks.get(pair, inf) for pair in pairwise(symbols)]
    while costs and (lowest := min(costs)) < inf:
        while lowest in costs:  # from left to right
            i = costs.index(lowest)
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
            del costs[i]
            if i > 0:
                costs[i - 1] = ranks.get((symbols[i - 1], symbols[i]), inf)
            if i < len(costs):
                costs[i] = ranks.get((symbols[i], symbols[i + 1]), inf)
    return symbols


def merge_long(symbols, ranks):
    """What `merge` returns, in n log n steps: a million characters take a second.

    The symbols are a linked list: a merge writes the longer symbol in the left place
    and None in the right one. `places[rank]` holds where pairs of this rank may stand;
    a place whose pair has changed since is passed over when its turn comes.
    """
    end = len(symbols)
    before = list(range(-1, end - 1))
    after = list(range(1, end + 1))
    pairs, places = {}, {}
    heap = []  # the ranks that have places

    def note(i, j):
        pair = symbols[i], symbols[j]
        rank = ranks.get(pair)
        if rank is not None:
            if rank not in places:
                places[rank] = []
                pairs[rank] = pair
                heappush(heap, rank)
            places[rank].append(i)

    for i in range(end - 1):
        note(i, i + 1)
    while heap:
        rank = heappop(heap)
        left, right = pairs[rank]
        both = left + right
        merged = []
        # No new place joins this bucket meanwhile: a merged symbol is longer than
        # either half, so no pair that it is part of is this one.
        for i in sorted(places.pop(rank)):
            j = after[i]
            if j < end and symbols[i] == left and symbols[j] == right:
                symbols[i], symbols[j] = both, None
                after[i] = after[j]
                if after[i] < end:
                    before[after[i]] = i
                merged.append(i)
        for i in merged:
            if before[i] >= 0:
                note(before[i], i)
            if after[i] < end:
                note(i, after[i])
    return [symbol for symbol in symbols if symbol is not None]


class Memo(dict):
    """A dict that fills itself from a function of the key (a str), within bounds.

    It holds two generations of at most `size` keys each: when the young one is full it
    becomes the old one, whose keys are young again when they are asked for, or go.
    Keys of more than `longest` characters are never kept.
    """

    def __init__(self, function, size=2**16, longest=64):
        self.function, self.size, self.longest = function, size, longest
        self.old = {}

    def __missing__(self, key):
        value = self.old.get(key)
        if value is None:
            value = self.function(key)
        if len(key) <= self.longest:
            if len(self) >= self.size:
                self.old = dict(self)
                self.clear()
            self[key] = value
        return value


class BPE:
    """The encoder of one vocabulary.

    ranks: {(left, right): rank}, the lower the rank the earlier it was learned.
    ids: {token: id}. Every byte has one in GPT-2's vocabulary; in another, a token that
    has none gets `unknown_id`, or if that is None encoding raises ValueError.
    """

    def __init__(self, ranks, ids, unknown_id=None):
        self.ranks, self.ids, self._unknown_id = ranks, ids, unknown_id
        # {id: token}, to which a tokenizer adds tokens of its own.
        self.bytes_of = {id: token for token, id in ids.items()}
        self._forget()

    def _forget(self):
        self._tokens = Memo(self._merge_piece)
        self._ids = Memo(self._encode_chunk)

    @property
    def unknown_id(self):
        return self._unknown_id

    @unknown_id.setter
    def unknown_id(self, id):
        if id != self._unknown_id:
            self._unknown_id = id
            self._forget()

    def __getstate__(self):
        return self.__dict__ | {"_tokens": None, "_ids": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._forget()

    def encode(self, text):
        """The ids of `text`, a list of int.

        ValueError if text holds a lone surrogate, which no UTF-8 can hold.
        """
        return _checked(text, lambda: self._flatten(self._ids, CHUNK.findall(text)))

    def tokens(self, text):
        """The tokens of `text`, a list of bytes; what `encode` gives ids to."""
        return _checked(text, lambda: self._flatten(self._tokens, pieces(text)))

    def decode(self, ids):
        """The bytes that the ids stand for. They may end within a character.

        ValueError if an id is not in the vocabulary.
        """
        try:
            return b"".join(map(self.bytes_of.__getitem__, ids))
        except KeyError as error:
            raise ValueError(
                f"id {error.args[0]} is not in the vocabulary, which has "
                f"{len(self.bytes_of)} tokens"
            ) from None

    @staticmethod
    def _flatten(memo, keys):
        return list(chain.from_iterable(map(memo.__getitem__, keys)))

    def _encode_chunk(self, chunk):
        ids = []
        for token in self._flatten(self._tokens, pieces(chunk)):
            id = self.ids.get(token, self.unknown_id)
            if id is None:
                raise ValueError(
                    f"the vocabulary has no id for {disguise(token)!r} (the bytes "
                    f"{token!r}), and no unknown token to stand for it"
                )
            ids.append(id)
        return tuple(ids)

    def _merge_piece(self, piece):
        symbols = [BYTES[byte] for byte in piece.encode("utf-8")]
        return tuple(
            (merge if len(symbols) < LONG else merge_long)(symbols, self.ranks)
        )


def pieces(text):
    """Cut text where GPT-2 cuts it: "It's 2, ok" -> "It", "'s", " 2", ",", " ok"."""
    return _piece_pattern().findall(text)


@cache
def _piece_pattern():
    import regex  # here, so that only those who encode pay for its import

    return regex.compile(PIECE)


def _checked(text, encode):
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, not {type(text).__name__}")
    try:
        return encode()
    except UnicodeEncodeError:
        at = next(i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff")
        raise ValueError(
            f"text[{at}] is the lone surrogate {text[at]!r}, which is half a character "
            "and has no UTF-8. To put U+FFFD in its place: "
            'text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
        ) from None
