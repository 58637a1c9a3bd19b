"""Added tokens: each is one id wherever its text stands, whatever the merges say.

Special tokens are added tokens that are no text, such as "<|endoftext|>", which stands
between two documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .fast_bpe import WHITE

_WHITE = "".join(re.findall(f"[{WHITE}]", "".join(map(chr, range(0x3001)))))


@dataclass(frozen=True)
class AddedToken:
    """The text of a token, and how it is found in other text.

    Args:
        content: the token's text.
        single_word: match only where no letter or digit stands beside the token: "<x>" is
            in "a <x>", not in "a<x>".
        lstrip: match with the white space to the left of the token.
        rstrip: match with the white space to the right of the token.
        normalized: kept for the files' sake, as GPT-2 normalizes nothing. By default it
            is not `special`.
        special: the token is no text: `decode` can skip it, and `split_special_tokens`
            reads it as ordinary characters.
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool | None = None
    special: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.content, str) or not self.content:
            raise ValueError(
                f"a token must be a str and not empty, not {self.content!r}"
            )
        if self.normalized is None:
            object.__setattr__(self, "normalized", not self.special)

    def __str__(self) -> str:
        return self.content

    @classmethod
    def of(cls, token: object, special: bool = False) -> AddedToken:
        """Return the AddedToken of a str, of a dict as files have it, or of an AddedToken
        of another library.

        Args:
            special: the token is special, whatever it says itself.
        """
        if isinstance(token, str):
            return cls(token, special=special)
        names = cls.__dataclass_fields__
        if isinstance(token, Mapping):
            fields = {name: token[name] for name in names if name in token}
        elif hasattr(token, "content"):
            fields = {name: getattr(token, name) for name in names}
        else:
            raise TypeError(
                f"a token must be a str or an AddedToken, not {type(token).__name__}"
            )
        return cls(**fields | {"special": special or fields.get("special", False)})


class AddedTokens:
    """A collection of added tokens.

    Attributes:
        tokens: {id: AddedToken}.
        ids: {content: id}.
    """

    def __init__(self) -> None:
        self.tokens: dict[int, AddedToken] = {}
        self.ids: dict[str, int] = {}
        self._pattern: re.Pattern | None = None

    def add(self, id: int, token: AddedToken) -> None:
        """Add a token, or replace the one that has this id."""
        self.tokens[id] = token
        self.ids[token.content] = id
        self._pattern = None

    def split(
        self, text: str, split_special_tokens: bool = False
    ) -> Iterator[tuple[int, int, int | None]]:
        """Cut a text around the added tokens in it; yield (start, stop, id).

        Tokens are looked for from left to right, at each place the longest first. The id
        is None for the text between them.

        Args:
            split_special_tokens: read special tokens as ordinary text.
        """
        if self._pattern is None and self.ids:
            longest_first = sorted(self.ids, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        end = 0  # of what has been yielded
        for match in self._pattern.finditer(text) if self._pattern else ():
            start, stop = match.span()
            id = self.ids[match[0]]
            token = self.tokens[id]
            if (token.special and split_special_tokens) or (
                token.single_word and _is_within_a_word(text, start, stop)
            ):
                continue
            if token.lstrip:
                start = end + len(text[end:start].rstrip(_WHITE))
            if token.rstrip:
                stop = len(text) - len(text[stop:].lstrip(_WHITE))
            start = max(start, end)  # the token before may have taken this one's space
            if end < start:
                yield end, start, None
            yield start, stop, id
            end = stop
        if end < len(text):
            yield end, len(text), None


def _is_within_a_word(text: str, start: int, stop: int) -> bool:
    import regex  # its \w is Unicode's: letters, marks, digits and what joins them

    before, after = text[max(start - 1, 0) : start], text[stop : stop + 1]
    return any(regex.match(r"\w", beside) for beside in (before, after))
