"""linear with int8 and int4 matrices, the twin of minigpt2.quantization's products.

What makes it fast: a decode step takes the time that its matrices take to come from
memory, so a quarter of the bytes make it almost four times as fast. And with both
factors as bytes one instruction makes 64 products, so that a prefill gains too.

The trick of the bytes: the instruction multiplies unsigned by signed ones. The integers
q of a matrix are stored as q + 128 (int4: q + 8), and every sum starts at -128 (-8)
times the sum of the p that it will multiply, which takes the offset out again, exactly:

    sum p (q + 128) - 128 sum p = sum p q

Sums of integers have no order, and the scaled blocks are added lane by lane as in
matmul.py: so here too a row has the same bits alone and in any batch.

int4 costs more arithmetic: it has a scale for every 32 numbers, so that every 64 products
are turned into floats and scaled on their own, where int8 does so for 128. It is for
decoding; a prefill takes longer than in float32.

In the names here: q the matrix's bytes [N, ...], s its scales, p the rounded x, t its
scales, `starts` what the sums start at. int8 has a scale a row, s [N], and int4 many,
s [N, K / 32]: `if s.ndim == 1`, which Numba decides at compile time, tells them apart.

Instead of: x @ matrix in NumPy, by the formula in minigpt2.quantization. Measured on all
linear layers of the 124M model, one thread, AVX-512 VNNI, against float32: one row
int8 3.6 times and int4 (with an int8 head) 4.4 times as fast, 512 rows int8 1.7 times
and int4 0.8. Tolerance: p, t and the sums of integers are the formula's own, bit by
bit; each block's scaled sum is rounded twice or three times in float32, which stays
below 1e-6 of the sum of |x| |w|.
"""

import numpy as np
from numba import uint8, uint16

from minigpt2.quantization import INT4_BLOCK, X_BLOCK, X_LEAST

from .jit import helper, in_parts, kernel, reads
from .joined import finish, signature
from .norms import norm_row
from .scratch import empty_rows
from .simd import (
    LANES,
    float_of,
    float_of_half,
    highest,
    larger,
    load,
    magnitude,
    nearest,
    splat,
    store,
    store_int8,
    sums_of_four,
)
from .threads import FEW, share
from .tiles import (
    add_scaled,
    add_scaled_by_halves,
    multiply_add,
    multiply_add_nibbles,
    prefetch,
    scatter_totals,
    spread,
    store_totals,
    zeros,
)

STEP = 4 * LANES  # numbers that are multiplied by one instruction
ROW_BLOCK, COLUMN_BLOCK = 48, 192  # outputs worked on at a time
AHEAD4 = 2  # tiles of int4 to prefetch ahead


def _linear(x, norm_weight, norm_bias, eps, q, s, bias, gelu, residual, out, parts):
    rows = len(x)
    to_a_byte, offset, group = _layout(s)
    width = q.shape[1] * to_a_byte
    p = empty_rows(rows, width, BYTES)
    t = empty_rows(rows, (width + X_BLOCK - 1) // X_BLOCK, x)
    starts = empty_rows(rows, (width + group - 1) // group * LANES, WORDS)
    few = parts if rows > FEW else 1
    _round_rows(few, (x, norm_weight, norm_bias, eps, p, t, starts, offset, group))
    _columns(parts, (p, t, starts, q, s, bias, gelu, residual, out))


BYTES, WORDS = np.empty(0, np.int8), np.empty(0, np.int32)  # for their dtypes
_bytes_type = reads(uint8, 2, "C")
linear_int8 = kernel(signature(lambda T: [_bytes_type, reads(T, 1, "C")]))(_linear)
# (The scales are float16, of which Numba has no arrays.)
linear_int4 = kernel(signature(lambda T: [_bytes_type, reads(uint16, 2, "C")]))(_linear)


@helper
def _layout(s):
    """How a matrix with scales s is stored, and summed up.

    That is: how many numbers are in a byte, what was added to each, and how many products
    are summed up before they are scaled.
    """
    if s.ndim == 1:
        return 1, 128, X_BLOCK  # int8
    return 2, 8, STEP


@in_parts
def _round_rows(part, parts, x, weight, bias, eps, p, t, starts, offset, group):
    """Write x (or its norm) ~ t p, and -offset times the sums of four p, group by group.

    minigpt2.quantization.round_activations, with the same bits.
    """
    first, last = share(part, parts, len(x))
    row = empty_rows(1, p.shape[1], x)
    for k in range(x.shape[1], row.shape[1]):
        row[0, k] = 0.0
    for i in range(first, last):
        if weight.size > 0:
            norm_row(x, i, weight, bias, eps, row, 0)
        else:
            for k in range(x.shape[1]):
                row[0, k] = x[i, k]
        _round_row(row, p, t, i)
        for k in range(0, p.shape[1], group):
            sums = sums_of_four(p, (i, k))
            for j in range(k + STEP, min(k + group, p.shape[1]), STEP):
                sums = sums + sums_of_four(p, (i, j))
            store(starts, (i, k // group * LANES), sums * splat(np.int32(-offset)))


@helper
def _round_row(row, p, t, i):
    width = p.shape[1]
    full = row.dtype.type(127.0)
    for k in range(0, width, X_BLOCK):
        end = min(k + X_BLOCK, width)
        lanes = magnitude(load(row, (0, k)))
        for j in range(k + LANES, end, LANES):
            lanes = larger(magnitude(load(row, (0, j))), lanes)
        most = float_of(highest(lanes))
        t[i, k // X_BLOCK] = most / full
        # Zeros, for what is next to nothing and for NaN and inf, which t says.
        fill = row.dtype.type(0.0)
        if most >= X_LEAST and most < np.inf:
            fill = full / most
        for j in range(k, end, LANES):
            store_int8(p, (i, j), nearest(load(row, (0, j)) * splat(fill)))


@in_parts
def _columns(part, parts, p, t, starts, q, s, bias, gelu, residual, out):
    """Compute a part's columns of out, block by block."""
    first, last = share(part, parts, len(q), LANES)
    rows = len(p)
    scales = _row_scales(s, bias)
    widened = _block_scales(s, t)
    for n in range(first, last, COLUMN_BLOCK):
        n_end = min(n + COLUMN_BLOCK, last)
        for m in range(0, rows, ROW_BLOCK):
            m_end = min(m + ROW_BLOCK, rows)
            _block(p, t, starts, q, s, widened, out, m, m_end, n, n_end)
            for i in range(m, m_end):
                finish(out, i, n, n_end, scales, bias, gelu, residual)


@helper
def _row_scales(s, bias):
    """The scales that `finish` multiplies by: int8's, one a row."""
    if s.ndim == 1:
        return s
    return bias[:0]


@helper
def _block_scales(s, t):
    """Memory for the scales of a block's columns as float32, which int4 needs."""
    if s.ndim == 1:
        return t  # is not used
    return empty_rows(COLUMN_BLOCK, s.shape[1], t)


@helper
def _widen(s, n, n_end, widened):
    halves, floats = s[n:n_end].reshape(-1), widened.reshape(-1)
    for i in range(halves.size):
        floats[i] = float_of_half(halves[i])


@helper
def _walk(rows, columns, n, n_end):
    """How a row of tiles goes from n to n_end: how far a tile's columns are apart, by how
    much the next tile's are further on, and where the last ends.

    One row's columns are not neighbors: see matmul._one_row.
    """
    if rows == 1:
        stride = (n_end - n + columns - 1) // columns
        return stride, 1, n + stride
    return 1, columns, n_end


def _int8_tiles(rows, columns):
    """The function that sums up a row of tiles, each rows x columns outputs."""

    @helper
    def row_of_tiles(p, t, starts, q, out, m, n, n_end):
        width = p.shape[1]
        stride, step, stop = _walk(rows, columns, n, n_end)
        span = stride, n_end
        for column in range(n, stop, step):
            tile = zeros(rows, columns, t)
            for k in range(0, width, X_BLOCK):
                b = k // X_BLOCK
                sums = spread(zeros(rows, columns, starts), starts, (m, b * LANES))
                sums = multiply_add(sums, p, (m, k), q, (column, k), span)
                if m == 0:
                    prefetch(sums, q, (column + step, k), stride)
                if k + STEP < width:
                    j = k + STEP
                    sums = multiply_add(sums, p, (m, j), q, (column, j), span)
                    if m == 0:
                        prefetch(sums, q, (column + step, j), stride)
                tile = add_scaled(tile, sums, t, (m, b))
            if rows == 1:
                scatter_totals(tile, out, (m, column), span)
            else:
                store_totals(tile, out, (m, column), n_end)

    return row_of_tiles


def _int4_tiles(rows, columns):
    """The same for int4, where sums are scaled twice: for every 32 by s, and by t."""

    @helper
    def half(part, p, starts, q, s, m, k, n, column, span):
        sums = zeros(rows, columns, starts)
        sums = spread(sums, starts, (m, k // STEP * LANES))
        sums = multiply_add_nibbles(sums, p, (m, k), q, (column, k // 2), span)
        at = column - n, k // INT4_BLOCK
        stride, end = span
        return add_scaled_by_halves(part, sums, s, at, (stride, end - n))

    @helper
    def row_of_tiles(p, t, starts, q, s, out, m, n, n_end):
        width = p.shape[1]
        stride, step, stop = _walk(rows, columns, n, n_end)
        span = stride, n_end
        for column in range(n, stop, step):
            tile = zeros(rows, columns, t)
            for k in range(0, width, X_BLOCK):
                part = zeros(rows, columns, t)
                part = half(part, p, starts, q, s, m, k, n, column, span)
                if k + STEP < width:
                    part = half(part, p, starts, q, s, m, k + STEP, n, column, span)
                if m == 0:
                    prefetch(tile, q, (column + AHEAD4 * step, k // 2), stride)
                tile = add_scaled(tile, part, t, (m, k // X_BLOCK))
            if rows == 1:
                scatter_totals(tile, out, (m, column), span)
            else:
                store_totals(tile, out, (m, column), n_end)

    return row_of_tiles


@helper
def _block(p, t, starts, q, s, widened, out, m, m_end, n, n_end):
    """Compute a block of out but for what `finish` does, some rows of x at a time."""
    if s.ndim == 1:
        _int8_block(p, t, starts, q, out, m, m_end, n, n_end)
    else:
        _int4_block(p, t, starts, q, s, widened, out, m, m_end, n, n_end)


@helper
def _int8_block(p, t, starts, q, out, m, m_end, n, n_end):
    while m < m_end:
        if m_end - m >= 3:
            _int8_three_rows(p, t, starts, q, out, m, n, n_end)
            m += 3
        else:
            _int8_one_row(p, t, starts, q, out, m, n, n_end)
            m += 1


@helper
def _int4_block(p, t, starts, q, s, widened, out, m, m_end, n, n_end):
    if m == 0:
        _widen(s, n, n_end, widened)
    while m < m_end:
        if m_end - m >= 2:
            _int4_two_rows(p, t, starts, q, widened, out, m, n, n_end)
            m += 2
        else:
            _int4_one_row(p, t, starts, q, widened, out, m, n, n_end)
            m += 1


_int8_one_row, _int8_three_rows = _int8_tiles(1, 8), _int8_tiles(3, 4)
_int4_one_row, _int4_two_rows = _int4_tiles(1, 8), _int4_tiles(2, 4)
