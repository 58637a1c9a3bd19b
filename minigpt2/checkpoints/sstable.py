"""SSTables, which hold TensorFlow's checkpoint index: file <-> (key, value) pairs.

A sorted table of byte strings as LevelDB has it (TensorFlow's copy is
tsl/lib/io/{format,block,table_builder}.cc):

    data block ... | metaindex block | index block | footer, 48 bytes

    footer  handle of the metaindex, handle of the index, zeros up to 40 bytes, magic
    handle  varint offset, varint size
    block   contents (`size` bytes) | 1 byte: 0 plain, 1 snappy | masked CRC-32C of both

Contents are entries in key order, each giving only how its key differs from the last:

    varint shared | varint added | varint length | added bytes of key | value
    ... | restart points, 4 bytes each | their number, 4 bytes

The index block maps a key not below the last of each data block to that block's handle.
The metaindex is empty in a checkpoint. Restart points are for binary search; a reader
that starts at the beginning does not need them.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from . import CheckpointError
from .crc32c import masked_crc32c
from .protobuf import read_varint, write_varint
from .tensor_file import beginning, map_file

FOOTER = 48
MAGIC = bytes.fromhex("57fb808b247547db")
TRAILER = 5  # a block's type and checksum
RESTART_INTERVAL = 16


def read_table(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield the (key, value) pairs of an SSTable, in key order, every block verified.

    Raises:
        CheckpointError: for anything but a sound table; it names the file.
    """
    file = map_file(path)
    try:
        yield from _pairs(file)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is no sound checkpoint index: {error}") from None


def _pairs(file: np.ndarray) -> Iterator[tuple[bytes, bytes]]:
    footer = file[-FOOTER:].tobytes()
    if len(footer) < FOOTER:
        raise CheckpointError(
            f"its {len(file)} bytes are fewer than the {FOOTER} of a footer; "
            + beginning(file)
        )
    if footer[-8:] != MAGIC:
        raise CheckpointError(
            f"its last bytes are {footer[-8:].hex(' ')}, expected {MAGIC.hex(' ')}; it "
            f"is truncated or something else ({beginning(file)})"
        )
    metaindex, at = _handle(footer, 0)
    index, _ = _handle(footer, at)
    _block(file, *metaindex)

    last, end = None, 0
    for _, value in _entries(_block(file, *index)):
        (offset, size), _ = _handle(value, 0)
        if offset < end:
            raise CheckpointError(f"the block at {offset} begins before {end}")
        for key, value in _entries(_block(file, offset, size)):
            if last is not None and key <= last:
                raise CheckpointError(
                    f"the key {key!r:.200} does not come after {last!r:.200}"
                )
            yield key, value
            last = key
        end = offset + size + TRAILER


def _block(file: np.ndarray, offset: int, size: int) -> bytes:
    """Return the verified contents of the block at `offset`."""
    if offset + size + TRAILER > len(file) - FOOTER:
        raise CheckpointError(
            f"a block of {size} bytes at {offset} does not fit in {len(file)} bytes"
        )
    block = file[offset : offset + size + 1]
    stored = file[offset + size + 1 : offset + size + TRAILER].view("<u4")[0]
    computed = masked_crc32c(block)
    if stored != computed:
        raise CheckpointError(
            f"the block of {size} bytes at {offset} is damaged: its checksum is stored "
            f"as {stored:#010x}, and {computed:#010x} was computed"
        )
    kind = block[size]
    if kind:
        raise CheckpointError(
            f"the block at {offset} is "
            + ("snappy-compressed" if kind == 1 else f"of the unknown type {kind}")
            + ", and only uncompressed ones are read, as TensorFlow writes them"
        )
    return block[:size].tobytes()


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise CheckpointError(f"{restarts} restart points in {len(block)} bytes")
    at, key, unfolded = 0, b"", 0
    while at < end:
        shared, at = read_varint(block, at)
        added, at = read_varint(block, at)
        length, at = read_varint(block, at)
        middle, after = at + added, at + added + length
        if shared > len(key) or after > end:
            raise CheckpointError(
                f"after the key {key!r:.200} stands one that shares {shared} bytes and "
                f"adds {added}, with a value of {length}, in a block of {len(block)}"
            )
        key = key[:shared] + block[at:middle]
        # Every sixteenth key is written out in full, so honest keys cannot unfold to
        # more than this; hostile ones could, three bytes to a copy.
        unfolded += len(key)
        if unfolded > RESTART_INTERVAL * len(block):
            raise CheckpointError(f"the keys of {len(block)} bytes unfold to too many")
        yield key, block[middle:after]
        at = after


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def table_bytes(
    pairs: Iterable[tuple[bytes, bytes]], block_size: int = 262_144
) -> bytes:
    """Return the SSTable of (key, value) pairs in key order, byte for byte TensorFlow's."""
    table = bytearray()

    def append(block: _BlockWriter) -> bytes:
        contents = block.contents() + b"\0"  # plain
        handle = write_varint(len(table)) + write_varint(len(contents) - 1)
        table.extend(contents + masked_crc32c(contents).to_bytes(4, "little"))
        return handle

    index = _BlockWriter(restart_interval=1)
    block = _BlockWriter(RESTART_INTERVAL)
    for key, value in pairs:
        if len(block) >= block_size:
            index.add(_separator(block.last, key), append(block))
            block = _BlockWriter(RESTART_INTERVAL)
        block.add(key, value)
    handle = append(block)
    metaindex_handle = append(_BlockWriter(RESTART_INTERVAL))
    index.add(_successor(block.last), handle)
    handles = metaindex_handle + append(index)
    return bytes(table) + handles.ljust(FOOTER - len(MAGIC), b"\0") + MAGIC


class _BlockWriter:
    """Contents of a block: see the top of this file."""

    def __init__(self, restart_interval: int):
        self.interval = restart_interval
        self.entries = bytearray()
        self.restarts = [0]
        self.count = 0  # of keys since the last restart point
        self.last = b""

    def add(self, key: bytes, value: bytes) -> None:
        if self.count == self.interval:
            self.restarts.append(len(self.entries))
            self.count = 0
        shared = _shared(self.last, key) if self.count else 0
        for length in (shared, len(key) - shared, len(value)):
            self.entries += write_varint(length)
        self.entries += key[shared:] + value
        self.count += 1
        self.last = key

    def __len__(self) -> int:
        return len(self.entries) + 4 * len(self.restarts) + 4

    def contents(self) -> bytes:
        numbers = np.array([*self.restarts, len(self.restarts)], "<u4")
        return bytes(self.entries) + numbers.tobytes()


def _shared(a: bytes, b: bytes) -> int:
    """Return how many bytes two keys begin with alike."""
    unequal = (place for place, (x, y) in enumerate(zip(a, b)) if x != y)
    return next(unequal, min(len(a), len(b)))


def _separator(last: bytes, first: bytes) -> bytes:
    """Return a short key from `last` on that is below `first`, of the next block."""
    same = _shared(last, first)
    if same < min(len(last), len(first)) and last[same] + 1 < first[same]:
        return last[:same] + bytes([last[same] + 1])
    return last


def _successor(last: bytes) -> bytes:
    """Return a short key not below `last`, the end of the table."""
    for place, byte in enumerate(last):
        if byte < 0xFF:
            return last[:place] + bytes([byte + 1])
    return last
