"""Arrays that kernels make for themselves."""

import numpy as np

from .jit import helper

LINE = 64  # bytes


@helper
def empty_rows(rows, columns, like):
    """np.empty((rows, columns)) of like's dtype, that begins at a cache line.

    minigpt2.runtime.memory.empty_aligned, which says why, for use in kernels.
    """
    raw = np.empty(rows * columns + LINE // like.itemsize, like.dtype)
    first = -raw.ctypes.data % LINE // like.itemsize
    return raw[first : first + rows * columns].reshape(rows, columns)
