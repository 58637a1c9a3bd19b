"""Parameters in fewer bits: bfloat16, int8 and int4.

- formulas  what is stored, and what a product with it is
- files     how model.safetensors holds it
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
    form_of,
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
    "form_of",
    "pack_nibbles",
    "quantized",
    "round_activations",
    "unpack_nibbles",
]
