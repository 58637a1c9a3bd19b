"""PreTrainedTokenizer: pairs and batches of texts -> ids, in equal lengths if asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .arguments import (
    ONE_TEXT,
    as_lists,
    check_flags,
    check_numbers,
    columns_of,
    decodes,
    is_nested,
    is_texts,
    named,
    names_a_role,
    newer,
)
from .batches import (
    BatchEncoding,
    EncodingOptions,
    choose,
    cut,
    cuts,
    overflow,
    pad,
    tensor_of,
)
from .encodings import Encoding, Origin, Place
from .fast_bpe import FastBPE
from .templates import NOTHING, Template, around
from .text import Span, TextTokenizer
from .vocabulary import ROLES, logger, whole_number

if TYPE_CHECKING:
    import numpy as np

    from .batches import Row
    from .vocabulary import Token

    Builder = Callable[..., list[int]]  # of the ids of one text or two

NO_LIMIT = int(1e30)  # the model_max_length of a model that has none
LARGE = int(1e20)  # what counts as none


class PreTrainedTokenizer(TextTokenizer):
    """A byte-level BPE tokenizer with special tokens.

    Args:
        bpe: the byte-pair encoding of the vocabulary.
        errors: what `decode` does with bytes that are no UTF-8: "replace", "ignore" or
            "strict".
        add_prefix_space: put a space before each part of a text between added tokens,
            unless it begins with one, so that its first word is like the others.
        add_bos_token: begin each text with bos_token, unless add_special_tokens=False.
        add_eos_token: end each text with eos_token, likewise.
        post_processor: what a tokenizer.json puts around texts instead.
        split_special_tokens: read special tokens within a text as ordinary characters.
        additional_special_tokens: special tokens that have no role.
        extra_special_tokens: the same, or {role: token} of new roles, such as image_token.
        added_tokens_decoder: {id: token} of added tokens whose ids are settled.
        model_max_length: how many ids the model takes.
        padding_side: "right" or "left".
        truncation_side: "right" or "left".
        clean_up_tokenization_spaces: what `decode` does unless it is told.
        name_or_path: where the tokenizer is from.
        **others: bos_token, eos_token, unk_token, sep_token, pad_token, cls_token and
            mask_token, each a token or None; a token under another name that ends in
            _token, such as image_token, has that role. Any other keyword is kept for
            `save_pretrained`, but for those that name a method: an AttributeError, as in
            transformers.
    """

    model_input_names = ("input_ids", "attention_mask")
    pad_token_type_id = 0
    is_fast = True  # as in transformers: an encoding knows offsets and words

    def __init__(
        self,
        bpe: FastBPE,
        *,
        errors: str = "replace",
        add_prefix_space: bool = False,
        add_bos_token: bool = False,
        add_eos_token: bool = False,
        post_processor: Template | None = None,
        split_special_tokens: bool = False,
        additional_special_tokens: Sequence[Token] = (),
        extra_special_tokens: Sequence[Token] | Mapping[str, Token] = (),
        added_tokens_decoder: Mapping[int, Token] | None = None,
        model_max_length: int | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
        clean_up_tokenization_spaces: bool = False,
        name_or_path: str | os.PathLike = "",
        **others: Any,
    ):
        if not decodes(errors):  # now, not at the first bad byte
            raise LookupError(f"errors={errors!r:.100} is no way to decode bytes")
        check_flags(
            add_prefix_space=add_prefix_space,
            add_bos_token=add_bos_token,
            add_eos_token=add_eos_token,
            split_special_tokens=split_special_tokens,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
        )
        self._warned: set[str] = set()
        roles = {role: others.pop(role, None) for role in ROLES}
        if isinstance(extra_special_tokens, Mapping):
            for name, token in extra_special_tokens.items():
                if not names_a_role(name, token):
                    raise ValueError(
                        f"extra_special_tokens: {name!r:.50} must be a name that ends in "
                        f"_token, and {token!r:.50} a token"
                    )
                roles[name] = token
            extra_special_tokens = ()
        for name in list(others):
            if callable(getattr(type(self), name, None)):
                raise AttributeError(
                    f"{name} is a method of {type(self).__name__}, so it can be no "
                    "setting of one; an option of encoding goes into the call"
                )
            if names_a_role(name, others[name]):
                roles[name] = others.pop(name)
        more: list[Token] = []
        for listed in (additional_special_tokens or (), extra_special_tokens or ()):
            if not isinstance(listed, list | tuple):
                raise ValueError(f"special tokens are no list, but {listed!r:.100}")
            more += listed
        if not isinstance(added_tokens_decoder or {}, Mapping):
            raise ValueError(
                "added_tokens_decoder is no {id: token}, but "
                f"{added_tokens_decoder!r:.100}"
            )
        super().__init__(bpe, roles, more, added_tokens_decoder or {})
        self.errors = errors
        self.add_prefix_space = add_prefix_space
        self.add_bos_token = bool(add_bos_token)
        self.add_eos_token = bool(add_eos_token)
        self.post_processor = post_processor
        self.split_special_tokens = split_special_tokens
        max_len = others.pop("max_len", None)  # the name in pytorch-transformers
        self.model_max_length = model_max_length or max_len or NO_LIMIT
        if not (
            isinstance(self.model_max_length, int | float) and self.model_max_length > 0
        ):
            raise ValueError(
                "model_max_length must be a number above 0, not "
                f"{self.model_max_length!r:.100}"
            )
        self.padding_side = choose("padding_side", padding_side)
        self.truncation_side = choose("truncation_side", truncation_side)
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        self.name_or_path = str(name_or_path)
        self.init_kwargs = others
        if add_bos_token and self.bos_token is None:
            raise ValueError("add_bos_token needs a bos_token")
        if add_eos_token and self.eos_token is None:
            raise ValueError("add_eos_token needs an eos_token")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("add_bos_token", "add_eos_token"):  # what a file says goes then
            self.post_processor = None

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, "
            f"vocab_size={self.vocab_size}, model_max_length={self.model_max_length}, "
            f"padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, "
            f"special_tokens={self.special_tokens_map}, "
            f"added_tokens={self.added_tokens_encoder})"
        )

    # Special tokens around a text. A subclass that wants others overrides
    # build_inputs_with_special_tokens, and what it puts anywhere but behind the texts
    # also get_special_tokens_mask and create_token_type_ids_from_sequences.

    def template(self) -> Template:
        """Return what is put around the ids of one text or two."""
        if self.post_processor is not None:
            return self.post_processor
        if not (self.add_bos_token or self.add_eos_token):
            return NOTHING
        before = [self.bos_token_id] if self.add_bos_token else []
        after = [self.eos_token_id] if self.add_eos_token else []
        return around(before, after)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return what a model gets of the ids of one text or two.

        By add_bos_token and add_eos_token, bos_token goes before each text and eos_token
        behind it.
        """
        if token_ids_1 is not None:
            return self.template().ids(token_ids_0, token_ids_1)
        template = self.template()
        return token_ids_0 if template is NOTHING else template.ids(token_ids_0)

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return 0 for each id of the first text, 1 for each of the second."""
        texts = [token_ids_0] if token_ids_1 is None else [token_ids_0, token_ids_1]
        types = self.template().types(*texts)
        whole = len(self.build_inputs_with_special_tokens(*texts))
        if len(types) == whole:
            return types
        first = len(self.build_inputs_with_special_tokens(token_ids_0))
        return [0] * first + [1] * (whole - first)  # a subclass puts something else

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
        texts = [token_ids_0] if token_ids_1 is None else [token_ids_0, token_ids_1]
        mask = self.template().mask(*texts)
        whole = len(self.build_inputs_with_special_tokens(*texts))
        return mask + [1] * (whole - len(mask))  # what a subclass puts behind

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return how many ids `build_inputs_with_special_tokens` adds."""
        return len(self.build_inputs_with_special_tokens([], [] if pair else None))

    @property
    def max_len(self) -> int:
        """The name of model_max_length in pytorch-transformers."""
        return self.model_max_length

    @max_len.setter
    def max_len(self, length: int) -> None:
        self.model_max_length = length

    @property
    def max_len_single_sentence(self) -> int:
        """How many ids of one text the model takes."""
        return self.model_max_length - self.num_special_tokens_to_add()

    @property
    def max_len_sentences_pair(self) -> int:
        """How many ids of a pair of texts the model takes."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    @property
    def chat_template(self) -> str | None:
        """The chat template that a folder came with: it is saved, and not applied."""
        return self.init_kwargs.get("chat_template")

    @chat_template.setter
    def chat_template(self, template: str | None) -> None:
        self.init_kwargs["chat_template"] = template

    def apply_chat_template(self, *arguments: Any, **options: Any) -> Any:
        """Raise ValueError: GPT-2 has no chat template."""
        raise ValueError(
            "GPT-2 has no chat template: it was trained to go on with a text, not to "
            'answer. Write the turns as one text, such as "User: Hi\\nBot:", and encode '
            "that (a folder's own chat_template is kept and saved, not applied)"
        )

    # Pairs and batches -> ids

    def encode(
        self,
        text: str | Sequence[str] | Sequence[int] | np.ndarray,
        second: Any = None,
        max_length: int | None = None,
        stride: int = 0,
        truncation_strategy: str = "longest_first",
        *,
        add_special_tokens: bool | None = None,
        text_pair: str | Sequence[str] | Sequence[int] | None = None,
        truncation: bool | str | None = None,
        **options: Any,
    ) -> Any:
        """Return the ids of a text: a list, or with return_tensors="np" an array [1, T].

        Args:
            second: add_special_tokens, as documented; what is no bool is text_pair, the
                second argument in transformers.
            max_length: cut the ids to this many by truncation_strategy, unless
                `truncation` says otherwise.
            add_special_tokens: as in EncodingOptions; by default True.
            text_pair: a second text, whose ids follow.
            **options: see EncodingOptions.
        """
        if isinstance(max_length, bool):  # the third argument in transformers
            add_special_tokens, max_length = max_length, None
        if second is not None:
            if isinstance(second, bool) and add_special_tokens is None:
                add_special_tokens = second
            elif text_pair is None and not isinstance(second, bool):
                text_pair = second
            else:
                raise TypeError("encode's second argument is given twice")
        if add_special_tokens is None:
            add_special_tokens = True
        is_plain = text_pair is None and max_length is None and truncation is None
        if is_plain and isinstance(text, str) and not options:
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
        text, text_pair = as_lists(text), as_lists(text_pair)
        if not all(map(is_texts, [text] if text_pair is None else [text, text_pair])):
            raise ValueError(
                "text must be a str, a list of str (a batch, or the words of one text "
                "with is_split_into_words=True) or a list of lists of words"
            )
        words = options.get("is_split_into_words", False)
        if isinstance(text, str) or (words and not is_nested(text)):
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
            text: a str, a list of tokens, a list of words (with is_split_into_words=True),
                or a list or an array [T] of ids.
            text_pair: likewise.
            **options: see EncodingOptions.
        """
        return self._encode_rows([(text, text_pair)], False, options)

    def batch_encode_plus(
        self, batch_text_or_text_pairs: Sequence[Any] | np.ndarray, **options: Any
    ) -> BatchEncoding:
        """Encode a list of texts or of pairs (text, text_pair).

        Args:
            batch_text_or_text_pairs: each text is as `encode_plus` takes it.
            **options: see EncodingOptions.
        """
        batch = as_lists(batch_text_or_text_pairs)
        if not isinstance(batch, list):
            raise ValueError(f"a batch must be a list of texts, not {named(batch)}")
        words = options.get("is_split_into_words", False)
        rows: list[tuple[Any, Any]] = []
        for row in map(as_lists, batch):
            if isinstance(row, str):
                rows.append((row, None))
                continue
            is_list = isinstance(row, list)
            is_ids = is_list and (not row or whole_number(row[0]) is not None)
            if is_ids or (words and is_list and not is_nested(row)):
                rows.append((row, None))
            elif is_list and len(row) == 2 and None not in row:
                rows.append((row[0], row[1]))
            else:
                raise ValueError(
                    f"a row must be a text or a pair of texts, not {row!r:.200}"
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
        given = columns_of(encoded_inputs)
        if "input_ids" not in given:
            raise ValueError(
                "You should supply an encoding or a list of encodings that includes "
                f"input_ids, but you provided {list(given)}"
            )
        ids = given["input_ids"]
        kinds = map(tensor_of, [ids, *ids] if isinstance(ids, list | tuple) else [ids])
        kind = options.pop("return_tensors", None) or next(filter(None, kinds), None)
        columns = {name: as_lists(value) for name, value in given.items()}
        batched = is_nested(columns["input_ids"])
        if not batched:
            columns = {name: [value] for name, value in columns.items()}
        size = len(columns["input_ids"])
        for name, value in columns.items():
            if not isinstance(value, list) or len(value) != size:
                raise ValueError(
                    f"input_ids has {size} rows, and {name} has not as many"
                )
        rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
        how = self._settled(
            EncodingOptions(
                padding=padding, truncation=False, max_length=max_length, **options
            )
        )
        if how.return_attention_mask:
            rows = [{"attention_mask": [1] * len(r["input_ids"])} | r for r in rows]
        padded = self._batch(rows, batched, how)
        return padded.convert_to_tensors(kind)

    def _encode_rows(
        self, rows: list[tuple[Any, Any]], batched: bool, options: dict[str, Any]
    ) -> BatchEncoding:
        """Encode rows of (text, text_pair or None). One text is a batch of one."""
        how = self._settled(EncodingOptions(**newer(options)))
        encoded = [self._encode_row(*row, how) for row in rows]
        origins = [origin for _, origin in encoded]
        return self._batch([row for row, _ in encoded], batched, how, origins)

    def _settled(self, options: EncodingOptions) -> EncodingOptions:
        """Return the options, with what they leave open filled in."""
        check_numbers(
            max_length=options.max_length,
            stride=options.stride,
            pad_to_multiple_of=options.pad_to_multiple_of,
        )
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
            stride=options.stride or 0,
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

    def _encode_row(
        self, first: Any, second: Any, options: EncodingOptions
    ) -> tuple[Row, Origin]:
        """Return the row of one text or pair, not padded yet, and what it is of."""
        texts = [first] if second is None else [first, second]
        ids = [self._ids_of(text, options) for text in texts]
        length = sum(map(len, ids))
        if options.add_special_tokens:
            length += self.num_special_tokens_to_add(pair=len(texts) == 2)
        overflowing: list[int] = []
        counts: Sequence[int] = [0] * len(texts)
        excess, side = 0, self.truncation_side
        if options.truncation and options.max_length is not None:
            excess = max(length - options.max_length, 0)
            counts = cuts(list(map(len, ids)), excess, options)
            for n, count in enumerate(counts):
                overflowing += overflow(ids[n], count, options.stride, side)
                ids[n] = cut(ids[n], count, side)
        elif options.max_length is None:
            self._warn_if_long(length, options.verbose)

        build, types, mask = self._builders(options)
        origin = Origin(texts, ids, counts, side)
        row: Row = {"input_ids": build(*ids)}
        if options.return_token_type_ids:
            row["token_type_ids"] = types(*ids)
        if options.return_special_tokens_mask:
            row["special_tokens_mask"] = mask(*ids)
        if options.return_attention_mask:
            row["attention_mask"] = [1] * len(row["input_ids"])
        if options.return_offsets_mapping:
            spans = (
                (place.start, place.stop) for place in self._places(origin, options)
            )
            row["offset_mapping"] = [
                (0, 0) if put else next(spans) for put in mask(*ids)
            ]
        if options.return_length:
            row["length"] = len(row["input_ids"])
        if options.return_overflowing_tokens:
            row |= {"overflowing_tokens": overflowing, "num_truncated_tokens": excess}
        return row, origin

    def _builders(self, options: EncodingOptions) -> tuple[Builder, Builder, Builder]:
        """Return the functions of texts' ids that give ids, token types, and a mask of
        special tokens."""
        if options.add_special_tokens:
            return (
                self.build_inputs_with_special_tokens,
                self.create_token_type_ids_from_sequences,
                self.get_special_tokens_mask,
            )
        bare = self.template().bare()
        return bare.ids, bare.types, bare.mask

    def _ids_of(self, text: Any, options: EncodingOptions) -> list[int]:
        """Return the ids of a text as encode_plus takes it."""
        how = options.add_prefix_space, options.split_special_tokens
        if isinstance(text, str):
            return self._ids(text, *how)
        text = as_lists(text)
        if isinstance(text, list) and all(isinstance(item, str) for item in text):
            if options.is_split_into_words:
                return [id for word in text for id in self._ids(word, True, how[1])]
            return self._ids_of_tokens(text)
        if not isinstance(text, list) or options.is_split_into_words:
            raise ValueError(f"{ONE_TEXT}, not {named(text)}")
        for item in text:
            id = whole_number(item)
            if id is None:
                raise ValueError(f"{ONE_TEXT}, not a list with {item!r:.50}")
            if id < 0:
                raise ValueError(f"id {id}: ids are whole numbers from 0 on")
        return list(map(int, text))

    def _ids_of_tokens(self, tokens: list[str]) -> list[int]:
        ids = self.convert_tokens_to_ids(tokens)
        for token, id in zip(tokens, ids):
            if id is None:
                raise ValueError(
                    f"{token!r:.100} is no token of the vocabulary, and there is no "
                    "unk_token to stand for it"
                )
        return ids

    def _spans_of(self, text: Any, options: EncodingOptions) -> list[Span]:
        """Return the places of a text's tokens, in each word by itself."""
        how = options.add_prefix_space, options.split_special_tokens
        if isinstance(text, str):
            return self._spans(text, *how)
        if options.is_split_into_words:
            return [
                Span(span.start, span.stop, n)
                for n, word in enumerate(text)
                for span in self._spans(word, True, how[1])
            ]
        raise ValueError("return_offsets_mapping, word_ids and their like need texts")

    def _batch(
        self,
        rows: list[Row],
        batched: bool,
        options: EncodingOptions,
        origins: Sequence[Origin] | None = None,
    ) -> BatchEncoding:
        """Make one BatchEncoding of rows, padded if asked for.

        Args:
            origins: what each row is of, where that is known.
        """
        lengths = [len(row["input_ids"]) for row in rows]
        if options.padding and rows:
            rows = self._padded(rows, options)
        encodings = None
        if origins is not None:
            encodings = partial(self._encodings, rows, lengths, origins, options)
        if not batched and options.return_tensors is None:
            return BatchEncoding(rows[0], encodings)
        names = list(rows[0]) if rows else ["input_ids", "attention_mask"]
        batch = {name: [row[name] for row in rows] for name in names}
        return BatchEncoding(batch, encodings, options.return_tensors)

    def _encodings(
        self,
        rows: list[Row],
        lengths: list[int],
        origins: Sequence[Origin],
        options: EncodingOptions,
    ) -> list[Encoding]:
        """Return the Encoding of each row.

        Args:
            lengths: of the rows before padding.
        """
        mask = self._builders(options)[2]
        encodings = []
        for row, length, origin in zip(rows, lengths, origins):
            of_texts = (n for n, ids in enumerate(origin.ids) for _ in ids)
            own = [None if put else next(of_texts) for put in mask(*origin.ids)]
            padding: list[int | None] = [None] * (len(row["input_ids"]) - length)
            encodings.append(
                Encoding(
                    row,
                    padding + own if options.padding_side == "left" else own + padding,
                    partial(self._tokens_of, row["input_ids"]),
                    partial(self._places, origin, options),
                )
            )
        return encodings

    def _tokens_of(self, ids: list[int]) -> list[str]:
        return self.convert_ids_to_tokens(ids)

    def _places(self, origin: Origin, options: EncodingOptions) -> list[Place]:
        """Return the places of a row's ids that are of a text, in order."""
        return [
            Place(n, *span)
            for n, text in enumerate(origin.texts)
            for span in cut(
                self._spans_of(text, options), origin.counts[n], origin.side
            )
        ]

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
