"""The two namespaces of ops that a model can be made of, and which one to take.

A namespace is a module with the names and signatures of `minigpt2.ops`: "numpy" is ops
itself, "numba" is `minigpt2.kernels`.
"""

import contextlib
import importlib
import os
import threading
import warnings
from importlib.util import find_spec

import numpy as np

BACKENDS = {"numpy": "minigpt2.ops", "numba": "minigpt2.kernels"}

# Weights in the blocks from which Numba pays: it takes half a second to import, and
# seconds to compile when it is first used. GPT-2's smallest size has 85 million.
LARGE = 1 << 25


def choose(backend, config, dtype):
    """Return (name, namespace) for "numpy", "numba" or "auto".

    "auto" is what the environment variable MINIGPT2_BACKEND says. Where that says
    nothing, it is Numba for a model in float32 that is LARGE, if Numba is installed,
    and NumPy otherwise: a small model needs no speed, and float64 is the oracle.

    ValueError for another name; ImportError, saying what to install, if Numba is asked
    for and not there.
    """
    asked = backend
    if asked == "auto":
        asked = os.environ.get("MINIGPT2_BACKEND") or "auto"
    if asked == "auto":
        return (_pays(config, dtype) and _numba_if_it_works()) or _namespace("numpy")
    if asked not in BACKENDS:
        known = ", ".join(map(repr, BACKENDS))
        whose = "" if asked == backend else " in MINIGPT2_BACKEND"
        raise ValueError(f"unknown backend {asked!r}{whose}; there are {known}, 'auto'")
    return _namespace(asked)


@contextlib.contextmanager
def preparing(ops, dtype, weights):
    """In a with statement: have the ops get ready meanwhile, in another thread.

    They are ready, or have said what is wrong, when it ends: a server may fork then.
    """
    errors = []

    def prepare():
        try:
            ops.prepare(dtype, weights)
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


def _pays(config, dtype):
    inner = config.n_inner if config.n_inner is not None else 4 * config.n_embd
    weights = config.n_layer * config.n_embd * (4 * config.n_embd + 2 * inner)
    return weights >= LARGE and dtype == np.float32


def _numba_if_it_works():
    """Return ("numba", kernels), or None, with a warning if it is there but broken."""
    if find_spec("numba") is None:
        return None
    try:
        return _namespace("numba")
    except ImportError as error:  # such as a NumPy that this Numba is too old for
        cause = error.__cause__ or error
        warnings.warn(f"Numba can't be used, so NumPy is: {cause}", stacklevel=5)
        return None


def _namespace(name):
    return name, importlib.import_module(BACKENDS[name])
