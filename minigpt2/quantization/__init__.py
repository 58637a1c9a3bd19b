"""Matrices in fewer bits: the weight formats bfloat16, int8 and int4.

- formulas  what is stored, and what a product with it is
- policy    which parameters of a model are quantized
- files     how model.safetensors holds them
"""

from .formulas import (
    INT4_BLOCK,
    INT8_PADDING,
    X_BLOCK,
    X_LEAST,
    BFloat16Matrix,
    Int4Matrix,
    Int8Matrix,
    QuantizedMatrix,
    matrix_class,
    pack_nibbles,
    quantized,
    round_activations,
    unpack_nibbles,
)

__all__ = [
    "INT4_BLOCK",
    "INT8_PADDING",
    "X_BLOCK",
    "X_LEAST",
    "BFloat16Matrix",
    "Int4Matrix",
    "Int8Matrix",
    "QuantizedMatrix",
    "matrix_class",
    "pack_nibbles",
    "quantized",
    "round_activations",
    "unpack_nibbles",
]
