"""The layers that hold GPT-2's parameters, each callable on an array.

A `Module` is a tree: its attributes that are modules, or lists of modules, are its
branches, and `parameter_names` lists the arrays that it holds itself. A parameter's
name is its path of attributes: `h.0.ln_1.weight` is `model.h[0].ln_1.weight`.
Parameters are set after construction, by an initialiser or a loader.

The weight of an embedding or of a linear layer may also be kept as
`quantization.QuantizedMatrix`, which take less memory. The attribute `weight` takes either, and
gives a float array, made when asked for from a QuantizedMatrix; `stored` gives what is kept.
"""

import importlib

import numpy as np

from ..quantization import QuantizedMatrix


class Module:
    """A node in the tree of named parameters."""

    parameter_names = ()
    weight_is_rows = True  # [out, in]; False: [in, out]

    def named_modules(self, prefix=""):
        """Yield (path, module) for this module and all below it, in order."""
        yield prefix, self
        for name, value in vars(self).items():
            branches = enumerate(value) if isinstance(value, list) else [(None, value)]
            for index, branch in branches:
                if isinstance(branch, Module):
                    path = name if index is None else f"{name}.{index}"
                    yield from branch.named_modules(f"{prefix}{path}.")

    def parameter_slots(self):
        """Return {name: (module, attribute)} of every parameter, in order."""
        return {
            prefix + name: (module, name)
            for prefix, module in self.named_modules()
            for name in module.parameter_names
        }

    def as_rows(self, weight):
        """Return a weight as rows [out, in]; or such rows as the weight is."""
        return weight if self.weight_is_rows else weight.T

    def stored(self, attribute):
        """Return a parameter as a QuantizedMatrix, if it is kept so, or as the attribute's array."""
        return getattr(self, attribute)

    def share(self, attribute, other):
        """Have a parameter in common with another such layer of the same backend."""
        setattr(self, attribute, getattr(other, attribute))

    # copy.deepcopy and pickle work but for one thing: a namespace of ops can't be
    # pickled, so its name travels.

    def __getstate__(self):
        state = dict(vars(self))
        if "ops" in state:
            state["ops"] = state["ops"].__name__
        return state

    def __setstate__(self, state):
        vars(self).update(state)
        if "ops" in state:
            self.ops = importlib.import_module(state["ops"])


class Embedding(Module):
    """A table [rows, C] whose rows are looked up by id."""

    parameter_names = ("weight",)

    def __init__(self, rows, width):
        self.shapes = {"weight": (rows, width)}

    @property
    def weight(self):
        return np.asarray(self._table)

    @weight.setter
    def weight(self, value):
        self._table = value

    def stored(self, attribute):
        return self._table

    def share(self, attribute, other):
        self._table = other._table

    def __call__(self, ids):
        return self._table[ids]  # [..., C]


class LayerNorm(Module):
    """ops.layer_norm with its gain `weight` [C] and `bias` [C]."""

    parameter_names = ("weight", "bias")

    def __init__(self, width, eps, ops):
        self.shapes = {"weight": (width,), "bias": (width,)}
        self.eps = eps
        self.ops = ops

    def __call__(self, x):
        return self.ops.layer_norm(x, self.weight, self.bias, self.eps)


class Linear(Module):
    """ops.linear with `weight` [in, out] and `bias` [out]: Hugging Face's Conv1D.

    The weight is kept in the form that the backend packs it in, or as a QuantizedMatrix, which all
    backends read as they are; the attribute gives an array [in, out] again.
    """

    parameter_names = ("weight", "bias")
    weight_is_rows = False

    def __init__(self, n_in, n_out, ops):
        self.shapes = {"weight": (n_in, n_out), "bias": (n_out,)}
        self.ops = ops

    @property
    def weight(self):
        if isinstance(self._packed, QuantizedMatrix):
            return self.as_rows(np.asarray(self._packed))
        return self.as_rows(self.ops.unpack(self._packed).T)

    @weight.setter
    def weight(self, value):
        if not isinstance(value, QuantizedMatrix):
            value = self.ops.pack(self.as_rows(value).T)
        self._packed = value

    def stored(self, attribute):
        held = self._packed if attribute == "weight" else None
        return held if isinstance(held, QuantizedMatrix) else getattr(self, attribute)

    def share(self, attribute, other):
        if attribute == "weight":
            self._packed = other._packed
        else:
            super().share(attribute, other)

    def replace(self, weight, bias):
        """Take other parameters, of whatever shape."""
        self.weight, self.bias = np.ascontiguousarray(weight), bias
        self.shapes = {"weight": weight.shape, "bias": bias.shape}

    def __call__(self, x):
        return self.ops.linear(x, self._packed, self.bias)

    # The same joined with what stands before or after it, which is faster.

    def added_to(self, residual, x):
        """residual + self(x)"""
        return self.ops.linear_add(x, self._packed, self.bias, residual)

    def of_norm(self, x, norm, gelu=False):
        """self(norm(x)), and with gelu=True gelu_new of that; norm is a LayerNorm."""
        joined = self.ops.norm_linear_gelu if gelu else self.ops.norm_linear
        return joined(x, norm.weight, norm.bias, norm.eps, self._packed, self.bias)


class TorchLinear(Linear):
    """The same layer with `weight` [out, in], as torch's nn.Linear has it: x W^T + b.

    GPT-2's heads, which came with the PyTorch version, store their weights so.
    """

    weight_is_rows = True

    def __init__(self, n_in, n_out, ops):
        super().__init__(n_in, n_out, ops)
        self.shapes["weight"] = (n_out, n_in)


class Head(TorchLinear):
    """Scores of every id: logits = x W^T, with `weight` W [V, C] and no bias.

    Where the weights are tied, as in GPT-2, W is the embeddings' own array.
    """

    parameter_names = ("weight",)
    bias = None
