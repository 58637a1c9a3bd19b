"""Numba twins of minigpt2.ops: the same names and signatures, compiled.

This folder is installed as minigpt2.kernels (setup.cfg maps it).

A model holds one of the two namespaces (`backend="numpy"` or `"numba"`). Names that
have no kernel are the NumPy functions themselves, listed below, so that either
namespace is complete. Needs numba: `pip install "minigpt2[fast]"`.

In the order of reading: simd.py and tiles.py (the operations that kernels are written
in), norms.py, joined.py, panels.py, matmul.py, quantized.py, attend.py, activations.py and
exponential.py; then how they are compiled and run: jit.py, threads.py, scratch.py,
prepare.py; and codegen.py, for those who want to see the bottom.
"""

try:
    import numba
except ImportError as error:
    from minigpt2.runtime.installation import pip_install

    raise ImportError(
        f"minigpt2.kernels (backend='numba') needs numba ({error}): "
        f"{pip_install('fast')}, or choose backend='numpy'"
    ) from error
if numba.config.DISABLE_JIT:
    raise ImportError(
        "minigpt2.kernels (backend='numba') are compiled code, and NUMBA_DISABLE_JIT is "
        "set: unset it"
    )

from minigpt2.ops import (
    IGNORED_LABELS,
    attention_scores,
    attention_weights,
    cross_entropy,
    drop,
    dropout,
    dropout_mask,
    gelu,
    log_softmax,
    mask_scores,
    merge_heads,
    relu,
    silu,
    softmax,
    split_heads,
    swish,
    tanh,
)

from .activations import ACTIVATIONS, gelu_new
from .attend import attention, cached_attention
from .matmul import (
    linear,
    linear_add,
    norm_linear,
    pack,
    unpack,
)
from .norms import layer_norm
from .prepare import prepare
from .threads import get_num_threads, set_num_threads

__all__ = [
    "ACTIVATIONS",
    "IGNORED_LABELS",
    "attention",
    "attention_scores",
    "attention_weights",
    "cached_attention",
    "cross_entropy",
    "drop",
    "dropout",
    "dropout_mask",
    "gelu",
    "gelu_new",
    "get_num_threads",
    "layer_norm",
    "linear",
    "linear_add",
    "log_softmax",
    "mask_scores",
    "merge_heads",
    "norm_linear",
    "pack",
    "prepare",
    "relu",
    "set_num_threads",
    "silu",
    "softmax",
    "split_heads",
    "swish",
    "tanh",
    "unpack",
]
