"""Byte-pair encoding by its definition: text -> pieces -> tokens -> ids, and back.

    "Hello world"  ->  "Hello", " world"  ->  15496, 995  ->  b"Hello world"

1. A pattern cuts the text into *pieces*: a word with the space before it, a number,
   punctuation, white space. No token ever reaches from one piece into the next.
2. Each piece is spelled in UTF-8, and each byte is a token. Of all pairs of neighbours
   that were ever learned, the one that was learned first is merged into a longer token
   wherever it stands, from left to right; then the same again, until no two neighbours
   are a learned pair.
3. Every token has an id.

Every byte is a token, so every text has ids, and they give the text back exactly.

Files write tokens in a disguise that has no spaces and no control characters, "Ġworld"
for b" world": OpenAI's files are lines of tokens with spaces between.

This module knows no special tokens: to it, "<|endoftext|>" is thirteen characters. It is
written to be read; tokenizer/fast_bpe.py gives the same ids some hundred times as fast.

Sources: Sennrich et al. 2016 (https://arxiv.org/abs/1508.07909); section 2.2 of Radford
et al. 2019; the pattern and the files are those of openai/gpt-2.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from math import inf

from .runtime.declared import is_id
from .runtime.files import read_json

Pair = tuple[bytes, bytes]

# OpenAI's, as published: English endings; words, numbers and the rest, each with the
# space before it; white space, whose last character is left to the word behind it.
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def pieces(text: str) -> list[str]:
    """Cut text where GPT-2 does: "It's 2, ok" -> ["It", "'s", " 2", ",", " ok"]."""
    import regex  # the standard library's `re` has no \\p{L}

    return regex.findall(PATTERN, text)


def merge(spelled: bytes, ranks: Mapping[Pair, int]) -> list[bytes]:
    """Return the tokens of a piece; ranks: {(left, right): rank}, first learned first."""
    steps = [bytewise(spelled), *(tokens for _, tokens in merge_steps(spelled, ranks))]
    return steps[-1]


def bytewise(spelled: bytes) -> list[bytes]:
    """Return the tokens that a piece begins as: its bytes."""
    return [bytes([byte]) for byte in spelled]


def merge_steps(
    spelled: bytes, ranks: Mapping[Pair, int]
) -> Iterator[tuple[Pair, list[bytes]]]:
    """Yield (the pair that is merged, the tokens after that), one merge after another."""
    tokens = bytewise(spelled)
    while len(tokens) > 1:
        pair = min(pairwise(tokens), key=lambda pair: ranks.get(pair, inf))
        if pair not in ranks:
            return
        tokens = joined(tokens, pair)
        yield pair, tokens


def joined(tokens: list[bytes], pair: Pair) -> list[bytes]:
    """Merge a pair wherever it stands, from left to right."""
    out: list[bytes] = []
    i = 0
    while i < len(tokens):
        if tuple(tokens[i : i + 2]) == pair:
            out.append(tokens[i] + tokens[i + 1])
            i += 2
        else:
            out.append(tokens[i])
            i += 1
    return out


class BPE:
    """The encoder of one vocabulary.

    Args:
        merges: ["Ġ t", ...], first learned first, as `read_merges` returns them.
        ids: {written token: id}, as `read_ids` returns them. None: those that follow
            from the merges, which are GPT-2's own: the 256 bytes in the order of
            `bytes_to_unicode`, then what each merge makes.
    """

    def __init__(self, merges: Iterable[str], ids: Mapping[str, int] | None = None):
        written = (line.split(" ") for line in merges)
        pairs = [(undisguise(left), undisguise(right)) for left, right in written]
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        if ids is None:
            tokens = [bytes([byte]) for byte in bytes_to_unicode()]
            tokens += [left + right for left, right in pairs]
            self.ids = {token: id for id, token in enumerate(dict.fromkeys(tokens))}
        else:
            self.ids = {undisguise(written): id for written, id in ids.items()}
        self.token_of = {id: token for token, id in self.ids.items()}

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text. KeyError for a token that has none."""
        return [self.ids[token] for token in self.tokens(text)]

    def tokens(self, text: str) -> list[bytes]:
        """Return the tokens that `encode` gives the ids of."""
        return [
            token
            for piece in pieces(text)
            for token in merge(piece.encode("utf-8"), self.ranks)
        ]

    def decode(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that the ids stand for. They may end within a character."""
        return b"".join(self.token_of[id] for id in ids)


# --- files ---


@cache
def bytes_to_unicode() -> dict[int, str]:
    """Return the disguise: {byte: the character that stands for it in files}.

    The 188 bytes that are visible in Latin-1 stand for themselves, the other 68 are
    U+0100, U+0101, ... in order. The order of the dict is that of the first 256 ids.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {
        byte: chr(0x100 + n) for n, byte in enumerate(hidden)
    }


@cache
def unicode_to_bytes() -> dict[str, int]:
    """Return the disguise backwards: {character: byte}."""
    return {character: byte for byte, character in bytes_to_unicode().items()}


def disguise(token: bytes) -> str:
    """Write a token as vocabulary files do: b" world" -> "Ġworld"."""
    return "".join(map(bytes_to_unicode().__getitem__, token))


def undisguise(written: str) -> bytes:
    """Return the token that vocabulary files write so: "Ġworld" -> b" world".

    KeyError if a character stands for no byte.
    """
    return bytes(map(unicode_to_bytes().__getitem__, written))


def read_merges(path: str | os.PathLike) -> list[str]:
    """Read vocab.bpe (or merges.txt): a comment, then one merge a line, first learned
    first. Returns the merges as they are written: ["Ġ t", "h e", ...]."""
    try:
        with open(path, encoding="utf-8-sig") as file:  # a BOM is no token
            lines = file.read().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None
    if lines[0].startswith("#version"):
        del lines[0]
    return [line for line in lines if line]


def read_ids(path: str | os.PathLike) -> dict[str, int]:
    """Read encoder.json (or vocab.json): {written token: id}."""
    ids = read_json(path)
    for token, id in ids.items():
        if not is_id(id):
            raise ValueError(
                f"{path}: the token {token!r:.100} has the id {id!r:.100}, and ids are "
                "whole numbers from 0 on, below 2**31"
            )
    return ids
