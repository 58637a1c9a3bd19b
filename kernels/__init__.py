"""Numba twins of minigpt2.ops: the same names and signatures, compiled.

A model holds one of the two namespaces (`backend="numpy"` or `"numba"`). Names that
have no kernel are the NumPy functions themselves, listed below, so that either
namespace is complete. Needs numba: `pip install "minigpt2[fast]"`.

In the order of reading: exponential.py (what all share), activations.py, attend.py;
then how they are compiled and run: jit.py, threads.py, simd.py.
"""

try:
    import numba  # noqa: F401
except ImportError as error:
    raise ImportError(
        "minigpt2.kernels (backend='numba') needs numba: "
        'pip install "minigpt2[fast]", or choose backend="numpy"'
    ) from error

from minigpt2.ops import (
    ACTIVATIONS,
    IGNORED_LABELS,
    attention_weights,
    cross_entropy,
    dropout,
    gelu,
    layer_norm,
    linear,
    log_softmax,
    pack,
    relu,
    silu,
    softmax,
    swish,
    tanh,
    unpack,
)

from .activations import gelu_new
from .attend import attention
from .threads import get_num_threads, set_num_threads

__all__ = [
    "ACTIVATIONS",
    "IGNORED_LABELS",
    "attention",
    "attention_weights",
    "cross_entropy",
    "dropout",
    "gelu",
    "gelu_new",
    "get_num_threads",
    "layer_norm",
    "linear",
    "log_softmax",
    "pack",
    "relu",
    "set_num_threads",
    "silu",
    "softmax",
    "swish",
    "tanh",
    "unpack",
]
