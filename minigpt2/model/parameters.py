"""ParameterTree: a model's parameters by name, all of one dtype.

Of what torch.nn.Module can do this is the part that a model here needs: `state_dict`,
`load_state_dict`, `train` and `eval`, `to` and its short forms. Names are the paths in
the tree of layers.py; loading.py sets parameters from arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..checkpoints import names
from ..config import GPT2Config
from ..quantization.policy import check_weight_format, parameter_format
from ..runtime.randomness import normal
from .layers import LayerNorm, Module
from .loading import in_format, set_parameters

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class ParameterTree(Module):
    """The root of a tree of modules. It has a `dtype`, a `config` and `build`s itself.

    Some parameters may be tied to others: then both are one array, which is stored,
    counted, drawn and saved under the other's name.
    """

    config: GPT2Config
    dtype: np.dtype
    device = "cpu"  # as of NumPy's arrays
    weights = "float32"  # the weight format: one of quantization.policy.WEIGHT_FORMATS

    def build(self) -> None:
        """Make the modules that the configuration describes."""
        raise NotImplementedError

    def tied_parameters(self) -> dict[str, str]:
        """Return {name: name of the parameter that it is tied to}."""
        return {}

    def own_slots(self) -> dict[str, tuple[Module, str]]:
        """Return {name: (module, attribute)} of the parameters that are not tied."""
        slots, tied = self.parameter_slots(), self.tied_parameters()
        return {name: slot for name, slot in slots.items() if name not in tied}

    def num_parameters(self) -> int:
        """Return how many numbers the parameters have, tied ones counted once."""
        return sum(
            math.prod(module.shapes[attribute])
            for module, attribute in self.own_slots().values()
        )

    def named_parameters(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (name, array) of each parameter, tied ones once: see `state_dict`."""
        for name, (module, attribute) in self.own_slots().items():
            yield name, read_only(getattr(module, attribute))

    def parameters(self) -> Iterator[np.ndarray]:
        """Yield the array of each parameter, tied ones once: see `state_dict`."""
        return (array for _, array in self.named_parameters())

    # Values

    def init_weights(self, seed: int = 0) -> None:
        """Draw fresh parameters from `seed` (0 or more), the same on every platform.

        Matrices and embeddings have mean 0 and standard deviation
        config.initializer_range, divided by sqrt(2 n_layer) for the two projections of
        each block that add to the residual stream; biases are 0 and the layer norms'
        gains 1. Source: Radford et al. 2019, section 2.3; `randomness.normal` says how
        the numbers are made.
        """
        self.draw(self.own_slots(), seed)

    def draw(self, slots: Mapping[str, tuple[Module, str]], seed: int = 0) -> None:
        """Draw some of the parameters, as `init_weights` says."""
        bits = np.random.PCG64(seed)
        std = self.config.initializer_range
        residual_std = std / math.sqrt(2 * self.config.n_layer)
        for name, (module, attribute) in slots.items():
            shape = module.shapes[attribute]
            if attribute == "bias":
                array = np.zeros(shape, self.dtype)
            elif isinstance(module, LayerNorm):
                array = np.ones(shape, self.dtype)
            else:
                scale = residual_std if name.endswith("c_proj.weight") else std
                array = normal(bits, shape, scale, self.dtype)
            weight_format = parameter_format(name, self.weights)
            setattr(module, attribute, in_format(weight_format, module, array))

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return {Hugging Face's name: array} of all parameters, tied ones included.

        Matrices of linear layers are [in, out], as GPT-2's checkpoints have them. The
        arrays are read-only views: to change parameters, use `load_state_dict`. Of
        quantized parameters they are the float32 numbers that are computed with, made
        for the asking: together they take as much memory as a float32 model.
        """
        return {
            name: read_only(getattr(module, attribute))
            for name, (module, attribute) in self.parameter_slots().items()
        }

    def load_state_dict(
        self, state_dict: Mapping[str, npt.ArrayLike], strict: bool = True
    ) -> tuple[list[str], list[str]]:
        """Set the parameters from {Hugging Face's name: array}.

        Arrays are converted to the model's dtype, or its weight format, and copied
        unless nobody can write to them, as to a mapped file. The mask buffers of old
        versions (`attn.bias`, `attn.masked_bias`) are passed over. Returns (missing,
        unexpected) names.

        Raises:
            ValueError: a shape is wrong, a tied parameter differs from the one that it
                is tied to, or, with strict=True, a name is missing or unexpected.
                Nothing has been set then.
        """
        slots = self.parameter_slots()
        arrays = {n: np.asarray(a) for n, a in state_dict.items() if n in slots}
        unexpected = [n for n in state_dict if n not in slots and names.canonical(n)]
        problems = [f"{name} is not a parameter here" for name in unexpected]
        if strict:
            return set_parameters(self, arrays, problems=problems), unexpected
        return set_parameters(self, arrays, optional=""), unexpected

    # Modes

    def train(self, mode: bool = True) -> Self:
        """Turn dropout on (forward then needs a `generator`) or off; return self."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Turn dropout off; return self."""
        return self.train(False)

    def to(self, device: Any = None, dtype: npt.DTypeLike | None = None) -> Self:
        """Convert the parameters to another dtype, in place; return self.

        As in torch, the one positional argument may be a device or a dtype. The device
        can only be "cpu".

        Raises:
            ValueError: another device, another dtype than float32 and float64, or
                float64 in a quantized model.
        """
        if device is not None and str(device) != "cpu":
            try:
                dtype = checked_dtype(device)
            except ValueError:
                raise ValueError(
                    f"a model here is on the CPU, in float32 or float64: not {device!r}"
                ) from None
        if dtype is not None:
            dtype = checked_dtype(dtype)
            check_weight_format(self.weights, dtype)
            if dtype == self.dtype:
                return self
            for module, attribute in self.own_slots().values():
                array = getattr(module, attribute)
                setattr(module, attribute, array.astype(dtype, copy=False))
            for _, module in self.named_modules():
                if isinstance(module, ParameterTree):
                    module.dtype = dtype
        return self

    def float(self) -> Self:
        """Convert the parameters to float32, in place; return self."""
        return self.to(np.float32)

    def double(self) -> Self:
        """Convert the parameters to float64, in place; return self."""
        return self.to(np.float64)

    def cpu(self) -> Self:
        """Return self, which is on the CPU."""
        return self


def checked_dtype(dtype: Any) -> np.dtype:
    """Return `dtype`, NumPy's or torch's, as NumPy's float32 or float64.

    Raises:
        ValueError: for any other.
    """
    name = str(dtype)  # torch.float32 has no other name that NumPy knows
    wanted = name.removeprefix("torch.") if name.startswith("torch.") else dtype
    for known in DTYPES:
        if wanted is not None and known == wanted:  # NumPy takes None for float64
            return known
    raise ValueError(
        f"dtype must be float32 or float64, not {dtype!r}; from_pretrained(weights="
        "'bfloat16', 'int8' or 'int4') keeps the matrices in fewer bits"
    )


def read_only(array: np.ndarray) -> np.ndarray:
    """Return a view of `array` that can't be written to."""
    view = array.view()
    view.flags.writeable = False
    return view
