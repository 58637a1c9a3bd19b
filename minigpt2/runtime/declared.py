"""What a JSON file may hold: its fields, declared in one place and checked at the door.

A file of a user's may hold anything under any name. Each reader declares its fields as
{name: Kind} and calls `check_fields`, so that a wrong value is refused by the file, the
field, what it holds and what it may hold, and nothing beyond the door need expect it.
Fields that are not declared pass.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of value: in words, and whether a value is of it."""

    words: str
    holds: Callable[[Any], bool]


def is_text(value: Any) -> bool:
    """Say whether a value is a str that can be written: lone surrogates cannot."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def is_id(value: Any) -> bool:
    """Say whether a value is a whole number from 0 on; JSON's true and 1.0 are none."""
    return type(value) is int and 0 <= value < 2**31


TEXT = Kind("a text", is_text)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
ID = Kind("a whole number from 0 on", is_id)
LENGTH = Kind(
    "a number above 0",
    lambda value: type(value) in (int, float) and value > 0,  # (NaN is not)
)


def optional(kind: Kind) -> Kind:
    """Return the kind that may also be null."""
    return Kind(f"{kind.words}, or null", lambda v: v is None or kind.holds(v))


def list_of(kind: Kind) -> Kind:
    """Return the kind of lists whose items are of a kind."""
    return Kind(
        f"a list, each item of which is {kind.words}",
        lambda value: isinstance(value, list) and all(map(kind.holds, value)),
    )


def one_of(*values: Any) -> Kind:
    """Return the kind of a few values."""
    return Kind(f"one of {', '.join(map(repr, values))}", lambda value: value in values)


def check_fields(
    where: object, content: Mapping[str, Any], declared: Mapping[str, Kind]
) -> None:
    """Raise ValueError for a field that holds what it may not.

    Args:
        where: the file, or the file and the part of it, for the message.
        content: a JSON object.
        declared: {name: kind} of the fields that are checked, where they are there.
    """
    for name, kind in declared.items():
        if name in content and not kind.holds(content[name]):
            raise ValueError(
                f"{where}: {name} is {shown(content[name])}, and must be {kind.words}"
            )


def shown(value: Any) -> str:
    """Return a value's repr, cut short; of lists and objects not what is inside."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key!r:.30}: ..." for key in list(value)[:3])
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"{value!r:.100}"
