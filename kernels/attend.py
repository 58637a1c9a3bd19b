"""attention, the twin of minigpt2.ops.attention.

What makes it fast: no matrix of scores in memory, no copies of heads, and one pass over
keys and values for 6 queries at a time. The keys come in blocks of 64, and the softmax
is taken on the way (the "online" softmax of Milakov & Gimelshein 2018): when a block
raises the largest score so far, what was summed up is scaled down to the new one.

What makes it reproducible: blocks start at positions 0, 64, 128, ... whatever part of
them a query sees, so a query has the same bits whether it was decoded alone, verified
with a few others or prefilled with all: scores are summed like matmul.py's products,
and values one key after another.
"""

import numpy as np
from numba import prange
from numba.types import boolean, float64, intp, void

from .exponential import exp
from .jit import helper, kernel, reads, writes
from .simd import (
    LANES,
    add_outer,
    fma,
    highest,
    keep,
    larger,
    load,
    load_tile,
    multiply_add,
    scale_rows,
    splat,
    store,
    store_tile,
    store_totals,
    total,
    zeros,
)
from .threads import parts

BLOCK = 64  # keys: four vectors of scores
QUERIES, COLUMNS = 6, 4  # a tile: queries by keys, or by vectors of the values
WIDTH = COLUMNS * LANES  # the kernel takes heads that are a multiple of this wide
NO_MASK = np.empty((0, 0), bool)
TINY = float(np.finfo(np.float32).tiny)


def attention(q, k, v, key_mask=None, scale=1.0):
    """minigpt2.ops.attention: causal attention of q's T positions, the last of k's S.

    q [..., H, T, D], k and v [..., H, S, D], key_mask bool [..., S] or None for all
    True, scale a float; gives [..., H, T, D].
    """
    *lead, new, width = q.shape
    if k.shape != v.shape or k.shape != (*lead, k.shape[-2], width) or new > k.shape[-2]:
        raise ValueError(f"q {q.shape}, k {k.shape} and v {v.shape} do not fit")
    if width % WIDTH:  # zeros add nothing to a score, and no column of v is missed
        q, k, v = (_widened(x, -width % WIDTH) for x in (q, k, v))
    seen = k.shape[-2]
    out = np.empty(q.shape, q.dtype)
    if key_mask is None:
        mask = NO_MASK
    else:
        mask = np.broadcast_to(key_mask, (*lead[:-1], seen)).reshape(-1, seen)  # [B, S]
    _attend[q.dtype](
        _heads(q),
        _heads(k),
        _heads(v),
        mask,
        scale,
        out.reshape(-1, *q.shape[-2:]),
        parts(2 * q.size * seen),
    )
    return out if q.shape[-1] == width else out[..., :width]


def _widened(x, by):
    return np.concatenate([x, np.zeros((*x.shape[:-1], by), x.dtype)], axis=-1)


def _heads(x):
    """x [..., H, T, D] as [N, T, D], a view where the memory allows it, D contiguous."""
    if x.strides[-1] != x.itemsize:
        x = np.ascontiguousarray(x)
    return x.reshape(-1, *x.shape[-2:])


@kernel(
    lambda T: void(
        reads(T, 3),
        reads(T, 3),
        reads(T, 3),
        reads(boolean, 2),
        float64,
        writes(T, 3),
        intp,
    ),
)
def _attend(q, k, v, mask, scale, out, parts):
    if parts == 1:
        _attend_part(q, k, v, mask, scale, out, 0, 1)
    else:
        for part in prange(parts):
            _attend_part(q, k, v, mask, scale, out, part, parts)


@helper
def _attend_part(q, k, v, mask, scale, out, part, parts):
    """Deal out the heads' tiles of queries, as later queries see more keys."""
    heads, new, width = q.shape
    tiles = (new + QUERIES - 1) // QUERIES
    scores = np.empty((QUERIES, BLOCK), q.dtype)
    sums = np.empty((QUERIES, width), q.dtype)  # of weights times values
    state = np.empty((4, LANES), q.dtype)  # of each query: see _weigh
    for item in range(part, heads * tiles, parts):
        n, t = item // tiles, item % tiles * QUERIES
        row = n * mask.shape[0] // heads  # of the batch
        if t + QUERIES <= new:
            _six_queries(q, k, v, mask, row, n, t, scale, out, scores, sums, state)
        else:
            for last in range(t, new):
                _one_query(q, k, v, mask, row, n, last, scale, out, scores, sums, state)


def _queries(rows):
    """The function that computes `rows` neighbouring queries of one head."""

    @helper
    def attend(q, k, v, mask, row, n, t, scale, out, scores, sums, state):
        new, width = q.shape[1:]
        seen = k.shape[1]
        state[:] = 0.0
        state[PEAK] = -np.inf
        sums[:] = 0.0
        visible = seen - new + t + 1  # keys that the first of the queries sees
        for s in range(0, visible + rows - 1, BLOCK):
            end = min(s + BLOCK, seen)
            for j in range(s, end, COLUMNS):
                tile = zeros(rows, COLUMNS, q)
                for d in range(0, width, LANES):
                    tile = multiply_add(tile, q, (n, t, d), k, (n, j, d), end)
                store_totals(tile, scores, (0, j - s), end - s)
            for r in range(rows):
                _weigh(scores, state, r, min(visible + r, end) - s, mask, row, s, scale)
            shrinkage = exp(load(state, (SHRINKAGE, 0)))
            store(state, (SHRINKAGE, 0), shrinkage)
            weights = fma(load(state, (WEIGHTS, 0)), shrinkage, load(state, (ADDED, 0)))
            store(state, (WEIGHTS, 0), weights)
            for d in range(0, width, COLUMNS * LANES):
                tile = load_tile(zeros(rows, COLUMNS, q), sums, (0, d))
                tile = scale_rows(tile, state, SHRINKAGE)
                for j in range(s, end):
                    if mask.size == 0 or mask[row, j]:
                        tile = add_outer(tile, scores, (0, j - s), v, (n, j, d))
                store_tile(tile, sums, (0, d))
        for r in range(rows):
            # At least exp(0) = 1, or 0 where the query may see nothing.
            share = q.dtype.type(1.0) / max(state[WEIGHTS, r], q.dtype.type(TINY))
            for d in range(width):
                out[n, t + r, d] = sums[r, d] * share

    return attend


# What is known of a tile's queries: the largest score so far, the sum of the weights so
# far, by how much to shrink what was summed before this block, this block's weights.
PEAK, WEIGHTS, SHRINKAGE, ADDED = range(4)


@helper
def _weigh(scores, state, r, visible, mask, row, s, scale):
    """Turn a block's scores into weights exp(score - peak), 0 for what is hidden."""
    lowest = scores.dtype.type(-np.inf)
    if mask.size > 0:
        for j in range(visible):
            if not mask[row, s + j]:
                scores[r, j] = lowest
    factor = splat(scores.dtype.type(scale))
    a = keep(load(scores, (r, 0)) * factor, visible, splat(lowest))
    b = keep(load(scores, (r, 16)) * factor, visible - 16, splat(lowest))
    c = keep(load(scores, (r, 32)) * factor, visible - 32, splat(lowest))
    d = keep(load(scores, (r, 48)) * factor, visible - 48, splat(lowest))
    before = state[PEAK, r]
    peak = max(highest(larger(larger(a, b), larger(c, d))), before)
    state[PEAK, r] = peak
    if peak == lowest:  # nothing visible yet: -inf - -inf would be NaN
        peak = scores.dtype.type(0.0)
    a = exp(a - splat(peak))
    b = exp(b - splat(peak))
    c = exp(c - splat(peak))
    d = exp(d - splat(peak))
    store(scores, (r, 0), a)
    store(scores, (r, 16), b)
    store(scores, (r, 32), c)
    store(scores, (r, 48), d)
    state[SHRINKAGE, r] = before - peak  # exp is taken of all queries' together
    state[ADDED, r] = total((a + b) + (c + d))


_one_query, _six_queries = _queries(1), _queries(QUERIES)
