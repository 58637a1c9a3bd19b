"""TextTokenizer: one text -> tokens or ids -> text."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from ..bpe import disguise, undisguise
from .vocabulary import Vocabulary, as_list

if TYPE_CHECKING:
    import numpy as np

    from .vocabulary import Ids


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
        text = self._with_prefix(text, add_prefix_space)
        tokens: list[str] = []
        for start, stop, id in self.split_added(text, split_special_tokens):
            if id is None:
                tokens += map(disguise, self.bpe.tokens(text[start:stop]))
            else:
                tokens.append(self._written(id))
        return tokens

    def _ids(
        self,
        text: str,
        add_prefix_space: bool | None = None,
        split_special_tokens: bool | None = None,
    ) -> list[int]:
        text = self._with_prefix(text, add_prefix_space)
        parts = [
            self.bpe.encode(text[start:stop], self.unk_token_id) if id is None else [id]
            for start, stop, id in self.split_added(text, split_special_tokens)
        ]
        return parts[0] if len(parts) == 1 else list(chain(*parts))

    def _offsets(
        self,
        text: str,
        add_prefix_space: bool | None,
        split_special_tokens: bool | None,
    ) -> list[tuple[int, int]]:
        """Return where the tokens of `_ids` stand: (start, stop), that is text[start:stop].

        A token of some bytes of a character has the whole character.
        """
        prefixed = self._with_prefix(text, add_prefix_space)
        offsets = []
        for start, stop, id in self.split_added(prefixed, split_special_tokens):
            if id is not None:
                offsets.append((start, stop))
                continue
            part = prefixed[start:stop]
            tokens = self.bpe.tokens(part)
            # The place of the character that each byte is of.
            place = [i for i, c in enumerate(part, start) for _ in c.encode("utf-8")]
            end = 0
            for token in tokens:
                begin, end = end, end + len(token)
                offsets.append((place[begin], place[end - 1] + 1))
        prefix = len(prefixed) - len(text)
        return [(max(i - prefix, 0), max(j - prefix, 0)) for i, j in offsets]

    def _with_prefix(self, text: str, add_prefix_space: bool | None) -> str:
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {type(text).__name__}")
        if add_prefix_space is None:
            add_prefix_space = self.add_prefix_space
        return " " + text if add_prefix_space else text

    def split_added(
        self, text: str, split_special_tokens: bool | None = None
    ) -> Iterator[tuple[int, int, int | None]]:
        """Cut a text around the added tokens in it; see AddedTokens.split."""
        if split_special_tokens is None:
            split_special_tokens = self.split_special_tokens
        return self._added.split(text, split_special_tokens)

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
            skip_special_tokens: leave special tokens out.
            clean_up_tokenization_spaces: take out spaces before punctuation, which
                changes texts that have such spaces. None is the tokenizer's setting,
                normally False.
            spaces_between_special_tokens: put spaces around added tokens that have no
                role, as transformers 4 does.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        ids = as_list(token_ids)
        if skip_special_tokens:
            skipped = set(self.all_special_ids)
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
        """Return what `decode` returns for each row of a batch."""
        return [self.decode(row, skip_special_tokens, **options) for row in sequences]  # type: ignore[arg-type]

    def decode_stream(self, skip_special_tokens: bool = False) -> DecodeStream:
        """Return a DecodeStream, which decodes ids as they come."""
        return DecodeStream(self, skip_special_tokens)

    def convert_tokens_to_string(self, tokens: Iterable[str]) -> str:
        """Return the text of tokens as `tokenize` gives them."""
        return b"".join(
            token.encode("utf-8") if token in self._added.ids else undisguise(token)
            for token in tokens
        ).decode("utf-8", self.errors)

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
        self._skipped = set(tokenizer.all_special_ids) if skip_special_tokens else ()
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
