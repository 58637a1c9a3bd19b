"""Hugging Face's `model.safetensors` <-> arrays: a JSON header, then the bytes.

    8 bytes   N, the header's length, little-endian
    N bytes   {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...,
               "__metadata__": {"format": "pt"}}, padded with spaces
    the rest  the tensors, row-major, little-endian; offsets count from here

The tensors must fill the rest without gaps or overlaps. There is no checksum: what can
be checked is that header, shapes and the file's length agree. Source: the format's
description in the README of github.com/huggingface/safetensors.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..runtime.files import open_whole
from . import CheckpointError
from .tensor_file import (
    TensorFile,
    as_array,
    as_kind,
    beginning,
    kind_of,
    map_file,
    stored_size,
)

KINDS = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
}
DTYPES = {kind: dtype for dtype, kind in KINDS.items()}
LINE = 64  # bytes in a cache line


class Entry(NamedTuple):
    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile(TensorFile):
    """The tensors of a .safetensors file.

    Arrays are read-only views of the mapped file; bfloat16 is widened to float32,
    float16 stays what it is. Dtypes that NumPy lacks (8-bit floats) are not listed.

    `metadata` is the header's free-form {str: str}.

    Raises:
        CheckpointError: for a file that is missing, truncated, or that its header does
            not describe.
    """

    def __init__(self, path: str | os.PathLike):
        path = Path(path)
        file = map_file(path)
        try:
            header, self._data = _split(file)
            self.metadata = _metadata(header)
            tensors, refused = _entries(header, len(self._data))
        except CheckpointError as error:
            raise CheckpointError(
                f"{path} is no sound safetensors file: {error}"
            ) from None
        super().__init__(path, tensors, refused)

    def __getitem__(self, name: str) -> np.ndarray:
        kind, shape, start, stop = self._tensor(name)
        return as_array(self._data[start:stop], kind, shape)

    def bfloat16_bits(self, name: str) -> np.ndarray | None:
        kind, shape, start, stop = self._tensor(name)
        if kind != "bfloat16":
            return None
        return as_array(self._data[start:stop], "uint16", shape)


def _split(file: np.ndarray) -> tuple[dict, np.ndarray]:
    """Return the parsed header and the bytes after it."""
    length = int.from_bytes(file[:8].tobytes(), "little")
    if len(file) < 8 or length > len(file) - 8:
        raise CheckpointError(
            f"it has {len(file)} bytes, and asks for 8 and a header of {length}; "
            + beginning(file)
        )
    try:
        header = json.loads(
            file[8 : 8 + length].tobytes(),
            object_pairs_hook=_no_twins,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"its header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"its header is a JSON {type(header).__name__}")
    return header, file[8 + length :]


def _no_twins(pairs: list[tuple]) -> dict:
    if len(dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise CheckpointError(f"its header has {twin!r} twice")
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise CheckpointError(f"its header has {name}, which is no JSON")


def _metadata(header: dict) -> dict[str, str]:
    metadata = header.pop("__metadata__", None)
    if metadata is None:  # or null
        return {}
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in metadata.values()
    ):
        raise CheckpointError("its __metadata__ does not map strings to strings")
    return metadata


def _entries(header: dict, length: int) -> tuple[dict[str, Entry], dict[str, str]]:
    """Return {name: entry} and {name: why it is not listed}; all fill `length` bytes."""
    tensors, refused, places = {}, {}, []
    for name, fields in header.items():
        match fields:
            case {
                "dtype": str(dtype),
                "shape": [*lengths],
                "data_offsets": [start, stop],
            } if all(type(n) is int for n in (*lengths, start, stop)):
                pass  # (Other fields mean nothing to any reader.)
            case _:
                raise CheckpointError(f"the entry of {name!r} is {fields!r:.200}")
        places.append((start, stop, name))
        if dtype not in KINDS:
            refused[name] = f"of the dtype {dtype}"
            continue
        kind, shape = KINDS[dtype], tuple(lengths)
        try:
            size = stored_size(kind, shape)
        except CheckpointError as error:
            raise CheckpointError(f"tensor {name!r}: {error}") from None
        if stop - start != size:
            raise CheckpointError(
                f"tensor {name!r}, {dtype} of shape {shape}, takes {size} bytes, and "
                f"lies at bytes {start} to {stop}"
            )
        tensors[name] = Entry(kind, shape, start, stop)

    end = 0
    for start, stop, name in sorted(places):
        if start != end or stop < start:
            raise CheckpointError(
                f"tensor {name!r} lies at bytes {start} to {stop}, but the one before "
                f"it ends at {end}: no gaps, no overlaps"
            )
        end = stop
    if end != length:
        raise CheckpointError(
            f"its tensors take {end} bytes, and {length} follow the header: it is "
            + ("truncated" if length < end else "too long")
        )
    return tensors, refused


def save_safetensors(
    path: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    dtype: str | None = None,
) -> None:
    """Write arrays to a .safetensors file, whole or not at all.

    Args:
        path: the file; one that is there is replaced when the new one is complete.
        tensors: name -> array of a dtype that NumPy and the format share. Any mapping
            will do, another file's reader too: one array at a time is asked for, each
            three times, for its kind, its shape and its numbers.
        metadata: free-form strings to put into the header. transformers wants
            {"format": "pt"}.
        dtype: "float32", "float16", "bfloat16" or "float64" to convert the floating
            arrays to, each number to the nearest, ties to even. None converts none.

    Raises:
        ValueError: for a dtype that the format lacks, a name that it reserves, or a
            number that is too large for `dtype`.
    """
    kinds = {name: kind_of(array, dtype) for name, array in tensors.items()}
    for name, kind in kinds.items():
        if kind not in DTYPES or name == "__metadata__":
            raise ValueError(f"safetensors has no {kind} tensor named {name!r}")

    # What fills whole cache lines comes first, so that each tensor of these, once the
    # file is mapped, starts on one; then wide items before narrow ones, so that all
    # start at a multiple of their items' size.
    shapes = {name: np.shape(tensors[name]) for name in kinds}
    sizes = {name: stored_size(kind, shapes[name]) for name, kind in kinds.items()}
    widths = {name: stored_size(kind, ()) for name, kind in kinds.items()}
    order = sorted(
        kinds, key=lambda name: (sizes[name] % LINE > 0, -widths[name], name)
    )
    header: dict[str, dict] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        start, end = end, end + sizes[name]
        header[name] = {
            "dtype": DTYPES[kinds[name]],
            "shape": shapes[name],
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % LINE)
    with open_whole(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            try:
                items = as_kind(tensors[name], dtype)
            except ValueError as error:
                raise ValueError(f"tensor {name!r}: {error}") from None
            file.write(items.reshape(-1).view(np.uint8).data)
