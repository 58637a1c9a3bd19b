"""How kernels are compiled (`kernel`), what they call (`helper`, `in_parts`).

Numba compiles for the memory layouts that it happens to meet, so the last step of a
long generation could stop for a second to compile one more. Here a kernel declares
one signature, a function of its float type T, and is compiled for a dtype when it is
first looked up: `_gelu_new[x.dtype](x, out, parts)`.

What a kernel calls becomes part of it: a `helper`, or work that the threads share, which
`in_parts` makes of a function that does one part.

The machine code is cached in `NUMBA_CACHE_DIR`, else in the user's cache folder, else in
a folder for temporary files that is the user's alone; a warning says where it can't be.
The folder's name holds a digest of all sources here, because Numba notices an edit in a
kernel's own file only, and not in the functions and constants that it takes from another.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import logging
import os
import stat
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import prange, types
from numba.core import event

from minigpt2.quantization import formulas

# (This import also chooses the threading layer, before anything is compiled.)
from .threads import set_team, team_of

logger = logging.getLogger("minigpt2")

# x / 0 is inf. No option of fastmath: where a * b + c is to be fused, simd.fma says so,
# as what the compiler chooses would differ from one loop to the next.
PLAIN = {"error_model": "numpy"}
FLOATS = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}


def reads(element: types.Type, dimensions: int, layout: str = "A") -> types.Array:
    """Return the type of an array that a kernel only reads: of any strides, or "C"."""
    return types.Array(element, dimensions, layout, readonly=True)


def writes(element: types.Type, dimensions: int) -> types.Array:
    """Return the type of an array, in C order, that a kernel fills."""
    return types.Array(element, dimensions, "C")


class kernel(dict):
    """Decorator that turns a function into a dict from dtype to machine code.

        @kernel(lambda T: void(reads(T, 1), writes(T, 1)))

    The function is compiled for a dtype when that is first looked up.
    """

    def __init__(self, signature: Callable[[types.Float], types.Type]):
        self.signature = signature

    def __call__(self, function: Callable) -> kernel:
        self.function = function
        self.__doc__ = function.__doc__
        return self

    def __missing__(self, dtype: np.dtype) -> Callable[..., None]:
        element = FLOATS.get(np.dtype(dtype))
        if element is None:
            raise TypeError(
                f"the kernels compute in float32 or float64, not {dtype}; "
                "use backend='numpy' for other types"
            )
        with _cache_folder(element.name):
            if dtype in self:  # by now, in another thread
                return self[dtype]
            self[dtype] = _compile(self.signature(element), self.function)
        return self[dtype]


def _compile(signature, function):
    options = {"parallel": True, "nogil": True, **PLAIN}
    try:
        return numba.njit(signature, cache=True, **options)(function)
    except (OSError, RuntimeError) as error:  # nowhere to write, or the disk is full
        if isinstance(error, OSError):
            warnings.warn(
                f"compiled kernels can't be kept in {numba.config.CACHE_DIR} "
                f"({error.strerror}): every process compiles them anew, for a quarter of "
                "a minute. Make room, or set NUMBA_CACHE_DIR to another folder",
                stacklevel=2,
            )
        elif "no locator" not in str(error):
            raise
        return numba.njit(signature, **options)(function)


def helper(function: Callable) -> Callable:
    """Decorator for a function that only kernels call; it becomes part of each."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **PLAIN}
    return numba.njit(**options)(function)


def in_parts(function: Callable) -> Callable:
    """Decorator for the work of one part; kernels call what does all, in parallel.

        @in_parts
        def _double(part, parts, x, out):
            first, last = share(part, parts, x.size)
            for i in range(first, last):
                out[i] = 2.0 * x[i]

        @kernel(...)
        def double(x, out, parts):
            _double(parts, (x, out))

    Numba sets two limits to the form of this. Whatever is handed a function as an
    argument can't be kept on disk, so the function is a variable of a closure. And the
    loop is inlined in the kernel (compiled on its own, it would make a first run an
    eighth longer), which Numba does not do for a function of *arguments.
    """
    work = helper(function)

    @numba.njit(inline="always")
    def all_parts(parts, arguments):
        # np.intp: prange's numbers are unsigned and a constant 0 is of a third type, for
        # each of which `work` would be compiled once more.
        if parts == 1:
            work(np.intp(0), parts, *arguments)
        else:
            team = team_of(parts)
            for part in prange(parts):
                work(np.intp(part), parts, *arguments)
            set_team(team)

    return all_parts


_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def _cache_folder(element: str) -> Iterator[None]:
    """Point Numba's cache at our folder while a kernel is made."""
    with _one_at_a_time:  # the setting is the whole process's
        before = numba.config.CACHE_DIR
        folder = _writable_root(before) / f"kernels-{_digest()}-{element}"
        numba.config.CACHE_DIR = str(folder)
        try:
            yield
        finally:
            numba.config.CACHE_DIR = before


@functools.cache
def _writable_root(asked: str) -> Path:
    """Return the first folder that can be written; warn if it isn't the first choice."""
    first = Path(asked) if asked else _user_cache() / "minigpt2"
    # (What is in it is run: so it must be nobody else's.)
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    last = Path(tempfile.gettempdir()) / f"minigpt2-{user}"
    why: OSError | None = None
    for root in (first, _user_cache() / "minigpt2", last):
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            if root == last and not _is_ours_alone(root):
                raise PermissionError(errno.EACCES, "others can write there", str(root))
            with tempfile.TemporaryFile(dir=root):
                pass
        except OSError as error:
            why = why or error
            continue
        if why is not None:
            warnings.warn(
                f"compiled kernels can't be kept in {first} ({why.strerror}), so they "
                f"are in {root}: set NUMBA_CACHE_DIR to a folder that can be written",
                stacklevel=2,
            )
        return root
    warnings.warn(
        f"compiled kernels can't be kept in {first} ({why and why.strerror}) nor in "
        f"{last}: every process compiles them anew, which takes 15 to 30 seconds. Set "
        "NUMBA_CACHE_DIR to a folder that can be written",
        stacklevel=2,
    )
    return first


def _is_ours_alone(folder: Path) -> bool:
    """Say whether nobody else can have put anything into a folder."""
    if not hasattr(os, "getuid"):  # Windows: each user's folder is the user's
        return True
    status = folder.lstat()
    is_folder = stat.S_ISDIR(status.st_mode)  # and no link to one
    return is_folder and status.st_uid == os.getuid() and not status.st_mode & 0o022


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local")).expanduser()
    if sys.platform == "darwin":
        return Path("~/Library/Caches").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _digest() -> str:
    """Return a digest of all sources of the kernels, and of what else shapes the code."""
    digest = hashlib.sha256()
    sources = sorted(Path(__file__).parent.glob("*.py"))
    for path in (
        *sources,
        Path(formulas.__file__),
    ):  # (whose constants are compiled in)
        digest.update(path.read_bytes())
    digest.update(repr(sorted(_code_settings())).encode())
    return digest.hexdigest()[:16]


def _code_settings() -> Iterator[tuple[str, str]]:
    """Yield Numba's settings that change machine code but not its own cache's key."""
    return (
        (name, value)
        for name, value in os.environ.items()
        if name.startswith("NUMBA_") and name not in ("NUMBA_CACHE_DIR",)
    )


class _Announce(event.Listener):
    """Say once why the first run takes 15 to 30 seconds: on a terminal, and in the log."""

    def __init__(self) -> None:
        self.said = False

    def on_start(self, started: Any) -> None:
        module = started.data["dispatcher"].py_func.__module__
        if not self.said and module.startswith(__package__):
            self.said = True
            logger.info("compiling the kernels, once")
            if sys.stderr is not None and sys.stderr.isatty():
                print("minigpt2: compiling the kernels, once", file=sys.stderr)

    def on_end(self, ended: Any) -> None:
        pass


event.register("numba:compile", _Announce())
