"""attention, the twin of minigpt2.ops.attention.

What makes it fast: no matrix of scores, no copies of transposed heads, and one pass
over the keys and values that a query sees. The softmax is taken on the way (the
"online" softmax of Milakov & Gimelshein 2018): whenever a larger score turns up, what
was summed so far is scaled down to the new peak.
"""

import numpy as np
from numba import prange
from numba.types import boolean, float64, intp, void

from .exponential import exp
from .jit import helper, kernel, reads, writes
from .threads import parts


def attention(q, k, v, key_mask=None, scale=1.0):
    """minigpt2.ops.attention: causal attention of q's T positions, the last of k's S.

    q [..., H, T, D], k and v [..., H, S, D], key_mask bool [..., S] or None for all
    True, scale a float; gives [..., H, T, D].
    """
    *lead, new, width = q.shape
    seen = k.shape[-2]
    out = np.empty(q.shape, q.dtype)
    # Views where the memory allows it, as it does for a cache and for heads of one row.
    q = q.reshape(-1, new, width)  # [N, T, D], N of all batch rows and heads
    k = k.reshape(-1, seen, width)  # [N, S, D]
    v = v.reshape(-1, seen, width)
    if key_mask is None:
        mask = np.empty((0, 0), bool)
    else:
        mask = np.broadcast_to(key_mask, (*lead[:-1], seen)).reshape(-1, seen)  # [B, S]
    work = parts(2 * q.size * seen)
    _attend[q.dtype](q, k, v, mask, scale, out.reshape(q.shape), work)
    return out


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
    parallel=True,
)
def _attend(q, k, v, mask, scale, out, parts):
    if parts == 1:
        _attend_part(q, k, v, mask, scale, out, 0, 1)
    else:
        for part in prange(parts):
            _attend_part(q, k, v, mask, scale, out, part, parts)


@helper
def _attend_part(q, k, v, mask, scale, out, part, parts):
    heads, new, _ = q.shape
    seen = k.shape[1]
    for item in range(part, heads * new, parts):  # dealt out, as late queries see more
        n, t = divmod(item, new)
        visible = seen - new + t + 1
        _attend_query(q[n, t], k[n], v[n], mask, n, heads, visible, scale, out[n, t])


@helper
def _attend_query(q, k, v, mask, n, heads, visible, scale, out):
    zero = q.dtype.type(0.0)
    width = q.size
    peak = q.dtype.type(-np.inf)
    total = zero
    out[:] = zero
    for s in range(visible):
        if mask.size > 0 and not mask[n * mask.shape[0] // heads, s]:
            continue
        score = zero
        for d in range(width):
            score += q[d] * k[s, d]
        score *= q.dtype.type(scale)
        if score > peak:
            shrink = exp(peak - score) if peak > q.dtype.type(-np.inf) else zero
            peak = score
            total *= shrink
            for d in range(width):
                out[d] *= shrink
        weight = exp(score - peak)
        total += weight
        for d in range(width):
            out[d] += weight * v[s, d]
    if total > zero:
        for d in range(width):
            out[d] /= total
