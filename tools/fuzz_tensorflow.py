"""TensorFlow's checkpoints, as the fuzzer sees them.

An SSTable of protocol buffers is taken apart into its fields, changed there, and put
together with all checksums right. The witness reads it by the formats' definitions.
"""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from fuzz_formats import ARRAYS, Arrays, Base, Files, Format, widened, written
from fuzz_mutations import NUMBERS, mutate_bytes, mutate_same_length, mutate_text

from minigpt2.checkpoints.crc32c import masked_crc32c
from minigpt2.checkpoints.tf_bundle import _slice_key as slice_key
from minigpt2.checkpoints.tf_bundle_writer import save_tf_bundle

TF_DTYPES = {
    1: "f4", 2: "f8", 3: "i4", 4: "u1", 5: "i2", 6: "i1", 8: "c8", 9: "i8", 10: "?",
    14: "u2", 17: "u2", 18: "c16", 19: "f2", 22: "u4", 23: "u8",
}  # fmt: skip
MAGIC = bytes.fromhex("57fb808b247547db")


def varint(value: int) -> bytes:
    value %= 1 << 64
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def take_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def take_fields(message: bytes) -> list[list]:
    """A protocol buffer's [number, wire type, value]."""
    fields, at = [], 0
    while at < len(message):
        tag, at = take_varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == 0:
            value, at = take_varint(message, at)
        else:
            length = {1: 8, 5: 4}.get(wire)
            if length is None:
                length, at = take_varint(message, at)
            if at + length > len(message) or wire not in (1, 2, 5):
                raise ValueError("no message")
            value, at = message[at : at + length], at + length
        fields.append([number, wire, value])
    return fields


def message_of(fields: list[list]) -> bytes:
    parts = []
    for number, wire, value in fields:
        parts.append(varint(number << 3 | wire))
        if wire == 0:
            parts.append(varint(value))
        else:
            parts.append((varint(len(value)) if wire == 2 else b"") + value)
    return b"".join(parts)


def table_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    at, key = 0, b""
    while at < end:
        shared, at = take_varint(block, at)
        added, at = take_varint(block, at)
        length, at = take_varint(block, at)
        key = key[:shared] + block[at : at + added]
        yield key, block[at + added : at + added + length]
        at += added + length


def block_of(table: bytes, handle: bytes) -> tuple[bytes, bytes]:
    """(the contents of the block that a handle names, what follows the handle)."""
    offset, at = take_varint(handle, 0)
    size, at = take_varint(handle, at)
    stored = int.from_bytes(table[offset + size + 1 : offset + size + 5], "little")
    if stored != masked_crc32c(table[offset : offset + size + 1]):
        raise ValueError("checksum")
    return table[offset : offset + size], handle[at:]


def table_pairs(table: bytes) -> list[tuple[bytes, bytes]]:
    _, rest = block_of(table, table[-48:-8])
    index, _ = block_of(table, rest)
    return [
        pair
        for _, handle in table_entries(index)
        for pair in table_entries(block_of(table, handle)[0])
    ]


def contents_of(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A block's contents, each key written out."""
    entries = b"".join(
        varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in pairs
    )
    return entries + struct.pack("<II", 0, 1)


def table_of(blocks: list[bytes]) -> bytes:
    """An SSTable of blocks' contents, its checksums right."""
    table, handles = bytearray(), []

    def add(contents: bytes) -> bytes:
        handle = varint(len(table)) + varint(len(contents))
        table.extend(contents + b"\0")
        crc = masked_crc32c(contents + b"\0")
        table.extend(crc.to_bytes(4, "little"))
        return handle

    for number, block in enumerate(blocks):
        handles.append((b"\xff" * (number + 1), add(block)))
    metaindex = add(contents_of([]))
    index = add(contents_of(handles))
    return bytes(table) + (metaindex + index).ljust(40, b"\0")[:40] + MAGIC


def tf_entry(fields: list[list]) -> dict:
    """What the fields of a BundleEntryProto say; what is not there is 0.

    (A field of another wire type than its own is an unknown field, and ignored.)
    """
    entry: dict = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0, "shape": [], "slices": []}
    for number, wire, value in fields:
        match number, wire:
            case 2, 2:
                dims = [d for n, w, d in take_fields(value) if (n, w) == (2, 2)]
                entry["shape"] = [numbers(dim).get(1, 0) for dim in dims]
            case 7, 2:
                extents = [e for n, w, e in take_fields(value) if (n, w) == (1, 2)]
                entry["slices"].append([numbers(e) for e in extents])
            case 6, 5:
                entry[6] = int.from_bytes(value, "little")
            case 1 | 3 | 4 | 5, 0:
                entry[number] = value
    return entry


def numbers(message: bytes) -> dict[int, int]:
    """The fields of a message that are whole numbers; the last of each counts."""
    return {number: n for number, wire, n in take_fields(message) if wire == 0}


class TensorFlow(Format):
    name = "tensorflow"
    share = 4
    gate = ("minigpt2.checkpoints.tf_bundle", "_parse_header")
    modules = ("checkpoints/tf_bundle.py", "checkpoints/sstable.py")
    INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"

    def make_bases(self) -> list[Base]:
        bases = []
        for dtype in (None, "bfloat16"):
            files = written(
                lambda folder, dtype=dtype: save_tf_bundle(
                    folder / "model.ckpt", ARRAYS, dtype
                )
            )
            bases.append(Base(files, self.witness(files)))
        for partitioned in (False, True):
            files = self._by_hand(partitioned)
            bases.append(Base(files, self.witness(files)))
        return bases

    def _by_hand(self, partitioned: bool) -> Files:
        """A big-endian bundle of two data files, or one of a partitioned variable."""
        array = ARRAYS["wte.weight"].astype(">f4" if not partitioned else "<f4")
        header = [[1, 0, 2 - partitioned], [2, 0, 1 - partitioned], [3, 2, b"\x08\x01"]]
        pairs = [(b"", message_of(header))]
        halves = [array[:2].tobytes(), array[2:].tobytes()]
        if partitioned:
            extents = [
                message_of(
                    [[1, 2, message_of([[1, 0, start], [2, 0, length]])], [1, 2, b""]]
                )
                for start, length in ((0, 2), (2, 3))
            ]
            whole = [*self._fields((5, 4), 0, 0, b""), [7, 2, extents[0]]]
            pairs.append((b"full", message_of([*whole, [7, 2, extents[1]]])))
            for start, length, data in ((0, 2, halves[0]), (2, 3, halves[1])):
                key = slice_key("full", ((start, length), (0, -1)))
                offset = 0 if start == 0 else len(halves[0])
                fields = self._fields((length, 4), 0, offset, data)
                pairs.append((key, message_of(fields)))
            data = {"model.ckpt.data-00000-of-00001": b"".join(halves)}
        else:
            for shard, (name, half) in enumerate(zip((b"a", b"b"), halves)):
                shape = (len(half) // 16, 4)
                pairs.append((name, message_of(self._fields(shape, shard, 0, half))))
            data = {
                f"model.ckpt.data-{shard:05d}-of-00002": half
                for shard, half in enumerate(halves)
            }
        return {
            self.INDEX: table_of([contents_of(sorted(pairs))]),
            "checkpoint": b'model_checkpoint_path: "model.ckpt"\n',
        } | data

    def _fields(
        self, shape: tuple[int, ...], shard: int, offset: int, data: bytes
    ) -> list[list]:
        dims = message_of([[2, 2, message_of([[1, 0, length]])] for length in shape])
        crc = masked_crc32c(data).to_bytes(4, "little")
        return [
            [1, 0, 1], [2, 2, dims], [3, 0, shard], [4, 0, offset],
            *([5, 0, len(data)], [6, 5, crc]),
        ]  # fmt: skip

    def unpacked(self, files: Files) -> Any:
        pairs = [[key, take_fields(v)] for key, v in table_pairs(files[self.INDEX])]
        return {"pairs": pairs, "raw": None, "files": dict(files)}

    def change(self, parts: Any, rng: random.Random) -> None:
        pairs, files = parts["pairs"], parts["files"]
        pair = rng.choice(pairs or [[b"", []]])
        match rng.randrange(12):
            case 0 | 1:
                data = rng.choice(sorted(name for name in files if ".data" in name))
                mutate = rng.choice((mutate_same_length, mutate_bytes))
                files[data] = mutate(files[data], rng)
            case 2:
                files["checkpoint"] = mutate_text(files["checkpoint"], rng)
            case 3:
                parts["raw"] = rng.getrandbits(32)
            case 4:
                pair[0] = mutate_bytes(pair[0], rng)
            case 5 if pairs:
                match rng.randrange(3):
                    case 0:
                        pairs.remove(pair)
                    case 1:
                        pairs.append(copy.deepcopy(pair))
                    case _:
                        pair[1] = copy.deepcopy(rng.choice(pairs)[1])
            case _:
                self._change_fields(pair[1], rng)

    def _change_fields(self, fields: list[list], rng: random.Random) -> None:
        if not fields:
            fields.append([rng.randrange(9), 0, rng.choice(NUMBERS)])
            return
        field = rng.choice(fields)
        match rng.randrange(7):
            case 0:
                fields.remove(field)
            case 1:
                fields.append(list(field))
            case 2:
                field[0] = rng.randrange(10)
            case 3 if isinstance(field[2], bytes) and field[1] == 2:
                field[2] = mutate_bytes(field[2], rng)
            case 4 if isinstance(field[2], bytes) and field[1] == 2:
                try:
                    inner = take_fields(field[2])
                except (ValueError, IndexError):
                    return
                self._change_fields(inner, rng)
                field[2] = message_of(inner)
            case _ if field[1] == 0:
                field[2] = rng.choice((field[2] + 1, field[2] - 1, *NUMBERS))

    def packed(self, parts: Any) -> Files:
        files, pairs = parts["files"], []
        shards = sorted(name for name in files if ".data" in name)
        for key, fields in parts["pairs"]:
            if key:
                try:
                    entry = tf_entry(fields)
                    data = files[shards[entry[3]]][entry[4] : entry[4] + entry[5]]
                    crc = masked_crc32c(data).to_bytes(4, "little")
                except (ValueError, IndexError, TypeError):
                    crc = bytes(4)
                for field in fields:
                    if field[0] == 6 and field[1] == 5:
                        field[2] = crc
            pairs.append((key, message_of(fields)))
        contents = contents_of(sorted(pairs))
        if parts["raw"] is not None:
            contents = mutate_bytes(contents, random.Random(parts["raw"]))
        return files | {self.INDEX: table_of([contents])}

    def witness(self, files: Files) -> Arrays:
        pairs = dict(table_pairs(files[self.INDEX]))
        header = numbers(pairs.pop(b""))
        entries = {key: tf_entry(take_fields(value)) for key, value in pairs.items()}
        arrays = {}
        for key, entry in entries.items():
            if key[:1] == b"\0" or entry[1] not in TF_DTYPES:
                continue
            if entry["slices"]:
                full = np.zeros(entry["shape"], TF_DTYPES[entry[1]])
                for extents in entry["slices"]:
                    place = [(e.get(1, 0), e.get(2, -1)) for e in extents]
                    part = entries[slice_key(key.decode(), place)]
                    box = tuple(
                        slice(start, None if length == -1 else start + length)
                        for start, length in place
                    )
                    full[box] = self._array(part, files, header)
                array = full
            else:
                array = self._array(entry, files, header)
            array = array.astype(array.dtype.newbyteorder("="))
            array = widened(array) if entry[1] == 14 else array
            arrays[key.decode(errors="backslashreplace")] = array
        return arrays

    def _array(self, entry: dict, files: Files, header: dict) -> np.ndarray:
        raw = b""
        if entry[5]:
            data = files[f"model.ckpt.data-{entry[3]:05d}-of-{header.get(1, 0):05d}"]
            raw = data[entry[4] : entry[4] + entry[5]]
        if masked_crc32c(raw) != entry[6]:
            raise ValueError("checksum")
        order = {0: "<", 1: ">"}[header.get(2, 0)]
        return np.frombuffer(raw, order + TF_DTYPES[entry[1]]).reshape(entry["shape"])
