"""CRC-32C (Castagnoli) of arrays, at memory speed, with nothing but XOR.

bytes -> the 32-bit checksum that TensorFlow, LevelDB and iSCSI store. The half
gigabyte of GPT-2 124M takes a fraction of a second; the loop that everybody writes,
one table look-up a byte, would take most of a minute in Python.

**The idea.** A CRC is a remainder. Read the message as one long polynomial over
GF(2), the first bit of the first byte being its highest power (bytes send their lowest
bit first), and divide by

    P(x) = x^32 + x^28 + x^27 + x^26 + x^25 + x^23 + x^22 + x^20 + x^19 + x^18
           + x^14 + x^13 + x^11 + x^10 + x^9 + x^8 + x^6 + 1.

Adding a multiple of P does not change the remainder, and P has multiples with very few
terms. This one has four (none has three: x + 1 divides P, so the terms pair off):

    1 + x^426 + x^1362 + x^5685  =  0  mod P.

So a bit may be taken out of the message if it is put in again 4323, 5259 and 5685
places further on (5685 - 1362, 5685 - 426, 5685 - 0), which moves it towards the end.
Squaring over GF(2) doubles every exponent and adds nothing else, (a + b)^2 = a^2 + b^2;
square six times, and the same four numbers hold for y = x^64:

    1 + y^426 + y^1362 + y^5685  =  0  mod P,

that is, for whole 64-bit words, and three times gives it for bytes. Since no word
lands nearer than 4323 words on, 4323 neighbours never meet and move together: three
XORs of shifted slices, at the speed of the cache. At last 5685 words are left; the
same fold on bytes leaves 5685 bytes, and the familiar table ends it.

XOR moves bits without looking at them, so none of this depends on the machine's byte
order, nor is there a table of vectors, a multiplication or a second core.

Folding by sparse multiples is from S. Russell, "Chorba: A novel CRC32
implementation" (2024, arXiv:2412.16398); theirs are for CRC-32, these exponents were
found by meeting in the middle: i < j up to 3500, and 1 + x^i + x^j looked up among
x^k. tests/test_tf_bundle.py proves them again.
"""

import numpy as np

POLYNOMIAL = 0x82F63B78  # P without x^32, highest power in the lowest bit
TERMS = (0, 426, 1362, 5685)  # of the sparse multiple

# How far on each of the three copies of a word goes: nearest, middle, furthest.
NEAR, MIDDLE, FAR = (TERMS[3] - term for term in TERMS[2::-1])
SEGMENT = 8 * NEAR  # words folded before the history moves back to the start


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = _table()


def _by_table(data: bytes, register: int) -> int:
    """Go on with a CRC register by the textbook loop: one byte, one look-up."""
    for byte in data:
        register = TABLE[(register ^ byte) & 0xFF] ^ register >> 8
    return register


def _fold(units: np.ndarray, register: int) -> np.ndarray:
    """Return FAR units (of 8 or 64 bits) with the remainder that all of `units` have.

    What a unit holds when its turn comes is its own bits and those of the three
    units before it that were moved here:

        folded[n] = units[n] ^ folded[n - NEAR] ^ folded[n - MIDDLE] ^ folded[n - FAR]
    """
    # FAR units of history, then the segment under way. Before the message there is
    # nothing, but for the register: it enters like a unit moved onto the first.
    folded = np.zeros(FAR + SEGMENT, units.dtype)
    folded.view(np.uint8)[:4] = np.frombuffer(register.to_bytes(4, "little"), np.uint8)

    last = len(units) - FAR  # from here on units are received, not moved
    for segment in range(0, last, SEGMENT):
        size = min(SEGMENT, last - segment)
        for start in range(0, size, NEAR):
            stop = min(start + NEAR, size)
            block = folded[FAR + start : FAR + stop]
            source = units[segment + start : segment + stop]
            np.bitwise_xor(source, folded[start:stop], out=block)
            block ^= folded[FAR - MIDDLE + start : FAR - MIDDLE + stop]
            block ^= folded[FAR - NEAR + start : FAR - NEAR + stop]
        folded[:FAR] = folded[size : size + FAR]

    tail = units[last:] ^ folded[:FAR]
    tail[:MIDDLE] ^= folded[FAR - MIDDLE : FAR]
    tail[:NEAR] ^= folded[FAR - NEAR : FAR]
    return tail


def crc32c(data: bytes | np.ndarray, before: int = 0) -> int:
    """Return the CRC-32C of `data`, bytes or a one-dimensional uint8 array.

    `before` is that of the bytes before, where data comes in parts.

    crc32c(b"123456789") == crc32c(b"6789", crc32c(b"12345")) == 0xE3069283.
    """
    rest = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    register = before ^ 0xFFFFFFFF
    for unit in (np.uint64, np.uint8):
        width = np.dtype(unit).itemsize
        ragged = -rest.ctypes.data % width  # bytes before the first aligned word
        if len(rest) - ragged >= 2 * FAR * width:
            register = _by_table(rest[:ragged].tobytes(), register)
            stop = len(rest) - (len(rest) - ragged) % width
            folded = _fold(rest[ragged:stop].view(unit), register).view(np.uint8)
            rest, register = np.concatenate([folded, rest[stop:]]), 0
    return _by_table(rest.tobytes(), register) ^ 0xFFFFFFFF


def masked_crc32c(data: bytes | np.ndarray) -> int:
    """Return `crc32c(data)` as TensorFlow and LevelDB store it."""
    return masked(crc32c(data))


def masked(crc: int) -> int:
    """Return a CRC masked: the plain CRC of data that holds its own CRC is a poor check.

    It is rotated right by 15 bits, and 0xA282EAD8 is added (mod 2^32).
    """
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
