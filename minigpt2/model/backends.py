"""The two namespaces of ops that a model can be made of, and which one to take.

A namespace is a module with the names and signatures of `minigpt2.ops`: "numpy" is ops
itself, "numba" is `minigpt2.kernels`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ..runtime import threads
from ..runtime.installation import pip_install

if TYPE_CHECKING:
    from ..config import GPT2Config

BACKENDS = {"numpy": "minigpt2.ops", "numba": "minigpt2.kernels"}

# Parameters in the blocks from which Numba pays: it takes half a second to import, and
# 15 to 30 seconds to compile when it is first used. GPT-2's smallest size has 85 million.
LARGE = 1 << 25

_numba_failed = False  # "auto" has tried to import the kernels, and warned


def choose(backend: str, config: GPT2Config, dtype: np.dtype) -> tuple[str, ModuleType]:
    """Return (name, namespace) for "numpy", "numba" or "auto".

    "auto" is what the environment variable MINIGPT2_BACKEND says. Where that says
    nothing, it is Numba for a model in float32 that is LARGE, if Numba can be used, and
    NumPy otherwise: a small model needs no speed, and float64 is the oracle. If Numba is
    installed and can't be used, one warning in the life of the process says why.

    Raises:
        ValueError: for another name.
        ImportError: if Numba is asked for and can't be used. It says why.
    """
    threads.obey_environment()
    asked = backend
    if asked == "auto":
        asked = os.environ.get("MINIGPT2_BACKEND") or "auto"
    if asked == "auto":
        kernels = _kernels_or_none() if _pays(config, dtype) else None
        return ("numba", kernels) if kernels else ("numpy", _namespace("numpy"))
    if asked not in BACKENDS:
        known = ", ".join(map(repr, BACKENDS))
        whose = "" if asked == backend else " in MINIGPT2_BACKEND"
        raise ValueError(f"unknown backend {asked!r}{whose}; there are {known}, 'auto'")
    return asked, _namespace(asked)


@contextlib.contextmanager
def preparing(ops: ModuleType, dtype: np.dtype, weight_format: str) -> Iterator[None]:
    """Prepare a namespace of ops in another thread while the with statement's body runs.

    They are ready, or their error is raised, when the statement ends: a server may fork
    then.
    """
    errors = []

    def prepare() -> None:
        try:
            ops.prepare(dtype, weight_format)
        except Exception as error:
            errors.append(error)  # to be raised where someone can catch it

    thread = threading.Thread(target=prepare)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]


def _pays(config: GPT2Config, dtype: np.dtype) -> bool:
    inner = config.n_inner if config.n_inner is not None else 4 * config.n_embd
    parameters = config.n_layer * config.n_embd * (4 * config.n_embd + 2 * inner)
    return parameters >= LARGE and dtype == np.float32


def _kernels_or_none() -> ModuleType | None:
    """Return the kernels; None, and at the first time a warning, if they don't work."""
    global _numba_failed
    if _numba_failed or find_spec("numba") is None:
        return None
    try:
        return _namespace("numba")
    except ImportError as error:
        _numba_failed = True
        # (The level of who calls from_pretrained, by way of a model's __init__.)
        warnings.warn(f"{error}. NumPy is used instead", stacklevel=5)
        return None


def _namespace(name: str) -> ModuleType:
    """Import a namespace. ImportError says why it can't be used, and what to do."""
    try:
        return importlib.import_module(BACKENDS[name])
    except Exception as error:
        # An older or newer Numba, a NumPy that it does not know or a broken llvmlite may
        # raise anything. kernels/__init__.py names the first cause, if it finds it.
        cause = error.__cause__ or error
        raise ImportError(
            f"Numba can't be used here ({type(cause).__name__}: {cause}): mend that, "
            f"install a version that is tested ({pip_install('fast')}), or choose "
            "backend='numpy'"
        ) from error
