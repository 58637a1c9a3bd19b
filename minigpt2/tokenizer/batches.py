"""What happens to the ids of texts: they are cut, padded and made arrays.

EncodingOptions is what a caller can ask for, and BatchEncoding is what is returned.
Plain functions on lists of ids stand between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np

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
        add_special_tokens: begin with bos_token if the tokenizer's add_bos_token is set.
        padding: True or "longest" (to the longest row of the batch), "max_length", or
            False.
        truncation: True or "longest_first", "only_first" or "only_second" of a pair, or
            False. None is "longest_first" if max_length is given and padding is not.
        max_length: in ids, with the special ones. None is the tokenizer's
            model_max_length.
        stride: how many of the kept ids overflowing_tokens repeats.
        is_split_into_words: each text is a list of words. A space goes before each word.
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
    slice of an encoding is a dict of the slices of all its values.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"this encoding has {list(self)}, no {name!r}"
            ) from None

    def __getitem__(self, key: str | slice) -> Any:
        if isinstance(key, slice):
            return {name: value[key] for name, value in self.items()}
        return super().__getitem__(key)

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
        """Make int64 arrays of the lists, in place; return the encoding.

        Args:
            tensor_type: "np", "pt" or "tf", as for return_tensors. None changes nothing.
            prepend_batch_axis: make arrays [1, T] of the lists of one text.

        Raises:
            ValueError: rows have different lengths.
        """
        if tensor_type is not None:
            make = tensor_maker(tensor_type)
            for name, value in self.items():
                self[name] = make([value] if prepend_batch_axis else value, name)
        return self


def tensor_maker(tensor_type: str) -> Callable[[Any, str], Any]:
    """Return the function of (nested lists, their name) that makes tensors of a kind."""
    import numpy as np

    def numpy_array(value: Any, name: str) -> np.ndarray:
        try:
            return np.array(value, dtype=np.int64)
        except ValueError:
            raise ValueError(
                f"Unable to create tensor of `{name}`, whose rows have different "
                "lengths: you should probably activate truncation and/or padding with "
                "'padding=True' 'truncation=True'."
            ) from None

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
    return lambda value, name: convert(numpy_array(value, name))


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
