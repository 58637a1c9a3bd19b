"""TensorFlow V2 checkpoints ("tensor bundles") -> arrays, without TensorFlow.

    model.ckpt.index                 an SSTable: name -> where and what the tensor is
    model.ckpt.data-00000-of-00001   the tensors' bytes, one after the other
    checkpoint                       a line of text naming the newest prefix

The index's values are protocol buffers (tensorflow/core/protobuf/tensor_bundle.proto):

    key ""    BundleHeaderProto  1 num_shards, 2 endianness, 3 version
    key name  BundleEntryProto   1 dtype, 2 shape, 3 shard_id, 4 offset, 5 size,
                                 6 masked CRC-32C of the stored bytes, 7 slices

A partitioned variable has an entry with its full shape and its slices but no bytes;
each slice is an entry of its own, under a key made of the name and the slice's extents.
The older V1 format, a single file, is refused by name.

Sources, in tensorflow/core: util/tensor_bundle/tensor_bundle.cc,
util/saved_tensor_slice_util.cc, lib/strings/ordered_code.cc, framework/types.proto.
"""

import os
import re
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from . import CheckpointError
from .crc32c import crc32c, masked
from .protobuf import VARINT, fields
from .sstable import MAGIC, read_table
from .tensor_file import (
    ByteOrder,
    TensorFile,
    as_array,
    beginning,
    let_go,
    map_file,
    stored_size,
)

KINDS = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
}
STRING = 7

# (start, length) along each axis; length -1 is all of the axis.
Extents = tuple[tuple[int, int], ...]


class Entry(NamedTuple):
    """A BundleEntryProto: a tensor, or a slice of one."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    slices: tuple[Extents, ...] = ()

    @property
    def kind(self) -> str:
        return KINDS[self.dtype]


class TFBundle(TensorFile):
    """The tensors of a TensorFlow V2 checkpoint, by the names that it gives them.

    Args:
        path: the folder, the prefix ("model.ckpt"), the index, a data file, or the
            `checkpoint` file that names the prefix.
        verify: whether a tensor's checksum is verified when it is first read. The
            index is verified in any case, when the bundle is opened, and so is that
            each data file is there, and long enough for its tensors.

    Arrays are read-only views of the mapped data file, but for bfloat16 (widened to
    float32), big-endian files, partitioned variables and odd offsets: these are copies.
    Strings, such as the graph of a tf.train.Checkpoint's objects, are not listed.

    Raises:
        CheckpointError: for a file that is missing, damaged, or something else.
    """

    def __init__(self, path: str | os.PathLike, verify: bool = True):
        prefix = find_prefix(Path(path))
        self.verify = verify
        self._verified: set[Entry] = set()
        self._byteorder, shard_count, entries = _read_index(prefix)

        tensors, refused = {}, {}
        self._slices: dict[bytes, Entry] = {}
        for key, entry in entries.items():
            name = key.decode(errors="backslashreplace")
            if key.startswith(b"\0"):
                self._slices[key] = entry
            elif entry.dtype in KINDS:
                tensors[name] = entry
            elif entry.dtype == STRING:
                refused[name] = "made of strings"
            else:
                refused[name] = f"of TensorFlow's dtype number {entry.dtype}"
        super().__init__(prefix, tensors, refused)
        self._shards = _map_shards(prefix, shard_count, entries)

    @property
    def has_checksums(self) -> bool:
        """Whether the file has checksums, which reading a tensor verifies."""
        return True

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._tensor(name)
        if entry.slices:
            return self._join(name, entry)
        return self._read(entry, repr(name))

    def _read(self, entry: Entry, label: str) -> np.ndarray:
        raw = np.empty(0, np.uint8)
        if entry.size:
            raw = self._shards[entry.shard][entry.offset : entry.offset + entry.size]
        if self.verify and entry not in self._verified:
            computed = masked(_crc32c(raw))
            if computed != entry.crc:
                raise CheckpointError(
                    f"{self.path}: tensor {label} is damaged: its checksum is stored "
                    f"as {entry.crc:#010x}, and {computed:#010x} was computed from its "
                    f"{entry.size} bytes at {entry.offset} of data file {entry.shard} "
                    f"({beginning(raw)})"
                )
            self._verified.add(entry)
        return as_array(raw, entry.kind, entry.shape, self._byteorder)

    def _join(self, name: str, entry: Entry) -> np.ndarray:
        """Join a partitioned variable's slices, which must cover it exactly."""
        where = f"{self.path}: the partitioned tensor {name!r}"
        parts = {}
        for extents in entry.slices:
            box = _box(extents, entry.shape)
            key = _slice_key(name, extents) if box is not None else b""
            part = self._slices.get(key)
            if box is None or part is None or part.dtype != entry.dtype:
                raise CheckpointError(f"{where} has no sound slice {extents}")
            if part.shape != tuple(along.stop - along.start for along in box):
                raise CheckpointError(
                    f"{where} has a slice {extents} of the shape {part.shape}"
                )
            parts[key] = box, part, f"{name!r}, slice {extents}"

        # Before memory is asked for: no two entries share bytes of a file, so what
        # distinct slices add up to is really there.
        size = stored_size(entry.kind, entry.shape)
        found = sum(part.size for _, part, _ in parts.values())
        if found != size:
            raise CheckpointError(f"{where} has slices of {found} of its {size} bytes")
        full = np.empty(entry.shape, self.dtype(name))
        covered = np.zeros(entry.shape, bool)
        for box, part, label in parts.values():
            if covered[box].any():
                raise CheckpointError(f"{where} has slices that overlap")
            covered[box] = True
            full[box] = self._read(part, label)
        full.flags.writeable = False
        return full


def _crc32c(raw: np.ndarray, step: int = 1 << 24) -> int:
    """Return the CRC-32C of mapped bytes, with few of them in memory at a time."""
    crc = 0
    for start in range(0, len(raw), step):
        crc = crc32c(raw[start : start + step], crc)
        let_go(raw[start : start + step])
    return crc


def data_sizes(path: str | os.PathLike) -> dict[int, int]:
    """Return {data file's number: bytes that it must have}, by the index alone."""
    _, _, entries = _read_index(find_prefix(Path(path)))
    sizes: dict[int, int] = {}
    for entry in entries.values():
        end = entry.offset + entry.size
        sizes[entry.shard] = max(sizes.get(entry.shard, 0), end)
    return sizes


def find_prefix(path: Path) -> Path:
    """Return the path that a checkpoint's files begin with.

    Args:
        path: the prefix itself, a file of the checkpoint, or the folder.
    """
    if path.is_dir():
        if (path / "checkpoint").is_file():
            return _newest(path / "checkpoint")
        indexes = sorted(path.glob("*.index"))
        if len(indexes) != 1:
            some = ", ".join(str(index.with_suffix("")) for index in indexes[:8])
            raise CheckpointError(
                f"{path} has no file `checkpoint`, and {len(indexes)} that end in "
                ".index, so it names no checkpoint"
                + (f": give one of {some}" if some else "")
            )
        return indexes[0].with_suffix("")
    if path.name == "checkpoint" and path.is_file():
        return _newest(path)
    return Path(re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", str(path)))


def _newest(state: Path) -> Path:
    """Return the prefix that a `checkpoint` file names: protocol buffer text."""
    found = re.search(
        rb'^model_checkpoint_path: "((?:[^"\\\n]|\\.)*)"',
        state.read_bytes(),
        re.MULTILINE,
    )
    lacking = CheckpointError(f'{state} has no line `model_checkpoint_path: "..."`')
    if found is None:
        raise lacking
    try:
        named = Path(_ESCAPE.sub(_unescaped, found[1]).decode())
    except UnicodeError:
        raise lacking from None
    # An absolute path is from the machine that wrote it, which may have run Windows (and
    # whoever edits one by hand forgets to double each backslash). In a folder that was
    # moved or copied since, its own files are meant.
    there = state.parent / named
    if named.is_absolute() or not Path(f"{there}.index").exists():
        for text in (str(named), found[1].decode("utf-8", "replace")):
            beside = state.parent / PureWindowsPath(text).name
            if Path(f"{beside}.index").exists():
                return beside
    return there


_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9A-Fa-f]{1,2}|.)", re.DOTALL)
_ESCAPED = dict(zip(b"abfnrtv", b"\a\b\f\n\r\t\v"))


def _unescaped(found: re.Match) -> bytes:
    """Return the byte that an escape of protocol buffer text stands for."""
    code = found[1]
    if code[:1].isdigit() and code[0] < ord("8"):
        return bytes([int(code, 8) & 0xFF])
    if code[:1] == b"x" and len(code) > 1:
        return bytes([int(code[1:], 16)])
    return bytes([_ESCAPED.get(code[0], code[0])])


def _read_index(prefix: Path) -> tuple[ByteOrder, int, dict[bytes, Entry]]:
    """Return what `prefix`.index says: byte order, number of data files, {key: entry}."""
    index = Path(f"{prefix}.index")
    if not index.is_file():
        if prefix.is_file() and map_file(prefix)[-len(MAGIC) :].tobytes() == MAGIC:
            raise CheckpointError(
                f"{prefix} is a checkpoint of the V1 format; open and save it with "
                "TensorFlow's Saver(write_version=SaverDef.V2)"
            )
        shown = f"; {prefix} is something else" if prefix.is_file() else ""
        raise CheckpointError(
            f"there is no TensorFlow checkpoint {prefix}: no {index}{shown}"
        )
    header, entries = None, {}
    for key, value in read_table(index):
        try:
            if key:
                entries[key] = _parse_entry(value)
            else:
                header = _parse_header(value)
        except CheckpointError as error:
            raise CheckpointError(
                f"{index}: the entry of {_shown(key)}: {error}"
            ) from None
    if header is None:
        raise CheckpointError(f"{index} is an SSTable, but no checkpoint: no header")
    return *header, entries


def _map_shards(
    prefix: Path, count: int, entries: dict[bytes, Entry]
) -> dict[int, np.ndarray]:
    """Return {shard: bytes}, all there, and no two tensors in the same place."""
    shards: dict[int, np.ndarray] = {}
    ends: dict[int, int] = {}
    placed = [(e.shard, e.offset, e.size, key) for key, e in entries.items() if e.size]
    for shard, offset, size, key in sorted(placed):
        path = Path(f"{prefix}.data-{shard:05d}-of-{count:05d}")
        if shard not in shards:
            if not 0 <= shard < count:
                raise CheckpointError(
                    f"{prefix}.index puts {_shown(key)} into data file {shard} "
                    f"of {count}"
                )
            if not path.is_file():
                raise CheckpointError(
                    f"the data file {path}, with {_shown(key)}, is missing"
                )
            shards[shard], ends[shard] = map_file(path), 0
        end = offset + size
        if offset < ends[shard]:
            raise CheckpointError(
                f"{prefix}.index puts {_shown(key)} at {offset} of data file {shard}, "
                f"but the tensor before it ends at {ends[shard]}"
            )
        if end > len(shards[shard]):
            raise CheckpointError(
                f"{path} is truncated or something else: tensor {_shown(key)} is at "
                f"bytes {offset} to {end}, but it has {len(shards[shard])} "
                f"({beginning(shards[shard])})"
            )
        ends[shard] = end
    return shards


def _shown(key: bytes) -> str:
    return repr(key.decode(errors="backslashreplace"))[:200]


# --- Protocol buffers ---


def _numbers(message: bytes) -> dict[int, int]:
    """Return {number: value} of the fields that are varints; the last of each counts."""
    return {
        number: value
        for number, wire, value in fields(message)
        if wire == VARINT and isinstance(value, int)
    }


def _signed(value: int) -> int:
    """Return an int64 that is stored as two's complement in an unsigned number."""
    return value - 2**64 if value >= 2**63 else value


def _parse_header(message: bytes) -> tuple[ByteOrder, int]:
    shards = endianness = oldest_reader = 0  # what is left out is 0
    for field in fields(message):
        match field:
            case 1, 0, int(shards):
                pass
            case 1, 2, _:  # SavedTensorSlices.meta
                raise CheckpointError("this is an index of the V1 format")
            case 2, 0, int(endianness):
                pass
            case 3, 2, bytes(version):
                oldest_reader = _numbers(version).get(2, 0)
    if endianness not in (0, 1) or oldest_reader not in (0, 1):
        raise CheckpointError("it is of a newer version than this reader knows")
    return ">" if endianness else "<", shards


def _parse_entry(message: bytes) -> Entry:
    values: dict[str, Any] = {}
    slices: list[Extents] = []
    for field in fields(message):
        match field:
            case 1, 0, int(dtype):
                values["dtype"] = dtype
            case 2, 2, bytes(shape):
                values["shape"] = _parse_shape(shape)
            case 3, 0, int(shard):
                values["shard"] = _signed(shard)
            case 4, 0, int(offset):
                values["offset"] = _signed(offset)
            case 5, 0, int(size):
                values["size"] = _signed(size)
            case 6, 5, int(crc):
                values["crc"] = crc
            case 7, 2, bytes(extents):
                slices.append(_parse_extents(extents))
    entry = Entry(**values, slices=tuple(slices))
    if entry.dtype in KINDS:
        size = stored_size(entry.kind, entry.shape)
        if entry.size != size and not slices:
            raise CheckpointError(
                f"{entry.kind} of shape {entry.shape} takes {size} bytes, not "
                f"{entry.size}"
            )
    if entry.offset < 0 or entry.size < 0 or (slices and entry.size):
        raise CheckpointError(f"{entry.size} bytes at {entry.offset} make no sense")
    return entry


def _parse_shape(message: bytes) -> tuple[int, ...]:
    shape = []
    for field in fields(message):
        match field:
            case 2, 2, bytes(dim):
                shape.append(_signed(_numbers(dim).get(1, 0)))
            case 3, 0, int(unknown_rank) if unknown_rank:
                raise CheckpointError("a tensor of unknown rank")
    return tuple(shape)


def _parse_extents(message: bytes) -> Extents:
    extents = []
    for field in fields(message):
        match field:
            case 1, 2, bytes(extent):
                values = _numbers(extent)
                start, length = values.get(1, 0), values.get(2, 2**64 - 1)
                extents.append((_signed(start), _signed(length)))
    return tuple(extents)


# --- Slices ---


def _box(extents: Extents, shape: tuple[int, ...]) -> tuple[slice, ...] | None:
    """Return the slice as an index into the full tensor; None if it isn't inside."""
    if len(extents) != len(shape):
        return None
    box = []
    for (start, length), full in zip(extents, shape):
        stop = full if length == -1 else start + length
        if not 0 <= start <= stop <= full:
            return None
        box.append(slice(start, stop))
    return tuple(box)


def _slice_key(name: str, extents: Extents) -> bytes:
    """Return the key of a slice's entry, in an encoding that sorts as what it encodes."""
    escaped = name.encode().replace(b"\xff", b"\xff\0").replace(b"\0", b"\0\xff")
    numbers = (_ordered(number) for extent in extents for number in extent)
    return b"".join([b"\0", escaped, b"\0\1", b"\1", bytes([len(extents)]), *numbers])


def _ordered(number: int) -> bytes:
    """Return a signed number in n bytes: n bits that tell n, then the number.

    The n bits are set for positive numbers and clear for negative ones; the number is
    big-endian two's complement.
    """
    count = (number if number >= 0 else ~number).bit_length() // 7 + 1
    prefix = (1 << count) - 1 << 7 * count
    return (number % (1 << 8 * count) ^ prefix).to_bytes(count, "big")
