"""NumPy's `.npz` <-> arrays: a zip archive with a .npy file for each name.

    8 bytes       "\\x93NUMPY", and the version: 1 or 2 (or 3), 0
    2 (4) bytes   N, the header's length, little-endian
    N bytes       {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } and spaces
    the rest      the items

NumPy's own readers of a header (numpy.lib.format.read_array_header_1_0) are not used:
they evaluate it as Python (ast.literal_eval), and a header of nine hundred brackets, or
ten thousand minus signs, ends the process where a thread's stack is small. Here a regular
expression reads it, nothing is evaluated, and no header is believed before it agrees
with the sizes in the archive.

Archives may be compressed (np.savez_compressed), so arrays are read into memory, not
mapped, and the archive's CRC-32 is verified as they are. Source: numpy.lib.format's
documentation.
"""

import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from ..runtime.files import open_whole
from . import CheckpointError
from .tensor_file import (
    TensorFile,
    as_array,
    as_kind,
    beginning,
    map_file,
    stored_size,
)

# What zipfile raises for an archive that is damaged or none.
ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError),
    *(ValueError, LookupError, OverflowError),
)
MAGICS = tuple(b"\x93NUMPY" + version for version in (b"\1\0", b"\2\0", b"\3\0"))
HEADER = re.compile(
    rb"\{'descr': ('[^']*'|\[.*\]) *, 'fortran_order': (False|True), "
    rb"'shape': \(([\d, ]*)\),? ?\} *\n?"
)
NUMBERS = re.compile(rb"'[<>|=][biufc]\d+'")  # no strings, records, dates, objects

# Method -> to how many bytes one byte may unfold: a block of Deflate's gives 258 bytes for
# two bits, which is the limit that zlib states.
MOST = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}


class Entry(NamedTuple):
    info: zipfile.ZipInfo
    start: int  # of the items in the .npy file
    shape: tuple[int, ...]
    fortran_order: bool
    stored: np.dtype

    @property
    def kind(self) -> str:
        return self.stored.name


class NpzFile(TensorFile):
    """The arrays of a .npz file, read-only; those that hold no numbers are not listed.

    Raises:
        CheckpointError: for a file that is missing, damaged, or something else.
    """

    def __init__(self, path: str | os.PathLike):
        path = Path(path)
        file = map_file(path)
        tensors, refused = {}, {}
        try:
            self._archive = zipfile.ZipFile(path)
            for info in self._archive.infolist():
                _check_sizes(info, len(file))
                name = info.filename.removesuffix(".npy")
                if name in tensors or name in refused:
                    raise CheckpointError(f"it has {name!r} twice")
                entry = _entry(self._archive, info)
                if isinstance(entry, Entry):
                    tensors[name] = entry
                else:
                    refused[name] = f"of the dtype {entry}"
        except ZIP_ERRORS as error:
            raise CheckpointError(
                f"{path} is no sound .npz file: {error} ({beginning(file)})"
            ) from None
        super().__init__(path, tensors, refused)

    @property
    def has_checksums(self) -> bool:
        """Whether the file has checksums, which reading a tensor verifies."""
        return True

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._tensor(name)
        try:
            raw = np.frombuffer(self._archive.read(entry.info), np.uint8)
        except ZIP_ERRORS as error:
            raise CheckpointError(
                f"{self.path}: {name!r} is damaged: {error}"
            ) from None
        shape = entry.shape[::-1] if entry.fortran_order else entry.shape
        raw = raw[entry.start :]
        array = as_array(raw, entry.kind, shape, entry.stored.byteorder)
        return array.T if entry.fortran_order else array


def _check_sizes(info: zipfile.ZipInfo, length: int) -> None:
    """Refuse a member that claims more than an archive of `length` bytes can hold.

    (Before it is opened: memory is asked for by what the directory claims, and the
    methods that NumPy does not use, bzip2 and LZMA, ask for it by their own headers.)
    """
    if info.compress_type not in MOST:
        raise CheckpointError(
            f"its member {info.filename!r} is compressed by method "
            f"{info.compress_type}, and NumPy uses none or Deflate"
        )
    most = MOST[info.compress_type] * info.compress_size
    if info.compress_size > length or info.file_size > most:
        raise CheckpointError(
            f"its member {info.filename!r} claims {info.file_size} bytes in "
            f"{info.compress_size}, and the archive has {length}"
        )


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Entry | str:
    """Return what the header of a .npy file says, if the archive agrees with it.

    Of an array that does not hold numbers it is the dtype alone.
    """
    with archive.open(info) as member:
        magic = member.read(8)
        width = 2 if magic[6:7] == b"\1" else 4
        length = int.from_bytes(member.read(width), "little")
        header = HEADER.fullmatch(member.read(min(length, 10_000)))
    if magic not in MAGICS or not header:
        raise CheckpointError(f"its member {info.filename!r} is no .npy file")
    descr, order, numbers = header.groups()
    if not NUMBERS.fullmatch(descr):
        return descr.decode("latin-1")[:100]
    start = 8 + width + length
    try:
        stored = np.dtype(descr.decode()[1:-1])
        shape = tuple(int(number) for number in numbers.split(b",") if number.strip())
        size = start + stored_size(stored.name, shape)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"its member {info.filename!r}: {error!s:.200}") from None
    if size != info.file_size:
        raise CheckpointError(
            f"its member {info.filename!r}, {stored.name} of shape {shape}, takes "
            f"{size} bytes, and the archive has {info.file_size}"
        )
    return Entry(info, start, shape, order == b"True", stored)


def save_npz(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], dtype: str | None = None
) -> None:
    """Write arrays to a .npz file, not compressed, whole or not at all.

    Args:
        path: the file; one that is there is replaced when the new one is complete.
        tensors: name -> array of numbers. Any mapping will do, another file's reader
            too: one array at a time is asked for.
        dtype: "float32", "float16" or "float64" to convert the floating arrays to, each
            number to the nearest, ties to even. None converts none.

    Raises:
        ValueError: for an array of anything but numbers, for bfloat16, which NumPy
            lacks, or for a number that is too large for `dtype`.
    """
    if dtype == "bfloat16":
        raise ValueError("NumPy has no bfloat16, so .npz files cannot hold it")
    with (
        open_whole(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, array in tensors.items():
            if np.asarray(array).dtype.kind not in "biufc":
                raise ValueError(f"tensor {name!r} holds no numbers")
            try:
                items = as_kind(array, dtype)
            except ValueError as error:
                raise ValueError(f"tensor {name!r}: {error}") from None
            # (A ZipInfo of its own: so the time of day is not in the file.)
            info = zipfile.ZipInfo(f"{name}.npy")
            if info.filename != f"{name}.npy":
                raise ValueError(f"{name!r} is no name for a file in a zip archive")
            with archive.open(info, "w", force_zip64=True) as member:
                npy.write_array(member, items, allow_pickle=False)
