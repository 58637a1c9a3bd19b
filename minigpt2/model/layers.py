"""The layers that hold GPT-2's parameters, each callable on an array.

A `Module` is a tree: its attributes that are modules, or lists of modules, are its
branches, and `parameter_names` lists the arrays that it holds itself. A parameter's
name is its path of attributes: `h.0.ln_1.weight` is `model.h[0].ln_1.weight`.
Parameters are set after construction, by an initializer or a loader.

A matrix has two forms, or one. The file's and the user's is the attribute `weight`. A
linear layer computes with `packed`: `ops.pack` of it, which a backend lays out as it
likes; an embedding looks up the rows of its `table`, and a tied head's `packed` is made
of that (an untied one has `own_packed`). And the matrix of an embedding or a linear layer
may be quantized: then table and packed are a QuantizedMatrix, which every backend reads
as it is, and `weight` is an array made for the asking. `stored` is what there is to save:
the QuantizedMatrix, or the array.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from .. import ops
from ..quantization import QuantizedMatrix

if TYPE_CHECKING:
    from .gpt2 import ForwardPass

Array = TypeVar("Array", bound=np.ndarray | np.floating)  # a loss is a scalar


class Module:
    """A node in the tree of named parameters."""

    parameter_names: tuple[str, ...] = ()
    shapes: dict[str, tuple[int, ...]]  # of the parameters
    weight_is_rows = True  # `weight` is [out, in]; False: [in, out]
    training = False

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (path, module) for this module and all below it, in order.

        A path ends in a dot, so that path + attribute is a parameter's name.
        """
        yield prefix, self
        for name, value in vars(self).items():
            branches = enumerate(value) if isinstance(value, list) else [(None, value)]
            for index, branch in branches:
                if isinstance(branch, Module):
                    path = name if index is None else f"{name}.{index}"
                    yield from branch.named_modules(f"{prefix}{path}.")

    def parameter_slots(self) -> dict[str, tuple[Module, str]]:
        """Return {name: (module, attribute)} of every parameter, in order."""
        return {
            prefix + name: (module, name)
            for prefix, module in self.named_modules()
            for name in module.parameter_names
        }

    def tree(self, name: str = "", indent: str = "") -> list[str]:
        """Return lines that show this module and those below it, with their shapes.

        Neighbours in a list that look alike are shown once, with their number.
        """
        shape = getattr(self, "shapes", {}).get("weight")
        line = f"{indent}{name}: {type(self).__name__}"
        lines = [line if shape is None else f"{line} {list(shape)}"]
        for branch, value in vars(self).items():
            if isinstance(value, Module):
                lines += value.tree(branch, indent + "  ")
            elif isinstance(value, list) and value and isinstance(value[0], Module):
                lines += _alike(branch, value, indent + "  ")
        return lines

    def as_rows(self, weight: np.ndarray) -> np.ndarray:
        """Return a matrix in the layout of `weight` as rows [out, in], or the reverse."""
        return weight if self.weight_is_rows else weight.T

    def stored(self, attribute: str) -> Any:
        """Return a parameter as it is kept: a QuantizedMatrix, or an array."""
        return getattr(self, attribute)

    def share(self, attribute: str, other: Module) -> None:
        """Hold the same parameter as another such layer of the same backend."""
        setattr(self, attribute, getattr(other, attribute))

    # copy.deepcopy and pickle work but for one thing: a namespace of ops can't be
    # pickled, so its name travels.

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if "ops" in state:
            state["ops"] = state["ops"].__name__
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if "ops" in state:
            self.ops = importlib.import_module(state["ops"])


def _alike(branch: str, modules: list[Module], indent: str) -> list[str]:
    """Return the lines of a list's modules, those of neighbours that look alike once."""
    lines = []
    trees = [module.tree("", indent) for module in modules]
    for tree, group in itertools.groupby(enumerate(trees), key=lambda pair: pair[1]):
        numbers = [number for number, _ in group]
        span = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}..{numbers[-1]}"
        head = tree[0].strip().removeprefix(": ")
        lines += [f"{indent}{branch}.{span}: {head}", *tree[1:]]
    return lines


class Observer(Protocol):
    """What a forward pass shows its steps to: a tracing.Trace, or training's Kept."""

    joined: bool  # False: it is to see every step; True: what the joined ops give

    def begin(self, forward_pass: ForwardPass) -> None:
        """Take note of the pass whose steps follow."""

    def see(self, module: Module, name: str, array: Array) -> Array:
        """Take note of what a step gave; return it, or what to go on with instead."""


def seen(trace: Observer | None, module: Module, name: str, array: Array) -> Array:
    """Show a trace, if there is one, what a module's step gave; return what it returns.

    `name` is the step's within the module; "" stands for the module's own output.
    """
    return array if trace is None else trace.see(module, name, array)


def dropping(
    trace: Observer | None,
    module: Module,
    name: str,
    probability: float,
    generator: np.random.Generator | None,
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return a function that drops with this probability; None if nothing is dropped.

    It shows a trace which elements are kept: the step `name` of the module.
    """
    if generator is None or probability == 0.0:
        return None

    def drop(x: np.ndarray) -> np.ndarray:
        kept = ops.dropout_mask(x.shape, probability, generator, x.dtype)
        return ops.drop(x, seen(trace, module, name, kept), probability)

    return drop


class Embedding(Module):
    """A table [rows, C] whose rows are looked up by id."""

    parameter_names = ("weight",)
    table: Any  # an array, or a QuantizedMatrix

    def __init__(self, rows: int, width: int):
        self.shapes = {"weight": (rows, width)}

    @property
    def weight(self) -> np.ndarray:
        return np.asarray(self.table)

    @weight.setter
    def weight(self, value: np.ndarray | QuantizedMatrix) -> None:
        self.table = value

    def stored(self, attribute: str) -> Any:
        return self.table

    def share(self, attribute: str, other: Module) -> None:
        self.table = other.stored(attribute)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        return self.table[ids]  # [..., C]


class LayerNorm(Module):
    """ops.layer_norm with its gain `weight` [C] and `bias` [C]."""

    parameter_names = ("weight", "bias")
    weight: np.ndarray
    bias: np.ndarray

    def __init__(self, width: int, eps: float, ops: ModuleType):
        self.shapes = {"weight": (width,), "bias": (width,)}
        self.eps = eps
        self.ops = ops

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.ops.layer_norm(x, self.weight, self.bias, self.eps)


class Activation(Module):
    """One of ops.ACTIVATIONS; it has no parameters, but a name in the tree."""

    def __init__(self, name: str, ops: ModuleType):
        self.shapes = {}
        self.name = name
        self.ops = ops

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.ops.ACTIVATIONS[self.name](x)


class Linear(Module):
    """ops.linear with `weight` [in, out] and `bias` [out]: Hugging Face's Conv1D."""

    parameter_names: tuple[str, ...] = ("weight", "bias")
    weight_is_rows = False
    packed: Any
    bias: Any  # an array [out]; a Head has None

    def __init__(self, n_in: int, n_out: int, ops: ModuleType):
        self.shapes = {"weight": (n_in, n_out), "bias": (n_out,)}
        self.ops = ops

    @property
    def weight(self) -> np.ndarray:
        if isinstance(self.packed, QuantizedMatrix):
            return np.asarray(self.packed).T
        return self.ops.unpack(self.packed)

    @weight.setter
    def weight(self, value: np.ndarray | QuantizedMatrix) -> None:
        self.packed = self.ops.pack(value)

    def stored(self, attribute: str) -> Any:
        if attribute == "weight" and isinstance(self.packed, QuantizedMatrix):
            return self.packed
        return getattr(self, attribute)

    def share(self, attribute: str, other: Module) -> None:
        name = "packed" if attribute == "weight" else attribute
        setattr(self, name, getattr(other, name))

    def replace(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """Take other parameters, of whatever shape."""
        self.weight, self.bias = np.ascontiguousarray(weight), bias
        self.shapes = {"weight": weight.shape, "bias": bias.shape}

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.ops.linear(x, self.packed, self.bias)


class TorchLinear(Linear):
    """The same layer with `weight` [out, in], as torch's nn.Linear has it: x W^T + b.

    GPT-2's heads, which came with the PyTorch version, are stored so.
    """

    weight_is_rows = True

    def __init__(self, n_in: int, n_out: int, ops: ModuleType):
        super().__init__(n_in, n_out, ops)
        self.shapes["weight"] = (n_out, n_in)

    @property
    def weight(self) -> np.ndarray:
        if isinstance(self.packed, QuantizedMatrix):
            return np.asarray(self.packed)
        return self.ops.unpack(self.packed).T

    @weight.setter
    def weight(self, value: np.ndarray | QuantizedMatrix) -> None:
        if not isinstance(value, QuantizedMatrix):
            value = value.T
        self.packed = self.ops.pack(value)


class Head(TorchLinear):
    """The logits of every id (or label): x W^T, with `weight` W [V, C] and no bias.

    Where the head is tied, as GPT-2's is, W is the token embeddings' own matrix,
    whatever that is at the time.
    """

    parameter_names = ("weight",)
    bias = None
    # (In a tuple, as the tree of names must not find it here a second time.)
    tied_to: tuple[Embedding] | tuple[()] = ()

    @property
    def packed(self) -> Any:
        if not self.tied_to:
            return self.own_packed
        stored = self.tied_to[0].stored("weight")
        return self.ops.pack(
            stored if isinstance(stored, QuantizedMatrix) else stored.T
        )

    @packed.setter
    def packed(self, value: Any) -> None:
        self.own_packed, self.tied_to = value, ()


# What a block is made of: layers joined with what stands before or after them, each in
# one op of the backend.


def norm_linear(
    x: np.ndarray,
    norm: LayerNorm,
    linear: Linear,
    forward_pass: ForwardPass,
    activation: Activation | None = None,
) -> np.ndarray:
    """activation(linear(norm(x))): one op, or its steps where a trace looks."""
    see, trace = forward_pass.see, forward_pass.trace
    if trace is not None and not trace.joined:
        y = see(linear, "", linear(see(norm, "", norm(x))))
        return y if activation is None else see(activation, "", activation(y))
    # What comes before the activation is for a trace to see: then it is not joined.
    joined = activation if trace is None else None
    y = linear.ops.norm_linear(
        x,
        norm.weight,
        norm.bias,
        norm.eps,
        linear.packed,
        linear.bias,
        joined and joined.name,
    )
    if trace is None or activation is None:
        return see(linear, "", y)
    return activation(see(linear, "", y))


def linear_add(
    x: np.ndarray,
    linear: Linear,
    residual: np.ndarray,
    forward_pass: ForwardPass,
    probability: float,
) -> np.ndarray:
    """residual + dropout(linear(x)): one op, or its steps where a trace looks."""
    drop = forward_pass.dropout(linear, "kept", probability)
    if forward_pass.trace is not None and not forward_pass.trace.joined:
        y = forward_pass.see(linear, "", linear(x))
        return residual + (y if drop is None else drop(y))
    return linear.ops.linear_add(x, linear.packed, linear.bias, residual, drop)
