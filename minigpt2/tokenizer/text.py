"""TextTokenizer: one text -> tokens or ids -> text."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from ..bpe import disguise, undisguise
from .fast_bpe import pieces
from .vocabulary import NO_LISTS, Vocabulary, as_list, list_of_str

if TYPE_CHECKING:
    import numpy as np

    from .vocabulary import Ids


class Span(NamedTuple):
    """The place of a token: text[start:stop], which is in a word, counted from 0.

    A word is a piece that the pattern cuts (see bpe.py) or an added token.
    """

    start: int
    stop: int
    word: int


class TextTokenizer(Vocabulary):
    """A vocabulary that encodes and decodes one text.

    PreTrainedTokenizer sets its settings and explains them.
    """

    errors: str
    add_prefix_space: bool
    split_special_tokens: bool
    clean_up_tokenization_spaces: bool

    # One text -> ids

    def tokenize(
        self,
        text: str,
        *,
        add_prefix_space: bool | None = None,
        split_special_tokens: bool | None = None,
    ) -> list[str]:
        """Return the tokens of a text as vocabulary files write them.

        >>> GPT2Tokenizer.from_pretrained("gpt2").tokenize("Hello, world")
        ['Hello', ',', 'Ġworld']
        """
        tokens: list[str] = []
        for part, id, _ in self.parts(text, add_prefix_space, split_special_tokens):
            if id is None:
                tokens += map(disguise, self.bpe.tokens(part))
            else:
                tokens.append(self._written(id))
        return tokens

    def _ids(
        self,
        text: str,
        add_prefix_space: bool | None = None,
        split_special_tokens: bool | None = None,
    ) -> list[int]:
        prefix = self.add_prefix_space if add_prefix_space is None else add_prefix_space
        if isinstance(text, str) and not (prefix or self._added.stand_in(text)):
            return self.bpe.encode(text, self.unk_token_id)  # most texts go this way
        parts = [
            self.bpe.encode(part, self.unk_token_id) if id is None else [id]
            for part, id, _ in self.parts(text, add_prefix_space, split_special_tokens)
        ]
        return parts[0] if len(parts) == 1 else list(chain(*parts))

    def _spans(
        self,
        text: str,
        add_prefix_space: bool | None,
        split_special_tokens: bool | None,
    ) -> list[Span]:
        """Return where the tokens of `_ids` stand.

        A token of some bytes of a character has the whole character, and a space that
        add_prefix_space puts has the character behind it.
        """
        spans: list[Span] = []
        word = 0
        for part, id, start in self.parts(text, add_prefix_space, split_special_tokens):
            if id is not None:
                spans.append(Span(start, start + len(part), word))
                word += 1
                continue
            put = part[0] != text[start]
            at = start - put
            for piece in pieces(part):
                # The place of the character that each byte is of.
                place = [i for i, c in enumerate(piece, at) for _ in c.encode("utf-8")]
                place = [max(i, start) for i in place]
                end = 0
                for token in self.bpe.tokens(piece):
                    begin, end = end, end + len(token)
                    spans.append(Span(place[begin], place[end - 1] + 1, word))
                at += len(piece)
                word += 1
        return spans

    def parts(
        self,
        text: str,
        add_prefix_space: bool | None = None,
        split_special_tokens: bool | None = None,
    ) -> Iterator[tuple[str, int | None, int]]:
        """Cut a text around the added tokens in it; yield (part, id, where it starts).

        The id is None for the text between them, before which add_prefix_space puts a
        space, unless it begins with one.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {type(text).__name__}")
        if add_prefix_space is None:
            add_prefix_space = self.add_prefix_space
        if split_special_tokens is None:
            split_special_tokens = self.split_special_tokens
        for start, stop, id in self._added.split(text, split_special_tokens):
            part = text[start:stop]
            if add_prefix_space and id is None and part[0] != " ":
                part = " " + part
            yield part, id, start

    # Ids -> text

    def decode(
        self,
        token_ids: Ids,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool = False,
    ) -> str:
        """Return the text of an id, of a list of ids, or of an array [T].

        decode(encode(text)) == text. Ids that begin or end within a character give what
        `errors` says.

        Args:
            skip_special_tokens: leave special tokens out: those that have a role, and
                all others, as transformers 5 does. (Version 4's tokenizer in Python keeps
                special added tokens that have no role.)
            clean_up_tokenization_spaces: take out spaces before punctuation, which
                changes texts that have such spaces. None is the tokenizer's setting,
                normally False.
            spaces_between_special_tokens: put spaces around added tokens that have no
                role, as transformers 4 does.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        ids = as_list(token_ids)
        if skipped := self._skipped_ids(skip_special_tokens):
            ids = [id for id in ids if id not in skipped]
        if spaces_between_special_tokens:
            text = " ".join(self._runs(ids))
        else:
            text = self.bpe.decode(ids).decode("utf-8", self.errors)
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        if clean_up_tokenization_spaces:
            text = self.clean_up_tokenization(text)
        return text

    def _runs(self, ids: list[int]) -> Iterator[str]:
        """Yield the text of ids in parts, with spaces between: see `decode`.

        As in transformers 4, a part is an added token that is not special, or a special
        one without a role whose id lies beyond the vocabulary.
        """
        with_role = set(self._roles.values())
        alone = {
            id
            for token, id in self._added.ids.items()
            if token not in self.all_special_tokens
            or (token not in with_role and id >= self.vocab_size)
        }
        run: list[int] = []
        for id in [*ids, None]:
            if id is not None and id not in alone:
                run.append(id)
                continue
            if text := self.bpe.decode(run).decode("utf-8", self.errors):
                yield text
            if id is not None:
                yield self._written(id)
            run = []

    def batch_decode(
        self,
        sequences: Iterable[Ids] | np.ndarray,
        skip_special_tokens: bool = False,
        **options: bool | None,
    ) -> list[str]:
        """Return what `decode` returns for each row of a batch.

        Raises:
            TypeError: the batch is no list and no array.
        """
        if isinstance(sequences, NO_LISTS) or not isinstance(sequences, Iterable):
            raise TypeError(
                "a batch must be a list or an array [B, T] of ids, not "
                f"{type(sequences).__name__}"
            )
        return [self.decode(row, skip_special_tokens, **options) for row in sequences]  # type: ignore[arg-type]

    def decode_stream(self, skip_special_tokens: bool = False) -> DecodeStream:
        """Return a DecodeStream, which decodes ids as they come."""
        return DecodeStream(self, skip_special_tokens)

    def convert_tokens_to_string(self, tokens: Iterable[str]) -> str:
        """Return the text of tokens as `tokenize` gives them."""
        listed = list_of_str(tokens)
        return b"".join(map(self._spelled, listed)).decode("utf-8", self.errors)

    def _spelled(self, token: str) -> bytes:
        """Return the bytes of a token; what files do not write so is its own text."""
        if token in self._added.ids:
            return token.encode("utf-8")
        try:
            return undisguise(token)
        except KeyError:
            return token.encode("utf-8")

    @staticmethod
    def clean_up_tokenization(out_string: str) -> str:
        """Take out the spaces that a word tokenizer puts before punctuation and before
        English endings: "Hello , I 'm ." -> "Hello, I'm."."""
        for mark in (" .", " ?", " !", " ,"):
            out_string = out_string.replace(mark, mark[1:])
        out_string = out_string.replace(" ' ", "'")
        for ending in (" n't", " 'm", " 's", " 've", " 're"):
            out_string = out_string.replace(ending, ending[1:])
        return out_string


class DecodeStream:
    """Ids in, text out, as it comes: never half a character.

    What `put` returns for each id, and then what `end` returns, is together what the
    tokenizer's `decode` returns for all the ids.
    """

    def __init__(self, tokenizer: TextTokenizer, skip_special_tokens: bool = False):
        self._bpe = tokenizer.bpe
        self._skipped = tokenizer._skipped_ids(skip_special_tokens)
        self._utf8 = codecs.getincrementaldecoder("utf-8")(tokenizer.errors)

    def put(self, id: int) -> str:
        """Take one id; return the text that is certain now, "" within a character.

        Raises:
            ValueError: the id is not in the vocabulary.
        """
        if id in self._skipped:
            return ""
        return self._utf8.decode(self._bpe.decode([id]))

    def end(self) -> str:
        """Return what is left: "", or what stands for an unfinished character."""
        return self._utf8.decode(b"", final=True)
