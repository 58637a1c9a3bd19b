"""What happens to the ids of texts: they are cut, padded and made arrays.

EncodingOptions is what a caller can ask for, and BatchEncoding is what is returned.
Plain functions on lists of ids stand between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np

    from .encodings import CharSpan, Encoding, TokenSpan

    Row = dict[str, Any]  # of one text: {"input_ids": [...], "length": 3, ...}

# {argument: {what a caller may say: what it means}}
CHOICES: dict[str, dict[Any, str | None]] = {
    "padding": {
        False: None,
        None: None,
        "do_not_pad": None,
        True: "longest",
        "longest": "longest",
        "max_length": "max_length",
    },
    "truncation": {
        False: None,
        None: None,
        "do_not_truncate": None,
        True: "longest_first",
        "longest_first": "longest_first",
        "only_first": "only_first",
        "only_second": "only_second",
    },
    "padding_side": {"right": "right", "left": "left"},
    "truncation_side": {"right": "right", "left": "left"},
}


@dataclass(frozen=True, kw_only=True)
class EncodingOptions:
    """How `tokenizer(text, ...)` encodes texts, and what it returns beside input_ids.

    Args:
        add_special_tokens: put around the text what the tokenizer's add_bos_token and
            add_eos_token say, or its tokenizer.json.
        padding: True or "longest" (to the longest row of the batch), "max_length", or
            False.
        truncation: True or "longest_first", "only_first" or "only_second" of a pair, or
            False. None is "longest_first" if max_length is given and padding is not.
        max_length: in ids, with the special ones. None is the tokenizer's
            model_max_length.
        stride: how many of the kept ids overflowing_tokens repeats.
        is_split_into_words: each text is a list of words. A space goes before each word
            that has none; an empty one has no ids.
        pad_to_multiple_of: lengthen rows further, to a multiple of this.
        padding_side: "right" or "left". None is the tokenizer's.
        return_tensors: "np" for arrays [B, T], where one text is a batch of one; "pt" or
            "tf" where torch or TensorFlow is installed; None for lists.
        return_token_type_ids: 0 for ids of the first text, 1 for those of the second.
        return_attention_mask: 1 for ids, 0 for padding. None is True.
        return_overflowing_tokens: overflowing_tokens, which are the ids that truncation
            takes off, and num_truncated_tokens, their number without the stride.
        return_special_tokens_mask: 1 for padding and for special tokens that are put
            around the text, 0 for the text's own ids.
        return_offsets_mapping: offset_mapping, the (start, stop) of each token in its
            text. What is not in the text has (0, 0).
        return_length: length, the number of ids before padding.
        add_prefix_space: in place of the tokenizer's setting.
        split_special_tokens: in place of the tokenizer's setting.
        verbose: False silences warnings.
    """

    add_special_tokens: bool = True
    padding: bool | str = False
    truncation: bool | str | None = None
    max_length: int | None = None
    stride: int = 0
    is_split_into_words: bool = False
    pad_to_multiple_of: int | None = None
    padding_side: str | None = None
    return_tensors: str | None = None
    return_token_type_ids: bool | None = None
    return_attention_mask: bool | None = None
    return_overflowing_tokens: bool = False
    return_special_tokens_mask: bool = False
    return_offsets_mapping: bool = False
    return_length: bool = False
    add_prefix_space: bool | None = None
    split_special_tokens: bool | None = None
    verbose: bool = True


def choose(name: str, given: Any) -> Any:
    """Return the choice that a caller means: choose("padding", True) is "longest"."""
    given = getattr(given, "value", given)  # of another library's enum
    try:
        return CHOICES[name][given]
    except (KeyError, TypeError):
        possible = ", ".join(map(repr, CHOICES[name]))
        raise ValueError(f"{name}={given!r} is none of {possible}") from None


class BatchEncoding(dict):
    """What a tokenizer returns: a dict whose keys are attributes too.

    `encoding["input_ids"]` is `encoding.input_ids`, and a model takes `**encoding`. A
    slice of an encoding is a dict of the slices of all its values, and `encoding[0]` is
    the Encoding of the first row: its tokens and their places in the text, of which the
    methods from `tokens` on tell.

    Args:
        data: {name: value}.
        encoding: the Encoding of each row, where a tokenizer made it, or a function that
            returns them.
        tensor_type: see convert_to_tensors.
        prepend_batch_axis: see convert_to_tensors.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encoding: Sequence[Encoding] | Callable[[], list[Encoding]] | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
    ):
        super().__init__(data or {})
        self._encodings = encoding
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, slice):
            return {name: value[key] for name, value in self.items()}
        return (
            self._row(key, "[]") if isinstance(key, int) else super().__getitem__(key)
        )

    def __missing__(self, key: object) -> Any:
        if key == "overflow_to_sample_mapping":
            raise KeyError(
                "what truncation takes off makes no rows here: overflowing_tokens holds "
                "it, and [ids[i : i + length] for i in range(0, len(ids), length - "
                "stride)] are the windows over ids"
            )
        raise KeyError(f"this encoding has {list(self)}, no {key!r}")

    @property
    def data(self) -> Self:
        """The dict itself."""
        return self

    def to(self, device: Any) -> Self:
        """Move tensors to a device. NumPy arrays and lists stay where they are."""
        for name, value in self.items():
            if hasattr(value, "to"):
                self[name] = value.to(device)
        return self

    def convert_to_tensors(
        self, tensor_type: str | None = None, prepend_batch_axis: bool = False
    ) -> Self:
        """Make arrays of the lists, in place; return the encoding.

        Their dtype follows the values: int64, float64 (of torch and TensorFlow float32)
        or bool. Arrays stay as they are.

        Args:
            tensor_type: "np", "pt" or "tf", as for return_tensors. None changes nothing.
            prepend_batch_axis: make arrays [1, T] of the lists of one text.

        Raises:
            ValueError: rows have different lengths, or hold what is no number.
        """
        if tensor_type is not None:
            make = tensor_maker(tensor_type)
            for name, value in self.items():
                self[name] = make([value] if prepend_batch_axis else value, name)
        return self

    # Tokens, words, characters. A position p alone is of row 0; (b, p) is of row b.

    is_fast = property(lambda self: self._encodings is not None)

    @property
    def encodings(self) -> Sequence[Encoding] | None:
        """The Encoding of each row; None if no tokenizer made this."""
        if callable(self._encodings):
            self._encodings = self._encodings()
        return self._encodings

    def __getstate__(self) -> dict[str, Any]:
        return {"_encodings": self.encodings}

    n_sequences = property(lambda self: self._row(0, "n_sequences").n_sequences)

    def tokens(self, batch_index: int = 0) -> list[str]:
        """Return the tokens of a row as vocabulary files write them."""
        return self._row(batch_index, "tokens").tokens

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return the number of each token's word, None for special tokens and padding."""
        return self._row(batch_index, "word_ids").word_ids

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return the number of each token's text, None for special tokens and padding."""
        return self._row(batch_index, "sequence_ids").sequence_ids

    def token_to_sequence(self, row: int, token: int | None = None) -> int | None:
        """Return the number of the text that a token is of."""
        return self._ask("token_to_sequence", row, token)

    def token_to_word(self, row: int, token: int | None = None) -> int | None:
        """Return the number of a token's word."""
        return self._ask("token_to_word", row, token)

    def token_to_chars(self, row: int, token: int | None = None) -> CharSpan | None:
        """Return the characters of a token."""
        return self._ask("token_to_chars", row, token)

    def word_to_tokens(
        self, row: int, word: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """Return the tokens of a word."""
        return self._ask("word_to_tokens", row, word, sequence_index)

    def word_to_chars(
        self, row: int, word: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """Return the characters of a word."""
        return self._ask("word_to_chars", row, word, sequence_index)

    def char_to_token(
        self, row: int, char: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the first token that has a character."""
        return self._ask("char_to_token", row, char, sequence_index)

    def char_to_word(
        self, row: int, char: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Return the number of the word that has a character."""
        return self._ask("char_to_word", row, char, sequence_index)

    def _ask(self, name: str, row: int, position: int | None, *sequence: int) -> Any:
        if position is None:
            row, position = 0, row
        return getattr(self._row(row, name), name)(position, *sequence)

    def _row(self, index: int, name: str) -> Encoding:
        if self.encodings is None:
            raise ValueError(
                f"{name} needs an encoding as the tokenizer returns it of texts; "
                "tokenizer.convert_ids_to_tokens(ids) gives the tokens of any ids"
            )
        return self.encodings[index]


def tensor_maker(tensor_type: str) -> Callable[[Any, str], Any]:
    """Return the function of (nested lists, their name) that makes tensors of a kind."""
    import numpy as np

    def numpy_array(value: Any, name: str) -> np.ndarray:
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError):
            raise ValueError(
                f"Unable to create tensor of `{name}`, whose rows have different "
                "lengths: you should probably activate truncation and/or padding with "
                "'padding=True' 'truncation=True'."
            ) from None
        if array.size == 0 and not hasattr(value, "dtype"):
            array = array.astype(np.int64)
        if array.dtype.kind not in "biuf":
            raise ValueError(
                f"Unable to create tensor of `{name}`, which holds {value!r:.100}: "
                "tensors are of numbers (int64, float or bool)"
            )
        return array

    tensor_type = getattr(tensor_type, "value", tensor_type)  # an enum's
    if tensor_type == "np":
        return numpy_array
    if tensor_type not in ("pt", "tf"):
        raise ValueError(
            f"return_tensors={tensor_type!r}: 'np', 'pt', 'tf' and None are possible"
        )
    convert: Callable[[np.ndarray], Any]
    try:
        if tensor_type == "pt":
            import torch

            convert = torch.from_numpy
        else:
            import tensorflow

            convert = tensorflow.constant
    except ImportError:
        library = {"pt": "torch", "tf": "tensorflow"}[tensor_type]
        raise ImportError(
            f"return_tensors={tensor_type!r} needs {library}, which is not installed; "
            "minigpt2's models take NumPy arrays: return_tensors='np'"
        ) from None

    def tensor(value: Any, name: str) -> Any:
        if tensor_of(value) == tensor_type:
            return value
        array = numpy_array(value, name)
        if array.dtype == np.float64 and not hasattr(value, "dtype"):
            array = array.astype(np.float32)  # what both make of Python's floats
        return convert(array)

    return tensor


def tensor_of(value: object) -> str | None:
    """Return the tensor_type of an array or a tensor, None for anything else."""
    if not hasattr(value, "dtype"):
        return None
    library = type(value).__module__.partition(".")[0]
    return {"numpy": "np", "torch": "pt", "tensorflow": "tf"}.get(library)


def cuts(
    lengths: Sequence[int], excess: int, options: EncodingOptions
) -> tuple[int, ...]:
    """Return how many ids to take off each text of a row that has `excess` too many.

    Of a pair, "longest_first" takes them off the longer text, and once both are equally
    long off one after the other.

    Args:
        lengths: [n] of one text, [n, m] of a pair.
    """
    strategy = options.truncation
    result: tuple[int, ...]
    if strategy == "only_second" and len(lengths) == 1:
        raise ValueError("truncation='only_second' needs a pair of texts")
    if len(lengths) == 1:
        result = (excess,)
    elif strategy == "longest_first":
        if options.return_overflowing_tokens:
            raise ValueError(
                "truncation='longest_first' takes ids off both texts of a pair, so it "
                "cannot return overflowing tokens: choose 'only_first' or 'only_second'"
            )
        level = min(abs(lengths[0] - lengths[1]), excess)
        half = (excess - level) // 2
        rest = excess - level - half
        longer = lengths[0] > lengths[1]
        result = (level + half, rest) if longer else (half, level + rest)
    else:
        result = (excess, 0) if strategy == "only_first" else (0, excess)
    if any(count > length for count, length in zip(result, lengths)):
        raise ValueError(
            f"truncation={strategy!r} cannot take {excess} ids off texts that have "
            f"{' and '.join(map(str, lengths))}: choose a larger max_length or another "
            "strategy"
        )
    return result


def cut(ids: list, count: int, side: str) -> list:
    """Return the ids without `count` of them at one side."""
    return ids[: len(ids) - count] if side == "right" else ids[count:]


def overflow(ids: list, count: int, stride: int, side: str) -> list:
    """Return the `count` ids that `cut` takes off, and `stride` more that it leaves."""
    count = min(len(ids), count + stride) if count else 0
    return ids[len(ids) - count :] if side == "right" else ids[:count]


def pad(row: Row, length: int, side: str, fillers: dict[str, Any]) -> Row:
    """Return one row with its lists lengthened to `length`.

    Args:
        fillers: {"input_ids": what to fill with, ...}. Other entries stay as they are.
    """
    missing = length - len(row["input_ids"])
    if missing <= 0:
        return row
    return row | {
        name: row[name] + [fill] * missing
        if side == "right"
        else [fill] * missing + row[name]
        for name, fill in fillers.items()
        if name in row
    }
