"""A folder of quantized parameters: how model.safetensors holds them.

The arrays of each QuantizedMatrix are written as they are, and used in the mapped file,
where they lie: such a folder loads as quickly as one of float32.

    header's metadata                     {"format": "minigpt2", "weights": "int8"}
    transformer.h.0.attn.c_attn.weight    Int8Matrix.bytes or Int4Matrix.nibbles (U8), or
                                          BFloat16Matrix.bits (U16); [out, ...]
    ..._scale after that name             their scales: F32, or F16 for int4
    all others                            as in any such file: F32

config.json says {"quantization_config": {"quant_method": "minigpt2", "weights": "int8"}}
for other programs to see; what is read here is the file's own metadata. transformers
refuses the shapes, which are [out, in] where it looks for [in, out].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..checkpoints import CheckpointError
from ..checkpoints.tensor_file import TensorFile
from .formulas import QuantizedMatrix, matrix_class
from .policy import WEIGHT_FORMATS, parameter_format

FORMAT = "minigpt2"
SCALE = "_scale"


def weight_format_of(tensors: Mapping) -> str:
    """Return the weight format that an open checkpoint is stored in.

    CheckpointError for one that a later version may have written.
    """
    metadata = getattr(tensors, "metadata", {})
    if metadata.get("format") != FORMAT:
        return "float32"
    if metadata.get("weights") not in WEIGHT_FORMATS:
        path = getattr(tensors, "path", "this file")
        raise CheckpointError(
            f"{path} has weights {metadata.get('weights')!r}; this version of "
            f"minigpt2 reads {', '.join(WEIGHT_FORMATS)}"
        )
    return metadata["weights"]


def metadata_of(weights: str) -> dict[str, str]:
    """Return the metadata of a file of parameters in a weight format."""
    if weights == "float32":
        return {"format": "pt"}  # what transformers looks for
    return {"format": FORMAT, "weights": weights}


def quantization_config(weights: str) -> dict[str, str] | None:
    """Return what config.json says about a weight format: None for float32."""
    if weights == "float32":
        return None
    return {"quant_method": FORMAT, "weights": weights}


def is_scale(name: str, tensors: Mapping) -> bool:
    """Say whether a tensor of such a file holds the scales of another."""
    return name.endswith(SCALE) and name.removesuffix(SCALE) in tensors


class TensorsToWrite(Mapping):
    """{name in the file: array} of what is saved, made when asked for.

    (An array may have to be put together from what a backend packed it into.)

    Args:
        places: {parameter's name: (layer, attribute)}; `layer.stored(attribute)` is an
            array or a QuantizedMatrix.
        weights: the model's weight format.
    """

    def __init__(self, places: Mapping[str, tuple[Any, str]], weights: str):
        self._places = {}  # name in the file -> layer, attribute, which of its arrays
        for name, (layer, attribute) in places.items():
            self._places[name] = layer, attribute, 0
            quantized = parameter_format(name, weights) != "float32"
            if quantized and len(layer.stored(attribute).arrays()) > 1:
                self._places[name + SCALE] = layer, attribute, 1

    def __getitem__(self, name: str) -> np.ndarray:
        layer, attribute, i = self._places[name]
        stored = layer.stored(attribute)
        return stored.arrays()[i] if isinstance(stored, QuantizedMatrix) else stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def read_quantized(
    tensors: TensorFile, name: str, shape: tuple[int, int], weight_format: str
) -> QuantizedMatrix:
    """Return the matrix [n, k] that such a file holds in a weight format.

    CheckpointError if what is there can't be it.
    """
    n, k = shape
    matrix = matrix_class(weight_format, k)
    arrays = []
    for part, (stored_shape, dtype) in zip((name, name + SCALE), matrix.layout(n, k)):
        if part not in tensors:
            raise CheckpointError(f"{part} is missing")
        found = tensors.shape(part), tensors.dtype(part)
        if found != (stored_shape, np.dtype(dtype)):
            raise CheckpointError(
                f"{part} is {found[1]} {found[0]}, and {weight_format} weights "
                f"[{n}, {k}] have {np.dtype(dtype)} {stored_shape}"
            )
        arrays.append(tensors[part])
    if len(arrays) > 1 and not (np.isfinite(arrays[1]) & (arrays[1] > 0)).all():
        raise CheckpointError(f"{name}{SCALE} has scales that are not above 0")
    return matrix.holding(arrays, k)
