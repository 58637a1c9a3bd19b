"""linear with panels, the layout that `pack` gives the blocks' matrices.

A weight [in, out] is cut into panels of 64 columns, each stored whole, one behind the
other: [out / 64, in, 64], the last one filled up with zeros. Packing moves pieces of
256 bytes and transposes nothing.

What makes it fast: with AVX-512, a tile of 6 rows of x by the 64 columns of a panel is
summed up in 24 registers. (Other CPUs, with 16 narrower registers, take 16 columns.)
Each step multiplies one column of x with one row of the panel: 10 numbers or vectors
are loaded for 24 multiply-adds, and no sum crosses a register's lanes. (Rows [out, in]
as in matmul.py need that, and 10 % more time.) A decode step reads the panels from the
first byte to the last, at the memory's full speed.

What makes it reproducible: every output is the sum of its products in the order of k,
each added by a fused multiply-add, whatever stands beside it.

Instead of: x @ W in NumPy. Measured, one thread, AVX-512, float32: a prefill's products
at 155 GFLOP/s where OpenBLAS makes 150, a decode step at 17.1 GB/s where np.dot reads
16.5. Tolerance: n products of float32 are rounded n times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minigpt2.runtime.memory import empty_aligned

from .codegen import has_wide_registers
from .jit import helper, in_parts, kernel, reads
from .joined import finish, normed, signature
from .scratch import empty_rows
from .simd import LANES
from .threads import share
from .tiles import add_outer, load_tile, prefetch_vectors, store_tile, zeros

WIDTH = 64  # columns of a panel
COLUMNS = (
    4 if has_wide_registers() else 1
)  # vectors of a tile: 6 x 4 sums of 32 registers
CHUNK = 768  # products before the next tile: such a part of a panel stays in L2
AHEAD = 8  # rows of a panel, 2 KB, to ask for before they are needed


@dataclass(frozen=True, eq=False)
class Panels:
    """A weight [in, out] as panels [P, in, 64]; shape is (out, in), as of rows."""

    panels: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def of(cls, weight: np.ndarray) -> Panels:
        """Return the panels of a weight [in, out] of any strides: a copy."""
        inner, columns = weight.shape
        panels = empty_aligned((-(-columns // WIDTH), inner, WIDTH), weight.dtype)
        for p, panel in enumerate(panels):
            part = weight[:, p * WIDTH : (p + 1) * WIDTH]
            panel[:, : part.shape[1]] = part
            panel[:, part.shape[1] :] = 0.0
        return cls(panels, (columns, inner))

    def unpacked(self) -> np.ndarray:
        """Return the weight [in, out], as a copy."""
        return np.concatenate(list(self.panels), axis=1)[:, : self.shape[0]]

    @property
    def size(self) -> int:
        return self.panels.size


@kernel(signature(lambda T: [reads(T, 3, "C")]))
def linear_panels(x, norm_weight, norm_bias, eps, w, bias, gelu, residual, out, parts):
    """out = residual + gelu(norm(x) w + bias), with the steps that are given."""
    source = normed(x, norm_weight, norm_bias, eps)
    _some_panels(parts, (source, w, bias, gelu, residual, out))


@in_parts
def _some_panels(part, parts, x, w, bias, gelu, residual, out):
    first, last = share(part, parts, len(w))
    rows, columns = out.shape
    nothing = np.empty(0, x.dtype)
    for p in range(first, last):
        begin, end = p * WIDTH, min((p + 1) * WIDTH, columns)
        if end - begin == WIDTH:
            _one_panel(x, w, p, out, begin)
        else:
            wide = empty_rows(rows, WIDTH, x)
            _one_panel(x, w, p, wide, 0)
            for i in range(rows):
                for j in range(begin, end):
                    out[i, j] = wide[i, j - begin]
        for i in range(rows):
            finish(out, i, begin, end, nothing, bias, gelu, residual)


@helper
def _one_panel(x, w, p, out, column):
    """out[:, column : column + 64] = x w[p]"""
    rows, inner = x.shape
    for k in range(0, max(inner, 1), CHUNK):
        k_end = min(k + CHUNK, inner)
        for c in range(0, WIDTH, COLUMNS * LANES):
            m = 0
            while m < rows:
                if rows - m >= 6:
                    _six_rows(x, w, out, m, p, c, column + c, k, k_end)
                    m += 6
                elif rows - m >= 4:
                    _four_rows(x, w, out, m, p, c, column + c, k, k_end)
                    m += 4
                elif rows - m >= 2:
                    _two_rows(x, w, out, m, p, c, column + c, k, k_end)
                    m += 2
                else:
                    _one_row(x, w, out, m, p, c, column + c, k, k_end)
                    m += 1


def _tile(rows):
    """The function that adds the products k .. k_end-1 to a tile of `rows` rows."""

    @helper
    def add_products(x, w, out, m, p, c, column, k, k_end):
        tile = zeros(rows, COLUMNS, x)
        if k > 0:
            tile = load_tile(tile, out, (m, column))
        for i in range(k, k_end):
            tile = add_outer(tile, x, (m, i), w, (p, i, c))
            prefetch_vectors(tile, w, (p, i + AHEAD, c))
        store_tile(tile, out, (m, column))

    return add_products


_one_row, _two_rows, _four_rows, _six_rows = map(_tile, (1, 2, 4, 6))
