"""ONNX's test data: a folder with a TensorProto file for each tensor.

    FOLDER/golden.json                    what there is to say besides; only ours has it
    FOLDER/test_data_set_0/input_0.pb     and so on, in the order of the inputs
    FOLDER/test_data_set_0/output_0.pb    and so on: of a golden, all its steps in order

A TensorProto is a message of protocol buffers: fields, each
a key (number << 3 | wire type) and a value. Of its fields these are written:

    1 dims        a varint for each axis
    2 data_type   a varint, see KINDS
    8 name        bytes
    9 raw_data    bytes: the items, row-major, little-endian

and these are read too, as other writers have them: 4 float_data, 5 int32_data, 7
int64_data, 10 double_data, 11 uint64_data, packed or one by one. Data outside the file
(14 data_location) are refused. Source: github.com/onnx/onnx, onnx.proto.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints import CheckpointError
from ..checkpoints.tensor_file import as_array, as_kind, map_file, stored_size

ABOUT = "golden.json"
SET = "test_data_set_0"
KINDS = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
}
DIMS, DATA_TYPE, NAME, RAW_DATA, DATA_LOCATION = 1, 2, 8, 9, 14
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5  # wire types
# Field -> the kinds that it may hold, and the dtype of an item (None: varints).
TYPED: dict[int, tuple[tuple[str, ...], str | None]] = {
    4: (("float32", "complex64"), "<f4"),
    5: (
        ("int32", "int16", "int8", "uint16", "uint8", "bool", "float16", "bfloat16"),
        None,
    ),
    7: (("int64",), None),
    10: (("float64", "complex128"), "<f8"),
    11: (("uint64", "uint32"), None),
}


def save_onnx(
    folder: str | os.PathLike,
    inputs: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    about: dict[str, Any],
) -> None:
    """Write a new folder, whole or not at all.

    ValueError for a dtype that ONNX has not.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; name a new folder")
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        (unfinished / SET).mkdir(parents=True)
        for role, tensors in (("input", inputs), ("output", outputs)):
            for number, (name, array) in enumerate(tensors.items()):
                path = unfinished / SET / f"{role}_{number}.pb"
                path.write_bytes(tensor_proto(name, np.asarray(array)))
        (unfinished / ABOUT).write_text(json.dumps(about, indent=1), "utf-8")
        os.rename(unfinished, folder)
    except BaseException:  # Ctrl-C, too, must leave nothing behind
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def tensor_proto(name: str, array: np.ndarray) -> bytes:
    """Return a TensorProto with a name and an array."""
    numbers = {kind: number for number, kind in KINDS.items()}
    if array.dtype.name not in numbers:
        raise ValueError(f"tensor {name!r} is {array.dtype}, which ONNX has not")
    dims = b"".join(_key(DIMS, VARINT) + _varint(length) for length in array.shape)
    kind = _key(DATA_TYPE, VARINT) + _varint(numbers[array.dtype.name])
    raw = as_kind(array, None).tobytes()
    return dims + kind + _bytes(NAME, name.encode()) + _bytes(RAW_DATA, raw)


def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _bytes(field: int, data: bytes) -> bytes:
    return _key(field, BYTES) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Return a number in groups of 7 bits, the lowest first; all but the last have 0x80."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def read_onnx(
    folder: Path,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Any]:
    """Return a folder's inputs, its outputs, and what its golden.json says, or None.

    A tensor without a name has its file's, without ".pb".

    Raises:
        CheckpointError: there are no such files, or one is damaged.
    """
    where = folder / SET if (folder / SET).is_dir() else folder
    found = []
    for path in where.iterdir():
        if match := re.fullmatch(r"(input|output)_(\d{1,9})\.pb", path.name):
            found.append((match[1], int(match[2]), path))
    if not found:
        raise CheckpointError(
            f"{folder} has no {SET} with files input_0.pb and output_0.pb"
        )
    tensors: dict[str, dict[str, np.ndarray]] = {"input": {}, "output": {}}
    for role, _, path in sorted(found):
        try:
            name, array = read_tensor_proto(map_file(path))
        except CheckpointError as error:
            raise CheckpointError(f"{path} is no sound TensorProto: {error}") from None
        if (name := name or path.stem) in tensors[role]:
            raise CheckpointError(f"{folder} has the {role} {name!r} twice")
        tensors[role][name] = array
    about = None
    if (folder / ABOUT).is_file():
        try:
            about = json.loads((folder / ABOUT).read_bytes())
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{folder / ABOUT} is no JSON: {error!s:.200}"
            ) from None
    return tensors["input"], tensors["output"], about


def read_tensor_proto(message: np.ndarray) -> tuple[str, np.ndarray]:
    """Return (name, array) of a TensorProto; the array is a read-only view if it can be."""
    shape: list[int] = []
    kind, name, raw = "", "", None
    typed: list[tuple[int, int | np.ndarray]] = []
    for field, value in _fields(message):
        if field == DIMS:
            shape += _varints(value) if isinstance(value, np.ndarray) else [value]
        elif field == DATA_TYPE and isinstance(value, int):
            if value not in KINDS:
                raise CheckpointError(f"its data_type is {value}: not one that we have")
            kind = KINDS[value]
        elif field == NAME and isinstance(value, np.ndarray):
            name = value.tobytes().decode("utf-8", "replace")
        elif field == RAW_DATA and isinstance(value, np.ndarray):
            raw = value
        elif field == DATA_LOCATION and not (isinstance(value, int) and value == 0):
            raise CheckpointError("its data are in another file")
        elif field in TYPED:
            typed.append((field, value))
    if not kind:
        raise CheckpointError("it has no data_type")
    size = stored_size(kind, tuple(shape))
    if raw is None:
        raw = _typed_data(kind, typed)
    if len(raw) != size:
        raise CheckpointError(
            f"its data are {len(raw)} bytes; {kind} of shape {tuple(shape)!s:.100} "
            f"takes {size}"
        )
    return name, as_array(raw, kind, tuple(shape))


def _fields(message: np.ndarray) -> Iterator[tuple[int, int | np.ndarray]]:
    """Yield (number, value) of a message's fields: an int, or the bytes (uint8)."""
    at = 0
    while at < len(message):
        key, at = _take_varint(message, at)
        field, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, at = _take_varint(message, at)
            yield field, value
            continue
        if wire_type == BYTES:
            length, at = _take_varint(message, at)
        elif wire_type in (EIGHT_BYTES, FOUR_BYTES):
            length = 8 if wire_type == EIGHT_BYTES else 4
        else:
            raise CheckpointError(f"its field {field} has the wire type {wire_type}")
        if length > len(message) - at:
            raise CheckpointError(
                f"its field {field} claims {length} bytes, and {len(message) - at} are "
                "left"
            )
        yield field, message[at : at + length]
        at += length


def _take_varint(data: np.ndarray, at: int) -> tuple[int, int]:
    """Return the varint at a place, and the place after it."""
    number = 0
    for shift, byte in enumerate(data[at : at + 10].tolist()):
        number |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            if number >= 2**64:
                break
            return number, at + shift + 1
    raise CheckpointError(f"it has no varint at byte {at}")


def _varints(data: np.ndarray) -> list[int]:
    """Return the numbers of a packed field."""
    numbers, at = [], 0
    while at < len(data):
        number, at = _take_varint(data, at)
        numbers.append(number)
    return numbers


def _typed_data(kind: str, typed: list[tuple[int, int | np.ndarray]]) -> np.ndarray:
    """Return the bytes of items that lie in the field of their type."""
    parts = []
    for field, value in typed:
        kinds, item = TYPED[field]
        if kind not in kinds:
            raise CheckpointError(f"it is {kind}, and has data in field {field}")
        if item is not None:
            if isinstance(value, int):
                raise CheckpointError(f"its field {field} is a varint")
            parts.append(value.tobytes())
            continue
        numbers = _varints(value) if isinstance(value, np.ndarray) else [value]
        width = stored_size(kind, ())
        # Negative numbers are 64 bits wide, whatever their type.
        parts.append(b"".join(struct.pack("<Q", number)[:width] for number in numbers))
    return np.frombuffer(b"".join(parts), np.uint8)
