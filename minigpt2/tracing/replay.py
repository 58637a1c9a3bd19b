"""Replay: compute each step in float64 from what another program had before it.

A step that is right gives from *their* inputs what *they* have next, whatever went wrong
earlier: its *local* error, theirs against ours on theirs, is no more than rounding. Its
*inherited* error is theirs against ours from the beginning. So one replay tells every
wrong step from those that only pass on what was wrong before.

Where a step was not dumped, the replay computes it, and goes on from the nearest that
were: then the local error is that of all steps since.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import ops
from ..checkpoints.names import PREFIX
from ..model import inputs as checked
from ..model.gpt2 import next_id_loss
from ..model.pretrained import PreTrainedModel
from .precision import rounded
from .steps import HEADS, Step, steps_of

# Arguments that change no step of these.
OF_OUTPUTS = (
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "mc_token_ids",
    "mc_labels",
)
MOST_LOGITS = 2000  # of the vocabulary, where many causes are tried
Arrays = Mapping[str, np.ndarray]


class Reference:
    """A model and the inputs of one pass, in float64: what the steps read.

    Names are those of tracing/steps.py without `transformer.`.

    Args:
        model: a GPT2Model, or one with a language-modelling head.
        inputs: arguments of its forward.

    Raises:
        ValueError: inputs that the model's forward refuses too, and head_mask.
    """

    def __init__(self, model: PreTrainedModel, **inputs: Any):
        self.model, self.config = model, model.config
        self.base = model.base_model
        given = {name: value for name, value in inputs.items() if value is not None}
        model.forward(**given)  # which checks them all
        embeds = given.pop("inputs_embeds", None)
        ids = given.pop("input_ids", None)
        rows = np.asarray(ids if ids is not None else embeds[..., 0])
        self.input_ids = None if ids is None else checked.folded(rows)  # [B, T]
        self.inputs_embeds = None if embeds is None else _folded(embeds, 2)
        batch, new = checked.folded(rows).shape
        past = given.pop("past_key_values", None)
        past = given.pop("past", past)
        self.past = [
            tuple(np.asarray(array, np.float64) for array in layer[:2])
            for layer in past or []
        ]
        self.start = self.past[0][0].shape[2] if self.past else 0
        self.position_ids = checked.positions(
            given.pop("position_ids", None),
            self.start,
            batch,
            new,
            self.config.n_positions,
        ) + np.zeros((batch, 1), int)  # [B, T]
        self.token_type_ids = given.pop("token_type_ids", None)
        mask = given.pop("attention_mask", None)
        self.key_mask = self.score_mask = None
        seen = self.start + new
        if np.ndim(mask) == 4:
            self.score_mask = checked.score_mask(
                mask, batch, new, seen, np.dtype(np.float64)
            )
        else:
            self.key_mask = checked.key_mask(mask, batch, seen)
        self.labels = given.pop("labels", None)
        self.labels = given.pop("lm_labels", self.labels)
        for name in OF_OUTPUTS:
            given.pop(name, None)
        if given:
            raise ValueError(f"a replay does not know {', '.join(given)}")
        self.has_head = model is not self.base
        self.state = model.state_dict()
        self._parameters: dict[str, np.ndarray] = {}
        self.columns = slice(None)  # of the logits: which are computed

    def thinned(self) -> Reference:
        """Return this with a few of the logits, and without the loss, which reads all."""
        thin = copy.copy(self)
        thin.columns = slice(None, None, -(-self.config.vocab_size // MOST_LOGITS))
        thin.steps = [step for step in self.steps if step.name != "loss"]
        return thin

    @cached_property
    def steps(self) -> list[Step]:
        """The steps that this pass has, in order."""
        steps = steps_of(self.config.n_layer, with_head=False)
        if self.has_head:
            steps += [step for step in HEADS if step.name in ("lm_head", "loss")]
        absent = {
            "wte": self.input_ids is None,
            "wte.types": self.token_type_ids is None,
            "loss": self.labels is None,
        }
        return [step for step in steps if not absent.get(step.name)]

    def parameter(self, name: str) -> np.ndarray:
        """Return a parameter in float64; of the head, the rows of `columns`."""
        full = name if name in self.state else PREFIX + name
        if name == "lm_head.weight" and full not in self.state:  # it is tied
            return self.parameter("wte.weight")[self.columns]
        if name not in self._parameters:
            self._parameters[name] = np.asarray(self.state[full], np.float64)
        found = self._parameters[name]
        return found[self.columns] if name == "lm_head.weight" else found

    def has_parameter(self, name: str) -> bool:
        return name in self.state or PREFIX + name in self.state


def _folded(array: npt.ArrayLike, axes: int) -> np.ndarray:
    """Fold all axes but the last ones into one, in float64."""
    array = np.asarray(array, np.float64)
    return array.reshape(-1, *array.shape[-axes:])


@dataclass
class Site:
    """A place where a step is computed: what it may read there.

    `site[name]` is what another step gave, by its name within the block (`ln_1`;
    `h.i-1` is the block's input) or by its full name.
    """

    reference: Reference
    step: Step
    values: Arrays  # what the steps before gave, theirs where they were dumped
    theirs: np.ndarray | None = None  # what they have for this very step, if dumped
    details: dict[str, str] = field(default_factory=dict)  # what a variant found out

    @property
    def layer(self) -> int | None:
        parts = self.step.name.split(".")
        return int(parts[1]) if parts[0] == "h" else None

    @property
    def local(self) -> str:
        """The step's name within its block."""
        return local_name(self.step.name)

    def __getitem__(self, name: str) -> np.ndarray:
        if name == "h.i-1":
            name = f"h.{self.layer - 1}" if self.layer else "drop"
        elif name == "h.n-1":
            name = f"h.{self.reference.config.n_layer - 1}"
        elif self.layer is not None and name not in self.values:
            name = f"h.{self.layer}.{name}"
        return self.values[name]

    @property
    def inputs(self) -> list[np.ndarray]:
        """What the table says that the step reads, of that what this pass has."""
        return [self.values[name] for name in self.step.inputs if name in self.values]

    @property
    def x(self) -> np.ndarray:
        return self.inputs[0]

    def parameter(self, kind: str, module: str | None = None) -> np.ndarray:
        """Return `weight` or `bias` of the step's module, or of another by full name."""
        return self.reference.parameter(f"{module or self.step.name}.{kind}")

    @property
    def eps(self) -> float:
        return self.reference.config.layer_norm_epsilon

    @property
    def attention(self) -> Any:
        """The block's Attention, which knows its heads and its scale."""
        return self.reference.base.h[self.layer or 0].attn

    def with_past(self, which: str) -> np.ndarray:
        """Return the keys ("k") or values ("v") [B, H, S, D], cached ones first."""
        new = self[f"attn.{which}"]
        if not self.reference.past:
            return new
        cached = self.reference.past[self.layer or 0]["kv".index(which)]
        return np.concatenate([cached, new], axis=2)

    def merged(self, z: np.ndarray) -> np.ndarray:
        """Lay heads side by side for c_proj, which alone of the linear layers reads z."""
        return ops.merge_heads(z) if self.local == "attn.c_proj" else z


def local_name(name: str) -> str:
    """Return a step's name within its block: "" for the block's own output."""
    parts = name.split(".", 2)
    if parts[0] != "h":
        return name
    return parts[2] if len(parts) > 2 else ""


# The ops of tracing/steps.py in float64.


def rows(site: Site) -> np.ndarray:
    reference = site.reference
    ids = {
        "wte": reference.input_ids,
        "wpe": reference.position_ids,
        "wte.types": reference.token_type_ids,
    }[site.local]
    table = site.parameter("weight", site.local.removesuffix(".types"))
    return table[checked.folded(np.asarray(ids))]


def added(site: Site) -> np.ndarray:
    terms = site.inputs
    if site.local == "drop" and site.reference.inputs_embeds is not None:
        terms = [site.reference.inputs_embeds, *terms]
    return sum(terms[1:], terms[0])


def layer_norm(site: Site) -> np.ndarray:
    gain, bias = site.parameter("weight"), site.parameter("bias")
    return ops.layer_norm(site.x, gain, bias, site.eps)


def linear(site: Site) -> np.ndarray:
    if site.local == "lm_head":
        return site.x @ site.parameter("weight").T
    return ops.linear(
        site.merged(site.x), site.parameter("weight"), site.parameter("bias")
    )


def split_heads(site: Site) -> np.ndarray:
    heads = ops.split_heads(site.x, site.attention.n_head)
    return heads["qkv".index(site.local[-1])]


def attention_scores(site: Site) -> np.ndarray:
    return ops.attention_scores(site.x, site.with_past("k"), site.attention.scale)


def mask_scores(site: Site) -> np.ndarray:
    reference = site.reference
    return ops.mask_scores(site.x.copy(), reference.key_mask, reference.score_mask)


def softmax(site: Site) -> np.ndarray:
    return ops.softmax(site.x)


def product(site: Site) -> np.ndarray:
    return site.x @ site.with_past("v")


def activation(site: Site) -> np.ndarray:
    return ops.ACTIVATIONS[site.reference.config.activation_function](site.x)


def cross_entropy(site: Site) -> np.ndarray:
    labels = checked.folded(np.asarray(site.reference.labels))
    return np.asarray(next_id_loss(site.x, labels))


Op = Callable[[Site], np.ndarray | None]
OPS: Mapping[str, Callable[[Site], np.ndarray]] = {
    "rows": rows,
    "sum": added,
    "layer_norm": layer_norm,
    "linear": linear,
    "split_heads": split_heads,
    "attention_scores": attention_scores,
    "mask_scores": mask_scores,
    "softmax": softmax,
    "product": product,
    "activation": activation,
    "cross_entropy": cross_entropy,
}


class Replay:
    """Every step of a pass, each from what they have before it.

    Attributes:
        theirs: {name: array} of what was dumped, in float64.
        predicted: {name: array} of what each step gives in float64 on theirs.
    """

    def __init__(
        self,
        reference: Reference,
        theirs: Arrays | None = None,
        rounding: str | None = None,
    ):
        """
        Args:
            rounding: a precision that each step's result is rounded to, to see what
                that alone does.
        """
        self.reference, self.theirs = reference, dict(theirs or {})
        self.rounding = rounding
        self.predicted: dict[str, np.ndarray] = {}
        self.predicted.update(self._run({}))

    def varied(self, changes: Mapping[str, Op]) -> tuple[dict[str, np.ndarray], str]:
        """Replay with other ops at some steps.

        Returns:
            What those steps give, and all that follow from them up to the next dumped
            ones; and what the changed ops found out. Nothing, if one of them does not
            apply.
        """
        details: dict[str, str] = {}
        fresh = self._run(changes, details)
        return fresh, ", ".join(dict.fromkeys(details.values()))

    def _run(
        self, changes: Mapping[str, Op], details: dict[str, str] | None = None
    ) -> dict[str, np.ndarray]:
        values = {**self.predicted, **self.theirs}
        whole = not self.predicted
        moved: set[str] = set()  # steps whose value is another than before
        fresh = {}
        with np.errstate(all="ignore"):  # theirs may hold inf and NaN
            for step in self.reference.steps:
                name = step.name
                reached = whole or not moved.isdisjoint(step.inputs)
                if name not in changes and not reached:
                    continue
                site = Site(self.reference, step, values, self.theirs.get(name))
                given = changes.get(name, OPS[step.op])(site)
                if given is None:
                    return {}
                if details is not None:
                    details.update(site.details)
                if self.rounding:
                    given = rounded(given, self.rounding)
                fresh[name] = given
                if name not in self.theirs:
                    values[name] = given
                    moved.add(name)
        return fresh

    def segment(self, name: str) -> list[str]:
        """Return the steps, in order, that lie between a dumped one and those before it.

        That is the step itself and what it reads, back to what was dumped.
        """
        inputs = {step.name: step.inputs for step in self.reference.steps}
        found, open_ = {name}, [name]
        while open_:
            for read in inputs.get(open_.pop(), ()):
                if read in inputs and read not in found and read not in self.theirs:
                    found.add(read)
                    open_.append(read)
        return [step.name for step in self.reference.steps if step.name in found]
