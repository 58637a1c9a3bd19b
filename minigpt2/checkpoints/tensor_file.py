"""What the checkpoint readers share: the mapping, and stored bytes <-> arrays.

A *kind* is a NumPy dtype's name, or "bfloat16", which NumPy does not have. A bfloat16
is the upper half of a float32, so it widens exactly: its bits, then sixteen zeros.
"""

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import CheckpointError

FLOATS = ("float16", "bfloat16", "float32", "float64")
MAX_NDIM = 64  # NumPy 2 has no arrays of more axes
ByteOrder = Literal["<", ">", "="]  # little-endian, big-endian, this machine's


class TensorFile(Mapping[str, np.ndarray]):
    """A read-only mapping from tensor names to arrays, read when asked for.

    `path` is what was opened. Iteration goes over the names in sorted order. It leaves
    out what is not an array of numbers (TensorFlow's strings, 8-bit floats); asking for
    such a tensor raises a CheckpointError that says what it is.
    """

    def __init__(
        self, path: Path, tensors: Mapping[str, Any], refused: Mapping[str, str]
    ):
        """Take the reader's records: name -> anything that has a shape and a kind.

        Args:
            path: what was opened.
            tensors: the records of the tensors that can be read.
            refused: name -> what it is, of the other tensors.
        """
        self.path = path
        self._tensors = {name: tensors[name] for name in sorted(tensors)}
        self._refused = refused

    def _tensor(self, name: str) -> Any:
        """Return the record of a tensor."""
        if name in self._refused:
            raise CheckpointError(
                f"{self.path}: {name!r} is {self._refused[name]}, not an array of "
                "numbers that NumPy has"
            )
        if name not in self._tensors:
            raise KeyError(f"{self.path} has no tensor {name!r}")
        return self._tensors[name]

    @property
    def has_checksums(self) -> bool:
        """Whether the file has checksums, which reading a tensor verifies."""
        return False

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape that `self[name]` will have."""
        return self._tensor(name).shape

    def dtype(self, name: str) -> np.dtype:
        """Return the dtype that `self[name]` will have: float32 for bfloat16."""
        kind = self._tensor(name).kind
        return np.dtype("float32" if kind == "bfloat16" else kind)

    def bfloat16_bits(self, name: str) -> np.ndarray | None:
        """Return a bfloat16 tensor as stored (uint16); None if it is not stored so."""
        return None

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors  # Mapping's own would read the tensor

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}: {len(self)} tensors)"


class Unread:
    """A tensor of a file that is not read before np.asarray asks for it.

    Args:
        file: where it is.
        name: its name there.
        shape: what to give it, if not the file's.
        transposed: whether the two axes are to change places.
    """

    def __init__(
        self,
        file: TensorFile,
        name: str,
        shape: tuple[int, ...] | None = None,
        transposed: bool = False,
    ):
        self.file, self.name, self.transposed = file, name, transposed
        self._shape = file.shape(name) if shape is None else shape
        self.shape = self._shape[::-1] if transposed else self._shape
        self.dtype = file.dtype(name)

    def reshape(self, shape: tuple[int, ...]) -> "Unread":
        """Return the same tensor, to be read in another shape."""
        assert not self.transposed
        return Unread(self.file, self.name, shape)

    @property
    def T(self) -> "Unread":
        """The same matrix, to be read with its axes in the other order."""
        return Unread(self.file, self.name, self._shape, not self.transposed)

    def _placed(self, array: np.ndarray) -> np.ndarray:
        array = array.reshape(self._shape)
        return array.T if self.transposed else array

    def __array__(
        self, dtype: np.dtype | None = None, copy: bool | None = None
    ) -> np.ndarray:
        return np.asarray(self._placed(self.file[self.name]), dtype, copy=copy)

    def bfloat16_bits(self) -> np.ndarray | None:
        """Return what the file's `bfloat16_bits` does."""
        bits = self.file.bfloat16_bits(self.name)
        return None if bits is None else self._placed(bits)


def stored_dtype(kind: str, byteorder: ByteOrder = "<") -> np.dtype:
    """Return the dtype of the stored items: uint16 for bfloat16, else the kind itself."""
    return np.dtype("uint16" if kind == "bfloat16" else kind).newbyteorder(byteorder)


def stored_size(kind: str, shape: tuple[int, ...]) -> int:
    """Return a tensor's bytes; CheckpointError if no array can have that shape."""
    size = stored_dtype(kind).itemsize
    extent = size  # NumPy checks this even if an axis is empty
    for length in shape:
        size *= length
        extent *= max(length, 1)
    if len(shape) > MAX_NDIM or min(shape, default=0) < 0 or extent >= 2**63:
        raise CheckpointError(f"no array can have the shape {_brief(shape)}")
    return size


def as_array(
    raw: np.ndarray, kind: str, shape: tuple[int, ...], byteorder: ByteOrder = "<"
) -> np.ndarray:
    """Return bytes as stored (uint8, one axis) as a read-only array in native order.

    It is a view, unless the items must be widened (bfloat16), swapped, or moved because
    they do not start at a multiple of their size: every product would copy those.
    """
    array = raw.view(stored_dtype(kind, byteorder)).reshape(shape)
    if kind == "bfloat16":
        wide = np.empty(shape, np.uint32)
        np.left_shift(array, 16, out=wide, dtype=np.uint32)
        wide.flags.writeable = False
        array = wide.view(np.float32)
    array = np.require(array, array.dtype.newbyteorder("="), "A")
    array.flags.writeable = False
    if not np.may_share_memory(array, raw):
        let_go(raw)
    return array


def kind_of(array: np.ndarray, kind: str | None) -> str:
    """Return the kind that `as_kind(array, kind)` stores: only floats are converted.

    Raises:
        ValueError: for a `kind` that is not one of FLOATS or None.
    """
    if kind not in (None, *FLOATS):
        raise ValueError(f"dtype is {kind!r}, and must be None or one of {FLOATS}")
    dtype = np.asarray(array).dtype
    return kind if kind and np.issubdtype(dtype, np.floating) else dtype.name


def as_kind(array: np.ndarray, kind: str | None) -> np.ndarray:
    """Return the items to store: contiguous, little-endian, uint16 for bfloat16.

    Floating arrays are converted to `kind`, each number to the nearest, ties to even;
    other arrays, or all of them if `kind` is None, keep their dtype.

    Raises:
        ValueError: if a finite number is too large for the kind.
    """
    array = np.asarray(array)
    kind = kind_of(array, kind)
    if kind == array.dtype.name:
        items = array
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # of NaNs
            flat = array.reshape(-1)
            items = to_bfloat16(flat) if kind == "bfloat16" else flat.astype(kind)
        items = items.reshape(array.shape)
        stored = as_array(items.reshape(-1).view(np.uint8), kind, items.shape, "=")
        if not np.array_equal(np.isinf(stored), np.isinf(array)):
            largest = np.max(np.abs(array), where=np.isfinite(array), initial=0)
            raise ValueError(f"{largest} is too large for {kind}")
    # (np.ascontiguousarray would give a scalar an axis.)
    return np.asarray(items, items.dtype.newbyteorder("<"), order="C")


def to_bfloat16(array: np.ndarray) -> np.ndarray:
    """Return the bits (uint16) of the nearest bfloat16, ties to even."""
    narrow = array.astype(np.float32)
    bits = narrow.view(np.uint32)
    if array.dtype.itemsize > 4:
        # Rounding twice would go wrong: a value just off a tie lands on the tie. So
        # the first step rounds to odd: towards zero, and an inexact one ends in 1.
        bits = bits - (np.abs(narrow) > np.abs(array))
        bits |= (bits.view(np.float32) != array) & ~np.isnan(array)
    rounded = (bits + (0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    # A NaN keeps its sign and upper bits, and one bit more so that it stays one.
    return np.where(np.isnan(array), (bits >> 16).astype(np.uint16) | 0x40, rounded)


class FileMapping(mmap.mmap):
    """A read-only mapping that map_file has made."""


def map_file(path: Path) -> np.ndarray:
    """Return a file's bytes as a read-only uint8 array; a page is read when it is used.

    A file that is replaced by another one, as every writer here does it, stays what it
    was for those who have mapped it. One that is made shorter in place ends the process
    when what is gone is read (SIGBUS on Unix), and nothing in Python can catch that.
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return np.frombuffer(b"", np.uint8)  # nothing cannot be mapped
            mapped = FileMapping(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    return np.frombuffer(mapped, np.uint8)


def let_go(array: np.ndarray, whole_file: bool = False) -> None:
    """Give back the memory that a mapped file's array takes, after its last use.

    If the array is used again, its pages are read from the file again. An array of any
    other memory, and pages that hold parts of other arrays, are left alone.

    Args:
        array: the array.
        whole_file: give back the other arrays' pages too. Reading one page may map two
            megabytes around it, if the system has them together: where nothing of a
            file is kept, that adds up.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    mapped = base.obj if isinstance(base, memoryview) else None
    if not isinstance(mapped, FileMapping) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    if whole_file:
        mapped.madvise(mmap.MADV_DONTNEED)
    else:
        offset = array.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (offset + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
        if length > 0:
            mapped.madvise(mmap.MADV_DONTNEED, start, length)


def beginning(data: np.ndarray) -> str:
    """Say how data begin, for an error: this shows a web page or a Git LFS pointer."""
    return f"it begins with {data[:24].tobytes()!r}" if len(data) else "it is empty"


def _brief(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) <= 8 else f"({shape[0]}, ... {len(shape)} axes)"
