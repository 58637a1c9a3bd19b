"""Arrays -> a TensorFlow V2 checkpoint, without TensorFlow.

Both files come out byte for byte as tf.train.Saver writes them for the same variables:
one data file, the tensors in the order of their names, nothing between them.
tf_bundle.py, which reads what this writes, describes the format.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..runtime.files import open_whole
from .crc32c import masked_crc32c
from .protobuf import bytes_field, number_field
from .sstable import table_bytes
from .tensor_file import as_kind, kind_of
from .tf_bundle import KINDS, Entry

DTYPES = {kind: dtype for dtype, kind in KINDS.items()}


def save_tf_bundle(
    prefix: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    dtype: str | None = None,
) -> None:
    """Write `prefix`.index, `prefix`.data-00000-of-00001 and the file `checkpoint`.

    Each file is written whole or not at all, and the index, without which there is no
    checkpoint, comes after the data.

    Args:
        prefix: what the files' names begin with, "folder/model.ckpt" say.
        tensors: name -> array of a dtype that NumPy and TensorFlow share. Any mapping
            will do, another file's reader too: one array at a time is asked for.
        dtype: "float32", "float16", "bfloat16" or "float64" to convert the floating
            arrays to, each number to the nearest, ties to even. None converts none.

    Raises:
        ValueError: for a dtype that TensorFlow lacks, an empty name, or a number that
            is too large for `dtype`.
    """
    prefix = Path(prefix)
    pairs = [(b"", HEADER)]
    offset = 0
    with (
        open_whole(f"{prefix}.index") as index,
        open_whole(f"{prefix}.data-00000-of-00001") as data,
    ):
        for name in sorted(tensors, key=str.encode):
            array = tensors[name]
            kind = kind_of(array, dtype)
            if kind not in DTYPES or not name or name[0] == "\0":
                raise ValueError(f"TensorFlow has no {kind} tensor named {name!r}")
            try:
                items = as_kind(array, dtype)
            except ValueError as error:
                raise ValueError(f"tensor {name!r}: {error}") from None
            raw = items.reshape(-1).view(np.uint8)
            data.write(raw.data)
            entry = Entry(
                DTYPES[kind], items.shape, 0, offset, raw.size, masked_crc32c(raw)
            )
            pairs.append((name.encode(), entry_message(entry)))
            offset += raw.size
        index.write(table_bytes(pairs))
    with open_whole(prefix.with_name("checkpoint")) as state:
        quoted = "".join(f"\\{c}" if c in '"\\' else c for c in prefix.name)
        for key in ("model_checkpoint_path", "all_model_checkpoint_paths"):
            state.write(f'{key}: "{quoted}"\n'.encode())


def entry_message(entry: Entry) -> bytes:
    """Return a BundleEntryProto; protocol buffers leave out numbers that are 0."""
    dims = b"".join(bytes_field(2, _number(1, length)) for length in entry.shape)
    crc = b"\x35" + entry.crc.to_bytes(4, "little") if entry.crc else b""
    return (
        _number(1, entry.dtype)
        + bytes_field(2, dims)
        + _number(3, entry.shard)
        + _number(4, entry.offset)
        + _number(5, entry.size)
        + crc
    )


def _number(field: int, value: int) -> bytes:
    return number_field(field, value) if value else b""


# One data file (1), little-endian (2, left out), written by version 1 (3.1).
HEADER = _number(1, 1) + bytes_field(3, _number(1, 1))
