"""The two namespaces of ops that a model can be made of, and which one to take.

A namespace is a module with the names and signatures of `minigpt2.ops`: "numpy" is ops
itself, "numba" is `minigpt2.kernels`.
"""

import importlib

BACKENDS = {"numpy": "minigpt2.ops", "numba": "minigpt2.kernels"}


def choose(backend):
    """Return (name, namespace) for "numpy", "numba" or "auto".

    "auto" is NumPy for now. ValueError for another name; ImportError, saying what to
    install, if Numba is asked for and not there.
    """
    name = "numpy" if backend == "auto" else backend
    if name not in BACKENDS:
        known = ", ".join(map(repr, BACKENDS))
        raise ValueError(f"unknown backend {backend!r}; there are {known} and 'auto'")
    return name, importlib.import_module(BACKENDS[name])
