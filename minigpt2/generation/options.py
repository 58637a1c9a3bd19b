"""An option as a field of a dataclass: help, bounds and needs stand beside its default.

`option` declares such a field. What it carries is read by the checks of values and
needs below, by `documented`, which makes the class's documentation of it, and by the
command line (commands/generate.py). config.py has the options themselves.
"""

import inspect
import math
import textwrap
from collections.abc import Callable, Collection, Iterable
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, TypeVar, get_args

T = TypeVar("T")
IdSequences = Iterable[Iterable[int]]


@dataclass(frozen=True)
class Option:
    """What the field of an option carries.

    Args:
        help: what the option does, for the documentation and the command line.
        heading: the heading of the options from this one on.
        least, above, most: the bounds of a number, or of each number in a list.
        choices: the only values, if they are few.
        hint: what to do instead of a value out of bounds, for the error's message.
        needs: options of which one must be in use, or this one means nothing.
        read_by: options of which one must be in use for a number to be read at all;
            where none is, its bounds do not matter.
        ids_in: takes a value and gives the sequences of ids in it, of which each id
            must be in the vocabulary and none may be empty.
        metavar: the name of the value on the command line, which has only the options
            that have one.
    """

    help: str
    heading: str | None = None
    least: float = -math.inf
    above: float | None = None
    most: float = math.inf
    choices: tuple = ()
    hint: str = ""
    needs: tuple[str, ...] = ()
    read_by: tuple[str, ...] = ()
    ids_in: Callable[[Any], IdSequences] | None = None
    metavar: str | None = None

    def check_number(self, name: str, value: Any, kind: type) -> None:
        """Raise ValueError for a number of another kind or out of bounds."""
        check_number(
            name,
            value,
            kind,
            least=self.least,
            above=self.above,
            most=self.most,
            hint=self.hint,
        )


def option(default: T, help: str, **more: Any) -> T:
    """Declare an option: return a dataclass field that carries an `Option`."""
    return field(default=default, metadata={"option": Option(help, **more)})


def option_of(declared: Field) -> Option:
    """Return what a field carries."""
    return declared.metadata["option"]


def kinds_of(declared: Field) -> tuple:
    """Return the types of which a field's value may be: (int, NoneType) of int | None."""
    return get_args(declared.type) or (declared.type,)


def is_in_use(declared: Field, value: Any) -> bool:
    """Say whether a value is another than the field's default."""
    if declared.default is None:
        return value is not None
    return bool(value != declared.default)


def check_value(declared: Field, value: Any, idle: bool = False) -> None:
    """Raise ValueError for a value that the field's type or bounds exclude.

    Args:
        idle: the value will not be read, so any number will do.
    """
    if value is declared.default:
        return
    name, kinds, carried = declared.name, kinds_of(declared), option_of(declared)
    if value is None and type(None) in kinds:
        return
    if bool in kinds or carried.choices:
        choices = carried.choices or (False, True)
        if value not in choices:
            known = ", ".join(map(str, choices))
            raise ValueError(f"{name} must be one of {known}, not {value!r}")
    elif idle and (int in kinds or float in kinds):
        check_number(name, value, Integral if int in kinds else Real)
    elif list[int] in kinds:
        for number in as_list(value, name):
            carried.check_number(name, number, Integral)
    elif int in kinds or float in kinds:
        carried.check_number(name, value, Integral if int in kinds else Real)


def check_number(
    name: str,
    value: Any,
    kind: type,
    *,
    least: float = -math.inf,
    above: float | None = None,
    most: float = math.inf,
    hint: str = "",
) -> None:
    """Raise ValueError unless value is of that kind, Integral or Real, within bounds."""
    number = isinstance(value, kind) and not isinstance(value, bool)
    # What no array holds is no number either: 10**400, say.
    number = number and (abs(value) < 2**63 if kind is Integral else is_float(value))
    # NaN is within no bounds
    if not (number and least <= value <= most and (above is None or value > above)):
        what = "a whole number" if kind is Integral else "a number"
        bounds = bounds_in_words(least, above, most)
        if above is None:
            bounds = f"{what} {bounds}".rstrip()
        raise ValueError(f"{name} must be {bounds}, not {value!r}{hint}")


def is_float(value: Any) -> bool:
    """Say whether a real number is one of a float's, infinities included."""
    try:
        float(value)
    except OverflowError:
        return False
    return True


def bounds_in_words(least: float, above: float | None, most: float) -> str:
    """Say what a number's bounds are: "of at least 0 and at most 1", or nothing."""
    words = [] if above is None else [f"above {above}"]
    if least != -math.inf:
        words.append(f"of at least {least}")
    if most != math.inf:
        words.append(f"at most {most}")
    return " and ".join(words)


def check_needs(declared: Collection[Field], in_use: Collection[str]) -> None:
    """Raise ValueError for an option in use that needs another, which is not."""
    by_name = {one.name: one for one in declared}
    for one in declared:
        needs = option_of(one).needs
        if one.name in in_use and needs and not any(need in in_use for need in needs):
            how = " or ".join(use_in_words(by_name[need]) for need in needs)
            raise ValueError(f"{one.name} needs {how}")


def use_in_words(declared: Field) -> str:
    """Say how an option is put to use: "do_sample=True", "num_beams > 1"."""
    if isinstance(declared.default, bool):
        return f"{declared.name}={not declared.default}"
    if declared.default is None:
        return declared.name
    return f"{declared.name} > {declared.default}"


def as_list(ids: Any, name: str = "ids") -> list:
    """Return None, an id or a sequence of ids as a list of ids."""
    if hasattr(ids, "tolist"):  # an array
        ids = ids.tolist()
    if ids is None:
        return []
    if isinstance(ids, Integral):
        return [ids]
    if not isinstance(ids, (list, tuple)):
        raise ValueError(
            f"{name} must be a whole number or a list of them, not {ids!r}"
        )
    return list(ids)


def documented(cls: type[T]) -> type[T]:
    """Append to a class's docstring what the options that are its fields carry."""
    lines = [inspect.cleandoc(cls.__doc__ or "")]
    for one in fields(cls):  # type: ignore[arg-type]
        carried = option_of(one)
        if carried.heading:
            lines += ["", f"{carried.heading}:"]
        kind = one.type.__name__ if isinstance(one.type, type) else str(one.type)
        head = f"{one.name} ({kind.replace('typing.', '')} = {one.default!r})"
        bounds = bounds_in_words(carried.least, carried.above, carried.most)
        if carried.choices:
            bounds = "one of " + ", ".join(map(repr, carried.choices))
        bounds = f" ({bounds.removeprefix('of ')})" if bounds else ""
        paragraph = f"{head}: {carried.help}{bounds}"
        lines += textwrap.wrap(
            paragraph, 84, initial_indent=4 * " ", subsequent_indent=8 * " "
        )
    cls.__doc__ = "\n".join(lines)
    return cls
