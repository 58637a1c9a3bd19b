"""How many threads the kernels use, and where they may not use any.

A kernel's work is cut into parts, which run in parallel (see jit.in_parts). The number
of parts is `MINIGPT2_NUM_THREADS`, else `OMP_NUM_THREADS`, else the CPUs that the
process may use: those of its affinity mask, within its cgroup's quota.

The team of threads is Numba's OpenMP pool: starting a parallel region costs 2-3
microseconds there and 50-140 in Numba's own `workqueue`. The trap is that GNU OpenMP
kills a child that was forked after the pool started, so a forked child runs every
kernel on its calling thread alone; that is what a server with forked workers wants
anyway, one worker a core.
"""

import math
import os
from pathlib import Path

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.ufunc.parallel import _launch_threads

_count: int  # threads that the kernels use
_most: int  # threads in Numba's pool

SMALL = 1 << 15  # multiply-adds (some 2 microseconds) that are not worth a region


def usable_cpus() -> int:
    """Return the CPUs in the affinity mask, within the cgroup's quota; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    return max(1, math.ceil(min(cpus, _cgroup_quota())))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the CPU time a second that the cgroup may take; inf where unlimited."""
    try:  # version 2: "max 100000" or "150000 100000"
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:  # version 1: -1 is unlimited
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return math.inf
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)


def _from_environment() -> int:
    for name in ("MINIGPT2_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "").split(",")[0].strip()
        if value:
            if not value.isdecimal() or int(value) < 1:
                raise ValueError(
                    f"{name}={value!r}: expected a number of threads, 1 up"
                )
            return int(value)
    return usable_cpus()


def set_num_threads(count: int) -> None:
    """Let the kernels use `count` threads, at most the size of Numba's pool.

    In a forked child it stays at 1.
    """
    global _count
    if count < 1:
        raise ValueError(f"the number of threads must be at least 1, not {count}")
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
set_num_threads(_from_environment())
