"""A file's tensors -> GPT-2's parameters, under canonical names and in one layout.

    Hugging Face's   matrices of linear layers are [in, out]: taken as it is
    OpenAI's         [1, in, out]
    nanoGPT's        [out, in], as torch.nn.Linear has them, and maybe without any bias

nanoGPT's (and minGPT's) names are Hugging Face's: what tells the layout is the shape of
c_attn, [3C, C] where Hugging Face has [C, 3C]. Source: model.py of
github.com/karpathy/nanoGPT.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import names
from .tensor_file import TensorFile, Unread

Tensor = np.ndarray | Unread


def gpt2_tensors(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return {canonical name: tensor [in, out]}; those of a file are not read yet.

    What is no parameter of GPT2Model's keeps its name, but for what wrappers put before
    it; old versions' mask buffers are left out.

    Args:
        tensors: an open checkpoint, or {name: array}.

    Raises:
        ValueError: a parameter is there twice, or a dict in place of an array.
    """
    found: dict[str, Tensor] = {}
    for name in tensors:
        here = names.canonical(name)
        if here is None:
            continue
        if here in found:
            raise ValueError(f"{name} is there twice: under another name, too")
        if isinstance(tensors, TensorFile):
            found[here] = without_leading_one(Unread(tensors, name))
        else:
            found[here] = without_leading_one(_array_of(name, tensors[name]))
    return _from_linear(found) if _is_linear(found) else found


def without_leading_one(tensor: Tensor) -> Tensor:
    """Return OpenAI's [1, in, out] weight as [in, out]; anything else as it is.

    Only that axis goes: a real axis of size 1 (n_embd = 1) must stay.
    """
    shape = tensor.shape
    return tensor.reshape(shape[1:]) if len(shape) == 3 and shape[0] == 1 else tensor


def _array_of(name: str, value: Any) -> np.ndarray:
    """Return what a caller's dict holds, a tensor of torch's too, as an array."""
    if isinstance(value, Mapping):
        raise ValueError(
            f"{name!r} is a dict, not an array: if it is the state dict, give that alone"
        )
    if hasattr(value, "detach"):  # of torch: a parameter's gradient is of no interest
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # which NumPy lacks
            value = value.float()
    return np.asarray(value)


def _is_linear(tensors: Mapping[str, Tensor]) -> bool:
    """Say whether the matrices are [out, in]. (A quantized file's are integers.)"""
    norm, c_attn = map(tensors.get, ("h.0.ln_1.weight", "h.0.attn.c_attn.weight"))
    if norm is None or c_attn is None or c_attn.dtype.kind != "f":
        return False
    return len(norm.shape) == 1 and c_attn.shape == (3 * norm.shape[0], norm.shape[0])


def _from_linear(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return nanoGPT's tensors as GPT-2's: transposed, and with biases of zero."""
    parameters = [name for name in tensors if names.is_gpt2_parameter(name)]
    biased = any(name.endswith(".bias") for name in parameters)
    result = dict(tensors)
    for name in parameters:
        tensor = tensors[name]
        if name.endswith(names.MATRICES) and len(tensor.shape) == 2:
            tensor = result[name] = tensor.T
        bias = f"{name.removesuffix('weight')}bias"
        if not biased and names.is_gpt2_parameter(bias):
            result[bias] = np.zeros(tensor.shape[-1:], tensor.dtype)
    return result
