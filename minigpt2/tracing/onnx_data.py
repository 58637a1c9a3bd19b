"""ONNX's test data: a folder with a TensorProto file for each tensor.

    FOLDER/golden.json                    what there is to say besides; only ours has it
    FOLDER/test_data_set_0/input_0.pb     and so on, in the order of the inputs
    FOLDER/test_data_set_0/output_0.pb    and so on: of a golden, all its steps in order

A TensorProto is a message of protocol buffers (checkpoints/protobuf.py). Of its fields
these are written:

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
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints import CheckpointError
from ..checkpoints.protobuf import (
    FOUR_BYTES,
    VARINT,
    bytes_field,
    fields,
    number_field,
    read_varint,
)
from ..checkpoints.tensor_file import as_array, as_kind, map_file, stored_size
from ..runtime.files import new_folder

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
# (number, wire type, value)
Field = tuple[int, int, int | bytes | memoryview]
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
    with new_folder(folder) as unfinished:
        (unfinished / SET).mkdir()
        for role, tensors in (("input", inputs), ("output", outputs)):
            for number, (name, array) in enumerate(tensors.items()):
                path = unfinished / SET / f"{role}_{number}.pb"
                path.write_bytes(tensor_proto(name, np.asarray(array)))
        (unfinished / ABOUT).write_text(json.dumps(about, indent=1), "utf-8")


def tensor_proto(name: str, array: np.ndarray) -> bytes:
    """Return a TensorProto with a name and an array."""
    numbers = {kind: number for number, kind in KINDS.items()}
    if array.dtype.name not in numbers:
        raise ValueError(f"tensor {name!r} is {array.dtype}, which ONNX has not")
    dims = b"".join(number_field(DIMS, length) for length in array.shape)
    kind = number_field(DATA_TYPE, numbers[array.dtype.name])
    raw = as_kind(array, None).tobytes()
    return dims + kind + bytes_field(NAME, name.encode()) + bytes_field(RAW_DATA, raw)


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
    typed: list[Field] = []
    for field, wire, value in fields(message.data):
        if field == DIMS:
            shape += _varints(value)
        elif field == DATA_TYPE and isinstance(value, int):
            if value not in KINDS:
                raise CheckpointError(f"its data_type is {value}: not one that we have")
            kind = KINDS[value]
        elif field == NAME and not isinstance(value, int):
            name = bytes(value).decode("utf-8", "replace")
        elif field == RAW_DATA and not isinstance(value, int):
            raw = np.frombuffer(value, np.uint8)
        elif field == DATA_LOCATION and not (isinstance(value, int) and value == 0):
            raise CheckpointError("its data are in another file")
        elif field in TYPED:
            typed.append((field, wire, value))
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


def _varints(value: int | bytes | memoryview) -> list[int]:
    """Return the numbers of a field: one, or packed ones."""
    if isinstance(value, int):
        return [value]
    numbers, at = [], 0
    while at < len(value):
        number, at = read_varint(value, at)
        numbers.append(number)
    return numbers


def _typed_data(kind: str, typed: list[Field]) -> np.ndarray:
    """Return the bytes of items that lie in the field of their type."""
    parts: list[bytes] = []
    for field, wire, value in typed:
        kinds, item = TYPED[field]
        if kind not in kinds:
            raise CheckpointError(f"it is {kind}, and has data in field {field}")
        if item is None:
            width = stored_size(kind, ())
            # Negative numbers are 64 bits wide, whatever their type.
            numbers = _varints(value)
            parts += (struct.pack("<Q", number)[:width] for number in numbers)
        elif wire == VARINT:
            raise CheckpointError(f"its field {field} is a varint")
        elif isinstance(value, int):  # one item, by itself
            parts.append(value.to_bytes(4 if wire == FOUR_BYTES else 8, "little"))
        else:
            parts.append(bytes(value))
    return np.frombuffer(b"".join(parts), np.uint8)
