"""Encoding: the tokens of one row, and where they stand in its text or texts.

Positions come in three kinds: of tokens in the row, of characters in a text, and of words
in a text, which are the pieces that the pattern cuts (see bpe.py), or the caller's own
with is_split_into_words. The names and rules are those of Hugging Face's tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .batches import Row


class CharSpan(NamedTuple):
    """Characters of a text: text[start:end]."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens of a row: row[start:end]."""

    start: int
    end: int


class Place(NamedTuple):
    """Where a token stands: in text number `sequence`, from start to stop, in a word."""

    sequence: int
    start: int
    stop: int
    word: int


class Origin(NamedTuple):
    """What the ids of a row are of.

    Attributes:
        texts: one or two, as they were given.
        ids: those of each, with what truncation left of them.
        counts: how many ids truncation took off each.
        side: from which side it did.
    """

    texts: list[Any]
    ids: list[list[int]]
    counts: Sequence[int]
    side: str


class Encoding:
    """One row. What costs time is worked out when it is asked for.

    Args:
        row: the row, padded: its ids, its attention mask.
        sequence_ids: the number of each token's text, None for special tokens and padding.
        tokens: returns the tokens.
        places: returns the places of those that are of a text, in order.
    """

    def __init__(
        self,
        row: Row,
        sequence_ids: list[int | None],
        tokens: Callable[[], list[str]],
        places: Callable[[], list[Place]],
    ):
        self.ids: list[int] = row["input_ids"]
        self.attention_mask: list[int] = row.get("attention_mask", [1] * len(self.ids))
        self.sequence_ids = sequence_ids
        self._tokens, self._places = tokens, places

    def __repr__(self) -> str:
        return f"Encoding(num_tokens={len(self.ids)})"

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has: the results, and no tokenizer."""
        with suppress(ValueError):  # ids that came as ids have no places in a text
            self.places  # noqa: B018
        self.tokens  # noqa: B018
        state = self.__dict__.items()
        return {name: v for name, v in state if name not in ("_tokens", "_places")}

    @cached_property
    def tokens(self) -> list[str]:
        """The tokens as vocabulary files write them."""
        return self._tokens()

    @cached_property
    def places(self) -> list[Place | None]:
        """The place of each token, None for one that is of no text."""
        found = iter(self._places())
        return [None if number is None else next(found) for number in self.sequence_ids]

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """The (start, stop) of each token in its text, (0, 0) for those of none."""
        return [(0, 0) if p is None else (p.start, p.stop) for p in self.places]

    @property
    def word_ids(self) -> list[int | None]:
        """The number of each token's word in its text, None for those of none."""
        return [None if place is None else place.word for place in self.places]

    @property
    def special_tokens_mask(self) -> list[int]:
        """1 for each token that is of no text, 0 for the others."""
        return [int(number is None) for number in self.sequence_ids]

    @property
    def n_sequences(self) -> int:
        """The number of texts."""
        return max((n + 1 for n in self.sequence_ids if n is not None), default=1)

    def token_to_sequence(self, token: int) -> int | None:
        """Return the number of the text that a token is of."""
        return self.sequence_ids[token]

    def token_to_word(self, token: int) -> int | None:
        """Return the number of a token's word."""
        return self.word_ids[token]

    def token_to_chars(self, token: int) -> CharSpan | None:
        """Return the characters of a token."""
        place = self.places[token]
        return None if place is None else CharSpan(place.start, place.stop)

    def word_to_tokens(self, word: int, sequence: int = 0) -> TokenSpan | None:
        """Return the tokens of a word."""
        found = [i for i, p in self._of(sequence) if p.word == word]
        return TokenSpan(found[0], found[-1] + 1) if found else None

    def word_to_chars(self, word: int, sequence: int = 0) -> CharSpan | None:
        """Return the characters of a word."""
        found = [p for _, p in self._of(sequence) if p.word == word]
        return CharSpan(found[0].start, found[-1].stop) if found else None

    def char_to_token(self, char: int, sequence: int = 0) -> int | None:
        """Return the first token that has a character."""
        for i, place in self._of(sequence):
            if place.start <= char < place.stop:
                return i
        return None

    def char_to_word(self, char: int, sequence: int = 0) -> int | None:
        """Return the number of the word that has a character."""
        token = self.char_to_token(char, sequence)
        return None if token is None else self.token_to_word(token)

    def _of(self, sequence: int) -> Iterator[tuple[int, Place]]:
        for i, place in enumerate(self.places):
            if place is not None and place.sequence == sequence:
                yield i, place
