"""GPT-2 with other heads: labels of sequences, labels of tokens, spans that answer.

Each is GPT2Model and one linear layer on its last hidden states. Published GPT-2 files
hold no such layer: it is drawn, and to be trained. Follows transformers 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import ops
from .gpt2 import GPT2Model, given_or
from .layers import Head, TorchLinear
from .outputs import (
    BaseModelOutputWithPast,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from .pretrained import PreTrainedModel


class GPT2Classifier(PreTrainedModel):
    """What the three models have in common: GPT2Model, under the name `transformer`."""

    def build(self) -> None:
        self.transformer = GPT2Model(
            self.config, dtype=self.dtype, backend=self.backend, seed=None
        )
        self.build_head()

    def build_head(self) -> None:
        """Make the layer that reads the last hidden states."""
        raise NotImplementedError

    def base_output(self, **arguments: Any) -> BaseModelOutputWithPast:
        """Return what GPT2Model returns for these arguments."""
        base = self.transformer.forward(return_dict=True, **arguments)
        assert isinstance(base, BaseModelOutputWithPast)
        return base


class GPT2ForSequenceClassification(GPT2Classifier):
    """GPT-2 with a head that labels a sequence by its last token: `score` [labels, C]."""

    optional_parameters = ("score.",)

    def build_head(self) -> None:
        self.score = Head(self.config.n_embd, self.config.num_labels, self.ops)

    def forward(
        self,
        input_ids: npt.ArrayLike | None = None,
        *,
        labels: npt.ArrayLike | None = None,
        return_dict: bool | None = None,
        **arguments: Any,
    ) -> SequenceClassifierOutputWithPast | tuple:
        """Compute the logits [B, num_labels] of each sequence's label.

        They are those at its last token: the rightmost id that is not
        config.pad_token_id, on whichever side the padding is. Without a pad_token_id,
        or with inputs_embeds, it is the last position.

        Args:
            input_ids: [B, T].
            labels: [B] for one label of several, [B] numbers for a regression
                (num_labels = 1), [B, num_labels] of 0 and 1 for any number of labels;
                config.problem_type ("single_label_classification", "regression",
                "multi_label_classification") decides, or if it is None their dtype and
                num_labels.
            arguments: of GPT2Model.forward.

        Raises:
            ValueError: as GPT2Model.forward does, for several rows without a
                pad_token_id, and for labels that do not fit.
        """
        base = self.base_output(input_ids=input_ids, **arguments)
        logits = self.score(base.last_hidden_state)  # [B, T, labels]
        if logits.ndim != 3:
            raise ValueError(f"input_ids must be (batch, length), not {logits.ndim}-D")
        last = self.last_tokens(input_ids, *logits.shape[:2])
        logits = logits[np.arange(len(logits)), last]
        loss = None if labels is None else label_loss(logits, labels, self.config)
        output = SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=base.past_key_values,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
        )
        return output.as_asked(given_or(return_dict, self.config.return_dict))

    def last_tokens(
        self, input_ids: npt.ArrayLike | None, batch: int, length: int
    ) -> np.ndarray:
        """Return the position [B] of each row's last token."""
        padding = self.config.pad_token_id
        if padding is None and batch > 1:
            raise ValueError(
                f"{batch} rows need a config.pad_token_id, which tells where they end"
            )
        if padding is None or input_ids is None:
            return np.full(batch, length - 1)
        tokens = np.asarray(input_ids) != padding
        return (np.arange(length) * tokens).argmax(axis=-1)


class GPT2ForTokenClassification(GPT2Classifier):
    """GPT-2 with a head that labels each token: `classifier` [labels, C] and bias."""

    optional_parameters = ("classifier.",)

    def build_head(self) -> None:
        config = self.config
        self.classifier = TorchLinear(config.n_embd, config.num_labels, self.ops)
        names = ("classifier_dropout", "hidden_dropout")
        given = (getattr(config, name, None) for name in names)
        self.pdrop = next((p for p in given if p is not None), 0.1)

    def forward(
        self,
        input_ids: npt.ArrayLike | None = None,
        *,
        labels: npt.ArrayLike | None = None,
        return_dict: bool | None = None,
        generator: np.random.Generator | None = None,
        **arguments: Any,
    ) -> TokenClassifierOutput | tuple:
        """Compute the logits [..., T, num_labels] of each token's label.

        Args:
            labels: [..., T], 0 .. num_labels-1; -100 and -1 do not count. (Nothing is
                shifted: each token's own label.)
            arguments: of GPT2Model.forward, as are all others.

        Raises:
            ValueError: as GPT2Model.forward does, and for labels that do not fit.
        """
        base = self.base_output(input_ids=input_ids, generator=generator, **arguments)
        hidden = base.last_hidden_state
        if self.training and generator is not None:
            hidden = ops.dropout(hidden, self.pdrop, generator)
        logits = self.classifier(hidden)
        loss = None
        if labels is not None:
            loss = class_loss(logits, labels, "labels")
        output = TokenClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
        )
        return output.as_asked(given_or(return_dict, self.config.return_dict))


class GPT2ForQuestionAnswering(GPT2Classifier):
    """GPT-2 with a head for the span that answers: `qa_outputs` [2, C] and bias."""

    optional_parameters = ("qa_outputs.",)

    def build_head(self) -> None:
        self.qa_outputs = TorchLinear(self.config.n_embd, 2, self.ops)

    def forward(
        self,
        input_ids: npt.ArrayLike | None = None,
        *,
        start_positions: npt.ArrayLike | None = None,
        end_positions: npt.ArrayLike | None = None,
        return_dict: bool | None = None,
        **arguments: Any,
    ) -> QuestionAnsweringModelOutput | tuple:
        """Compute the logits [B, T] of each position to be the span's start, and end.

        Args:
            input_ids: [B, T].
            start_positions: [B], where the answers start. With end_positions, the loss
                is the mean of the two cross entropies; positions from T on do not count.
            end_positions: [B], where they end.
            arguments: of GPT2Model.forward.

        Raises:
            ValueError: as GPT2Model.forward does, and for positions that do not fit.
        """
        base = self.base_output(input_ids=input_ids, **arguments)
        logits = self.qa_outputs(base.last_hidden_state)  # [B, T, 2]
        start_logits, end_logits = logits[..., 0], logits[..., 1]
        loss = None
        if start_positions is not None and end_positions is not None:
            losses = (
                position_loss(start_logits, start_positions, "start_positions"),
                position_loss(end_logits, end_positions, "end_positions"),
            )
            loss = (losses[0] + losses[1]) / 2
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
        )
        return output.as_asked(given_or(return_dict, self.config.return_dict))


def label_loss(logits: np.ndarray, labels: npt.ArrayLike, config: Any) -> np.floating:
    """The loss of logits [B, num_labels] by the kind of problem, see `forward`."""
    labels = np.asarray(labels)
    problem = config.problem_type
    if problem is None and config.num_labels == 1:
        problem = "regression"
    elif problem is None:
        single = labels.dtype.kind in "iu"
        problem = f"{'single' if single else 'multi'}_label_classification"
    if problem == "single_label_classification":
        return class_loss(logits, labels, "labels")
    if problem == "regression" and config.num_labels == 1:
        logits = logits[:, 0]
        labels = labels.reshape(-1)
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels have shape {labels.shape}; a {problem} needs {logits.shape}"
        )
    labels = labels.astype(logits.dtype)
    if problem == "regression":
        return np.square(logits - labels).mean()
    if problem == "multi_label_classification":
        # -log sigmoid(x) of a 1 and -log(1 - sigmoid(x)) of a 0, without overflow
        losses = np.maximum(logits, 0.0) - logits * labels
        losses += np.log1p(np.exp(-np.abs(logits)))
        return losses.mean()
    raise ValueError(
        f"config.problem_type is {problem!r}; known are None, 'regression', "
        "'single_label_classification' and 'multi_label_classification'"
    )


def class_loss(logits: np.ndarray, labels: npt.ArrayLike, name: str) -> np.floating:
    """Cross entropy of logits [..., N] against labels [...]."""
    labels = np.asarray(labels)
    if labels.shape != logits.shape[:-1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{name} have shape {labels.shape} and dtype {labels.dtype}; they must be "
            f"integers of shape {logits.shape[:-1]}"
        )
    return ops.cross_entropy(logits, labels)


def position_loss(
    logits: np.ndarray, positions: npt.ArrayLike, name: str
) -> np.floating:
    """Cross entropy of logits [B, T] against positions [B]; those from T on are left out.

    Raises ValueError for negative ones, which transformers takes for 0.
    """
    positions = np.asarray(positions)
    if positions.shape == (len(logits), 1):
        positions = positions[:, 0]
    if positions.size and positions.dtype.kind in "iu" and positions.min() < 0:
        raise ValueError(f"{name} holds {positions.min()}: positions count from 0")
    labels = np.where(positions < logits.shape[-1], positions, ops.IGNORED_LABELS[0])
    return class_loss(logits, labels, name)
