"""What a forward pass returns: fields to read by name, by key or by position.

`out.logits`, `out["logits"]` and `out[0]` are the same array. Positions count only the
fields that are not None, in the order in which the classes list them, so that code
written for pytorch-transformers' tuples (`loss, logits = out[:2]`) works too.

Iteration goes over the names, as in transformers. So `logits, past = model(ids)`, which
unpacked pytorch-transformers' tuples, needs `model(ids).to_tuple()`, or a model whose
configuration says return_dict=False.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self


class FieldName(str):
    """A name that says what to do if it is taken for the array of this name."""

    def _hint(self) -> str:
        return (
            f"{str(self)!r} is the name of an output: unpacking gives names, as in "
            "transformers. Unpack out.to_tuple(), or call with return_dict=False"
        )

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self._hint()}. (A str has no {name!r}.)")

    def __getitem__(self, key: Any) -> str:
        if isinstance(key, (int, slice)):
            return super().__getitem__(key)
        raise TypeError(self._hint())


@dataclass
class ModelOutput:
    """A record of arrays; a field that was not asked for is None and does not count."""

    aliases: ClassVar[dict[str, str]] = {}  # another name -> the field that it names

    def __getattr__(
        self, name: str
    ) -> Any:  # only asked when ordinary look-up has failed
        target = type(self).aliases.get(name)
        if target is None:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        return getattr(self, target)

    def to_tuple(self) -> tuple:
        """Return the fields that are not None, in order."""
        return tuple(self[name] for name in self.keys())

    def as_asked(self, return_dict: bool) -> Self | tuple:
        """Return self, or with return_dict=False `to_tuple()`."""
        return self if return_dict else self.to_tuple()

    def keys(self) -> list[str]:
        """Return the names of the fields that are not None, in order."""
        names = [field.name for field in fields(self)]
        return [name for name in names if getattr(self, name) is not None]

    def values(self) -> tuple:
        """Return the fields that are not None, in order: `to_tuple()`."""
        return self.to_tuple()

    def items(self) -> list[tuple[str, Any]]:
        """Return (name, value) pairs of the fields that are not None, in order."""
        return [(name, self[name]) for name in self.keys()]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the field `name`, or `default` if it is None or unknown."""
        value = getattr(self, name, None)
        return default if value is None else value

    def __getitem__(self, key: str | int | slice) -> Any:
        if not isinstance(key, str):
            return self.to_tuple()[key]
        if key not in self:
            raise KeyError(f"{key!r}; this output has {', '.join(self.keys())}")
        return getattr(self, key)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.aliases.get(name, name) in self.keys()

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a field; KeyError for a name that is none."""
        key = self.aliases.get(key, key)
        if key not in [field.name for field in fields(self)]:
            raise KeyError(f"{type(self).__name__} has no field {key!r}")
        setattr(self, key, value)

    def __iter__(self) -> Iterator[str]:
        return map(FieldName, self.keys())

    def __len__(self) -> int:
        return len(self.keys())


@dataclass
class BaseModelOutputWithPast(ModelOutput):
    """What GPT2Model returns. `...` is the shape of input_ids without its last axis.

    - last_hidden_state [..., T, C]: the residual stream after the final layer norm.
    - past_key_values: per layer (keys, values), each [B, H, S, D]; see cache.KVCache.
    - hidden_states: n_layer + 1 arrays [..., T, C]: the embeddings, the residual stream
      after each block but the last, and last_hidden_state.
    - attentions: n_layer arrays [..., H, T, S]: the attention weights, after head_mask.
    """

    last_hidden_state: Any = None
    past_key_values: Any = None
    hidden_states: Any = None
    attentions: Any = None


@dataclass
class CausalLMOutputWithPast(ModelOutput):
    """What GPT2LMHeadModel returns; the fields not listed are as in the base model's.

    - loss: mean cross entropy in nats of the labels, if there were any.
    - logits [..., T, V]: those of the next id after each position (with
      logits_to_keep=n, of the last n positions only).
    """

    loss: Any = None
    logits: Any = None
    past_key_values: Any = None
    hidden_states: Any = None
    attentions: Any = None


@dataclass
class GPT2DoubleHeadsModelOutput(ModelOutput):
    """What GPT2DoubleHeadsModel returns; the fields not listed are as in the others.

    - lm_loss: mean cross entropy in nats of lm_labels, if there were any. transformers
      calls it `loss` since 4.0, which names the same field here.
    - mc_loss: mean cross entropy in nats of mc_labels over the choices, if any.
    - lm_logits [..., T, V]: those of the next id; by its later name `logits`.
    - mc_logits [...]: a logit for each sequence, so [B, choices] for ids of
      [B, choices, T]. Another axis follows if config.summary_use_proj or
      config.summary_proj_to_labels is False: C numbers for each.
    """

    aliases: ClassVar = {"loss": "lm_loss", "logits": "lm_logits"}

    lm_loss: Any = None
    mc_loss: Any = None
    lm_logits: Any = None
    mc_logits: Any = None
    past_key_values: Any = None
    hidden_states: Any = None
    attentions: Any = None


@dataclass
class SequenceClassifierOutputWithPast(ModelOutput):
    """What GPT2ForSequenceClassification returns; see the other outputs.

    - loss: of the labels, if there were any.
    - logits [B, num_labels].
    """

    loss: Any = None
    logits: Any = None
    past_key_values: Any = None
    hidden_states: Any = None
    attentions: Any = None


@dataclass
class TokenClassifierOutput(ModelOutput):
    """What GPT2ForTokenClassification returns; see the other outputs.

    - loss: mean cross entropy in nats of the labels, if there were any.
    - logits [..., T, num_labels].
    """

    loss: Any = None
    logits: Any = None
    hidden_states: Any = None
    attentions: Any = None


@dataclass
class QuestionAnsweringModelOutput(ModelOutput):
    """What GPT2ForQuestionAnswering returns; see the other outputs.

    - loss: the mean of the two cross entropies in nats, if positions were given.
    - start_logits, end_logits [B, T].
    """

    loss: Any = None
    start_logits: Any = None
    end_logits: Any = None
    hidden_states: Any = None
    attentions: Any = None
