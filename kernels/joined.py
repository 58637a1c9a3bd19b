"""What the linear kernels of all layouts share: the steps before and after the product.

A layer norm, the product with the matrix, scales, a bias, gelu and the residual stream
are one kernel: the numbers stay in the cache, and one call does it.

    out = residual + gelu((norm(x) w) * scales + bias), with the steps that are given

For a step that is not given the kernel gets an array of no elements.

Instead of: layer_norm, linear, gelu_new and the sum, one after another. Measured with the
products, whose modules also state the tolerances.
"""

from collections.abc import Callable

from numba import types
from numba.types import boolean, float64, intp, void

from .activations import gelu_of
from .jit import helper, reads, writes
from .norms import norm_row
from .scratch import empty_rows
from .simd import LANES, first, load, splat, store


def signature(
    matrix: Callable[[types.Float], list[types.Array]],
) -> Callable[[types.Float], types.Type]:
    """Return the signature of such a kernel, for `kernel`.

    The arguments are x, the norm's weight, bias and eps, the arrays of the matrix (whose
    types `matrix` gives for a float type), bias, gelu, residual, out and parts.
    """
    return lambda T: void(
        reads(T, 2, "C"),
        reads(T, 1, "C"),
        reads(T, 1, "C"),
        float64,
        *matrix(T),
        reads(T, 1, "C"),
        boolean,
        reads(T, 2, "C"),
        writes(T, 2),
        intp,
    )


@helper
def normed(x, weight, bias, eps):
    """The norm of x's rows; x itself where no norm is given.

    (Of many rows the norm is taken before, by all threads: see matmul._project.)
    """
    source = x
    if weight.size > 0:
        source = empty_rows(len(x), x.shape[1], x)
        for i in range(len(x)):
            norm_row(x, i, weight, bias, eps, source, i)
    return source


@helper
def finish(out, row, begin, end, scales, bias, gelu, residual):
    """out[row, begin : end] = residual + gelu(out * scales + bias).

    scales [N], bias [N] and residual have no elements where they are not given.
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
