"""The fast twin of bpe.py: the same ids, some hundred times as fast.

What makes it fast, from the outside in:

- Text is cut into *chunks* first: white space, or what stands between with one character
  of white space before it. Pieces end wherever a chunk does, so a text's ids are those
  of its chunks, and most chunks of a text have been seen before: a memo knows their ids.
- ASCII text needs no `regex`: the standard library's `re` cuts it, by the same pattern with
  its classes spelled out. Words are tried first there, as they are the most frequent and no
  other alternative begins with a letter or a space and a letter: the order of alternatives
  that cannot begin alike is free. English endings begin with an apostrophe, like other
  punctuation, and so stay before that.
- Tokens are numbers, and a pair's rank is one look-up. Short pieces are merged by looking
  for the least rank again and again, long ones by a heap of ranks (n log n).
- In scripts that GPT-2 saw little of, few bytes were ever joined; there a piece is cut
  wherever no merge can reach across, and another memo knows what is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from heapq import heappop, heappush
from itertools import chain, pairwise, repeat
from math import inf
from typing import Any

from ..bpe import bytes_to_unicode, undisguise, unicode_to_bytes

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


def piece_pattern(letters: str, digits: str, white: str = WHITE) -> str:
    """Return bpe.PATTERN, given what goes into a class for letters and for digits."""
    return (
        f" ?+[{letters}]++"  # after the endings in bpe.PATTERN, which begin otherwise
        "|'s|'t|'re|'ve|'m|'ll|'d"  # English endings
        f"| ?+[{digits}]++| ?+[^{white}{letters}{digits}]++"
        f"|[{white}]+(?![^{white}])|[{white}]+"  # all white space but the last; the last
    )


ASCII_PIECE = re.compile(piece_pattern("A-Za-z", "0-9"))


@cache
def unicode_piece() -> Any:
    """Return the pattern for text that is not all ASCII, compiled."""
    import regex  # the standard library's `re` has no \\p{L}

    return regex.compile(piece_pattern(r"\p{L}", r"\p{N}"))


def pieces(text: str) -> list[str]:
    """The twin of bpe.pieces."""
    return (ASCII_PIECE if text.isascii() else unicode_piece()).findall(text)


# --- merging ---


Ranks = Mapping[tuple[int, int], int]  # {(left, right): rank}, the lower the earlier


def merge(ids: list[int], ranks: Ranks, made: Sequence[int]) -> list[int]:
    """Merge learned pairs of neighbours until there are none, in place; return the ids.

    The time grows with the square of the length; see merge_long.

    Args:
        ids: the bytes' ids.
        ranks: the learned pairs.
        made: made[rank] is the id of the token that the merge makes. Each must be made
            by one merge only: then no pair of a new token is of lower rank than what
            made it, and all pairs of a rank are merged, from left to right, before the
            next rank.
    """
    rank_of = ranks.get
    costs = list(map(rank_of, pairwise(ids), repeat(inf)))
    while costs and (rank := min(costs)) is not inf:
        i = costs.index(rank)  # the leftmost
        both = ids[i] = made[rank]  # type: ignore[index]  # inf has no index
        del ids[i + 1], costs[i]
        if i > 0:
            costs[i - 1] = rank_of((ids[i - 1], both), inf)
        if i < len(costs):
            costs[i] = rank_of((both, ids[i + 1]), inf)
    return ids


def merge_long(ids: list[Any], ranks: Ranks, made: Sequence[int]) -> list[int]:
    """Return what `merge` returns, in n log n steps: a million characters in a second.

    Here several merges may make the same token.

    The ids are a linked list: a merge writes the new one in the left place and None in
    the right one. `places[rank]` holds where pairs of this rank may stand; a place whose
    pair has changed since is passed over when its turn comes.
    """
    end = len(ids)
    before = list(range(-1, end - 1))
    after = list(range(1, end + 1))
    pairs: dict[int, tuple[int, int]] = {}
    places: dict[int, list[int]] = {}
    heap: list[int] = []  # the ranks that have places

    def note(i: int, j: int) -> None:
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

    def __init__(
        self, function: Callable[[Any], tuple], size: int = 2**25, longest: int = 64
    ):
        self.function, self.size, self.longest = function, size, longest
        self.old: dict[Any, tuple] = {}
        self.bytes = 0

    def __missing__(self, key: Any) -> tuple:
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

    def __init__(self, written_of: dict[int, str]):
        self.written_of = written_of

    def __missing__(self, id: int) -> bytes:
        written = self.written_of[id]  # KeyError: there is no such id
        try:
            self[id] = undisguise(written)
        except KeyError:  # a special token that has a space, say
            self[id] = written.encode("utf-8")
        return self[id]


def _about_surrogates(text: str) -> str:
    """Return what is wrong with a text that has surrogates, and what mends it."""
    mend = 'text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
    at = next(i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff")
    pair = text[at : at + 2]
    if re.fullmatch("[\ud800-\udbff][\udc00-\udfff]", pair):
        return (
            f"text[{at}:{at + 2}] is the surrogate pair {pair!r}, the two halves of one "
            f"character, which have no UTF-8. To join them: {mend}"
        )
    return (
        f"text[{at}] is the lone surrogate {text[at]!r}, which is half a character and "
        f"has no UTF-8. To put U+FFFD in its place: {mend}"
    )


class FastBPE:
    """The twin of bpe.BPE; it also knows tokens that have no id, and added tokens.

    Args:
        merges: as for bpe.BPE.
        ids: as for bpe.BPE.
        source: where the merges are from, for the message of a ValueError.

    Attributes:
        ids: {written token: id}.
        written_of: {id: written token}.
        bytes_of: {id: token}.
        ranks: see `merge`.
        made: see `merge`.
    """

    def __init__(
        self,
        merges: Sequence[str],
        ids: Mapping[str, int] | None = None,
        source: object = "merges",
    ):
        # All tokens that can be made, numbered as they are learned: GPT-2's own ids.
        numbers = {char: n for n, char in enumerate(bytes_to_unicode().values())}
        self.ranks: dict[tuple[int, int], int] = {}
        self.made: list[int] = []
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

        # Tokens without an id, by numbers of our own, below 0.
        self._nameless: dict[int, str] = {}
        if ids is None:
            ids = numbers
        else:
            new = [ids.get(token, ~number) for number, token in enumerate(numbers)]
            self.ranks = {(new[a], new[b]): rank for (a, b), rank in self.ranks.items()}
            self.made = [new[number] for number in self.made]
            numbers = dict(zip(numbers, new))
            self._nameless = {id: token for token, id in numbers.items() if id < 0}
        self.ids = dict(ids)
        are_ints = set(map(type, ids.values())) <= {int}
        if not are_ints or min(ids.values(), default=0) < 0:
            raise ValueError("the ids of a vocabulary are whole numbers from 0 on")
        self.written_of = {id: token for token, id in ids.items()}
        if len(self.written_of) < len(ids):
            raise ValueError("two tokens of the vocabulary have the same id")
        self.bytes_of = Undisguised(self.written_of)
        self._byte_ids = [numbers[bytes_to_unicode()[byte]] for byte in range(256)]
        # `merge` is not for vocabularies with duplicates, such as "a bc" and "ab c".
        self._long = LONG if len(set(self.made)) == len(merges) else 0
        self._forget()

    def encode(self, text: str, unknown_id: int | None = None) -> list[int]:
        """Return the ids of a text.

        Args:
            unknown_id: stands for tokens that have no id; GPT-2's vocabulary has no
                such.

        Raises:
            ValueError: an unknown_id is needed and None, or the text holds a lone
                surrogate, which no UTF-8 can hold.
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
        return [unknown_id if id < 0 else id for id in ids]  # type: ignore[misc]

    def tokens(self, text: str) -> list[bytes]:
        """Return the tokens that `encode` gives the ids of."""
        bytes_of, nameless = self.bytes_of, self._nameless
        return [
            bytes_of[id] if id >= 0 else undisguise(nameless[id])
            for id in self._all_ids(text)
        ]

    def decode(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that the ids stand for. They may end within a character.

        ValueError if an id is not in the vocabulary.
        """
        try:
            return b"".join(map(self.bytes_of.__getitem__, ids))
        except KeyError as error:
            raise ValueError(
                f"id {error.args[0]} is not in the vocabulary, which has "
                f"{len(self.written_of)} tokens"
            ) from None

    def written_merges(self) -> list[str]:
        """Return the merges as files write them: ["Ġ t", ...]."""
        written = self.written_of | self._nameless
        pairs = sorted(self.ranks, key=self.ranks.__getitem__)
        return [f"{written[left]} {written[right]}" for left, right in pairs]

    def add(self, id: int, token: str) -> None:
        """Let `decode` know a token that is not in the vocabulary."""
        self.written_of[id] = token
        self.bytes_of[id] = token.encode("utf-8")

    def _all_ids(self, text: str) -> list[int]:
        """Return the ids of a text, those below 0 among them."""
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {type(text).__name__}")
        ids: list[int] = []
        start = 0
        try:
            while start < len(text):
                border = BORDER.search(text, start + BLOCK)
                stop = border.start() if border else len(text)
                chunks = CHUNK.findall(text, start, stop)
                ids += chain.from_iterable(map(self._chunks.__getitem__, chunks))
                start = stop
        except UnicodeEncodeError:
            raise ValueError(_about_surrogates(text)) from None
        return ids

    def _forget(self) -> None:
        """Begin with empty caches."""
        self._chunks = Memo(self._ids_of_chunk)
        self._fragments = Memo(self._merged)

    def _ids_of_chunk(self, chunk: str) -> tuple[int, ...]:
        parts: list[Any] = pieces(chunk)
        known = self._chunks
        if len(parts) == 1:
            spelled = chunk.encode("utf-8")
            if len(spelled) == len(chunk):  # ASCII
                return self._merged(spelled)
            parts, known = self._fragments_of(spelled), self._fragments
        return tuple(chain.from_iterable(map(known.__getitem__, parts)))

    def _merged(self, spelled: bytes) -> tuple[int, ...]:
        ids = list(map(self._byte_ids.__getitem__, spelled))
        merge_all = merge if len(ids) < self._long else merge_long
        return tuple(merge_all(ids, self.ranks, self.made))

    def _fragments_of(self, spelled: bytes) -> list[bytes]:
        """Cut a piece wherever two bytes meet that no token has side by side, so that no
        merge reaches across. In scripts that GPT-2 saw little of, which is most, this
        leaves not many different ones, and `_fragments` remembers them."""
        cuts = [i for i, p in enumerate(pairwise(spelled), 1) if p not in self._joints]
        return [spelled[i:j] for i, j in pairwise([0, *cuts, len(spelled)])]

    @cached_property
    def _joints(self) -> set[tuple[int, int]]:
        """The pairs of bytes that tokens have side by side: each was joined by a merge."""
        written, byte = self.written_of | self._nameless, unicode_to_bytes()
        joints = {(written[left][-1], written[right][0]) for left, right in self.ranks}
        return {(byte[first], byte[second]) for first, second in joints}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_chunks": None, "_fragments": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
