"""GPT2DoubleHeadsModel: which id comes next, and which of some choices is right.

The second head is the one that GPT-1 was fine-tuned with (Radford et al. 2018, section
3.3): the choices, each a sequence of ids, go through the model side by side on an axis
of their own; one vector of each sequence is turned into one logit; the softmax over the
choices is the answer.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import ops as reference_ops
from ..config import GPT2Config
from . import inputs
from .gpt2 import GPT2LMHeadModel, given_or, next_id_loss, only_one
from .layers import Activation, Module, Observer, TorchLinear, dropping, seen
from .outputs import BaseModelOutputWithPast, GPT2DoubleHeadsModelOutput

SUMMARY_TYPES = ("cls_index", "last", "first", "mean")


class SequenceSummary(Module):
    """Hidden states [..., T, C] -> one vector, or one logit, for each sequence.

    What the configuration says:
    - summary_type: the vector is that of the position "cls_index" (an argument; the
      last one if it is None), "last", "first", or the "mean" over all of them.
    - summary_use_proj: whether a linear layer follows; summary_proj_to_labels: whether
      that gives one logit, as for choices it must, rather than C numbers.
    - summary_activation: None, or one of the names in ops.ACTIVATIONS.
    - summary_first_dropout, summary_last_dropout: before the layer and after it all.

    Raises ValueError for another summary_type or activation. (`num_labels` plays no
    part: as in transformers since 2.9.)
    """

    def __init__(self, config: GPT2Config, ops: ModuleType):
        if config.summary_type not in SUMMARY_TYPES:
            raise ValueError(
                f"summary_type is {config.summary_type!r}; known are "
                + ", ".join(SUMMARY_TYPES)
            )
        activation = config.summary_activation
        if activation and activation not in reference_ops.ACTIVATIONS:
            raise ValueError(
                f"summary_activation is {activation!r}; known are None, "
                + ", ".join(reference_ops.ACTIVATIONS)
            )
        self.type = config.summary_type
        self.summary = None
        if config.summary_use_proj:
            width = 1 if config.summary_proj_to_labels else config.n_embd
            self.summary = TorchLinear(config.n_embd, width, ops)
        self.activation = Activation(activation, reference_ops) if activation else None
        self.first_dropout = config.summary_first_dropout
        self.last_dropout = getattr(config, "summary_last_dropout", 0.0)

    def __call__(
        self,
        hidden: np.ndarray,
        index: npt.ArrayLike | None = None,
        generator: np.random.Generator | None = None,
        trace: Observer | None = None,
    ) -> np.ndarray:
        x = self.select(hidden, index)  # [..., C]
        drop = dropping(trace, self, "first_kept", self.first_dropout, generator)
        if drop is not None:
            x = drop(x)
        x = seen(trace, self, "selected", x)
        if self.summary is not None:
            x = seen(trace, self.summary, "", self.summary(x))  # [..., 1 or C]
        if self.activation is not None:
            x = self.activation(x)
        drop = dropping(trace, self, "last_kept", self.last_dropout, generator)
        return x if drop is None else drop(x)

    def select(self, hidden: np.ndarray, index: npt.ArrayLike | None) -> np.ndarray:
        """Return the vectors [..., C] that stand for the sequences [..., T, C]."""
        if self.type == "mean":
            return hidden.mean(axis=-2)
        at = self.positions(index, hidden.shape[:-2], hidden.shape[-2])
        return np.take_along_axis(hidden, at, axis=-2)[..., 0, :]

    def positions(
        self, index: npt.ArrayLike | None, leading: tuple[int, ...], length: int
    ) -> np.ndarray:
        """Return the position [..., 1, 1] that stands for each sequence of a length."""
        if self.type == "first":
            return np.zeros((*leading, 1, 1), int)
        if self.type == "last" or index is None:
            return np.full((*leading, 1, 1), length - 1)
        if np.shape(index) != leading:
            raise ValueError(
                f"mc_token_ids has shape {np.shape(index)}; it must be {leading}: a "
                "position for each sequence"
            )
        index = inputs.ids(np.atleast_1d(index), "mc_token_ids", length)
        return index.reshape(*leading, 1, 1)


class GPT2DoubleHeadsModel(GPT2LMHeadModel):
    """GPT-2 with a language-modelling head and a multiple-choice head."""

    # Published GPT-2 checkpoints have no such head; it is drawn, and to be trained.
    optional_parameters = ("multiple_choice_head.",)

    def build(self) -> None:
        super().build()
        self.multiple_choice_head = SequenceSummary(self.config, self.ops)

    def forward(  # type: ignore[override]  # the documented order has labels elsewhere
        self,
        input_ids: npt.ArrayLike | None = None,
        past: Any = None,
        attention_mask: npt.ArrayLike | None = None,
        token_type_ids: npt.ArrayLike | None = None,
        position_ids: npt.ArrayLike | None = None,
        head_mask: npt.ArrayLike | None = None,
        inputs_embeds: npt.ArrayLike | None = None,
        mc_token_ids: npt.ArrayLike | None = None,
        lm_labels: npt.ArrayLike | None = None,
        mc_labels: npt.ArrayLike | None = None,
        *,
        labels: npt.ArrayLike | None = None,
        past_key_values: Any = None,
        logits_to_keep: npt.ArrayLike = 0,
        return_dict: bool | None = None,
        generator: np.random.Generator | None = None,
        trace: Observer | None = None,
        **options: Any,
    ) -> GPT2DoubleHeadsModelOutput | tuple:
        """Compute the logits of the next ids, and one logit for each sequence.

        Summaries are taken along the positions. transformers takes "last", "first" and
        "mean" along the choices when there is such an axis, which can't be meant.

        Args:
            input_ids: [B, choices, T], the choices of each question, padded to one
                length, on the right; or any other leading axes.
            mc_token_ids: [B, choices], the position whose hidden state stands for the
                sequence: by default the last of the T, be it padding or not. (By
                upstream's name; these are positions, not ids.)
            lm_labels: [B, choices, T], as GPT2LMHeadModel's labels.
            mc_labels: [B], the choice that is right, 0 .. choices-1; -100 and -1 do not
                count.
            labels: the later name of lm_labels.
            options: of GPT2Model.forward, as are all other arguments, or of
                GPT2LMHeadModel.forward.

        Raises:
            ValueError: as they do, and for mc_token_ids or mc_labels that do not fit.
        """
        labels = only_one(lm_labels=lm_labels, labels=labels)
        base = self.transformer.forward(
            input_ids,
            past,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            past_key_values=past_key_values,
            return_dict=True,
            generator=generator,
            trace=trace,
            **options,
        )
        assert isinstance(base, BaseModelOutputWithPast)
        hidden = base.last_hidden_state  # [..., T, C]
        lm_logits = self.logits_of(hidden, logits_to_keep, labels)  # [..., T, V]
        mc_logits = self.choice_logits(
            hidden, mc_token_ids, generator if self.training else None, trace
        )
        lm_logits = seen(trace, self.lm_head, "", lm_logits)
        mc_logits = seen(trace, self.multiple_choice_head, "", mc_logits)
        lm_loss = mc_loss = None
        if labels is not None:
            lm_loss = seen(trace, self, "loss", next_id_loss(lm_logits, labels))
        if mc_labels is not None:
            mc_loss = seen(trace, self, "mc_loss", choice_loss(mc_logits, mc_labels))
        output = GPT2DoubleHeadsModelOutput(
            lm_loss=lm_loss,
            mc_loss=mc_loss,
            lm_logits=lm_logits,
            mc_logits=mc_logits,
            past_key_values=base.past_key_values,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
        )
        return output.as_asked(given_or(return_dict, self.config.return_dict))

    def choice_logits(
        self,
        hidden: np.ndarray,
        mc_token_ids: npt.ArrayLike | None,
        generator: np.random.Generator | None,
        trace: Observer | None = None,
    ) -> np.ndarray:
        """Return the logits [..., choices] of hidden states [..., choices, T, C]."""
        logits = self.multiple_choice_head(hidden, mc_token_ids, generator, trace)
        return logits[..., 0] if logits.shape[-1] == 1 else logits


def choice_loss(logits: np.ndarray, labels: npt.ArrayLike) -> np.floating:
    """Cross entropy of the logits [..., choices] against the right choices [...]."""
    labels = np.asarray(labels)
    if labels.shape != logits.shape[:-1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"mc_labels have shape {labels.shape} and dtype {labels.dtype}; they must "
            f"be integers of shape {logits.shape[:-1]}: the right one of "
            f"{logits.shape[-1]} choices for each"
        )
    return reference_ops.cross_entropy(logits, labels)
