"""attention and cached_attention, the twins of those in minigpt2.ops.

A forward pass takes the second. Where it must have the attention weights themselves (to
return, mask or drop them), model/gpt2.py computes them with NumPy: no kernel holds them.

What makes it fast: no attention scores in memory, no copies of heads, and one pass over
keys and values for 6 queries at a time. The keys come in blocks of 64, and the softmax
is taken on the way (the "online" softmax of Milakov & Gimelshein 2018): when a block
raises the largest attention score so far, what was summed up is scaled down to the new one.

What makes it reproducible: blocks start at positions 0, 64, 128, ... whatever part of
them a query sees, so a query has the same bits whether it was decoded alone, verified
with a few others or prefilled with all: attention scores are summed like matmul.py's
products, and values one key after another.

Instead of: NumPy's two products and softmax. Measured, one thread, AVX-512, float32, 12
heads of 64: 512 queries of 512 positions 1.5 times as fast as NumPy, and one query of 900
positions 1.2 times. Tolerance: an attention score is rounded to eps times |q| |k| scale,
which exp turns into a relative error.
"""

import math

import numpy as np
from numba.types import boolean, float64, intp, void

from minigpt2.runtime.memory import empty_reused

from .exponential import exp
from .jit import helper, in_parts, kernel, reads, writes
from .scratch import empty_rows
from .simd import (
    LANES,
    fma,
    highest,
    keep,
    larger,
    load,
    splat,
    store,
    total,
)
from .threads import FEW, parts, share
from .tiles import (
    add_outer,
    load_tile,
    multiply_add,
    scale_rows,
    store_tile,
    store_totals,
    zeros,
)

BLOCK = 64  # keys: four vectors of attention scores
QUERIES, COLUMNS = 6, 4  # a tile: queries by keys, or by vectors of the values
WIDTH = COLUMNS * LANES  # the kernel takes heads that are a multiple of this wide
NO_MASK = np.empty((0, 0), bool)
TINY = float(np.finfo(np.float32).tiny)


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    key_mask: np.ndarray | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    """minigpt2.ops.attention: causal attention of q's T positions, the last of k's S.

    q [..., H, T, D], k and v [..., H, S, D], key_mask bool [..., S] or None for all
    True; gives [..., H, T, D].
    """
    *lead, heads, new, width = q.shape
    seen = k.shape[-2]
    if k.shape != v.shape or k.shape != (*lead, heads, seen, width) or new > seen:
        raise ValueError(f"q {q.shape}, k {k.shape} and v {v.shape} do not fit")
    if width % WIDTH:  # zeros add nothing to q k^T, and no column of v is missed
        q, k, v = (_widened(x, -width % WIDTH) for x in (q, k, v))
    # Views where the memory allows it, as it does for a cache.
    batch = math.prod(lead)
    q, k, v = (
        _rows_contiguous(x).reshape(batch, heads, *x.shape[-2:]) for x in (q, k, v)
    )
    mask = NO_MASK
    if key_mask is not None:
        mask = np.broadcast_to(key_mask, (*lead, seen)).reshape(batch, seen)  # [B, S]
    out = empty_reused((len(q), new, heads, q.shape[-1]), q.dtype)
    _attend[q.dtype](q, k, v, mask, scale, out, parts(2 * q.size * seen))
    # The next layer wants the heads side by side again, for which this order is ready.
    return out.transpose(0, 2, 1, 3)[..., :width].reshape(*lead, heads, new, width)


def _widened(x: np.ndarray, by: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((*x.shape[:-1], by), x.dtype)], axis=-1)


def _rows_contiguous(x: np.ndarray) -> np.ndarray:
    return x if x.strides[-1] == x.itemsize else np.ascontiguousarray(x)


def cached_attention(
    qkv: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    start: int,
    key_mask: np.ndarray | None = None,
    scale: float = 1.0,
) -> np.ndarray:
    """minigpt2.ops.cached_attention: attention of T new positions and all before them.

    qkv [B, T, 3C], what c_attn gives: queries, keys and values side by side. keys and
    values [B, H, capacity, D] hold those of `start` positions, and the new ones' are
    written behind them. key_mask bool [B, start + T] or None. Gives [B, T, C].
    """
    batch, heads, capacity, width = keys.shape
    new = qkv.shape[1]
    seen = start + new
    if (
        qkv.shape != (batch, new, 3 * heads * width)
        or keys.shape != values.shape
        or not 0 <= start <= seen <= capacity
        or (key_mask is not None and key_mask.shape != (batch, seen))
    ):
        raise ValueError(
            f"qkv {qkv.shape}, keys {keys.shape}, values {values.shape} and start "
            f"{start} do not fit"
        )
    qkv = np.ascontiguousarray(qkv).reshape(batch, new, 3, heads, width)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    if width % WIDTH:
        keys[:, :, start:seen], values[:, :, start:seen] = k, v
        out = attention(q, keys[:, :, :seen], values[:, :, :seen], key_mask, scale)
        return out.transpose(0, 2, 1, 3).reshape(batch, new, -1)
    out = empty_reused((batch, new, heads, width), qkv.dtype)
    mask = NO_MASK if key_mask is None else key_mask
    work = parts(2 * out.size * seen)
    attend = _cached_attend[qkv.dtype]
    attend(q, k, v, keys, values, start, mask, scale, out, work)
    return out.reshape(batch, new, -1)


@kernel(
    lambda T: void(
        reads(T, 4),
        reads(T, 4),
        reads(T, 4),
        reads(boolean, 2),
        float64,
        writes(T, 4),
        intp,
    ),
)
def _attend(q, k, v, mask, scale, out, parts):
    _attend_part(parts, (q, k, v, mask, scale, out))


@kernel(
    lambda T: void(
        reads(T, 4),
        reads(T, 4),
        reads(T, 4),
        writes(T, 4),
        writes(T, 4),
        intp,
        reads(boolean, 2),
        float64,
        writes(T, 4),
        intp,
    ),
)
def _cached_attend(q, k, v, keys, values, start, mask, scale, out, parts):
    new = q.shape[2]
    seen = start + new
    _remember(parts if new > FEW else 1, (k, v, keys, values, start))
    all_k, all_v = keys[:, :, :seen], values[:, :, :seen]
    _attend_part(parts, (q, all_k, all_v, mask, scale, out))


@in_parts
def _remember(part, parts, k, v, keys, values, start):
    """Write the new keys and values of a part's heads, of those of all rows."""
    batch, heads, new, width = k.shape
    first, last = share(part, parts, batch * heads)
    for item in range(first, last):
        b, h = item // heads, item % heads
        for t in range(new):
            for d in range(0, width, LANES):
                store(keys, (b, h, start + t, d), load(k, (b, h, t, d)))
                store(values, (b, h, start + t, d), load(v, (b, h, t, d)))


@in_parts
def _attend_part(part, parts, q, k, v, mask, scale, out):
    """Deal out the heads' tiles of queries, as later queries see more keys."""
    batch, heads, new, width = q.shape
    tiles = (new + QUERIES - 1) // QUERIES
    scores = empty_rows(QUERIES, BLOCK, q)
    sums = empty_rows(QUERIES, width, q)  # of exponentials times values
    state = empty_rows(4, LANES, q)  # of each query: see PEAK and the others
    for item in range(part, batch * heads * tiles, parts):
        b, h = item // tiles // heads, item // tiles % heads
        t = item % tiles * QUERIES
        if t + QUERIES <= new:
            _six_queries(q, k, v, mask, b, h, t, scale, out, scores, sums, state)
        else:
            for last in range(t, new):
                _one_query(q, k, v, mask, b, h, last, scale, out, scores, sums, state)


def _queries(rows):
    """The function that computes `rows` neighboring queries of one head."""

    @helper
    def attend(q, k, v, mask, b, h, t, scale, out, scores, sums, state):
        new, width = q.shape[2:]
        seen = k.shape[2]
        for r in range(rows):
            state[PEAK, r], state[TOTAL, r] = -np.inf, 0.0
            for d in range(width):
                sums[r, d] = 0.0
        visible = seen - new + t + 1  # keys that the first of the queries sees
        for s in range(0, visible + rows - 1, BLOCK):
            end = min(s + BLOCK, seen)
            for j in range(s, end, COLUMNS):
                tile = zeros(rows, COLUMNS, q)
                for d in range(0, width, LANES):
                    tile = multiply_add(
                        tile, q, (b, h, t, d), k, (b, h, j, d), (1, end)
                    )
                store_totals(tile, scores, (0, j - s), end - s)
            for r in range(rows):
                _exponentials(
                    scores, state, r, min(visible + r, end) - s, mask, b, s, scale
                )
            shrinkage = exp(load(state, (SHRINKAGE, 0)))
            store(state, (SHRINKAGE, 0), shrinkage)
            sum_so_far = load(state, (TOTAL, 0))
            sum_so_far = fma(sum_so_far, shrinkage, load(state, (ADDED, 0)))
            store(state, (TOTAL, 0), sum_so_far)
            for d in range(0, width, COLUMNS * LANES):
                tile = load_tile(zeros(rows, COLUMNS, q), sums, (0, d))
                tile = scale_rows(tile, state, SHRINKAGE)
                for j in range(s, end):
                    if mask.size == 0 or mask[b, j]:
                        tile = add_outer(tile, scores, (0, j - s), v, (b, h, j, d))
                store_tile(tile, sums, (0, d))
        for r in range(rows):
            # At least exp(0) = 1, or 0 where the query may see nothing.
            factor = q.dtype.type(1.0) / max(state[TOTAL, r], q.dtype.type(TINY))
            for d in range(width):
                out[b, t + r, h, d] = sums[r, d] * factor

    return attend


# What is known of a tile's queries: the largest attention score so far, the sum of the
# exponentials so far, the factor that scales earlier sums to the new peak, and the sum of
# this block's exponentials.
PEAK, TOTAL, SHRINKAGE, ADDED = range(4)


@helper
def _exponentials(scores, state, r, visible, mask, b, s, scale):
    """Turn a block's attention scores into exp(score - peak), 0 for what is hidden."""
    lowest = scores.dtype.type(-np.inf)
    if mask.size > 0:
        for j in range(visible):
            if not mask[b, s + j]:
                scores[r, j] = lowest
    factor = splat(scores.dtype.type(scale))
    e0 = keep(load(scores, (r, 0)) * factor, visible, splat(lowest))
    e1 = keep(load(scores, (r, 16)) * factor, visible - 16, splat(lowest))
    e2 = keep(load(scores, (r, 32)) * factor, visible - 32, splat(lowest))
    e3 = keep(load(scores, (r, 48)) * factor, visible - 48, splat(lowest))
    before = state[PEAK, r]
    peak = max(highest(larger(larger(e0, e1), larger(e2, e3))), before)
    state[PEAK, r] = peak
    if peak == lowest:  # nothing visible yet: -inf - -inf would be NaN
        peak = scores.dtype.type(0.0)
    e0 = exp(e0 - splat(peak))
    e1 = exp(e1 - splat(peak))
    e2 = exp(e2 - splat(peak))
    e3 = exp(e3 - splat(peak))
    store(scores, (r, 0), e0)
    store(scores, (r, 16), e1)
    store(scores, (r, 32), e2)
    store(scores, (r, 48), e3)
    state[SHRINKAGE, r] = before - peak  # exp is taken of all queries' together
    state[ADDED, r] = total((e0 + e1) + (e2 + e3))


_one_query, _six_queries = _queries(1), _queries(QUERIES)
