"""Byte-pair encoding: text -> pieces -> ids, and ids -> bytes.

    "Hello world"  ->  "Hello", " world"  ->  15496, 995  ->  b"Hello world"

1. A pattern cuts the text into *pieces*: a word with the space before it, a number,
   punctuation, white space. No token ever reaches from one piece into the next.
2. Each piece is spelled in UTF-8, and each byte is a token, which has an id. Of all pairs
   of neighbours that were ever learned, the one that was learned first is merged into a
   longer token wherever it stands, from left to right; then the same again, until no two
   neighbours are a learned pair. The ids of the tokens that are left are the result.

Every byte is a token, so every text has ids, and they give the text back exactly.

Files write tokens in a disguise that has no spaces and no control characters, "Ġworld"
for b" world". It is undone once, when a vocabulary is loaded.

This module knows no special tokens: to it, "<|endoftext|>" is thirteen characters.

Sources: Sennrich et al. 2016 (https://arxiv.org/abs/1508.07909); section 2.2 of Radford
et al. 2019; the pattern and the files are those of openai/gpt-2.
"""

import json
import re
from functools import cache, cached_property
from heapq import heappop, heappush
from itertools import chain, pairwise, repeat
from math import inf

# What the module `regex` means by \s. The standard library's `re` takes U+001C to U+001F
# for white space too.
WHITE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

# Text between white space, with the one character of it before; the rest of the white
# space. Pieces end wherever a chunk does, so a text's pieces are those of its chunks.
CHUNK = re.compile(f"[{WHITE}]?+[^{WHITE}]++|[{WHITE}]+(?![^{WHITE}])")
# Where a chunk is sure to begin, whatever follows.
BORDER = re.compile(f"(?<=[^{WHITE}])[{WHITE}]")

BLOCK = 16_384  # characters that are worked on at a time: they stay in the CPU's cache
LONG = 50  # ids: of a piece that has more, merge_long is the faster one


def piece_pattern(letters, digits, white=WHITE):
    """GPT-2's pattern, given what goes into a character class for letters and digits."""
    return (
        f" ?+[{letters}]++"  # GPT-2 has it after the endings, which begin otherwise
        "|'s|'t|'re|'ve|'m|'ll|'d"  # English endings
        f"| ?+[{digits}]++| ?+[^{white}{letters}{digits}]++"
        f"|[{white}]+(?![^{white}])|[{white}]+"  # all white space but the last; the last
    )


ASCII_PIECE = re.compile(piece_pattern("A-Za-z", "0-9"))


@cache
def unicode_piece():
    """The pattern for text that is not all ASCII, compiled."""
    import regex  # the standard library's `re` has no \\p{L}

    return regex.compile(piece_pattern(r"\p{L}", r"\p{N}"))


def pieces(text):
    """Cut text where GPT-2 does: "It's 2, ok" -> ["It", "'s", " 2", ",", " ok"]."""
    return (ASCII_PIECE if text.isascii() else unicode_piece()).findall(text)


# --- files ---


@cache
def bytes_to_unicode():
    """The disguise: {byte: the character that stands for it in vocabulary files}.

    The 188 bytes that are visible in Latin-1 stand for themselves, the other 68 are
    U+0100, U+0101, ... in order. The order of the dict is that of the first 256 ids.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {
        byte: chr(0x100 + n) for n, byte in enumerate(hidden)
    }


@cache
def unicode_to_bytes():
    """The disguise backwards: {character: byte}."""
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


def read_ids(path):
    """Read encoder.json (or vocab.json): {written token: id}."""
    with open(path, encoding="utf-8") as file:
        try:
            ids = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(ids, dict) or any(
        type(id) is not int or id < 0 for id in ids.values()
    ):
        raise ValueError(f"{path}: expected a JSON object of tokens and their ids")
    return ids


# --- merging ---


def merge(ids, ranks, made):
    """Merge learned pairs of neighbours until there are none: the definition of BPE.

    ids: list of the bytes' ids, changed in place and returned.
    ranks: {(left, right): rank}, the lower the earlier it was learned.
    made: made[rank] is the id of the token that the merge makes. Each must be made by
        one merge only: then no pair of a new token is of lower rank than what made it,
        and all pairs of a rank are merged, from left to right, before the next rank.

    The time grows with the square of the length; see merge_long.
    """
    rank_of = ranks.get
    costs = list(map(rank_of, pairwise(ids), repeat(inf)))
    while costs and (rank := min(costs)) is not inf:
        i = costs.index(rank)  # the leftmost
        both = ids[i] = made[rank]
        del ids[i + 1], costs[i]
        if i > 0:
            costs[i - 1] = rank_of((ids[i - 1], both), inf)
        if i < len(costs):
            costs[i] = rank_of((both, ids[i + 1]), inf)
    return ids


def merge_long(ids, ranks, made):
    """What `merge` returns, in n log n steps: a million characters take a second. Here
    several merges may make the same token.

    The ids are a linked list: a merge writes the new one in the left place and None in
    the right one. `places[rank]` holds where pairs of this rank may stand; a place whose
    pair has changed since is passed over when its turn comes.
    """
    end = len(ids)
    before = list(range(-1, end - 1))
    after = list(range(1, end + 1))
    pairs, places = {}, {}
    heap = []  # the ranks that have places

    def note(i, j):
        pair = ids[i], ids[j]
        rank = ranks.get(pair)
        if rank is not None:
            if rank not in places:
                pairs[rank], places[rank] = pair, []
                heappush(heap, rank)
            places[rank].append(i)

    for i in range(end - 1):
        note(i, i + 1)
    while heap:
        rank = heappop(heap)
        left, right = pairs[rank]
        merged = []
        # No place is added to this list meanwhile: a token is longer than either of its
        # halves, so what is made here is in no pair of this rank.
        for i in sorted(places.pop(rank)):
            j = after[i]
            if j < end and ids[i] == left and ids[j] == right:
                ids[i], ids[j] = made[rank], None
                after[i] = after[j]
                if after[i] < end:
                    before[after[i]] = i
                merged.append(i)
        for i in merged:
            if before[i] >= 0:
                note(before[i], i)
            if after[i] < end:
                note(i, after[i])
    return [id for id in ids if id is not None]


class Memo(dict):
    """A dict that fills itself from a function of the key, from text or bytes to a tuple.

    It holds two generations of about `size` bytes each: when the young one is full it
    becomes the old one, whose keys are young again when they are asked for, or go.
    Keys longer than `longest` are not kept.
    """

    def __init__(self, function, size=2**25, longest=64):
        self.function, self.size, self.longest = function, size, longest
        self.old, self.bytes = {}, 0

    def __missing__(self, key):
        value = self.old.get(key) or self.function(key)
        if len(key) <= self.longest:
            self.bytes += 200 + 2 * len(key) + 8 * len(value)
            if self.bytes > self.size:
                self.old, self.bytes = dict(self), 0
                self.clear()
            self[key] = value
        return value


class Undisguised(dict):
    """{id: token}, filled from {id: written token} as tokens are asked for."""

    def __init__(self, written_of):
        self.written_of = written_of

    def __missing__(self, id):
        written = self.written_of[id]  # KeyError: there is no such id
        try:
            self[id] = undisguise(written)
        except KeyError:  # a special token that has a space, say
            self[id] = written.encode("utf-8")
        return self[id]


class BPE:
    """The encoder of one vocabulary.

    merges: ["Ġ t", ...], first learned first, as `read_merges` returns them.
    ids: {written token: id}, as `read_ids` returns them. None: those that follow from
        the merges, which are GPT-2's own: the 256 bytes in the order of
        `bytes_to_unicode`, then what each merge makes.
    source: where the merges are from, for the message of a ValueError.

    Attributes: ids; written_of, {id: written token}; bytes_of, {id: token}; ranks and
    made, see `merge`.
    """

    def __init__(self, merges, ids=None, source="merges"):
        # All tokens that can be made, numbered as they are learned: GPT-2's own ids.
        numbers = {char: n for n, char in enumerate(bytes_to_unicode().values())}
        self.ranks, self.made = {}, []
        for rank, line in enumerate(merges):
            try:
                left, right = line.split(" ")
                pair = numbers[left], numbers[right]
            except (ValueError, KeyError):
                raise ValueError(
                    f"{source}, merge {rank + 1}: expected two tokens, each a byte or "
                    f"made by an earlier merge, and a space; found {line[:80]!r}"
                ) from None
            self.ranks[pair] = rank
            self.made.append(numbers.setdefault(left + right, len(numbers)))

        self._nameless = {}  # tokens without an id, by numbers of our own, below 0
        if ids is None:
            ids = numbers
        else:
            new = [ids.get(token, ~number) for number, token in enumerate(numbers)]
            self.ranks = {(new[a], new[b]): rank for (a, b), rank in self.ranks.items()}
            self.made = [new[number] for number in self.made]
            numbers = dict(zip(numbers, new))
            self._nameless = {id: token for token, id in numbers.items() if id < 0}
        self.ids = dict(ids)
        self.written_of = {id: token for token, id in ids.items()}
        if len(self.written_of) < len(ids):
            raise ValueError("two tokens of the vocabulary have the same id")
        self.bytes_of = Undisguised(self.written_of)
        self._byte_ids = [numbers[bytes_to_unicode()[byte]] for byte in range(256)]
        # `merge` is not for vocabularies with duplicates, such as "a bc" and "ab c".
        self._long = LONG if len(set(self.made)) == len(merges) else 0
        self._forget()

    def encode(self, text, unknown_id=None):
        """The ids of `text`, a list of int.

        unknown_id: stands for tokens that have no id; GPT-2's vocabulary has no such.
        ValueError if it is needed and None, and if text holds a lone surrogate, which no
        UTF-8 can hold.
        """
        ids = self._all_ids(text)
        if not self._nameless:
            return ids
        if unknown_id is None and (missing := self._nameless.keys() & set(ids)):
            token = self._nameless[missing.pop()]
            raise ValueError(
                f"the vocabulary has no id for {token!r}, that is {undisguise(token)!r}, "
                "and there is no unknown token to stand for it"
            )
        return [unknown_id if id < 0 else id for id in ids]

    def tokens(self, text):
        """The tokens that `encode` gives the ids of, a list of bytes."""
        bytes_of, nameless = self.bytes_of, self._nameless
        return [
            bytes_of[id] if id >= 0 else undisguise(nameless[id])
            for id in self._all_ids(text)
        ]

    def decode(self, ids):
        """The bytes that the ids stand for. They may end within a character.

        ValueError if an id is not in the vocabulary.
        """
        try:
            return b"".join(map(self.bytes_of.__getitem__, ids))
        except KeyError as error:
            raise ValueError(
                f"id {error.args[0]} is not in the vocabulary, which has "
                f"{len(self.written_of)} tokens"
            ) from None

    def written_merges(self):
        """The merges as files write them: ["Ġ t", ...]."""
        written = self.written_of | self._nameless
        pairs = sorted(self.ranks, key=self.ranks.get)
        return [f"{written[left]} {written[right]}" for left, right in pairs]

    def add(self, id, token):
        """Let `decode` know a token that is not in the vocabulary, a str."""
        self.written_of[id] = token
        self.bytes_of[id] = token.encode("utf-8")

    def _all_ids(self, text):
        """The ids of `text`, those below 0 among them."""
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {type(text).__name__}")
        ids, start = [], 0
        try:
            while start < len(text):
                border = BORDER.search(text, start + BLOCK)
                stop = border.start() if border else len(text)
                chunks = CHUNK.findall(text, start, stop)
                ids += chain.from_iterable(map(self._chunks.__getitem__, chunks))
                start = stop
        except UnicodeEncodeError:
            at = next(i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff")
            raise ValueError(
                f"text[{at}] is the lone surrogate {text[at]!r}, which is half a "
                "character and has no UTF-8. To put U+FFFD in its place: "
                'text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
            ) from None
        return ids

    def _forget(self):
        """Begin with empty caches."""
        self._chunks = Memo(self._ids_of_chunk)
        self._fragments = Memo(self._merged)

    def _ids_of_chunk(self, chunk):
        parts, known = pieces(chunk), self._chunks
        if len(parts) == 1:
            spelled = chunk.encode("utf-8")
            if len(spelled) == len(chunk):  # ASCII
                return self._merged(spelled)
            parts, known = self._fragments_of(spelled), self._fragments
        return tuple(chain.from_iterable(map(known.__getitem__, parts)))

    def _merged(self, spelled):
        ids = list(map(self._byte_ids.__getitem__, spelled))
        merge_all = merge if len(ids) < self._long else merge_long
        return tuple(merge_all(ids, self.ranks, self.made))

    def _fragments_of(self, spelled):
        """Cut a piece wherever two bytes meet that no token has side by side, so that no
        merge reaches across. In scripts that GPT-2 saw little of, which is most, this
        leaves not many different ones, and `_fragments` remembers them."""
        cuts = [i for i, p in enumerate(pairwise(spelled), 1) if p not in self._joints]
        return [spelled[i:j] for i, j in pairwise([0, *cuts, len(spelled)])]

    @cached_property
    def _joints(self):
        """The pairs of bytes that tokens have side by side: each was joined by a merge."""
        written, byte = self.written_of | self._nameless, unicode_to_bytes()
        joints = {(written[left][-1], written[right][0]) for left, right in self.ranks}
        return {(byte[first], byte[second]) for first, second in joints}

    def __getstate__(self):
        return self.__dict__ | {"_chunks": None, "_fragments": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._forget()
