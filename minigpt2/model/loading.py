"""Tensors -> parameters: all of them are set, or none.

`own_names` finds out which tensor of a file is which parameter; `set_parameters` checks
names, shapes, dtypes and ties before it changes anything, then reads, rounds and packs
one tensor at a time, so that a fresh model is in memory once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoints import names
from ..checkpoints.tensor_file import TensorFile, Unread, let_go
from ..quantization import BFloat16Matrix, QuantizedMatrix, quantized
from ..quantization.files import is_scale, read_quantized, weight_format_of
from ..quantization.policy import parameter_format
from ..runtime.progress import Progress
from .layers import Module

if TYPE_CHECKING:
    from .parameters import ParameterTree


def own_names(
    model: ParameterTree, tensors: Mapping[str, Any], prefix: str
) -> tuple[dict[str, Any], list[str]]:
    """Return ({name here: tensor}, names in the file that nothing has here).

    Args:
        tensors: {name in the file: array}, under OpenAI's names or whichever.
        prefix: what the names of the base model's parameters begin with here.

    Raises ValueError for a parameter of a layer that the model lacks, or one that the
    file has twice.
    """
    slots = model.parameter_slots()
    stored = weight_format_of(tensors)
    found: dict[str, Any] = {}
    foreign = []
    for name in tensors:
        if stored != "float32" and is_scale(name, tensors):
            continue
        here = names.canonical(name)
        if here is None:
            continue
        if names.is_gpt2_parameter(here):
            here = prefix + here
            if here not in slots:
                raise ValueError(
                    f"{name} is a parameter of a GPT-2 with more layers than this "
                    f"one's {model.config.n_layer}: is it another model's config?"
                )
        if here not in slots:
            foreign.append(name)
        elif here in found:
            raise ValueError(f"{here} is there twice, as {name} too")
        else:
            module, attribute = slots[here]
            found[here] = _tensor(
                tensors, name, module, attribute, parameter_format(here, stored)
            )
    # A file of a model with a head may hold tied embeddings under the head's name alone.
    head, wte = names.HEAD, prefix + "wte.weight"
    tied_elsewhere = head not in slots and model.config.tie_word_embeddings
    if wte not in found and head in tensors and tied_elsewhere:
        module, attribute = slots[wte]
        weight_format = parameter_format(wte, stored)
        found[wte] = _tensor(tensors, head, module, attribute, weight_format)
        foreign.remove(head)
    return found, foreign


def _tensor(
    tensors: Mapping[str, Any],
    name: str,
    module: Module,
    attribute: str,
    weight_format: str,
) -> Any:
    """Return a tensor of a file as a QuantizedMatrix, or unread, or as an array."""
    if not isinstance(tensors, TensorFile):
        return names.without_leading_one(np.asarray(tensors[name]))
    if weight_format == "float32":
        return names.without_leading_one(Unread(tensors, name))
    out, inner = module.shapes[attribute]
    if not module.weight_is_rows:
        out, inner = inner, out
    return read_quantized(tensors, name, (out, inner), weight_format)


def set_parameters(
    model: ParameterTree,
    tensors: Mapping[str, Any],
    optional: str | tuple[str, ...] = (),
    problems: Iterable[str] = (),
) -> list[str]:
    """Set the parameters from {name: tensor}, all or none; return the missing names.

    Args:
        optional: beginnings of names that may be missing ("": any). Of these, what has
            never been set is drawn.
        problems: further reasons to set nothing.

    Raises ValueError, which lists what does not fit. What fails later, as a damaged
    tensor may when it is read, leaves the model as it was, too.
    """
    own = model.own_slots()
    tensors = {**tensors}
    for name, target in model.tied_parameters().items():
        if name in tensors:  # whichever of tied names is there serves
            tensors.setdefault(target, tensors[name])
    missing = [name for name in own if name not in tensors]
    lacking = [f"{n} is missing" for n in missing if not n.startswith(optional)]
    problems = [*lacking, *problems, *_misfits(model, tensors)]
    if problems:
        raise ValueError(
            f"these parameters do not fit this {type(model).__name__}: "
            + shortened(problems)
        )
    quantizing = model.weights != "float32"
    # The largest matrix, the ids' embeddings, is the first, and the only one that lies in
    # the file by rows: it is quantized last, when memory is fullest, since the pages of
    # its rows can be given back part by part.
    found = [name for name in own if name in tensors][:: -1 if quantizing else 1]
    progress = Progress(f"to {model.weights}", len(found) if quantizing else 0)
    with _all_or_nothing(module for module, _ in own.values()), progress:
        for name in found:
            progress.step(name)
            _set(model, name, *own[name], tensors[name])
    model.draw({name: own[name] for name in missing if not hasattr(*own[name])})
    return missing


@contextlib.contextmanager
def _all_or_nothing(modules: Iterable[Module]) -> Iterator[None]:
    """Give modules their attributes back if what is done to them fails."""
    before = [(module, dict(vars(module))) for module in modules]
    try:
        yield
    except BaseException:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)
        raise


def _set(
    model: ParameterTree, name: str, module: Module, attribute: str, tensor: Any
) -> None:
    """Set a parameter from an array, a tensor that is unread, or a QuantizedMatrix."""
    in_full = model.weights == "float32"
    bits = tensor.bfloat16_bits() if isinstance(tensor, Unread) else None
    if bits is not None and parameter_format(name, model.weights) != "float32":
        tensor = BFloat16Matrix(module.as_rows(bits))
    elif not isinstance(tensor, QuantizedMatrix):
        tensor = np.asarray(tensor)
    value = in_format(parameter_format(name, model.weights), module, tensor)
    if not isinstance(value, QuantizedMatrix):
        # (Beside quantized parameters, nothing is kept of a file of float32.)
        value = _as_parameter(value, model.dtype, keep_file=in_full)
    setattr(module, attribute, value)
    kept = [array for held in vars(module).values() for array in arrays_of(held)]
    for array in arrays_of(tensor):
        if not any(np.may_share_memory(array, one) for one in kept):
            let_go(array, whole_file=not in_full)


def in_format(weight_format: str, module: Module, tensor: Any) -> Any:
    """Return a layer's parameter, an array or a QuantizedMatrix, in a weight format."""
    if weight_format == "float32":
        if isinstance(tensor, QuantizedMatrix):
            return module.as_rows(np.asarray(tensor))
        return tensor
    rows = tensor if isinstance(tensor, QuantizedMatrix) else module.as_rows(tensor)

    def done(part: slice) -> None:
        for array in arrays_of(rows):
            if array.flags.c_contiguous:  # its rows lie together in the file
                let_go(array[part], whole_file=True)

    return quantized(rows, weight_format, done)


def arrays_of(value: Any) -> list[np.ndarray]:
    """Return the arrays that a parameter, an array or a QuantizedMatrix, is kept in."""
    if isinstance(value, QuantizedMatrix):
        return value.arrays()
    return [value] if isinstance(value, np.ndarray) else []


def _misfits(model: ParameterTree, tensors: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the shapes, dtypes and ties of {name: tensor}."""
    for name, (module, attribute) in model.parameter_slots().items():
        tensor, shape = tensors.get(name), module.shapes[attribute]
        if tensor is None or isinstance(tensor, QuantizedMatrix):
            continue  # a QuantizedMatrix was made for this shape
        if tensor.shape != shape:
            yield f"{name} has shape {tensor.shape}, not {shape}"
        if not np.can_cast(tensor.dtype, model.dtype, "same_kind"):
            yield f"{name} has dtype {tensor.dtype}, not {model.dtype}"
    for name, target in model.tied_parameters().items():
        if not {name, target} <= set(tensors) or tensors[name] is tensors[target]:
            continue
        if not _same(np.asarray(tensors[name]), np.asarray(tensors[target])):
            yield (
                f"{name} differs from {target}, to which it is tied "
                "(config.tie_word_embeddings=False unties them)"
            )


def _as_parameter(array: np.ndarray, dtype: np.dtype, keep_file: bool) -> np.ndarray:
    """Return `array` in `dtype`; a copy, unless nobody can write to it any more.

    An array on a read-only mapped file stays there, with keep_file. A read-only view of
    an array that is writable does not do: who has that array could still change the
    model.
    """
    base: Any = array
    while isinstance(base, np.ndarray) and not base.flags.writeable:
        base = base.base
    if isinstance(base, np.ndarray) or not keep_file:
        return np.array(array, dtype, order="C")
    return np.ascontiguousarray(array, dtype)


def _same(a: np.ndarray, b: np.ndarray, step: int = 1 << 10) -> bool:
    """Say whether two arrays are equal, with a few rows of them in memory at a time."""
    if a.shape != b.shape:
        return False
    for start in range(0, len(a), step):
        few = slice(start, start + step)
        if not np.array_equal(a[few], b[few]):
            return False
        let_go(a[few])
        let_go(b[few])
    return True


def shortened(problems: list[str], most: int = 8) -> str:
    """Join problems into one line, counting those beyond `most`."""
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more
