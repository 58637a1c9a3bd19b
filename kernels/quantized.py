"""linear with int8 and bfloat16 weights, the twin of minigpt2.quantization.

What makes it fast: a decode step takes the time that its weights take to stream from
memory, so weights of a quarter of the size make it almost four times as fast. And with
both factors as bytes one instruction makes 64 products, so that a prefill gains too.

The trick of the bytes: the instruction multiplies unsigned by signed ones. The weights q
are stored as q + 128, and every sum starts at -128 times the sum of the p that it will
multiply, which takes the 128 out again, exactly:

    sum p (q + 128) - 128 sum p = sum p q

Sums of integers have no order, and the scaled blocks are added as in matmul.py: so here
too a row has the same bits alone and in any batch.
"""

import numpy as np
from numba import int8, int32, prange, uint8
from numba.types import boolean, float64, intp, void

from minigpt2.memory import empty_aligned

from .activations import gelu_row
from .jit import helper, kernel, reads, writes
from .norms import FEW, NOTHING, layer_norm, norm_rows, normed
from .simd import (
    LANES,
    add_scaled,
    highest,
    larger,
    load,
    magnitude,
    multiply_add,
    nearest,
    prefetch,
    splat,
    spread,
    store,
    store_int8,
    store_totals,
    sums_of_four,
    zeros,
)
from .threads import parts

STEP = 4 * LANES  # bytes in a register
BLOCK = 128  # minigpt2.quantization.X_BLOCK: numbers of x that share a scale
COLUMNS = 4  # rows of weights in a tile
ROW_BLOCK, COLUMN_BLOCK = 48, 192


def linear_int8(x, packed, bias=None, norm=None, gelu=False, residual=None):
    """minigpt2.quantization.linear_int8 of x, or of its norm, and what may follow it.

    x float32 [..., in], packed an Int8Rows [out, in], bias [out]; gives [..., out].
    """
    columns, inner = packed.bytes.shape
    x, norm = normed(x, norm)
    rows = np.ascontiguousarray(x).reshape(-1, packed.width)
    if inner != packed.width:
        if norm:
            rows, norm = layer_norm(rows, *norm), None
        rows = np.pad(rows, [(0, 0), (0, inner - packed.width)])
    count = len(rows)
    p = np.empty((count, inner), np.int8)
    t = np.empty((count, -(-inner // BLOCK)), np.float32)
    starts = np.empty((count, t.shape[1] * LANES), np.int32)
    out = empty_aligned((count, columns), np.float32)
    vector, matrix = NOTHING[x.dtype]
    if count > FEW:
        _round[x.dtype](rows, p, t, starts, parts(4 * rows.size))
        rows = matrix  # that is done
    _linear_int8[x.dtype](
        rows,
        *(norm or (vector, vector, 0.0)),
        p,
        t,
        starts,
        packed.bytes,
        packed.scales,
        vector if bias is None else bias,
        gelu,
        matrix if residual is None else residual.reshape(out.shape),
        out,
        parts(count * packed.bytes.size // 4),
    )
    return out.reshape(*x.shape[:-1], columns)


@kernel(
    lambda T: void(
        reads(T, 2, "C"), writes(int8, 2), writes(T, 2), writes(int32, 2), intp
    )
)
def _round(x, p, t, starts, parts):
    """Write x ~ t p, block by block, and -128 times the sums of four p."""
    if parts == 1:
        _round_rows(x, p, t, starts, 0, len(x))
    else:
        for part in prange(parts):
            first, last = part * len(x) // parts, (part + 1) * len(x) // parts
            _round_rows(x, p, t, starts, first, last)


@helper
def _round_rows(x, p, t, starts, first, last):
    width = x.shape[1]
    for i in range(first, last):
        for b in range(t.shape[1]):
            k, k_end = b * BLOCK, min((b + 1) * BLOCK, width)
            lanes = magnitude(load(x, (i, k)))
            for j in range(k + LANES, k_end, LANES):
                lanes = larger(magnitude(load(x, (i, j))), lanes)
            most = highest(lanes)
            t[i, b] = most / x.dtype.type(127.0)
            fill = x.dtype.type(127.0) / most if most > 0 else x.dtype.type(0.0)
            for j in range(k, k_end, LANES):
                store_int8(p, (i, j), nearest(load(x, (i, j)) * splat(fill)))
            sums = sums_of_four(p, (i, k))
            for j in range(k + STEP, k_end, STEP):
                sums = sums + sums_of_four(p, (i, j))
            store(starts, (i, b * LANES), sums * splat(np.int32(-128)))


@kernel(
    lambda T: void(
        reads(T, 2, "C"),
        reads(T, 1),
        reads(T, 1),
        float64,
        writes(int8, 2),
        writes(T, 2),
        writes(int32, 2),
        reads(uint8, 2, "C"),
        reads(T, 1),
        reads(T, 1),
        boolean,
        reads(T, 2),
        writes(T, 2),
        intp,
    )
)
def _linear_int8(
    x, weight, norm_bias, eps, p, t, starts, q, s, bias, gelu, residual, out, parts
):
    if weight.size > 0:
        normed = np.empty(x.shape, x.dtype)
        norm_rows(x, weight, norm_bias, eps, normed, 0, len(x))
        _round_rows(normed, p, t, starts, 0, len(x))
    else:
        _round_rows(x, p, t, starts, 0, len(x))
    if parts == 1:
        _columns(p, t, starts, q, s, bias, gelu, residual, out, 0, len(q))
    else:
        tiles = (len(q) + COLUMNS - 1) // COLUMNS
        for part in prange(parts):
            first = part * tiles // parts * COLUMNS
            last = min((part + 1) * tiles // parts * COLUMNS, len(q))
            _columns(p, t, starts, q, s, bias, gelu, residual, out, first, last)


@helper
def _columns(p, t, starts, q, s, bias, gelu, residual, out, first, last):
    """Compute the columns first .. last-1 of out, block by block."""
    rows = len(p)
    for n in range(first, last, COLUMN_BLOCK):
        n_end = min(n + COLUMN_BLOCK, last)
        for m in range(0, rows, ROW_BLOCK):
            m_end = min(m + ROW_BLOCK, rows)
            i = m
            while i < m_end:
                if m_end - i >= 3:
                    _three_rows(p, t, starts, q, out, i, n, n_end)
                    i += 3
                else:
                    _one_row(p, t, starts, q, out, i, n, n_end)
                    i += 1
            for i in range(m, m_end):
                for j in range(n, n_end):
                    out[i, j] *= s[j]
                if bias.size > 0:
                    for j in range(n, n_end):
                        out[i, j] += bias[j]
                if gelu:
                    gelu_row(out, out, i, n, n_end)
                if residual.size > 0:
                    for j in range(n, n_end):
                        out[i, j] += residual[i, j]


def _tiles(rows):
    """The function that sums up a row of tiles, each `rows` x COLUMNS outputs."""

    @helper
    def row_of_tiles(p, t, starts, q, out, m, n, n_end):
        width = p.shape[1]
        for column in range(n, n_end, COLUMNS):
            tile = zeros(rows, COLUMNS, t)
            for b in range(t.shape[1]):
                sums = zeros(rows, COLUMNS, starts)
                sums = spread(sums, starts, (m, b * LANES))
                for k in range(b * BLOCK, min((b + 1) * BLOCK, width), STEP):
                    sums = multiply_add(sums, p, (m, k), q, (column, k), n_end)
                    if rows == 1:  # bound by memory, which the CPU does not foresee
                        for c in range(COLUMNS, 2 * COLUMNS):
                            prefetch(q, (column + c, k))
                tile = add_scaled(tile, sums, t, (m, b))
            store_totals(tile, out, (m, column), n_end)

    return row_of_tiles


_one_row, _three_rows = _tiles(1), _tiles(3)
