"""trace: what every step of a forward pass gives, by name; and what if it gave other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..checkpoints.names import PREFIX
from ..model.gpt2 import ForwardPass
from ..model.layers import Array, Module
from ..model.pretrained import PreTrainedModel
from .steps import steps_of

Edit = npt.ArrayLike | Callable[[np.ndarray], npt.ArrayLike]


class Trace(Mapping):
    """{name: array} of the steps of one forward pass, in the order of computation.

    `trace[name]` takes the name with `transformer.` before it or without.

    Attributes:
        names: the names of the steps that were recorded.
        output: what the model returned.
        edited: the names of the steps that were replaced.
    """

    joined = False  # it sees every step
    output: Any = None

    def __init__(
        self,
        model: PreTrainedModel,
        wanted: set[str],
        edits: Mapping[str, Edit],
        untraced: Callable[[], Any],
    ):
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._wanted, self._edits, self._untraced = wanted, edits, untraced
        self._arrays: dict[str, np.ndarray] = {}
        self.edited: set[str] = set()

    def begin(self, forward_pass: ForwardPass) -> None:
        """Take no note of the pass itself."""

    def see(self, module: Module, name: str, array: Array) -> Array:
        """Take note of what a step of the pass gave; return what it goes on with."""
        path = (self._paths[id(module)] + name).removesuffix(".")
        if path in self._edits:
            array = cast(Array, self._replaced(path, np.asarray(array)))
            self.edited.add(path)
        if path in self._wanted:
            # A copy, as the pass may work on in place.
            self._arrays[path] = np.array(array)
            self._arrays[path].flags.writeable = False
        return array

    def _replaced(self, path: str, array: np.ndarray) -> np.ndarray:
        """Return what an edit has in place of what a step gave."""
        edit = self._edits[path]
        if callable(edit):
            edit = edit(np.array(array))
        edited = np.array(edit, array.dtype, order="C")
        if edited.shape != array.shape:
            raise ValueError(
                f"the edit of {path} has shape {edited.shape}; the step gives "
                f"{array.shape}"
            )
        return edited[()]  # a loss is a scalar

    def difference(self) -> float:
        """Return by how much the output differs from that of a pass without the trace.

        It is the largest difference of the logits (of the hidden states, if the model has
        no head), as a part of the largest of them: rounding, unless there were edits.
        The untraced pass is run for it; in train mode, that draws other dropout.
        """
        expected = _first_array(self._untraced())
        worst = np.abs(_first_array(self.output) - expected).max()
        return float(worst / np.abs(expected).max())

    @property
    def names(self) -> list[str]:
        """The names of the steps that were recorded, in order."""
        return list(self._arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        for known in (name, PREFIX + name):
            if known in self._arrays:
                return self._arrays[known]
        raise KeyError(unknown(name, self.names))

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"Trace({len(self)} steps of a {type(self.output).__name__})"


def trace(
    model: PreTrainedModel,
    input_ids: npt.ArrayLike | None = None,
    names: str | Iterable[str] = "*",
    edit: Mapping[str, Edit] | None = None,
    **inputs: Any,
) -> Trace:
    """Run a forward pass and return what its steps give, by name.

    The names are Hugging Face's module paths and local names: tracing/steps.py has the
    table. Nothing stays on the model, so threads may trace one model at once. A traced
    pass computes step by step what the backend otherwise joins, and the attention weights
    explicitly: its output may differ from the untraced one by rounding, and `difference`
    says by how much.

    >>> t = trace(model, [[1, 2, 3]])
    >>> t["h.0.attn.scores"].shape
    (1, 4, 3, 3)

    Args:
        model: a GPT2Model, GPT2LMHeadModel or GPT2DoubleHeadsModel.
        input_ids: [B, T].
        names: which steps to record: patterns such as "h.*.attn.weights", one or
            several. `transformer.` may be left out.
        edit: {name: array, or function of the array}: what takes the place of what a
            step gives, in the same shape, in the rest of the pass.
        inputs: further arguments of the model's forward.

    Raises:
        ValueError: a name or pattern that fits no step, with the nearest that there
            are; an edit of another shape, or of a step that this pass has not; and as
            the model's forward does.
    """
    known = step_names(model)
    patterns = [names] if isinstance(names, str) else list(names)
    wanted = {name for pattern in patterns for name in matching(pattern, known)}
    edits = {}
    for name, value in (edit or {}).items():
        (full,) = matching(name, known)[:1]
        edits[full] = value
    record = Trace(model, wanted, edits, lambda: model.forward(input_ids, **inputs))
    record.output = model.forward(input_ids, trace=record, **inputs)
    if missed := [name for name in edits if name not in record.edited]:
        raise ValueError(f"this pass has no step {', '.join(missed)} to edit")
    return record


def _first_array(output: Any) -> np.ndarray:
    """Return the logits, or the hidden states, that a model returned."""
    fields = output if isinstance(output, tuple) else output.to_tuple()
    return next(x for x in fields if isinstance(x, np.ndarray) and x.ndim)


def step_names(model: PreTrainedModel) -> list[str]:
    """Return the names of a model's steps, in the order of the pass."""
    with_head = model.base_model is not model
    return [step.name for step in steps_of(model.config.n_layer, with_head)]


def matching(pattern: str, known: list[str]) -> list[str]:
    """Return the known names that a pattern fits; ValueError if there are none."""
    found = [name for name in known if fnmatchcase(name, pattern)] or [
        name for name in known if fnmatchcase(name, PREFIX + pattern)
    ]
    if not found:
        raise ValueError(unknown(pattern, known))
    return found


def unknown(name: str, known: list[str]) -> str:
    """Say that there is no step of this name, and which are near."""
    near = get_close_matches(name, known, 3) or get_close_matches(
        PREFIX + name, known, 3
    )
    return f"there is no step {name!r}; near are {', '.join(near or known[:3])}"
