"""Large arrays: where they start, and memory that is used again.

Memory is dearest at its first touch: the system hands it out page by page, zeroed, and
takes it back when the array dies. A pass over 512 positions fills 60 MB of arrays that
are dead soon after, and loses an eighth of its time so. `empty_reused` therefore keeps
the memory of its arrays when they die, and gives it to the next ones of their size; what
is beyond KEPT then goes.
"""

import collections
import math
import sys

import numpy as np

LINE = 64  # bytes of a cache line
SMALL = 1 << 16  # bytes of an array that is not worth the microseconds
LARGE = 1 << 23  # bytes of an array whose memory is not kept
KEPT = 1 << 26  # bytes of memory that no array uses

# Memory that was handed out, whether its arrays live or not. Older blocks than these
# are forgotten, which means freed when their arrays die.
_blocks = collections.deque(maxlen=32)


def empty_aligned(shape, dtype):
    """np.empty, with the first element at a multiple of 64 bytes.

    Large arrays of NumPy's start 16 bytes after a page, so that every 64-byte load
    from them touches two cache lines; a matrix product takes 1.4 times as long so.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    return _aligned(np.empty(size + LINE, np.uint8), size, shape, dtype)


def empty_reused(shape, dtype):
    """empty_aligned, for arrays that make room for others of their size."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not SMALL <= size <= LARGE:
        return empty_aligned(shape, dtype)
    step = 1 << size.bit_length() - 4  # so that many sizes share few sizes of blocks
    block = _unused(-(-size // step) * step + LINE)
    array = _aligned(block, size, shape, dtype)
    _blocks.append(block)
    return array


def _aligned(block, size, shape, dtype):
    start = -block.ctypes.data % LINE
    return block[start : start + size].view(dtype).reshape(shape)


def _unused(size):
    """Return a block of `size` bytes that no array is a view of.

    What is being looked at is taken out of the queue, so that no other thread sees it.
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
                continue  # and be freed
        _blocks.append(block)
    return np.empty(size, np.uint8)


def _references(block):
    """Every view of a block, and every view of a view, refers to the block itself."""
    return sys.getrefcount(block)


def _references_to_nothing_but_a_variable():
    block = np.empty(0, np.uint8)
    return _references(block)


# The variables of two functions and an argument, or fewer in a later Python. (Whoever
# traces the program may hold more, but only more.)
UNUSED = min(_references_to_nothing_but_a_variable(), 3)
