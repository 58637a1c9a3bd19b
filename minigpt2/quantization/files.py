"""A folder of small weights: how model.safetensors holds them.

The arrays of `quantization`'s forms are written as they are, and used in the mapped
file, where they lie: such a folder loads as quickly as one of float32.

    header's metadata                     {"format": "minigpt2", "weights": "int8"}
    transformer.h.0.attn.c_attn.weight    the rows: Int8Matrix.bytes, Int4Matrix.nibbles
                                          (U8) or BFloat16Matrix.bits (U16); [out, ...]
    ..._scale after that name             their scales: F32, or F16 for int4
    all others                            as in any such file: F32

config.json says {"quantization_config": {"quant_method": "minigpt2", "weights": "int8"}}
for other programs to see; what is read here is the file's own metadata. transformers
refuses the shapes, which are [out, in] where it looks for [in, out].
"""

from collections.abc import Mapping

import numpy as np

from ..checkpoints import CheckpointError
from ..model.parameters import WEIGHTS, arrays_of, kind_of_parameter
from .formulas import form_of

FORMAT = "minigpt2"
SCALE = "_scale"


def weights_of(tensors):
    """Return in which of WEIGHTS a checkpoint is stored, which is open.

    CheckpointError if it is in a form that a later version may have written.
    """
    metadata = getattr(tensors, "metadata", {})
    if metadata.get("format") != FORMAT:
        return "float32"
    if metadata.get("weights") not in WEIGHTS:
        raise CheckpointError(
            f"{tensors.path} has weights {metadata.get('weights')!r}; this version of "
            f"minigpt2 reads {', '.join(WEIGHTS)}"
        )
    return metadata["weights"]


def metadata_of(weights):
    """Return the metadata of a file of such weights."""
    if weights == "float32":
        return {"format": "pt"}  # what transformers looks for
    return {"format": FORMAT, "weights": weights}


def quantization_config(weights):
    """Return what config.json says about such weights, or None."""
    if weights == "float32":
        return None
    return {"quant_method": FORMAT, "weights": weights}


def is_scale(name, tensors):
    """Say whether a tensor of such a file belongs to another."""
    return name.endswith(SCALE) and name.removesuffix(SCALE) in tensors


class TensorsToWrite(Mapping):
    """{name in the file: array} of what a model is saved as, got when asked for.

    (An array may have to be put together from the form that a backend packs it in.)
    """

    def __init__(self, model):
        self._places = {}  # name -> module, attribute, which of its arrays
        for name, (module, attribute) in model.own_slots().items():
            small = model.kind_of(name, module) != "float32"
            arrays = module.stored(attribute).arrays() if small else [None]
            for i, file_name in enumerate([name, name + SCALE][: len(arrays)]):
                self._places[file_name] = module, attribute, i

    def __getitem__(self, name):
        module, attribute, i = self._places[name]
        return arrays_of(module.stored(attribute))[i]

    def __iter__(self):
        return iter(self._places)

    def __len__(self):
        return len(self._places)


def read_rows(tensors, name, module, weights):
    """Return the QuantizedMatrix that such a file has for a weight of `module`, or None.

    None stands for a parameter that is not stored as a QuantizedMatrix. CheckpointError if what is
    there can't be its rows.
    """
    kind = kind_of_parameter(name, module, weights)
    if kind == "float32":
        return None
    own = module.shapes["weight"]
    n, k = own if module.weight_is_rows else own[::-1]
    form = form_of(kind, k)
    arrays = []
    for part, (shape, dtype) in zip((name, name + SCALE), form.layout(n, k)):
        if part not in tensors:
            raise CheckpointError(f"{part} is missing")
        found = tensors.shape(part), tensors.dtype(part)
        if found != (shape, dtype):
            raise CheckpointError(
                f"{part} is {found[1]} {found[0]}, and {kind} weights "
                f"[{n}, {k}] have {np.dtype(dtype)} {shape}"
            )
        arrays.append(tensors[part])
    if len(arrays) > 1 and not (np.isfinite(arrays[1]) & (arrays[1] > 0)).all():
        raise CheckpointError(f"{name}{SCALE} has scales that are not above 0")
    return form.holding(arrays, k)
