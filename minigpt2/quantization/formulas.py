"""Weights in less memory: bfloat16, int8 and int4, by formula.

This file is the reference of the schemes, as ops.py is of the arithmetic: short NumPy
functions that say exactly what is stored, and what a product with it is.
`minigpt2.kernels` computes the same from the same objects, faster.

A matrix is stored by rows [n, k], each the weights of one output, or the embedding of
one id: for a weight W [in, out] of a linear layer the rows are W^T.

- bfloat16: the upper 16 bits of the float32, rounded to nearest, ties to even. A
  product is the float32 product with the widened weights.
- int8: a scale s for every row, the largest |w| / 127, and q = w / s rounded to
  -127 .. 127.
- int4: a scale s (float16) for every 32 weights of a row, the largest |w| / 7, and
  q = w / s rounded to -7 .. 7.

Where all weights are 0 the scale is 1. Rounding is to the nearest, ties to even, so
that w ~ s q within half a scale (and what float16 cuts off an int4's scale).

For int8 and int4 the other factor is rounded too: x ~ t p, with a scale t for every
X_BLOCK numbers, their largest |x| / 127, and p of -127 .. 127. So the products are sums
of integers, which have no rounding error and no order:

    y[m, n] = sum over blocks b of  t[m, b] * s[n, b] * (sum over i in b of p[m,i] q[n,i])

All that is not a sum of integers is float32; there is no float64 of these.

Sources: the blocks follow ggml's q8_0 and q4_0, the scales per row Dettmers et al. 2022
(LLM.int8()).
"""

from dataclasses import dataclass, fields

import numpy as np

from ..runtime.memory import empty_aligned

X_BLOCK = 128  # numbers of x that share a scale
INT4_BLOCK = 32  # weights that do, in int4
INT8_PADDING = 64  # a row of int8 is padded to a multiple of it: a register's bytes
X_LEAST = 2.0**-100  # a block of x that lies below it counts as zeros

_CHUNK = 1 << 18  # weights that are worked on at a time: 1 MB of float32


def quantized(rows, kind, done=None):
    """Return `rows` [n, k] in a stored form of `kind`: "bfloat16", "int8" or "int4".

    - rows: an array of any float dtype and layout, or stored in another form. What is
      stored in this one already comes back as it is.
    - done (callable): is told which rows, a slice, have been used for the last time; no
      more than a few are turned into float32 at a time.

    ValueError if there are NaN or infinite numbers, which only bfloat16 can say, or if
    a number is too large for int4's float16 scales.
    """
    form = form_of(kind, rows.shape[1])
    ready = isinstance(rows, form) and rows.arrays()[0].flags.c_contiguous
    return rows if ready else form.of(rows, done)


def form_of(kind, k):
    """Return the class that rows of k numbers are stored in where `kind` is asked for.

    int4 rows go into whole blocks of 64: where k is no multiple of 64 they are int8.
    """
    return _FORMS["int8" if kind == "int4" and k % 64 else kind]


class QuantizedMatrix:
    """What the stored forms share: they stand for a float32 matrix [n, k].

    - rows[ids], for ids [...] or a slice: those rows, float32 [..., k].
    - np.asarray(rows): all of them. The other operations of NumPy want that said.
    - x @ rows, for x float32 [m, k]: [m, n], what `ops.linear` means by its packed
      weight: the product with the rows' transpose, by the formula above.

    A form is a dataclass of the arrays that it stores, read-only. It knows their
    `layout`, a list of (shape, dtype), how to set and to get some rows, and `_multiply`,
    y = x rows^T for a slice of the rows, with what `_factor` has made of x.
    """

    dtype = np.dtype(np.float32)
    ndim = 2
    __array_ufunc__ = None  # `x @ rows` comes here, and not to np.matmul

    @classmethod
    def of(cls, rows, done=None):
        """Return float rows [n, k] in this form; see `quantized`."""
        n, k = rows.shape
        stored = cls.holding([empty_aligned(*of) for of in cls.layout(n, k)], k)
        for part in stored.parts():
            # Rows of W^T lie scattered: this gathers them.
            stored._set(part, np.array(rows[part], np.float32, order="C"))
            if done is not None:
                done(part)
        for array in stored.arrays():
            array.flags.writeable = False
        return stored

    @classmethod
    def holding(cls, arrays, k):
        """Return the rows of k numbers that are stored in `arrays`; see `layout`."""
        return cls(*arrays)

    @property
    def nbytes(self):
        return sum(array.nbytes for array in self.arrays())

    @property
    def size(self):
        return self.shape[0] * self.shape[1]

    def arrays(self):
        """Return the arrays that are stored."""
        values = (getattr(self, field.name) for field in fields(self))
        return [value for value in values if isinstance(value, np.ndarray)]

    def __deepcopy__(self, memo):
        return self  # nobody can change it

    def parts(self):
        """Yield slices that cover the rows, each of about _CHUNK numbers."""
        n, k = self.shape
        step = max(_CHUNK // k, 1)
        for start in range(0, n, step):
            yield slice(start, min(start + step, n))

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("dense rows are made when asked for: copy=False can't be")
        dense = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for part in self.parts():
            dense[part] = self[part]
        return dense

    def __rmatmul__(self, x):
        if x.ndim != 2 or x.shape[1] != self.shape[1]:
            raise ValueError(f"x has shape {x.shape}, and rows {self.shape} go with it")
        y = np.empty((len(x), len(self)), np.float32)
        factor = self._factor(x)
        for part in self.parts():
            self._multiply(factor, part, y[:, part])
        return y


@dataclass(frozen=True, eq=False)
class BFloat16Matrix(QuantizedMatrix):
    """Rows of bfloat16 numbers. NumPy has none, so their bits are kept."""

    bits: np.ndarray  # uint16 [n, k]

    @staticmethod
    def layout(n, k):
        return [((n, k), np.uint16)]

    @property
    def shape(self):
        return self.bits.shape

    def __getitem__(self, ids):
        return (self.bits[ids].astype(np.uint32) << 16).view(np.float32)

    def _set(self, part, rows):
        bits = rows.view(np.uint32)
        # Adding just under half of what is cut off carries into the kept bits above
        # half; a tie carries if the last kept bit is 1, so that it becomes even.
        rounded = (bits + (0x7FFF + (bits >> 16 & 1))) >> 16
        rounded[np.isnan(rows)] = 0x7FC0
        self.bits[part] = rounded

    def _factor(self, x):
        return x

    def _multiply(self, x, part, y):
        np.matmul(x, self[part].T, out=y)


class IntegerMatrix(QuantizedMatrix):
    """What int8 and int4 rows share: integers q with scales s, w ~ s q, in blocks."""

    def __getitem__(self, ids):
        q, s = self.integers(ids)
        blocks = q.reshape(*s.shape, q.shape[-1] // s.shape[-1])  # a view
        blocks *= s[..., None]
        return q

    def _factor(self, x):
        p, t = round_activations(x)
        return p.astype(np.float32), t

    def _multiply(self, factor, part, y):
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
    """Rows of int8, each with a scale.

    What multiplies bytes fastest takes one factor without a sign: q is stored as
    q + 128, and the padding, which stands for 0, as 128.
    """

    bytes: np.ndarray  # uint8 [n, k padded to a multiple of INT8_PADDING]
    scales: np.ndarray  # float32 [n]
    width: int  # k

    block = X_BLOCK

    @staticmethod
    def layout(n, k):
        return [((n, k + -k % INT8_PADDING), np.uint8), ((n,), np.float32)]

    @classmethod
    def holding(cls, arrays, k):
        return cls(*arrays, k)

    @property
    def shape(self):
        return len(self.bytes), self.width

    def integers(self, ids):
        """Return (q [..., k], s [..., 1]) of rows, in float32."""
        q = self.bytes[ids][..., : self.width].astype(np.float32)
        q -= 128.0
        return q, self.scales[ids][..., None]

    def _set(self, part, rows):
        scales = _scales(rows, 127.0)  # [n, 1]
        _round_to(rows, scales, 127.0)
        self.bytes[part, : self.width] = rows + np.float32(128.0)
        self.bytes[part, self.width :] = 128
        self.scales[part] = scales[:, 0]


@dataclass(frozen=True, eq=False)
class Int4Matrix(IntegerMatrix):
    """Rows of 4-bit integers, a scale for every INT4_BLOCK of them; see pack_nibbles."""

    nibbles: np.ndarray  # uint8 [n, k / 2]
    scales: np.ndarray  # float16 [n, k / INT4_BLOCK]

    block = INT4_BLOCK

    @staticmethod
    def layout(n, k):
        return [((n, k // 2), np.uint8), ((n, k // INT4_BLOCK), np.float16)]

    @property
    def shape(self):
        return len(self.nibbles), 2 * self.nibbles.shape[1]

    def integers(self, ids):
        """Return (q [..., k], s [..., k / INT4_BLOCK]) of rows, in float32."""
        q = unpack_nibbles(self.nibbles[ids]).astype(np.float32)
        return q, self.scales[ids].astype(np.float32)

    def _set(self, part, rows):
        blocks = rows.reshape(len(rows), -1, INT4_BLOCK)
        with np.errstate(over="ignore"):  # is found in the next line
            scales = _scales(blocks, 7.0).astype(np.float16)  # [n, k / 32, 1]
        if np.isinf(scales).any():
            raise ValueError(f"{np.abs(rows).max()} is too large for int4's scales")
        scales[scales == 0.0] = 1.0  # below float16's numbers
        _round_to(blocks, scales.astype(np.float32), 7.0)
        self.nibbles[part] = pack_nibbles(rows.astype(np.int8))
        self.scales[part] = scales[..., 0]


_FORMS = {"bfloat16": BFloat16Matrix, "int8": Int8Matrix, "int4": Int4Matrix}


def pack_nibbles(q):
    """Store q [..., k] two to a byte, [..., k / 2]: in every 64, i with i + 32.

    Each is stored with 8 added; the former in the low half. k: a multiple of 64.
    """
    halves = (q + 8).astype(np.uint8).reshape(*q.shape[:-1], q.shape[-1] // 64, 2, 32)
    both = halves[..., 0, :] | halves[..., 1, :] << 4
    return both.reshape(*q.shape[:-1], q.shape[-1] // 2)


def unpack_nibbles(stored):
    """The reverse of pack_nibbles, int8."""
    bytes_ = stored.reshape(*stored.shape[:-1], stored.shape[-1] // 32, 1, 32)
    halves = np.concatenate([bytes_ & 15, bytes_ >> 4], axis=-2)
    q = halves.astype(np.int8) - np.int8(8)
    return q.reshape(*stored.shape[:-1], 2 * stored.shape[-1])


def round_activations(x):
    """Return (p int8 [m, k], t float32 [m, blocks]) with x ~ t p, block by block.

    x is float32 [m, k]; the last block may be shorter than X_BLOCK. NaN and infinite
    numbers are in t, and so in every product with their row.
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


def _scales(x, most):
    """The largest |x| of the last axis over `most`, [..., 1]; 1 where all are 0."""
    largest = np.maximum(x.max(-1, keepdims=True), -x.min(-1, keepdims=True))
    if not np.isfinite(largest).all():
        raise ValueError("NaN or infinite numbers have no place in int8 or int4")
    largest /= np.float32(most)
    largest[largest == 0.0] = 1.0
    return largest


def _round_to(x, scales, most):
    """Turn x into round(x / scales) within -most .. most, in place."""
    x /= scales
    np.rint(x, out=x)
    np.clip(x, -most, most, out=x)
