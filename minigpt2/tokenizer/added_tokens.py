"""Added tokens: each is one id wherever its text stands, whatever the merges say.

Special tokens are added tokens that are no text, such as "<|endoftext|>", which stands
between two documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..runtime.declared import is_text
from .fast_bpe import WHITE

_WHITE = "".join(re.findall(f"[{WHITE}]", "".join(map(chr, range(0x3001)))))
_SPACE = re.compile(f"[{WHITE}]*")

Part = tuple[int, int, int | None]  # of a text: (start, stop, the added token's id)

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class AddedToken:
    """The text of a token, and how it is found in other text.

    Args:
        content: the token's text.
        single_word: match only where no letter or digit stands beside the token: "<x>" is
            in "a <x>", not in "a<x>".
        lstrip: match with the white space to the left of the token.
        rstrip: match with the white space to the right of the token.
        normalized: look for the token where those that are not normalized have left
            text; GPT-2 normalizes nothing. By default it is not `special`.
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
        if not is_text(self.content) or not self.content:
            raise ValueError(
                "a token must be a str and not empty, and hold no surrogates, not "
                f"{self.content!r:.100}"
            )
        for name in FLAGS:
            flag = getattr(self, name)
            if not isinstance(flag, bool) and (
                flag is not None or name != "normalized"
            ):
                raise ValueError(
                    f"{name} of the token {self.content!r:.100} must be True or False, "
                    f"not {flag!r:.100}"
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
            given = {name: token.get(name) for name in names}
            fields = {name: value for name, value in given.items() if value is not None}
            fields.setdefault("content", None)
        elif hasattr(token, "content"):
            fields = {name: getattr(token, name) for name in names}
        else:
            raise TypeError(
                f"a token must be a str or an AddedToken, not {type(token).__name__}"
            )
        return cls(**fields | {"special": special or fields.get("special", False)})


def is_token(value: Any) -> bool:
    """Say whether a value in a file stands for a token: its text, or an object with it."""
    content, flags = value, []
    if isinstance(value, dict):
        content = value.get("content")
        flags = [value[name] for name in FLAGS if value.get(name) is not None]
    is_content = is_text(content) and content != ""
    return is_content and all(isinstance(flag, bool) for flag in flags)


class AddedTokens:
    """A collection of added tokens.

    Attributes:
        tokens: {id: AddedToken}.
        ids: {content: id}.
    """

    def __init__(self) -> None:
        self.tokens: dict[int, AddedToken] = {}
        self.ids: dict[str, int] = {}
        self._patterns: list[re.Pattern] | None = None

    def add(self, id: int, token: AddedToken) -> None:
        """Add a token, or replace the one that has this id."""
        replaced = self.tokens.get(id, token)
        self.ids.pop(replaced.content, None)
        self.tokens.pop(self.ids.get(token.content, id), None)
        self.tokens[id] = token
        self.ids[token.content] = id
        self._patterns = None

    def special_ids(self) -> set[int]:
        """Return the ids of the tokens that are no text."""
        return {id for id, token in self.tokens.items() if token.special}

    def split(self, text: str, split_special_tokens: bool = False) -> Iterator[Part]:
        """Cut a text around the added tokens in it; yield its parts.

        Tokens are looked for from left to right, at each place the longest first: those
        that are not `normalized` in the text, then the others in each part that is left,
        as if it were a text of its own.

        Args:
            split_special_tokens: read special tokens as ordinary text.
        """
        parts: Iterator[Part] = iter([(0, len(text), None)] if text else ())
        for pattern in self._compiled():
            parts = self._cut(parts, pattern, text, split_special_tokens)
        return parts

    def stand_in(self, text: str) -> bool:
        """Say whether the text of a token stands somewhere in a text."""
        # (A loop is quicker than `any`, and most texts come here.)
        for pattern in self._compiled():  # noqa: SIM110
            if pattern.search(text):
                return True
        return False

    def _compiled(self) -> list[re.Pattern]:
        """Return the patterns of the tokens that are looked for one after the other."""
        if self._patterns is not None:
            return self._patterns
        patterns = []
        for normalized in (False, True):
            contents = [
                content
                for content, id in self.ids.items()
                if bool(self.tokens[id].normalized) == normalized
            ]
            if contents:
                longest_first = sorted(contents, key=len, reverse=True)
                patterns.append(re.compile("|".join(map(re.escape, longest_first))))
        self._patterns = patterns
        return patterns

    def _cut(
        self,
        parts: Iterable[Part],
        pattern: re.Pattern,
        text: str,
        split_special_tokens: bool,
    ) -> Iterator[Part]:
        """Cut the parts that are text around the tokens of one pattern."""
        for begin, finish, known in parts:
            if known is not None:
                yield begin, finish, known
                continue
            end = begin  # of what has been yielded
            for match in pattern.finditer(text, begin, finish):
                start, stop = match.span()
                id = self.ids[match[0]]
                token = self.tokens[id]
                if (token.special and split_special_tokens) or (
                    token.single_word
                    and _is_within_a_word(text, start, stop, begin, finish)
                ):
                    continue
                if token.lstrip:
                    start = end + len(text[end:start].rstrip(_WHITE))
                if token.rstrip:
                    stop = _SPACE.match(text, stop, finish).end()  # type: ignore[union-attr]
                start = max(start, end)  # the token before may have taken its space
                if end < start:
                    yield end, start, None
                yield start, stop, id
                end = stop
            if end < finish:
                yield end, finish, None


def _is_within_a_word(
    text: str, start: int, stop: int, begin: int, finish: int
) -> bool:
    """Say whether a letter or digit stands beside text[start:stop], within the part."""
    import regex  # its \w is Unicode's: letters, marks, digits and what joins them

    before = text[max(start - 1, begin) : start]
    after = text[stop : min(stop + 1, finish)]
    return any(regex.match(r"\w", beside) for beside in (before, after))
