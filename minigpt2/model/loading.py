"""Tensors -> parameters: all of them are set, or none.

`checked_tensors` compares a file's tensors with a configuration before any model is made;
`own_names` finds out which of them is which parameter; `set_parameters` checks names,
shapes, dtypes and ties before it changes anything, then reads, rounds and packs one
tensor at a time, so that a fresh model is in memory once.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoints import CheckpointError, names
from ..checkpoints.layouts import Tensor, gpt2_tensors
from ..checkpoints.tensor_file import Unread, let_go
from ..config import GPT2Config
from ..quantization import BFloat16Matrix, QuantizedMatrix, quantized
from ..quantization.files import is_scale, read_quantized, weight_format_of
from ..quantization.policy import parameter_format
from ..runtime.progress import Progress
from .layers import Module

if TYPE_CHECKING:
    from .parameters import ParameterTree

WTE = "wte.weight"
# A field of the configuration -> the parameter by whose first axis a file says the same.
# (Of these only wte is ever quantized, row by row, which leaves the first axis as it is.)
SIZES = {
    "vocab_size": WTE,
    "n_positions": "wpe.weight",
    "n_embd": "ln_f.weight",
    "n_inner": "h.0.mlp.c_fc.bias",
}
MAX_FRESH = 25_000_000  # numbers of a new head, beside three times what a file holds


@contextlib.contextmanager
def naming_file(tensors: Mapping[str, Any]) -> Iterator[None]:
    """Raise ValueErrors as CheckpointErrors that name the open checkpoint."""
    try:
        yield
    except ValueError as error:
        file = f"{tensors.path}: " if hasattr(tensors, "path") else ""
        raise CheckpointError(f"{file}{error}") from None


def checked_tensors(
    config: GPT2Config, tensors: Mapping[str, Any], prefix: str = ""
) -> dict[str, Tensor]:
    """Return `gpt2_tensors`, if a GPT2Model's are all there, of the shapes in names.py.

    No model is made, nor is a tensor read: a configuration may describe one of any size.
    A file of a model with a head may hold tied embeddings under the head's name alone:
    here they have their own.

    Args:
        config: what the model is to be.
        tensors: an open checkpoint, or {name: array}.
        prefix: what the names of the base model's parameters begin with, in messages.

    Raises:
        ValueError: something is missing or misshapen; of a size that differs it says
            the field, what the configuration says, and what the file holds.
    """
    found, stored = gpt2_tensors(tensors), weight_format_of(tensors)
    layers = {names.layer_of(name) for name in found} - {None}
    if config.n_layer > len(layers):  # before that many names are made
        raise ValueError(
            f"n_layer is {config.n_layer} in the configuration, and {len(layers)} by the "
            f"names in the checkpoint{_strange_prefix(found)}"
        )
    for name in tensors:
        layer = names.layer_of(names.canonical(name) or "")
        if layer is not None and layer >= config.n_layer:
            raise ValueError(
                f"{name} is a parameter of a GPT-2 with more layers than this one's "
                f"{config.n_layer}: is it another model's config?"
            )
    if config.tie_word_embeddings and names.HEAD in found and WTE not in found:
        found[WTE] = found.pop(names.HEAD)
    expected = names.parameter_shapes(config)
    there = {name: found[name].shape for name in expected if name in found}
    problems = [f"{prefix}{name} is missing" for name in expected if name not in there]
    for field, name in SIZES.items():
        if there.get(name) and there[name][0] != expected[name][0]:
            problems.append(
                f"{field} is {expected[name][0]} in the configuration, and "
                f"{there[name][0]} by the shape of {prefix}{name}"
            )
    problems += [
        f"{prefix}{name} has shape {shape}, not {expected[name]}"
        for name, shape in there.items()
        # (read_quantized knows in which shape a quantized one is stored.)
        if shape != expected[name] and parameter_format(name, stored) == "float32"
    ]
    if problems:
        raise ValueError(
            "the checkpoint does not fit the configuration: "
            + shortened(problems)
            + _strange_prefix(found)
        )
    return found


def _strange_prefix(found: Iterable[str]) -> str:
    """Return the part of a message that names a prefix that is not known."""
    prefix = names.foreign_prefix(found)
    if prefix is None:
        return ""
    return (
        f"; its names begin with {prefix!r}, which means nothing here: give state_dict="
        f"{{name.removeprefix({prefix!r}): array, ...}}"
    )


def own_names(
    model: ParameterTree, tensors: Mapping[str, Any], prefix: str
) -> tuple[dict[str, Any], list[str]]:
    """Return ({name here: tensor}, names in the file that nothing has here).

    Args:
        tensors: {name in the file: array}, under OpenAI's names or whichever.
        prefix: what the names of the base model's parameters begin with here.

    Raises:
        ValueError: as `checked_tensors` does, and if a head that the file lacks would be
            much larger than all that it has.
    """
    slots = model.parameter_slots()
    stored = weight_format_of(tensors)
    by_name = checked_tensors(model.config, tensors, prefix)
    found: dict[str, Any] = {}
    foreign = []
    for here, tensor in by_name.items():
        name = prefix + here if names.is_gpt2_parameter(here) else here
        if name in slots:
            weight_format = parameter_format(name, stored)
            found[name] = _as_stored(tensor, *slots[name], weight_format)
        elif stored == "float32" or not is_scale(here, by_name):
            foreign.append(here)
    held = sum(math.prod(tensor.shape) for tensor in by_name.values())
    for name, (module, attribute) in model.own_slots().items():
        fresh = math.prod(module.shapes[attribute])
        if name not in found and fresh > 3 * held + MAX_FRESH:
            raise ValueError(
                f"{name} is missing, and a fresh one of shape {module.shapes[attribute]} "
                f"is much larger than all {held} numbers of the checkpoint: is num_labels="
                f"{model.config.num_labels} right?"
            )
    return found, foreign


def _as_stored(
    tensor: Tensor,
    module: Module,
    attribute: str,
    weight_format: str,
) -> Tensor | QuantizedMatrix:
    """Return a tensor, or the QuantizedMatrix that a file has in its place."""
    if weight_format == "float32" or not isinstance(tensor, Unread):
        return tensor
    out, inner = module.shapes[attribute]
    if not module.weight_is_rows:
        out, inner = inner, out
    return read_quantized(tensor.file, tensor.name, (out, inner), weight_format)


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
    except BaseException:  # Ctrl-C, too, must leave the model as it was
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
