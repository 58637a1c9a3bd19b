"""layer_norm, the twin of minigpt2.ops.layer_norm.

What makes it fast: NumPy makes eight passes over x and as many temporary arrays; here a
row stays in the first-level cache from its sum to its result.

Measured, one thread, AVX-512, float32: 512 rows of 768 numbers 4.6 times as fast as
NumPy, one row 3.4 times. Tolerance: the mean is rounded to eps times the largest |x|,
which the division by the standard deviation magnifies.
"""

import math

import numpy as np
from numba.types import float64, intp, void

from minigpt2.runtime.memory import empty_reused

from .jit import helper, in_parts, kernel, reads, writes
from .simd import LANES, fma, load, splat, store, total
from .threads import parts, share


def layer_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float = 1e-5
) -> np.ndarray:
    """minigpt2.ops.layer_norm: (x - mean) / sqrt(var + eps) * weight + bias.

    Over the last axis: x [..., C], weight [C], bias [C].
    """
    if weight.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        raise ValueError(
            f"x {x.shape}, weight {weight.shape} and bias {bias.shape} do not fit"
        )
    rows = np.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    weight, bias = np.ascontiguousarray(weight), np.ascontiguousarray(bias)
    out = empty_reused(x.shape, x.dtype)
    norm = _layer_norm[x.dtype]
    norm(rows, weight, bias, eps, out.reshape(rows.shape), parts(4 * x.size))
    return out


@kernel(
    lambda T: void(
        reads(T, 2, "C"),
        reads(T, 1, "C"),
        reads(T, 1, "C"),
        float64,
        writes(T, 2),
        intp,
    ),
)
def _layer_norm(x, weight, bias, eps, out, parts):
    _norm_rows(parts, (x, weight, bias, eps, out))


@in_parts
def _norm_rows(part, parts, x, weight, bias, eps, out):
    first, last = share(part, parts, len(x))
    for i in range(first, last):
        norm_row(x, i, weight, bias, eps, out, i)


@helper
def norm_row(x, i, weight, bias, eps, out, to):
    """Write the norm of x[i] to out[to]."""
    width = x.shape[1]
    whole = width - width % LANES
    one = x.dtype.type(1.0)
    fraction = one / x.dtype.type(width)
    lanes = splat(x.dtype.type(0.0))
    for j in range(0, whole, LANES):
        lanes = lanes + load(x, (i, j))
    mean = total(lanes)
    for j in range(whole, width):
        mean += x[i, j]
    mean *= fraction

    lanes = splat(x.dtype.type(0.0))
    for j in range(0, whole, LANES):
        centered = load(x, (i, j)) - splat(mean)
        lanes = fma(centered, centered, lanes)
    variance = total(lanes)
    for j in range(whole, width):
        variance += (x[i, j] - mean) * (x[i, j] - mean)
    variance *= fraction

    scale = one / np.sqrt(variance + x.dtype.type(eps))
    for j in range(0, whole, LANES):
        y = (load(x, (i, j)) - splat(mean)) * splat(scale)
        store(out, (to, j), y * load(weight, j) + load(bias, j))
    for j in range(whole, width):
        out[to, j] = (x[i, j] - mean) * scale * weight[j] + bias[j]
