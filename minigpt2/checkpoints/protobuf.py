"""The wire format of protocol buffers: messages as fields, and numbers as varints.

A field is a varint, number << 3 | wire type, and a value: a varint (wire type 0), 8 or 4
bytes (1, 5), or a length and as many bytes (2). Source:
https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator

from . import CheckpointError

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # wire types


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return an unsigned 64-bit number, and where the next thing starts.

    It has 7 bits a byte, the lowest first; all bytes but the last have the eighth bit
    set.
    """
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if value >= 2**64:
                break
            return value, at + place + 1
    raise CheckpointError(f"bytes {data[at : at + 10].hex(' ')} are no varint")


def write_varint(value: int) -> bytes:
    """Return a number as `read_varint` reads it."""
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def fields(
    message: bytes | memoryview,
) -> Iterator[tuple[int, int, int | bytes | memoryview]]:
    """Yield (number, wire type, value) of each field.

    The value is an unsigned int, or a slice of the message. A field of another wire type
    than the one that it is declared with is an unknown field, and to be passed over.
    """
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = read_varint(message, at)
            yield number, wire, value
            continue
        if wire == BYTES:
            length, at = read_varint(message, at)
        elif wire in (EIGHT_BYTES, FOUR_BYTES):
            length = 8 if wire == EIGHT_BYTES else 4
        else:
            raise CheckpointError(f"field {number} has the wire type {wire}")
        if at + length > len(message):
            raise CheckpointError(
                f"field {number} of {length} bytes ends beyond its message"
            )
        raw = message[at : at + length]
        yield number, wire, raw if wire == BYTES else int.from_bytes(raw, "little")
        at += length


def number_field(number: int, value: int) -> bytes:
    """Return a field with a varint."""
    return write_varint(number << 3 | VARINT) + write_varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """Return a field with bytes, or with a message."""
    return write_varint(number << 3 | BYTES) + write_varint(len(value)) + value
