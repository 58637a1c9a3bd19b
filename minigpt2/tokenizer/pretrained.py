"""PreTrainedTokenizer: pairs and batches of texts -> ids, in equal lengths if asked."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from .batches import BatchEncoding, EncodingOptions, choose, cut, cuts, overflow, pad
from .fast_bpe import FastBPE
from .text import TextTokenizer
from .vocabulary import ROLES, as_list, logger

if TYPE_CHECKING:
    from .batches import Row
    from .vocabulary import Token

NO_LIMIT = int(1e30)  # the model_max_length of a model that has none
LARGE = int(1e20)  # what counts as none


class PreTrainedTokenizer(TextTokenizer):
    """A byte-level BPE tokenizer with special tokens.

    Args:
        bpe: the byte-pair encoding of the vocabulary.
        errors: what `decode` does with bytes that are no UTF-8: "replace", "ignore" or
            "strict".
        add_prefix_space: put a space before each text, so that its first word is like
            the others.
        add_bos_token: begin each text with bos_token, unless add_special_tokens=False.
        split_special_tokens: read special tokens within a text as ordinary characters.
        additional_special_tokens: special tokens that have no role.
        added_tokens_decoder: {id: token} of added tokens whose ids are settled.
        model_max_length: how many ids the model takes.
        padding_side: "right" or "left".
        truncation_side: "right" or "left".
        clean_up_tokenization_spaces: what `decode` does unless it is told.
        name_or_path: where the tokenizer is from.
        **others: bos_token, eos_token, unk_token, sep_token, pad_token, cls_token and
            mask_token, each a token or None. Any other keyword is kept for
            `save_pretrained`.
    """

    model_input_names = ("input_ids", "attention_mask")
    pad_token_type_id = 0
    is_fast = False

    def __init__(
        self,
        bpe: FastBPE,
        *,
        errors: str = "replace",
        add_prefix_space: bool = False,
        add_bos_token: bool = False,
        split_special_tokens: bool = False,
        additional_special_tokens: Sequence[Token] = (),
        added_tokens_decoder: Mapping[int, Token] | None = None,
        model_max_length: int | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
        clean_up_tokenization_spaces: bool = False,
        name_or_path: str | os.PathLike = "",
        **others: Any,
    ):
        codecs.lookup_error(errors)  # LookupError now, not at the first bad byte
        self._warned: set[str] = set()
        roles = {role: others.pop(role, None) for role in ROLES}
        super().__init__(
            bpe, roles, additional_special_tokens or (), added_tokens_decoder or {}
        )
        self.errors = errors
        self.add_prefix_space = add_prefix_space
        self.add_bos_token = add_bos_token
        self.split_special_tokens = split_special_tokens
        max_len = others.pop("max_len", None)  # the name in pytorch-transformers
        self.model_max_length = model_max_length or max_len or NO_LIMIT
        self.padding_side = choose("padding_side", padding_side)
        self.truncation_side = choose("truncation_side", truncation_side)
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        self.name_or_path = str(name_or_path)
        self.init_kwargs = others
        if add_bos_token and self.bos_token is None:
            raise ValueError("add_bos_token needs a bos_token")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, "
            f"vocab_size={self.vocab_size}, model_max_length={self.model_max_length}, "
            f"padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, "
            f"special_tokens={self.special_tokens_map}, "
            f"added_tokens={self.added_tokens_encoder})"
        )

    # Special tokens around a text: a subclass that wants others overrides these three.

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return what a model gets of the ids of one text or two.

        If add_bos_token is set, bos_token goes before each text.
        """
        bos = [self.bos_token_id] if self.add_bos_token else []
        if token_ids_1 is not None:
            return bos + token_ids_0 + bos + token_ids_1
        return bos + token_ids_0 if bos else token_ids_0

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return 0 for each id of the first text, 1 for each of the second."""
        first = len(self.build_inputs_with_special_tokens(token_ids_0))
        both = len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))
        return [0] * first + [1] * (both - first)

    def get_special_tokens_mask(
        self,
        token_ids_0: list[int],
        token_ids_1: list[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """Return 1 for each id that is put around a text, 0 for each of a text.

        Args:
            already_has_special_tokens: return 1 for whatever is special in token_ids_0.
        """
        if already_has_special_tokens:
            special = set(self.all_special_ids)
            return [int(id in special) for id in token_ids_0]
        bos = [1] * self.add_bos_token
        mask = bos + [0] * len(token_ids_0)
        return mask if token_ids_1 is None else mask + bos + [0] * len(token_ids_1)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return how many ids `build_inputs_with_special_tokens` adds."""
        return len(self.build_inputs_with_special_tokens([], [] if pair else None))

    @property
    def max_len_single_sentence(self) -> int:
        """How many ids of one text the model takes."""
        return self.model_max_length - self.num_special_tokens_to_add()

    @property
    def max_len_sentences_pair(self) -> int:
        """How many ids of a pair of texts the model takes."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    # Pairs and batches -> ids

    def encode(
        self,
        text: str | Sequence[str] | Sequence[int],
        add_special_tokens: Any = True,
        max_length: int | None = None,
        stride: int = 0,
        truncation_strategy: str = "longest_first",
        *,
        text_pair: str | Sequence[str] | Sequence[int] | None = None,
        truncation: bool | str | None = None,
        **options: Any,
    ) -> Any:
        """Return the ids of a text: a list, or with return_tensors="np" an array [1, T].

        Args:
            add_special_tokens: as in EncodingOptions. A text here is text_pair, which is
                the second argument in transformers.
            max_length: cut the ids to this many by truncation_strategy, unless
                `truncation` says otherwise.
            text_pair: a second text, whose ids follow.
            **options: see EncodingOptions.
        """
        if not isinstance(add_special_tokens, bool):  # upstream's second one
            text_pair, add_special_tokens = add_special_tokens, True
        said = (text_pair, max_length, truncation)
        if isinstance(text, str) and not options and said == (None, None, None):
            return self._encode_text(text, add_special_tokens)
        if truncation is None and max_length is not None:
            truncation = truncation_strategy
        return self.encode_plus(
            text,
            text_pair,
            add_special_tokens=add_special_tokens,
            max_length=max_length,
            stride=stride,
            truncation=truncation,
            **options | {"return_attention_mask": False},
        )["input_ids"]

    def _encode_text(self, text: str, add_special_tokens: bool) -> list[int]:
        """Return what `encode` returns of one text with no options."""
        ids = self._ids(text)
        if add_special_tokens:
            ids = self.build_inputs_with_special_tokens(ids)
        self._warn_if_long(len(ids))
        return ids

    def __call__(
        self, text: Any, text_pair: Any = None, **options: Any
    ) -> BatchEncoding:
        """Encode a text (a str), a batch of texts (a list), or pairs of texts.

        Args:
            **options: see EncodingOptions.

        Returns:
            A BatchEncoding of input_ids and attention_mask, and of what else is asked
            for: lists of int for one text, lists of such lists for a batch, arrays [B, T]
            with return_tensors="np".

        >>> tokenizer = GPT2Tokenizer.from_pretrained("gpt2", pad_token="<|endoftext|>")
        >>> tokenizer(["Hello world", "Hi"], padding=True)["input_ids"]
        [[15496, 995], [17250, 50256]]
        """
        text, text_pair = _as_lists(text), _as_lists(text_pair)
        if not all(map(_is_text, [text] if text_pair is None else [text, text_pair])):
            raise ValueError(
                "text must be a str, a list of str (a batch, or the words of one text "
                "with is_split_into_words=True) or a list of lists of words"
            )
        words = options.get("is_split_into_words", False)
        if isinstance(text, str) or (words and not _is_nested(text)):
            return self.encode_plus(text, text_pair, **options)
        if text_pair is None:
            return self.batch_encode_plus(text, **options)
        if not isinstance(text_pair, list) or len(text) != len(text_pair):
            raise ValueError(
                f"text is a batch of {len(text)}: text_pair must be a list of as many"
            )
        return self.batch_encode_plus(list(zip(text, text_pair)), **options)

    def encode_plus(
        self, text: Any, text_pair: Any = None, **options: Any
    ) -> BatchEncoding:
        """Encode one text or pair.

        Args:
            text: a str, a list of tokens, a list of words (with is_split_into_words=True)
                or a list of ids.
            text_pair: likewise.
            **options: see EncodingOptions.
        """
        return self._encode_rows([(text, text_pair)], False, options)

    def batch_encode_plus(
        self, batch_text_or_text_pairs: Iterable[Any], **options: Any
    ) -> BatchEncoding:
        """Encode a list of texts or of pairs (text, text_pair).

        Args:
            batch_text_or_text_pairs: each text is as `encode_plus` takes it.
            **options: see EncodingOptions.
        """
        words = options.get("is_split_into_words", False)
        rows = []
        for row in batch_text_or_text_pairs:
            ids = not isinstance(row, str) and row and isinstance(row[0], int)
            if isinstance(row, str) or ids or (words and not _is_nested(row)):
                rows.append((row, None))
            elif len(row) == 2:
                rows.append(tuple(row))
            else:
                raise ValueError(
                    f"a row must be a text or a pair of texts, not {row!r}"
                )
        return self._encode_rows(rows, True, options)

    def prepare_for_model(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        prepend_batch_axis: bool = False,
        **options: Any,
    ) -> BatchEncoding:
        """Return what `encode_plus` returns of ids.

        Args:
            prepend_batch_axis: make arrays [1, T], not [T].
            **options: see EncodingOptions.
        """
        encoding = self.encode_plus(ids, pair_ids, **options)
        if options.get("return_tensors") is None or prepend_batch_axis:
            return encoding
        return BatchEncoding({name: value[0] for name, value in encoding.items()})

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        **options: Any,
    ) -> BatchEncoding:
        """Pad what is encoded already.

        Args:
            encoded_inputs: a BatchEncoding (of one text or more), a dict like it, or a
                list of such dicts of one text each.
            **options: pad_to_multiple_of, padding_side, return_attention_mask,
                return_tensors and verbose; see EncodingOptions.
        """
        if isinstance(encoded_inputs, list | tuple):
            names = encoded_inputs[0] if encoded_inputs else ()
            given = {name: [one[name] for one in encoded_inputs] for name in names}
        else:
            given = dict(encoded_inputs)  # type: ignore[arg-type]
        if "input_ids" not in given:
            raise ValueError(
                "You should supply an encoding or a list of encodings that includes "
                f"input_ids, but you provided {list(given)}"
            )
        columns = {name: _as_lists(value) for name, value in given.items()}
        batched = _is_nested(columns["input_ids"])
        if not batched:
            columns = {name: [value] for name, value in columns.items()}
        rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
        how = self._settled(
            EncodingOptions(
                padding=padding, truncation=False, max_length=max_length, **options
            )
        )
        if how.return_attention_mask:
            rows = [{"attention_mask": [1] * len(r["input_ids"])} | r for r in rows]
        return self._batch(rows, batched, how)

    def _encode_rows(
        self, rows: list[tuple[Any, Any]], batched: bool, options: dict[str, Any]
    ) -> BatchEncoding:
        """Encode rows of (text, text_pair or None). One text is a batch of one."""
        how = self._settled(EncodingOptions(**options))
        return self._batch([self._encode_row(*r, how) for r in rows], batched, how)

    def _settled(self, options: EncodingOptions) -> EncodingOptions:
        """Return the options, with what they leave open filled in."""
        padding, truncation, max_length = self._lengths(options)
        multiple = options.pad_to_multiple_of
        if padding and truncation and multiple and max_length % multiple:
            raise ValueError(
                f"rows cannot be truncated to max_length {max_length} and padded to a "
                f"multiple of {multiple}: {max_length} is none"
            )
        side = options.padding_side or self.padding_side
        token_types, mask = options.return_token_type_ids, options.return_attention_mask
        if token_types is None:
            token_types = "token_type_ids" in self.model_input_names
        if mask is None:
            mask = "attention_mask" in self.model_input_names
        return replace(
            options,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            padding_side=choose("padding_side", side),
            return_token_type_ids=token_types,
            return_attention_mask=mask,
        )

    def _lengths(self, options: EncodingOptions) -> tuple[Any, Any, Any]:
        """Return what is done about lengths: (padding, truncation, max_length)."""
        padding = choose("padding", options.padding)
        truncation, max_length = options.truncation, options.max_length
        if truncation is None and max_length is not None and padding is None:
            truncation = True
            self._warn(
                options.verbose,
                "Truncation was not explicitly activated but `max_length` is provided: "
                "defaulting to truncation='longest_first'.",
            )
        truncation = choose("truncation", truncation)
        if max_length is not None and padding == "longest" and truncation is None:
            self._warn(
                options.verbose,
                "`max_length` is ignored when `padding`=`True` and there is no "
                "truncation. To pad to it, use padding='max_length'.",
            )
        if max_length is None and (truncation or padding == "max_length"):
            max_length = self.model_max_length
            if max_length > LARGE:
                self._warn(
                    options.verbose,
                    "Asking to pad or truncate to max_length, but no maximum length is "
                    "provided and the model has none: doing neither.",
                )
                return "longest" if padding == "longest" else None, None, None
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1, not {max_length}")
        return padding, truncation, max_length

    def _warn_if_long(self, length: int, verbose: bool = True) -> None:
        if length > self.model_max_length:
            self._warn(
                verbose,
                "Token indices sequence length is longer than the specified maximum "
                "sequence length for this model (%d > %d): the model will refuse it.",
                *(length, self.model_max_length),
            )

    def _warn(self, verbose: bool, message: str, *values: object) -> None:
        """Log a warning, once a tokenizer."""
        if verbose and message not in self._warned:
            self._warned.add(message)
            logger.warning(message, *values)

    def _encode_row(self, first: Any, second: Any, options: EncodingOptions) -> Row:
        """Return the row of one text or pair, not padded yet."""
        texts = [first] if second is None else [first, second]
        ids = [self._ids_of(text, options) for text in texts]
        offsets: list[list] = [[] for _ in texts]
        if options.return_offsets_mapping:
            offsets = [self._offsets_of(text, options) for text in texts]
        length = sum(map(len, ids))
        if options.add_special_tokens:
            length += self.num_special_tokens_to_add(pair=len(texts) == 2)
        overflowing: list[int] = []
        excess = 0
        if options.truncation and options.max_length is not None:
            excess = max(length - options.max_length, 0)
            side = self.truncation_side
            for n, count in enumerate(cuts(list(map(len, ids)), excess, options)):
                overflowing += overflow(ids[n], count, options.stride, side)
                ids[n] = cut(ids[n], count, side)
                offsets[n] = cut(offsets[n], count, side)
        elif options.max_length is None:
            self._warn_if_long(length, options.verbose)
        row = self._columns(ids, offsets, options)
        if options.return_overflowing_tokens:
            row |= {"overflowing_tokens": overflowing, "num_truncated_tokens": excess}
        return row

    def _columns(
        self, ids: list[list[int]], offsets: list[list], options: EncodingOptions
    ) -> Row:
        """Return the row of one text or pair, given the ids and offsets of each."""
        build: Any = _as_they_are
        types: Any = _numbers
        mask: Any = _zeros
        if options.add_special_tokens:
            build = self.build_inputs_with_special_tokens
            types = self.create_token_type_ids_from_sequences
            mask = self.get_special_tokens_mask
        row = {"input_ids": build(*ids)}
        if options.return_token_type_ids:
            row["token_type_ids"] = types(*ids)
        if options.return_special_tokens_mask:
            row["special_tokens_mask"] = mask(*ids)
        if options.return_attention_mask:
            row["attention_mask"] = [1] * len(row["input_ids"])
        if options.return_offsets_mapping:
            own = chain(*offsets)
            row["offset_mapping"] = [(0, 0) if put else next(own) for put in mask(*ids)]
        if options.return_length:
            row["length"] = len(row["input_ids"])
        return row

    def _ids_of(self, text: Any, options: EncodingOptions) -> list[int]:
        """Return the ids of a text as encode_plus takes it."""
        how = options.add_prefix_space, options.split_special_tokens
        if isinstance(text, str):
            return self._ids(text, *how)
        if options.is_split_into_words:
            return [id for word in text for id in self._ids(word, True, how[1])]
        if all(isinstance(item, str) for item in text):
            return self.convert_tokens_to_ids(text)
        return as_list(text)

    def _offsets_of(self, text: Any, options: EncodingOptions) -> list:
        """Return the offsets of a text as encode_plus takes it, in each word by itself."""
        how = options.add_prefix_space, options.split_special_tokens
        if isinstance(text, str):
            return self._offsets(text, *how)
        if options.is_split_into_words:
            return [span for word in text for span in self._offsets(word, True, how[1])]
        raise ValueError("return_offsets_mapping needs texts, not tokens or ids")

    def _batch(
        self, rows: list[Row], batched: bool, options: EncodingOptions
    ) -> BatchEncoding:
        """Make one BatchEncoding of rows, padded if asked for."""
        if options.padding and rows:
            rows = self._padded(rows, options)
        if not batched and options.return_tensors is None:
            return BatchEncoding(rows[0])
        names = list(rows[0]) if rows else ["input_ids", "attention_mask"]
        batch = BatchEncoding({name: [row[name] for row in rows] for name in names})
        return batch.convert_to_tensors(options.return_tensors)

    def _padded(self, rows: list[Row], options: EncodingOptions) -> list[Row]:
        lengths = [len(row["input_ids"]) for row in rows]
        length = max(lengths)
        if options.max_length is not None and options.padding == "max_length":
            length = options.max_length
        multiple = options.pad_to_multiple_of or 1
        length = -(-length // multiple) * multiple
        if min(lengths) < length and self.pad_token_id is None:
            raise ValueError(
                "Asking to pad but the tokenizer does not have a padding token. Please "
                "select a token to use as `pad_token`, e.g. `tokenizer.pad_token = "
                "tokenizer.eos_token`, or add a new one with "
                "`tokenizer.add_special_tokens({'pad_token': '[PAD]'})`."
            )
        fillers = {
            "input_ids": self.pad_token_id,
            "attention_mask": 0,
            "token_type_ids": self.pad_token_type_id,
            "special_tokens_mask": 1,
            "offset_mapping": (0, 0),
        }
        assert options.padding_side  # _settled has filled it in
        return [pad(row, length, options.padding_side, fillers) for row in rows]


def _as_they_are(*ids: list[int]) -> list[int]:
    return list(chain(*ids))


def _numbers(*ids: list[int]) -> list[int]:
    return [number for number, part in enumerate(ids) for _ in part]


def _zeros(*ids: list[int]) -> list[int]:
    return [0 for _ in chain(*ids)]


def _as_lists(value: Any) -> Any:
    """Return arrays, tensors and tuples as lists."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, tuple) else value


def _is_nested(value: Sequence) -> bool:
    """Say whether a list is of lists: a batch of rows."""
    return len(value) > 0 and isinstance(value[0], list | tuple)


def _is_text(value: Any) -> bool:
    """Say whether it is a str, a list of str, or a list of lists of str or of words."""
    if not isinstance(value, list):
        return isinstance(value, str)
    rows = [row if isinstance(row, list | tuple) else [row] for row in value]
    return all(isinstance(item, str | list | tuple) for row in rows for item in row)
