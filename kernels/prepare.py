"""prepare: compile the kernels of a model before they are needed."""

import numpy as np

from .attend import _cached_attend
from .matmul import _linear_bfloat16, _linear_floats
from .norms import _layer_norm
from .panels import linear_panels
from .quantized import linear_int4, linear_int8

# By weight format, the kernels of its products. (_linear_floats is a head's, whose
# matrix is [out, in]: see Head in model/layers.py.)
LINEAR = {
    "float32": (linear_panels, _linear_floats),
    "bfloat16": (_linear_bfloat16,),
    "int8": (linear_int8,),
    "int4": (linear_int4, linear_int8),
}


def prepare(dtype: np.dtype, weights: str = "float32") -> None:
    """minigpt2.ops.prepare: compile the kernels, or read them from their cache.

    They are those that GPT-2 needs in this dtype and weight format: a model with another
    activation or heads not of 64 may compile one more at its first forward pass.
    """
    for kernel in (_layer_norm, _cached_attend, *LINEAR[weights]):
        kernel[dtype]
