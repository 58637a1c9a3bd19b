"""Mutations: what a damaged disk, a careless hand or a hostile one does to a file.

All of them draw their decisions from the `random.Random` that they are given, and from
nothing else: an input is its seeds.
"""

from __future__ import annotations

import copy
import json
import random
from typing import Any

# Numbers at which something ends: a byte, a word, a float's whole numbers, an array.
NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 63, 64, 127, 128, 255, 256, 1000, 2**15, 2**16 - 1, 2**16),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63),
    *(2**64 - 1, -(2**31), -(2**63)),
)
# Texts that stand for what JSON's text can hold and json.dumps does not write.
DEEP, DEEP_OBJECT, LONG_NUMBER = "@deep@", "@deep-object@", "@long-number@"
RAW = {
    f'"{DEEP}"': "[" * 100_000 + "]" * 100_000,
    f'"{DEEP_OBJECT}"': '{"a":' * 50_000 + "1" + "}" * 50_000,
    f'"{LONG_NUMBER}"': "9" * 5000,
}
INF = float("inf")
VALUES = (
    None, True, False, 0, 1, -1, 2, 7, 0.5, -0.5, 1e-5, 1e300, 2**31, 2**63, 10**400,
    float("nan"), INF, -INF, "", "x", "0", "-1", "1e-05", "１", "é", "\ud800", "\x00",
    "../x", "a" * 300, [], {}, [[]], [None], [0], [-1], ["x"], {"": 0}, {"a": 1},
    {"0": [0]}, {"-1": [0]}, {"x": "x"}, [1, 2], 65_535, 10**9, 1e-400,
)  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one thing changed."""
    at = rng.randrange(len(data) + 1)
    length = min(len(data) - at, 1 << rng.randrange(8))
    match rng.randrange(9):
        case 0 if at < len(data):  # one bit
            flipped = data[at] ^ 1 << rng.randrange(8)
            return data[:at] + bytes([flipped]) + data[at + 1 :]
        case 1 if at < len(data):  # one byte
            some = (0, 1, 0x22, 0x2D, 0x30, 0x7F, 0x80, 0xFF, rng.randrange(256))
            new = rng.choice(some)
            return data[:at] + bytes([new]) + data[at + 1 :]
        case 2:  # a number
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(NUMBERS) + rng.choice((-1, 0, 0, 1))
            order = rng.choice(("little", "big"))
            raw = (number % (1 << 8 * width)).to_bytes(width, order)
            return data[:at] + raw + data[at + width :]
        case 3:  # less
            return data[:at] + data[at + length :]
        case 4:  # twice
            return data[:at] + data[at : at + length] + data[at:]
        case 5:  # more
            return data[:at] + rng.randbytes(length) + data[at:]
        case 6:  # moved
            piece, rest = data[at : at + length], data[:at] + data[at + length :]
            to = rng.randrange(len(rest) + 1)
            return rest[:to] + piece + rest[to:]
        case 7:  # cut off
            return data[:at]
        case _:  # zeros, as a hole in a file has them
            return data[:at] + bytes(length) + data[at + length :]


def mutate_same_length(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one thing changed, none of them more or fewer."""
    changed = mutate_bytes(data, rng)
    return changed if len(changed) == len(data) else bytes(data[::-1])


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Return lines of text with one line or one character changed."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    match rng.randrange(8):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[at])
        case 2:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            some = (
                b"",
                b" ",
                b"a",
                b"a b c",
                b"\xff\xfe",
                b"\xef\xbb\xbfa b",
                b"#x",
                b"\0",
            )
            lines[at] = rng.choice(some)
        case 4:
            lines[at] += rng.choice((b"\r", b" ", b" x", "\u2028".encode(), b"\x0c"))
        case 5:
            lines[at] = lines[at][::-1]
        case _:
            return mutate_bytes(data, rng)
    return b"\n".join(lines)


def mutate_json(tree: Any, rng: random.Random) -> Any:
    """Return a copy of a JSON tree with one thing changed."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    if not places:
        return rng.choice(VALUES)
    holder, key = rng.choice(places)
    value = holder[key]
    match rng.randrange(12):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            name = rng.choice(["", "x", "-1", "１", "\ud800", key + " ", *_names(tree)])
            holder[name] = holder.pop(key)
        case 2:
            other, at = rng.choice(places)
            if not isinstance(value, dict | list):  # else it could hold itself
                holder[key], other[at] = copy.deepcopy(other[at]), value
        case 3:
            some = ([value], {"x": value}, [value, value], str(value))
            holder[key] = rng.choice(some)
        case 4 if isinstance(value, int | float):
            half = value / 2 if abs(value) < 1e300 else 0
            near = (value + 1, value - 1, -value, half, str(value))
            holder[key] = rng.choice((*near, *NUMBERS))
        case 5 if isinstance(holder, list):
            holder.insert(key, rng.choice((value, *VALUES)))
        case 6 if isinstance(holder, dict):
            holder[rng.choice(["x", "\ud800", *_names(tree)])] = rng.choice(VALUES)
        case 7:
            holder[key] = rng.choice((DEEP, DEEP_OBJECT, LONG_NUMBER, *VALUES))
        case _:
            holder[key] = rng.choice(VALUES)
    return tree


def _places(tree: Any) -> Any:
    """Yield (holder, key) of everything in a tree; of long lists only some."""
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict):
            keys = list(holder)
        elif isinstance(holder, list):
            keys = list(range(len(holder)))
        else:
            continue
        for key in keys if len(keys) < 60 else [*keys[:30], *keys[-30:]]:
            yield holder, key
            waiting.append(holder[key])


def _names(tree: Any) -> list[str]:
    names = {key for holder, key in _places(tree) if isinstance(holder, dict)}
    return sorted(names)


def dump_json(tree: Any) -> bytes:
    """Return a tree as JSON, with what RAW says in place of its texts."""
    text = json.dumps(tree)
    if "@" in text:
        for word, raw in RAW.items():
            text = text.replace(word, raw)
    return text.encode()


class FedRandom(random.Random):
    """Decisions from given bytes: so a coverage-guided fuzzer steers the mutations."""

    def __init__(self, data: bytes):
        super().__init__(0)
        self.data, self.at = data, 0

    def getrandbits(self, k: int) -> int:
        count = -(-k // 8)
        taken = self.data[self.at : self.at + count].ljust(count, b"\0")
        self.at += count
        return int.from_bytes(taken, "little") & (1 << k) - 1

    def random(self) -> float:
        return self.getrandbits(53) / 2**53

    # (Else a generator that has getrandbits overridden would still be asked for this.)
    def randbytes(self, n: int) -> bytes:
        return self.getrandbits(8 * n).to_bytes(n, "little") if n else b""
