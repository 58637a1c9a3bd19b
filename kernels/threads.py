"""How many threads the kernels use, and where they may not use any.

A kernel's work is cut into parts, which run in parallel (see jit.in_parts). The number
of parts is the setting that both backends obey (minigpt2.runtime.threads).

The team of threads is Numba's OpenMP pool: starting a parallel region costs 2-3
microseconds there and 50-140 in Numba's own `workqueue`. The trap is that GNU OpenMP
kills a child that was forked after the pool started, so a forked child runs every
kernel on its calling thread alone; that is what a server with forked workers wants
anyway, one worker a core.
"""

import os

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.ufunc.parallel import _launch_threads

from minigpt2.runtime import threads

_count: int  # threads that the kernels use
_most: int  # threads in Numba's pool

SMALL = 1 << 15  # multiply-adds (some 2 microseconds) that are not worth a region


def set_num_threads(count: int) -> None:
    """Let both backends use `count` threads; see minigpt2.runtime.threads.

    The kernels use at most as many as Numba's pool has, and a forked child one.
    """
    threads.set_num_threads(count)


def _follow(count: int) -> None:
    global _count
    _count = min(count, _most)


def get_num_threads() -> int:
    """Return how many threads the kernels use: 1 in a forked child."""
    return _count


def parts(multiply_adds: int) -> int:
    """Return into how many parts to split that much work."""
    return 1 if multiply_adds < SMALL else _count


FEW = 16  # rows that one thread prepares for all


@numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def team_of(parts):
    """Let the next parallel regions have one thread a part; return how many they had.

    Numba would wake its whole pool, 64 threads on a server for the 2 that were asked
    for. The setting is the calling thread's own, and `set_team` gives it back.
    """
    before = _get_team()
    set_team(parts)
    return before


# Numba's own functions of this kind are called through ctypes, and no kernel that calls
# them can be kept on disk.


@intrinsic
def _get_team(typing):
    _launch_threads()  # makes the name known

    def code(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(32), [])
        name = "get_num_threads"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [])

    return types.int32(), code


@intrinsic
def set_team(typing, count):
    """Set how many threads the next parallel regions have."""
    _launch_threads()

    def code(context, builder, signature, arguments):
        count = builder.trunc(arguments[0], ir.IntType(32))
        kind = ir.FunctionType(ir.VoidType(), [count.type])
        name = "set_num_threads"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(function, [count])
        return context.get_dummy_value()

    return types.void(types.intp), code


@numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def share(part, parts, count, unit=1):
    """The range first .. last-1 of `count` items that a part works on, in whole units."""
    units = (count + unit - 1) // unit
    first, last = part * units // parts, (part + 1) * units // parts
    return first * unit, min(last * unit, count)


def _one_thread_after_fork() -> None:
    global _count, _most
    _count = _most = 1


# Numba tries TBB first, which would make the cost of a region another one.
numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread_after_fork)
_most = numba.config.NUMBA_NUM_THREADS
_follow(threads.get_num_threads())
threads.follow(_follow)
