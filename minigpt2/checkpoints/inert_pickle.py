"""Pickles -> plain values, with nothing run: a reader that cannot be made to call.

A pickle is a program for a small stack machine. Two of its instructions make it
dangerous: GLOBAL imports whatever it names, and REDUCE calls it. Here GLOBAL gives the
name and imports nothing, and REDUCE hands that name and the arguments to a function of
the reader's, which makes the few things it knows and refuses all others. There is no
list of forbidden things to keep up to date: what is not understood is not done.

These are the instructions that state dicts are made of, and the plain things that are
saved beside them; pickletools in the standard library describes them all. Nothing here
recurses, the memo is a dict, not an array as long as its largest index, and no length is
believed before the bytes are there.
"""

from __future__ import annotations

import pickle  # for the names of the instructions, nothing else
import struct
from collections.abc import Callable, Container
from typing import Any, NamedTuple

import numpy as np

from . import CheckpointError

MAX_STEPS = 200_000  # the state dict of GPT-2 XL takes about 20,000
MAX_LINE = 200  # of a global's module or name

# Instructions that push a value which they hold themselves, and how it is read.
LITERALS: dict[bytes, Callable[[_Code], Any]] = {
    pickle.NONE: lambda code: None,
    pickle.NEWTRUE: lambda code: True,
    pickle.NEWFALSE: lambda code: False,
    pickle.EMPTY_TUPLE: lambda code: (),
    pickle.BININT: lambda code: code.number(4, signed=True),
    pickle.BININT1: lambda code: code.number(1),
    pickle.BININT2: lambda code: code.number(2),
    pickle.LONG1: lambda code: code.number(code.number(1), signed=True),
    pickle.LONG4: lambda code: code.number(code.number(4), signed=True),
    pickle.BINFLOAT: lambda code: struct.unpack(">d", code.take(8))[0],
    pickle.SHORT_BINSTRING: lambda code: code.string(1),  # a str of Python 2
    pickle.BINSTRING: lambda code: code.string(4),
    pickle.SHORT_BINBYTES: lambda code: code.take(code.number(1)),
    pickle.BINBYTES: lambda code: code.take(code.number(4)),
    pickle.BINBYTES8: lambda code: code.take(code.number(8)),
    pickle.BYTEARRAY8: lambda code: code.take(code.number(8)),
    pickle.SHORT_BINUNICODE: lambda code: code.text(1),
    pickle.BINUNICODE: lambda code: code.text(4),
    pickle.BINUNICODE8: lambda code: code.text(8),
}
TUPLES = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}  # of so many values


class Global(NamedTuple):
    """Stands for an object that the pickle would import."""

    name: str  # "module.name"


class Inert:
    """Stands for an object that the pickle would make, and drops what that would hold."""

    def __init__(self, name: str):
        self.name = name  # of what would make it, "module.name"


KEYS = (str, int, float, bytes, type(None), Global, Inert)  # of dicts


def read_pickle(
    data: np.ndarray,
    at: int = 0,
    allowed: Container[str] = (),
    call: Callable[[str, tuple], Any] | None = None,
    load: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Return the value of the pickle that starts at data[at], and where it ends.

    Args:
        data: bytes, as a one-dimensional uint8 array.
        at: where to begin.
        allowed: the globals, "module.name", that may occur.
        call: (name, arguments) -> what REDUCE leaves on the stack.
        load: persistent id -> what BINPERSID leaves on the stack.

    Raises:
        CheckpointError: for a damaged pickle, and for a sound one that asks for more.
    """
    code, stack = _Code(data, at), _Stack()
    memo: dict[int, Any] = {}

    def find(name: str) -> Global:
        if name not in allowed:
            raise CheckpointError(
                f"it asks for {name!r}, which no state dict needs; that was neither "
                "imported nor run"
            )
        return Global(name)

    for _ in range(MAX_STEPS):
        match instruction := code.take(1):
            case pickle.PROTO:
                if (protocol := code.number(1)) > pickle.HIGHEST_PROTOCOL:
                    raise CheckpointError(
                        f"a pickle of the unknown protocol {protocol}"
                    )
            case pickle.FRAME:
                code.take(8)
            case pickle.STOP:
                return stack.pop(), code.at

            case _ if instruction in LITERALS:
                stack.push(LITERALS[instruction](code))

            case pickle.MARK:
                stack.mark()
            case _ if instruction in TUPLES:
                stack.push(tuple(stack.last(TUPLES[instruction])))
            case pickle.TUPLE:
                stack.push(tuple(stack.since_mark()))
            case pickle.EMPTY_LIST:
                stack.push([])
            case pickle.APPEND:
                values = stack.last(1)
                _extend(stack.top((list, Inert)), values)
            case pickle.APPENDS:
                values = stack.since_mark()
                _extend(stack.top((list, Inert)), values)
            case pickle.EMPTY_SET:
                stack.push(Inert("builtins.set"))
            case pickle.ADDITEMS:
                stack.since_mark()
                stack.top(Inert)
            case pickle.FROZENSET:
                stack.since_mark()
                stack.push(Inert("builtins.frozenset"))
            case pickle.EMPTY_DICT:
                stack.push({})
            case pickle.SETITEM:
                values = stack.last(2)
                _fill(stack.top((dict, Inert)), values)
            case pickle.SETITEMS:
                values = stack.since_mark()
                _fill(stack.top((dict, Inert)), values)

            case pickle.BINPUT:
                memo[code.number(1)] = stack.top()
            case pickle.LONG_BINPUT:
                memo[code.number(4)] = stack.top()
            case pickle.MEMOIZE:
                memo[len(memo)] = stack.top()
            case pickle.BINGET | pickle.LONG_BINGET:
                index = code.number(1 if instruction == pickle.BINGET else 4)
                if index not in memo:
                    raise CheckpointError(f"a damaged pickle: no {index} in the memo")
                stack.push(memo[index])

            case pickle.GLOBAL:
                stack.push(find(f"{code.line()}.{code.line()}"))
            case pickle.STACK_GLOBAL:
                match stack.last(2):
                    case [str(module), str(name)]:
                        stack.push(find(f"{module[:MAX_LINE]}.{name[:MAX_LINE]}"))
                    case _:
                        raise CheckpointError("a damaged pickle: a nameless global")
            case pickle.REDUCE | pickle.NEWOBJ:
                match stack.last(2):
                    case [Global(name), tuple(arguments)] if call:
                        stack.push(call(name, arguments))
                    case _:
                        raise CheckpointError("a damaged pickle: a call of no function")
            case pickle.BINPERSID if load:
                stack.push(load(stack.pop()))
            case pickle.BUILD:
                # Attributes: of a state dict only _metadata, the modules' versions.
                stack.pop()
                stack.top((dict, Inert))
            case _:
                raise CheckpointError(
                    f"byte {code.at - 1} is the pickle instruction {instruction!r}, "
                    "which no state dict needs"
                )
    raise CheckpointError(f"a pickle of more than {MAX_STEPS} instructions")


class _Code:
    """The bytes of the program, read from front to back."""

    def __init__(self, data: np.ndarray, at: int):
        self.data = data
        self.at = at

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count].tobytes()
        if len(taken) < count:
            raise CheckpointError(
                f"a damaged pickle: {count} bytes wanted at {self.at}, and "
                f"{len(taken)} are left"
            )
        self.at += count
        return taken

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def text(self, size: int) -> str:
        """Read a string after its length, a number of `size` bytes."""
        raw = self.take(self.number(size))
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"a damaged pickle: no text: {error}") from None

    def string(self, size: int) -> str:
        """Read a str of Python 2 after its length: bytes, and UTF-8 if they can be."""
        raw = self.take(self.number(size))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def line(self) -> str:
        line, end, _ = (
            self.data[self.at : self.at + MAX_LINE].tobytes().partition(b"\n")
        )
        if not end:
            raise CheckpointError(f"a damaged pickle: no line at {self.at}")
        self.at += len(line) + 1
        return line.decode("utf-8", "backslashreplace")


class _Stack:
    """The values so far, and where among them MARK was said."""

    def __init__(self) -> None:
        self.values: list = []
        self.marks: list[int] = []

    def push(self, value: Any) -> None:
        self.values.append(value)

    def mark(self) -> None:
        self.marks.append(len(self.values))

    def last(self, count: int) -> list:
        """Remove and return the last `count` values, all pushed since the last mark."""
        start = len(self.values) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise CheckpointError("a damaged pickle: too little on the stack")
        values = self.values[start:]
        del self.values[start:]
        return values

    def pop(self) -> Any:
        return self.last(1)[0]

    def since_mark(self) -> list:
        if not self.marks:
            raise CheckpointError("a damaged pickle: no mark")
        return self.last(len(self.values) - self.marks.pop())

    def top(self, kind: type | tuple[type, ...] = object) -> Any:
        """Return the last value, which stays."""
        bottom = self.marks[-1] if self.marks else 0
        if len(self.values) <= bottom or not isinstance(self.values[-1], kind):
            wanted = kind if isinstance(kind, type) else kind[0]
            raise CheckpointError(
                f"a damaged pickle: no {wanted.__name__} on the stack"
            )
        return self.values[-1]


def _extend(target: list | Inert, values: list) -> None:
    if isinstance(target, list):
        target.extend(values)


def _fill(target: dict | Inert, values: list) -> None:
    if isinstance(target, Inert):
        return
    keys = values[::2]
    # To hash a tuple in a tuple in a tuple ... would overflow the C stack.
    if len(values) % 2 or not all(isinstance(key, KEYS) for key in keys):
        raise CheckpointError("a pickled dict with keys that are no strings or numbers")
    target.update(zip(keys, values[1::2]))
