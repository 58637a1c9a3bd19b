"""Weights in less memory: int8, int4 and bfloat16, by formula.

This file is the reference of the schemes, as ops.py is of the arithmetic: short NumPy
functions that say exactly what is stored and what a product with it is.
`minigpt2.kernels` computes the same, faster. W is a weight [in, out], and what is stored
of it are rows, [out, in], as one output is the product of x with one row.

- bfloat16: the upper 16 bits of the float32, rounded to nearest, ties to even. A product
  is the float32 product with the widened weights.
- int8: a scale for every row, and W / scale rounded to -127 .. 127.
- int4: a scale (float16) for every 32 weights of a row, and W / scale rounded to -7 .. 7.

For int8 and int4 the other factor is rounded too, x to int8 with a scale for every
BLOCK numbers, so that the products are sums of integers, which have no rounding error
and no order:

    y[m, n] = sum over blocks b of  t[m, b] * s[n, b] * (sum over i in b of p[m,i] q[n,i])

with x ~ t p and W ~ s q. Source: the blocks follow ggml's q8_0 and q4_0, the scales per
row Dettmers et al. 2022 (LLM.int8()).
"""

import numpy as np

X_BLOCK = 128  # numbers of x that share a scale
INT4_BLOCK = 32  # weights that do, in int4


def to_bfloat16(weight):
    """Return W's rows [out, in] as bfloat16, in uint16. NaN stays NaN."""
    bits = np.ascontiguousarray(weight.T, np.float32).view(np.uint32)
    # Adding just under half of what is cut off carries into the kept bits above half;
    # a tie carries if the last kept bit is 1, so that it becomes even.
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(weight.T), 0x7FC0, rounded).astype(np.uint16)


def from_bfloat16(rows):
    """Return the float32 weight [in, out] of bfloat16 rows, exactly."""
    return (rows.astype(np.uint32) << 16).view(np.float32).T


def to_int8(weight):
    """Return (q int8 [out, in], s float32 [out]) with W ~ (s q)^T."""
    rows = weight.T.astype(np.float32)
    scales = _scale(rows, 127.0)
    return _rounded(rows, scales, 127.0), scales[:, 0]


def from_int8(q, s):
    """Return the float32 weight [in, out] that q and s stand for."""
    return (q * s[:, None]).T


def to_int4(weight):
    """Return (q int8 [out, in] in -7 .. 7, s float16 [out, in / 32]) with W ~ (s q)^T.

    `in` must be a multiple of 32. Two q go into a byte in files: see pack_nibbles.
    """
    rows = weight.T.astype(np.float32).reshape(weight.shape[1], -1, INT4_BLOCK)
    scales = _scale(rows, 7.0).astype(np.float16)
    q = _rounded(rows, scales.astype(np.float32), 7.0)
    return q.reshape(weight.shape[::-1]), scales[..., 0]


def from_int4(q, s):
    """Return the float32 weight [in, out] that q and s stand for."""
    return (q * np.repeat(s.astype(np.float32), INT4_BLOCK, axis=1)).T


def pack_nibbles(q):
    """Store q [out, in] two to a byte, [out, in / 2]: in every 64, i with i + 32.

    Each is stored with 8 added; the former in the low half. `in`: a multiple of 64.
    """
    halves = (q + 8).astype(np.uint8).reshape(len(q), -1, 2, 32)
    return (halves[:, :, 0] | halves[:, :, 1] << 4).reshape(len(q), -1)


def unpack_nibbles(stored):
    """The reverse of pack_nibbles."""
    bytes_ = stored.reshape(len(stored), -1, 1, 32)
    halves = np.concatenate([bytes_ & 15, bytes_ >> 4], axis=2)
    return (halves.astype(np.int8) - 8).reshape(len(stored), -1)


def round_activations(x):
    """Return (p int8 [M, in], t float32 [M, blocks]) with x ~ t p, block by block.

    x is float32 [M, in]; the last block may be shorter than X_BLOCK.
    """
    p = np.empty(x.shape, np.int8)
    t = np.empty((len(x), -(-x.shape[1] // X_BLOCK)), np.float32)
    for b in range(t.shape[1]):
        block = slice(b * X_BLOCK, (b + 1) * X_BLOCK)
        most = np.abs(x[:, block]).max(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            fill = np.where(most > 0, np.float32(127.0) / most, np.float32(0.0))
        p[:, block] = np.rint(x[:, block] * fill)
        t[:, b] = most[:, 0] / np.float32(127.0)
    return p, t


def linear_int8(x, q, s, bias=None):
    """y = x W + b by the formula above, for x float32 [..., in] and int8 weights."""
    return _linear(
        x, q, np.broadcast_to(s[:, None], (len(s), -(-q.shape[1] // 32))), bias
    )


def linear_int4(x, q, s, bias=None):
    """y = x W + b by the formula above, for x float32 [..., in] and int4 weights."""
    return _linear(x, q, s.astype(np.float32), bias)


def _linear(x, q, scales, bias):
    """scales [out, in / 32]."""
    p, t = round_activations(x.reshape(-1, x.shape[-1]))
    y = np.zeros((len(p), len(q)), np.float32)
    for b in range(scales.shape[1]):  # float64 holds these sums of integers exactly
        block = slice(b * INT4_BLOCK, (b + 1) * INT4_BLOCK)
        sums = (p[:, block].astype(np.float64) @ q[:, block].T).astype(np.float32)
        y += sums * t[:, b * INT4_BLOCK // X_BLOCK, None] * scales[:, b]
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], len(q))


def _scale(x, most):
    """The largest |x| of each row over `most`, [..., 1]; 1 for a row of zeros."""
    scale = np.abs(x).max(axis=-1, keepdims=True) / np.float32(most)
    return np.where(scale > 0, scale, np.float32(1.0))


def _rounded(x, scale, most):
    return np.clip(np.rint(x / scale), -most, most).astype(np.int8)
