"""Large arrays: where they start, and memory that is used again.

Memory is dearest at its first touch: the system hands it out page by page, zeroed, and
takes it back when the array dies. A forward pass over 512 positions fills 60 MB of arrays
that die soon after, and this costs an eighth of its time. So `empty_reused` keeps the
memory of its arrays when they die, up to KEPT, and gives it to the next ones of their
size.
"""

import collections
import math
import sys

import numpy as np
import numpy.typing as npt

LINE = 64  # bytes of a cache line
SMALL = 1 << 16  # bytes; a smaller array is not worth the microseconds
LARGE = 1 << 23  # bytes; a larger array's memory is not kept
KEPT = 1 << 26  # bytes that are kept though no array uses them

# Memory that was handed out, whether its arrays live or not. Older blocks than these
# are forgotten, which means freed when their arrays die.
_blocks: collections.deque[np.ndarray] = collections.deque(maxlen=32)


def empty_aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """np.empty, with the first element at a multiple of 64 bytes.

    NumPy's own large arrays start 16 bytes after a page. Every 64-byte load from them
    touches two cache lines, and a matrix product takes 1.4 times as long.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    return _aligned(np.empty(size + LINE, np.uint8), size, shape, dtype)


def empty_reused(shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """empty_aligned, in the memory of an array of this size that died, if there is one."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not SMALL <= size <= LARGE:
        return empty_aligned(shape, dtype)
    step = 1 << size.bit_length() - 4  # so that many sizes share few sizes of blocks
    block = _unused(-(-size // step) * step + LINE)
    array = _aligned(block, size, shape, dtype)
    _blocks.append(block)
    return array


def _aligned(
    block: np.ndarray, size: int, shape: tuple[int, ...], dtype: npt.DTypeLike
) -> np.ndarray:
    start = -block.ctypes.data % LINE
    return block[start : start + size].view(dtype).reshape(shape)


def _unused(size: int) -> np.ndarray:
    """Return a block of `size` bytes that no array is a view of.

    It looks at one block at a time, and takes it out of the queue for that, so that no
    other thread sees it.
    """
    spare = KEPT
    for _ in range(len(_blocks)):
        try:
            block = _blocks.popleft()
        except IndexError:  # other threads are looking at the rest
            break
        if _references(block) == UNUSED:
            if len(block) == size:
                return block
            spare -= len(block)
            if spare < 0:
                continue  # the block is freed
        _blocks.append(block)
    return np.empty(size, np.uint8)


def _references(block: np.ndarray) -> int:
    """Return the number of references to a block: each view, also of a view, is one."""
    return sys.getrefcount(block)


def _references_to_nothing_but_a_variable() -> int:
    block = np.empty(0, np.uint8)
    return _references(block)


# The variables of two functions and an argument, or fewer in a later Python. (Whoever
# traces the program may hold more, but only more.)
UNUSED = min(_references_to_nothing_but_a_variable(), 3)
