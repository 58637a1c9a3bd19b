"""Which parameters are quantized: the weight format of each."""

import re

import numpy as np

WEIGHT_FORMATS = ("float32", "bfloat16", "int8", "int4")

# The matrices of the blocks' linear layers, and all parameters that stay as they are.
_IN_BLOCKS = re.compile(r"(.*\.)?h\.\d+\.(attn|mlp)\.c_\w+\.weight")
_UNQUANTIZED = re.compile(r".*\.bias|(.*\.)?(wpe|ln_\w)\.weight")


def parameter_format(name: str, weights: str) -> str:
    """Return the weight format that a model of format `weights` keeps a parameter in.

    Matrices of linear layers and heads, and the embeddings of the ids, are kept in fewer
    bits. Positions' embeddings, biases and layer norms are not: together they are 0.7 %
    of GPT-2's smallest size. int4 is for the blocks alone: the embeddings of the ids,
    which mostly are the head too, and other heads are int8 then.
    """
    if _UNQUANTIZED.fullmatch(name):
        return "float32"
    return "int8" if weights == "int4" and not _IN_BLOCKS.fullmatch(name) else weights


def check_weight_format(weights: str, dtype: np.dtype) -> None:
    """Raise ValueError unless `weights` is a weight format that can compute in `dtype`."""
    if weights not in WEIGHT_FORMATS:
        known = ", ".join(map(repr, WEIGHT_FORMATS))
        raise ValueError(f"weights must be one of {known}, not {weights!r}")
    if weights != "float32" and dtype != np.float32:
        raise ValueError(
            f"{weights} weights compute in float32, not in {dtype}: "
            "from_pretrained(..., weights='float32') gives a model that can"
        )
