"""What becomes of the ids of texts: how they are cut, padded and made arrays.

EncodingOptions is what a caller can ask for, BatchEncoding what is returned; between
them stand plain functions on lists of ids.
"""

from dataclasses import dataclass

# {argument: {what a caller may say: what it means}}
CHOICES = {
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

    add_special_tokens: begin with bos_token if the tokenizer is set to add_bos_token.
    padding: True or "longest", to the longest row of the batch; "max_length"; False.
    truncation: True or "longest_first"; "only_first", "only_second" of a pair; False.
        Default (None): "longest_first" if max_length is given and padding is not.
    max_length: in ids, special ones included; default the tokenizer's model_max_length.
    stride: how many ids overflowing_tokens repeats of those that are kept.
    is_split_into_words: each text is a list of words; a space is put before each.
    pad_to_multiple_of: lengthen rows further, to a multiple of this.
    padding_side: "right" or "left"; default the tokenizer's.
    return_tensors: "np" for int64 arrays of shape (B, T), where one text is a batch of
        one; "pt" or "tf" where torch or TensorFlow is installed; None for lists.
    return_token_type_ids: 0 for the ids of the first text, 1 for the second's.
    return_attention_mask: 1 for ids, 0 for padding. Given by default.
    return_overflowing_tokens: overflowing_tokens, the ids that truncation took off,
        and num_truncated_tokens, how many these are without the stride.
    return_special_tokens_mask: 1 for padding and for special tokens put around the
        text, 0 for the text's own.
    return_offsets_mapping: offset_mapping, the (start, stop) of each token in its text;
        (0, 0) for what is not in the text.
    return_length: length, the number of ids before padding.
    add_prefix_space, split_special_tokens: instead of the tokenizer's setting.
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


def choose(name, given):
    """The choice that a caller means: choose("padding", True) is "longest"."""
    given = getattr(given, "value", given)  # of another library's enum
    try:
        return CHOICES[name][given]
    except (KeyError, TypeError):
        possible = ", ".join(map(repr, CHOICES[name]))
        raise ValueError(f"{name}={given!r} is none of {possible}") from None


class BatchEncoding(dict):
    """What a tokenizer returns: a dict whose keys are attributes too, so that
    `encoding["input_ids"]` is `encoding.input_ids`, and a model takes `**encoding`.

    A slice of it is a dict of the slices of all its values.
    """

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"this encoding has {list(self)}, no {name!r}"
            ) from None

    def __getitem__(self, key):
        if isinstance(key, slice):
            return {name: value[key] for name, value in self.items()}
        return super().__getitem__(key)

    @property
    def data(self):
        """The dict itself."""
        return self

    def to(self, device):
        """Move tensors to a device; NumPy arrays and lists are where they are."""
        for name, value in self.items():
            if hasattr(value, "to"):
                self[name] = value.to(device)
        return self

    def convert_to_tensors(self, tensor_type=None, prepend_batch_axis=False):
        """Make int64 arrays of the lists in place: "np", "pt" or "tf", as
        return_tensors=. ValueError where the rows have different lengths.

        prepend_batch_axis: make the shape (1, T) of the lists of one text.
        """
        if tensor_type is not None:
            make = tensor_maker(tensor_type)
            for name, value in self.items():
                self[name] = make([value] if prepend_batch_axis else value, name)
        return self


def tensor_maker(tensor_type):
    """A function of (nested lists of int, their name) for one kind of tensors."""
    import numpy as np

    def numpy_array(value, name):
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
    try:
        if tensor_type == "pt":
            from torch import from_numpy as convert
        else:
            from tensorflow import constant as convert
    except ImportError:
        library = {"pt": "torch", "tf": "tensorflow"}[tensor_type]
        raise ImportError(
            f"return_tensors={tensor_type!r} needs {library}, which is not installed; "
            "minigpt2's models take NumPy arrays: return_tensors='np'"
        ) from None
    return lambda value, name: convert(numpy_array(value, name))


def cuts(lengths, excess, options):
    """How many ids to take off each text of a row that has `excess` too many.

    lengths: [n] of one text, [n, m] of a pair. Of a pair, "longest_first" takes them
    off the longer one, and once both are equally long off one after the other.
    """
    strategy = options.truncation
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


def cut(ids, count, side):
    """ids without `count` of them at one side."""
    return ids[: len(ids) - count] if side == "right" else ids[count:]


def overflow(ids, count, stride, side):
    """The `count` ids that `cut` takes off, and `stride` more that it leaves."""
    count = min(len(ids), count + stride) if count else 0
    return ids[len(ids) - count :] if side == "right" else ids[:count]


def pad(row, length, side, fillers):
    """Lengthen the lists of one row, {"input_ids": [...], ...}, to `length`.

    fillers: {"input_ids": what to fill with, ...}; other entries stay as they are.
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
