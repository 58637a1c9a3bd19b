"""The weight formats bfloat16, int8 and int4, by formula.

This file is the reference of the formats, as ops.py is of the arithmetic: short NumPy
functions that say exactly what is stored, and what a product with it is.
`minigpt2.kernels` computes the same from the same objects, faster.

A quantized matrix [n, k] has a row for each output of a linear layer, or for each id of
an embedding: for a weight W [in, out] of a linear layer it is W^T.

- bfloat16: the upper 16 bits of each float32, rounded to nearest, ties to even. A
  product is the float32 product with the widened matrix.
- int8: a scale s for every row, the largest |w| / 127, and q = w / s rounded to
  -127 .. 127.
- int4: a scale s (float16) for every 32 numbers of a row, the largest |w| / 7, and
  q = w / s rounded to -7 .. 7.

Where all w are 0 the scale is 1. Rounding is to the nearest, ties to even, so that
w ~ s q within half a scale (and what float16 cuts off an int4's scale).

For int8 and int4 the other factor x is rounded too: x ~ t p, with a scale t for every
X_BLOCK numbers, their largest |x| / 127, and p of -127 .. 127. So the products are sums
of integers, which have no rounding error and no order:

    y[m, n] = sum over blocks b of  t[m, b] * s[n, b] * (sum over i in b of p[m,i] q[n,i])

A block has one scale of each: INT4_BLOCK numbers for int4 and X_BLOCK for int8, whose s
is the same in all blocks of a row.

All that is not a sum of integers is float32; there is no float64 version.

Sources: the blocks follow ggml's q8_0 and q4_0, the scales per row Dettmers et al. 2022
(LLM.int8()).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from ..runtime.memory import empty_aligned

X_BLOCK = 128  # numbers of x that share a scale
INT4_BLOCK = 32  # numbers of an int4 row that share a scale
INT8_PADDING = 64  # a row of int8 is padded to a multiple of it: a register's bytes
X_LEAST = 2.0**-100  # a block of x that lies below it counts as zeros

_CHUNK = 1 << 18  # numbers that are worked on at a time: 1 MB of float32


def quantized(
    matrix: np.ndarray | QuantizedMatrix,
    weight_format: str,
    done: Callable[[slice], None] | None = None,
) -> QuantizedMatrix:
    """Return `matrix` [n, k] in a weight format: "bfloat16", "int8" or "int4".

    Args:
        matrix: an array of any float dtype and strides, or a matrix in another format.
            One that is in this format already comes back as it is.
        done: is told which rows have been used for the last time. Only a few rows at a
            time are turned into float32.

    Raises:
        ValueError: for NaN or infinite numbers, which only bfloat16 can hold, and for
            numbers that are too large for int4's float16 scales.
    """
    target = matrix_class(weight_format, matrix.shape[1])
    if isinstance(matrix, target) and matrix.arrays()[0].flags.c_contiguous:
        return matrix
    return target.of(matrix, done)


def matrix_class(weight_format: str, k: int) -> type[QuantizedMatrix]:
    """Return the class of a matrix [n, k] in a weight format.

    int4 packs two blocks of INT4_BLOCK numbers side by side: where k is no multiple of
    64, the matrix is int8.
    """
    int8_instead = weight_format == "int4" and k % 64
    return _CLASSES["int8" if int8_instead else weight_format]


@dataclass(frozen=True, eq=False)
class QuantizedMatrix:
    """What all formats share: each stands for a float32 matrix [n, k].

    - matrix[ids], for ids [...] or a slice: those rows, float32 [..., k].
    - np.asarray(matrix): all of them. No other operation of NumPy takes the matrix.
    - x @ matrix, for x float32 [m, k]: [m, n], the product with the transpose by the
      formula above, as `ops.linear` needs it.

    A subclass is a dataclass of the arrays that it stores, which are read-only. It says
    what is not implemented here.
    """

    dtype = np.dtype(np.float32)
    ndim = 2
    __array_ufunc__ = None  # `x @ matrix` comes here, and not to np.matmul

    @staticmethod
    def layout(n: int, k: int) -> list[tuple[tuple[int, ...], type]]:
        """Return the (shape, dtype) of each array that a matrix [n, k] is stored in."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, k)."""
        raise NotImplementedError

    def __getitem__(self, ids: Any) -> np.ndarray:
        """Return rows, float32 [..., k]."""
        raise NotImplementedError

    def _set(self, part: slice, rows: np.ndarray) -> None:
        """Store float32 rows. They may be overwritten on the way."""
        raise NotImplementedError

    def _factor(self, x: np.ndarray) -> Any:
        """Return what `_multiply` takes of x [m, k]."""
        raise NotImplementedError

    def _multiply(self, factor: Any, part: slice, y: np.ndarray) -> None:
        """Write x matrix[part]^T to y."""
        raise NotImplementedError

    @classmethod
    def of(
        cls,
        matrix: np.ndarray | QuantizedMatrix,
        done: Callable[[slice], None] | None = None,
    ) -> QuantizedMatrix:
        """Return `matrix` [n, k] in this format; see `quantized`."""
        n, k = matrix.shape
        stored = cls.holding([empty_aligned(*of) for of in cls.layout(n, k)], k)
        for part in stored.parts():
            # The rows of a W^T lie scattered: this gathers them.
            stored._set(part, np.array(matrix[part], np.float32, order="C"))
            if done is not None:
                done(part)
        for array in stored.arrays():
            array.flags.writeable = False
        return stored

    @classmethod
    def holding(cls, arrays: list[np.ndarray], k: int) -> QuantizedMatrix:
        """Return the matrix [n, k] that is stored in `arrays`; see `layout`."""
        return cls(*arrays)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays())

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]

    def arrays(self) -> list[np.ndarray]:
        """Return the arrays that are stored."""
        values = (getattr(self, field.name) for field in fields(self))
        return [value for value in values if isinstance(value, np.ndarray)]

    def __deepcopy__(self, memo: dict) -> QuantizedMatrix:
        return self  # nobody can change it

    def parts(self) -> Iterator[slice]:
        """Yield slices that cover the rows, each of about _CHUNK numbers."""
        n, k = self.shape
        step = max(_CHUNK // max(k, 1), 1)
        for start in range(0, n, step):
            yield slice(start, min(start + step, n))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(
        self, dtype: np.dtype | None = None, copy: bool | None = None
    ) -> np.ndarray:
        if copy is False:
            raise ValueError(
                "a quantized matrix has no float32 array to share: copy=False can't be"
            )
        dense = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for part in self.parts():
            dense[part] = self[part]
        return dense

    def __rmatmul__(self, x: np.ndarray) -> np.ndarray:
        if x.ndim != 2 or x.shape[1] != self.shape[1]:
            raise ValueError(
                f"x has shape {x.shape}, and to go with a matrix {self.shape} it must "
                f"have (any, {self.shape[1]})"
            )
        y = np.empty((len(x), len(self)), np.float32)
        factor = self._factor(x)
        for part in self.parts():
            self._multiply(factor, part, y[:, part])
        return y


@dataclass(frozen=True, eq=False)
class BFloat16Matrix(QuantizedMatrix):
    """A matrix in bfloat16. NumPy has no such dtype, so the bits are kept."""

    bits: np.ndarray  # uint16 [n, k]

    @staticmethod
    def layout(n: int, k: int) -> list[tuple[tuple[int, ...], type]]:
        return [((n, k), np.uint16)]

    @property
    def shape(self) -> tuple[int, int]:
        return self.bits.shape

    def __getitem__(self, ids: Any) -> np.ndarray:
        return (self.bits[ids].astype(np.uint32) << 16).view(np.float32)

    def _set(self, part: slice, rows: np.ndarray) -> None:
        bits = rows.view(np.uint32)
        # Adding just under half of what is cut off carries into the kept bits above
        # half; a tie carries if the last kept bit is 1, so that it becomes even.
        rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
        rounded[np.isnan(rows)] = 0x7FC0
        self.bits[part] = rounded

    def _factor(self, x: np.ndarray) -> Any:
        return x

    def _multiply(self, x: np.ndarray, part: slice, y: np.ndarray) -> None:
        np.matmul(x, self[part].T, out=y)


class IntegerMatrix(QuantizedMatrix):
    """What int8 and int4 share: integers q with scales s, w ~ s q, in blocks."""

    block: ClassVar[int]  # numbers of a row whose products are summed before scaling

    def integers(self, ids: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return (q [..., k], s [..., scales of a row]) of some rows, in float32."""
        raise NotImplementedError

    def __getitem__(self, ids: Any) -> np.ndarray:
        q, s = self.integers(ids)
        blocks = q.reshape(*s.shape, q.shape[-1] // s.shape[-1])  # a view
        blocks *= s[..., None]
        return q

    def _factor(self, x: np.ndarray) -> Any:
        p, t = round_activations(x)
        return p.astype(np.float32), t

    def _multiply(self, factor: Any, part: slice, y: np.ndarray) -> None:
        # A block's sum stays below 127 * 128 * 128 < 2^24: float32 holds every partial
        # sum exactly, whatever their order is.
        p, t = factor
        q, s = self.integers(part)
        s = np.broadcast_to(s, (len(s), -(-q.shape[1] // self.block)))
        y[...] = 0.0
        for b in range(s.shape[1]):
            block = slice(b * self.block, (b + 1) * self.block)
            sums = p[:, block] @ q[:, block].T
            sums *= t[:, b * self.block // X_BLOCK, None]
            sums *= s[:, b]
            y += sums


@dataclass(frozen=True, eq=False)
class Int8Matrix(IntegerMatrix):
    """A matrix in int8, with a scale for each row.

    The fastest instructions that multiply bytes take one factor without a sign, so q is
    stored as q + 128, and the padding, which stands for 0, as 128.
    """

    bytes: np.ndarray  # uint8 [n, k padded to a multiple of INT8_PADDING]
    scales: np.ndarray  # float32 [n]
    width: int  # k

    block = X_BLOCK

    @staticmethod
    def layout(n: int, k: int) -> list[tuple[tuple[int, ...], type]]:
        return [((n, k + -k % INT8_PADDING), np.uint8), ((n,), np.float32)]

    @classmethod
    def holding(cls, arrays: list[np.ndarray], k: int) -> Int8Matrix:
        return cls(arrays[0], arrays[1], k)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.bytes), self.width

    def integers(self, ids: Any) -> tuple[np.ndarray, np.ndarray]:
        q = self.bytes[ids][..., : self.width].astype(np.float32)
        q -= 128.0
        return q, self.scales[ids][..., None]

    def _set(self, part: slice, rows: np.ndarray) -> None:
        scales = _scales(rows, 127.0)  # [n, 1]
        _round_to(rows, scales, 127.0)
        self.bytes[part, : self.width] = rows + np.float32(128.0)
        self.bytes[part, self.width :] = 128
        self.scales[part] = scales[:, 0]


@dataclass(frozen=True, eq=False)
class Int4Matrix(IntegerMatrix):
    """A matrix of 4-bit integers, with a scale for every INT4_BLOCK of a row."""

    nibbles: np.ndarray  # uint8 [n, k / 2], as pack_nibbles stores them
    scales: np.ndarray  # float16 [n, k / INT4_BLOCK]

    block = INT4_BLOCK

    @staticmethod
    def layout(n: int, k: int) -> list[tuple[tuple[int, ...], type]]:
        return [((n, k // 2), np.uint8), ((n, k // INT4_BLOCK), np.float16)]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.nibbles), 2 * self.nibbles.shape[1]

    def integers(self, ids: Any) -> tuple[np.ndarray, np.ndarray]:
        q = unpack_nibbles(self.nibbles[ids]).astype(np.float32)
        return q, self.scales[ids].astype(np.float32)

    def _set(self, part: slice, rows: np.ndarray) -> None:
        blocks = rows.reshape(len(rows), -1, INT4_BLOCK)
        with np.errstate(over="ignore"):  # is found in the next line
            scales = _scales(blocks, 7.0).astype(np.float16)  # [n, k / 32, 1]
        if np.isinf(scales).any():
            raise ValueError(f"{np.abs(rows).max()} is too large for int4's scales")
        scales[scales == 0.0] = 1.0  # below float16's numbers
        _round_to(blocks, scales.astype(np.float32), 7.0)
        self.nibbles[part] = pack_nibbles(rows.astype(np.int8))
        self.scales[part] = scales[..., 0]


_CLASSES: dict[str, type[QuantizedMatrix]] = {
    "bfloat16": BFloat16Matrix,
    "int8": Int8Matrix,
    "int4": Int4Matrix,
}


def pack_nibbles(q: np.ndarray) -> np.ndarray:
    """Store q (int8 [..., k], from -8 to 7) two to a byte, uint8 [..., k / 2].

    Of every 64 numbers, i shares a byte with i + 32: i in the low half, each with 8
    added. k is a multiple of 64.
    """
    halves = (q + 8).astype(np.uint8).reshape(*q.shape[:-1], q.shape[-1] // 64, 2, 32)
    both = halves[..., 0, :] | halves[..., 1, :] << 4
    return both.reshape(*q.shape[:-1], q.shape[-1] // 2)


def unpack_nibbles(stored: np.ndarray) -> np.ndarray:
    """Return the int8 numbers that pack_nibbles stored."""
    bytes_ = stored.reshape(*stored.shape[:-1], stored.shape[-1] // 32, 1, 32)
    halves = np.concatenate([bytes_ & 15, bytes_ >> 4], axis=-2)
    q = halves.astype(np.int8) - np.int8(8)
    return q.reshape(*stored.shape[:-1], 2 * stored.shape[-1])


def round_activations(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (p int8 [m, k], t float32 [m, blocks]) with x ~ t p, block by block.

    x is float32 [m, k]; the last block may be shorter than X_BLOCK. NaN and infinite
    numbers go to t, and so to every product with their row.
    """
    p = np.empty(x.shape, np.int8)
    t = np.empty((len(x), -(-x.shape[1] // X_BLOCK)), np.float32)
    for b in range(t.shape[1]):
        block = slice(b * X_BLOCK, (b + 1) * X_BLOCK)
        most = np.abs(x[:, block]).max(axis=1, keepdims=True)
        fill = np.zeros_like(most)
        np.divide(np.float32(127.0), most, out=fill, where=most >= X_LEAST)
        with np.errstate(invalid="ignore"):
            p[:, block] = np.rint(x[:, block] * fill)
        t[:, b] = most[:, 0] / np.float32(127.0)
    return p, t


def _scales(x: np.ndarray, most: float) -> np.ndarray:
    """Return the largest |x| of the last axis / most, [..., 1]; 1 where all are 0."""
    largest = np.maximum(x.max(-1, keepdims=True), -x.min(-1, keepdims=True))
    if not np.isfinite(largest).all():
        raise ValueError("int8 and int4 can't hold NaN or infinite numbers")
    largest /= np.float32(most)
    largest[largest == 0.0] = 1.0
    return largest


def _round_to(x: np.ndarray, scales: np.ndarray, most: float) -> None:
    """Replace x by round(x / scales), clipped to -most .. most."""
    x /= scales
    np.rint(x, out=x)
    np.clip(x, -most, most, out=x)
