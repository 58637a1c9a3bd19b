"""What the linear kernels of all forms of weights share: before and after the product.

A layer norm, the product with the weights, scales, a bias, gelu and the residual stream
are one kernel: the numbers stay in the cache, and one call does it.

    out = residual + gelu((norm(x) w) * scales + bias), with the steps that are given

A step that is not given has an array of no elements in its place.
"""

from numba.types import boolean, float64, intp, void

from .activations import gelu_of
from .jit import helper, reads, writes
from .norms import norm_row
from .scratch import empty_rows
from .simd import LANES, first, load, splat, store


def signature(weights):
    """The arguments of such a kernel; weights: float type -> types of the stored arrays.

    x, norm's weight, its bias and eps, the weights, bias, gelu, residual, out, parts.
    """
    return lambda T: void(
        reads(T, 2, "C"),
        reads(T, 1, "C"),
        reads(T, 1, "C"),
        float64,
        *weights(T),
        reads(T, 1, "C"),
        boolean,
        reads(T, 2, "C"),
        writes(T, 2),
        intp,
    )


@helper
def normed(x, weight, bias, eps):
    """The norm of x's rows, or x itself: many rows were normed by all threads before."""
    source = x
    if weight.size > 0:
        source = empty_rows(len(x), x.shape[1], x)
        for i in range(len(x)):
            norm_row(x, i, weight, bias, eps, source, i)
    return source


@helper
def finish(out, row, begin, end, scales, bias, gelu, residual):
    """out[row, begin : end] = residual + gelu(out * scales + bias).

    scales [N] and bias [N] have no elements where there are none, nor has residual.
    """
    whole = end - (end - begin) % LANES
    for j in range(begin, whole, LANES):
        y = load(out, (row, j))
        if scales.size > 0:
            y = y * load(scales, j)
        if bias.size > 0:
            y = y + load(bias, j)
        if gelu:
            y = gelu_of(y)
        if residual.size > 0:
            y = y + load(residual, (row, j))
        store(out, (row, j), y)
    for j in range(whole, end):
        if scales.size > 0:
            out[row, j] *= scales[j]
        if bias.size > 0:
            out[row, j] += bias[j]
        if gelu:
            out[row, j] = first(gelu_of(splat(out[row, j])))
        if residual.size > 0:
            out[row, j] += residual[row, j]
