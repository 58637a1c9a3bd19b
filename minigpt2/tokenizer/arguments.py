"""What callers give: texts and ids in every form that is taken, options by older names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .vocabulary import whole_number

ONE_TEXT = (
    "text must be a str, a list of str (tokens, or words with is_split_into_words=True), "
    "or a list or an array [T] of ids (int)"
)


def names_a_role(name: str, token: object) -> bool:
    """Say whether a keyword such as image_token="<image>" gives a token a role."""
    if name in ("add_bos_token", "add_eos_token") or not name.endswith("_token"):
        return False
    is_named = isinstance(token, Mapping) and "content" in token
    return name.isidentifier() and (
        is_named
        or (isinstance(token, str) and token != "")
        or hasattr(token, "content")
    )


def decodes(errors: Any) -> bool:
    """Say whether this is the name of a way to decode bytes that are no UTF-8."""
    try:
        b"\xff".decode("utf-8", errors)
    except UnicodeDecodeError:  # "strict", say
        return True
    except (LookupError, TypeError, ValueError):
        return False
    return True


def newer(options: dict[str, Any]) -> dict[str, Any]:
    """Return options with those of transformers 2 by their newer names."""
    options = dict(options)
    strategy = options.pop("truncation_strategy", None)
    if options.get("truncation") is None and options.get("max_length") is not None:
        options["truncation"] = strategy
    if options.pop("pad_to_max_length", False) and not options.get("padding"):
        options["padding"] = "max_length"
    return options


def check_numbers(**options: object) -> None:
    """Raise ValueError for an option that is neither None nor a whole number >= 0."""
    for name, given in options.items():
        number = whole_number(given)
        if given is not None and (number is None or number < 0):
            raise ValueError(f"{name} must be a whole number, not {given!r:.100}")


def check_flags(**settings: object) -> None:
    """Raise ValueError for a setting that is neither True nor False nor None."""
    for name, given in settings.items():
        if given is not None and not isinstance(given, bool):
            raise ValueError(f"{name} must be True or False, not {given!r:.100}")


def columns_of(encoded: Any) -> dict[str, Any]:
    """Return {name: values} of what `pad` takes."""
    if isinstance(encoded, Mapping):
        return dict(encoded)
    if not isinstance(encoded, list | tuple) or not all(
        isinstance(one, Mapping) for one in encoded
    ):
        raise ValueError(
            f"expected an encoding or a list of them, not {named(encoded)}"
        )
    names = list(encoded[0]) if encoded else []
    for one in encoded:
        if missing := [name for name in names if name not in one]:
            raise ValueError(f"one of the encodings lacks {', '.join(missing)}")
    return {name: [one[name] for one in encoded] for name in names}


def as_lists(value: Any) -> Any:
    """Return arrays, tensors and tuples as lists."""
    if isinstance(value, str):
        return str(value)  # (NumPy's str is one)
    if hasattr(value, "tolist") and not isinstance(value, memoryview):
        return value.tolist()
    if hasattr(value, "numpy"):  # of TensorFlow
        return value.numpy().tolist()
    if isinstance(value, list | tuple):
        return [as_lists(v) if hasattr(v, "dtype") else v for v in value]
    return value


def is_nested(value: Sequence) -> bool:
    """Say whether a list is of lists: a batch of rows."""
    return len(value) > 0 and isinstance(value[0], list | tuple)


def is_texts(value: Any) -> bool:
    """Say whether it is a str, a list of str, or a list of lists of str or of words."""
    if not isinstance(value, list):
        return isinstance(value, str)
    rows = [row if isinstance(row, list | tuple) else [row] for row in value]
    return all(isinstance(item, str | list | tuple) for row in rows for item in row)


def named(value: object) -> str:
    """Return what a value is, for a message."""
    return "None" if value is None else f"a {type(value).__name__}"
