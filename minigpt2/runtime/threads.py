"""How many threads compute: one setting, which both backends obey.

It is what `set_num_threads` was told, else the environment variable
MINIGPT2_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs that the process may use: those
of its affinity mask, within its cgroup's quota.

The kernels take it from here. NumPy's matrix products run in a BLAS library, which has
threads of its own: as many as there are CPUs, unless it is told otherwise. It is told
only if somebody said a number. Before NumPy is imported that takes an environment
variable of the library's, and later the package threadpoolctl (the extra `fast`).
"""

import math
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

# What tells a BLAS library its number of threads when it is loaded.
BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")

_said: int | None = None  # what set_num_threads was told
_obeyed: int | None = None  # what BLAS was told
MOST = 4096  # threads; BLAS counts them in 32 bits
_followers: list[Callable[[int], None]] = []


def get_num_threads() -> int:
    """Return how many threads compute."""
    return _said or _from_environment(*_VARIABLES) or usable_cpus()


def set_num_threads(count: int) -> None:
    """Let both backends compute with `count` threads, from now on.

    The kernels use at most as many as Numba started with, and a forked child one. Raises
    ValueError for a number below 1 or above MOST.
    """
    global _said
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST:
        raise ValueError(
            f"the number of threads must be a whole number from 1 to {MOST}, not {count!r}"
        )
    _said = count
    for follow in _followers:
        follow(count)
    _tell_blas(count)


def follow(follower: Callable[[int], None]) -> None:
    """Have a function called with each number that set_num_threads is told."""
    _followers.append(follower)


def obey_environment() -> None:
    """Tell BLAS what MINIGPT2_NUM_THREADS says, if it says anything.

    Raises ValueError if that is no number of threads.
    """
    count = _said or _from_environment("MINIGPT2_NUM_THREADS")
    if count is not None:
        _tell_blas(count)


_VARIABLES = ("MINIGPT2_NUM_THREADS", "OMP_NUM_THREADS")


def _from_environment(*names: str) -> int | None:
    for name in names:
        value = os.environ.get(name, "").split(",")[0].strip()
        if value:
            if not value.isdecimal() or not 1 <= int(value[:9]) <= MOST:
                raise ValueError(
                    f"{name}={value!r}: expected a number of threads, 1 to {MOST}"
                )
            return int(value)
    return None


def _tell_blas(count: int) -> None:
    global _obeyed
    if count == _obeyed:
        return
    _obeyed = count
    if "numpy" not in sys.modules:
        os.environ.update(dict.fromkeys(BLAS_VARIABLES, str(count)))
        return
    try:
        import threadpoolctl
    except ImportError:
        warnings.warn(
            f"NumPy keeps its number of threads: to give it {count} takes the package "
            f"threadpoolctl, or {BLAS_VARIABLES[0]}={count} before Python starts",
            stacklevel=2,
        )
    else:
        threadpoolctl.threadpool_limits(count, "blas")


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
