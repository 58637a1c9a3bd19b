"""The formats that minigpt2 reads, as the fuzzer sees them.

A format has base files with the tensors that are in them; it mutates them, with and
without making checksums and lengths right again; it reads them by minigpt2; and it has a
second reader, the *witness*, which shares no code with minigpt2's: the standard
library's pickle and zipfile, numpy.load, or a few lines by the format's definition.

The rule of numbers: what minigpt2 reads of a mutated file must be, bit for bit, what was
in the base file; or else what the witness, which verifies all checksums that the format
has, reads of the same mutated file. Anything else is a wrong number.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import pickletools
import random
import struct
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fuzz_mutations import (
    NUMBERS,
    dump_json,
    mutate_bytes,
    mutate_json,
    mutate_same_length,
    mutate_text,
)

Files = dict[str, bytes]
Arrays = dict[str, np.ndarray]


class Base(NamedTuple):
    """Sound files, and the arrays that are in them."""

    files: Files
    arrays: Arrays


class Wrong(Exception):
    """A result that cannot be right, found by reading with minigpt2."""


class Format:
    """One format: see the top of this file."""

    name = ""
    # The function of minigpt2 that is only called once the header has been believed; of
    # files that people edit, the one that returns once the text is JSON.
    gate = ("", "")
    modules: tuple[str, ...] = ()  # whose lines are counted
    refusals: tuple[type[Exception], ...] = (ValueError, OSError)
    names_file = True  # a refusal must say which file
    limited = True  # in memory: what compiles cannot be
    lists_all = True  # `read` gives every tensor that the witness gives

    def __init__(self) -> None:
        self.bases = self.make_bases()

    def make_bases(self) -> list[Base]:
        raise NotImplementedError

    def mutated(self, base: Base, rngs: list[random.Random], repaired: bool) -> Files:
        """Return the files of a base after one mutation for each generator.

        Args:
            repaired: make checksums and lengths right again, so that mutations are
                read. Otherwise bytes are changed as they lie in the files.
        """
        files = dict(base.files)
        if not repaired:
            for rng in rngs:
                name = rng.choice(sorted(files))
                files[name] = mutate_bytes(files[name], rng)
            return files
        parts = self.unpacked(files)
        for rng in rngs:
            self.change(parts, rng)
        return self.packed(parts)

    def unpacked(self, files: Files) -> Any:
        raise NotImplementedError

    def change(self, parts: Any, rng: random.Random) -> None:
        raise NotImplementedError

    def packed(self, parts: Any) -> Files:
        raise NotImplementedError

    def read(self, folder: Path) -> Arrays:
        """Return what minigpt2 reads; what it raises is the verdict."""
        raise NotImplementedError

    def witness(self, files: Files) -> Arrays | None:
        """Return what another reader reads, whatever it raises; None: there is none."""
        raise NotImplementedError

    def use(self, folder: Path) -> None:
        """Use what was read: here a refusal need not name the file."""


def checked(file: Any) -> Arrays:
    """Return all tensors of an open checkpoint, which must be what it announces."""
    arrays = {}
    for name in file:
        array = file[name]
        if array.shape != file.shape(name) or array.dtype != file.dtype(name):
            raise Wrong(f"{name!r} is not of the shape and dtype that were announced")
        if array.flags.writeable:
            raise Wrong(f"{name!r} can be written to")
        arrays[name] = array
    return arrays


def sample(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(kind).kind in "fc":
        return rng.standard_normal(shape).astype(kind)
    return rng.integers(0, 100, shape).astype(kind)


ARRAYS = {
    "wte.weight": sample("float32", (5, 4), 1),
    "h.0.ln_1.bias": sample("float16", (3,), 2),
    "ids": sample("int64", (2, 3), 3),
    "scalar": sample("float64", (), 4),
    "empty": sample("float32", (0, 3), 5),
}


def widened(bits: np.ndarray) -> np.ndarray:
    """bfloat16's bits -> float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def written(write: Callable[[Path], object]) -> Files:
    """Return the files that a function writes into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


# --- safetensors ---

SAFETENSORS = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2",
    "BF16": "<u2", "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8",
    "I64": "<i8", "F64": "<f8", "C64": "<c8",
}  # fmt: skip


def safetensors_by_definition(data: bytes) -> Arrays:
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in SAFETENSORS:
            continue
        start, stop = entry["data_offsets"]
        array = np.frombuffer(body[start:stop], SAFETENSORS[entry["dtype"]])
        array = widened(array) if entry["dtype"] == "BF16" else array
        arrays[name] = array.reshape(entry["shape"])
    return arrays


class Safetensors(Format):
    name = "safetensors"
    gate = ("minigpt2.checkpoints.safetensors_file", "_entries")
    modules = ("checkpoints/safetensors_file.py", "checkpoints/tensor_file.py")

    def make_bases(self) -> list[Base]:
        from minigpt2.checkpoints.safetensors_file import save_safetensors

        bases = []
        for dtype in (None, "bfloat16"):
            files = written(
                lambda folder, dtype=dtype: save_safetensors(
                    folder / "model.safetensors", ARRAYS, {"format": "pt"}, dtype
                )
            )
            arrays = safetensors_by_definition(files["model.safetensors"])
            bases.append(Base(files, arrays))
        return bases

    def unpacked(self, files: Files) -> Any:
        (data,) = files.values()
        length = int.from_bytes(data[:8], "little")
        return {
            "header": json.loads(data[8 : 8 + length]),
            "text": None,
            "body": data[8 + length :],
            "fit": True,
        }

    def change(self, parts: Any, rng: random.Random) -> None:
        match rng.randrange(8):
            case 0 | 1:
                parts["body"] = mutate_same_length(parts["body"], rng)
            case 2:
                parts["text"] = rng.getrandbits(32)  # of the header's bytes
            case 3:
                parts["body"] = mutate_bytes(parts["body"], rng)
            case 4:
                entry = rng.choice([e for e in parts["header"].values()] or [{}])
                if isinstance(entry, dict) and isinstance(entry.get("shape"), list):
                    rng.shuffle(entry["shape"])
                    entry["dtype"] = rng.choice([*SAFETENSORS, "F8_E4M3", "x"])
            case 5:
                entries = [e for e in parts["header"].values() if isinstance(e, dict)]
                offsets = [
                    e for e in entries if isinstance(e.get("data_offsets"), list)
                ]
                if offsets:
                    entry = rng.choice(offsets)
                    number = rng.choice(NUMBERS)
                    entry["data_offsets"] = rng.choice(
                        ([0, number], [number, number], entry["data_offsets"][::-1])
                    )
            case _:
                parts["header"] = mutate_json(parts["header"], rng)
                if not isinstance(parts["header"], dict):
                    parts["header"] = {"x": parts["header"]}

    def packed(self, parts: Any) -> Files:
        text = dump_json(parts["header"])
        if parts["text"] is not None:
            text = mutate_bytes(text, random.Random(parts["text"]))
        text += b" " * (-(8 + len(text)) % 64)
        return {
            "model.safetensors": len(text).to_bytes(8, "little") + text + parts["body"]
        }

    def read(self, folder: Path) -> Arrays:
        from minigpt2.checkpoints.open import open_checkpoint

        return checked(open_checkpoint(folder / "model.safetensors"))

    def witness(self, files: Files) -> Arrays:
        return safetensors_by_definition(files["model.safetensors"])


class Shards(Format):
    name = "shard index"
    gate = ("minigpt2.checkpoints.open", "SafetensorsFile")
    modules = ("checkpoints/open.py",)
    INDEX = "model.safetensors.index.json"

    def make_bases(self) -> list[Base]:
        from minigpt2.checkpoints.safetensors_file import save_safetensors

        def write(folder: Path) -> None:
            places = {}
            for number, names in enumerate((["wte.weight", "ids"], ["scalar"])):
                file = f"model-{number}.safetensors"
                save_safetensors(folder / file, {name: ARRAYS[name] for name in names})
                places |= dict.fromkeys(names, file)
            index = {"metadata": {"total_size": 8}, "weight_map": places}
            (folder / self.INDEX).write_bytes(dump_json(index))

        files = written(write)
        return [Base(files, self.witness(files))]

    def unpacked(self, files: Files) -> Any:
        return dict(files) | {self.INDEX: json.loads(files[self.INDEX])}

    def change(self, parts: Any, rng: random.Random) -> None:
        if rng.randrange(4):
            parts[self.INDEX] = mutate_json(parts[self.INDEX], rng)
        else:
            shard = rng.choice([name for name in parts if name != self.INDEX])
            parts[shard] = mutate_same_length(parts[shard], rng)

    def packed(self, parts: Any) -> Files:
        return parts | {self.INDEX: dump_json(parts[self.INDEX])}

    def read(self, folder: Path) -> Arrays:
        from minigpt2.checkpoints.open import open_checkpoint

        return checked(open_checkpoint(folder / self.INDEX))

    def witness(self, files: Files) -> Arrays:
        places = json.loads(files[self.INDEX])["weight_map"]
        return {
            name: safetensors_by_definition(files[file])[name]
            for name, file in places.items()
        }


class Quantized(Safetensors):
    """Our own file of quantized parameters, as far as it goes beyond safetensors."""

    name = "quantized"
    lists_all = False
    gate = ("minigpt2.checkpoints.safetensors_file", "_entries")
    modules = ("quantization/files.py",)
    NAME, SHAPE = "transformer.h.0.attn.c_attn.weight", (24, 64)

    def make_bases(self) -> list[Base]:
        from minigpt2.checkpoints.safetensors_file import save_safetensors
        from minigpt2.quantization import quantized

        bases = []
        rows = sample("float32", self.SHAPE, 6)
        for weights in ("int8", "int4", "bfloat16"):
            arrays = quantized(rows, weights).arrays()
            tensors = dict(zip((self.NAME, self.NAME + "_scale"), arrays))
            metadata = {"format": "minigpt2", "weights": weights}
            files = written(
                lambda folder, t=tensors, m=metadata: save_safetensors(
                    folder / "model.safetensors", t, m
                )
            )
            bases.append(Base(files, dict(tensors)))
        return bases

    def read(self, folder: Path) -> Arrays:
        from minigpt2.checkpoints.open import open_checkpoint
        from minigpt2.quantization.files import read_quantized, weight_format_of

        file = open_checkpoint(folder / "model.safetensors")
        weights = weight_format_of(file)
        if weights == "float32":
            return checked(file)
        try:
            matrix = read_quantized(file, self.NAME, self.SHAPE, weights)
        except ValueError as error:  # as loading a model does
            raise ValueError(f"{file.path}: {error}") from None
        if not np.asarray(matrix).shape == self.SHAPE:
            raise Wrong("a matrix of another shape")
        return dict(zip((self.NAME, self.NAME + "_scale"), matrix.arrays()))

    def witness(self, files: Files) -> Arrays:
        return safetensors_by_definition(files["model.safetensors"])


# --- TensorFlow ---

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
    from minigpt2.checkpoints.crc32c import masked_crc32c

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
    from minigpt2.checkpoints.crc32c import masked_crc32c

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
    """What the fields of a BundleEntryProto say; what is not there is 0."""
    entry: dict = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0, "shape": [], "slices": []}
    for number, wire, value in fields:
        if number == 2:
            dims = [
                dict(_two(take_fields(d))) for n, _, d in take_fields(value) if n == 2
            ]
            entry["shape"] = [dim.get(1, 0) for dim in dims]
        elif number == 7:
            extents = [take_fields(e) for n, _, e in take_fields(value) if n == 1]
            entry["slices"].append([dict(_two(e)) for e in extents])
        elif number == 6:
            entry[6] = int.from_bytes(value, "little") if wire == 5 else value
        elif number in entry:
            entry[number] = value if isinstance(value, int) else 0
    return entry


def _two(fields: list[list]) -> Iterator[tuple[int, Any]]:
    return ((number, value) for number, _, value in fields)


class TensorFlow(Format):
    name = "tensorflow"
    gate = ("minigpt2.checkpoints.tf_bundle", "_parse_entry")
    modules = ("checkpoints/tf_bundle.py", "checkpoints/sstable.py")
    INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"

    def make_bases(self) -> list[Base]:
        from minigpt2.checkpoints.tf_bundle_writer import save_tf_bundle

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
        from minigpt2.checkpoints.crc32c import masked_crc32c

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
        from minigpt2.checkpoints.crc32c import masked_crc32c

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

    def read(self, folder: Path) -> Arrays:
        from minigpt2.checkpoints.open import open_checkpoint

        return checked(open_checkpoint(folder))

    def witness(self, files: Files) -> Arrays:
        pairs = dict(table_pairs(files[self.INDEX]))
        header = dict(_two(take_fields(pairs.pop(b""))))
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
        from minigpt2.checkpoints.crc32c import masked_crc32c

        raw = b""
        if entry[5]:
            data = files[f"model.ckpt.data-{entry[3]:05d}-of-{header.get(1, 0):05d}"]
            raw = data[entry[4] : entry[4] + entry[5]]
        if masked_crc32c(raw) != entry[6]:
            raise ValueError("checksum")
        order = {0: "<", 1: ">"}[header.get(2, 0)]
        return np.frombuffer(raw, order + TF_DTYPES[entry[1]]).reshape(entry["shape"])


def slice_key(name: str, extents: Any) -> bytes:
    """The key of a slice, by ordered_code.cc; the tests hold it to TensorFlow's bytes."""
    from minigpt2.checkpoints.tf_bundle import _slice_key

    return _slice_key(name, extents)


# --- PyTorch ---

TORCH = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16", "LongStorage": "i8", "IntStorage": "i4",
    "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
    "ComplexFloatStorage": "c8", "ComplexDoubleStorage": "c16", "UntypedStorage": "u1",
}  # fmt: skip


class _Pickled(NamedTuple):
    """What stands for a tensor: its storage (kind, key, length) and the view of it."""

    storage: tuple
    offset: int
    shape: tuple
    strides: tuple
    kind: str | None


class _Dtype(str):
    """A torch dtype by its NumPy name."""


class _Unpickler(pickle.Unpickler):
    """The standard library's pickle machine; nothing it names is imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in (
            "_rebuild_tensor",
            "_rebuild_tensor_v2",
        ):
            return lambda storage, offset, shape, strides, *_: _Pickled(
                storage, offset, shape, strides, None
            )
        if (module, name) == ("torch._utils", "_rebuild_tensor_v3"):
            return lambda storage, offset, shape, strides, grad, hooks, dtype, *_: (
                _Pickled(storage, offset, shape, strides, str(dtype))
            )
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if (module, name) == ("torch", "Size"):
            return tuple
        if module in ("torch", "torch.storage") and name in TORCH:
            return TORCH[name]
        if module == "torch" and name in ("uint16", "uint32", "uint64"):
            return _Dtype(name)
        raise ValueError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> tuple:
        _, kind, key, _, length = pid[:5]
        return kind, key, length


def torch_views(state: Any, storages: dict[str, bytes], order: str) -> Arrays:
    """The tensors of a state dict, given the storages' bytes."""
    arrays = {}
    for name, value in state.items():
        if not isinstance(value, _Pickled) or not isinstance(name, str):
            continue
        kind = value.kind or value.storage[0]
        stored = np.dtype("u2" if kind == "bfloat16" else kind).newbyteorder(order)
        items = np.frombuffer(storages[value.storage[1]], stored)
        array = np.empty(value.shape, stored)
        for place in np.ndindex(*value.shape):
            at = value.offset + sum(i * s for i, s in zip(place, value.strides))
            array[place] = items[at]
        array = array.astype(array.dtype.newbyteorder("="))
        arrays[name] = widened(array) if kind == "bfloat16" else array
    return arrays


class _Storage:
    """Pickles as torch does it: a reference to bytes outside the pickle."""

    def __init__(self, kind: str, key: str, length: int):
        self.reference = ("storage", _Name("torch", kind), key, "cpu", length)


class _Name:
    """Pickles as the global `module.name`."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class _Call:
    """Pickles as a call of a global."""

    def __init__(self, function: _Name, arguments: tuple):
        self.function, self.arguments = function, arguments


class _Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Writes what torch.save writes: globals by name, storages by reference."""

    def persistent_id(self, value: Any) -> Any:
        return value.reference if isinstance(value, _Storage) else None

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Name):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, _Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(value, save_persistent_id)


def torch_state(legacy: bool) -> tuple[bytes, dict[str, tuple[str, bytes]]]:
    """(the pickle of a state dict, key -> (kind, bytes) of its storages)."""
    float32, half = ARRAYS["wte.weight"], ARRAYS["h.0.ln_1.bias"]
    bits = (float32.view(np.uint32) >> 16).astype(np.uint16)
    storages = {
        "0": ("FloatStorage", float32.tobytes()),
        "1": ("HalfStorage", half.tobytes()),
        "2": ("BFloat16Storage", bits.tobytes()),
    }
    lengths = {"0": 20, "1": 3, "2": 20}

    def tensor(key: str, offset: int, shape: tuple, strides: tuple) -> _Call:
        storage = _Storage(storages[key][0], key, lengths[key])
        if legacy:
            storage.reference += (None,)
        hooks = _Call(_Name("collections", "OrderedDict"), ())
        arguments = (storage, offset, shape, strides, False, hooks)
        return _Call(_Name("torch._utils", "_rebuild_tensor_v2"), arguments)

    state = {
        "wte.weight": tensor("0", 0, (5, 4), (4, 1)),
        "transposed": tensor("0", 4, (4, 2), (1, 4)),
        "h.0.ln_1.bias": tensor("1", 0, (3,), (1,)),
        "bits": tensor("2", 0, (20,), (1,)),
        "step": 7,
    }
    buffer = io.BytesIO()
    _Pickler(buffer, 2).dump(state)
    return buffer.getvalue(), storages


def mutate_pickle(program: bytes, rng: random.Random) -> bytes:
    """Return a pickle with one instruction changed, or one byte."""
    if rng.randrange(3) == 0:
        return mutate_bytes(program, rng)
    try:
        starts = [at for _, _, at in pickletools.genops(program)]
    except ValueError:
        return mutate_bytes(program, rng)
    ends = [*starts[1:], len(program)]
    pieces = [program[a:b] for a, b in zip(starts, ends)]
    at = rng.randrange(len(pieces))
    match rng.randrange(6):
        case 0:
            del pieces[at]
        case 1:
            pieces.insert(at, pieces[at])
        case 2:
            other = rng.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        case 3:
            pieces.insert(
                at,
                rng.choice(
                    (b"(", b")", b"0", b"2", b"]", b"}", b"N", b"\x85", b"t", b"u", b"s",
                     b"e", b"a", b"R", b"b", b"Q", b"h\x00", b"K\x01", b"\x88", b".",
                     b"J\xff\xff\xff\xff", b"r\xff\xff\xff\x7f", b"cos\nsystem\n",
                     b"\x8a\x09" + b"\xff" * 8 + b"\x00", b"G\x7f\xf8\0\0\0\0\0\0"),
                ),
            )  # fmt: skip
        case 4:
            numbers = [n for n, piece in enumerate(pieces) if piece[:1] in b"KMJ"]
            if numbers:
                number = rng.choice(NUMBERS)
                pieces[rng.choice(numbers)] = pickle.dumps(number, 2)[2:-1]
        case _:
            pieces[at] = mutate_bytes(pieces[at], rng)
    return b"".join(pieces)


class TorchZip(Format):
    name = "torch zip"
    gate = ("minigpt2.checkpoints.torch_file", "read_pickle")
    modules = ("checkpoints/torch_file.py", "checkpoints/inert_pickle.py")
    FILE = "pytorch_model.bin"

    def make_bases(self) -> list[Base]:
        program, storages = torch_state(legacy=False)
        bases = []
        for order in ("little", "big"):
            members = {"archive/data.pkl": program, "archive/byteorder": order.encode()}
            for key, (kind, raw) in storages.items():
                if order == "big":
                    width = {"FloatStorage": "u4"}.get(kind, "u2")
                    raw = np.frombuffer(raw, width).byteswap().tobytes()
                members[f"archive/data/{key}"] = raw
            members["archive/version"] = b"3\n"
            files = self.packed({"members": list(map(list, members.items()))})
            bases.append(Base(files, self.witness(files)))
        return bases

    def unpacked(self, files: Files) -> Any:
        with zipfile.ZipFile(io.BytesIO(files[self.FILE])) as archive:
            return {
                "members": [[name, archive.read(name)] for name in archive.namelist()]
            }

    def change(self, parts: Any, rng: random.Random) -> None:
        members = parts["members"]
        match rng.randrange(8):
            case 0:
                member = rng.choice(members)
                member[0] = rng.choice(
                    (rng.choice(members)[0], member[0][1:], member[0] + "x", "data.pkl")
                )
            case 1 if len(members) > 1:
                members.remove(rng.choice(members))
            case 2 | 3:
                member = rng.choice(members)
                mutate = rng.choice((mutate_same_length, mutate_bytes))
                member[1] = mutate(member[1], rng)
            case _:
                for member in members:
                    if member[0].endswith("data.pkl"):
                        member[1] = mutate_pickle(member[1], rng)

    def packed(self, parts: Any) -> Files:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a name that is there twice
            for name, data in parts["members"]:
                archive.writestr(zipfile.ZipInfo(name.replace("\0", "") or "x"), data)
        return {self.FILE: buffer.getvalue()}

    def read(self, folder: Path) -> Arrays:
        from minigpt2.checkpoints.open import open_checkpoint

        return checked(open_checkpoint(folder / self.FILE))

    def witness(self, files: Files) -> Arrays:
        with zipfile.ZipFile(io.BytesIO(files[self.FILE])) as archive:
            names = archive.namelist()
            (name,) = (name for name in names if name.endswith("/data.pkl"))
            folder = name.removesuffix("data.pkl")
            state = _Unpickler(io.BytesIO(archive.read(name))).load()
            order = b"little"
            if f"{folder}byteorder" in names:
                order = archive.read(f"{folder}byteorder")
            used = {v.storage[1] for v in state.values() if isinstance(v, _Pickled)}
            storages = {key: archive.read(f"{folder}data/{key}") for key in used}
        return torch_views(state, storages, {b"little": "<", b"big": ">"}[order])


class TorchLegacy(Format):
    """No checksums; what is repaired are the lengths, and the pickles stay pickles."""

    name = "torch legacy"
    gate = ("minigpt2.checkpoints.torch_file", "_read_legacy")
    modules = ("checkpoints/torch_file.py", "checkpoints/inert_pickle.py")
    FILE = "pytorch_model.bin"

    def make_bases(self) -> list[Base]:
        program, storages = torch_state(legacy=True)
        pickles = [
            *(
                pickle.dumps(v, 2)
                for v in (0x1950A86A20F9469CFC6C, 1001, {"little": 1})
            ),
            *(program, pickle.dumps(list(storages), 2)),
        ]
        widths = {"FloatStorage": 4}
        raws = [
            [len(raw) // widths.get(kind, 2), raw] for kind, raw in storages.values()
        ]
        files = self.packed({"pickles": pickles, "raws": raws})
        return [Base(files, self.witness(files))]

    def unpacked(self, files: Files) -> Any:
        stream = io.BytesIO(files[self.FILE])
        pickles = []
        for _ in range(5):
            start = stream.tell()
            value = _Unpickler(stream).load()
            pickles.append(files[self.FILE][start : stream.tell()])
        raws = []
        for width in (4, 2, 2)[: len(value)]:
            count = int.from_bytes(stream.read(8), "little")
            raws.append([count, stream.read(count * width)])
        return {"pickles": pickles, "raws": raws}

    def change(self, parts: Any, rng: random.Random) -> None:
        match rng.randrange(6):
            case 0:
                raw = rng.choice(parts["raws"])
                raw[0] = rng.choice((raw[0] + 1, raw[0] - 1, *NUMBERS))
            case 1:
                raw = rng.choice(parts["raws"])
                mutate = rng.choice((mutate_same_length, mutate_bytes))
                raw[1] = mutate(raw[1], rng)
            case 2:
                at = rng.randrange(5)
                parts["pickles"][at] = mutate_pickle(parts["pickles"][at], rng)
            case _:
                parts["pickles"][3] = mutate_pickle(parts["pickles"][3], rng)

    def packed(self, parts: Any) -> Files:
        data = b"".join(parts["pickles"])
        for count, raw in parts["raws"]:
            data += (count % 2**64).to_bytes(8, "little") + raw
        return {self.FILE: data}

    def read(self, folder: Path) -> Arrays:
        from minigpt2.checkpoints.open import open_checkpoint

        return checked(open_checkpoint(folder / self.FILE))

    def witness(self, files: Files) -> Arrays:
        stream = io.BytesIO(files[self.FILE])
        kinds: dict[str, str] = {}

        class Unpickler(_Unpickler):
            def persistent_load(self, pid: Any) -> tuple:
                kinds[pid[2]] = pid[1]
                return super().persistent_load(pid)

        *_, state, keys = (Unpickler(stream).load() for _ in range(5))
        storages = {}
        for key in keys:
            count = int.from_bytes(stream.read(8), "little")
            kind = kinds[key]
            width = np.dtype("u2" if kind == "bfloat16" else kind).itemsize
            storages[key] = stream.read(count * width)
        return torch_views(state, storages, "<")


# --- NumPy ---


class Npz(Format):
    name = "npz"
    gate = ("minigpt2.checkpoints.npz_file", "_entry")
    modules = ("checkpoints/npz_file.py",)
    FILE = "model.npz"

    def make_bases(self) -> list[Base]:
        arrays = ARRAYS | {"fortran": np.asfortranarray(ARRAYS["wte.weight"])}
        arrays["big"] = ARRAYS["ids"].astype(">i8")
        bases = []
        for save in (np.savez, np.savez_compressed):
            files = written(lambda folder, s=save: s(folder / self.FILE, **arrays))
            bases.append(Base(files, self.witness(files)))
        return bases

    def unpacked(self, files: Files) -> Any:
        with zipfile.ZipFile(io.BytesIO(files[self.FILE])) as archive:
            return {
                "kind": archive.infolist()[0].compress_type,
                "members": [[name, archive.read(name)] for name in archive.namelist()],
                "claims": None,
            }

    def change(self, parts: Any, rng: random.Random) -> None:
        members = parts["members"]
        member = rng.choice(members)
        match rng.randrange(9):
            case 0:
                member[0] = rng.choice(
                    (rng.choice(members)[0], member[0][:-4], "x", "/")
                )
            case 1:
                parts["kind"] = rng.choice((0, 8, 12, 14, 99))
            case 2:
                parts["claims"] = rng.getrandbits(32)
            case 3:
                member[1] = mutate_bytes(member[1], rng)
            case 4:
                member[1] = member[1][:80] + mutate_same_length(member[1][80:], rng)
            case _:
                member[1] = self._change_header(member[1], rng)

    def _change_header(self, data: bytes, rng: random.Random) -> bytes:
        """A .npy file whose header says something else, its length right again."""
        length = int.from_bytes(data[8:10], "little")
        header, items = data[10 : 10 + length], data[10 + length :]
        number = str(rng.choice(NUMBERS)).encode()
        old, new = rng.choice(
            (
                (b"(", b"(" + number + b", "),
                (b"(", b"(0, " + number + b", "),
                (b"'shape': (5, 4)", b"'shape': (4, 5)"),
                (b"'shape': (5, 4)", b"'shape': (" + number + b", 4)"),
                (b"False", b"True"),
                (b"True", b"False"),
                (b"<f4", rng.choice((b">f4", b"<i4", b"<f8", b"|O", b"<U4", b"<f16"))),
                (b"<i8", rng.choice((b">i8", b"<c8", b"|V8", b"<M8", b"<i0", b"=i8"))),
                (b" ", b""),
            )
        )
        header = header.replace(old, new, 1)
        if rng.randrange(4) == 0:
            header = mutate_bytes(header, rng)
        return data[:8] + len(header).to_bytes(2, "little")[:2] + header + items

    def packed(self, parts: Any) -> Files:
        buffer = io.BytesIO()
        kind = parts["kind"] if parts["kind"] != 99 else 0
        with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, data in parts["members"]:
                info = zipfile.ZipInfo(name.replace("\0", "") or "x")
                info.compress_type = kind
                archive.writestr(info, data)
        data = bytearray(buffer.getvalue())
        if parts["claims"] is not None:  # what the directory says of one member
            rng = random.Random(parts["claims"])
            places = [n for n in range(len(data) - 46) if data[n : n + 4] == b"PK\1\2"]
            at = rng.choice(places) + rng.choice((8, 10, 16, 20, 24, 42))
            data[at : at + 4] = (rng.choice(NUMBERS) % 2**32).to_bytes(4, "little")
        return {self.FILE: bytes(data)}

    def read(self, folder: Path) -> Arrays:
        from minigpt2.checkpoints.open import open_checkpoint

        return checked(open_checkpoint(folder / self.FILE))

    def witness(self, files: Files) -> Arrays:
        with np.load(io.BytesIO(files[self.FILE]), allow_pickle=False) as arrays:
            found = {}
            for name in arrays:
                try:
                    array = np.asarray(arrays[name])
                except ValueError:  # objects, or no .npy at all
                    continue
                if array.dtype.kind in "biufc":
                    found[name] = array.astype(array.dtype.newbyteorder("="))
            return found


# --- Files that people edit ---


class Edited(Format):
    """A folder of which one file, JSON or lines, is changed; there is no other reader.

    What is accepted must work: `read` returns arrays that no such file can change, and
    `use` uses what was read.
    """

    file = ""

    def mutated(self, base: Base, rngs: list[random.Random], repaired: bool) -> Files:
        data = base.files[self.file]
        if self.file.endswith(".json") and repaired:
            tree = json.loads(data)
            for rng in rngs:
                tree = mutate_json(tree, rng)
            return base.files | {self.file: dump_json(tree)}
        for rng in rngs:
            data = mutate_text(data, rng)
        return base.files | {self.file: data}

    def witness(self, files: Files) -> None:
        return None


def tiny_config(**fields: Any) -> dict:
    return {
        "model_type": "gpt2", "vocab_size": 300, "n_positions": 16, "n_ctx": 16,
        "n_embd": 8, "n_layer": 2, "n_head": 2, "n_inner": None,
        "activation_function": "gelu_new", "resid_pdrop": 0.1, "embd_pdrop": 0.1,
        "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-5, "initializer_range": 0.02,
        "bos_token_id": 299, "eos_token_id": 299, "scale_attn_weights": True,
        "pruned_heads": {}, "tie_word_embeddings": True,
        "architectures": ["GPT2LMHeadModel"],
        "use_cache": True, "dtype": "float32", "num_labels": 1, "summary_type": "cls_index",
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    } | fields  # fmt: skip


def tiny_model(**fields: Any) -> Any:
    from minigpt2 import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(**tiny_config(**fields)), backend="numpy")


def parameters(model: Any) -> Arrays:
    return {name: np.asarray(array) for name, array in model.state_dict().items()}


class Config(Edited):
    name = "config.json"
    file = "config.json"
    gate = ("minigpt2.config", "read_json")
    modules = ("config.py",)

    def make_bases(self) -> list[Base]:
        model = tiny_model()
        bases = []
        for weights in ("float32", "int8"):
            made = model.with_weights(weights)
            files = written(made.save_pretrained)
            said = json.loads(files["config.json"])
            files["config.json"] = dump_json(tiny_config() | said)
            bases.append(Base(files, self._read(files)))
        return bases

    def _read(self, files: Files) -> Arrays:
        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                (Path(folder) / name).write_bytes(data)
            return {
                name: array.copy() for name, array in self.read(Path(folder)).items()
            }

    def read(self, folder: Path) -> Arrays:
        from minigpt2 import GPT2LMHeadModel

        self.model = GPT2LMHeadModel.from_pretrained(folder, backend="numpy")
        return parameters(self.model)

    def use(self, folder: Path) -> None:
        self.model([[1, 2, 3]])
        self.model.generate(
            [[1, 2, 3]], max_new_tokens=2, eos_token_id=[], pad_token_id=0
        )
        again = type(self.model.config).from_dict(
            json.loads(self.model.config.to_json_string())
        )
        if (
            again != self.model.config
            and "NaN" not in self.model.config.to_json_string()
        ):
            raise Wrong("a configuration that does not survive being written and read")


class Hparams(Config):
    name = "hparams.json"
    file = "hparams.json"

    def make_bases(self) -> list[Base]:
        from minigpt2.checkpoints.names import openai_name
        from minigpt2.checkpoints.tf_bundle_writer import save_tf_bundle

        model = tiny_model()
        tensors = {
            openai_name(name.removeprefix("transformer.")): array
            for name, array in parameters(model).items()
            if not name.startswith("lm_head")
        }
        files = written(lambda folder: save_tf_bundle(folder / "model.ckpt", tensors))
        hparams = {"n_vocab": 300, "n_ctx": 16, "n_embd": 8, "n_head": 2, "n_layer": 2}
        files["hparams.json"] = dump_json(hparams)
        return [Base(files, self._read(files))]


class Generation(Edited):
    name = "generation_config.json"
    file = "generation_config.json"
    gate = ("minigpt2.generation.config", "read_json")
    modules = ("generation/config.py", "generation/options.py")

    def make_bases(self) -> list[Base]:
        self.model = tiny_model()
        options: list[dict] = [
            {"eos_token_id": [299], "pad_token_id": 0, "max_length": 6, "do_sample": True,
             "temperature": 0.7, "top_k": 5, "top_p": 0.9, "seed": 1, "min_length": 4,
             "repetition_penalty": 1.2, "bad_words_ids": [[1, 2], [3]],
             "sequence_bias": [[[1], 0.5]], "transformers_version": "4.57.0",
             "exponential_decay_length_penalty": [3, 1.1]},
            {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5,
             "early_stopping": "never", "max_length": 5, "no_repeat_ngram_size": 2,
             "suppress_tokens": [1], "begin_suppress_tokens": [2],
             "forced_eos_token_id": 299, "forced_bos_token_id": 1,
             "_from_model_config": True},
        ]  # fmt: skip
        return [Base({self.file: dump_json(each)}, {}) for each in options]

    def read(self, folder: Path) -> Arrays:
        from minigpt2 import GenerationConfig

        self.config = GenerationConfig.from_pretrained(folder)
        return {}

    def use(self, folder: Path) -> None:
        config = self.config
        few = {"max_new_tokens": 2, "max_time": 2.0}
        for name in ("num_beams", "num_return_sequences", "num_beam_groups"):
            if getattr(config, name, 1) > 64:
                return  # an honest request for much work
        self.model.generate([[1, 2, 3]], generation_config=config, **few)


class Tokenizer(Edited):
    """A file of a tokenizer's folder, each of them in turn."""

    gate = ("minigpt2.tokenizer.files", "read_json")
    modules = (
        *("tokenizer/files.py", "tokenizer/gpt2.py", "tokenizer/vocabulary.py"),
        *("tokenizer/added_tokens.py", "bpe.py"),
    )
    TEXT = "Hello  world\n<|x|> é ROMEO: <|endoftext|>"

    def __init__(self, file: str, layout: str):
        self.name, self.file, self.layout = f"{file}, {layout}", file, layout
        if file in ("vocab.json", "encoder.json"):
            self.gate = ("minigpt2.bpe", "read_json")
        elif not file.endswith(".json"):
            self.gate = ("minigpt2.tokenizer.gpt2", "FastBPE")
        super().__init__()

    def make_bases(self) -> list[Base]:
        from minigpt2 import GPT2Tokenizer
        from minigpt2.tokenizer import AddedToken

        folder = Path(__file__).parents[1] / "minigpt2/data/gpt2/vocab.bpe"
        lines = folder.read_text("utf-8").split("\n")[:31]
        with tempfile.TemporaryDirectory() as made:
            merges = Path(made) / "vocab.bpe"
            merges.write_text("\n".join([*lines, ""]), "utf-8")
            tokenizer = GPT2Tokenizer(
                None, merges, pad_token="<|pad|>", model_max_length=16
            )
            tokenizer.add_tokens([AddedToken("<|x|>", lstrip=True, single_word=True)])
            files = written(tokenizer.save_pretrained)
        if self.layout == "openai":
            files = {
                "encoder.json": files["vocab.json"],
                "vocab.bpe": files["merges.txt"],
            }
        elif self.layout == "old":
            config = json.loads(files["tokenizer_config.json"])
            del config["added_tokens_decoder"]
            files["tokenizer_config.json"] = dump_json(config)
        elif self.layout == "tokenizer.json":
            files = self._whole(files)
        return [Base(files, {})]

    def _whole(self, files: Files) -> Files:
        config = json.loads(files["tokenizer_config.json"])
        added = [
            {"id": int(id), **token}
            for id, token in config["added_tokens_decoder"].items()
        ]
        del config["added_tokens_decoder"]
        ids = json.loads(files["vocab.json"])
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        whole = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": None, "pre_tokenizer": level | {"use_regex": True},
            "post_processor": level, "decoder": level,
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False,
                "byte_fallback": False, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "vocab": ids,
                "merges": files["merges.txt"].decode().split("\n")[1:-1],
            },
        }  # fmt: skip
        return {
            "tokenizer.json": dump_json(whole),
            "tokenizer_config.json": dump_json(config),
        }

    def read(self, folder: Path) -> Arrays:
        from minigpt2 import GPT2Tokenizer

        self.tokenizer = GPT2Tokenizer.from_pretrained(folder)
        return {}

    def use(self, folder: Path) -> None:
        tokenizer = self.tokenizer
        ids = tokenizer.encode(self.TEXT)
        known = set(tokenizer.get_vocab().values())
        if not all(type(id) is int and id >= 0 and id in known for id in ids):
            raise Wrong(f"ids that are none: {ids}"[:200])
        if any(type(id) is not int or id < 0 for id in known):
            raise Wrong("a token whose id is no whole number from 0 on")
        if not isinstance(tokenizer.decode(ids), str):
            raise Wrong("no text")
        tokenizer.convert_ids_to_tokens(ids)
        tokenizer(["a", "Hello world"], truncation=True, max_length=4)
        repr(tokenizer)
        again = folder / "again"
        tokenizer.save_pretrained(again)
        if type(tokenizer).from_pretrained(again).encode(self.TEXT) != ids:
            raise Wrong("other ids after being saved and loaded")


def file_formats() -> list[Format]:
    """Every format of files."""
    return [
        *(TensorFlow(), Safetensors(), Shards(), TorchZip(), TorchLegacy(), Npz()),
        *(Quantized(), Config(), Hparams(), Generation()),
        Tokenizer("tokenizer_config.json", "hugging face"),
        Tokenizer("special_tokens_map.json", "old"),
        Tokenizer("tokenizer.json", "tokenizer.json"),
        Tokenizer("added_tokens.json", "old"),
        Tokenizer("vocab.json", "hugging face"),
        Tokenizer("merges.txt", "hugging face"),
        Tokenizer("encoder.json", "openai"),
        Tokenizer("vocab.bpe", "openai"),
    ]
