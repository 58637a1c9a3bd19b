"""linear, the twin of minigpt2.ops.linear, and the ops that join others to it.

`_project` serves matrices of every layout, each of which has its kernel: panels
(panels.py) for the linear layers of the blocks, integers (quantized.py), and here rows
of floats [out, in], as heads have them, and bfloat16, which becomes float32 on the
way. With rows, an output is the dot product of two contiguous rows.

What makes it fast: a tile of 6 rows of x by 4 rows of the matrix is summed up in
registers, so that every number loaded from the cache is used 4 or 6 times. Nothing is
copied or packed anew. The parts of `out` that threads compute are ranges of columns, so
each thread streams its own rows of the matrix. What stands before a product (a layer
norm) and after it (bias, gelu, residual) is done by the same kernel, while the numbers
are in the cache and without another call.

What makes it reproducible: every output is the same sum in the same order, whatever
stands beside it. Lane l of 16 adds x[k] * w[k] for k = l, l + 16, l + 32, ... with fused
multiply-adds; the lanes are added in halves (simd.total); the products that are left, if
the width is no multiple of 16, follow one by one. So a row has the same bits alone or in
any batch, decoded or prefilled, on one thread or many. BLAS, whose order depends on the
shape, is not used.

Instead of: x @ W in NumPy. Measured, one thread, AVX-512: the head at 17 GB/s, which is
what memory gives; all linear layers of the 124M model in bfloat16 1.8 times as fast as
in float32 for one row, and 0.75 for 512, as widening takes instructions. Tolerance: n
products are rounded n times in the type of x, 16 of them side by side; bfloat16 has the
bits of float32 rows that were widened before.
"""

import math
from collections.abc import Callable

import numpy as np
from numba.types import uint16

from minigpt2.quantization import (
    BFloat16Matrix,
    Int4Matrix,
    Int8Matrix,
    QuantizedMatrix,
)
from minigpt2.runtime.memory import empty_reused

from .activations import ACTIVATIONS, gelu_new
from .jit import helper, in_parts, kernel, reads
from .joined import finish, normed, signature
from .norms import layer_norm
from .panels import Panels, linear_panels
from .quantized import linear_int4, linear_int8
from .scratch import empty_rows
from .simd import LANES, number
from .threads import FEW, parts, share
from .tiles import (
    load_tile,
    multiply_add,
    prefetch,
    scatter_totals,
    store_tile,
    store_totals,
    zeros,
)

COLUMNS = 4  # rows of the matrix in a tile
CHUNK = 768  # at most so many products before the next tile: 10 such rows fit in L1
ROW_BLOCK, COLUMN_BLOCK = 48, 96  # outputs worked on at a time: inputs fit in L2

# What stands for a vector or a matrix that is not given.
NOTHING = {
    np.dtype(t): (np.empty(0, t), np.empty((0, 0), t)) for t in (np.float32, np.float64)
}


# What `pack` returns. An array is [out, in], in C order.
Packed = Panels | QuantizedMatrix | np.ndarray


def pack(weight: np.ndarray | QuantizedMatrix) -> Packed:
    """Return `weight` [in, out], of any strides, laid out as `linear` reads it.

    That is Panels, a copy, made in one pass over memory. Nothing is copied of an array
    whose transpose [out, in] is in C order, as of a head's weight.T, nor of a
    QuantizedMatrix [out, in]: `linear` reads their rows where they are.
    """
    if isinstance(weight, QuantizedMatrix):
        return weight
    return weight.T if weight.flags.f_contiguous else Panels.of(weight)


def unpack(packed: Packed) -> np.ndarray | QuantizedMatrix:
    """Return the array [in, out], or the QuantizedMatrix, that `pack` was given."""
    if isinstance(packed, Panels):
        return packed.unpacked()
    return packed if isinstance(packed, QuantizedMatrix) else packed.T


def linear(x: np.ndarray, weight: Packed, bias: np.ndarray | None = None) -> np.ndarray:
    """minigpt2.ops.linear: y = x W + b, for x [..., in], W = pack([in, out]), b [out]."""
    return _project(x, weight, bias)


def linear_add(
    x: np.ndarray,
    weight: Packed,
    bias: np.ndarray | None,
    residual: np.ndarray,
    drop: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """minigpt2.ops.linear_add: residual + drop(linear(x, weight, bias)).

    One kernel does all of it, or with `drop` the linear layer alone.
    """
    if drop is not None:
        return residual + drop(_project(x, weight, bias))
    return _project(x, weight, bias, residual=residual)


def norm_linear(
    x: np.ndarray,
    norm_weight: np.ndarray,
    norm_bias: np.ndarray,
    eps: float,
    weight: Packed,
    bias: np.ndarray | None = None,
    activation: str | None = None,
) -> np.ndarray:
    """minigpt2.ops.norm_linear: activation(linear(layer_norm(x, ...), weight, bias)).

    One kernel does all of it, or all but an activation other than gelu_new.
    """
    after = None if activation is None else ACTIVATIONS[activation]
    norm, gelu = (norm_weight, norm_bias, eps), after is gelu_new
    y = _project(x, weight, bias, norm=norm, gelu=gelu)
    return y if after is None or gelu else after(y)


def _project(
    x: np.ndarray,
    packed: Packed,
    bias: np.ndarray | None,
    norm: tuple[np.ndarray, np.ndarray, float] | None = None,
    gelu: bool = False,
    residual: np.ndarray | None = None,
) -> np.ndarray:
    """residual + gelu(linear(layer_norm(x))), with the steps that are asked for."""
    columns, inner = packed.shape
    if x.shape[-1] != inner or (bias is not None and bias.shape != (columns,)):
        raise ValueError(
            f"x {x.shape}, weight [{inner}, {columns}] and bias "
            f"{None if bias is None else bias.shape} do not fit one another"
        )
    if norm and not norm[0].shape == norm[1].shape == (inner,):
        raise ValueError(
            f"x {x.shape} and a norm's weight {norm[0].shape} and bias {norm[1].shape} "
            "do not fit one another"
        )
    if isinstance(packed, QuantizedMatrix) and x.dtype != np.float32:
        raise ValueError(
            f"products with {type(packed).__name__} compute in float32, not {x.dtype}"
        )
    if residual is not None and residual.shape != (*x.shape[:-1], columns):
        raise ValueError(
            f"x {x.shape}, weight [{inner}, {columns}] and residual {residual.shape} "
            "do not fit one another"
        )
    by_dtype, arrays = _kernel_and_arrays(packed)
    multiply = by_dtype[x.dtype]
    rows = _rows(x, inner)
    if norm and len(rows) > FEW:  # on all threads
        rows, norm = layer_norm(rows, *norm), None
    out = empty_reused((len(rows), columns), x.dtype)
    vector, matrix = NOTHING[x.dtype]
    norm_weight, norm_bias, eps = norm or (vector, vector, 0.0)
    multiply(
        rows,
        np.ascontiguousarray(norm_weight),
        np.ascontiguousarray(norm_bias),
        eps,
        *arrays,
        vector if bias is None else np.ascontiguousarray(bias),
        gelu,
        matrix if residual is None else _rows(residual, columns),
        out,
        parts(len(rows) * packed.size),
    )
    return out.reshape(*x.shape[:-1], columns)


def _kernel_and_arrays(packed: Packed) -> tuple[kernel, tuple[np.ndarray, ...]]:
    """Return the kernel for a matrix of this layout, and what it reads of the matrix."""
    if isinstance(packed, Panels):
        return linear_panels, (packed.panels,)
    if isinstance(packed, np.ndarray):
        return _linear_floats, (packed,)
    if isinstance(packed, BFloat16Matrix):
        return _linear_bfloat16, (packed.bits,)
    if isinstance(packed, Int8Matrix):
        return linear_int8, (packed.bytes, packed.scales)
    assert isinstance(packed, Int4Matrix)  # Numba has no arrays of float16
    return linear_int4, (packed.nibbles, packed.scales.view(np.uint16))


def _rows(x: np.ndarray, columns: int) -> np.ndarray:
    """x [..., columns] as rows, of which there are some even if `columns` is 0."""
    return np.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), columns)


def _linear(x, norm_weight, norm_bias, eps, w, bias, gelu, residual, out, parts):
    source = normed(x, norm_weight, norm_bias, eps)
    _columns(parts, (source, w, bias, gelu, residual, out))


_linear_floats = kernel(signature(lambda T: [reads(T, 2, "C")]))(_linear)
# (simd.load widens bfloat16, which is kept in uint16.)
_linear_bfloat16 = kernel(signature(lambda T: [reads(uint16, 2, "C")]))(_linear)


@in_parts
def _columns(part, parts, x, w, bias, gelu, residual, out):
    """Compute a part's columns of out, block by block."""
    first, last = share(part, parts, len(w), LANES)
    rows, inner = x.shape
    whole = inner - inner % LANES
    chunk = CHUNK if rows > 6 else max(whole, 1)  # a few rows stay in L1 anyway
    slots = ROW_BLOCK * COLUMN_BLOCK // COLUMNS if whole > chunk else 0
    partial = empty_rows(slots, COLUMNS * LANES, x)  # tiles between two chunks
    nothing = np.empty(0, x.dtype)
    for n in range(first, last, COLUMN_BLOCK):
        n_end = min(n + COLUMN_BLOCK, last)
        for m in range(0, rows, ROW_BLOCK):
            m_end = min(m + ROW_BLOCK, rows)
            for k in range(0, max(whole, 1), chunk):
                k_end = min(k + chunk, whole)
                _block(x, w, out, partial, m, m_end, n, n_end, k, k_end, whole)
            for i in range(m, m_end):
                if whole < inner:
                    for j in range(n, n_end):
                        for k in range(whole, inner):
                            out[i, j] += x[i, k] * number(w, (j, k))
                finish(out, i, n, n_end, nothing, bias, gelu, residual)


@helper
def _block(x, w, out, partial, m, m_end, n, n_end, k, k_end, whole):
    """Add the products k .. k_end-1 to a block of sums, 6 rows of x at a time.

    A last single row has all of its products added at the end.
    """
    slot = np.intp(0)  # of `partial`, where tiles wait from one chunk of k to the next
    while m < m_end:
        if m_end - m >= 6:
            slot = _six_rows(x, w, out, partial, slot, m, n, n_end, k, k_end, whole)
            m += 6
        elif m_end - m >= 4:
            slot = _four_rows(x, w, out, partial, slot, m, n, n_end, k, k_end, whole)
            m += 4
        elif m_end - m >= 2:
            slot = _two_rows(x, w, out, partial, slot, m, n, n_end, k, k_end, whole)
            m += 2
        else:
            if k_end == whole:
                _one_row(x, w, out, m, n, n_end, whole)
            m += 1


def _tiles(rows):
    """The function that sums up a row of tiles, each `rows` x COLUMNS outputs."""

    @helper
    def row_of_tiles(x, w, out, partial, slot, m, n, n_end, k, k_end, whole):
        for column in range(n, n_end, COLUMNS):
            tile = zeros(rows, COLUMNS, x)
            if k > 0:
                tile = load_tile(tile, partial, (slot, 0))
            for i in range(k, k_end, LANES):
                tile = multiply_add(tile, x, (m, i), w, (column, i), (1, n_end))
                if m == 0:  # w comes from memory
                    prefetch(tile, w, (column + COLUMNS, i), 1)
            if k_end < whole:
                store_tile(tile, partial, (slot, 0))
            else:
                store_totals(tile, out, (m, column), n_end)
            slot += rows
        return slot

    return row_of_tiles


_two_rows, _four_rows, _six_rows = map(_tiles, (2, 4, 6))


@helper
def _one_row(x, w, out, m, n, n_end, whole):
    """The same for one row, which takes the time that w takes to come from memory.

    A tile's columns are a quarter of the block apart: the CPU sees four sequences of
    addresses and reads each ahead. It does not read far enough ahead in rows of
    bfloat16, so these are prefetched, a row before they are needed.
    """
    stride = (n_end - n + COLUMNS - 1) // COLUMNS
    span = stride, n_end
    for column in range(n, n + stride):
        tile = zeros(1, COLUMNS, x)
        for i in range(0, whole, LANES):
            tile = multiply_add(tile, x, (m, i), w, (column, i), span)
            if w.itemsize < x.itemsize:
                prefetch(tile, w, (column + 1, i), stride)
        scatter_totals(tile, out, (m, column), span)
