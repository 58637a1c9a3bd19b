"""Added tokens: each is one id wherever its text stands, whatever the merges say.

Special tokens are those of them that are no text, such as "<|endoftext|>", which stands
between two documents.
"""

import re
from dataclasses import dataclass

from .fast_bpe import WHITE

_WHITE = "".join(re.findall(f"[{WHITE}]", "".join(map(chr, range(0x3001)))))


@dataclass(frozen=True)
class AddedToken:
    """The text of a token, and how it is to be found in other text.

    single_word: not beside a letter or a digit ("<x>" is in "a <x>", not in "a<x>").
    lstrip, rstrip: with the white space on the left, on the right of it.
    special: it is no text: `decode` may skip it, `split_special_tokens` passes it over.
    normalized: kept for the files' sake; GPT-2 normalizes nothing.
    """

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool | None = None  # not special
    special: bool = False

    def __post_init__(self):
        if not isinstance(self.content, str) or not self.content:
            raise ValueError(
                f"a token must be a str and not empty, not {self.content!r}"
            )
        if self.normalized is None:
            object.__setattr__(self, "normalized", not self.special)

    def __str__(self):
        return self.content

    @classmethod
    def of(cls, token, special=False):
        """Of a str, a dict as files have it, or an AddedToken of another library."""
        if isinstance(token, str):
            return cls(token, special=special)
        names = cls.__dataclass_fields__
        if isinstance(token, dict):
            fields = {name: token[name] for name in names if name in token}
        elif hasattr(token, "content"):
            fields = {name: getattr(token, name) for name in names}
        else:
            raise TypeError(
                f"a token must be a str or an AddedToken, not {type(token).__name__}"
            )
        return cls(**fields | {"special": special or fields.get("special", False)})


class AddedTokens:
    """A collection of them: tokens[id] is an AddedToken, ids[content] its id."""

    def __init__(self):
        self.tokens, self.ids = {}, {}
        self._pattern = None

    def add(self, id, token):
        self.tokens[id] = token
        self.ids[token.content] = id
        self._pattern = None

    def split(self, text, split_special_tokens=False):
        """Cut text around the added tokens in it: yields (start, stop, id), where id is
        None for what stands between them.

        They are looked for from left to right, at each place the longest first.
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
                token.single_word and _within_a_word(text, start, stop)
            ):
                continue
            if token.lstrip:
                start = end + len(text[end:start].rstrip(_WHITE))
            if token.rstrip:
                stop = len(text) - len(text[stop:].lstrip(_WHITE))
            start = max(start, end)  # the last one may have taken this one's space
            if end < start:
                yield end, start, None
            yield start, stop, id
            end = stop
        if end < len(text):
            yield end, len(text), None


def _within_a_word(text, start, stop):
    import regex  # its \w is Unicode's: letters, marks, digits and what joins them

    before, after = text[max(start - 1, 0) : start], text[stop : stop + 1]
    return regex.match(r"\w", before) or regex.match(r"\w", after)
